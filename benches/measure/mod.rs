//! How it is measured: alternating runs, and ratios of neighbours.
//!
//! The speed of a shared machine drifts by more than what is looked for, so a run is only ever compared with the
//! run of the reference just before it: A B A B, one ratio for each pair, and the median of these ratios. Where even
//! that is not steady, the fastest runs and the time of the processors tell more.

pub mod stage;
pub mod table;
pub mod way;

use std::fmt;

/// What a run took, all that it started and waited for included.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// The time that passed, in seconds.
    pub passed: f64,
    /// The time of the processors, in seconds. Hardly moved by what else the machine does.
    pub cpu: f64,
    /// The most memory that was resident, in MiB.
    pub peak: f64,
}

/// Several measurements of the same thing.
#[derive(Debug, Default, Clone)]
pub struct Sample {
    values: Vec<f64>,
}

impl Sample {
    /// Adds one.
    pub fn add(&mut self, value: f64) {
        self.values.push(value);
        self.values.sort_by(f64::total_cmp);
    }

    /// The least.
    pub fn min(&self) -> f64 {
        self.values.first().copied().unwrap_or(f64::NAN)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// The same in another unit.
    pub fn scaled(&self, factor: f64) -> Self {
        Self { values: self.values.iter().map(|value| value * factor).collect() }
    }

    /// The one in the middle.
    pub fn median(&self) -> f64 {
        let half = self.values.len() / 2;
        if self.values.len().is_multiple_of(2) { f64::midpoint(self.values[half - 1], self.values[half]) } else { self.values[half] }
    }
}

/// As `median (min-max)`, with the precision that was asked for.
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(2);
        let (Some(min), Some(max)) = (self.values.first(), self.values.last()) else { return f.write_str("-") };
        write!(f, "{:.digits$}", self.median())?;
        if self.values.len() > 1 { write!(f, " ({min:.digits$}-{max:.digits$})") } else { Ok(()) }
    }
}

/// A reference and what is compared with it, run in turns.
#[derive(Debug, Default)]
pub struct Pairs {
    /// Seconds of the reference.
    pub reference: Sample,
    /// Seconds of the other.
    pub other: Sample,
    /// Of each pair, the other's time in that of the reference.
    pub ratio: Sample,
    /// Of each pair, the other's time of the processors in that of the reference.
    pub cpu_ratio: Sample,
}

impl Pairs {
    /// Adds a pair.
    pub fn add(&mut self, reference: Usage, other: Usage) {
        self.reference.add(reference.passed);
        self.other.add(other.passed);
        self.ratio.add(other.passed / reference.passed);
        self.cpu_ratio.add(other.cpu / reference.cpu);
    }

    /// The fastest run of the other in the fastest of the reference.
    pub fn fastest(&self) -> f64 {
        self.other.min() / self.reference.min()
    }
}
