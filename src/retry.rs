//! How long to wait before the next try. Decides only; the random part is handed in.

use std::time::Duration;

/// The settings of the wait between tries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// `sleep_time`: the least wait.
    pub sleep_time: Duration,
    /// `retry_jitter`: a random part of this is added.
    pub retry_jitter: Duration,
    /// `backoff`: what the wait is multiplied with for each further try; at least 1.
    pub factor: f64,
    /// `max_sleep_time`: the wait never grows over this.
    pub max_sleep_time: Duration,
}

impl Backoff {
    /// The wait after `failures` failures (1 after the first):
    /// `min(max_sleep_time, (sleep_time + fraction x retry_jitter) x factor^(failures-1))`.
    ///
    /// `fraction` is the random part, in `0.0..1.0`.
    pub fn wait(&self, failures: u32, fraction: f64) -> Duration {
        let base = self.sleep_time.as_secs_f64() + fraction * self.retry_jitter.as_secs_f64();
        let seconds = grown(base, self.factor, failures).min(self.max_sleep_time.as_secs_f64());
        Duration::try_from_secs_f64(seconds).unwrap_or(self.max_sleep_time)
    }

    /// The least and the greatest wait after `failures` failures, for people who plan.
    pub fn bounds(&self, failures: u32) -> (Duration, Duration) {
        (self.wait(failures, 0.0), self.wait(failures, 1.0))
    }
}

/// `first x factor^(failures-1)`, after `failures` failures (1 after the first).
pub fn grown(first: f64, factor: f64, failures: u32) -> f64 {
    let times = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
    // `0 x infinity` is not a number; a wait of nothing stays nothing however often it is doubled.
    if first == 0.0 { 0.0 } else { first * factor.powi(times) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn backoff(sleep: f64, jitter: f64, factor: f64, cap: f64) -> Backoff {
        Backoff {
            sleep_time: Duration::from_secs_f64(sleep),
            retry_jitter: Duration::from_secs_f64(jitter),
            factor,
            max_sleep_time: Duration::from_secs_f64(cap),
        }
    }

    #[test]
    fn the_wait_is_the_documented_product() {
        let plan = backoff(1.0, 30.0, 2.0, 3600.0);
        assert_eq!(plan.wait(1, 0.0), Duration::from_secs(1));
        assert_eq!(plan.wait(1, 0.5), Duration::from_secs(16));
        assert_eq!(plan.wait(3, 0.5), Duration::from_secs(64));
        assert_eq!(plan.wait(30, 0.5), Duration::from_secs(3600));
        assert_eq!(backoff(0.0, 0.0, 2.0, 9.0).wait(u32::MAX, 0.7), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn the_wait_stays_between_its_bounds(sleep in 0.0..1e6, jitter in 0.0..1e6, factor in 1.0..10.0, cap in 0.0..1e6, failures in 0..u32::MAX, fraction in 0.0..1.0) {
            let plan = backoff(sleep, jitter, factor, cap);
            let (low, high) = plan.bounds(failures);
            let wait = plan.wait(failures, fraction);
            prop_assert!(low <= wait && wait <= high && wait <= plan.max_sleep_time);
        }
    }
}
