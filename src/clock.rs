//! The only place that asks what time it is. Rules take `now` as an argument.
//!
//! Durations come from the monotonic clock (a [`Moment`]), dates from the wall clock: a machine
//! whose date is set in the middle of a task must not time that task out.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use crate::names::digit;

/// A point of the monotonic clock, as the time since its zero; the machine's begins with its start (clock_gettime(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(Duration);

impl Moment {
    /// The moment `since_zero` after the clock's zero.
    pub fn at(since_zero: Duration) -> Self {
        Self(since_zero)
    }

    /// The time that has passed since `earlier`; zero if it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// This moment and `limit` more; `None` where there is no limit, or none that will ever come.
    pub fn after(self, limit: Limit) -> Option<Self> {
        limit.duration().and_then(|duration| self.0.checked_add(duration)).map(Self)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// A point of the clock that goes on while the machine sleeps (CLOCK_BOOTTIME, clock_gettime(2)), as the time since it
/// was started. A lease runs out on its engine while our machine sleeps, too, so leases are measured with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootTime(Duration);

impl BootTime {
    /// The point `since_boot` after the start of the machine.
    pub const fn at(since_boot: Duration) -> Self {
        Self(since_boot)
    }

    /// Now.
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Self(Duration::try_from(now).unwrap_or_default())
    }

    /// The time since the machine was started.
    pub fn since_boot(self) -> Duration {
        self.0
    }

    /// The time that has passed since `earlier`; zero if it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The point `duration` before this one; the start of the machine if there is none.
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }
}

impl Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// A limit of time in which zero and `infinity` both mean that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit(Option<Duration>);

impl Limit {
    /// No limit at all.
    pub const NONE: Self = Self(None);

    /// A limit of `duration`; zero is none.
    pub fn of(duration: Duration) -> Self {
        Self((!duration.is_zero()).then_some(duration))
    }

    /// The length of the limit, if there is one.
    pub fn duration(self) -> Option<Duration> {
        self.0
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(duration) => write!(f, "{}", Seconds(duration)),
            None => f.write_str("no limit"),
        }
    }
}

/// Prints a duration for people: `0.012 s`, `4.5 s`, `2min 5s`.
#[derive(Debug, Clone, Copy)]
pub struct Seconds(pub Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, millis) = (i64::try_from(self.0.as_secs()).unwrap_or(i64::MAX), self.0.subsec_millis());
        match whole {
            // By hand, in one piece: most tasks take so long, and the formatter of the language costs several times as much.
            0..10 => {
                let millis = i64::from(millis);
                let text = [digit(whole), b'.', digit(millis / 100), digit(millis / 10), digit(millis), b' ', b's'];
                f.write_str(std::str::from_utf8(&text).unwrap_or_default())
            }
            10..120 => write!(f, "{whole}.{} s", millis / 100),
            120..7200 => write!(f, "{}min {}s", whole / 60, whole % 60),
            7200..172_800 => write!(f, "{}h {}min", whole / 3600, whole / 60 % 60),
            _ => write!(f, "{}d {}h", whole / 86400, whole / 3600 % 24),
        }
    }
}

/// Where the time comes from.
pub trait Clock {
    /// The monotonic clock, for durations and deadlines.
    fn now(&self) -> Moment;
    /// The wall clock, for dates that people and other programs read.
    fn wall(&self) -> jiff::Timestamp;
}

/// The clocks of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The clocks of the machine.
    pub fn new() -> Self {
        Self
    }
}

impl Clock for SystemClock {
    /// Asked a dozen times for each task: the kernel's own number, without a start to take from it.
    fn now(&self) -> Moment {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        // Both are in their ranges whatever happens: this clock begins at zero and never goes back.
        Moment(Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0)))
    }

    /// Asked several times for each task, too.
    fn wall(&self) -> jiff::Timestamp {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        // The kernel counts nanoseconds in 64 bits: its dates end in 2262, long before those of the type.
        jiff::Timestamp::new(time.tv_sec, i32::try_from(time.tv_nsec).unwrap_or(0)).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_no_limit_and_an_endless_one_never_comes() {
        let now = Moment::at(Duration::from_secs(5));
        assert_eq!(now.after(Limit::of(Duration::ZERO)), None);
        assert_eq!(now.after(Limit::of(Duration::MAX)), None);
        assert_eq!(now.after(Limit::of(Duration::from_secs(2))), Some(Moment::at(Duration::from_secs(7))));
    }

    #[test]
    fn durations_are_printed_for_people() {
        let text = |millis| Seconds(Duration::from_millis(millis)).to_string();
        assert_eq!(
            [text(12), text(4_500), text(61_250), text(125_000), text(7_260_000)],
            ["0.012 s", "4.500 s", "61.2 s", "2min 5s", "2h 1min"]
        );
    }
}
