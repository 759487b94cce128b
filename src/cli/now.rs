//! `runner now [CHAIN...]`: runs chains at once, side by side, once. A person asks; no slot is used.

use std::ffi::CString;
use std::io::IsTerminal;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use serde_json::json;

use super::exit::{Exit, Failure};
use super::prepare::{prepare, refuse_errors};
use super::print;
use super::record::Record;
use super::run::{at_once, refuse_nested, tell_findings};
use super::settings::{Loaded, Settings, find_chain, find_task_dir, own_variable, program_variables, push};
use super::stage::Stage;
use crate::chain::fleet::Fleet;
use crate::chain::run::Run;
use crate::chain::setup::Setup;
use crate::config::chains;
use crate::config::database::state_dir;
use crate::config::keys::Output;
use crate::config::push::PushSettings;
use crate::config::settings::StateSettings;
use crate::config::value::mask_secrets;
use crate::event::RunRef;
use crate::mark;
use crate::names::MAIN_CHAIN;
use crate::notify::systemd::stopping;
use crate::push::{Push, Waits};
use crate::report::bars::{Bars, Progress};
use crate::trigger::{Trigger, TriggerKind};

/// Runs the chains that are named, or every enabled `[chain:NAME]`.
///
/// # Errors
/// Nothing was started: a chain is not known, or one of them cannot be run.
pub fn now(settings: &Settings, words: &[String]) -> Result<Exit, Failure> {
    let (chains, state, told_others) = select(settings, words)?;
    if chains.is_empty() {
        log::warn!("there is no chain to run: no [chain:NAME] is enabled");
        return Ok(Exit::Done);
    }
    let managed = own_variable("NOTIFY_SOCKET").is_some();
    let longest_stop = chains.iter().map(|(setup, _)| setup.longest_stop()).max().unwrap_or(Duration::ZERO);
    let state_dir = state_dir(own_variable, rustix::process::geteuid().is_root());
    let mut stage = Stage::new(managed, bars(&chains, settings.progress), longest_stop, Record::of_main(&state))?;
    let others = push(told_others, Waits::TheEnd);
    stage.tell_others(others.clone());
    let (ended, refused) = drive(&mut stage, chains, state_dir.as_deref(), &others);
    stopping(managed);
    if settings.json {
        let runs: Vec<_> = ended.iter().map(as_json).collect();
        print::json(&json!({ "version": 1, "runs": runs }))?;
    }
    Ok(ended.iter().map(exit_of).fold(refused, Exit::graver))
}

type Chain = (Rc<Setup>, Vec<CString>);

/// Makes all of them ready before the first begins: a person is there to put right what is wrong with one.
fn select(settings: &Settings, words: &[String]) -> Result<(Vec<Chain>, StateSettings, PushSettings), Failure> {
    let Loaded { config, chain: main, findings, state, push } = settings.load()?;
    let mut told = findings.clone();
    let all = chains::read_all(&config, &mut told);
    let mut wanted = Vec::new();
    if words.is_empty() {
        wanted.extend(all.into_iter().filter(|chain| chain.enabled).map(|chain| chain.chain));
    }
    for word in words {
        let chain = if word == MAIN_CHAIN { main.clone() } else { find_chain(&config, word, &mut Vec::new())?.chain };
        if wanted.iter().all(|known| known.name != chain.name) {
            wanted.push(chain);
        }
    }
    let several = wanted.len() > 1;
    let mut ready = Vec::new();
    for chain in wanted {
        if let Some((lock, _)) = chain.lock.as_ref().map(|keys| &keys.lock) {
            let shown = mask_secrets(lock);
            return Err(Failure::Usage(format!(
                "the chain {} needs the lock {shown}, which `now` does not take; `runner run --run-once` does",
                chain.name
            )));
        }
        let dir = find_task_dir(None, &chain)?;
        refuse_nested(settings, &chain.name, &dir)?;
        let prepared = prepare(&config, chain, std::mem::take(&mut told), &dir);
        tell_findings(&refuse_errors(settings, prepared.findings)?);
        let Some(mut setup) = prepared.setup else { return Err(Failure::config(format!("{} cannot be used", dir.display()))) };
        setup.beside_others = several;
        ready.push((Rc::new(setup), program_variables(settings, &dir)));
    }
    Ok((ready, state, push))
}

fn drive(stage: &mut Stage, chains: Vec<Chain>, state_dir: Option<&Path>, others: &Push) -> (Vec<Run>, Exit) {
    let (driver, ids) = stage.driver();
    let mut fleet = Fleet::new(driver);
    let (mut marks, mut refused) = (Vec::new(), Exit::Done);
    for (setup, variables) in chains {
        let id = ids.fresh();
        match mark::take(state_dir, &setup.chain.name, &id) {
            Ok(mark) => marks.push((id.clone(), mark)),
            Err(holder) => {
                let chain = setup.chain.name.as_str();
                log::error!(event = "run_refused", chain, reason = "overlap"; "chain {chain} still runs: {holder}");
                others.refused(chain, "overlap");
                refused = Exit::Refused;
                continue;
            }
        }
        let run = RunRef { chain: setup.chain.name.clone(), id, trigger: Trigger::of(TriggerKind::Now) };
        fleet.begin(setup, run, &variables);
    }
    let mut ended = fleet.take_ended();
    while !fleet.runs().is_empty() {
        let news = fleet.listen(&[], None);
        for signal in &news.stops {
            fleet.stop(None, *signal);
        }
        for run in fleet.advance(&news) {
            marks.retain(|(id, _)| *id != run.run_ref().id);
            ended.push(run);
        }
    }
    (ended, refused)
}

fn exit_of(run: &Run) -> Exit {
    run.outcome().map_or(Exit::Internal, Exit::of_run)
}

fn as_json(run: &Run) -> serde_json::Value {
    let of = run.run_ref();
    let outcome = run.outcome();
    json!({
        "chain": of.chain, "run_id": of.id.as_str(), "outcome": outcome.map(|outcome| outcome.word()),
        "task": outcome.and_then(|outcome| outcome.task()).map(|task| task.text()), "exit_code": exit_of(run).code(),
    })
}

/// Bars only where a terminal is ours alone.
fn bars(chains: &[Chain], progress: Progress) -> Option<Bars> {
    let shared = chains.iter().any(|(setup, _)| setup.writes_to(Output::Inherit));
    let at_once = chains.iter().map(|(setup, _)| at_once(setup)).sum();
    if !shared && std::io::stderr().is_terminal() { Bars::new(progress, at_once) } else { None }
}
