//! Stands in for `audience` in a program that answers no HTTP: nobody looks at the daemon. Touches nothing.

use std::os::fd::BorrowedFd;

use super::exit::Failure;
use crate::board::Board;
use crate::config::settings::DaemonSettings;
use crate::daemon::View;
use crate::push::Push;

/// Nobody, but for those who are told of runs.
pub struct Audience {
    /// The runs.
    pub board: Board,
    /// Those who are told of them.
    pub push: Push,
}

impl Audience {
    /// Nobody looks, on whatever machine.
    pub fn new(board: Board, _: &str, push: Push) -> Self {
        Self { board, push }
    }

    /// There is no server in this program.
    ///
    /// # Errors
    /// One is asked for.
    pub fn listen(&mut self, settings: &DaemonSettings) -> Result<(), Failure> {
        match &settings.listen {
            Some(_) => Err(Failure::config("[daemon] listen: this program was built without the feature `http`")),
            None => Ok(()),
        }
    }

    /// There is nothing to take over.
    ///
    /// # Errors
    /// Never.
    pub fn reload(&mut self, _: &DaemonSettings) -> Result<(), String> {
        Ok(())
    }

    /// Nobody can look.
    pub fn is_open(&self) -> bool {
        false
    }

    /// Nobody asks.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Nobody wants to know since when the configuration is in force.
    pub fn note_reload(&mut self) {}

    /// Nor since when one is refused.
    pub fn note(&mut self, _: &View<'_>) {}
}
