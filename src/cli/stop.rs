//! `runner stop`: ends the run of a chain, and of nothing else, whoever began it: the daemon, a tick, `now`, or the main chain. The
//! run is told on the socket on which it hears its tasks.

use std::time::Duration;

use anyhow::Context;
use rustix::event::{Timespec, poll};
use serde_json::json;

use super::exit::{Exit, Failure};
use super::going;
use super::left::{self, Left};
use super::print;
use super::settings::Settings;
use super::show::is_chain;
use super::state::{Reading, SHORTEST_END, marks_of, own_place};
use super::variables::local_zone;
use crate::clock::{Clock, Moment, SystemClock};
use crate::config::Config;
use crate::config::settings::ChainSettings;
use crate::mark;
use crate::names::{MAIN_CHAIN, typed_suggestion};
use crate::notify::asking::{Said, Stopper, there};
use crate::status::{Ended, Going};
use crate::store::HistoryQuery;
use crate::store::open::Place;
use crate::store::record::RunRecord;

/// A run that hears us says so at once, from its loop; this one is frozen, or not ours.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// How often runs are asked before one counts as silent.
const LOOKS: u32 = 5;
/// How often it is looked whether a run has gone without a word: its program was killed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// So many of the last runs that failed are asked for what they have left.
const LAST_FAILED: u32 = 20;

/// So long it is waited for the record of a run that is over: its program has others to care for.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);
/// How often that is looked for.
const LOOK_FOR_RECORD: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// What became of a run.
#[derive(Debug)]
struct Fate {
    chain: String,
    run: String,
    /// The word of its end; none where it goes on, or was killed.
    outcome: Option<String>,
    text: String,
}

/// Tells runs to stop, and waits until they are over unless `no_wait`.
///
/// # Errors
/// No chain or run is named, or none of them is known; a run does not answer; the result cannot be written.
pub fn stop(settings: &Settings, words: &[String], no_wait: bool) -> Result<Exit, Failure> {
    let loaded = settings.load()?;
    let place = own_place(&loaded.state);
    let marks = marks_of(&place);
    let (going, mute) = look(words, &place);
    if words.is_empty() {
        return Err(Failure::Usage(format!("name the chain or the run that is to end; {}", what_runs(&going))));
    }
    let (mut chosen, mut fates): (Vec<&Going>, Vec<Fate>) = (Vec::new(), Vec::new());
    for word in words {
        let found = choose(word, &going)?;
        if found.is_empty() {
            let marked = marks.as_ref().and_then(|room| mark::look(room, word));
            if let Some(holder) = marked {
                return Err(silent(word, &holder.run_id, holder.pid));
            }
            let failed = failed_runs(settings, &loaded.config, word);
            let left = left::find(&failed);
            if left.is_empty() {
                fates.push(of_nothing(settings, &loaded.config, word, (&going, &mute))?);
            } else {
                fates.extend(end_left(&loaded.config, left, no_wait)?);
            }
        }
        for run in found {
            if chosen.iter().all(|known| known.run.id != run.run.id) {
                chosen.push(run);
            }
        }
    }
    if !chosen.is_empty() {
        let told = end(&chosen, no_wait)?;
        await_records(settings, &told);
        fates.extend(told);
    }
    if settings.json {
        let runs: Vec<_> = fates
            .iter()
            .map(|fate| json!({ "chain": fate.chain, "run_id": Some(&fate.run).filter(|run| !run.is_empty()), "outcome": fate.outcome, "text": fate.text }))
            .collect();
        print::json(&json!({ "version": 1, "runs": runs }))?;
    } else {
        print::text(&fates.iter().map(|fate| format!("{}\n", fate.text)).collect::<String>())?;
    }
    Ok(Exit::Done)
}

/// The runs that tell of themselves, and the ids of those that do not. Where that might be one that is wanted, it is asked again:
/// its program may have much to do.
fn look(words: &[String], place: &Place) -> (Vec<Going>, Vec<String>) {
    let database = place.url().ok().map(|url| url.to_string());
    let mut tries = LOOKS;
    loop {
        let before = there();
        let all = going::look();
        let answered = |id: &String| all.iter().any(|going| going.run.id == *id);
        let mute: Vec<String> = there().into_iter().filter(|id| before.contains(id) && !answered(id)).collect();
        let going = going::of_state(all, place.state_dir.as_deref(), database.as_deref(), &local_zone());
        let found = |word: &String| choose(word, &going).map_or(true, |found| !found.is_empty());
        tries -= 1;
        if mute.is_empty() || tries == 0 || words.iter().all(found) {
            return (going, mute);
        }
    }
}

fn what_runs(going: &[Going]) -> String {
    match going {
        [] => "nothing runs just now".to_owned(),
        [..] => {
            let names: Vec<String> = going.iter().map(|going| format!("{} (run {})", going.chain, going.run.id)).collect();
            format!("these run: {}", names.join(", "))
        }
    }
}

/// The runs that a word means: all of a chain, or the one whose id begins or ends so.
fn choose<'a>(word: &str, going: &'a [Going]) -> Result<Vec<&'a Going>, Failure> {
    let of = |is: &dyn Fn(&Going) -> bool| going.iter().filter(|going| is(going)).collect::<Vec<_>>();
    let of_chain = of(&|going| going.chain == word);
    if !of_chain.is_empty() || word.is_empty() {
        return Ok(of_chain);
    }
    let begins = of(&|going| going.run.id.starts_with(word));
    let found = if begins.is_empty() && word.len() >= SHORTEST_END { of(&|going| going.run.id.ends_with(word)) } else { begins };
    match found.as_slice() {
        [first, second, ..] => Err(Failure::Usage(format!(
            "`{word}` is the beginning or the end of several runs: {}, {}; type more of it",
            first.run.id, second.run.id
        ))),
        [] | [_] => Ok(found),
    }
}

/// The last runs of a chain that failed, or the run that a word means: they may have left something running.
fn failed_runs(settings: &Settings, config: &Config, word: &str) -> Vec<RunRecord> {
    let Ok(mut reading) = Reading::open(settings) else { return Vec::new() };
    let runs = if is_chain(config, word) {
        reading.history(&HistoryQuery { chain: Some(word.to_owned()), failed: true, limit: LAST_FAILED })
    } else {
        reading.find(word).map(|run| vec![run])
    };
    runs.unwrap_or_default()
}

fn end_left(config: &Config, left: Vec<Left<'_>>, no_wait: bool) -> Result<Vec<Fate>, Failure> {
    let kill_after = |chain: &str| ChainSettings::of_chain(config, chain, &mut Vec::new()).task.kill_after;
    let longest = left.iter().map(|(run, _)| kill_after(&run.chain)).max().unwrap_or_default();
    left::end(&left, longest, !no_wait)?;
    let fate = |(run, pids): Left<'_>| {
        let pids: Vec<_> = pids.iter().map(ToString::to_string).collect();
        let (list, done) = (pids.join(" "), if no_wait { "told to end" } else { "ended" });
        let text = format!("chain {}: the run {}, whose process is gone, had left running: {list}; {done}", run.chain, run.run_id);
        Fate { chain: run.chain.clone(), run: run.run_id.clone(), outcome: run.outcome.clone(), text }
    };
    Ok(left.into_iter().map(fate).collect())
}

/// What is to be said of a word by which nothing runs that tells of itself.
fn of_nothing(settings: &Settings, config: &Config, word: &str, (going, mute): (&[Going], &[String])) -> Result<Fate, Failure> {
    // Without the state a chain that is configured is known all the same.
    let reading = Reading::open(settings);
    if is_chain(config, word) {
        let open = reading.ok().and_then(|reading| reading.last(Some(word)).ok()).filter(|run| run.outcome.is_none());
        if let Some(run) = open {
            return Err(silent(&run.chain, &run.run_id, run.pid));
        }
        // Whose they are nobody knows: another user's, or of a program that is frozen.
        if !mute.is_empty() {
            log::info!("runs of this machine that do not answer: {}", mute.join(", "));
        }
        let text = format!("nothing of the chain {word} runs");
        return Ok(Fate { chain: word.to_owned(), run: String::new(), outcome: None, text });
    }
    let run = reading?.find(word).map_err(|failure| match failure {
        Failure::Usage(_) => {
            let chains = config.sections().filter_map(|section| section.name.strip_prefix("chain:"));
            let near = typed_suggestion(word, chains.chain([MAIN_CHAIN]));
            Failure::Usage(format!("no chain or run is called `{word}`, and {}{near}", what_runs(going)))
        }
        other => other,
    })?;
    let Some(outcome) = run.outcome else { return Err(silent(&run.chain, &run.run_id, run.pid)) };
    let text = format!("chain {}: the run {} is over already: {}", run.chain, run.run_id, Ended::of_record(&outcome).words());
    Ok(Fate { chain: run.chain, run: run.run_id, outcome: Some(outcome), text })
}

fn silent(chain: &str, run: &str, pid: impl std::fmt::Display) -> Failure {
    Failure::State(format!(
        "chain {chain}: the run {run} of process {pid} does not answer: its process is frozen, or its tasks have not begun yet (a hook, its lock), or it is \
         another user's (only root and that user are obeyed)"
    ))
}

/// Tells them, and waits.
fn end(chosen: &[&Going], no_wait: bool) -> Result<Vec<Fate>, Failure> {
    let stopper = Stopper::open().context("there is no socket to tell runs to stop")?;
    let clock = SystemClock::new();
    let silent_from: Moment = clock.now() + ANSWERS_WITHIN;
    let mut open: Vec<(&Going, bool)> = chosen.iter().map(|going| (*going, false)).collect();
    for (going, _) in &open {
        stopper.tell(&going.run.id);
        if let Some(closing) = &going.run.closing {
            let (chain, run, what) = (&going.chain, &going.run.id, going::of_closing(Some(closing)));
            log::info!("chain {chain}: the run {run} is over but for {what}: a first stop spares that, a second kills it");
        }
    }
    let mut fates = Vec::new();
    while !open.is_empty() {
        // Before it is heard what they say: the last word of a run comes before its socket goes.
        let there = there();
        for said in stopper.hear(LOOK_AGAIN) {
            match said {
                Said::Heard(run) => open.iter_mut().filter(|(going, _)| going.run.id == run).for_each(|(_, heard)| *heard = true),
                Said::Ended(run, outcome) => {
                    fates.extend(open.extract_if(.., |(going, _)| going.run.id == run).map(|(going, _)| ended(going, &outcome)));
                }
            }
        }
        fates.extend(open.extract_if(.., |(going, _)| !there.contains(&going.run.id)).map(|(going, _)| gone(going)));
        if no_wait {
            fates.extend(open.extract_if(.., |(_, heard)| *heard).map(|(going, _)| told(going)));
        }
        if let Some((going, _)) = open.iter().find(|(_, heard)| !heard && clock.now() >= silent_from) {
            return Err(silent(&going.chain, &going.run.id, going.pid));
        }
    }
    Ok(fates)
}

/// Waits until the state knows that these are over: whoever looks at it next is not to be told that they still run.
fn await_records(settings: &Settings, fates: &[Fate]) {
    let clock = SystemClock::new();
    let until = clock.now() + WRITTEN_WITHIN;
    let is_open = |fate: &Fate| {
        let record = Reading::open(settings).and_then(|reading| reading.find(&fate.run));
        record.is_ok_and(|run| run.outcome.is_none())
    };
    for fate in fates.iter().filter(|fate| fate.outcome.is_some()) {
        while is_open(fate) && clock.now() < until {
            let _ = poll(&mut [], Some(&LOOK_FOR_RECORD));
        }
    }
}

fn fate(going: &Going, outcome: Option<&str>, words: &str) -> Fate {
    let text = format!("chain {}: the run {} {words}", going.chain, going.run.id);
    Fate { chain: going.chain.clone(), run: going.run.id.clone(), outcome: outcome.map(str::to_owned), text }
}

fn ended(going: &Going, outcome: &str) -> Fate {
    fate(going, Some(outcome), &format!("is over: {}", Ended::of_record(outcome).words()))
}

fn gone(going: &Going) -> Fate {
    fate(going, None, &format!("is over: its process {} is gone", going.pid))
}

fn told(going: &Going) -> Fate {
    fate(going, None, "was told to stop")
}
