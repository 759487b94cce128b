//! How long before it is due a slot is asked for. Decides only.
//!
//! When the moment comes, the slot is to be ours on disk and its chain made ready, so that nothing is left but to start it.
//! How long that takes depends on the disk and on how many are due together: the last times tell.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::SignedDuration;

/// The shortest: longer than most disks need for a sync, and so short that hardly anybody is killed in it.
pub const LEAD: SignedDuration = SignedDuration::from_millis(50);
/// The longest. A chain that still runs when its slot is asked for has to be written down when it is due.
const LONGEST: SignedDuration = SignedDuration::from_millis(250);
/// How many of the last times count: a disk that was slow once is so again soon.
const REMEMBERED: usize = 16;

/// How long it took the last times.
#[derive(Debug, Default)]
pub struct Lead {
    took: VecDeque<Duration>,
}

impl Lead {
    /// Slots were asked for, and it took so long until they were ours.
    pub fn hear(&mut self, took: Duration) {
        self.took.truncate(REMEMBERED - 1);
        self.took.push_front(took);
    }

    /// So long before it is due the next slot is asked for: twice what it took lately.
    pub fn length(&self) -> SignedDuration {
        let longest = self.took.iter().max().map_or(SignedDuration::ZERO, |took| SignedDuration::try_from(*took).unwrap_or(LONGEST));
        longest.saturating_mul(2).clamp(LEAD, LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_disk_is_asked_earlier_and_a_quick_one_later_again() {
        let millis = SignedDuration::from_millis;
        let mut lead = Lead::default();
        assert_eq!(lead.length(), LEAD);
        for (took, length) in [(5, 50), (40, 80), (100, 200), (10, 200), (3000, 250)] {
            lead.hear(Duration::from_millis(took));
            assert_eq!(lead.length(), millis(length), "{took}");
        }
        lead.hear(Duration::MAX);
        assert_eq!(lead.length(), LONGEST);
        (0..REMEMBERED).for_each(|_| lead.hear(Duration::from_millis(2)));
        assert_eq!(lead.length(), LEAD);
    }
}
