//! What the history knows of a chain: what ran before this program began, and in others.

use jiff::{SignedDuration, Timestamp};

use super::{Date, GivenUp, Run};

/// How a chain stands by the history.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Past {
    /// Its runs that go on.
    pub running: Vec<Run>,
    /// Its last runs, the newest first.
    pub runs: Vec<Run>,
    /// When a run last ended well.
    pub last_success: Option<Date>,
    /// What came to nothing since a run last began.
    pub given_up: Option<GivenUp>,
}

/// Whether a date is from a clock that was wrong, then or now. Those of machines that share a database differ by less.
pub fn is_ahead(at: Timestamp, now: Timestamp) -> bool {
    now.duration_until(at) > SignedDuration::from_secs(60)
}
