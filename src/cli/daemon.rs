//! `runner daemon` and `runner tick`: chains on their schedules, until told to stop or for this minute.

use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;

use super::audience::Audience;
use super::exit::{Exit, Failure};
use super::outside::{LAST_WORDS, Stamp, Surroundings, book_of, judge_daemon, judge_daemon_files, load_first};
use super::record::Record;
use super::run::tell_findings;
use super::settings::{Loaded, Settings, part_findings, push, without_repeats};
use super::stage::{Stage, hear_signals};
use super::state::{failure, marks_of, own_place};
use super::trusted::refuse_database;
use super::variables::{local_zone, own_variable};
use super::{print, strangers};
use crate::alarm::ClockAlarm;
use crate::board::Board;
use crate::chain::fleet::Fleet;
use crate::clock::{Clock, SystemClock};
use crate::config::push::PushSettings;
use crate::config::queues;
use crate::config::settings::{DaemonSettings, StateSettings};
use crate::config::{Config, Severity};
use crate::daemon::book::Booked;
use crate::daemon::{Daemon, Ended, Outbox, Parts, State};
use crate::mark;
use crate::names::counted;
use crate::notify::systemd;
use crate::presence::{self, Presence, Work};
use crate::process::signal::Signals;
use crate::push::Waits;
use crate::store::Owner;
use crate::store::open::Place;

/// A wall clock that shows an earlier date is none: this program did not exist then.
pub const BUILT: &str = "2026-01-01T00:00:00Z";

/// Fires chains on their schedules until it is told to stop: by `signals`, which are heard since the program began.
///
/// # Errors
/// The configuration is wrong; what a daemon stands on cannot be had.
pub fn daemon(settings: &Settings, signals: Signals) -> Result<Exit, Failure> {
    let (loaded, stamp) = load_first(settings)?;
    let ready = Ready::new(settings, loaded, stamp, true)?;
    let without_schedule = ready.chains.iter().all(|chain| chain.schedule.is_none() || !chain.named.enabled);
    if without_schedule && queues::of_daemon(&ready.config, &mut Vec::new()).is_empty() {
        log::warn!("no chain has a schedule, and [daemon] names no queues: nothing will happen until the configuration says so");
    }
    let owner = Owner::look();
    let place = own_place(&ready.state);
    let opened = place.clone();
    let open = move || opened.open(now());
    log::info!("daemon of {}, process {}", counted(ready.chains.len(), "chain"), owner.pid);
    let ended = ready.drive(settings, open, Some(signals), |daemon| daemon.run())?;
    log::info!("the daemon has ended");
    // What does not pass by itself, such as the database of a newer version at its beginning, or records that are lost at its end.
    ended.no_state.map_or(Ok(Exit::Done), |why| Err(Failure::State(why)))
}

/// Fires what is due in this minute, waits for it, and tells how it ended.
///
/// # Errors
/// The configuration is wrong, or there is no state: nothing was started.
pub fn tick(settings: &Settings) -> Result<Exit, Failure> {
    // It does not ask whether its configuration has changed.
    let ready = Ready::new(settings, settings.load()?, Stamp::new(), false)?;
    let place = own_place(&ready.state);
    // A tick without a state would fire slots twice: it says so at once.
    let mut store = Some(place.open(now()).map_err(failure)?);
    let open = move || store.take().map_or_else(|| place.open(now()), Ok);
    let ended = ready.drive(settings, open, None, |daemon| daemon.tick())?;
    if let Some(why) = ended.no_state {
        return Err(Failure::State(why));
    }
    if settings.json {
        print::json(&as_json(&ended))?;
    }
    let unreachable = if ended.no_lock.is_some() { Exit::Io } else { Exit::Done };
    let refused = if ended.refused > 0 { Exit::Config } else { Exit::Done };
    Ok(ended.outcomes.iter().map(|(_, outcome)| Exit::of_run(outcome)).fold(refused.graver(unreachable), Exit::graver))
}

fn as_json(ended: &Ended) -> serde_json::Value {
    let runs = ended.outcomes.iter().map(|(run, outcome)| {
        serde_json::json!({
            "chain": run.chain, "run_id": run.id.as_str(), "outcome": outcome.word(), "scheduled_at": run.trigger.scheduled_text(),
            "task": outcome.task().map(|task| task.text()), "exit_code": Exit::of_run(outcome).code(),
        })
    });
    serde_json::json!({ "version": 1, "runs": runs.collect::<Vec<_>>(), "refused": ended.refused })
}

/// Says which chains share their slots with those of another configuration: nothing else would say why they do not run.
fn tell_other_users(place: &Place, chains: &[Booked]) {
    let (Some(room), Some(file), Ok(url)) = (marks_of(place), &place.config_file, place.url()) else { return };
    for name in chains.iter().filter(|chain| chain.named.enabled && chain.schedule.is_some()).map(Booked::name) {
        if let Some(other) = mark::other_config(&room, name, file) {
            log::warn!(
                "chain {name}: {} has a chain of this name and used its last slot; both are in {url}, so each slot is run by one of them only: \
                 give one of them a STATE_DIRECTORY or `database` of its own",
                other.display()
            );
        }
    }
}

fn now() -> Timestamp {
    SystemClock::new().wall()
}

/// A configuration that can be used.
struct Ready {
    config: Config,
    stamp: Stamp,
    state: StateSettings,
    chains: Vec<Booked>,
    daemon: DaemonSettings,
    push: PushSettings,
}

impl Ready {
    /// `listens` is whether it answers HTTP; a tick does not, and needs no token.
    fn new(settings: &Settings, loaded: Loaded, stamp: Stamp, listens: bool) -> Result<Self, Failure> {
        let Loaded { config, state, mut findings, push, .. } = loaded;
        let chains = book_of(&config, &mut findings);
        findings.extend(strangers::find(&config, None));
        findings.extend(strangers::lost(&config));
        let daemon = judge_daemon(&config, &mut findings);
        if listens {
            judge_daemon_files(&daemon, Severity::Error, &mut findings);
        }
        let (errors, told) = part_findings(without_repeats(findings), settings.strict);
        if !errors.is_empty() {
            return Err(Failure::Config(errors));
        }
        tell_findings(&told);
        refuse_database(&config, &own_place(&state))?;
        Ok(Self { config, stamp, state, chains, daemon, push })
    }

    fn drive(
        self,
        settings: &Settings,
        open: impl FnMut() -> Result<Box<dyn crate::store::Store>, crate::store::StoreError> + Send + 'static,
        signals: Option<Signals>,
        work: fn(&mut Daemon<'_>) -> Ended,
    ) -> Result<Ended, Failure> {
        let managed = own_variable("NOTIFY_SOCKET").is_some();
        let place = own_place(&self.state);
        tell_other_users(&place, &self.chains);
        let outbox = Outbox::default();
        let owner = Owner::look();
        let board = Board::new(Box::new(SystemClock::new()), local_zone());
        let record = Record::of_daemon(&owner, &place, outbox.clone(), board.clone());
        let (listens, state_dir) = (signals.is_some(), place.state_dir.clone());
        let mut audience = Audience::new(board, &owner.machine, push(self.push, Waits::TheEnd));
        // A tick is nobody who could be asked for long.
        if listens {
            audience.listen(&self.daemon)?;
        }
        let signals = signals.map_or_else(hear_signals, Ok)?;
        let mut stage = Stage::hearing(signals, managed, None, Duration::ZERO, record)?;
        stage.expect_many();
        // The manager hears of the daemon as a whole; what each run does is in the log.
        stage.be_silent_about_runs();
        stage.tell_others(audience.push.clone());
        let (driver, ids) = stage.driver();
        let state = State::new(open, owner, place.keep, outbox).context("the thread of the store cannot be started")?;
        let state = state.with_marks(marks_of(&place)).with_spool(place.spool());
        let mut alarm = ClockAlarm::new().context("the kernel gives no timer")?;
        let built = BUILT.parse().context("the build date")?;
        let mut surroundings = Surroundings::new(settings, (self.config, self.stamp), place, managed, audience);
        let parts = Parts { fleet: Fleet::new(driver), ids, state, alarm: &mut alarm, outside: &mut surroundings, built };
        let work_of = if listens { Work::Daemon } else { Work::Tick };
        let presence = Presence { work: work_of, pid: std::process::id(), config: settings.config_file.clone(), queues: Vec::new() };
        let _here = presence::announce(state_dir.as_deref(), &presence);
        systemd::ready(managed);
        let mut daemon = Daemon::new(parts, self.chains);
        let mut ended = work(&mut daemon);
        systemd::stopping(managed);
        if !daemon.settle(LAST_WORDS) {
            ended.no_state.get_or_insert_with(|| "the newest records could not be written to the database".to_owned());
        }
        Ok(ended)
    }
}
