//! Hears of new jobs: a thread with a connection of its own waits for NOTIFY and rings a bell. It ends when nobody
//! listens to the bell any more.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use fallible_iterator::FallibleIterator;

use super::address::Server;
use super::line::connect;

/// The name of the channel.
pub const CHANNEL: &str = "runner_jobs";
/// How long is waited before a lost connection is made anew. Jobs are found by looking meanwhile.
const AGAIN: Duration = Duration::from_secs(5);
/// How often it is looked whether anybody still listens.
const CHECK: Duration = Duration::from_secs(30);

/// Starts the thread.
///
/// # Errors
/// No thread is to be had.
#[expect(clippy::disallowed_methods, reason = "the library can only wait for a notification in a thread of its own")]
pub fn listen(server: Server, bell: UnixDatagram) -> io::Result<()> {
    let body = move || {
        // Nobody ever sends: a wait that can be counted on.
        let (_keep, wait) = mpsc::channel::<()>();
        loop {
            if let Err(why) = hear(&server, &bell) {
                log::debug!("{}: new jobs are not heard of, {why}; workers look by themselves", server.name);
            }
            // Whoever missed something looks once.
            if gone(bell.send(b"j")) || wait.recv_timeout(AGAIN) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    };
    std::thread::Builder::new().name("notify".to_owned()).spawn(body).map(|_| ())
}

fn hear(server: &Server, bell: &UnixDatagram) -> Result<(), String> {
    let mut client = connect(server).map_err(|error| error.why)?;
    client.batch_execute(&format!("LISTEN {CHANNEL}")).map_err(|error| error.to_string())?;
    if gone(bell.send(b"j")) {
        return Ok(());
    }
    loop {
        let heard = client.notifications().timeout_iter(CHECK).next().map_err(|error| error.to_string())?;
        let word = heard.map(|heard| if heard.payload() == "cancel" { b"c" } else { b"j" });
        let sent = word.map_or(Ok(0), |word| bell.send(word));
        if gone(sent) || client.is_closed() {
            return Ok(());
        }
    }
}

/// Whether nobody listens any more. A bell that is full has rung.
fn gone(sent: io::Result<usize>) -> bool {
    sent.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock)
}
