//! `runner now [CHAIN...]`: runs chains at once, side by side, once. A person asks; no slot is used.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;

use super::exit::{Exit, Failure};
use super::prepare::{prepare, refuse_errors};
use super::print;
use super::record::Record;
use super::refused::{Refusal, start_hook};
use super::run::{at_once, refuse_nested, result_of, tell_findings};
use super::settings::{Loaded, Settings, find_chain, find_task_dir, own_variable, program_variables, push};
use super::stage::Stage;
use crate::chain::World;
use crate::chain::fleet::{Fleet, Opened, Ready};
use crate::chain::hold::LockPlan;
use crate::chain::locks::{Answer, Unavailable};
use crate::chain::run::Run;
use crate::config::chains::NamedChain;
use crate::config::database::state_dir;
use crate::config::keys::{CHAIN_HOOK, Output};
use crate::config::push::PushSettings;
use crate::config::settings::{ChainSettings, StateSettings};
use crate::config::{Config, chains};
use crate::event::{Event, RunRef, StoppedBy};
use crate::mark::{self, Mark};
use crate::names::{MAIN_CHAIN, RunId, RunIds};
use crate::notify::systemd::stopping;
use crate::outcome::RunOutcome;
use crate::push::{Push, Waits};
use crate::report::bars::{Bars, Progress};
use crate::trigger::{Trigger, TriggerKind};

/// Runs the chains that are named, or every enabled `[chain:NAME]`; `no_lock`: whoever holds their locks.
///
/// # Errors
/// Nothing was started: a chain is not known, or one of them cannot be run.
pub fn now(settings: &Settings, words: &[String], no_lock: bool) -> Result<Exit, Failure> {
    let (mut chains, config, state, told_others) = select(settings, words)?;
    if no_lock {
        chains.iter_mut().for_each(|(chain, _)| chain.lock = None);
    }
    if chains.is_empty() {
        log::warn!("there is no chain to run: no [chain:NAME] is enabled");
        return Ok(Exit::Done);
    }
    let managed = own_variable("NOTIFY_SOCKET").is_some();
    let longest_stop = chains.iter().map(|(chain, _)| chain.setup.longest_stop()).max().unwrap_or(Duration::ZERO);
    let state_dir = state_dir(own_variable, rustix::process::geteuid().is_root());
    let mut stage = Stage::new(managed, bars(&chains, settings.progress), longest_stop, Record::of_now(&state))?;
    #[cfg(feature = "store")]
    super::left::tell(&state, chains.iter().map(|(chain, _)| chain.setup.chain.name.as_str()));
    let others = push(told_others, Waits::TheEnd);
    stage.tell_others(others.clone());
    let (driver, ids) = stage.driver();
    let fleet = Fleet::new(driver);
    let mut play = Play { fleet, config: &config, state_dir, others, waiting: Vec::new(), marks: Vec::new(), ended: Vec::new() };
    play.drive(chains, ids);
    let ended = play.ended;
    stopping(managed);
    if settings.json {
        let runs: Vec<_> = ended.iter().filter_map(Ended::json).collect();
        print::json(&json!({ "version": 1, "runs": runs }))?;
    }
    Ok(ended.iter().map(Ended::exit).fold(Exit::Done, Exit::graver))
}

/// A chain that can run, and its window, if it is idle: nobody is waited for, and its tasks may have all of that.
type Windowed = (Ready, Option<Duration>);

/// What came of a chain.
enum Ended {
    Run(Box<Run>),
    /// Its lock was not to be had.
    Refused(RunRef, Exit),
    /// It runs already; the history has that run.
    Overlap(RunRef),
    /// We were told to stop before it began.
    Stopped(i32),
}

impl Ended {
    fn exit(&self) -> Exit {
        match self {
            Self::Run(run) => run.outcome().map_or(Exit::Internal, Exit::of_run),
            Self::Refused(_, exit) => *exit,
            Self::Overlap(_) => Exit::Refused,
            Self::Stopped(signal) => Exit::Signal(*signal),
        }
    }

    fn json(&self) -> Option<serde_json::Value> {
        let (of, outcome, task) = match self {
            Self::Run(run) => {
                let outcome = run.outcome();
                (run.run_ref(), outcome.map(RunOutcome::word), outcome.and_then(RunOutcome::task))
            }
            Self::Refused(run, _) | Self::Overlap(run) => (run, Some("refused"), None),
            Self::Stopped(_) => return None,
        };
        Some(result_of(of, (outcome, task.map(|task| task.text())), self.exit()))
    }
}

/// Makes all of them ready before the first begins: a person is there to put right what is wrong with one.
fn select(settings: &Settings, words: &[String]) -> Result<(Vec<Windowed>, Config, StateSettings, PushSettings), Failure> {
    let Loaded { config, chain: main, findings, state, push, whole } = settings.load()?;
    if !whole {
        refuse_errors(settings, findings.clone())?;
    }
    let mut told = findings.clone();
    let all = chains::read_all(&config, &mut told);
    let mut wanted = Vec::new();
    if words.is_empty() {
        wanted.extend(all.into_iter().filter(|chain| chain.enabled).map(with_window));
    }
    for word in words {
        let chain = if word == MAIN_CHAIN { (main.clone(), None) } else { with_window(find_chain(&config, word, &mut Vec::new())?) };
        if wanted.iter().all(|(known, _): &(ChainSettings, _)| known.name != chain.0.name) {
            wanted.push(chain);
        }
    }
    let several = wanted.len() > 1;
    let mut ready = Vec::new();
    for (chain, window) in wanted {
        let dir = find_task_dir(None, &chain)?;
        refuse_nested(settings, &chain.name, &dir)?;
        let prepared = prepare(&config, chain, std::mem::take(&mut told), &dir);
        tell_findings(&refuse_errors(settings, prepared.findings)?);
        let Some(mut setup) = prepared.setup else { return Err(Failure::config(format!("{} cannot be used", dir.display()))) };
        setup.beside_others = several;
        // It runs once: there is nothing to keep the lock for.
        let lock = prepared.lock.map(|plan| LockPlan { keep: false, ..plan });
        let opened = Opened::default();
        ready.push((Ready { setup: Rc::new(setup), variables: program_variables(settings, &dir), lock, opened }, window));
    }
    // Where no chain is left, what is wrong with them is told all the same.
    tell_findings(&refuse_errors(settings, told)?);
    Ok((ready, config, state, push))
}

fn with_window(named: NamedChain) -> (ChainSettings, Option<Duration>) {
    (named.chain, named.idle.then_some(named.window))
}

/// The chains on their way.
struct Play<'a> {
    fleet: Fleet<'a>,
    config: &'a Config,
    state_dir: Option<PathBuf>,
    others: Push,
    /// Those that wait for their lock.
    waiting: Vec<(RunRef, Ready)>,
    marks: Vec<(RunId, Mark)>,
    ended: Vec<Ended>,
}

impl Play<'_> {
    fn drive(&mut self, chains: Vec<Windowed>, ids: &mut RunIds) {
        let now = self.fleet.wall();
        for (ready, window) in chains {
            let window_ends = window.and_then(|window| now.checked_add(SignedDuration::try_from(window).ok()?).ok());
            let trigger = Trigger { window_ends, ..Trigger::of(TriggerKind::Now) };
            let run = RunRef { chain: ready.setup.chain.name.clone(), id: ids.fresh(), trigger };
            match ready.lock.clone() {
                None => self.begin(run, ready),
                Some(plan) => {
                    self.fleet.ask(plan, run.clone());
                    self.waiting.push((run, ready));
                }
            }
        }
        self.hear_locks();
        while !self.fleet.is_quiet() {
            let news = self.fleet.listen(&[], None);
            for signal in &news.stops {
                self.fleet.stop(None, *signal, &StoppedBy::Signal);
                for (run, _) in std::mem::take(&mut self.waiting) {
                    self.fleet.withdraw(&run.id);
                    self.ended.push(Ended::Stopped(*signal));
                }
            }
            let ended = self.fleet.advance(&news);
            self.take_in(ended);
            self.hear_locks();
        }
    }

    fn begin(&mut self, run: RunRef, ready: Ready) {
        match mark::take(self.state_dir.as_deref(), &run.chain, &run.id, None) {
            Ok((mark, trouble)) => {
                if let Some(trouble) = trouble {
                    log::warn!("chain {}: {trouble}", run.chain);
                }
                self.marks.push((run.id.clone(), mark));
            }
            Err(holder) => {
                self.fleet.withdraw(&run.id);
                let (chain, message) = (run.chain.as_str(), format!("it still runs: {holder}"));
                log::error!(event = "run_refused", chain, reason = "overlap"; "chain {chain} still runs: {holder}");
                self.others.refused(chain, "overlap");
                self.tell_hook(&ready, "overlap", &message);
                return self.ended.push(Ended::Overlap(run));
            }
        }
        self.fleet.begin(ready, run);
        let ended = self.fleet.take_ended();
        self.take_in(ended);
    }

    fn take_in(&mut self, ended: Vec<Run>) {
        for run in ended {
            self.marks.retain(|(id, _)| *id != run.run_ref().id);
            self.ended.push(Ended::Run(Box::new(run)));
        }
    }

    fn hear_locks(&mut self) {
        while let Some(answer) = self.fleet.answer() {
            let (Answer::Ours { run, .. } | Answer::Refused { run, .. }) = &answer;
            let Some(at) = self.waiting.iter().position(|(waiting, _)| waiting.id == run.id) else { continue };
            let (run, ready) = self.waiting.swap_remove(at);
            match answer {
                Answer::Ours { .. } => self.begin(run, ready),
                Answer::Refused { why, .. } => self.refuse(run, &ready, &why),
            }
        }
    }

    fn refuse(&mut self, run: RunRef, ready: &Ready, why: &Unavailable) {
        let (chain, message) = (run.chain.as_str(), why.message());
        log::error!(event = "run_refused", chain, reason = "lock"; "chain {chain}: {message}");
        self.fleet.driver().world.reader.tell(&run, &Event::RunRefused { why: message });
        self.tell_hook(ready, "lock", message);
        let exit = match why {
            Unavailable::Held(_) => Exit::Refused,
            Unavailable::Unreachable(_) => Exit::Io,
        };
        self.ended.push(Ended::Refused(run, exit));
    }

    /// The hook of the chain hears why its run did not begin.
    fn tell_hook(&mut self, ready: &Ready, reason: &str, message: &str) {
        let chain = ready.setup.chain.name.as_str();
        let World { family, clock, .. } = self.fleet.driver().world;
        match start_hook(self.config, &Refusal { chain: &ready.setup.chain, reason, message }, &ready.variables, family, clock) {
            Some(Ok(hook)) => self.fleet.add_hook(chain, hook),
            Some(Err(why)) => log::warn!("chain {chain}: {}: {why}", CHAIN_HOOK.info.name),
            None => {}
        }
    }
}

/// Bars only where a terminal is ours alone.
fn bars(chains: &[Windowed], progress: Progress) -> Option<Bars> {
    let shared = chains.iter().any(|(chain, _)| chain.setup.writes_to(Output::Inherit));
    let at_once = chains.iter().map(|(chain, _)| at_once(&chain.setup)).sum();
    if !shared && std::io::stderr().is_terminal() { Bars::new(progress, at_once) } else { None }
}
