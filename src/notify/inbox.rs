//! The socket on which tasks tell how far they are. One for a run, in the abstract name space, so that a read-only
//! root or another root directory does no harm; whose a message is, is proved by the sender's pid.

use std::cell::OnceCell;
use std::ffi::CString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc;

use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, recvmsg,
    sendto, socket_with,
};
use rustix::process::Pid;

use super::{Message, NAME_START, QUESTION, STOP, is_trusted, parse};
use crate::names::RunId;
use crate::process::tree::Stat;

/// How far up a sender's ancestors are looked through for the task it belongs to.
const MAX_DEPTH: usize = 64;
/// How many descriptors a datagram may bring (SCM_MAX_FD, unix(7)). There is room for all: the kernel would close the
/// others on our way out of recvmsg, where nobody could do it for us.
const MAX_DESCRIPTORS: usize = 253;

/// A socket that has no name yet, made a moment before it is needed.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// A new one.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn new() -> io::Result<Self> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        set_socket_passcred(&socket, true)?;
        Ok(Self(socket))
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Inbox {
    socket: OwnedFd,
    name: String,
    /// Closes what may take its time, once there was such a thing.
    closer: OnceCell<Option<mpsc::Sender<OwnedFd>>>,
}

/// A datagram and the process the kernel says it comes from.
#[derive(Debug)]
pub struct Letter {
    /// The sender.
    pub sender: Pid,
    /// What it says.
    pub messages: Vec<Message>,
    /// It asks how the run stands, or wants it to stop, and has the right to: where the answer goes.
    pub asker: Option<SocketAddrUnix>,
    /// It wants the run to stop.
    pub stops: bool,
}

impl Inbox {
    /// Opens the socket of a run.
    ///
    /// # Errors
    /// The kernel refuses it; the run goes on without.
    pub fn open(run: &RunId) -> io::Result<Self> {
        Self::at(Socket::new()?, run)
    }

    /// Makes a socket that of a run.
    ///
    /// # Errors
    /// The kernel refuses it; the run goes on without.
    pub fn at(Socket(socket): Socket, run: &RunId) -> io::Result<Self> {
        let name = format!("{NAME_START}{run}");
        bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        Ok(Self { socket, name, closer: OnceCell::new() })
    }

    /// The variable that tells a task of it.
    pub fn variable(&self) -> Option<CString> {
        CString::new(format!("NOTIFY_SOCKET=@{}", self.name)).ok()
    }

    /// Becomes readable when there is a letter.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next letter, if there is one. Descriptors in it are closed, which is what a sender of BARRIER=1 waits for.
    pub fn next_letter(&self) -> Option<Letter> {
        loop {
            let mut text = [0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS), ScmCredentials(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let received = recvmsg(&self.socket, &mut [IoSliceMut::new(&mut text)], &mut ancillary, RecvFlags::CMSG_CLOEXEC);
            let (length, address) = match received {
                Ok(received) => (received.bytes, received.address),
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return None,
            };
            let mut sender = None;
            for message in ancillary.drain() {
                match message {
                    RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials),
                    RecvAncillaryMessage::ScmRights(descriptors) => descriptors.for_each(|fd| self.close(fd)),
                    _ => {}
                }
            }
            if let Some(sender) = sender {
                let stops = &text[..length] == STOP;
                let asker = address.filter(|_| stops || &text[..length] == QUESTION).and_then(|address| address.try_into().ok());
                let asker = asker.filter(|asker| is_trusted(&sender) || self.refuse(asker));
                return Some(Letter { sender: sender.pid, messages: parse(&text[..length]), asker, stops });
            }
        }
    }
}

impl Inbox {
    /// Answers who asked. Nobody is waited for: an asker who does not read misses the answer.
    pub fn answer(&self, asker: &SocketAddrUnix, text: &[u8]) {
        if let Err(error) = sendto(&self.socket, text, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, asker) {
            log::debug!("somebody who asked is not answered: {error}");
        }
    }

    /// Says nothing to somebody else's question, which is an answer: nobody has to wait for another. Never `true`.
    fn refuse(&self, asker: &SocketAddrUnix) -> bool {
        self.answer(asker, b"");
        false
    }

    /// Closes a descriptor of a task. That of a barrier is a pipe's, which is closed at once; others may keep whoever
    /// closes them, a socket that lingers for hours, and so another thread does it.
    fn close(&self, descriptor: OwnedFd) {
        if rustix::pipe::fcntl_getpipe_size(&descriptor).is_err()
            && let Some(closer) = self.closer.get_or_init(start_closer)
        {
            let _ = closer.send(descriptor);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this file owns the thread that closes what tasks send")]
fn start_closer() -> Option<mpsc::Sender<OwnedFd>> {
    let (sender, descriptors) = mpsc::channel();
    let close_all = move || descriptors.into_iter().for_each(drop);
    std::thread::Builder::new().name("closer".into()).spawn(close_all).is_ok().then_some(sender)
}

/// Which of `leaders` a process descends from or belongs to: the first one met on the way up, or the one whose group
/// it is in. A sender that has ended already can prove nothing (systemd-notify waits for us with BARRIER=1).
pub fn leader_of(sender: Pid, leaders: &[Pid]) -> Option<Pid> {
    let mut pid = sender;
    for _ in 0..MAX_DEPTH {
        if leaders.contains(&pid) {
            return Some(pid);
        }
        let stat = Stat::of(pid)?;
        let in_group = leaders.iter().find(|leader| [stat.group, stat.session].contains(&leader.as_raw_pid()));
        if let Some(leader) = in_group {
            return Some(*leader);
        }
        pid = Pid::from_raw(stat.parent)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg_addr, sockopt};

    use super::*;

    #[test]
    fn a_descriptor_that_is_slow_to_close_keeps_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut lingers = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _never_reads = listener.accept().unwrap();
        sockopt::set_socket_linger(&lingers, Some(Duration::from_secs(3600))).unwrap();
        lingers.set_nonblocking(true).unwrap();
        while lingers.write(&[0; 65536]).is_ok() {}

        let inbox = Inbox::open(&RunId::new("linger", std::process::id(), 1)).unwrap();
        let task = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [lingers.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let address = SocketAddrUnix::new_abstract_name(inbox.name.as_bytes()).unwrap();
        sendmsg_addr(&task, &address, &[IoSlice::new(b"WATCHDOG=1")], &mut ancillary, SendFlags::empty()).unwrap();
        drop(lingers);
        // The last one who holds it is the inbox now; closing it here would take an hour.
        assert_eq!(inbox.next_letter().unwrap().messages, [Message::Alive]);
        assert!(inbox.next_letter().is_none());
    }
}
