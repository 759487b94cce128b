//! A time on the command line: RFC 3339, `HH:MM`, `+D`. Decides only.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::config::value;

use super::days::Days;
use super::local::{LocalRule, Times};
use super::weekly;

/// Why a time of the command line is none. The strings are what was typed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhenError {
    /// None of the three forms.
    #[error(
        "`{0}`: expected a time: 2026-03-29T02:30:00+01:00 (RFC 3339, with Z or an offset), 14:30 (the next such time), or +90min (from now)"
    )]
    Form(String),
    /// `+` without a duration.
    #[error("`{0}`: expected a duration behind the +: seconds such as 90, `10min`, `1h30m`")]
    Duration(String),
    /// Past the year 9999.
    #[error("`{0}` lies beyond the calendar: expected a time before the year 9999")]
    Beyond(String),
}

/// Reads a time: RFC 3339 with an offset; `HH:MM` (or `9:05pm`), the next such time after `now` on the clock of `zone`,
/// by the rules of a schedule's fixed times; `+D`, so much after `now`.
///
/// # Errors
/// What is none of these, or no time that a calendar has.
pub fn when(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, WhenError> {
    when_after(text, now, now, zone)
}

/// The end of a stretch of time that begins at `from`: the same, but `HH:MM` is the first such time after that, not after `now`.
///
/// # Errors
/// As for [`when`].
pub fn when_after(text: &str, from: Timestamp, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, WhenError> {
    let typed = text.trim();
    let beyond = || WhenError::Beyond(text.to_owned());
    if let Some(duration) = typed.strip_prefix('+') {
        let duration = value::duration(duration.trim()).map_err(|_| WhenError::Duration(text.to_owned()))?;
        let duration = SignedDuration::try_from(duration).map_err(|_| beyond())?;
        return now.checked_add(duration).map_err(|_| beyond());
    }
    if let Ok(minute) = weekly::time_of_day(typed) {
        let rule = LocalRule { days: Days::of_week(0x7f), times: Times::List([minute].into()), follows_clock: false };
        return rule.next_after(from, zone).ok_or_else(beyond);
    }
    typed.parse().map_err(|_| WhenError::Form(text.to_owned()))
}
