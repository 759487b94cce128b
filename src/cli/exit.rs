//! The exit codes of both programs, and what leads to each. Published; never changed.

use std::fmt;

use crate::config::{Finding, Origin};
use crate::outcome::RunOutcome;

/// How `runner` ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Gave up: tries, `retry_deadline` or `chain_max_time` are used up. For `runner-config`: the key is not there.
    GaveUp,
    /// Halted by a task. 2 is never used: in a task it would mean HALT.
    Halted,
    /// `--only`, `--skip`, `--from`, `--until` left nothing.
    NothingLeft,
    /// Stopped by a task (`stop_codes`).
    StoppedByTask,
    /// The command line is wrong (EX_USAGE, sysexits.h).
    Usage,
    /// A fault of our own (EX_SOFTWARE).
    Internal,
    /// A result could not be written; the state or the engine of a lock not be reached (EX_IOERR).
    Io,
    /// Another instance runs (EX_TEMPFAIL).
    Refused,
    /// The configuration or the task directory is wrong or not trusted (EX_CONFIG).
    Config,
    /// The lock was lost while something ran under it.
    LockLost,
    /// As the command of `runner lock` did.
    Command(u8),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// The code; for a signal the one that a shell would report.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::GaveUp => 1,
            Self::Halted => 3,
            Self::NothingLeft => 4,
            Self::StoppedByTask => 5,
            Self::Usage => 64,
            Self::Internal => 70,
            Self::Io => 74,
            Self::Refused => 75,
            Self::Config => 78,
            Self::LockLost => 79,
            Self::Command(code) => code,
            Self::Signal(signal) => 128 | u8::try_from(signal).unwrap_or(0),
        }
    }

    /// The code of a run's outcome.
    pub fn of_run(outcome: &RunOutcome) -> Self {
        match outcome {
            RunOutcome::Done => Self::Done,
            RunOutcome::GaveUp { .. } => Self::GaveUp,
            RunOutcome::Halted { .. } => Self::Halted,
            RunOutcome::StoppedByTask { .. } => Self::StoppedByTask,
            RunOutcome::LockLost => Self::LockLost,
            RunOutcome::Signalled(signal) => Self::Signal(*signal),
        }
    }

    /// The graver of the outcomes of two runs: 79 74 3 5 1 0. A signal ends it all.
    pub fn graver(self, other: Self) -> Self {
        let rank = |exit: Self| match exit {
            Self::Done => 0,
            Self::GaveUp | Self::Command(_) => 1,
            Self::StoppedByTask => 2,
            Self::Halted => 3,
            Self::NothingLeft | Self::Usage | Self::Internal | Self::Refused | Self::Config => 4,
            Self::Io => 5,
            Self::LockLost => 6,
            Self::Signal(_) => 7,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// What was named is not there, or is there already: the same code, and no help from the list of options.
    NotThere(String),
    /// The configuration or the task directory is wrong; these are the reasons.
    Config(Vec<Finding>),
    /// The same chain runs already.
    Refused(String),
    /// A filter left nothing.
    NothingLeft(String),
    /// The state cannot be reached, read or written.
    State(String),
    /// Standard output took nothing more; a closed pipe is no failure.
    Output(std::io::Error),
    /// Something that should not happen.
    Internal(anyhow::Error),
}

impl Failure {
    /// A configuration that is wrong for one reason, which stands in no line.
    pub fn config(message: impl Into<String>) -> Self {
        Self::Config(vec![Finding::about(crate::config::Severity::Error, message)])
    }

    /// The same, told with the line that led there; what has a line already keeps it.
    pub fn said_at(mut self, origin: &Origin) -> Self {
        if let Self::Config(findings) = &mut self {
            findings.iter_mut().filter(|finding| finding.origin == Origin::Default).for_each(|finding| finding.origin = origin.clone());
        }
        self
    }

    /// The exit code it leads to.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::NotThere(_) => Exit::Usage,
            Self::Config(_) => Exit::Config,
            Self::Refused(_) => Exit::Refused,
            Self::NothingLeft(_) => Exit::NothingLeft,
            Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Output(_) | Self::State(_) => Exit::Io,
            Self::Internal(_) => Exit::Internal,
        }
    }

    /// The JSON that `--json` prints for it.
    pub fn json(&self) -> serde_json::Value {
        let origin = match self {
            Self::Config(findings) => findings.first().map(|finding| &finding.origin),
            Self::Usage(_) | Self::NotThere(_) | Self::Refused(_) | Self::NothingLeft(_) => None,
            Self::State(_) | Self::Output(_) | Self::Internal(_) => None,
        };
        let (file, line) = match origin {
            Some(Origin::File { file, line }) => (Some(file.display().to_string()), Some(*line)),
            Some(Origin::Default | Origin::CommandLine) | None => (None, None),
        };
        serde_json::json!({ "error": { "code": self.exit().code(), "message": self.to_string(), "file": file, "line": line } })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::NotThere(message) => f.write_str(message),
            Self::Refused(message) | Self::NothingLeft(message) | Self::State(message) => f.write_str(message),
            Self::Config(findings) => {
                let texts: Vec<_> = findings.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join("\n"))
            }
            Self::Output(error) => write!(f, "the result could not be written: {error}"),
            Self::Internal(error) => write!(f, "internal error: {error:#}"),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Internal(error)
    }
}
