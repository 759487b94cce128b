//! Asks the engine, renews, takes over: [`Core`] does one turn at a time, [`Keeper`] gives it a thread, so that an engine
//! that does not answer keeps nobody from anything. It decides nothing that the lease decides, and ends only what a dead
//! holder left running.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::evict::{Evict, Progress, here, is_alive, watch};
use super::lease::{Terms, Token, pause_before_next};
use super::owner::Owner;
use super::timer::{Bell, Timer};
use super::{Attempt, Bid, Engine, Holder, LockError, Renewal};
use crate::clock::{BootTime, Clock, SystemClock};

/// What the loop wants.
#[derive(Debug)]
pub enum Order {
    /// The lock, for this owner.
    Contend(Owner),
    /// This to be written down.
    Record(Owner),
    /// The lock not any more.
    LetGo,
}

/// What the engine said.
#[derive(Debug)]
pub enum Report {
    /// The lock is ours, and nothing of its last holder runs here any more.
    Won {
        /// When the last question began.
        begun: BootTime,
        /// Its token.
        token: Token,
        /// The date of that, as it stands in the record.
        since: String,
    },
    /// Somebody else has it.
    Busy(Holder),
    /// The engine gave no answer.
    Unreachable(LockError),
    /// The lease began anew.
    Renewed {
        /// When the question began.
        begun: BootTime,
    },
    /// A renewal had no answer.
    Doubt(LockError),
    /// It is not ours any more.
    Gone,
    /// It was given back, or nobody knows.
    GivenBack(Result<(), LockError>),
}

/// What the core is about.
#[derive(Debug)]
enum Phase {
    Idle,
    Contending {
        at: BootTime,
        tries: u32,
    },
    /// The holder is dead, its lease is not over: what it left running here is ended before we take it over.
    Clearing {
        at: BootTime,
        evict: Evict,
        over: Token,
    },
    Holding {
        renew_at: Option<BootTime>,
        /// The lock ran out for a holder that left something running here; it is ours, and not told of yet.
        clearing: Option<(BootTime, Evict, Token, BootTime)>,
    },
}

/// One contender at one engine.
pub struct Core {
    engine: Box<dyn Engine>,
    terms: Terms,
    owner: Owner,
    clock: SystemClock,
    phase: Phase,
    /// Becomes readable when a holder of this machine ends.
    watched: Option<OwnedFd>,
    /// Reports of orders, which the next turn hands on.
    pending: Vec<Report>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("phase", &self.phase).finish_non_exhaustive()
    }
}

impl Core {
    /// A contender that does not ask yet.
    pub fn new(engine: Box<dyn Engine>, terms: Terms, owner: Owner) -> Self {
        Self { engine, terms, owner, clock: SystemClock::new(), phase: Phase::Idle, watched: None, pending: Vec::new() }
    }

    /// Becomes readable when it is worth asking again.
    pub fn watched(&self) -> Option<BorrowedFd<'_>> {
        self.watched.as_ref().map(AsFd::as_fd)
    }

    /// When the next turn is due by time alone.
    pub fn wake_at(&self) -> Option<BootTime> {
        match &self.phase {
            _ if !self.pending.is_empty() => Some(BootTime::default()),
            Phase::Idle => None,
            Phase::Contending { at, .. } | Phase::Clearing { at, .. } => Some(*at),
            Phase::Holding { renew_at, clearing } => renew_at.iter().copied().chain(clearing.as_ref().map(|(at, ..)| *at)).min(),
        }
    }

    /// Does what the loop wants.
    pub fn obey(&mut self, order: Order, now: BootTime) {
        match order {
            Order::Contend(owner) => {
                self.owner = owner;
                self.phase = Phase::Contending { at: now, tries: 0 };
            }
            Order::Record(owner) => {
                self.owner = owner;
                if let Phase::Holding { clearing: None, .. } = self.phase {
                    self.renew(|| now);
                }
            }
            Order::LetGo => {
                self.watched = None;
                self.phase = Phase::Idle;
                let released = self.engine.release();
                self.pending.push(Report::GivenBack(released));
            }
        }
    }

    /// Does what is due.
    pub fn turn(&mut self, now: impl Fn() -> BootTime) -> Vec<Report> {
        match self.phase {
            Phase::Idle => {}
            Phase::Contending { at, tries } => {
                let ended = self.watched.as_ref().is_some_and(|fd| is_readable(fd.as_fd()));
                if now() >= at || ended {
                    self.watched = None;
                    self.bid(None, tries, &now);
                }
            }
            Phase::Clearing { at, .. } => {
                if now() >= at {
                    self.clear(&now);
                }
            }
            Phase::Holding { renew_at, .. } => {
                if renew_at.is_some_and(|at| now() >= at) {
                    self.renew(&now);
                }
                self.clear_held(&now);
            }
        }
        std::mem::take(&mut self.pending)
    }

    /// Looks whether it is still ours, where that can be seen.
    pub fn look(&mut self) {
        if let Phase::Holding { clearing: None, .. } = self.phase
            && self.engine.is_lost()
        {
            self.phase = Phase::Idle;
            self.pending.push(Report::Gone);
        }
    }

    fn bid(&mut self, over: Option<Token>, tries: u32, now: &impl Fn() -> BootTime) {
        let begun = now();
        let wall = self.clock.wall();
        let wall_ms = u64::try_from(wall.as_millisecond()).unwrap_or(0);
        // Whoever gets it after hours of waiting has had it since then, not since it began to ask.
        self.owner.time = wall.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let answer = self.engine.acquire(&Bid { owner: &self.owner, over, wall_ms });
        let next = |rest| Phase::Contending { at: now() + pause_before_next(self.terms, tries, rest), tries: tries.saturating_add(1) };
        match answer {
            Ok(Attempt::Won { token, previous }) => self.won(begun, token, previous, now),
            Ok(Attempt::Busy(holder)) => {
                let local = holder.owner.clone().filter(|owner| owner.place.is_same(&here()));
                match (local, holder.token) {
                    // Ours, by an answer that did not reach us.
                    (Some(owner), Some(token)) if over != Some(token) && self.is_us(&owner) => self.bid(Some(token), tries, now),
                    (Some(owner), Some(token)) if !is_alive(&owner) => {
                        log::info!("the lock's holder has ended on this machine ({owner}); taking over");
                        self.phase =
                            Phase::Clearing { at: begun, evict: Evict::after_guard(owner, self.terms.kill_after(), now()), over: token };
                        self.clear(now);
                    }
                    (local, _) => {
                        self.watched = local.as_ref().and_then(watch);
                        self.phase = next(holder.rest);
                        self.pending.push(Report::Busy(holder));
                    }
                }
            }
            Err(error) => {
                self.phase = next(None);
                self.pending.push(Report::Unreachable(error));
            }
        }
    }

    fn is_us(&self, owner: &Owner) -> bool {
        let name = |owner: &Owner| (owner.pid, owner.start_time, owner.run_id.clone());
        name(owner) == name(&self.owner)
    }

    fn won(&mut self, begun: BootTime, token: Token, previous: Option<Owner>, now: &impl Fn() -> BootTime) {
        let renew_at = self.terms.renew_every().map(|every| begun + every);
        let left = previous.filter(|owner| owner.place.is_same(&here()));
        let clearing = left.map(|owner| (begun, Evict::after_guard(owner, self.terms.kill_after(), now()), token, begun));
        if clearing.is_none() {
            self.pending.push(Report::Won { begun, token, since: self.owner.time.clone() });
        }
        self.phase = Phase::Holding { renew_at, clearing };
        self.clear_held(now);
    }

    /// Ends what a dead holder left running, and then takes its lock.
    fn clear(&mut self, now: &impl Fn() -> BootTime) {
        let Phase::Clearing { at, evict, over } = &mut self.phase else { return };
        match evict.advance(now()) {
            Progress::Gone => {
                let over = *over;
                self.bid(Some(over), 0, now);
            }
            Progress::Going => *at = now() + evict.look_again(),
            Progress::Stuck(pids) => {
                log::warn!("the lock's holder has ended, and what it left running cannot be ended: {pids:?}");
                let holder = Holder { owner: Some(evict.owner().clone()), token: Some(*over), rest: None };
                self.phase = Phase::Contending { at: now() + Duration::from_secs(1), tries: 0 };
                self.pending.push(Report::Busy(holder));
            }
        }
    }

    /// The same where the lock is ours already, because the lease of its last holder was over.
    fn clear_held(&mut self, now: &impl Fn() -> BootTime) {
        let Phase::Holding { clearing, .. } = &mut self.phase else { return };
        let Some((at, evict, token, begun)) = clearing else { return };
        if now() < *at {
            return;
        }
        match evict.advance(now()) {
            Progress::Gone => {
                let (token, begun) = (*token, *begun);
                *clearing = None;
                // The record of the dead holder is replaced by ours only now.
                let recorded = self.engine.renew(&self.owner);
                match recorded {
                    Ok(Renewal::Held) => self.pending.push(Report::Won { begun, token, since: self.owner.time.clone() }),
                    Ok(Renewal::Gone) => self.phase = Phase::Contending { at: now(), tries: 0 },
                    Err(error) => {
                        let _ = self.engine.release();
                        self.phase = Phase::Contending { at: now() + self.terms.retry_every(), tries: 0 };
                        self.pending.push(Report::Unreachable(error));
                    }
                }
            }
            Progress::Going => *at = now() + evict.look_again(),
            Progress::Stuck(pids) => {
                *at = now() + Duration::from_secs(1);
                log::warn!("what the lock's last holder left running cannot be ended: {pids:?}");
                let holder = Holder { owner: Some(evict.owner().clone()), token: None, rest: None };
                self.pending.push(Report::Busy(holder));
            }
        }
    }

    fn renew(&mut self, now: impl Fn() -> BootTime) {
        let begun = now();
        let answer = self.engine.renew(&self.owner);
        let Phase::Holding { renew_at, clearing } = &mut self.phase else { return };
        let told = clearing.is_none();
        match answer {
            Ok(Renewal::Held) => {
                *renew_at = self.terms.renew_every().map(|every| begun + every);
                match clearing {
                    Some((_, _, _, since)) => *since = begun,
                    None => self.pending.push(Report::Renewed { begun }),
                }
            }
            Ok(Renewal::Gone) if told => {
                self.phase = Phase::Idle;
                self.pending.push(Report::Gone);
            }
            Ok(Renewal::Gone) => self.phase = Phase::Contending { at: now(), tries: 0 },
            Err(error) => {
                *renew_at = self.terms.renew_every().map(|_| now() + self.terms.retry_every());
                if told {
                    self.pending.push(Report::Doubt(error));
                }
            }
        }
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&rustix::event::Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// A core in a thread of its own. Dropping it lets the lock go, without waiting for that.
#[derive(Debug)]
pub struct Keeper {
    orders: Sender<Order>,
    reports: Receiver<Report>,
    /// Rung for the thread.
    work: Arc<Bell>,
    /// Rung for the loop.
    news: Arc<Bell>,
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// No descriptor or no thread is to be had.
    #[expect(clippy::disallowed_methods, reason = "an engine that does not answer must not keep the loop from its tasks")]
    pub fn start(core: Core) -> io::Result<Self> {
        let (orders, inbox) = mpsc::channel();
        let (outbox, reports) = mpsc::channel();
        let (work, news) = (Arc::new(Bell::new()?), Arc::new(Bell::new()?));
        let desk = Desk { inbox, outbox, work: Arc::clone(&work), news: Arc::clone(&news), timer: Timer::new()? };
        std::thread::Builder::new().name("lock".to_owned()).spawn(move || desk.serve(core))?;
        Ok(Self { orders, reports, work, news })
    }

    /// Becomes readable when there are reports.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }

    /// What has come since the last time.
    pub fn reports(&mut self) -> Vec<Report> {
        self.news.clear();
        self.reports.try_iter().collect()
    }

    /// Hands an order on.
    pub fn order(&mut self, order: Order) {
        // The thread ends only after we have let go of the channel.
        let _ = self.orders.send(order);
        self.work.ring();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let (closed, _) = mpsc::channel();
        drop(std::mem::replace(&mut self.orders, closed));
        self.work.ring();
    }
}

/// What the thread has on its side.
struct Desk {
    inbox: Receiver<Order>,
    outbox: Sender<Report>,
    work: Arc<Bell>,
    news: Arc<Bell>,
    timer: Timer,
}

impl Desk {
    fn serve(self, mut core: Core) {
        loop {
            self.timer.set(core.wake_at());
            self.wait(&core);
            self.work.clear();
            self.timer.clear();
            // Only the newest record counts, and none before the lock is let go: tasks may come and go faster than the
            // engine answers.
            let mut record = None;
            loop {
                match self.inbox.try_recv() {
                    Ok(order @ Order::Record(_)) => record = Some(order),
                    Ok(order @ (Order::Contend(_) | Order::LetGo)) => {
                        record = None;
                        core.obey(order, BootTime::now());
                    }
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return core.obey(Order::LetGo, BootTime::now()),
                }
            }
            if let Some(record) = record {
                core.obey(record, BootTime::now());
            }
            let reports = core.turn(BootTime::now);
            if !reports.is_empty() {
                for report in reports {
                    let _ = self.outbox.send(report);
                }
                self.news.ring();
            }
        }
    }

    fn wait(&self, core: &Core) {
        let own = [self.work.as_fd(), self.timer.as_fd()];
        let mut fds: Vec<PollFd<'_>> =
            own.into_iter().chain(core.watched()).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        // Interrupted or not: the turn looks itself what is due.
        let _ = rustix::event::poll(&mut fds, None);
    }
}
