//! A date as it stands in the JSON of the status: a moment, and the offset of the place where it was read. Knows nobody.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::fmt::temporal::Pieces;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment in RFC 3339 with the offset that it was read with, to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    /// The moment.
    pub at: Timestamp,
    /// The offset of the place.
    pub offset: Offset,
}

impl Date {
    /// A moment as the clocks of this place show it.
    pub fn new(at: Timestamp, zone: &jiff::tz::TimeZone) -> Self {
        Self { at, offset: zone.to_offset(at) }
    }

    /// Seconds from here to `later`; negative if that lies before.
    pub fn seconds_until(self, later: Self) -> f64 {
        self.at.duration_until(later.at).as_secs_f64()
    }

    /// So much later, where the calendar goes so far.
    pub fn after(self, wait: Duration) -> Option<Self> {
        let wait = SignedDuration::try_from(wait).ok()?;
        Some(Self { at: self.at.checked_add(wait).ok()?, ..self })
    }

    /// Printed by a pattern of strftime(3).
    pub fn show(self, pattern: &str) -> String {
        self.at.to_zoned(self.offset.to_time_zone()).strftime(pattern).to_string()
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show("%Y-%m-%dT%H:%M:%S%.3f%:z"))
    }
}

impl FromStr for Date {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        let offset = Pieces::parse(text)?.to_numeric_offset().unwrap_or(Offset::UTC);
        Ok(Self { at: text.parse()?, offset })
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
