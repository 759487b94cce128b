//! Writing to stdout and stderr so that nothing we print can hurt a run: no panic on a closed pipe or a full disk,
//! and no wait for a reader who has gone to sleep.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, OnceLock, PoisonError};

use indicatif::MultiProgress;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::FileType;

/// How long a reader may take before lines are dropped, once; after that nothing waits until it reads again.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
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

#[derive(Debug, Default)]
struct State {
    /// Whether a write can block: a pipe, a socket, a terminal. Looked at once.
    can_block: Option<bool>,
    stalled: bool,
    lost: u64,
}

static OUT: Mutex<State> = Mutex::new(State { can_block: None, stalled: false, lost: 0 });
static ERR: Mutex<State> = Mutex::new(State { can_block: None, stalled: false, lost: 0 });
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

fn write_raw(stream: Stream, bytes: &[u8]) {
    let (out, err) = (io::stdout(), io::stderr());
    let (fd, state) = match stream {
        Stream::Out => (out.as_fd(), &OUT),
        Stream::Err => (err.as_fd(), &ERR),
    };
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let can_block = *state.can_block.get_or_insert_with(|| can_block(fd));
    if can_block && !wait_writable(fd, state.stalled) {
        state.stalled = true;
        state.lost += 1;
        return;
    }
    state.stalled = false;
    if state.lost > 0 {
        let note = format!("[{} lines were lost: nobody read them]\n", state.lost);
        state.lost = 0;
        let _ = rustix::io::write(fd, note.as_bytes());
    }
    for part in bytes.chunks(ATOMIC) {
        if !write_part(fd, part, can_block) {
            state.stalled = can_block;
            return;
        }
    }
}

fn write_part(fd: BorrowedFd<'_>, mut part: &[u8], can_block: bool) -> bool {
    while !part.is_empty() {
        if can_block && !wait_writable(fd, false) {
            return false;
        }
        match rustix::io::write(fd, part) {
            Ok(written) => part = &part[written.min(part.len())..],
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => return false,
        }
    }
    true
}

fn can_block(fd: BorrowedFd<'_>) -> bool {
    match rustix::fs::fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Ok(FileType::Fifo | FileType::Socket) => true,
        Ok(FileType::CharacterDevice) => rustix::termios::isatty(fd),
        Ok(_) | Err(_) => false,
    }
}

fn wait_writable(fd: BorrowedFd<'_>, stalled: bool) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    let patience = if stalled { Timespec::default() } else { PATIENCE };
    loop {
        match rustix::event::poll(&mut fds, Some(&patience)) {
            // A reader that has gone polls as an error; the write then says so at once.
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}
