//! The order of a tick: all due chains side by side, then the idle ones, one after the other, while there is time left.
//! Decides only.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The time left in the window that began with `minute`: negative when it is used up.
///
/// `minute` is the minute of a tick, or the slot in a daemon. RUNNER_TIME_LEFT is this, in seconds.
pub fn time_left(minute: Timestamp, window: Duration, now: Timestamp) -> SignedDuration {
    SignedDuration::try_from(window).unwrap_or(SignedDuration::MAX).saturating_sub(now.duration_since(minute))
}

/// The beginning of the minute in which a tick was called.
pub fn minute_of(now: Timestamp) -> Timestamp {
    let second = now.as_second();
    Timestamp::from_second(second - second.rem_euclid(60)).unwrap_or(now)
}

/// A chain that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<T> {
    /// The chain, in the caller's terms.
    pub chain: T,
    /// Its `idle`.
    pub idle: bool,
    /// Its `window`.
    pub window: Duration,
}

/// What becomes of the next idle chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Idle<T> {
    /// Run it, wait for it, ask again.
    Start {
        /// The chain.
        chain: T,
        /// More than nothing.
        left: SignedDuration,
    },
    /// Its window is used up: it is left out, and the next one asked for.
    NoTime {
        /// The chain.
        chain: T,
        /// Zero or negative.
        left: SignedDuration,
    },
}

/// The chains of one tick.
#[derive(Debug, Clone)]
pub struct Order<T> {
    minute: Timestamp,
    first: Vec<T>,
    idle: VecDeque<Member<T>>,
}

impl<T> Order<T> {
    /// The chains that are due in `minute`, in the order of the configuration.
    pub fn new(minute: Timestamp, due: impl IntoIterator<Item = Member<T>>) -> Self {
        let (idle, first): (Vec<_>, Vec<_>) = due.into_iter().partition(|member| member.idle);
        Self { minute, first: first.into_iter().map(|member| member.chain).collect(), idle: idle.into() }
    }

    /// The chains that are started at once, side by side. Empty when asked again.
    pub fn take_first(&mut self) -> Vec<T> {
        std::mem::take(&mut self.first)
    }

    /// What becomes of the next idle chain; to be asked when everything before it has ended. `None` is the end.
    pub fn next_idle(&mut self, now: Timestamp) -> Option<Idle<T>> {
        let member = self.idle.pop_front()?;
        let (chain, left) = (member.chain, time_left(self.minute, member.window, now));
        Some(if left.is_positive() { Idle::Start { chain, left } } else { Idle::NoTime { chain, left } })
    }
}
