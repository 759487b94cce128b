//! Asks the runs of this machine how they stand, on the sockets on which they hear their tasks, and how they answer; tells
//! one of them to stop. A run opens that socket anyway: that it can be asked costs it nothing until somebody does.

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, recvmsg,
    sendto, socket_with,
};

use super::{NAME_START, QUESTION, STOP, is_trusted};
use crate::clock::{Clock, Moment, SystemClock};

/// How the answer begins of a run that was told to stop; its id follows.
const HEARD: &str = "X_RUNNER_STOPPING=";
/// How the word begins that such a run is over; its id follows, a blank, and how it ended.
const ENDED: &str = "X_RUNNER_ENDED=";
/// The longest answer. A datagram holds a little more where nobody has changed the kernel's limits (net.core.wmem_default).
pub const LONGEST: usize = 150 * 1024;
/// So many runs may owe one socket an answer: it takes eleven datagrams that nobody has read yet (net.unix.max_dgram_qlen), and of
/// more answers the rest would be lost.
const AT_ONCE: usize = 8;
/// Those that have not answered for so long keep the others waiting no longer: they are asked on another socket.
const SILENT_AFTER: Duration = Duration::from_millis(100);
/// How many names are tried for the socket that hears the answers.
const NAMES: u32 = 100;

/// What a run says that was told to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The run of this id has heard it.
    Heard(String),
    /// The run of this id is over; the word for how it ended.
    Ended(String, String),
}

impl Said {
    /// As it is sent.
    pub fn text(&self) -> String {
        match self {
            Self::Heard(run) => format!("{HEARD}{run}"),
            Self::Ended(run, how) => format!("{ENDED}{run} {how}"),
        }
    }

    fn read(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let ended = || text.strip_prefix(ENDED)?.split_once(' ').map(|(run, how)| Self::Ended(run.to_owned(), how.to_owned()));
        text.strip_prefix(HEARD).map(|run| Self::Heard(run.to_owned())).or_else(ended)
    }
}

/// The ids of the runs of this machine that can be asked.
pub fn there() -> Vec<String> {
    let names = names(&fs::read_to_string("/proc/net/unix").unwrap_or_default());
    names.iter().filter_map(|name| name.strip_prefix(NAME_START)).map(str::to_owned).collect()
}

/// Somebody who tells runs to stop, and hears when they are over.
#[derive(Debug)]
pub struct Stopper(OwnedFd);

impl Stopper {
    /// Opens the socket on which the answers come.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn open() -> std::io::Result<Self> {
        Ok(Self(open()?))
    }

    /// Tells the run of this id to stop. `false` where nobody hears it.
    pub fn tell(&self, run: &str) -> bool {
        let to = SocketAddrUnix::new_abstract_name(format!("{NAME_START}{run}").as_bytes());
        to.and_then(|address| sendto(&self.0, STOP, SendFlags::empty(), &address)).is_ok()
    }

    /// What runs say, as soon as one says something; nothing when none does for so long. Answers of other users are not believed.
    pub fn hear(&self, patience: Duration) -> Vec<Said> {
        let clock = SystemClock::new();
        if !wait([&self.0].into_iter(), clock.now() + patience, &clock) {
            return Vec::new();
        }
        let all = std::iter::from_fn(|| receive(&self.0));
        all.filter(|(_, trusted)| *trusted).filter_map(|(text, _)| Said::read(&text)).collect()
    }
}

/// Asks all of them, and waits for their answers, but no longer than `patience`: one that is frozen says nothing.
/// Answers of other users are not believed.
pub fn ask_all(patience: Duration) -> Vec<Vec<u8>> {
    let names = names(&fs::read_to_string("/proc/net/unix").unwrap_or_default());
    if names.is_empty() {
        return Vec::new();
    }
    hear(&names, patience).unwrap_or_else(|error| {
        log::debug!("runs cannot be asked how they stand: {error}");
        Vec::new()
    })
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

/// Whether somebody is there who hears the question.
fn ask(socket: &OwnedFd, name: &str) -> bool {
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes());
    address.and_then(|address| sendto(socket, QUESTION, SendFlags::empty(), &address)).is_ok()
}

/// A socket on which some were asked.
struct Asked {
    socket: OwnedFd,
    unanswered: usize,
}

impl Asked {
    fn open() -> Result<Self, Errno> {
        Ok(Self { socket: open()?, unanswered: 0 })
    }
}

/// Asks them, not too many at once, and hears their answers.
fn hear(names: &[String], patience: Duration) -> Result<Vec<Vec<u8>>, Errno> {
    let clock = SystemClock::new();
    let until = clock.now() + patience;
    let mut names = names.iter();
    let mut answers = Vec::new();
    let mut silent: Vec<Asked> = Vec::new();
    let mut asked = Asked::open()?;
    loop {
        while asked.unanswered < AT_ONCE
            && let Some(name) = names.next()
        {
            asked.unanswered += usize::from(ask(&asked.socket, name));
        }
        let all = || silent.iter().chain([&asked]);
        if all().all(|asked| asked.unanswered == 0) {
            return Ok(answers);
        }
        let next = if names.len() > 0 { until.min(clock.now() + SILENT_AFTER) } else { until };
        if !wait(all().map(|asked| &asked.socket), next, &clock) {
            match Asked::open() {
                Ok(next) if clock.now() < until => silent.push(std::mem::replace(&mut asked, next)),
                Ok(_) | Err(_) => return Ok(answers),
            }
        }
        for asked in silent.iter_mut().chain([&mut asked]) {
            while let Some((answer, trusted)) = receive(&asked.socket) {
                asked.unanswered = asked.unanswered.saturating_sub(1);
                if trusted {
                    answers.push(answer);
                }
            }
        }
    }
}

/// Whether one of them can be read before that moment.
fn wait<'a>(sockets: impl Iterator<Item = &'a OwnedFd>, until: Moment, clock: &dyn Clock) -> bool {
    let left = Timespec::try_from(until.since(clock.now())).unwrap_or_default();
    let mut sockets: Vec<_> = sockets.map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)).collect();
    poll(&mut sockets, Some(&left)).is_ok_and(|ready| ready > 0)
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
        let asker = open().unwrap();
        assert!(ask(&asker, &named(&inbox)) && !ask(&asker, "runner/gone"));
        let letter = inbox.next_letter().unwrap();
        inbox.answer(letter.asker.as_ref().unwrap(), b"well");
        assert_eq!(receive(&asker), Some((b"well".to_vec(), true)));
        assert_eq!(hear(&[named(&frozen)], Duration::from_millis(50)), Ok(Vec::new()));
    }

    fn named(inbox: &Inbox) -> String {
        inbox.variable().unwrap().to_str().unwrap().split_once('@').unwrap().1.to_owned()
    }

    /// Answers, if it was asked.
    fn answers(inbox: &Inbox) -> bool {
        let asker = inbox.next_letter().and_then(|letter| letter.asker);
        asker.is_some_and(|asker| {
            inbox.answer(&asker, b"well");
            true
        })
    }

    #[test]
    fn a_hundred_runs_of_one_program_are_all_heard() {
        let inboxes: Vec<Inbox> = (0..100).map(|run| Inbox::open(&RunId::new("many", std::process::id(), run)).unwrap()).collect();
        let names: Vec<String> = inboxes.iter().map(named).collect();
        let heard = std::thread::scope(|scope| {
            let heard = scope.spawn(|| hear(&names, Duration::from_secs(60)).unwrap());
            let mut open: Vec<&Inbox> = inboxes.iter().collect();
            while !open.is_empty() {
                open.retain(|inbox| !answers(inbox));
            }
            heard.join().unwrap()
        });
        assert_eq!(heard.len(), 100);
    }

    #[test]
    fn whoever_answers_late_and_all_at_once_is_heard_as_well() {
        let inboxes: Vec<Inbox> = (0..40).map(|run| Inbox::open(&RunId::new("late", std::process::id(), run)).unwrap()).collect();
        let names: Vec<String> = inboxes.iter().map(named).collect();
        let heard = std::thread::scope(|scope| {
            let heard = scope.spawn(|| hear(&names, Duration::from_secs(60)).unwrap());
            // The last of them is asked when all the others have been silent for a while.
            let (last, others) = inboxes.split_last().unwrap();
            while !answers(last) {
                std::thread::yield_now();
            }
            assert!(others.iter().all(answers));
            heard.join().unwrap()
        });
        assert_eq!(heard.len(), 40);
    }

    #[test]
    fn a_run_is_told_to_stop_and_says_when_it_is_over() {
        let run = RunId::new("stopped", std::process::id(), 1);
        let inbox = Inbox::open(&run).unwrap();
        let stopper = Stopper::open().unwrap();
        assert!(there().contains(&run.to_string()));
        assert!(stopper.tell(run.as_str()) && !stopper.tell("nobody"));
        let letter = inbox.next_letter().unwrap();
        assert!(letter.stops && letter.messages.is_empty());
        let words = [Said::Heard(run.to_string()), Said::Ended(run.to_string(), "signalled".to_owned())];
        words.iter().for_each(|word| inbox.answer(letter.asker.as_ref().unwrap(), word.text().as_bytes()));
        assert_eq!(stopper.hear(Duration::from_secs(30)), words);
        drop(inbox);
        assert!(!there().contains(&run.to_string()));
    }
}
