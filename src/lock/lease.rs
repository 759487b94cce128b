//! The lease protocol of one contender: one table of states and inputs. Decides only; it knows no engine and no clock.
//!
//! ```text
//!            Acquired          Busy, Unreachable   Renewed     Doubt     Gone        Woke                    LetGo
//! Free       give it back      -                   -           -         -           -                       -
//! Acquiring  Held: enter       wait over: GaveUp   -           -         -           wait over: GaveUp       Released
//! Held       -                 -                   extended    warn      Lost: stop  warn; stop_at: Stopping Released
//! Stopping   -                 -                   extended    -         Lost: kill  lease over: Lost, kill  Released
//! Lost       -                 -                   -           -         -           -                       Released
//! GaveUp     give it back      -                   -           -         -           -                       Released
//! Released   give it back      -                   -           -         -           -                       -
//! ```
//!
//! A lease is trusted until (begin of the last good renewal + TTL): the engine cannot have begun to count before it was
//! asked. Stopping begins `kill_after` + 2 s before that ends, so that TERM, the grace and KILL are over before another
//! may own the lock. The holder that wakes up after the end of its trust has lost it, whatever the engine says then:
//! somebody else may have been in between.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::clock::BootTime;

/// What is left of the trust when KILL is sent: the time in which a killed process is gone.
pub const MARGIN: Duration = Duration::from_secs(2);

/// A number that grows with every owner of a lock and never goes back: whoever guards a resource refuses a smaller one
/// than it has seen ("fencing token", M. Kleppmann, "How to do distributed locking").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

impl Token {
    /// The token after `last`. `wall_ms` (milliseconds since 1970) lets it grow even when the counter was lost or the
    /// engine exchanged for another; a clock that is wrong never makes it go back.
    pub fn after(last: Option<Self>, wall_ms: u64) -> Self {
        let next = last.map_or(1, |last| last.0.saturating_add(1));
        Self(next.max(wall_ms))
    }

    /// Whether no clock can have led to it, however wrong: it is a number that many readers of JSON cannot hold. Below that it is
    /// believed, since a token must never be less than one that somebody was given.
    pub fn is_absurd(self) -> bool {
        self.0 > 1 << 53
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A TTL in which tasks could not be ended in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected at least {} s, three times (kill_after + 2 s)", least.as_secs_f64())]
pub struct TtlTooShort {
    /// The shortest that is taken.
    pub least: Duration,
}

/// The times of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Terms {
    ttl: Option<Duration>,
    kill_after: Duration,
}

impl Terms {
    /// A lease of `ttl` over tasks that are given `kill_after` between TERM and KILL.
    ///
    /// # Errors
    /// The TTL is shorter than three times (`kill_after` + 2 s): one renewal that fails would be the end.
    pub fn new(ttl: Duration, kill_after: Duration) -> Result<Self, TtlTooShort> {
        let least = kill_after.saturating_add(MARGIN).saturating_mul(3);
        if ttl < least { Err(TtlTooShort { least }) } else { Ok(Self { ttl: Some(ttl), kill_after }) }
    }

    /// A lock that ends with its holder and not by itself.
    pub fn endless(kill_after: Duration) -> Self {
        Self { ttl: None, kill_after }
    }

    /// From one good renewal to the next; `None` where nothing is to be renewed.
    pub fn renew_every(self) -> Option<Duration> {
        self.ttl.map(|ttl| ttl / 3)
    }

    /// From a renewal that failed to the next attempt.
    pub fn retry_every(self) -> Duration {
        self.ttl.map_or(Duration::from_secs(1), |ttl| (ttl / 30).clamp(Duration::from_millis(50), Duration::from_secs(2)))
    }

    /// The longest that one question to the engine may take.
    pub fn call_limit(self) -> Duration {
        self.ttl.map_or(Duration::from_secs(10), |ttl| (ttl / 6).min(Duration::from_secs(10)))
    }

    /// From TERM to KILL.
    pub fn kill_after(self) -> Duration {
        self.kill_after
    }

    /// Until when a lease is trusted of which the renewal began at `begun`.
    pub fn trusted_until(self, begun: BootTime) -> Option<BootTime> {
        self.ttl.map(|ttl| begun + ttl)
    }

    /// When the silence of an engine is told of: a renewal was due, and its time for an answer is over.
    fn warn_at(self, trusted_until: BootTime) -> BootTime {
        trusted_until.before(self.ttl.unwrap_or_default() / 2)
    }

    /// When stopping begins.
    pub fn stop_at(self, trusted_until: BootTime) -> BootTime {
        trusted_until.before(self.kill_after.saturating_add(MARGIN))
    }
}

/// Why the lock could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unavailable {
    /// Somebody else holds it.
    Held,
    /// The engine could not be reached.
    Unreachable,
}

/// Where the lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LockState {
    /// Nobody here has asked for it.
    Free,
    /// We are asking for it.
    Acquiring {
        /// When waiting ends; `None` waits for ever.
        until: Option<BootTime>,
        /// What the last answer was.
        answer: Option<Unavailable>,
    },
    /// It is ours.
    Held {
        /// Until when; `None` as long as we live.
        trusted_until: Option<BootTime>,
        /// The last renewal failed.
        doubted: bool,
    },
    /// It runs out; what runs under it is being ended, nothing new begins.
    Stopping {
        /// When another may own it.
        trusted_until: BootTime,
    },
    /// It is not ours any more, or nobody can say.
    Lost,
    /// We did not get it in time.
    GaveUp(Unavailable),
    /// We have let it go.
    Released,
}

/// What can happen to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Input {
    /// It is wanted, and waited for until then.
    Contend {
        /// `None` waits for ever.
        until: Option<BootTime>,
    },
    /// The engine gave it to us.
    Acquired {
        /// When we began to ask.
        begun: BootTime,
    },
    /// Somebody else has it.
    Busy,
    /// The engine cannot be reached.
    Unreachable,
    /// The engine says that it is still ours.
    Renewed {
        /// When we began to ask.
        begun: BootTime,
    },
    /// A renewal failed, nobody knows why.
    Doubt,
    /// The engine says that it is not ours any more.
    Gone,
    /// A deadline of [`Lease::wake_at`] may have passed.
    Woke,
    /// It is not needed any more; what ran under it is gone.
    LetGo,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// It is ours: begin.
    Enter,
    /// Waiting is over.
    GiveUp(Unavailable),
    /// Tell that it is in doubt, and when stopping would begin.
    Warn {
        /// That moment.
        stop_at: BootTime,
    },
    /// Tell that it is in doubt no more.
    Reassure,
    /// End what runs under it: TERM, grace, KILL.
    Stop,
    /// End what runs under it at once: another may be inside already.
    Kill,
    /// Give it back to the engine.
    GiveBack,
}

/// The lease of one contender.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    terms: Terms,
    state: LockState,
}

impl Lease {
    /// A lease that nobody has asked for.
    pub fn new(terms: Terms) -> Self {
        Self { terms, state: LockState::Free }
    }

    /// Where it stands.
    pub fn state(&self) -> LockState {
        self.state
    }

    /// Its times.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// When stopping begins unless it is renewed; `None` when it is not held, or does not end.
    pub fn stop_at(&self) -> Option<BootTime> {
        match self.state {
            LockState::Held { trusted_until: Some(until), .. } => Some(self.terms.stop_at(until)),
            LockState::Held { trusted_until: None, .. }
            | LockState::Free
            | LockState::Acquiring { .. }
            | LockState::Stopping { .. }
            | LockState::Lost
            | LockState::GaveUp(_)
            | LockState::Released => None,
        }
    }

    /// Whether something may begin under it.
    pub fn may_start(&self, now: BootTime) -> bool {
        matches!(self.state, LockState::Held { .. }) && self.stop_at().is_none_or(|stop_at| now < stop_at)
    }

    /// The next moment at which time alone changes something.
    pub fn wake_at(&self) -> Option<BootTime> {
        match self.state {
            LockState::Acquiring { until, answer } => until.map(|until| self.patience(until, answer)),
            LockState::Held { trusted_until: Some(until), doubted: false } => Some(self.terms.warn_at(until)),
            LockState::Held { .. } => self.stop_at(),
            LockState::Stopping { trusted_until } => Some(trusted_until),
            LockState::Free | LockState::Lost | LockState::GaveUp(_) | LockState::Released => None,
        }
    }

    /// Who waits for no time still waits for the first answer.
    fn patience(&self, until: BootTime, answer: Option<Unavailable>) -> BootTime {
        if answer.is_some() { until } else { until + self.terms.call_limit() }
    }

    /// One step of the table.
    pub fn step(&mut self, input: Input, now: BootTime) -> Option<Action> {
        match self.state {
            LockState::Free | LockState::Released => self.step_outside(input, true),
            LockState::Lost => self.step_outside(input, false),
            LockState::GaveUp(_) => self.step_outside(input, false),
            LockState::Acquiring { until, answer } => self.step_acquiring(input, until, answer, now),
            LockState::Held { trusted_until, doubted } => self.step_held(input, trusted_until, doubted, now),
            LockState::Stopping { trusted_until } => self.step_stopping(input, trusted_until, now),
        }
    }

    fn step_outside(&mut self, input: Input, clean: bool) -> Option<Action> {
        match input {
            Input::Contend { until } => {
                self.state = LockState::Acquiring { until, answer: None };
                None
            }
            // The answer to a question that we have given up on.
            Input::Acquired { .. } => Some(Action::GiveBack),
            Input::LetGo if !clean => self.let_go(),
            Input::LetGo | Input::Busy | Input::Unreachable | Input::Renewed { .. } | Input::Doubt | Input::Gone | Input::Woke => None,
        }
    }

    fn step_acquiring(&mut self, input: Input, until: Option<BootTime>, answer: Option<Unavailable>, now: BootTime) -> Option<Action> {
        match input {
            Input::Acquired { begun } => {
                let trusted_until = self.terms.trusted_until(begun);
                self.state = LockState::Held { trusted_until, doubted: false };
                if self.may_start(now) {
                    return Some(Action::Enter);
                }
                // The answer came so late that there is no time left in it.
                self.state = LockState::Acquiring { until, answer };
                Some(Action::GiveBack)
            }
            Input::Busy => self.wait_on(until, Unavailable::Held, now),
            Input::Unreachable => self.wait_on(until, Unavailable::Unreachable, now),
            Input::Woke => {
                let until = until.filter(|until| now >= self.patience(*until, answer))?;
                self.wait_on(Some(until), answer.unwrap_or(Unavailable::Unreachable), now)
            }
            Input::LetGo => self.let_go(),
            Input::Contend { until } => {
                self.state = LockState::Acquiring { until, answer };
                None
            }
            Input::Renewed { .. } | Input::Doubt | Input::Gone => None,
        }
    }

    fn wait_on(&mut self, until: Option<BootTime>, answer: Unavailable, now: BootTime) -> Option<Action> {
        if until.is_some_and(|until| now >= until) {
            self.state = LockState::GaveUp(answer);
            return Some(Action::GiveUp(answer));
        }
        self.state = LockState::Acquiring { until, answer: Some(answer) };
        None
    }

    fn step_held(&mut self, input: Input, trusted_until: Option<BootTime>, doubted: bool, now: BootTime) -> Option<Action> {
        match (input, trusted_until) {
            (Input::Renewed { begun }, Some(until)) if begun > until => self.lose(Action::Kill),
            (Input::Renewed { begun }, Some(until)) => {
                let extended = self.terms.trusted_until(begun).map(|renewed| renewed.max(until));
                self.state = LockState::Held { trusted_until: extended, doubted: false };
                self.look_at_time(extended, now).or(doubted.then_some(Action::Reassure))
            }
            (Input::Doubt, Some(until)) => self.look_at_time(trusted_until, now).or_else(|| (!doubted).then(|| self.doubt(until))),
            (Input::Gone, Some(until)) if now >= until => self.lose(Action::Kill),
            (Input::Gone, Some(_) | None) => self.lose(Action::Stop),
            (Input::Woke, Some(until)) => self.look_at_time(trusted_until, now).or_else(|| {
                let silent = !doubted && now >= self.terms.warn_at(until);
                silent.then(|| self.doubt(until))
            }),
            (Input::LetGo, _) => self.let_go(),
            (Input::Renewed { .. } | Input::Doubt | Input::Woke, None) => None,
            (Input::Contend { .. } | Input::Acquired { .. } | Input::Busy | Input::Unreachable, _) => None,
        }
    }

    fn doubt(&mut self, until: BootTime) -> Action {
        self.state = LockState::Held { trusted_until: Some(until), doubted: true };
        Action::Warn { stop_at: self.terms.stop_at(until) }
    }

    fn look_at_time(&mut self, trusted_until: Option<BootTime>, now: BootTime) -> Option<Action> {
        let until = trusted_until?;
        if now >= until {
            return self.lose(Action::Kill);
        }
        if now >= self.terms.stop_at(until) {
            self.state = LockState::Stopping { trusted_until: until };
            return Some(Action::Stop);
        }
        None
    }

    fn step_stopping(&mut self, input: Input, until: BootTime, now: BootTime) -> Option<Action> {
        match input {
            // It stays a stop: half a run is none. But there is more time for its end.
            Input::Renewed { begun } if begun <= until => {
                let trusted_until = self.terms.trusted_until(begun).map_or(until, |renewed| renewed.max(until));
                self.state = LockState::Stopping { trusted_until };
                if now >= trusted_until { self.lose(Action::Kill) } else { None }
            }
            Input::Renewed { .. } | Input::Gone => self.lose(Action::Kill),
            Input::Woke if now >= until => self.lose(Action::Kill),
            Input::LetGo => self.let_go(),
            Input::Woke | Input::Doubt | Input::Busy | Input::Unreachable | Input::Contend { .. } | Input::Acquired { .. } => None,
        }
    }

    fn lose(&mut self, action: Action) -> Option<Action> {
        self.state = LockState::Lost;
        Some(action)
    }

    fn let_go(&mut self) -> Option<Action> {
        self.state = LockState::Released;
        Some(Action::GiveBack)
    }
}

/// How long to wait before the lock is asked for again: soon at first, then once a second or, where leases are short, a
/// thirtieth of one, and at the moment at which the holder's lease is over if that is known and sooner.
pub fn pause_before_next(terms: Terms, tries: u32, rest: Option<Duration>) -> Duration {
    let longest = terms.retry_every().min(Duration::from_secs(1));
    let pause = Duration::from_millis(25).saturating_mul(1 << tries.min(6)).min(longest);
    rest.map_or(pause, |rest| rest.clamp(Duration::from_millis(1), pause))
}

#[cfg(test)]
mod tests;
