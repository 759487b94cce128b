//! The loop: one thread, one poll over listeners and connections, no descriptor that blocks. It knows sockets and their
//! times; what is answered comes from the handler.

use std::fmt;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};

use super::Error;
use super::connection::{Connection, Heard};
use super::guard::{Guard, Peer};
use super::listen::{ListenAddress, Listener};
use super::response::{Code, Response};
use super::site::{Route, View, render, route};
use crate::clock::{Clock, Moment, SystemClock};
use crate::status::Status;

/// How long nobody is accepted when there is no descriptor left for it.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// How long a connection may say nothing before its place is given to the next when all are taken.
const GRACE: Duration = Duration::from_secs(1);
/// How often a refusal is logged; those between are counted.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What one server holds at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For a request to come, for its answer to be made, and for that to be taken: each.
    pub time: Duration,
    /// Connections at once. Whom `allow` does not have gets half of them at most.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time: Duration::from_secs(10), connections: 32 }
    }
}

/// Decides what is answered. It runs on the server's thread, so it must not wait: it may send the [`Reply`] to
/// whoever knows.
pub type Handler = Box<dyn FnMut(Route, Reply) + Send>;

/// The right to answer one request, from any thread. Dropped without an answer it says 503.
pub struct Reply {
    id: u64,
    line: Line,
    used: bool,
}

impl Reply {
    /// Answers.
    pub fn send(mut self, response: Response) {
        self.used = true;
        self.line.tell(Message::Answer(self.id, response));
    }

    /// Answers with a view of the status, which is written on the server's thread: whoever has the status goes on.
    pub fn show(mut self, view: View, status: Arc<Status>) {
        self.used = true;
        self.line.tell(Message::Show(self.id, view, status));
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.used {
            let response = Response::text(Code::Unavailable, "the daemon does not answer just now");
            self.line.tell(Message::Answer(self.id, response));
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({})", self.id)
    }
}

enum Message {
    Answer(u64, Response),
    Show(u64, View, Arc<Status>),
    /// The new guard, listeners that are new, and the addresses that stay.
    Reload(Guard, Vec<Listener>, Vec<ListenAddress>),
    Stop,
}

/// The way to the server's thread, and what wakes it.
#[derive(Clone)]
struct Line {
    sender: Sender<Message>,
    wake: Arc<OwnedFd>,
}

impl Line {
    /// Whether anybody is there to hear it.
    fn tell(&self, message: Message) -> bool {
        let heard = self.sender.send(message).is_ok();
        // It only fails when it is awake 2^64 times already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        heard
    }
}

/// A server that runs. It ends when it is dropped, and answers that are not out by then are not sent.
pub struct Server {
    line: Line,
    addresses: Vec<ListenAddress>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Server {
    /// Begins to answer on these sockets.
    ///
    /// # Errors
    /// The kernel gives no descriptor or no thread.
    #[expect(clippy::disallowed_methods, reason = "the one thread of the daemon's HTTP; no chain waits for it")]
    pub fn start(listeners: Vec<Listener>, guard: Guard, limits: Limits, handler: Handler) -> Result<Self, Error> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| Error::Start(error.into()))?;
        let (sender, messages) = channel();
        let line = Line { sender, wake: Arc::new(wake) };
        let addresses = listeners.iter().map(|listener| listener.address().clone()).collect();
        let mut room = Room {
            line: line.clone(),
            messages,
            listeners,
            guard,
            limits,
            handler,
            clock: SystemClock::new(),
            connections: Vec::new(),
            next_id: 0,
            paused_until: None,
            refusals: Quiet::default(),
        };
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn(move || while room.turn() {}).map_err(Error::Start)?;
        Ok(Self { line, addresses, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// Takes over other rules and addresses. Sockets of addresses that stay are kept, so that nobody is turned away.
    ///
    /// # Errors
    /// One of the new addresses cannot be listened on; then everything stays as it was.
    pub fn reload(&mut self, guard: Guard, addresses: &[ListenAddress]) -> Result<(), Error> {
        let fresh = addresses.iter().filter(|address| !self.addresses.contains(address));
        let fresh = fresh.map(|address| Listener::bind(address).map_err(|error| self.explain(address, error)));
        let fresh = fresh.collect::<Result<Vec<_>, _>>()?;
        let kept: Vec<_> = self.addresses.iter().filter(|address| addresses.contains(address)).cloned().collect();
        let now_on = kept.iter().chain(fresh.iter().map(Listener::address)).cloned().collect();
        if !self.line.tell(Message::Reload(guard, fresh, kept)) {
            return Err(Error::Ended);
        }
        self.addresses = now_on;
        Ok(())
    }

    /// It may be we ourselves who have the port, at another address.
    fn explain(&self, address: &ListenAddress, error: Error) -> Error {
        let port = |address: &ListenAddress| match address {
            ListenAddress::Tcp(address) => Some(address.port()),
            ListenAddress::Unix(_) => None,
        };
        let own = self.addresses.iter().find(|own| port(own).is_some() && port(own) == port(address));
        match (own, error) {
            (Some(own), Error::Listen { why, .. }) if why.kind() == std::io::ErrorKind::AddrInUse => {
                Error::Restart { address: address.to_string(), own: own.to_string() }
            }
            (_, error) => error,
        }
    }

    /// Whether its thread has ended, which it should not while this is there.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it, and returns when its sockets are closed.
    pub fn stop(self) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        self.line.tell(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A line of the log that is not written a thousand times.
#[derive(Debug, Default)]
struct Quiet {
    last: Option<Moment>,
    kept_back: u64,
}

impl Quiet {
    /// Whether it is told now, and how often it was not.
    fn tells(&mut self, now: Moment) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + TELL_EVERY) {
            self.kept_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.kept_back))
    }
}

/// What the server's thread owns.
struct Room {
    line: Line,
    messages: Receiver<Message>,
    listeners: Vec<Listener>,
    guard: Guard,
    limits: Limits,
    handler: Handler,
    clock: SystemClock,
    connections: Vec<Connection>,
    next_id: u64,
    /// No descriptor was left for another connection.
    paused_until: Option<Moment>,
    refusals: Quiet,
}

impl Room {
    /// Waits for something, does it; whether there is another turn.
    fn turn(&mut self) -> bool {
        let now = self.clock.now();
        let accepts = self.accepts(now);
        let ready = self.wait(now, accepts);
        if ready.woken && !self.hear() {
            return false;
        }
        for id in ready.connections {
            self.advance(id);
        }
        let (now, date) = (self.clock.now(), self.clock.wall());
        for connection in self.connections.iter_mut().filter(|connection| connection.deadline() <= now) {
            connection.end(now, date);
        }
        self.connections.retain(|connection| !connection.is_closed());
        for listener in ready.listeners {
            self.accept(listener);
        }
        true
    }

    /// Whether another connection would be taken in. When all places are taken, whoever says nothing gives way.
    fn accepts(&self, now: Moment) -> bool {
        let free = self.connections.len() < self.limits.connections || self.victim(now, false).is_some();
        free && self.paused_until.is_none_or(|until| until <= now)
    }

    /// The connection that has been without a request for longest, past its grace; only among strangers, or of all.
    fn victim(&self, now: Moment, of_strangers: bool) -> Option<usize> {
        let slow = self.connections.iter().enumerate().filter(|(_, one)| one.is_reading() && one.since + GRACE <= now);
        let slow = slow.filter(|(_, one)| !(of_strangers && one.trusted));
        slow.min_by_key(|(_, one)| one.since).map(|(at, _)| at)
    }

    fn wait(&self, now: Moment, accepts: bool) -> Ready {
        let full = self.connections.len() >= self.limits.connections;
        let slow = self.connections.iter().filter(|one| full && one.is_reading()).map(|one| one.since + GRACE);
        // What has passed already did not make room; waiting for it would spin.
        let room_at = slow.chain(self.paused_until).filter(|at| !accepts && *at > now);
        let until = self.connections.iter().map(Connection::deadline).chain(room_at).min();
        let timeout = until.map(|until| until.since(now)).and_then(|wait| Timespec::try_from(wait).ok());
        let mut fds = vec![PollFd::new(&*self.line.wake, PollFlags::IN)];
        fds.extend(self.connections.iter().map(|one| PollFd::from_borrowed_fd(one.fd(), one.events())));
        let first_listener = fds.len();
        let listeners = self.listeners.iter().filter(|_| accepts);
        fds.extend(listeners.map(|listener| PollFd::from_borrowed_fd(listener.fd(), PollFlags::IN)));
        // Interrupted: nothing is ready, and the next turn looks again.
        if rustix::event::poll(&mut fds, timeout.as_ref()).is_err() {
            return Ready::default();
        }
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let connections = self.connections.iter().zip(&fds[1..first_listener]);
        Ready {
            woken: is_ready(&fds[0]),
            connections: connections.filter(|(_, fd)| is_ready(fd)).map(|(one, _)| one.id).collect(),
            listeners: fds[first_listener..].iter().enumerate().filter(|(_, fd)| is_ready(fd)).map(|(at, _)| at).collect(),
        }
    }

    /// Takes what was told; whether to go on.
    fn hear(&mut self) -> bool {
        let _ = rustix::io::read(&*self.line.wake, &mut [0_u8; 8]);
        while let Ok(message) = self.messages.try_recv() {
            match message {
                Message::Answer(id, response) => self.answer(id, &response),
                Message::Show(id, view, status) => {
                    let fault = || Response::text(Code::Internal, "a fault of ours; the log has more");
                    let shown = catch_unwind(AssertUnwindSafe(|| render(&view, &status)));
                    self.answer(id, &shown.unwrap_or_else(|_| fault()));
                }
                Message::Reload(guard, fresh, kept) => {
                    self.guard = guard;
                    self.listeners.retain(|listener| kept.contains(listener.address()));
                    self.listeners.extend(fresh);
                }
                Message::Stop => return false,
            }
        }
        true
    }

    fn answer(&mut self, id: u64, response: &Response) {
        let (now, date) = (self.clock.now(), self.clock.wall());
        if let Some(connection) = self.connections.iter_mut().find(|one| one.id == id) {
            connection.answer(response, now, date);
        }
    }

    fn advance(&mut self, id: u64) {
        let now = self.clock.now();
        let Some(connection) = self.connections.iter_mut().find(|one| one.id == id) else { return };
        let (heard, peer) = (connection.advance(now), connection.peer);
        let request = match heard {
            Heard::Nothing => return,
            Heard::Wrong(response) => return self.answer(id, &response),
            Heard::Request(request) => request,
        };
        let found = route(&request);
        // What tells only that the daemon is there may be asked by everybody.
        if !matches!(found, Ok(Route::View(View::Health)))
            && let Err(refusal) = self.guard.judge(peer, &request)
        {
            if let Some(kept_back) = self.refusals.tells(now) {
                let path: String = request.path.chars().take(80).collect();
                let others = if kept_back > 0 { format!("; {kept_back} others since the last such line") } else { String::new() };
                log::warn!(event = "http_refused", kept_back; "HTTP: {path:?} from {peer} {}{others}", refusal.text());
            }
            return self.answer(id, &Response::text(Code::Forbidden, refusal.text()));
        }
        match found {
            Err(response) => self.answer(id, &response),
            Ok(route) => self.ask(route, id),
        }
    }

    fn ask(&mut self, route: Route, id: u64) {
        let reply = Reply { id, line: self.line.clone(), used: false };
        let handler = &mut self.handler;
        // A fault in one answer must not take the others with it; the reply that is dropped says 503.
        if catch_unwind(AssertUnwindSafe(|| handler(route, reply))).is_err() {
            log::error!("HTTP: a fault of ours while a request was answered");
        }
    }

    /// Takes in everybody who waits at a listener, while there is room.
    fn accept(&mut self, listener: usize) {
        let now = self.clock.now();
        while self.accepts(now) {
            let Some(listener) = self.listeners.get(listener) else { return };
            let accepted = acceptfrom_with(listener.fd(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
            match accepted.map(|(fd, from)| (fd, peer_of(listener.address(), from))) {
                Ok((fd, Some(peer))) => self.take_in(fd, peer, now),
                // The kernel did not say who it is.
                Ok((_, None)) => {}
                // Gone again before we came (accept(2)).
                Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO | Errno::PERM) => {}
                Err(Errno::AGAIN) => return,
                Err(error) => {
                    if self.paused_until.is_none() {
                        log::warn!("HTTP: nobody can be accepted for now: {error}");
                    }
                    self.paused_until = Some(now + ACCEPT_PAUSE);
                    return;
                }
            }
            self.paused_until = None;
        }
    }

    fn take_in(&mut self, fd: OwnedFd, peer: Peer, now: Moment) {
        let trusted = self.guard.lets_in(peer);
        let strangers = self.connections.iter().filter(|one| !one.trusted).count();
        let crowded = !trusted && strangers >= self.limits.connections.div_ceil(2);
        if crowded || self.connections.len() >= self.limits.connections {
            // One of those who are many makes room, or nobody does.
            let Some(victim) = self.victim(now, crowded) else { return };
            let mut gone = self.connections.swap_remove(victim);
            gone.end(now, self.clock.wall());
        }
        self.next_id += 1;
        let id = self.next_id;
        self.connections.push(Connection::new(id, (fd, peer), trusted, self.limits.time, now));
        // Mostly the request is there already.
        self.advance(id);
        self.connections.retain(|connection| !connection.is_closed());
    }
}

/// What is ready: the wake-up call, connections by id, listeners by place.
#[derive(Debug, Default)]
struct Ready {
    woken: bool,
    connections: Vec<u64>,
    listeners: Vec<usize>,
}

fn peer_of(listener: &ListenAddress, from: Option<SocketAddrAny>) -> Option<Peer> {
    match listener {
        ListenAddress::Unix(_) => Some(Peer::Local),
        ListenAddress::Tcp(_) => {
            let address = std::net::SocketAddr::try_from(from?).ok()?;
            Some(Peer::Address(address.ip().to_canonical()))
        }
    }
}
