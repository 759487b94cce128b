//! Asks the runs of this machine how they stand, on the sockets on which they hear their tasks, and how they answer. A run
//! opens that socket anyway: that it can be asked costs it nothing until somebody does.

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, UCred, bind,
    recvmsg, sendto, socket_with,
};

use super::inbox::NAME_START;
use crate::clock::{Clock, Moment, SystemClock};

/// What is asked: the whole of a datagram.
pub const QUESTION: &[u8] = b"X_RUNNER_ASKS=1";
/// The longest answer. A datagram holds a little more where nobody has changed the kernel's limits (net.core.wmem_default).
pub const LONGEST: usize = 150 * 1024;
/// How many names are tried for the socket that hears the answers.
const NAMES: u32 = 100;

/// Whether the kernel says of the other side that it is root or the user we are.
pub fn is_trusted(credentials: &UCred) -> bool {
    credentials.uid.is_root() || credentials.uid == rustix::process::geteuid()
}

/// Asks all of them, and waits for their answers, but no longer than `patience`: one that is frozen says nothing.
/// Answers of other users are not believed.
pub fn ask_all(patience: Duration) -> Vec<Vec<u8>> {
    let names = names(&fs::read_to_string("/proc/net/unix").unwrap_or_default());
    if names.is_empty() {
        return Vec::new();
    }
    match open() {
        Ok(socket) => hear(&socket, ask(&socket, &names), patience),
        Err(error) => {
            log::debug!("runs cannot be asked how they stand: {error}");
            Vec::new()
        }
    }
}

/// The names of the sockets, from the kernel's list (proc_net(5)): the last column, where `@` stands for the abstract name space.
fn names(list: &str) -> Vec<String> {
    let name = |line: &str| Some(line.split_ascii_whitespace().next_back()?.strip_prefix('@')?.to_owned());
    list.lines().filter_map(name).filter(|name| name.starts_with(NAME_START)).collect()
}

fn open() -> Result<OwnedFd, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    set_socket_passcred(&socket, true)?;
    let pid = std::process::id();
    let taken = |number: u32| bind(&socket, &SocketAddrUnix::new_abstract_name(format!("runner-asks/{pid}-{number}").as_bytes())?);
    // Processes of other PID name spaces may have our number.
    (0..NAMES).map(taken).find(|bound| *bound != Err(Errno::ADDRINUSE)).unwrap_or(Err(Errno::ADDRINUSE))?;
    Ok(socket)
}

/// How many were asked.
fn ask(socket: &OwnedFd, names: &[String]) -> usize {
    let ask_one = |name: &String| {
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
        sendto(socket, QUESTION, SendFlags::empty(), &address)
    };
    names.iter().filter(|name| ask_one(name).is_ok()).count()
}

fn hear(socket: &OwnedFd, asked: usize, patience: Duration) -> Vec<Vec<u8>> {
    let clock = SystemClock::new();
    let until = clock.now() + patience;
    let mut answers = Vec::new();
    let mut heard = 0;
    while heard < asked && wait(socket, until, &clock) {
        while let Some((answer, trusted)) = receive(socket) {
            heard += 1;
            if trusted {
                answers.push(answer);
            }
        }
    }
    answers
}

fn wait(socket: &OwnedFd, until: Moment, clock: &dyn Clock) -> bool {
    let left = Timespec::try_from(until.since(clock.now())).unwrap_or_default();
    poll(&mut [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)], Some(&left)).is_ok_and(|ready| ready > 0)
}

fn receive(socket: &OwnedFd) -> Option<(Vec<u8>, bool)> {
    let mut text = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut ancillary, RecvFlags::CMSG_CLOEXEC).ok()?;
    let trusted = ancillary.drain().any(|message| match message {
        RecvAncillaryMessage::ScmCredentials(credentials) => is_trusted(&credentials),
        _ => false,
    });
    text.truncate(received.bytes);
    Some((text, trusted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::RunId;
    use crate::notify::inbox::Inbox;

    #[test]
    fn the_kernel_names_the_sockets_of_runs() {
        let list = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 1 @runner/4062abca-0-491c45375bfc07b4\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 2 /run/runner/x\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 3\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 4 @runner-asks/12-0\n";
        assert_eq!(names(list), ["runner/4062abca-0-491c45375bfc07b4"]);
    }

    #[test]
    fn a_run_that_is_asked_answers_and_one_that_is_frozen_keeps_nobody() {
        let inbox = Inbox::open(&RunId::new("asked", std::process::id(), 1)).unwrap();
        let frozen = Inbox::open(&RunId::new("asked", std::process::id(), 2)).unwrap();
        let name = |inbox: &Inbox| inbox.variable().unwrap().to_str().unwrap().split_once('@').unwrap().1.to_owned();
        let socket = open().unwrap();
        assert_eq!(ask(&socket, &[name(&inbox), name(&frozen), "runner/gone".to_owned()]), 2);
        let letter = inbox.next_letter().unwrap();
        inbox.answer(letter.asker.as_ref().unwrap(), b"well");
        assert_eq!(hear(&socket, 2, Duration::from_millis(50)), [b"well".to_vec()]);
    }
}
