//! What made a run begin, and when it was wanted.

use jiff::{Timestamp, Zoned};

/// Why a run begins: what tasks see in RUNNER_TRIGGER, RUNNER_SCHEDULED_AT and RUNNER_TIME_LEFT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    /// Who or what asked for it.
    pub kind: TriggerKind,
    /// The moment its schedule names, in the schedule's zone.
    pub scheduled_at: Option<Zoned>,
    /// When the time it may use is over: the end of the window of an idle chain. Display and RUNNER_TIME_LEFT only.
    pub window_ends: Option<Timestamp>,
}

/// Who or what asked for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TriggerKind {
    /// The main chain, or `@boot`.
    Boot,
    /// A slot, in its minute.
    Schedule,
    /// A slot that passed while nothing ran.
    Missed,
    /// A slot, found by `tick` or by `POST /cron`.
    Tick,
    /// A person: `runner now`.
    Now,
    /// A job of the queue.
    Queue,
}

impl TriggerKind {
    /// The word in RUNNER_TRIGGER, records and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Schedule => "schedule",
            Self::Missed => "missed",
            Self::Tick => "tick",
            Self::Now => "now",
            Self::Queue => "queue",
        }
    }
}

impl Trigger {
    /// A trigger without a slot.
    pub fn of(kind: TriggerKind) -> Self {
        Self { kind, scheduled_at: None, window_ends: None }
    }

    /// The moment as tasks and records see it: RFC 3339 with the offset of the zone.
    pub fn scheduled_text(&self) -> Option<String> {
        self.scheduled_at.as_ref().map(|at| at.strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string())
    }
}
