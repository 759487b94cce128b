//! How a process and what it started come to an end: one table of phases and inputs. Decides only.
//!
//! ```text
//!                LeaderGone             Limit, Stop           KillNow    Woke (deadline)   NoneLeft
//! Running        swept: Terminating     TERM: Terminating     KILL:      limit: as Limit   -
//!                else:  Gone                                  Killing
//! Terminating    look again             -                     KILL:      KILL: Killing     Gone if the leader is gone
//!                                                              Killing
//! Killing        look again             -                     -          Gone, unkillable  Gone if the leader is gone
//! Gone           -                      -                     -          -                 -
//! ```

use std::time::Duration;

use crate::clock::Moment;
use crate::config::keys::Sweep;
use crate::outcome::LimitKind;

/// How long a process may survive KILL before it is called unkillable.
///
/// A process in uninterruptible sleep (a dead network file system) does not die of KILL until it wakes.
pub const UNKILLABLE_AFTER: Duration = Duration::from_secs(5);

/// Why we are ending it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A limit passed.
    Limit(LimitKind),
    /// It was told to stop for a reason that is not its own.
    Stopped,
}

/// Where the ending stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nobody wants it ended.
    Running,
    /// It has been sent TERM; KILL follows.
    Terminating {
        /// When.
        kill_at: Moment,
    },
    /// It has been sent KILL; we stop waiting later.
    Killing {
        /// When.
        abandon_at: Moment,
    },
    /// Nothing of it is left that we know of and want ended, or we gave up.
    Gone {
        /// Something survived KILL.
        unkillable: bool,
    },
}

/// What can happen to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The process we started has ended by itself or because we said so.
    LeaderGone {
        /// It ended with a verdict other than OK or SKIP.
        failed: bool,
    },
    /// A limit passed.
    Limit(LimitKind),
    /// It is to stop.
    Stop,
    /// It is to be gone at once.
    KillNow,
    /// A deadline of [`Ending::wake_at`] may have passed.
    Woke,
    /// A look found nothing of it beside the leader.
    NoneLeft,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send TERM, then CONT, to the group and to whoever left it.
    Terminate,
    /// Send KILL to the group and to whoever left it.
    Kill,
    /// Look whether anything of it is left, and end what is found as the phase says.
    Look,
}

/// The ending of one process and its descendants.
#[derive(Debug, Clone)]
pub struct Ending {
    phase: Phase,
    cause: Option<Cause>,
    leader_alive: bool,
    kill_after: Duration,
    sweep: Sweep,
}

impl Ending {
    /// A process that has just been started.
    pub fn new(kill_after: Duration, sweep: Sweep) -> Self {
        Self { phase: Phase::Running, cause: None, leader_alive: true, kill_after, sweep }
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Why we ended it; `None` when it ended by itself.
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// Whether those who left the process group are ended, too; `sweep = never` ends the group alone.
    pub fn sweeps(&self) -> bool {
        self.sweep != Sweep::Never
    }

    /// The next moment at which time alone changes something.
    pub fn wake_at(&self) -> Option<Moment> {
        match self.phase {
            Phase::Terminating { kill_at } => Some(kill_at),
            Phase::Killing { abandon_at } => Some(abandon_at),
            Phase::Running | Phase::Gone { .. } => None,
        }
    }

    /// One step of the table.
    pub fn step(&mut self, input: Input, now: Moment) -> Option<Action> {
        if let Input::LeaderGone { .. } = input {
            self.leader_alive = false;
        }
        match (self.phase, input) {
            (Phase::Running, Input::LeaderGone { failed }) => {
                let swept = match self.sweep {
                    Sweep::Never => false,
                    Sweep::OnFailure => failed,
                    Sweep::Always => true,
                };
                if swept {
                    self.phase = Phase::Terminating { kill_at: now + self.kill_after };
                    return Some(Action::Look);
                }
                self.gone(false)
            }
            (Phase::Running, Input::Limit(limit)) => self.terminate(Cause::Limit(limit), now),
            (Phase::Running, Input::Stop) => self.terminate(Cause::Stopped, now),
            (Phase::Running, Input::KillNow) => {
                self.cause = Some(Cause::Stopped);
                self.kill(now)
            }
            (Phase::Running, Input::Woke | Input::NoneLeft) => None,
            (Phase::Terminating { .. } | Phase::Killing { .. }, Input::LeaderGone { .. }) => Some(Action::Look),
            (Phase::Terminating { .. }, Input::KillNow) => self.kill(now),
            (Phase::Terminating { kill_at }, Input::Woke) if now >= kill_at => self.kill(now),
            (Phase::Killing { abandon_at }, Input::Woke) if now >= abandon_at => self.gone(true),
            (Phase::Terminating { .. } | Phase::Killing { .. }, Input::NoneLeft) if !self.leader_alive => self.gone(false),
            (Phase::Terminating { .. }, Input::Limit(_) | Input::Stop | Input::Woke | Input::NoneLeft) => None,
            (Phase::Killing { .. }, Input::Limit(_) | Input::Stop | Input::KillNow | Input::Woke | Input::NoneLeft) => None,
            (
                Phase::Gone { .. },
                Input::LeaderGone { .. } | Input::Limit(_) | Input::Stop | Input::KillNow | Input::Woke | Input::NoneLeft,
            ) => None,
        }
    }

    fn terminate(&mut self, cause: Cause, now: Moment) -> Option<Action> {
        self.cause = Some(cause);
        self.phase = Phase::Terminating { kill_at: now + self.kill_after };
        Some(Action::Terminate)
    }

    fn kill(&mut self, now: Moment) -> Option<Action> {
        self.phase = Phase::Killing { abandon_at: now + UNKILLABLE_AFTER };
        Some(Action::Kill)
    }

    fn gone(&mut self, unkillable: bool) -> Option<Action> {
        self.phase = Phase::Gone { unkillable };
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::at(Duration::from_secs(seconds))
    }

    fn in_phase(phase: Phase, leader_alive: bool, sweep: Sweep) -> Ending {
        Ending { phase, cause: None, leader_alive, kill_after: Duration::from_secs(10), sweep }
    }

    const GONE: Phase = Phase::Gone { unkillable: false };

    /// Every phase against every input; `leader` tells whether it lived before.
    #[test]
    fn every_cell_of_the_table() {
        let now = at(100);
        let terminating = Phase::Terminating { kill_at: at(110) };
        let late = Phase::Terminating { kill_at: at(100) };
        let killing = Phase::Killing { abandon_at: at(105) };
        let spent = Phase::Killing { abandon_at: at(100) };
        let (ok, failed) = (Input::LeaderGone { failed: false }, Input::LeaderGone { failed: true });
        let limit = Input::Limit(LimitKind::MaxTime);
        use Action::{Kill, Look, Terminate};
        use Sweep::{Always, Never, OnFailure};
        #[rustfmt::skip]
        let table = [
            (Phase::Running, true, OnFailure, ok, GONE, None),
            (Phase::Running, true, OnFailure, failed, terminating, Some(Look)),
            (Phase::Running, true, Always, ok, terminating, Some(Look)),
            (Phase::Running, true, Never, failed, GONE, None),
            (Phase::Running, true, OnFailure, limit, terminating, Some(Terminate)),
            (Phase::Running, true, OnFailure, Input::Stop, terminating, Some(Terminate)),
            (Phase::Running, true, OnFailure, Input::KillNow, killing, Some(Kill)),
            (Phase::Running, true, OnFailure, Input::Woke, Phase::Running, None),
            (Phase::Running, true, OnFailure, Input::NoneLeft, Phase::Running, None),
            (terminating, true, OnFailure, ok, terminating, Some(Look)),
            (terminating, true, Never, failed, terminating, Some(Look)),
            (terminating, true, OnFailure, limit, terminating, None),
            (terminating, true, OnFailure, Input::Stop, terminating, None),
            (terminating, true, OnFailure, Input::KillNow, killing, Some(Kill)),
            (terminating, true, OnFailure, Input::Woke, terminating, None),
            (late, true, OnFailure, Input::Woke, killing, Some(Kill)),
            (terminating, true, OnFailure, Input::NoneLeft, terminating, None),
            (terminating, false, OnFailure, Input::NoneLeft, GONE, None),
            (killing, true, OnFailure, failed, killing, Some(Look)),
            (killing, true, Never, failed, killing, Some(Look)),
            (killing, true, OnFailure, limit, killing, None),
            (killing, true, OnFailure, Input::Stop, killing, None),
            (killing, true, OnFailure, Input::KillNow, killing, None),
            (killing, true, OnFailure, Input::Woke, killing, None),
            (spent, true, OnFailure, Input::Woke, Phase::Gone { unkillable: true }, None),
            (killing, true, OnFailure, Input::NoneLeft, killing, None),
            (killing, false, OnFailure, Input::NoneLeft, GONE, None),
            (GONE, false, OnFailure, failed, GONE, None),
            (GONE, false, OnFailure, limit, GONE, None),
            (GONE, false, OnFailure, Input::Stop, GONE, None),
            (GONE, false, OnFailure, Input::KillNow, GONE, None),
            (GONE, false, OnFailure, Input::Woke, GONE, None),
            (GONE, false, OnFailure, Input::NoneLeft, GONE, None),
        ];
        for (phase, leader, sweep, input, expected, action) in table {
            let mut ending = in_phase(phase, leader, sweep);
            let done = ending.step(input, now);
            assert_eq!((ending.phase(), done), (expected, action), "{phase:?} {sweep:?} {input:?}");
        }
    }

    #[test]
    fn the_first_cause_stays() {
        let mut ending = Ending::new(Duration::from_secs(1), Sweep::OnFailure);
        ending.step(Input::Limit(LimitKind::Idle), at(1));
        ending.step(Input::Stop, at(1));
        ending.step(Input::KillNow, at(1));
        assert_eq!(ending.cause(), Some(Cause::Limit(LimitKind::Idle)));
    }
}
