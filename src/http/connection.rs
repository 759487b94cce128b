//! One connection: a request comes in, an answer goes out, and that is all. Knows when it has taken too long; it never
//! waits itself.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::guard::Peer;
use super::request::{Head, MAX_HEAD, Method, Request, parse};
use super::response::{Code, Response};
use crate::clock::Moment;

/// How long an answer that is out waits for the other end to close. Closing at once would make the kernel throw the
/// answer away if there is something that was not read (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(1);
/// How much is read and thrown away meanwhile: a body, or what else was sent.
const LINGER_BYTES: usize = 256 * 1024;

#[derive(Debug)]
enum State {
    /// The head is coming.
    Reading(Vec<u8>),
    /// The answer is being made.
    Waiting,
    /// The answer goes out; so much of it has gone.
    Writing(Vec<u8>, usize),
    /// The answer is out; so much is read until the other end closes.
    Lingering(usize),
    /// Over.
    Closed,
}

/// What came of reading.
#[derive(Debug)]
pub(super) enum Heard {
    /// Nothing to be done.
    Nothing,
    /// A request.
    Request(Request),
    /// Something that is none, and what is said to it.
    Wrong(Response),
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: u64,
    pub(super) peer: Peer,
    /// Whether `allow` has the address.
    pub(super) trusted: bool,
    pub(super) since: Moment,
    fd: OwnedFd,
    limit: Duration,
    deadline: Moment,
    state: State,
    head_only: bool,
}

impl Connection {
    pub(super) fn new(id: u64, (fd, peer): (OwnedFd, Peer), trusted: bool, limit: Duration, now: Moment) -> Self {
        let state = State::Reading(Vec::new());
        Self { id, peer, trusted, since: now, fd, limit, deadline: now + limit, state, head_only: false }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What is listened for. A connection that waits for its answer is told of an error all the same.
    pub(super) fn events(&self) -> PollFlags {
        match self.state {
            State::Reading(_) | State::Lingering(_) => PollFlags::IN,
            State::Writing(..) => PollFlags::OUT,
            State::Waiting | State::Closed => PollFlags::empty(),
        }
    }

    pub(super) fn deadline(&self) -> Moment {
        self.deadline
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether its request has not come yet.
    pub(super) fn is_reading(&self) -> bool {
        matches!(self.state, State::Reading(_))
    }

    /// The descriptor is ready: does what can be done without waiting.
    pub(super) fn advance(&mut self, now: Moment) -> Heard {
        match self.state {
            State::Reading(_) => return self.read(),
            State::Writing(..) => self.write(now),
            State::Lingering(_) => self.drain(),
            // Nothing was listened for: the other end is gone.
            State::Waiting | State::Closed => self.state = State::Closed,
        }
        Heard::Nothing
    }

    fn read(&mut self) -> Heard {
        let State::Reading(head) = &mut self.state else { return Heard::Nothing };
        loop {
            let mut buffer = [0; MAX_HEAD];
            let room = MAX_HEAD - head.len();
            match recv(&self.fd, &mut buffer[..room], RecvFlags::empty()) {
                Ok((_, 0)) => break,
                Ok((_, length)) => head.extend_from_slice(&buffer[..length]),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Heard::Nothing,
                Err(_) => break,
            }
            match parse(head) {
                Head::Partial => {}
                Head::Wrong(wrong) => {
                    self.state = State::Waiting;
                    return Heard::Wrong(wrong.response());
                }
                Head::Complete(request) => {
                    self.head_only = request.method == Method::Head;
                    self.state = State::Waiting;
                    return Heard::Request(request);
                }
            }
        }
        // It ended before its head did.
        self.state = State::Closed;
        Heard::Nothing
    }

    /// Sends the answer, as much as goes at once.
    pub(super) fn answer(&mut self, response: &Response, now: Moment, date: jiff::Timestamp) {
        if self.is_closed() {
            return;
        }
        self.deadline = now + self.limit;
        self.state = State::Writing(response.encode(self.head_only, date), 0);
        self.write(now);
    }

    fn write(&mut self, now: Moment) {
        let State::Writing(bytes, sent) = &mut self.state else { return };
        while *sent < bytes.len() {
            match send(&self.fd, &bytes[*sent..], SendFlags::NOSIGNAL) {
                Ok(length) => *sent += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.state = State::Closed;
                    return;
                }
            }
        }
        if shutdown(&self.fd, Shutdown::Write).is_err() {
            self.state = State::Closed;
            return;
        }
        self.deadline = now + LINGER.min(self.limit);
        self.state = State::Lingering(LINGER_BYTES);
        self.drain();
    }

    fn drain(&mut self) {
        let State::Lingering(left) = &mut self.state else { return };
        let mut buffer = [0; 16 * 1024];
        while *left > 0 {
            match recv(&self.fd, &mut buffer, RecvFlags::empty()) {
                Ok((_, 0)) => break,
                Ok((_, length)) => *left = left.saturating_sub(length),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => break,
            }
        }
        self.state = State::Closed;
    }

    /// Its time is up, or its place is needed: says so where somebody waits for an answer, and closes.
    pub(super) fn end(&mut self, now: Moment, date: jiff::Timestamp) {
        let words = match &self.state {
            State::Reading(head) if !head.is_empty() => Some((Code::Timeout, "the request took too long to come")),
            State::Waiting => Some((Code::Unavailable, "the daemon did not answer in time")),
            // Who has said nothing is told nothing; who does not read or close is not waited for.
            State::Reading(_) | State::Writing(..) | State::Lingering(_) | State::Closed => None,
        };
        match words {
            Some((code, text)) => self.answer(&Response::text(code, text), now, date),
            None => self.state = State::Closed,
        }
    }
}
