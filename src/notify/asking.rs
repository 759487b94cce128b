//! Asks the runs of this machine how they stand, on the sockets on which they hear their tasks, and how they answer; tells
//! one of them to stop. A run opens that socket anyway: that it can be asked costs it nothing until somebody does.

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_passcred, set_socket_timeout};
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
/// So many runs are asked on one socket: it takes eleven datagrams that nobody has read yet (net.unix.max_dgram_qlen), and of more
/// answers the rest would be lost.
const AT_ONCE: usize = 8;
/// How long a run that is to stop may take to make room for that word.
const ROOM_WITHIN: Duration = Duration::from_secs(1);
/// The same where runs are only asked, for each round of all that have none.
const ROOM_SOON: Duration = Duration::from_millis(20);

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
        send(&self.0, &format!("{NAME_START}{run}"), STOP, ROOM_WITHIN) == Sent::There
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
    hear(&names, patience)
}

/// The names of the sockets, from the kernel's list (proc_net(5)): the last column, where `@` stands for the abstract name space.
fn names(list: &str) -> Vec<String> {
    let name = |line: &str| Some(line.split_ascii_whitespace().next_back()?.strip_prefix('@')?.to_owned());
    list.lines().filter_map(name).filter(|name| name.starts_with(NAME_START)).collect()
}

fn open() -> Result<OwnedFd, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    set_socket_passcred(&socket, true)?;
    // Without a name the kernel finds one (autobind, unix(7)).
    bind(&socket, &SocketAddrUnix::new_unnamed())?;
    Ok(socket)
}

/// What became of a word to a run.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    /// It will be read.
    There,
    /// What its tasks say has filled its socket; there is room again when it reads.
    Full,
    /// Nobody is there.
    Gone,
}

/// Sends a word, and waits so long where there is no room for it: whoever waits has his turn, even beside a task that speaks without
/// pause, which poll(2) and another try would hardly ever have.
fn send(socket: &OwnedFd, name: &str, word: &[u8], patience: Duration) -> Sent {
    let flags = if patience.is_zero() { SendFlags::DONTWAIT } else { SendFlags::empty() };
    let limited = set_socket_timeout(socket, Timeout::Send, Some(patience).filter(|patience| !patience.is_zero()));
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes());
    match limited.and(address).and_then(|address| sendto(socket, word, flags, &address)) {
        Ok(_) => Sent::There,
        Err(Errno::AGAIN) => Sent::Full,
        Err(_) => Sent::Gone,
    }
}

/// A socket on which some were asked.
struct Asked {
    socket: OwnedFd,
    unanswered: usize,
    /// Those that had no room for the question yet.
    full: Vec<String>,
}

impl Asked {
    fn of(names: &[String]) -> Result<Self, Errno> {
        let mut asked = Self { socket: open()?, unanswered: 0, full: names.to_vec() };
        asked.ask(Duration::ZERO);
        Ok(asked)
    }

    /// Asks those that were not asked yet, and waits so long for the room of each.
    fn ask(&mut self, patience: Duration) {
        let Self { socket, unanswered, full } = self;
        full.retain(|name| {
            let sent = send(socket, name, QUESTION, patience);
            *unanswered += usize::from(sent == Sent::There);
            sent == Sent::Full
        });
    }
}

/// Asks them, and hears their answers: all of them at once, so that those that are silent keep nobody waiting.
fn hear(names: &[String], patience: Duration) -> Vec<Vec<u8>> {
    let refused = |error: &Errno| log::debug!("runs cannot be asked how they stand: {error}");
    collect(names.chunks(AT_ONCE).map_while(|names| Asked::of(names).inspect_err(refused).ok()).collect(), patience)
}

fn collect(mut asked: Vec<Asked>, patience: Duration) -> Vec<Vec<u8>> {
    let clock = SystemClock::new();
    let until = clock.now() + patience;
    let mut answers = Vec::new();
    while !asked.is_empty() && clock.now() < until {
        let full: usize = asked.iter().map(|asked| asked.full.len()).sum();
        let soon = ROOM_SOON / u32::try_from(full).unwrap_or(u32::MAX).max(1);
        asked.iter_mut().for_each(|asked| asked.ask(soon));
        let all_asked = asked.iter().all(|asked| asked.full.is_empty());
        wait(asked.iter().map(|asked| &asked.socket), if all_asked { until } else { clock.now() }, &clock);
        for asked in &mut asked {
            while let Some((answer, trusted)) = receive(&asked.socket) {
                asked.unanswered = asked.unanswered.saturating_sub(1);
                if trusted {
                    answers.push(answer);
                }
            }
        }
        asked.retain(|asked| asked.unanswered > 0 || !asked.full.is_empty());
    }
    answers
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
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut ancillary, RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT).ok()?;
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
            0000000000000000: 00000002 00000000 00000000 0002 01 4 @0001f\n";
        assert_eq!(names(list), ["runner/4062abca-0-491c45375bfc07b4"]);
    }

    #[test]
    fn a_run_that_is_asked_answers_and_one_that_is_frozen_keeps_nobody() {
        let inbox = Inbox::open(&RunId::new("asked", std::process::id(), 1)).unwrap();
        let frozen = Inbox::open(&RunId::new("asked", std::process::id(), 2)).unwrap();
        let asker = open().unwrap();
        assert_eq!(
            [named(&inbox).as_str(), "runner/gone"].map(|name| send(&asker, name, QUESTION, Duration::ZERO)),
            [Sent::There, Sent::Gone]
        );
        let letter = inbox.next_letter().unwrap();
        inbox.answer(letter.asker.as_ref().unwrap(), b"well");
        assert_eq!(receive(&asker), Some((b"well".to_vec(), true)));
        assert_eq!(hear(&[named(&frozen)], Duration::from_millis(50)), [[0; 0]; 0]);
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

    fn a_hundred(start: &str) -> (Vec<Inbox>, Vec<String>) {
        let inboxes: Vec<Inbox> = (0..100).map(|run| Inbox::open(&RunId::new(start, std::process::id(), run)).unwrap()).collect();
        let names = inboxes.iter().map(named).collect();
        (inboxes, names)
    }

    #[test]
    fn a_hundred_runs_of_one_program_are_all_heard() {
        let (inboxes, names) = a_hundred("many");
        let heard = std::thread::scope(|scope| {
            let heard = scope.spawn(|| hear(&names, Duration::from_secs(60)));
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
        let (inboxes, names) = a_hundred("late");
        let heard = std::thread::scope(|scope| {
            let heard = scope.spawn(|| hear(&names, Duration::from_secs(60)));
            // The last of them is asked although none of the others has answered.
            let (last, others) = inboxes.split_last().unwrap();
            while !answers(last) {
                std::thread::yield_now();
            }
            assert!(others.iter().all(answers));
            heard.join().unwrap()
        });
        assert_eq!(heard.len(), 100);
    }

    /// Its tasks have said so much that there is room for nothing else.
    fn fill(inbox: &Inbox) {
        let task = open().unwrap();
        while send(&task, &named(inbox), b"STATUS=on and on", Duration::ZERO) == Sent::There {}
    }

    #[test]
    fn a_run_whose_tasks_speak_without_pause_is_asked_when_it_has_room() {
        let inbox = Inbox::open(&RunId::new("talk", std::process::id(), 1)).unwrap();
        fill(&inbox);
        let asked = Asked::of(&[named(&inbox)]).unwrap();
        assert_eq!((asked.unanswered, asked.full.len()), (0, 1));
        let heard = std::thread::scope(|scope| {
            let heard = scope.spawn(|| collect(vec![asked], Duration::from_secs(60)));
            while !answers(&inbox) {
                std::thread::yield_now();
            }
            heard.join().unwrap()
        });
        assert_eq!(heard, [b"well".to_vec()]);
        fill(&inbox);
        let run = RunId::new("talk", std::process::id(), 1).to_string();
        std::thread::scope(|scope| {
            let told = scope.spawn(|| Stopper::open().unwrap().tell(&run));
            let is_stop = |letter: &crate::notify::inbox::Letter| letter.stops;
            while !inbox.next_letter().as_ref().is_some_and(is_stop) {
                std::thread::yield_now();
            }
            assert!(told.join().unwrap());
        });
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
