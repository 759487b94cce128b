//! `runner [OPTIONS] [TASK_DIR]` and `runner run`: the way of a chain from the command line to its exit code.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::CString;
use std::io::IsTerminal;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::anyhow;
use serde_json::{Value, json};

use super::args::RunArgs;
use super::exit::{Exit, Failure};
use super::guarded::{Entry, Guarded};
use super::prepare::{Fit, Unfit, make_fit};
use super::record::Record;
use super::refused::{Refusal, TASK_DIR, start_hook};
use super::settings::{Loaded, Settings, apply_run_args, find_main_dir, push};
use super::stage::{Said, Stage};
use super::variables::own_variable;
use super::{dry_run, filter, print, strangers};
use crate::chain::ears::Ears;
use crate::chain::hold::LockPlan;
use crate::chain::repeat::{Interval, Next, Repeat};
use crate::chain::run::Run;
use crate::chain::setup::Setup;
use crate::chain::{Driver, World, wait_for_hook};
use crate::clock::{Clock, Moment, SystemClock};
use crate::config::keys::{CHAIN_HOOK, Output};
use crate::config::settings::ChainSettings;
use crate::config::{Config, Finding, Origin, Severity};
use crate::event::{Event, RunRef};
use crate::names::{MAIN_CHAIN, RunIds, TaskName};
use crate::notify::systemd::{Watchdog, stopping};
use crate::opinion::Opinion;
use crate::outcome::{RunOutcome, signal_name};
use crate::process::Family;
use crate::process::signal::Signals;
use crate::process::unix::WaitMethod;
use crate::push::Push;
use crate::push::Waits;
use crate::report::bars::{Bars, Progress};
use crate::trigger::{Trigger, TriggerKind};

/// Runs the main chain as often as it is to be run.
///
/// # Errors
/// Nothing was started: the configuration or the directory is wrong, the same chain runs around us.
pub fn run(settings: &Settings, args: RunArgs, typed_dir: Option<&Path>) -> Result<Exit, Failure> {
    let mut loaded = settings.load()?;
    apply_run_args(&mut loaded.chain, &args)?;
    let dir = find_main_dir(&loaded.config, typed_dir, &loaded.chain).map_err(|failure| with_findings(failure, &loaded.findings))?;
    refuse_nested(settings, MAIN_CHAIN, &dir)?;
    if settings.strict {
        // It lists the directories of all chains, which a run of one has nothing to do with otherwise.
        loaded.findings.extend(strangers::find(&loaded.config, Some(&dir)));
    }
    let Loaded { config, chain, state, push: told_others, findings, .. } = loaded;
    let variables = settings.program_variables(&dir);
    let Fit { setup, lock, told } = match make_fit(settings, &config, chain.clone(), findings, &dir) {
        Ok(fit) => fit,
        Err(unfit) => {
            if unfit.of_tasks && !args.dry_run {
                push(told_others, Waits::EachRun).refused(MAIN_CHAIN, TASK_DIR);
                tell_refused(&config, &chain, &variables, &unfit);
            }
            return Err(Failure::Config(unfit.errors));
        }
    };
    tell_findings(&told);
    // Given back to the system with the rest of the memory when the program ends: piece by piece it takes longer than reading it.
    let (config, mut setup) = (ManuallyDrop::new(config), ManuallyDrop::new(setup));
    filter::apply(&mut setup, &args)?;
    if args.dry_run {
        dry_run::print(settings, &setup)?;
        return Ok(Exit::Done);
    }
    let managed = own_variable("NOTIFY_SOCKET").is_some();
    let results = settings.json.then(Results::default);
    let (halt_after, progress) = (args.halt_after, settings.progress);
    let setup = ManuallyDrop::new(Rc::new(ManuallyDrop::into_inner(setup)));
    let play = Play { config: &config, setup: Rc::clone(&setup), variables, managed, halt_after, progress, results };
    let driven = play.drive(lock, Record::of_main(&state), push(told_others, Waits::EachRun));
    stopping(managed);
    match play.results.map(|results| results.runs.take()) {
        // Also where the last of them was refused: what became of the others is not lost for that.
        Some(runs) if driven.is_ok() || runs.len() > 1 => {
            print::json(&json!({ "version": 1, "runs": runs }))?;
            Ok(driven.unwrap_or_else(|failure| {
                log::error!("{failure}");
                failure.exit()
            }))
        }
        Some(_) | None => driven,
    }
}

/// What became of a run, as JSON; version 1.
pub fn result_of(run: &RunRef, outcome: Option<&RunOutcome>, said: Option<Opinion>, exit: Exit) -> Value {
    let (word, task) = (outcome.map(RunOutcome::word), outcome.and_then(RunOutcome::task).map(TaskName::text));
    let (id, said) = (run.id.as_str(), said.map(Opinion::word));
    json!({ "chain": run.chain, "run_id": id, "outcome": word, "task": task, "exit_code": exit.code(), "said": said })
}

/// The same of one that did not begin, with the reason.
pub fn result_of_refused(run: &RunRef, exit: Exit, message: &str) -> Value {
    let mut result = result_of(run, None, None, exit);
    result["outcome"] = json!("refused");
    result["message"] = json!(message);
    result
}

fn with_findings(failure: Failure, findings: &[Finding]) -> Failure {
    let errors: Vec<_> = findings.iter().filter(|finding| finding.severity == Severity::Error).cloned().collect();
    if errors.is_empty() { failure } else { Failure::Config(errors) }
}

/// A chain that its own task starts again would wait for itself, or run for ever.
pub fn refuse_nested(settings: &Settings, chain: &str, dir: &Path) -> Result<(), Failure> {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let is = |name: &str, value: &Path| own_variable(name).is_some_and(|own| real(Path::new(&own)) == real(value));
    let config = settings.config_file.clone().unwrap_or_else(|| PathBuf::from("/dev/null"));
    let inside = own_variable("RUNNER_CHAIN").is_some_and(|own| own == chain) && is("RUNNER_CONFIG", &config) && is("RUNNER_TASK_DIR", dir);
    if inside {
        let run = own_variable("RUNNER_RUN_ID").unwrap_or_default();
        return Err(Failure::Refused(format!("the chain {chain} was called inside its own run {}", run.to_string_lossy())));
    }
    Ok(())
}

/// Tells what is worth knowing and stops nobody.
pub fn tell_findings(findings: &[Finding]) {
    for finding in findings {
        match finding.severity {
            Severity::Error | Severity::Suspect | Severity::Warning => log::warn!("{finding}"),
            Severity::Note => log::debug!("{finding}"),
        }
    }
}

/// What is run again and again.
struct Play<'a> {
    config: &'a Config,
    setup: Rc<Setup>,
    variables: Vec<CString>,
    managed: bool,
    halt_after: bool,
    progress: Progress,
    /// What became of the runs, where that is to be printed.
    results: Option<Results>,
}

/// What became of the runs, and what their tasks said of themselves.
#[derive(Default)]
struct Results {
    runs: RefCell<Vec<Value>>,
    said: Said,
}

/// What became of one of the runs.
enum Once {
    Ended(RunOutcome, Moment),
    Refused(Failure),
    Signal(i32),
}

/// So many tasks at once need more descriptors than a program usually has.
const MANY: usize = 100;

impl Play<'_> {
    fn drive(&self, lock: Option<LockPlan>, record: Record, others: Push) -> Result<Exit, Failure> {
        let mut stage = Stage::new(self.managed, bars(&self.setup, self.progress), self.setup.longest_stop(), record)?;
        if self.setup.chain.max_parallel > MANY {
            stage.expect_many();
        }
        stage.tell_others(others);
        if let Some(results) = &self.results {
            stage.keep_opinions(&results.said);
        }
        let (mut driver, ids) = stage.driver();
        let Some(lock) = lock else { return self.repeat(&mut driver, ids, None) };
        let said = self.setup.chain.lock.as_ref().map_or(&Origin::Default, |keys| &keys.lock.1);
        let guarded = Guarded::open(&lock, self.managed).map_err(|failure| failure.said_at(said))?;
        let Driver { ears, world: World { family, clock, reader, rng } } = driver;
        let mut reader = guarded.reader(reader);
        let mut driver = Driver { ears, world: World { family, clock, reader: &mut reader, rng } };
        self.repeat(&mut driver, ids, Some(&guarded))
    }

    fn repeat(&self, driver: &mut Driver<'_>, ids: &mut RunIds, lock: Option<&Guarded>) -> Result<Exit, Failure> {
        let chain = &self.setup.chain;
        let repeat = Repeat { times: chain.times, interval: interval(&self.setup) };
        let mut new_ref = || RunRef { chain: chain.name.clone(), id: ids.fresh(), trigger: Trigger::of(TriggerKind::Boot) };
        let (mut exit, mut done) = (Exit::Done, 0);
        let clock = driver.world.clock;
        loop {
            let asked = clock.now();
            let run = new_ref();
            let once = self.once(run.clone(), driver, lock)?;
            self.note(&run, &once);
            done += 1;
            let next = match once {
                Once::Signal(signal) => return Ok(Exit::Signal(signal)),
                Once::Ended(outcome, began) => {
                    exit = exit.graver(Exit::of_run(&outcome));
                    let failed = outcome != RunOutcome::Done;
                    let twice = failed && lock.is_some_and(Guarded::releases_on_error);
                    let next = if twice { repeat.twice_as_long() } else { repeat }.next(done, began, clock.now(), &outcome);
                    if next == Next::Stop && self.halt_after && chain.times != 0 && exit == Exit::Done {
                        // It belongs to the last run, which the history knows.
                        let halting = Run::begin_halt(self.setup.clone(), run.clone(), &self.variables_under(lock), &mut driver.world);
                        drive_run(halting, driver, lock);
                    }
                    if let Some(lock) = lock {
                        lock.after_run(failed, driver);
                    }
                    next
                }
                Once::Refused(failure) => {
                    let next = repeat.after_refusal(done, asked, clock.now());
                    exit = exit.graver(failure.exit());
                    if next == Next::Stop && exit == failure.exit() {
                        return Err(failure);
                    }
                    let chain = chain.name.as_str();
                    log::warn!(event = "run_refused", chain, reason = "lock"; "chain {chain}: {failure}");
                    next
                }
            };
            let Next::At(at) = next else {
                if let Some(lock) = lock {
                    lock.leave(driver);
                }
                return Ok(exit);
            };
            let signal = match lock {
                Some(lock) => lock.sleep_until(at, driver),
                None => sleep_until(at, driver),
            };
            if let Some(signal) = signal {
                if let Some(lock) = lock {
                    lock.leave(driver);
                }
                log::warn!("told to stop by {} between two runs", signal_name(signal));
                return Ok(Exit::Signal(signal));
            }
        }
    }

    /// Keeps what became of a run, where that is to be printed.
    fn note(&self, run: &RunRef, once: &Once) {
        let Some(results) = &self.results else { return };
        let result = match once {
            Once::Ended(outcome, _) => result_of(run, Some(outcome), results.said.of(run), Exit::of_run(outcome)),
            Once::Refused(failure) => result_of_refused(run, failure.exit(), &failure.to_string()),
            Once::Signal(_) => return,
        };
        results.runs.borrow_mut().push(result);
    }

    /// One run, if there is a right to it.
    fn once(&self, run: RunRef, driver: &mut Driver<'_>, lock: Option<&Guarded>) -> Result<Once, Failure> {
        if let Some(lock) = lock {
            match lock.enter(&run, driver) {
                Entry::Ours => {}
                Entry::Signal(signal) => return Ok(Once::Signal(signal)),
                Entry::Refused(failure) => {
                    self.tell_refused(&run, &failure.to_string(), driver);
                    return Ok(Once::Refused(failure));
                }
            }
        }
        let began = driver.world.clock.now();
        let run = Run::begin(self.setup.clone(), run, &self.variables_under(lock), &mut driver.world);
        let ended = drive_run(run, driver, lock);
        let Some(outcome) = ended.outcome() else { return Err(anyhow!("a run ended without an outcome").into()) };
        driver.ears.keep(ended.unheard());
        Ok(Once::Ended(outcome.clone(), began))
    }

    /// The variables of the program, and the token of the lock.
    fn variables_under(&self, lock: Option<&Guarded>) -> Cow<'_, [CString]> {
        match lock.and_then(Guarded::variable) {
            None => Cow::Borrowed(&self.variables),
            Some(token) => [&self.variables[..], &[token]].concat().into(),
        }
    }

    fn tell_refused(&self, run: &RunRef, why: &str, driver: &mut Driver<'_>) {
        let World { family, clock, ref mut reader, .. } = driver.world;
        reader.tell(run, &Event::RunRefused { why });
        let refusal = Refusal { chain: &self.setup.chain, reason: "lock", message: why };
        let hook = start_hook(self.config, &refusal, &self.variables, family, clock);
        let told = hook.map_or(Ok(()), |hook| hook.and_then(|hook| wait_for_hook(hook, driver.ears, family, clock)));
        if let Err(why) = told {
            log::warn!("{}: {why}", CHAIN_HOOK.info.name);
        }
    }
}

fn drive_run(run: Run, driver: &mut Driver<'_>, lock: Option<&Guarded>) -> Run {
    match lock {
        Some(lock) => lock.drive(run, driver),
        None => driver.drive(run),
    }
}

/// Bars only where a terminal is ours alone: a task that writes to it itself would tear them.
fn bars(setup: &Setup, progress: Progress) -> Option<Bars> {
    let shared = setup.writes_to(Output::Inherit);
    if !shared && std::io::stderr().is_terminal() { Bars::new(progress, at_once(setup)) } else { None }
}

/// How many of its tasks may run side by side.
pub fn at_once(setup: &Setup) -> usize {
    setup.chain.max_parallel.min(setup.tasks.len())
}

fn interval(setup: &Setup) -> Option<Interval> {
    let from_begin = setup.chain.run_interval.map(Interval::FromBegin);
    from_begin.or(setup.chain.sleep_interval.map(Interval::FromEnd))
}

fn sleep_until(at: Moment, driver: &mut Driver<'_>) -> Option<i32> {
    while driver.world.clock.now() < at {
        if let Some(signal) = driver.listen(&[], &[], Some(at)).stops.first() {
            return Some(*signal);
        }
    }
    None
}

/// Tells the hook of a chain that its tasks cannot be run.
fn tell_refused(config: &Config, chain: &ChainSettings, variables: &[CString], unfit: &Unfit) {
    if chain.chain_hook.is_none() || unfit.untrusted {
        return;
    }
    let message = unfit.message();
    let (clock, family) = (SystemClock::new(), Family::new(WaitMethod::detect()));
    let result = Signals::install().map_err(|error| error.to_string()).and_then(|signals| {
        let mut ears = Ears::new(signals, Watchdog::new(false, clock.now()));
        match start_hook(config, &Refusal { chain, reason: TASK_DIR, message: &message }, variables, &family, &clock) {
            Some(hook) => wait_for_hook(hook?, &mut ears, &family, &clock),
            None => Ok(()),
        }
    });
    if let Err(why) = result {
        log::warn!("{}: {why}", CHAIN_HOOK.info.name);
    }
}
