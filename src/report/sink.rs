//! Writing to stdout and stderr so that nothing we print can hurt a run: no panic on a closed pipe or a full disk,
//! and no wait for a reader who has gone to sleep.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use indicatif::MultiProgress;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, Mode, OFlags};

use crate::clock::{Clock, Moment, SystemClock};

/// How long a reader may take nothing at all before lines are dropped, once; after that nothing waits until it reads again.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// How long one call may wait for a reader who is slow: limits of time have to be looked at now and then.
const LONGEST: Duration = Duration::from_secs(5);
/// What a pipe that polls as writable takes without blocking (PIPE_BUF, pipe(7)).
const ATOMIC: usize = 4096;

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

#[derive(Debug)]
struct State {
    /// Where to write, and whether that can block: a pipe, a socket, a terminal. Looked at once.
    way: Option<Way>,
    /// The reader has been waited for, and has not read all that came since.
    stalled: bool,
    /// How many lines are lost since, and whether the last one that was written has no end.
    lost: usize,
    begun: bool,
}

#[derive(Debug)]
struct Way {
    /// A terminal opened once more, for us alone: one that polls as writable may have room for a single byte, and what
    /// is more would block. The description we were given is shared with tasks and stays as it is.
    own: Option<OwnedFd>,
    can_block: bool,
}

impl State {
    const NEW: Self = Self { way: None, stalled: false, lost: 0, begun: false };
}

static OUT: Mutex<State> = Mutex::new(State::NEW);
static ERR: Mutex<State> = Mutex::new(State::NEW);
static BARS: OnceLock<MultiProgress> = OnceLock::new();

/// Progress bars are drawn from now on: they step aside for every line.
pub fn make_way_for(bars: MultiProgress) {
    let _ = BARS.set(bars);
}

/// Writes whole lines. What cannot be written is lost; how many lines that were is told when writing works again.
pub fn write(stream: Stream, bytes: &[u8]) {
    match BARS.get() {
        Some(bars) => bars.suspend(|| write_raw(stream, bytes)),
        None => write_raw(stream, bytes),
    }
}

/// Writes past the bars: what they are drawn with.
pub(super) fn write_raw(stream: Stream, bytes: &[u8]) {
    let (out, err) = (io::stdout(), io::stderr());
    let (fd, state) = match stream {
        Stream::Out => (out.as_fd(), &OUT),
        Stream::Err => (err.as_fd(), &ERR),
    };
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let State { way, stalled, lost, begun } = &mut *state;
    let way = way.get_or_insert_with(|| Way::of(fd));
    let mut turn = Turn { fd: way.own.as_ref().map_or(fd, AsFd::as_fd), can_block: way.can_block, asleep: *stalled, waits_since: None };
    *stalled = false;
    if *lost > 0 {
        let end = if *begun { "\n" } else { "" };
        let note = format!("{end}[{lost} lines were lost: nobody read them]\n");
        if turn.write(note.as_bytes()) < note.len() {
            *lost += count_lines(bytes);
            *stalled = true;
            return;
        }
        *lost = 0;
    }
    let written = turn.write(bytes);
    if written < bytes.len() {
        *lost = count_lines(&bytes[written..]);
        *begun = *lost > 0 && written > 0 && bytes[written - 1] != b'\n';
        *stalled = true;
    }
}

fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

impl Way {
    fn of(fd: BorrowedFd<'_>) -> Self {
        let kind = rustix::fs::fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let terminal = matches!(kind, Ok(FileType::CharacterDevice)) && rustix::termios::isatty(fd);
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let again = || rustix::fs::open(format!("/proc/self/fd/{}", fd.as_raw_fd()), flags, Mode::empty()).ok();
        Self { own: terminal.then(again).flatten(), can_block: terminal || matches!(kind, Ok(FileType::Fifo | FileType::Socket)) }
    }
}

/// One call, and how long it has waited for the reader.
struct Turn<'a> {
    fd: BorrowedFd<'a>,
    can_block: bool,
    /// The reader has taken nothing for long enough.
    asleep: bool,
    /// When it was first waited for; the clock is only asked when there is something to wait for.
    waits_since: Option<Moment>,
}

impl Turn<'_> {
    /// Writes as much as the reader takes. Where nobody can ever read it, all of it counts as written.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            if self.can_block && !self.wait_writable() {
                return written;
            }
            match rustix::io::write(self.fd, &bytes[written..bytes.len().min(written + ATOMIC)]) {
                Ok(length) => written += length,
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(_) => return bytes.len(),
            }
        }
        written
    }

    fn wait_writable(&mut self) -> bool {
        if poll_writable(self.fd, Timespec::default()) {
            return true;
        }
        let now = SystemClock::new().now();
        let waited = now.since(*self.waits_since.get_or_insert(now));
        self.asleep |= waited >= LONGEST || !poll_writable(self.fd, if self.asleep { Timespec::default() } else { PATIENCE });
        !self.asleep
    }
}

fn poll_writable(fd: BorrowedFd<'_>, patience: Timespec) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    loop {
        match rustix::event::poll(&mut fds, Some(&patience)) {
            // A reader that has gone polls as an error; the write then says so at once.
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}
