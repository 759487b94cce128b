//! The socket on which tasks tell how far they are. One for a run, in the abstract name space, so that a read-only
//! root or another root directory does no harm; whose a message is, is proved by the sender's pid.

use std::ffi::CString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, bind, recvmsg,
    socket_with,
};
use rustix::process::Pid;

use super::{Message, parse};
use crate::names::RunId;
use crate::process::tree::Stat;

/// How far up a sender's ancestors are looked through for the task it belongs to.
const MAX_DEPTH: usize = 64;

/// The receiving end.
#[derive(Debug)]
pub struct Inbox {
    socket: OwnedFd,
    name: String,
}

/// A datagram and the process the kernel says it comes from.
#[derive(Debug)]
pub struct Letter {
    /// The sender.
    pub sender: Pid,
    /// What it says.
    pub messages: Vec<Message>,
}

impl Inbox {
    /// Opens the socket of a run.
    ///
    /// # Errors
    /// The kernel refuses it; the run goes on without.
    pub fn open(run: &RunId) -> io::Result<Self> {
        let name = format!("runner/{run}");
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        set_socket_passcred(&socket, true)?;
        bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        Ok(Self { socket, name })
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
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16), ScmCredentials(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let received = recvmsg(&self.socket, &mut [IoSliceMut::new(&mut text)], &mut ancillary, RecvFlags::CMSG_CLOEXEC);
            let length = match received {
                Ok(received) => received.bytes,
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return None,
            };
            // Draining drops the descriptors that came along, and that closes them.
            let credentials = ancillary.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmCredentials(credentials) => Some(credentials.pid),
                _ => None,
            });
            if let Some(sender) = credentials.last() {
                return Some(Letter { sender, messages: parse(&text[..length]) });
            }
        }
    }
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
