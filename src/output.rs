//! What a task writes, where it does not write to our descriptors itself: marked lines, and the tail that is kept.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::names::printable;
use crate::report::sink::{self, Stream};

/// How much of a task's output is kept, in bytes.
pub const TAIL: usize = 64 * 1024;
/// A line without an end is cut here: a task that writes no line feed must not fill our memory.
const LONGEST_LINE: usize = 16 * 1024;
/// How much is read of one pipe before others have their turn.
const READ_AT_ONCE: usize = 64 * 1024;
/// How much is read of a pipe whose task is gone: as much as a pipe can hold (pipe(7)). What a process that lives on
/// writes meanwhile is its own, and must not keep us.
const DRAIN: usize = 1024 * 1024;

/// The pipes of one try and what came through them.
#[derive(Debug)]
pub struct Capture {
    prefix: String,
    echo: bool,
    pipes: Vec<Pipe>,
    tail: VecDeque<u8>,
    lost: u64,
}

#[derive(Debug)]
struct Pipe {
    fd: OwnedFd,
    stream: Stream,
    /// What has come of a line that has not ended.
    begun: Vec<u8>,
}

/// The ends a task writes to.
#[derive(Debug)]
pub struct WriteEnds {
    /// Its standard output.
    pub out: OwnedFd,
    /// Its standard error.
    pub err: OwnedFd,
}

impl Capture {
    /// Pipes for a try of the task `name`. With `echo` each line is passed on as it comes, marked with the name.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn new(name: &str, echo: bool) -> io::Result<(Self, WriteEnds)> {
        let pipe = |stream| -> io::Result<(Pipe, OwnedFd)> {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            // Ours only: a task expects its end to block.
            rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK)?;
            Ok((Pipe { fd: read, stream, begun: Vec::new() }, write))
        };
        let ((out_pipe, out), (err_pipe, err)) = (pipe(Stream::Out)?, pipe(Stream::Err)?);
        let capture =
            Self { prefix: format!("{} | ", printable(name)), echo, pipes: vec![out_pipe, err_pipe], tail: VecDeque::new(), lost: 0 };
        Ok((capture, WriteEnds { out, err }))
    }

    /// The descriptors that become readable when there is more.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.pipes.iter().map(|pipe| pipe.fd.as_fd())
    }

    /// Whether somebody may still write.
    pub fn is_open(&self) -> bool {
        !self.pipes.is_empty()
    }

    /// Reads what there is, without waiting.
    pub fn read(&mut self) {
        self.read_up_to(READ_AT_ONCE);
    }

    /// The task is gone: reads what it wrote last, and ends the lines it left open.
    pub fn finish(&mut self) {
        self.read_up_to(DRAIN);
        for at in 0..self.pipes.len() {
            self.end_line(at);
        }
    }

    /// The end of what was written, and how many bytes before it are lost.
    pub fn take_tail(&mut self) -> (Vec<u8>, u64) {
        (std::mem::take(&mut self.tail).into(), self.lost)
    }

    fn read_up_to(&mut self, most: usize) {
        let mut buffer = vec![0; READ_AT_ONCE.min(most)];
        let mut at = 0;
        while at < self.pipes.len() {
            let mut left = most;
            let ended = loop {
                match rustix::io::read(&self.pipes[at].fd, &mut buffer[..]) {
                    Ok(0) => break true,
                    Ok(length) => {
                        self.take_in(at, &buffer[..length]);
                        left = left.saturating_sub(length);
                        if left == 0 {
                            break false;
                        }
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(rustix::io::Errno::AGAIN) => break false,
                    Err(_) => break true,
                }
            };
            if ended {
                self.end_line(at);
                self.pipes.remove(at);
            } else {
                at += 1;
            }
        }
    }

    fn take_in(&mut self, at: usize, bytes: &[u8]) {
        self.tail.extend(bytes);
        let over = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..over);
        self.lost += over as u64;
        if !self.echo {
            return;
        }
        let pipe = &mut self.pipes[at];
        let mut lines = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            pipe.begun.extend_from_slice(part);
            if part.ends_with(b"\n") || pipe.begun.len() >= LONGEST_LINE {
                lines.extend_from_slice(self.prefix.as_bytes());
                lines.append(&mut pipe.begun);
                if !lines.ends_with(b"\n") {
                    lines.push(b'\n');
                }
            }
        }
        if !lines.is_empty() {
            sink::write(pipe.stream, &lines);
        }
    }

    fn end_line(&mut self, at: usize) {
        let pipe = &mut self.pipes[at];
        if !pipe.begun.is_empty() {
            let mut line = self.prefix.clone().into_bytes();
            line.append(&mut pipe.begun);
            line.push(b'\n');
            sink::write(pipe.stream, &line);
        }
    }
}
