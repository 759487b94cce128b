//! The window of an idle chain, and the minute of a tick from which it counts there. Decides only.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The time left in the window that begins at `begins`: zero or negative when it is over. RUNNER_TIME_LEFT is this, in seconds.
pub fn time_left(begins: Timestamp, window: Duration, now: Timestamp) -> SignedDuration {
    SignedDuration::try_from(window).unwrap_or(SignedDuration::MAX).saturating_sub(now.duration_since(begins))
}

/// The beginning of the minute in which a tick was called.
pub fn minute_of(now: Timestamp) -> Timestamp {
    let second = now.as_second();
    Timestamp::from_second(second - second.rem_euclid(60)).unwrap_or(now)
}
