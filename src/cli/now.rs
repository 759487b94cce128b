//! `runner now [CHAIN...]`: runs chains at once, side by side, once. A person asks; no slot is used.

use std::ffi::CString;
use std::io::IsTerminal;
use std::rc::Rc;
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;

use super::exit::{Exit, Failure};
use super::prepare::{Fit, Unfit, make_fit, refuse_errors};
use super::record::Record;
use super::refused::{Refusal, TASK_DIR, start_hook};
use super::run::{at_once, refuse_nested, result_of, result_of_refused, tell_findings};
use super::settings::{Loaded, Settings, find_chain, find_task_dir, push, without_repeats};
use super::stage::{Said, Stage};
use super::variables::own_variable;
use super::{print, strangers};
use crate::chain::World;
use crate::chain::fleet::{Fleet, Opened, Ready};
use crate::chain::hold::LockPlan;
use crate::chain::locks::{Answer, Unavailable};
use crate::chain::run::Run;
use crate::config::Config;
use crate::config::chains::{self, NamedChain};
use crate::config::database::state_dir;
use crate::config::keys::{CHAIN_HOOK, Output};
use crate::config::push::PushSettings;
use crate::config::settings::{ChainSettings, StateSettings};
use crate::event::{Event, RunRef, StoppedBy};
use crate::mark::{self, Mark, Room};
use crate::names::{MAIN_CHAIN, RunId, RunIds};
use crate::notify::systemd::stopping;
use crate::push::{Push, Waits};
use crate::report::bars::{Bars, Progress};
use crate::trigger::{Trigger, TriggerKind};

/// Runs the chains that are named, or every enabled `[chain:NAME]`; `no_lock`: whoever holds their locks.
///
/// # Errors
/// Nothing was started: the configuration is wrong, a chain is not known, or none of them can be run.
pub fn now(settings: &Settings, words: &[String], no_lock: bool) -> Result<Exit, Failure> {
    let Selected { mut chains, unfit, config, state, told_others } = select(settings, words)?;
    if no_lock {
        chains.iter_mut().for_each(|(chain, _)| chain.lock = None);
    }
    if chains.is_empty() && unfit.is_empty() {
        log::warn!("there is no chain to run: no [chain:NAME] is enabled");
        return Ok(Exit::Done);
    }
    let managed = own_variable("NOTIFY_SOCKET").is_some();
    let longest_stop = chains.iter().map(|(chain, _)| chain.setup.longest_stop()).max().unwrap_or(Duration::ZERO);
    let state_dir = state_dir(own_variable, rustix::process::geteuid().is_root());
    let room = state_dir.map(|dir| Room::new(&dir, state.database.as_ref()));
    let mut stage = Stage::new(managed, bars(&chains, settings.progress), longest_stop, Record::of_now(&state))?;
    stage.expect_many();
    #[cfg(feature = "store")]
    super::left::tell(&state, chains.iter().map(|(chain, _)| chain.setup.chain.name.as_str()));
    let others = push(told_others, Waits::TheEnd);
    stage.tell_others(others.clone());
    let said = Said::default();
    stage.keep_opinions(&said);
    let (driver, ids) = stage.driver();
    let fleet = Fleet::new(driver);
    let mut play = Play { fleet, config: &config, room, others, waiting: Vec::new(), marks: Vec::new(), ended: Vec::new() };
    let nothing_fits = chains.is_empty();
    play.begin_all(chains, ids);
    play.refuse_all(&unfit, nothing_fits);
    play.drive();
    let ended = play.ended;
    stopping(managed);
    if nothing_fits {
        return Err(Failure::Config(without_repeats(unfit.into_iter().flat_map(|chain| chain.why.errors).collect())));
    }
    if settings.json {
        let refused = |of: &NotReady| {
            let (chain, message, code) = (&of.chain.name, of.why.message(), Exit::Config.code());
            json!({ "chain": chain, "run_id": null, "outcome": "refused", "task": null, "exit_code": code, "said": null, "message": message })
        };
        let runs: Vec<_> = ended.iter().filter_map(|ended| ended.json(&said)).chain(unfit.iter().map(refused)).collect();
        print::json(&json!({ "version": 1, "runs": runs }))?;
    }
    let begin = if unfit.is_empty() { Exit::Done } else { Exit::Config };
    Ok(ended.iter().map(Ended::exit).fold(begin, Exit::graver))
}

/// A chain that can run, and its window, if it is idle: nobody is waited for, and its tasks may have all of that.
type Windowed = (Ready, Option<Duration>);

/// What came of a chain.
enum Ended {
    Run(Box<Run>),
    /// It did not begin: its lock was not to be had, or it runs already.
    Refused(RunRef, Exit, String),
    /// We were told to stop before it began.
    Stopped(i32),
}

impl Ended {
    fn exit(&self) -> Exit {
        match self {
            Self::Run(run) => run.outcome().map_or(Exit::Internal, Exit::of_run),
            Self::Refused(_, exit, _) => *exit,
            Self::Stopped(signal) => Exit::Signal(*signal),
        }
    }

    fn json(&self, said: &Said) -> Option<serde_json::Value> {
        match self {
            Self::Run(run) => Some(result_of(run.run_ref(), run.outcome(), said.of(run.run_ref()), self.exit())),
            Self::Refused(run, exit, message) => Some(result_of_refused(run, *exit, message)),
            Self::Stopped(_) => None,
        }
    }
}

/// What is to run.
struct Selected {
    chains: Vec<Windowed>,
    /// Chains that cannot be run: with their tasks something is wrong. The others run, as with a tick.
    unfit: Vec<NotReady>,
    config: Config,
    state: StateSettings,
    told_others: PushSettings,
}

/// A chain whose tasks cannot be run.
struct NotReady {
    chain: ChainSettings,
    variables: Vec<CString>,
    why: Unfit,
}

/// Makes all of them ready before the first begins.
fn select(settings: &Settings, words: &[String]) -> Result<Selected, Failure> {
    let Loaded { config, chain: main, mut findings, state, push: told_others, .. } = settings.load()?;
    let all = chains::read_all(&config, &mut findings);
    findings.extend(strangers::find(&config, None));
    // First of all: it may be why a chain is not known, or none is left.
    tell_findings(&refuse_errors(settings, findings)?);
    let wanted = choose(&config, all, words, &main)?;
    let several = wanted.len() > 1;
    let (mut chains, mut unfit, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for (chain, window) in wanted {
        let dir = find_task_dir(None, &chain)?;
        refuse_nested(settings, &chain.name, &dir)?;
        let variables = settings.program_variables(&dir);
        match make_fit(settings, &config, chain.clone(), Vec::new(), &dir) {
            Ok(Fit { mut setup, lock, told: new }) => {
                told.extend(new);
                setup.beside_others = several;
                // It runs once: there is nothing to keep the lock for.
                let lock = lock.map(|plan| LockPlan { keep: false, ..plan });
                chains.push((Ready { setup: Rc::new(setup), variables, lock, opened: Opened::default() }, window));
            }
            Err(why) => unfit.push(NotReady { chain, variables, why }),
        }
    }
    tell_findings(&without_repeats(told));
    Ok(Selected { chains, unfit, config, state, told_others })
}

/// The chains that are named, each once, or every enabled one.
fn choose(
    config: &Config,
    all: Vec<NamedChain>,
    words: &[String],
    main: &ChainSettings,
) -> Result<Vec<(ChainSettings, Option<Duration>)>, Failure> {
    if words.is_empty() {
        return Ok(all.into_iter().filter(|chain| chain.enabled).map(with_window).collect());
    }
    let mut wanted: Vec<(ChainSettings, Option<Duration>)> = Vec::new();
    for word in words {
        let chain = if word == MAIN_CHAIN { (main.clone(), None) } else { with_window(find_chain(config, word, &mut Vec::new())?) };
        if wanted.iter().all(|(known, _)| known.name != chain.0.name) {
            wanted.push(chain);
        }
    }
    Ok(wanted)
}

fn with_window(named: NamedChain) -> (ChainSettings, Option<Duration>) {
    (named.chain, named.idle.then_some(named.window))
}

/// The chains on their way.
struct Play<'a> {
    fleet: Fleet<'a>,
    config: &'a Config,
    room: Option<Room>,
    others: Push,
    /// Those that wait for their lock.
    waiting: Vec<(RunRef, Ready)>,
    marks: Vec<(RunId, Mark)>,
    ended: Vec<Ended>,
}

impl Play<'_> {
    fn begin_all(&mut self, chains: Vec<Windowed>, ids: &mut RunIds) {
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
    }

    /// Tells everybody that these do not run: their hooks, metrics, and the log, unless it is all that the call fails with.
    fn refuse_all(&mut self, unfit: &[NotReady], all_of_it: bool) {
        for NotReady { chain, variables, why } in unfit {
            if !all_of_it {
                log::error!(event = "run_refused", chain = chain.name.as_str(), reason = TASK_DIR; "chain {} does not run: {}", chain.name, why.message());
            }
            // What the configuration says of its lock is wrong, and not its tasks.
            if !why.of_tasks {
                continue;
            }
            self.others.refused(&chain.name, TASK_DIR);
            if !why.untrusted {
                self.tell_hook((chain, variables), TASK_DIR, &why.message());
            }
        }
    }

    fn drive(&mut self) {
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
        match mark::take(self.room.as_ref(), &run.chain, &run.id, None) {
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
                self.tell_hook((&ready.setup.chain, &ready.variables), "overlap", &message);
                return self.ended.push(Ended::Refused(run, Exit::Refused, message));
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
        let (exit, said) = match why {
            Unavailable::Held(_) => (Exit::Refused, None),
            Unavailable::Unreachable(_) => (Exit::Io, None),
            Unavailable::Unusable(_) => (Exit::Config, ready.setup.chain.lock.as_ref()),
        };
        let message = said.map_or_else(|| why.message().to_owned(), |keys| keys.told(why.message()));
        let (chain, message) = (run.chain.as_str(), message.as_str());
        log::error!(event = "run_refused", chain, reason = "lock"; "chain {chain}: {message}");
        self.fleet.driver().world.reader.tell(&run, &Event::RunRefused { why: message });
        self.tell_hook((&ready.setup.chain, &ready.variables), "lock", message);
        let message = message.to_owned();
        self.ended.push(Ended::Refused(run, exit, message));
    }

    /// The hook of the chain hears why its run did not begin.
    fn tell_hook(&mut self, (chain, variables): (&ChainSettings, &[CString]), reason: &str, message: &str) {
        let World { family, clock, .. } = self.fleet.driver().world;
        let hook = start_hook(self.config, &Refusal { chain, reason, message }, variables, family, clock);
        let chain = chain.name.as_str();
        match hook {
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
