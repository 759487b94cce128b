//! The signals that tell us to stop, and the one that tells of children, as a descriptor to poll.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use super::unix;

/// Signals that stop a chain. HUP does because nothing here can be reloaded, QUIT because the user who types it
/// would otherwise leave the tasks behind; so would the others, which people and limits of processor time send.
const STOPS: [i32; 8] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGXCPU];

/// What has arrived since the last look.
#[derive(Debug, Default)]
pub struct Arrived {
    /// Signals to stop, in the order of their numbers; one that came twice between two looks counts once.
    pub stops: Vec<i32>,
    /// A child, ours or adopted, has ended.
    pub child: bool,
}

/// The receiving end of our signal handlers.
#[derive(Debug)]
pub struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
    hears_children: bool,
}

impl Signals {
    /// Installs the handlers. What our parent ignored stays without effect (`nohup`, a shell's
    /// background job); TERM is heard always: an init system must be able to stop us.
    ///
    /// # Errors
    /// The kernel refuses a socket pair or a handler.
    pub fn install() -> io::Result<Self> {
        let stops = STOPS.iter().filter(|signal| **signal == SIGTERM || !unix::inherited_ignored().contains(signal));
        let (read, write) = UnixStream::pair()?;
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, stops)?;
        Ok(Self { delivery, hears_children: false })
    }

    /// Hears of every child that ends from now on, adopted ones included. Ours are heard of without this, and the
    /// handler costs more than the rest of a short task's supervision.
    pub fn hear_children(&mut self) {
        match self.delivery.handle().add_signal(SIGCHLD) {
            Ok(()) => self.hears_children = true,
            Err(error) => log::debug!("adopted processes are buried at the end of each task: {error}"),
        }
    }

    /// Whether it does.
    pub fn hears_children(&self) -> bool {
        self.hears_children
    }

    /// Becomes readable when a signal has arrived.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }

    /// Takes what has arrived.
    pub fn take(&mut self) -> Arrived {
        let mut arrived = Arrived::default();
        for signal in self.delivery.pending() {
            if signal == SIGCHLD {
                arrived.child = true;
            } else {
                arrived.stops.push(signal);
            }
        }
        arrived
    }
}
