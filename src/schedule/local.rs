//! From the times of a local clock to moments: the rules for a clock that is put forward and back.
//!
//! They are Vixie cron's. A fixed time that the clock skips fires at the first moment after the gap, once; one that comes
//! twice fires at its first pass, once. A rule whose minutes or hours begin with `*` follows the clock: what is skipped
//! is skipped, what comes twice fires twice. Decides only; the zone is an argument.

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan as _};

use super::days::Days;

/// More changes of the clock than a zone has in four hundred years.
const CHANGES: usize = 4000;

/// The times of a day, in minutes since midnight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Times {
    /// Each of these minutes of each of these hours: bits 0 to 59, bits 0 to 23.
    Grid {
        /// Bits 0 to 59.
        minutes: u64,
        /// Bits 0 to 23.
        hours: u32,
    },
    /// In order, each once, at least one.
    List(Box<[u16]>),
}

impl Times {
    /// The first time that is not before `minute` of the day.
    fn next_from(&self, minute: u16) -> Option<u16> {
        match self {
            Self::List(times) => times.iter().copied().find(|time| *time >= minute),
            Self::Grid { minutes, hours } => {
                let (hour, minute) = (u32::from(minute / 60), u32::from(minute % 60));
                let rest = if hours & (1 << hour) == 0 { 0 } else { minutes & (u64::MAX << minute) };
                if rest != 0 {
                    return u16::try_from(hour * 60 + rest.trailing_zeros()).ok();
                }
                let later = hours & (u32::MAX << hour) & !(1 << hour);
                if later == 0 { None } else { u16::try_from(later.trailing_zeros() * 60 + minutes.trailing_zeros()).ok() }
            }
        }
    }

    /// How many there are in a day.
    pub fn count(&self) -> u32 {
        match self {
            Self::List(times) => u32::try_from(times.len()).unwrap_or(u32::MAX),
            Self::Grid { minutes, hours } => minutes.count_ones() * hours.count_ones(),
        }
    }
}

/// A rule in local time: these days, at these times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalRule {
    pub days: Days,
    pub times: Times,
    /// Whether it follows a clock that is put forward or back; else its times are fixed.
    pub follows_clock: bool,
}

impl LocalRule {
    /// The first time of the rule that is not before `from` on a clock that nobody puts forward or back.
    pub fn next_civil(&self, from: DateTime) -> Option<DateTime> {
        let minute = i16::from(from.hour()) * 60 + i16::from(from.minute());
        let date = self.days.next_from(from.date())?;
        if date == from.date()
            && let Some(time) = self.times.next_from(minute.unsigned_abs())
        {
            return at(date, time);
        }
        let date = if date == from.date() { self.days.next_from(date.tomorrow().ok()?)? } else { date };
        at(date, self.times.next_from(0)?)
    }

    /// The first moment after `t`.
    pub fn next_after(&self, t: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if self.follows_clock { self.next_following(t, zone) } else { self.next_fixed(t, zone) }
    }

    /// A later time of the clock is never an earlier moment, so whatever is not after `t` on the clock is past.
    fn next_fixed(&self, t: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut from = minute_after(zone.to_datetime(t))?;
        loop {
            let civil = self.next_civil(from)?;
            let moment = moment_of(civil, zone)?;
            if moment > t {
                return Some(moment);
            }
            from = minute_after(civil)?;
        }
    }

    /// From one change of the clock to the next; between two it is a plain clock.
    fn next_following(&self, t: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut from = Timestamp::from_second(t.as_second().checked_add(1)?).ok()?;
        for _ in 0..CHANGES {
            let offset = zone.to_offset(from);
            let now = offset.to_datetime(from);
            let civil = self.next_civil(if now.second() == 0 { now } else { minute_after(now)? })?;
            let moment = offset.to_timestamp(civil).ok()?;
            match zone.following(from).find(|change| change.offset() != offset) {
                Some(change) if change.timestamp() <= moment => from = change.timestamp(),
                Some(_) | None => return Some(moment),
            }
        }
        None
    }
}

fn at(date: Date, minute: u16) -> Option<DateTime> {
    let (hour, minute) = (i8::try_from(minute / 60).ok()?, i8::try_from(minute % 60).ok()?);
    Some(date.at(hour, minute, 0, 0))
}

/// The next full minute of the clock.
fn minute_after(civil: DateTime) -> Option<DateTime> {
    civil.date().at(civil.hour(), civil.minute(), 0, 0).checked_add(SignedDuration::from_secs(60)).ok()
}

/// The moment at which a fixed time fires.
fn moment_of(civil: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(civil).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(civil).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(civil).ok(),
        AmbiguousOffset::Gap { after, .. } => {
            // With the later offset the skipped time lies just before the clock is put forward.
            let ahead = after.to_timestamp(civil).ok()?;
            zone.following(ahead).find(|change| change.offset() == after).map(|change| change.timestamp())
        }
    }
}

/// A change of the clock: what it showed just before and what it shows from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    /// When.
    pub at: Timestamp,
    /// What the clock would have shown then.
    pub before: DateTime,
    /// What it shows.
    pub after: DateTime,
}

impl Change {
    /// The change at exactly this moment, if there is one.
    pub fn at(moment: Timestamp, zone: &TimeZone) -> Option<Self> {
        let earlier = zone.to_offset(moment.checked_sub(1.second()).ok()?);
        Self::between(moment, earlier, zone.to_offset(moment))
    }

    /// The changes after `from` and not after `until`.
    pub fn all(from: Timestamp, until: Timestamp, zone: &TimeZone) -> impl Iterator<Item = Self> + '_ {
        zone.following(from).map(|change| change.timestamp()).take_while(move |at| *at <= until).filter_map(|at| Self::at(at, zone))
    }

    fn between(at: Timestamp, earlier: Offset, later: Offset) -> Option<Self> {
        (earlier != later).then(|| Self { at, before: earlier.to_datetime(at), after: later.to_datetime(at) })
    }
}
