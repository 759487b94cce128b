//! Whether the runs of a chain have room between its slots, by how long the last ones took. Decides only.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Schedule;
use crate::config::keys::Overlap;

/// How many slots are looked at to learn how far apart they are.
const SLOTS: usize = 50;
/// So many of the last runs are judged: what was before may have been another task.
const MOST: usize = 10;
/// Fewer runs prove nothing.
pub const FEWEST: usize = 3;

/// How far apart the slots are that come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gaps {
    /// The shortest time between two of them.
    pub shortest: Duration,
    /// The time between two of them on average.
    pub average: Duration,
}

/// How long a run took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Took {
    /// It was done after this time.
    Whole(Duration),
    /// The next slot took its place before it was done.
    Replaced,
}

/// Runs that take longer than the time between slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowded {
    /// The time between slots for which they are too long.
    pub gap: Duration,
    /// How long the shortest of those took that were done; `None` where none was.
    pub least: Option<Duration>,
    /// How many of them the next slot took the place of.
    pub replaced: usize,
    /// How many were judged.
    pub runs: usize,
}

impl Gaps {
    /// Of the slots after `t`; `None` where there are not two.
    pub fn after(schedule: &Schedule, t: Timestamp) -> Option<Self> {
        let slots: Vec<Timestamp> = schedule.slots_after(t).take(SLOTS).collect();
        let gap = |from: &Timestamp, to: &Timestamp| from.duration_until(*to);
        let shortest = slots.windows(2).map(|pair| gap(&pair[0], &pair[1])).min().map(SignedDuration::unsigned_abs)?;
        let all = gap(slots.first()?, slots.last()?).unsigned_abs();
        Some(Self { shortest, average: all / u32::try_from(slots.len() - 1).unwrap_or(u32::MAX) })
    }

    /// Whether slots find their chain running again and again, not by chance: each of the last runs that were done, whose
    /// `lengths` these are with the newest first, took too long. With `overlap = replace` those count as well whose place a slot took:
    /// there may be no others. A slot that is given up, or whose run is stopped, is lost where
    /// two are too near to each other; one that waits (`overlap = queue`) is not, as long as there is room for all of them
    /// together.
    pub fn crowded(&self, overlap: Overlap, lengths: impl IntoIterator<Item = Took>) -> Option<Crowded> {
        let (gap, counts_replaced) = match overlap {
            Overlap::Skip => (self.shortest, false),
            Overlap::Replace => (self.shortest, true),
            Overlap::Queue => (self.average, false),
        };
        let judged = lengths.into_iter().filter(|took| counts_replaced || *took != Took::Replaced);
        let lengths: Vec<Took> = judged.take(MOST).collect();
        let whole = lengths.iter().filter_map(|took| match took {
            Took::Whole(length) => Some(*length),
            Took::Replaced => None,
        });
        let (least, replaced) = (whole.clone().min(), lengths.len() - whole.count());
        let too_long = least.is_none_or(|least| least > gap);
        (lengths.len() >= FEWEST && too_long).then_some(Crowded { gap, least, replaced, runs: lengths.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;
    use rstest::rstest;

    const MINUTE: u64 = 60;

    /// A length of 0 is that of a run whose place the next slot took.
    fn crowded(schedule: &str, overlap: Overlap, lengths: &[u64]) -> Option<(u64, u64)> {
        let schedule = Schedule::parse(schedule, TimeZone::UTC).unwrap();
        let gaps = Gaps::after(&schedule, "2026-11-21T12:00Z".parse().unwrap())?;
        let took = |seconds: &u64| if *seconds == 0 { Took::Replaced } else { Took::Whole(Duration::from_secs(*seconds)) };
        let crowded = gaps.crowded(overlap, lengths.iter().map(took))?;
        assert_eq!(crowded.replaced, lengths.iter().take(MOST).filter(|length| overlap == Overlap::Replace && **length == 0).count());
        Some((crowded.gap.as_secs(), crowded.least.map_or(0, |least| least.as_secs())))
    }

    #[rstest]
    #[case::each_is_too_long("every 1min", Overlap::Skip, &[70, 65, 90], Some((60, 65)))]
    #[case::a_full_gap_is_room_enough("every 1min", Overlap::Skip, &[60, 65, 90], None)]
    #[case::one_was_quick("every 1min", Overlap::Skip, &[70, 65, 3], None)]
    #[case::too_few("every 1min", Overlap::Skip, &[70, 65], None)]
    #[case::the_quick_one_is_long_ago("every 1min", Overlap::Skip, &[70, 70, 70, 70, 70, 70, 70, 70, 70, 70, 3], Some((60, 70)))]
    #[case::two_times_a_day_that_are_near("daily 1:30 1:45", Overlap::Skip, &[20 * MINUTE; 5], Some((15 * MINUTE, 20 * MINUTE)))]
    #[case::the_first_of_them_is_stopped("daily 1:30 1:45", Overlap::Replace, &[20 * MINUTE; 5], Some((15 * MINUTE, 20 * MINUTE)))]
    #[case::none_comes_to_its_end("every 1min", Overlap::Replace, &[0, 0, 0], Some((60, 0)))]
    #[case::some_come_to_their_end("every 1min", Overlap::Replace, &[0, 70, 0], Some((60, 70)))]
    #[case::one_was_quick_enough("every 1min", Overlap::Replace, &[0, 50, 0, 0], None)]
    #[case::too_few_were_replaced("every 1min", Overlap::Replace, &[0, 0], None)]
    #[case::they_were_replaced_before("every 1min", Overlap::Skip, &[0, 0, 0, 0], None)]
    #[case::the_second_waits("daily 1:30 1:45", Overlap::Queue, &[20 * MINUTE; 5], None)]
    #[case::there_is_no_room_for_all("every 1min", Overlap::Queue, &[70, 65, 90], Some((60, 65)))]
    #[case::the_night_is_long("*/10 9-17 * * *", Overlap::Queue, &[11 * MINUTE; 5], None)]
    #[case::once_for_each_start("@boot", Overlap::Skip, &[70; 5], None)]
    fn runs_have_room_or_have_not(
        #[case] schedule: &str,
        #[case] overlap: Overlap,
        #[case] lengths: &[u64],
        #[case] expected: Option<(u64, u64)>,
    ) {
        assert_eq!(crowded(schedule, overlap, lengths), expected);
    }
}
