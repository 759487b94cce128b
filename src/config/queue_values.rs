//! What the values of queues' own keys mean: which job goes first, how long one waits, what is kept. Decides only.

use std::time::Duration;

use super::value::{self, Parsed};
use crate::retry::grown;

/// Which priority goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PriorityOrder {
    /// The highest.
    Descending,
    /// The lowest, as niceness has it.
    Ascending,
}

/// How long a job waits before its next attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RetryDelay {
    /// attempts^4 + 5 seconds (django-background-tasks).
    Quartic,
    /// The first wait, multiplied with the factor for each further attempt, up to the longest.
    Growing {
        /// The wait after the first attempt.
        first: Duration,
        /// At least 1.
        factor: f64,
        /// The wait never grows over this.
        longest: Duration,
    },
}

impl RetryDelay {
    /// Reads `quartic`, or `D [xF] [max D]`: `30`, `10s x2`, `10s x2 max 1h`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Parsed<Self> {
        let expected =
            || "expected `quartic` (attempts^4 + 5 seconds), or a wait with a factor and a limit such as `10s x2 max 1h`".to_owned();
        if text == "quartic" {
            return Ok(Self::Quartic);
        }
        let (rest, longest) = match text.split_once("max") {
            Some((rest, longest)) => (rest, value::duration(longest.trim()).map_err(|_| expected())?),
            None => (text, Duration::MAX),
        };
        let (first, factor) = match rest.split_once('x') {
            Some((first, factor)) => (first, value::factor(factor.trim()).map_err(|_| expected())?),
            None => (rest, 1.0),
        };
        let first = value::finite(first.trim()).map_err(|_| expected())?;
        Ok(Self::Growing { first, factor, longest })
    }

    /// The wait after so many attempts, at least 1; never over a hundred years.
    pub fn wait(self, attempts: u32) -> Duration {
        const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);
        let wait = match self {
            Self::Quartic => Duration::from_secs(u64::from(attempts).saturating_pow(4).saturating_add(5)),
            Self::Growing { first, factor, longest } => {
                let wait = grown(first.as_secs_f64(), factor, attempts);
                Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX).min(longest)
            }
        };
        wait.min(LONGEST)
    }
}

/// How many jobs of the past are kept, and how long; both when both are said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Not more than these.
    pub count: Option<u64>,
    /// Not longer.
    pub age: Option<Duration>,
}

impl Keep {
    /// Reads a number, a duration with its unit, or both: `1000`, `30d`, `1000 30d`. `infinity` keeps all.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Parsed<Self> {
        let expected = || "expected how many, how long, or both: `1000`, `30d`, `1000 30d`, or `infinity`".to_owned();
        let mut keep = Self { count: None, age: None };
        let (mut words, mut any) = (text.split_whitespace().peekable(), false);
        if let Some(count) = words.peek().and_then(|word| word.parse().ok()) {
            (keep.count, any) = (Some(count), true);
            words.next();
        }
        let rest = words.collect::<Vec<_>>().join(" ");
        match value::duration(&rest) {
            _ if rest.is_empty() => {}
            Ok(age) => (keep.age, any) = ((age < Duration::MAX).then_some(age), true),
            Err(_) => return Err(expected()),
        }
        if any { Ok(keep) } else { Err(expected()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_read_and_grow() {
        let waits = |text: &str| [1, 2, 25].map(|attempts| RetryDelay::parse(text).unwrap().wait(attempts).as_secs());
        assert_eq!(waits("quartic"), [6, 21, 390_630]);
        assert_eq!(waits("10s x2 max 1h"), [10, 20, 3600]);
        assert_eq!(waits("30"), [30; 3]);
        assert_eq!(waits("0 x9"), [0; 3]);
        assert_eq!(RetryDelay::parse("1h x99").unwrap().wait(u32::MAX), Duration::from_secs(100 * 365 * 86_400));
        for text in ["", "often", "x2", "10s x0.5", "max 1h", "infinity"] {
            assert!(RetryDelay::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_kept_is_a_number_an_age_or_both() {
        let keep = |count, days: Option<u64>| Ok(Keep { count, age: days.map(|days| Duration::from_secs(days * 86_400)) });
        assert_eq!(Keep::parse("1000"), keep(Some(1000), None));
        assert_eq!(Keep::parse("30d"), keep(None, Some(30)));
        assert_eq!(Keep::parse("0 1d"), keep(Some(0), Some(1)));
        assert_eq!(Keep::parse("infinity"), keep(None, None));
        assert!(Keep::parse("").is_err() && Keep::parse("some").is_err() && Keep::parse("10 some").is_err());
    }
}
