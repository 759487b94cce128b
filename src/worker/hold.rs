//! Whether what a worker runs is still its own. Decides only.
//!
//! The lease is renewed after a third of it, and trusted for two thirds: the rest is for ending jobs. A worker that was
//! frozen finds it used up when it wakes, although nobody may have touched its jobs: it asks first, and ends them only
//! if no answer comes. Where others see its sign of life nobody takes them, and it waits for as long as it takes.

use std::time::Duration;

use crate::clock::Moment;

/// How long an answer may take when the lease is in doubt. It belongs to the part of the lease that is for ending jobs.
pub const ANSWER: Duration = Duration::from_secs(2);
/// How often is looked whether others still see the sign of life.
const LOOK_AT_SIGN: Duration = Duration::from_secs(10);

/// The hold on the jobs that run.
#[derive(Debug, Clone, Copy)]
pub struct Hold {
    /// When the lease is to be renewed.
    pub renew_at: Moment,
    safe_until: Moment,
    doubted: Option<Moment>,
    told: bool,
}

/// What is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// They are ours.
    Held,
    /// The lease is used up, but others see that we live. `true` when it is new.
    Seen(bool),
    /// It is to be asked at once.
    Doubted,
    /// Nobody has answered: another worker may begin them.
    Lost,
}

impl Hold {
    /// By a lease of this length that was asked for at `asked`.
    pub fn new(asked: Moment, lease: Duration) -> Self {
        let to_end = lease / 3;
        Self { renew_at: asked + lease / 3, safe_until: asked + lease.saturating_sub(to_end), doubted: None, told: false }
    }

    /// Whether there is time left for beginning something.
    pub fn is_fresh(&self, now: Moment) -> bool {
        now < self.safe_until
    }

    /// When to look again.
    pub fn look_at(&self) -> Moment {
        self.doubted.map_or(self.safe_until, |since| since + ANSWER)
    }

    /// What is to be made of it now. `is_seen` is whether others see our sign of life.
    pub fn look(&mut self, now: Moment, is_seen: impl FnOnce() -> bool) -> Standing {
        if self.is_fresh(now) {
            self.doubted = None;
            return Standing::Held;
        }
        if is_seen() {
            (self.safe_until, self.doubted) = (now + LOOK_AT_SIGN, None);
            self.renew_at = self.renew_at.min(now);
            return Standing::Seen(!std::mem::replace(&mut self.told, true));
        }
        let since = *self.doubted.get_or_insert(now);
        if now < since + ANSWER {
            self.renew_at = self.renew_at.min(now);
            return Standing::Doubted;
        }
        Standing::Lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::at(Duration::from_secs(seconds))
    }

    #[test]
    fn a_lease_that_is_used_up_is_asked_for_before_anything_is_ended() {
        let mut hold = Hold::new(at(100), Duration::from_secs(60));
        assert_eq!((hold.renew_at, hold.look_at()), (at(120), at(140)));
        let unseen = || false;
        assert_eq!(hold.look(at(139), unseen), Standing::Held);
        // Frozen for an hour.
        assert_eq!((hold.look(at(3700), unseen), hold.look_at()), (Standing::Doubted, at(3702)));
        assert_eq!(hold.look(at(3701), unseen), Standing::Doubted);
        assert_eq!(hold.look(at(3702), unseen), Standing::Lost);
        let mut hold = Hold::new(at(3700), Duration::from_secs(60));
        assert_eq!(hold.look(at(3702), unseen), Standing::Held, "the answer came in time");
    }

    #[test]
    fn whoever_is_seen_to_live_waits_for_the_database() {
        let mut hold = Hold::new(at(100), Duration::from_secs(60));
        assert_eq!((hold.look(at(140), || true), hold.look_at()), (Standing::Seen(true), at(150)));
        assert_eq!((hold.look(at(149), || true), hold.look(at(150), || true)), (Standing::Held, Standing::Seen(false)));
        // Somebody has removed the sign.
        assert_eq!((hold.look(at(160), || false), hold.look(at(162), || false)), (Standing::Doubted, Standing::Lost));
    }
}
