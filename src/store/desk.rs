//! A thread that owns the database, so that a slow or absent one never holds up whoever supervises processes: requests go
//! over a channel, answers come back over another, and a descriptor becomes readable when there is one.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd};

use super::{Store, StoreError};

/// The first wait before the database is tried again.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The wait doubles up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Names a request among the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// How the database does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Not tried yet.
    Opening,
    /// The last request was done.
    Good,
    /// It is away, for this reason; it is tried again and again.
    Away(String),
}

/// What is to be done. It may be called again: after a failure that may pass it is tried until it works.
type Request<A> = Box<dyn FnMut(&mut dyn Store) -> Result<A, StoreError> + Send>;
/// How the database is opened; called again after every failure of the connection.
type Open = Box<dyn FnMut() -> Result<Box<dyn Store>, StoreError> + Send>;

/// The caller's side of the desk. `A` is what answers are made of: mostly an enum of the caller's own.
pub struct Desk<A> {
    requests: Sender<(Ticket, Request<A>)>,
    answers: Receiver<(Ticket, Result<A, StoreError>)>,
    bell: Arc<OwnedFd>,
    health: Arc<Mutex<Health>>,
    /// Dropped with the desk: ends a wait for the database to come back.
    stay: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    last: u64,
    open: usize,
}

impl<A> fmt::Debug for Desk<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("open", &self.open).field("health", &self.health()).finish_non_exhaustive()
    }
}

impl<A: Send + 'static> Desk<A> {
    /// Starts the thread, which opens the database with `open` and tries again for as long as it takes.
    ///
    /// # Errors
    /// No descriptor or no thread is to be had.
    #[expect(clippy::disallowed_methods, reason = "the one thread that may wait for a database")]
    pub fn new(open: impl FnMut() -> Result<Box<dyn Store>, StoreError> + Send + 'static) -> io::Result<Self> {
        let (requests, incoming) = mpsc::channel();
        let (outgoing, answers) = mpsc::channel();
        let (stay, stays) = mpsc::channel();
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let health = Arc::new(Mutex::new(Health::Opening));
        let clerk = Clerk { open: Box::new(open), store: None, incoming, outgoing, bell: bell.clone(), health: health.clone(), stays };
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || clerk.work())?;
        Ok(Self { requests, answers, bell, health, stay: Some(stay), thread: Some(thread), last: 0, open: 0 })
    }

    /// Hands a request over. The answers come in the order of the requests.
    pub fn ask(&mut self, request: impl FnMut(&mut dyn Store) -> Result<A, StoreError> + Send + 'static) -> Ticket {
        self.last += 1;
        let ticket = Ticket(self.last);
        // The thread ends only after this end is dropped.
        if self.requests.send((ticket, Box::new(request))).is_ok() {
            self.open += 1;
        }
        ticket
    }

    /// The answers that have come since the last call. An error is one that will not pass by itself.
    pub fn answers(&mut self) -> Vec<(Ticket, Result<A, StoreError>)> {
        silence(&self.bell);
        let answers: Vec<_> = self.answers.try_iter().collect();
        self.open -= answers.len().min(self.open);
        answers
    }

    /// How many requests have no answer yet.
    pub fn open_requests(&self) -> usize {
        self.open
    }

    /// Waits for the answers to all requests, but not longer than `limit`: for the end of a daemon.
    pub fn settle(&mut self, limit: Duration) -> Vec<(Ticket, Result<A, StoreError>)> {
        let mut settled = self.answers();
        let Ok(limit) = Timespec::try_from(limit) else { return settled };
        while self.open > 0 {
            let mut fds = [PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN)];
            match rustix::event::poll(&mut fds, Some(&limit)) {
                Ok(0) => break,
                // The limit begins again with every answer: what goes on is worth waiting for.
                Ok(_) | Err(rustix::io::Errno::INTR) => settled.extend(self.answers()),
                Err(_) => break,
            }
        }
        settled
    }
}

impl<A> Desk<A> {
    /// Readable when there are answers.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// How the database does, for those who are shown it.
    pub fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<A> Drop for Desk<A> {
    /// Does not wait for the thread: it may hang in the very thing it was made for. Whoever wants an answer waits for it before.
    fn drop(&mut self) {
        drop(self.stay.take());
        drop(self.thread.take());
    }
}

/// The other side.
struct Clerk<A> {
    open: Open,
    store: Option<Box<dyn Store>>,
    incoming: Receiver<(Ticket, Request<A>)>,
    outgoing: Sender<(Ticket, Result<A, StoreError>)>,
    bell: Arc<OwnedFd>,
    health: Arc<Mutex<Health>>,
    stays: Receiver<()>,
}

impl<A> Clerk<A> {
    fn work(mut self) {
        let mut waiting: VecDeque<(Ticket, Request<A>)> = VecDeque::new();
        // Opened before anybody asks: what the main chain has left is taken in, and a wrong address is told early.
        if self.connect().is_none() {
            return;
        }
        while let Ok(first) = self.incoming.recv() {
            waiting.push_back(first);
            waiting.extend(self.incoming.try_iter());
            while let Some((ticket, mut request)) = waiting.pop_front() {
                let Some(answer) = self.answer(&mut request) else { return };
                if self.outgoing.send((ticket, answer)).is_err() {
                    return;
                }
                ring(&self.bell);
            }
        }
    }

    /// Opens the database. An error that will not pass is told to whoever asks, who tells it on. `None` when the desk is closed.
    fn connect(&mut self) -> Option<()> {
        let opened = self.insist(|clerk| {
            if clerk.store.is_none() {
                clerk.store = Some((clerk.open)()?);
            }
            Ok(())
        })?;
        if let Err(error) = opened {
            log::debug!("{error}");
            self.set_health(Health::Away(error.to_string()));
        }
        Some(())
    }

    fn answer(&mut self, request: &mut Request<A>) -> Option<Result<A, StoreError>> {
        if let Some(gone) = self.store.take_if(|store| store.is_gone()) {
            log::warn!("{}: it was moved away, deleted or replaced; what has its name now is opened, or made anew", gone.name());
        }
        self.insist(|clerk| {
            let store = match &mut clerk.store {
                Some(store) => store,
                none => none.insert((clerk.open)()?),
            };
            request(store.as_mut())
        })
    }

    /// Does something until it works or fails for good. `None` when the desk is closed meanwhile.
    fn insist<T>(&mut self, mut deed: impl FnMut(&mut Self) -> Result<T, StoreError>) -> Option<Result<T, StoreError>> {
        let mut wait = FIRST_WAIT;
        loop {
            match deed(self) {
                Ok(done) => {
                    if let Health::Away(_) = self.set_health(Health::Good) {
                        log::warn!("{}: the database is back", self.store.as_ref().map_or("?", |store| store.name()));
                    }
                    return Some(Ok(done));
                }
                Err(error) if error.may_pass() => {
                    let why = error.to_string();
                    match self.set_health(Health::Away(why.clone())) {
                        Health::Away(_) => log::debug!("{why}"),
                        Health::Opening | Health::Good => log::warn!("{why}; it is tried again until it works"),
                    }
                    // Anew from the start: a connection that has failed once is not asked again.
                    self.store = None;
                }
                Err(error) => return Some(Err(error)),
            }
            match self.stays.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) | Ok(()) => wait = (wait * 2).min(LONGEST_WAIT),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
            if let Err(TryRecvError::Disconnected) = self.stays.try_recv() {
                return None;
            }
        }
    }

    fn set_health(&self, health: Health) -> Health {
        std::mem::replace(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner), health)
    }
}

fn ring(bell: &OwnedFd) {
    // Full is as good as rung.
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
}

fn silence(bell: &OwnedFd) {
    let _ = rustix::io::read(bell, &mut [0; 8]);
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
