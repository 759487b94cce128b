//! `every D`: the multiples of D since the beginning of 1970, whatever the clocks of the zone do. Decides only.

use jiff::Timestamp;

use crate::config::value;

use super::error::Problem;

/// The seconds between two slots; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Every(i64);

impl Every {
    /// The first multiple after `t`; `None` beyond the calendar.
    pub fn next_after(self, t: Timestamp) -> Option<Timestamp> {
        let next = t.as_second().div_euclid(self.0).checked_add(1)?.checked_mul(self.0)?;
        Timestamp::from_second(next).ok()
    }

    /// Whether it is a number of whole days, which begin at midnight UTC.
    pub fn is_days(self) -> bool {
        self.0 % 86_400 == 0
    }
}

/// Reads `every D`.
///
/// # Errors
/// No duration, less than a second, parts of one, `infinity`.
pub(crate) fn parse(rule: &str) -> Result<Every, Problem> {
    let text = rule.get("every".len()..).unwrap_or_default().trim();
    let duration = value::duration(text).map_err(|_| Problem::EveryDuration(rule.to_owned()))?;
    if duration.is_zero() || duration.subsec_nanos() > 0 && duration != std::time::Duration::MAX {
        return Err(Problem::EverySeconds(rule.to_owned()));
    }
    let every = i64::try_from(duration.as_secs()).ok().map(Every);
    every.filter(|every| every.next_after(Timestamp::UNIX_EPOCH).is_some()).ok_or_else(|| Problem::EveryNever(rule.to_owned()))
}
