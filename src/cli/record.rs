//! Who writes down what runs do, in a program that was built with state; in one without, nobody does.

use crate::config::settings::StateSettings;
use crate::event::{Event, Reader, RunRef};

/// Hears of runs, and keeps their records.
pub struct Record {
    #[cfg(feature = "store")]
    recorder: Option<crate::store::record::Recorder>,
    /// By which state runs know one another: its directory, and its database.
    #[cfg(feature = "store")]
    state: Option<(String, Option<String>)>,
    /// What is shown of them while they go on.
    #[cfg(all(feature = "store", feature = "schedule"))]
    board: Option<crate::board::Board>,
}

#[cfg(feature = "store")]
impl Record {
    /// Looks where the state directory is; touches nothing before a run ends.
    pub fn of_main(state: &StateSettings) -> Self {
        Self::of_spool(state, |keeper| keeper)
    }

    /// The same, which leaves also that a run has begun: beside others somebody may want to know what is left of one that was killed.
    #[cfg(feature = "schedule")]
    pub fn of_now(state: &StateSettings) -> Self {
        Self::of_spool(state, crate::store::spool::SpoolKeeper::noting_begun)
    }

    fn of_spool(state: &StateSettings, notes: fn(crate::store::spool::SpoolKeeper) -> crate::store::spool::SpoolKeeper) -> Self {
        use super::exit::Exit;
        use crate::clock::SystemClock;
        use crate::store::Owner;
        use crate::store::record::{Facts, Recorder};
        use crate::store::spool::SpoolKeeper;

        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let facts = Facts { owner: Owner::look_quickly(&boot_id), exit_code: |outcome| Exit::of_run(outcome).code() };
        let place = super::state::own_place(state);
        let keeper = place.spool().map(SpoolKeeper::new).map(notes);
        let recorder = keeper.map(|keeper| Recorder::new(facts, Box::new(SystemClock::new()), Box::new(keeper)));
        Self {
            recorder,
            state: known_by(&place),
            #[cfg(feature = "schedule")]
            board: None,
        }
    }

    /// Keeps nothing: a job has its own record.
    #[cfg(feature = "schedule")]
    pub fn of_nobody() -> Self {
        Self { recorder: None, state: None, board: None }
    }

    /// Hands the records to the loop of the daemon, which writes them down.
    #[cfg(feature = "schedule")]
    pub fn of_daemon(
        owner: &crate::store::Owner,
        place: &crate::store::open::Place,
        outbox: crate::daemon::Outbox,
        board: crate::board::Board,
    ) -> Self {
        use super::exit::Exit;
        use crate::clock::SystemClock;
        use crate::store::record::{Facts, Recorder};

        let facts = Facts { owner: owner.clone(), exit_code: |outcome| Exit::of_run(outcome).code() };
        let recorder = Recorder::new(facts, Box::new(SystemClock::new()), Box::new(outbox));
        Self { recorder: Some(recorder), state: known_by(place), board: Some(board) }
    }
}

#[cfg(feature = "store")]
fn known_by(place: &crate::store::open::Place) -> Option<(String, Option<String>)> {
    Some((place.state_dir.as_ref()?.display().to_string(), place.url().ok().map(|url| url.to_string())))
}

#[cfg(not(feature = "store"))]
impl Record {
    /// Keeps nothing.
    pub fn of_main(_: &StateSettings) -> Self {
        Self {}
    }

    /// Keeps nothing.
    #[cfg(feature = "schedule")]
    pub fn of_now(_: &StateSettings) -> Self {
        Self {}
    }
}

impl Reader for Record {
    #[cfg(feature = "store")]
    fn tell(&mut self, run: &RunRef, event: &Event<'_>) {
        if let Some(recorder) = &mut self.recorder {
            recorder.tell(run, event);
        }
        #[cfg(feature = "schedule")]
        if let Some(board) = &mut self.board {
            board.tell(run, event);
        }
    }

    #[cfg(not(feature = "store"))]
    fn tell(&mut self, _: &RunRef, _: &Event<'_>) {}

    /// As JSON, for `runner status` and `runner why`.
    #[cfg(feature = "store")]
    fn describe(&self, run: &RunRef, doing: &crate::event::Doing<'_>) -> Option<Vec<u8>> {
        use crate::notify::asking::LONGEST;
        use crate::status::{Going, VERSION};

        let chain = run.chain.clone();
        let (state_dir, database) = self.state.clone()?;
        let run = self.recorder.as_ref()?.describe(run, doing.closing)?;
        let mut going = Going { version: VERSION, chain, state_dir, database, pid: std::process::id(), run };
        for task in &mut going.run.tasks {
            task.pid = doing.processes.iter().find(|(_, name)| name.text() == task.file).map(|(pid, _)| *pid);
        }
        let mut text = serde_json::to_vec(&going).ok()?;
        // Of a thousand tasks those that are done are of the least interest.
        if text.len() > LONGEST {
            going.run.tasks.retain(crate::status::Task::is_going);
            text = serde_json::to_vec(&going).ok()?;
        }
        Some(text).filter(|text| text.len() <= LONGEST)
    }
}
