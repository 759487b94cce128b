//! What was counted since a program began. Knows nobody; keys are only ever added.

use serde::{Deserialize, Serialize};

use super::Ended;

/// What was counted of a chain since the daemon began.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Runs, by how they ended.
    pub runs: Vec<RunTotal>,
    /// Tries of its tasks, by what came of them.
    pub tries: Vec<TryTotal>,
    /// The same tries, by what they said last of themselves, if they did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<SaidTotal>,
}

/// Tries that said the same of themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaidTotal {
    /// What: success, warning, error.
    pub said: String,
    /// How many.
    pub count: u64,
}

/// Runs that ended alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunTotal {
    /// How.
    pub outcome: Ended,
    /// How many.
    pub count: u64,
    /// How long they took together, in seconds.
    pub seconds: f64,
}

/// Tries that ended alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TryTotal {
    /// The file of the task.
    pub task: String,
    /// OK, SKIP, RETRY, HALT, EXIT, CANCEL.
    pub result: String,
    /// How many.
    pub count: u64,
    /// How long they took together, in seconds.
    pub seconds: f64,
}

/// What was done of a queue since this program began.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct JobTotals {
    /// Jobs, by how they ended.
    pub jobs: Vec<JobTotal>,
    /// Attempts, by what came of them.
    pub tries: Vec<ResultTotal>,
}

/// Jobs that ended alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTotal {
    /// How: done, failed, cancelled.
    pub outcome: String,
    /// How many.
    pub count: u64,
}

/// Attempts that ended alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultTotal {
    /// OK, SKIP, RETRY, HALT, EXIT, CANCEL.
    pub result: String,
    /// How many.
    pub count: u64,
    /// How long they took together, in seconds.
    pub seconds: f64,
}
