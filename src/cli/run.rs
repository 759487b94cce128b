//! `runner [OPTIONS] [TASK_DIR]` and `runner run`: the way of a chain from the command line to its exit code.

use std::ffi::CString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::anyhow;

use super::args::RunArgs;
use super::exit::{Exit, Failure};
use super::prepare::{prepare, refuse_errors};
use super::record::Record;
use super::refused::{Refusal, start_hook};
use super::settings::{Loaded, Settings, apply_run_args, find_task_dir, own_variable, program_variables, push};
use super::stage::Stage;
use super::{dry_run, filter};
use crate::chain::ears::Ears;
use crate::chain::repeat::{Interval, Next, Repeat};
use crate::chain::run::Run;
use crate::chain::setup::Setup;
use crate::chain::{Driver, wait_for_hook};
use crate::clock::{Clock, Moment, SystemClock};
use crate::config::keys::{CHAIN_HOOK, Output};
use crate::config::settings::ChainSettings;
use crate::config::{Config, Finding, Severity};
use crate::event::RunRef;
use crate::names::MAIN_CHAIN;
use crate::notify::systemd::{Watchdog, stopping};
use crate::outcome::{RunOutcome, signal_name};
use crate::process::Family;
use crate::process::signal::Signals;
use crate::process::unix::WaitMethod;
use crate::push::Waits;
use crate::report::bars::Bars;
use crate::trigger::{Trigger, TriggerKind};

/// Runs the main chain as often as it is to be run.
///
/// # Errors
/// Nothing was started: the configuration or the directory is wrong, the same chain runs around us.
pub fn run(settings: &Settings, args: RunArgs, typed_dir: Option<&Path>) -> Result<Exit, Failure> {
    let mut loaded = settings.load()?;
    apply_run_args(&mut loaded.chain, &args)?;
    let dir = find_task_dir(typed_dir, &loaded.chain).map_err(|failure| with_findings(failure, &loaded.findings))?;
    refuse_nested(settings, MAIN_CHAIN, &dir)?;
    let Loaded { config, chain, state, push: told_others, findings } = loaded;
    let (hook_settings, hook_allowed) = (chain.clone(), findings.iter().all(|finding| finding.severity != Severity::Error));
    let prepared = prepare(&config, chain, findings, &dir);
    let variables = program_variables(settings, &dir);
    let told = match refuse_errors(settings, prepared.findings) {
        Ok(told) => told,
        Err(failure) => {
            if hook_allowed && !prepared.untrusted {
                push(told_others, Waits::EachRun).refused(MAIN_CHAIN, "task_dir");
                tell_refused(&config, &hook_settings, &variables, "task_dir", &failure.to_string());
            }
            return Err(failure);
        }
    };
    tell_findings(&told);
    let Some(mut setup) = prepared.setup else { return Err(Failure::config(format!("{} cannot be used", dir.display()))) };
    filter::apply(&mut setup, &args)?;
    if args.dry_run {
        dry_run::print(settings, &setup)?;
        return Ok(Exit::Done);
    }
    let managed = own_variable("NOTIFY_SOCKET").is_some();
    let mut stage = Stage::new(managed, bars(&setup), setup.longest_stop(), Record::of_main(&state))?;
    stage.tell_others(push(told_others, Waits::EachRun));
    let exit = drive(stage, setup, &args, &variables)?;
    stopping(managed);
    Ok(exit)
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

fn drive(mut stage: Stage, setup: Setup, args: &RunArgs, variables: &[CString]) -> anyhow::Result<Exit> {
    let (mut driver, ids) = stage.driver();
    let repeat = Repeat { times: setup.chain.times, interval: interval(&setup) };
    let setup = Rc::new(setup);
    let mut new_ref = || RunRef { chain: setup.chain.name.clone(), id: ids.fresh(), trigger: Trigger::of(TriggerKind::Boot) };
    let (mut exit, mut done) = (Exit::Done, 0);
    loop {
        let clock = driver.world.clock;
        let began = clock.now();
        let run = Run::begin(setup.clone(), new_ref(), variables, &mut driver.world);
        let ended = driver.drive(run);
        let Some(outcome) = ended.outcome() else { return Err(anyhow!("a run ended without an outcome")) };
        done += 1;
        exit = exit.graver(Exit::of_run(outcome));
        driver.ears.keep(ended.unheard());
        match repeat.next(done, began, clock.now(), outcome) {
            Next::At(at) => {
                if let Some(signal) = sleep_until(at, &mut driver) {
                    log::warn!("told to stop by {} between two runs", signal_name(signal));
                    return Ok(Exit::Signal(signal));
                }
            }
            Next::Stop => {
                if args.halt_after && setup.chain.times != 0 && exit == Exit::Done && *outcome == RunOutcome::Done {
                    let halting = Run::begin_halt(setup.clone(), new_ref(), variables, &mut driver.world);
                    driver.drive(halting);
                }
                return Ok(exit);
            }
        }
    }
}

/// Bars only where a terminal is ours alone: a task that writes to it itself would tear them.
fn bars(setup: &Setup) -> Option<Bars> {
    let shared = setup.writes_to(Output::Inherit);
    (!shared && std::io::stderr().is_terminal()).then(Bars::new)
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

/// Tells the chain's hook of a run that did not begin.
fn tell_refused(config: &Config, chain: &ChainSettings, variables: &[CString], reason: &str, message: &str) {
    if chain.chain_hook.is_none() {
        return;
    }
    let (clock, family) = (SystemClock::new(), Family::new(WaitMethod::detect()));
    let result = Signals::install().map_err(|error| error.to_string()).and_then(|signals| {
        let mut ears = Ears::new(signals, Watchdog::new(false, clock.now()));
        match start_hook(config, &Refusal { chain, reason, message }, variables, &family, &clock) {
            Some(hook) => wait_for_hook(hook?, &mut ears, &family, &clock),
            None => Ok(()),
        }
    });
    if let Err(why) = result {
        log::warn!("{}: {why}", CHAIN_HOOK.info.name);
    }
}
