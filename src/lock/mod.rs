//! One instance: the lock of a chain or a command, in a file, PostgreSQL, etcd or Consul, behind one contract.
//! `lease` decides, an [`Engine`] asks one store, `keeper` renews beside the loop, [`Lock`] is what the loop holds.
//!
//! A loop holds a [`Lock`] so: [`Lock::open`] with [`ourselves`]; [`Lock::contend`]; poll [`Lock::fds`] beside everything
//! else and call [`Lock::hear`] after each wait, before anything else; on `Acquired` begin, for a lease with a
//! [`guard::Guard`] beside it, and ask [`Lock::may_start`] before each start; [`Lock::record`] what runs; on `Stop` and
//! `Kill` end it all, and exit with 79; [`Lock::let_go`] when it is gone, or [`Lock::begin_run`] to keep it for the next.
//!
//! The contract, the same for every engine and proved by one suite (tests/integration/lock_engines.rs): never two owners
//! at once; an owner that lives keeps it; whoever takes over has a greater token; a lock that was let go is free at once.

pub mod address;
#[cfg(feature = "net")]
mod consul;
#[cfg(feature = "net")]
mod etcd;
mod evict;
mod file;
pub mod guard;
#[cfg(feature = "net")]
mod http;
mod keeper;
pub mod lease;
pub mod look;
pub mod owner;
#[cfg(feature = "postgres")]
mod postgres;
mod timer;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::clock::BootTime;
use address::{Address, LockSettings};
use keeper::{Core, Keeper, Order, Report};
use lease::{Action, Input, Lease, LockState, Token, Unavailable};
use owner::{Owner, TaskGroup};
use timer::Timer;

pub use evict::{Evict, Progress, here, is_alive, ourselves, start_time};

/// Why an engine gave no answer. None of these texts holds a password.
#[derive(Debug, Error)]
pub enum LockError {
    /// It could not be asked.
    #[error("{address} cannot be reached: {why}")]
    Unreachable {
        /// Which lock.
        address: String,
        /// In the words of whoever was asked.
        why: String,
    },
    /// It does not let us, or does not understand us.
    #[error("{address} refuses: {why}")]
    Refused {
        /// Which lock.
        address: String,
        /// In its words.
        why: String,
    },
    /// A file of the lock, of a password or of a certificate cannot be used.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// This program was built without what is needed for it.
    #[error("{address}: runner was built without the feature `{feature}`")]
    NotBuilt {
        /// Which lock.
        address: String,
        /// The cargo feature.
        feature: &'static str,
    },
    /// The kernel gives no timer, no descriptor or no thread.
    #[error("no timer for the lock: {0}")]
    Kernel(#[from] io::Error),
}

impl LockError {
    /// Whether a lock that cannot even be asked for is the fault of what is configured, and not of its engine.
    pub fn is_of_configuration(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::File { .. } | Self::NotBuilt { .. } => true,
            Self::Unreachable { .. } | Self::Kernel(_) => false,
        }
    }
}

#[cfg(feature = "net")]
impl From<crate::client::BadFile> for LockError {
    fn from(bad: crate::client::BadFile) -> Self {
        Self::File { path: bad.path, error: bad.error }
    }
}

/// Who holds a lock, as far as its engine can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its record, if there is one that can be read.
    pub owner: Option<Owner>,
    /// Its token.
    pub token: Option<Token>,
    /// How long the engine still keeps the lock for it, if it can tell.
    pub rest: Option<Duration>,
}

impl Holder {
    /// Who it is, as the end of "... is held".
    pub fn by(&self) -> String {
        match &self.owner {
            Some(owner) => format!(" by {owner}"),
            None => " by somebody who left no record, or was held a moment ago".to_owned(),
        }
    }
}

/// One question for a lock.
#[derive(Debug, Clone, Copy)]
pub struct Bid<'a> {
    /// Who asks.
    pub owner: &'a Owner,
    /// Take the lock from the holder of this token although its lease has not ended: it is dead, and so is what ran
    /// under it.
    pub over: Option<Token>,
    /// The wall clock, in milliseconds since 1970, for [`Token::after`].
    pub wall_ms: u64,
}

/// The answer to a [`Bid`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// It is ours.
    Won {
        /// Greater than every token of this lock before.
        token: Token,
        /// Who had it before and did not let it go.
        previous: Option<Owner>,
    },
    /// It is somebody else's.
    Busy(Holder),
}

/// The answer to a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// It is still ours, and has been all the time.
    Held,
    /// It is not.
    Gone,
}

/// A store in which a lock lives. Every call ends within the limit it was made with, or gives an error.
pub trait Engine: Send {
    /// Asks for the lock. On `Won` the lease has begun after this call did.
    ///
    /// # Errors
    /// There was no answer; the lock may or may not be ours then, and ends by itself if it is.
    fn acquire(&mut self, bid: &Bid<'_>) -> Result<Attempt, LockError>;

    /// Begins the lease anew and writes the owner's record.
    ///
    /// # Errors
    /// There was no answer.
    fn renew(&mut self, owner: &Owner) -> Result<Renewal, LockError>;

    /// Whether it can be seen, without asking anybody, that a lock which was ours is not any more: an engine whose lock has to be
    /// renewed says so then, one whose lock is kept by the kernel has no other occasion.
    fn is_lost(&self) -> bool {
        false
    }

    /// Lets the lock go, if it is ours.
    ///
    /// # Errors
    /// There was no answer; it ends by itself then.
    fn release(&mut self) -> Result<(), LockError>;

    /// Who holds the lock.
    ///
    /// # Errors
    /// There was no answer.
    fn look(&mut self) -> Result<Option<Holder>, LockError>;
}

/// The engine of an address.
///
/// # Errors
/// This program cannot speak to it, or a file of passwords or certificates cannot be used.
pub fn engine(settings: &LockSettings) -> Result<Box<dyn Engine>, LockError> {
    match &settings.address {
        Address::File(path) => Ok(Box::new(file::FileEngine::new(path)?)),
        #[cfg(feature = "postgres")]
        Address::Postgres(address) => Ok(Box::new(postgres::PostgresEngine::new(address, settings)?)),
        #[cfg(not(feature = "postgres"))]
        Address::Postgres(address) => Err(LockError::NotBuilt { address: address.shown.clone(), feature: "postgres" }),
        #[cfg(feature = "net")]
        Address::Etcd(address) => Ok(Box::new(etcd::EtcdEngine::new(address, settings)?)),
        #[cfg(feature = "net")]
        Address::Consul(address) => Ok(Box::new(consul::ConsulEngine::new(address, settings)?)),
        #[cfg(not(feature = "net"))]
        Address::Etcd(address) | Address::Consul(address) => Err(LockError::NotBuilt { address: address.shown.clone(), feature: "net" }),
    }
}

/// What the loop hears of its lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockEvent {
    /// It is ours: begin.
    Acquired(Token),
    /// Somebody else has it; told once for each holder.
    Waiting(Holder),
    /// The engine cannot be reached; told once for each reason.
    Unreachable(String),
    /// Waiting is over.
    GaveUp(Refusal),
    /// A renewal failed. Nothing is lost yet.
    Doubt {
        /// Why.
        why: String,
        /// When stopping begins unless another succeeds, from now.
        stop_in: Duration,
    },
    /// A renewal has succeeded after one that failed.
    Sure,
    /// It is lost, or will be before long: end everything that runs under it with TERM, the grace and KILL.
    Stop(String),
    /// It is lost, and another may have it: end everything that runs under it with KILL.
    Kill(String),
    /// It is given back; `Some` says why that may not have worked, and it ends by itself then.
    GivenBack(Option<String>),
}

/// Why the lock could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody else holds it: exit 75.
    Held(Holder),
    /// Its engine could not be reached: exit 74.
    Unreachable(String),
}

/// A lock as a loop holds it: poll [`Lock::fds`], call [`Lock::hear`] after every wait and before everything else.
#[derive(Debug)]
pub struct Lock {
    shown: String,
    lease: Lease,
    wait: Option<Duration>,
    driver: Driver,
    timer: Timer,
    owner: Owner,
    token: Option<Token>,
    /// The last answer, for the refusal; what was told is not told again.
    holder: Option<Holder>,
    trouble: Option<String>,
}

/// Who asks the engine.
#[derive(Debug)]
enum Driver {
    /// We do: it is a file, and answers at once.
    Inline(Box<Core>),
    /// A thread does, so that an engine that does not answer keeps nobody from anything.
    Thread(Keeper),
}

impl Lock {
    /// Makes a lock that is not asked for yet. `owner` says who will hold it.
    ///
    /// # Errors
    /// This program cannot speak to the engine, a file of secrets cannot be used, or the kernel gives no timer.
    pub fn open(settings: &LockSettings, owner: Owner) -> Result<Self, LockError> {
        let core = Core::new(engine(settings)?, settings.terms, owner.clone());
        let driver = if settings.address.is_leased() { Driver::Thread(Keeper::start(core)?) } else { Driver::Inline(Box::new(core)) };
        Ok(Self {
            shown: settings.address.to_string(),
            lease: Lease::new(settings.terms),
            wait: settings.wait,
            driver,
            timer: Timer::new()?,
            owner,
            token: None,
            holder: None,
            trouble: None,
        })
    }

    /// Begins to ask for it, for the run of this id.
    pub fn contend(&mut self, run_id: &str, now: BootTime) {
        (self.holder, self.trouble, self.token) = (None, None, None);
        run_id.clone_into(&mut self.owner.run_id);
        self.lease.step(Input::Contend { until: self.wait.map(|wait| now + wait) }, now);
        self.order(Order::Contend(self.owner.clone()), now);
        self.set_timer();
    }

    /// The descriptors that become readable when there is something to hear.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let other = match &self.driver {
            Driver::Inline(core) => core.watched(),
            Driver::Thread(keeper) => Some(keeper.fd()),
        };
        [self.timer.as_fd()].into_iter().chain(other)
    }

    /// Something under it may have come to its end: where that can be seen, looks whether it was ours until now. What comes of
    /// it is heard.
    pub fn look(&mut self) {
        match &mut self.driver {
            Driver::Inline(core) => core.look(),
            // It renews.
            Driver::Thread(_) => {}
        }
    }

    /// What has happened. What it says is to be done before anything else; nothing begins unless [`Self::may_start`].
    pub fn hear(&mut self, now: BootTime) -> Vec<LockEvent> {
        self.timer.clear();
        let mut events = Vec::new();
        // The answers first: a loop that was busy for a while may have a renewal waiting here.
        let reports = match &mut self.driver {
            Driver::Inline(core) => core.turn(BootTime::now),
            Driver::Thread(keeper) => keeper.reports(),
        };
        for report in reports {
            self.take(report, now, &mut events);
        }
        let why = self.trouble.clone().unwrap_or_else(|| "its lease was not renewed in time".to_owned());
        let action = self.lease.step(Input::Woke, now);
        self.perform(action, &why, now, &mut events);
        self.set_timer();
        events
    }

    fn take(&mut self, report: Report, now: BootTime, events: &mut Vec<LockEvent>) {
        let mut news = None;
        let (input, why) = match report {
            Report::Won { begun, token, since } => {
                self.token = Some(token);
                self.owner.time = since;
                (Input::Acquired { begun }, String::new())
            }
            Report::Busy(holder) => {
                news = self.holder.as_ref().is_none_or(|known| known.owner != holder.owner).then(|| LockEvent::Waiting(holder.clone()));
                self.holder = Some(holder);
                (Input::Busy, String::new())
            }
            Report::Unreachable(error) => {
                let why = error.to_string();
                news = (self.trouble.as_ref() != Some(&why)).then(|| LockEvent::Unreachable(why.clone()));
                self.trouble = Some(why);
                (Input::Unreachable, String::new())
            }
            Report::Renewed { begun } => {
                self.trouble = None;
                (Input::Renewed { begun }, "it was renewed only after its lease had ended".to_owned())
            }
            Report::Doubt(error) => {
                self.trouble = Some(error.to_string());
                (Input::Doubt, error.to_string())
            }
            Report::Gone => (Input::Gone, "its engine says that it is not ours any more".to_owned()),
            Report::GivenBack(result) => {
                events.push(LockEvent::GivenBack(result.err().map(|error| error.to_string())));
                return;
            }
        };
        let action = self.lease.step(input, now);
        // Who does not wait is told once, by the refusal.
        events.extend(news.filter(|_| matches!(self.lease.state(), LockState::Acquiring { .. })));
        self.perform(action, &why, now, events);
    }

    fn perform(&mut self, action: Option<Action>, why: &str, now: BootTime, events: &mut Vec<LockEvent>) {
        match action {
            None => {}
            Some(Action::Enter) => events.extend(self.token.map(LockEvent::Acquired)),
            Some(Action::GiveUp(unavailable)) => {
                // The keeper stops asking; what it may still get it gives back.
                self.order(Order::LetGo, now);
                events.push(LockEvent::GaveUp(self.refusal(unavailable)));
            }
            Some(Action::Warn { stop_at }) => events.push(LockEvent::Doubt { why: why.to_owned(), stop_in: stop_at.since(now) }),
            Some(Action::Reassure) => events.push(LockEvent::Sure),
            Some(Action::Stop) => events.push(LockEvent::Stop(why.to_owned())),
            Some(Action::Kill) => events.push(LockEvent::Kill(why.to_owned())),
            Some(Action::GiveBack) => {
                self.order(Order::LetGo, now);
                if let LockState::Acquiring { .. } = self.lease.state() {
                    self.order(Order::Contend(self.owner.clone()), now);
                }
            }
        }
    }

    fn refusal(&self, unavailable: Unavailable) -> Refusal {
        let unknown = || Holder { owner: None, token: None, rest: None };
        match unavailable {
            Unavailable::Held => Refusal::Held(self.holder.clone().unwrap_or_else(unknown)),
            Unavailable::Unreachable => {
                Refusal::Unreachable(self.trouble.clone().unwrap_or_else(|| format!("{} gave no answer", self.shown)))
            }
        }
    }

    fn order(&mut self, order: Order, now: BootTime) {
        match &mut self.driver {
            Driver::Inline(core) => core.obey(order, now),
            Driver::Thread(keeper) => keeper.order(order),
        }
    }

    fn set_timer(&mut self) {
        let inline = match &self.driver {
            Driver::Inline(core) => core.wake_at(),
            Driver::Thread(_) => None,
        };
        self.timer.set(self.lease.wake_at().into_iter().chain(inline).min());
    }

    /// Where it stands.
    pub fn state(&self) -> LockState {
        self.lease.state()
    }

    /// The fencing token of what runs under it now.
    pub fn token(&self) -> Option<Token> {
        self.token
    }

    /// When stopping would begin if no renewal succeeded any more; `None` for a lock that does not run out.
    pub fn stop_at(&self) -> Option<BootTime> {
        self.lease.stop_at()
    }

    /// When another may own it, if it is held and runs out: what a [`guard::Guard`] is told.
    pub fn trusted_until(&self) -> Option<BootTime> {
        match self.lease.state() {
            LockState::Held { trusted_until, .. } => trusted_until,
            LockState::Stopping { trusted_until } => Some(trusted_until),
            LockState::Free | LockState::Acquiring { .. } | LockState::Lost | LockState::GaveUp(_) | LockState::Released => None,
        }
    }

    /// The record of its owner, which is us: what a [`guard::Guard`] is told.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Whether something may begin under it. Ask right before each start.
    pub fn may_start(&self, now: BootTime) -> bool {
        self.lease.may_start(now)
    }

    /// Whether it is ours, or was and is not given back: what runs under it must be gone before [`Self::let_go`].
    pub fn is_held(&self) -> bool {
        matches!(self.lease.state(), LockState::Held { .. } | LockState::Stopping { .. })
    }

    /// The next run begins under the lock that was kept (`keep_lock`): its processes carry another id. The token stays.
    pub fn begin_run(&mut self, run_id: &str, now: BootTime) {
        run_id.clone_into(&mut self.owner.run_id);
        self.owner.groups.clear();
        self.order(Order::Record(self.owner.clone()), now);
    }

    /// Writes down what runs under it, for whoever takes over on this machine. Call it before each start, with pid 0 for
    /// the group that is not there yet, after it, and after each end.
    pub fn record(&mut self, groups: Vec<TaskGroup>, now: BootTime) {
        if self.owner.groups != groups {
            self.owner.groups = groups;
            self.order(Order::Record(self.owner.clone()), now);
        }
    }

    /// Lets it go, or stops asking for it. [`LockEvent::GivenBack`] says when that is done; wait for it at most
    /// [`Self::give_back_limit`].
    pub fn let_go(&mut self, now: BootTime) {
        self.owner.groups.clear();
        let action = self.lease.step(Input::LetGo, now);
        self.perform(action, "", now, &mut Vec::new());
        self.set_timer();
    }

    /// How long giving back may take.
    pub fn give_back_limit(&self) -> Duration {
        self.lease.terms().call_limit().min(Duration::from_secs(5))
    }

    /// From TERM to KILL, as the lease counts with it.
    pub fn kill_after(&self) -> Duration {
        self.lease.terms().kill_after()
    }

    /// The lock for people, without passwords.
    pub fn shown(&self) -> &str {
        &self.shown
    }
}
