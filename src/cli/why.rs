//! `runner why`: why a chain did not run, or does not run yet, as a list of facts and what to do about each. Changes nothing.

use std::collections::HashMap;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::daemon::BUILT;
use super::exit::{Exit, Failure};
use super::lock_view::{holder_in_words, look, needed, waits_for};
use super::outside::{judge_all, local_zone};
use super::prepare::prepare;
use super::settings::{Loaded, Settings, find_chain, find_task_dir, is_error, part_findings, without_repeats};
use super::state::Reading;
use super::status::ended;
use super::table;
use super::{doing, going, print};
use crate::clock::{Clock, SystemClock};
use crate::config::keys::{self, Overlap};
use crate::config::sections::Sections;
use crate::config::settings::ChainSettings;
use crate::config::{Config, Finding};
use crate::daemon::book::Booked;
use crate::mark;
use crate::names::MAIN_CHAIN;
use crate::process::leftovers::{in_words, still_running};
use crate::schedule::agenda::believe;
use crate::status::{Date, Ended, Going, Lock, Run, Task};
use crate::store::HistoryQuery;
use crate::store::record::{CRASHED, RunRecord};

/// How many of the last runs are looked at.
const RUNS: u32 = 20;
/// How many slots that were not run are told.
const NOT_RUN: usize = 3;
/// A slot that should have fired so long ago was overlooked: a tick comes once a minute.
const OVERLOOKED: SignedDuration = SignedDuration::from_secs(120);

/// Something that is known of the chain.
#[derive(Debug)]
struct Fact {
    /// Its name in JSON.
    kind: &'static str,
    /// When it was, is, or will be so.
    at: Option<Date>,
    /// In words.
    text: String,
    /// The way out.
    advice: Option<String>,
}

impl Fact {
    fn new(kind: &'static str, text: impl Into<String>) -> Self {
        Self { kind, at: None, text: text.into(), advice: None }
    }

    fn at(self, at: Date) -> Self {
        Self { at: Some(at), ..self }
    }

    fn advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// Prints what is known of why a chain does not run.
///
/// # Errors
/// The chain is not known; the state cannot be read; the result cannot be written.
pub fn why(settings: &Settings, word: &str) -> Result<Exit, Failure> {
    let loaded = settings.load()?;
    let named = (word != MAIN_CHAIN).then(|| find_chain(&loaded.config, word, &mut Vec::new())).transpose();
    let named = named.map_err(|failure| loaded.cause_of(failure))?.map(|named| named.chain);
    let Loaded { config, chain: main, mut findings, .. } = loaded;
    let chain = named.unwrap_or(main);
    let booked = judge_all(&config, &mut findings).into_iter().find(|booked| booked.name() == word);
    let (told, zone) = (going::look(), local_zone());
    let mut reading = Reading::open(settings)?;
    let told = going::of_state(told, reading.state_dir.as_deref(), &zone).into_iter().find(|going| going.chain == word);
    let now = SystemClock::new().wall();
    let case = Case { settings, config: &config, chain: &chain, booked: booked.as_ref(), told: told.as_ref(), now, zone };
    let facts = case.facts(findings, &mut reading)?;
    if settings.json {
        let list: Vec<Value> =
            facts.iter().map(|fact| json!({ "fact": fact.kind, "at": fact.at, "text": fact.text, "advice": fact.advice })).collect();
        print::json(&json!({ "version": 1, "chain": word, "facts": list }))?;
    } else {
        print::text(&as_text(word, &facts))?;
    }
    Ok(Exit::Done)
}

fn as_text(chain: &str, facts: &[Fact]) -> String {
    let mut text = format!("{chain}\n");
    let width = table::width().unwrap_or(usize::MAX);
    for fact in facts {
        let when = fact.at.map(|at| format!("{}  ", at.show("%Y-%m-%dT%H:%M:%S%:z"))).unwrap_or_default();
        let line = format!("{when}{}", table::harmless(&fact.text).replace('\n', " "));
        text.push_str(&table::wrapped(&line, 2, 4, width));
        if let Some(advice) = &fact.advice {
            text.push_str(&table::wrapped(&format!("-> {advice}"), 6, 9, width));
        }
    }
    text
}

/// The chain that is asked about, and all that is known without the state.
struct Case<'a> {
    settings: &'a Settings,
    config: &'a Config,
    chain: &'a ChainSettings,
    booked: Option<&'a Booked>,
    /// A run of it that tells of itself.
    told: Option<&'a Going>,
    now: Timestamp,
    zone: TimeZone,
}

impl Case<'_> {
    fn facts(&self, findings: Vec<Finding>, reading: &mut Reading) -> Result<Vec<Fact>, Failure> {
        let runs = reading.history(&HistoryQuery { chain: Some(self.chain.name.clone()), failed: false, limit: RUNS })?;
        let lock = look(&needed([self.chain]), self.date(self.now)).into_iter().next();
        let mut facts: Vec<Fact> = self.of_running(&runs, reading, lock.as_ref()).into_iter().collect();
        facts.extend(self.told.filter(|_| !facts.is_empty()).map(|told| self.of_told(&told.run)).unwrap_or_default());
        facts.extend(lock.as_ref().and_then(of_lock));
        facts.extend(self.of_configuration(findings));
        facts.extend(self.of_clock(reading)?);
        facts.extend(self.of_firing(reading)?);
        facts.extend(self.of_crashed(&runs));
        facts.extend(self.of_past(&runs));
        facts.extend(self.of_future(reading));
        Ok(facts)
    }

    fn date(&self, at: Timestamp) -> Date {
        Date::new(at, &self.zone)
    }

    /// The sentence of a key that stands somewhere.
    fn place(&self, key: &keys::KeyInfo) -> String {
        Sections::for_chain(self.config, &self.chain.name).of_chain().explain(key).1.to_string()
    }

    fn of_running(&self, runs: &[RunRecord], reading: &Reading, lock: Option<&Lock>) -> Option<Fact> {
        let open = runs.iter().find(|run| run.outcome.is_none()).map(|run| (run.run_id.clone(), run.pid, run.began));
        let (recorded, pid_of) = (open.is_some(), |going: &Going| i32::try_from(going.pid).unwrap_or_default());
        // One that ended since it was asked has its record.
        let goes_on = |going: &&Going| runs.iter().all(|run| run.run_id != going.run.id);
        let told = || self.told.filter(goes_on).map(|going| (going.run.id.clone(), pid_of(going), going.run.started_at.at));
        let marked = || {
            reading
                .state_dir
                .as_deref()
                .and_then(|dir| mark::look(dir, &self.chain.name))
                .map(|holder| (holder.run_id, holder.pid, holder.since))
        };
        let (run, pid, since) = open.or_else(marked).or_else(told)?;
        if lock.is_some_and(|lock| waits_for(lock, &run)) {
            let text =
                format!("its lock is asked for, by run {run} of process {pid}, for {}", table::about(since.duration_until(self.now)));
            return Some(Fact::new("waits_for_lock", text).at(self.date(since)).advice("wait_lock says how long it waits"));
        }
        let meanwhile = match self.booked.map(|chain| chain.named.overlap) {
            Some(Overlap::Skip) => "; slots that come meanwhile are given up (overlap = skip)",
            Some(Overlap::Queue) => "; one slot that comes meanwhile waits (overlap = queue)",
            Some(Overlap::Replace) => "; the next slot stops it (overlap = replace)",
            None => "",
        };
        let text = format!("it runs: run {run} of process {pid}, for {}{meanwhile}", table::about(since.duration_until(self.now)));
        // What no database knows yet is shown when it has ended.
        let advice = if recorded { format!("runner show {run}") } else { format!("runner status {} --watch", self.chain.name) };
        Some(Fact::new("running", text).at(self.date(since)).advice(advice))
    }

    /// What it does, or for which try it waits.
    fn of_told(&self, run: &Run) -> Vec<Fact> {
        let now = self.date(self.now);
        let waits = |text: String, until: Date| {
            Fact::new("waiting", format!("{text}, in {}", table::about(now.at.duration_until(until.at)))).at(until)
        };
        let of = |try_num| doing::of_tries(try_num, self.chain.task.max_tries.count());
        let whole = run.until.map(|until| waits(format!("it waits to begin again from its start, {}", of(run.try_num)), until));
        let task = |task: &Task| match (task.until, task.tries.last()) {
            (Some(until), Some(last)) => Some(waits(format!("{} waits to be tried again, {}", task.file, of(last.try_num + 1)), until)),
            (Some(until), None) => Some(waits(format!("{} waits to be tried again", task.file), until)),
            (None, Some(last)) if task.is_going() => {
                Some(Fact::new("task", format!("it is at {}", doing::of_task(task, now))).at(last.started_at))
            }
            (None, Some(_) | None) => None,
        };
        whole.into_iter().chain(run.tasks.iter().filter_map(task)).collect()
    }

    fn of_configuration(&self, findings: Vec<Finding>) -> Vec<Fact> {
        let mut facts = Vec::new();
        let (errors, others) = part_findings(without_repeats(findings), self.settings.strict);
        let suspects = others.iter().filter(|other| is_error(other, true));
        facts.extend(suspects.map(|suspect| Fact::new("suspect", suspect.to_string()).advice("nothing comes of it; runner check")));
        facts.extend(
            errors.iter().map(|error| Fact::new("wrong", error.to_string()).advice("put it right; runner check shows all there is")),
        );
        match self.booked {
            None => facts.push(Fact::new("no_schedule", "it has no schedule: it runs when runner is called").advice("runner run")),
            Some(chain) if !chain.named.enabled => {
                let text = format!("it is not enabled: enabled = no in {}", self.place(&keys::ENABLED.info));
                facts
                    .push(Fact::new("disabled", text).advice(format!("write enabled = yes; once and now: runner now {}", self.chain.name)));
            }
            Some(chain) if chain.named.schedule.is_none() => {
                let advice = format!("write schedule = ...; once and now: runner now {}", self.chain.name);
                facts.push(Fact::new("no_schedule", "it has no schedule").advice(advice));
            }
            Some(_) => {}
        }
        if let Ok(dir) = find_task_dir(None, self.chain) {
            let prepared = prepare(self.config, self.chain.clone(), Vec::new(), &dir);
            let (wrong, _) = part_findings(without_repeats(prepared.findings), self.settings.strict);
            let new: Vec<&Finding> =
                wrong.iter().filter(|wrong| errors.iter().all(|error| error.to_string() != wrong.to_string())).collect();
            facts.extend(new.iter().map(|wrong| {
                Fact::new("refused", format!("it would be refused now: {wrong}")).advice("put it right; runner check shows all there is")
            }));
        }
        facts
    }

    fn of_clock(&self, reading: &mut Reading) -> Result<Option<Fact>, Failure> {
        let Some(built) = BUILT.parse::<Timestamp>().ok().filter(|_| self.booked.is_some()) else { return Ok(None) };
        let newest = reading.newest_time()?;
        let advice = "set the clock; if the stored time is wrong, docs/state.md tells how to forget it";
        Ok(believe(self.now, newest, built).err().map(|why| Fact::new("no_clock", why.to_string()).advice(advice)))
    }

    /// Whether somebody looks at its schedule.
    fn of_firing(&self, reading: &mut Reading) -> Result<Option<Fact>, Failure> {
        let Some(chain) = self.booked.filter(|chain| chain.named.enabled) else { return Ok(None) };
        let Some(schedule) = &chain.schedule else { return Ok(None) };
        let machine = reading.here.machine.clone();
        let marks = reading.watermarks(chain.slots_of(&machine))?;
        let advice = "is runner daemon running (systemctl status runner-daemon), or runner tick called each minute?";
        let Some((_, mark)) = marks.into_iter().find(|(name, _)| name == chain.name()) else {
            return Ok(Some(Fact::new("nobody_looks", "nobody has looked at its schedule yet").advice(advice)));
        };
        let delay = SignedDuration::try_from(chain.policy(&machine).delay).unwrap_or_default();
        let due = schedule.next_after(mark).filter(|slot| slot.checked_add(delay).is_ok_and(|at| at.duration_until(self.now) > OVERLOOKED));
        Ok(due.map(|slot| {
            let text = format!("this slot has passed and nobody has looked at it (missed = {})", self.missed());
            Fact::new("nobody_looks", text).at(Date::new(slot, schedule.zone())).advice(advice)
        }))
    }

    fn missed(&self) -> String {
        Sections::for_chain(self.config, &self.chain.name).of_chain().explain(&keys::MISSED.info).0.to_owned()
    }

    /// What still runs of runs whose process is gone.
    fn of_crashed(&self, runs: &[RunRecord]) -> Vec<Fact> {
        let crashed: Vec<&RunRecord> = runs.iter().filter(|run| run.outcome.as_deref() == Some(CRASHED)).collect();
        let left = if crashed.is_empty() { HashMap::new() } else { still_running() };
        let fact = |run: &&RunRecord| {
            let (words, end) = in_words(left.get(&run.run_id)?);
            let text = format!("the process of its run {} is gone, and {words}", run.run_id);
            Some(
                Fact::new("left_running", text)
                    .at(self.date(run.began))
                    .advice(format!("{end}; where it has a `lock` the next run does that")),
            )
        };
        crashed.iter().filter_map(fact).collect()
    }

    /// Slots that were not run since the last run, and how that one ended.
    fn of_past(&self, runs: &[RunRecord]) -> Vec<Fact> {
        let past = || runs.iter().filter_map(|run| Some((run, ended(run.outcome.as_deref()?))));
        let not_run = past().take_while(|(_, ended)| *ended == Ended::NotStarted).take(NOT_RUN);
        let mut facts: Vec<Fact> = not_run.map(|(run, _)| self.of_not_run(run)).collect();
        if let Some((run, how)) = past().find(|(_, ended)| *ended != Ended::NotStarted) {
            let parts = [run.failed_task.as_deref(), run.message.as_deref()];
            let why: String = parts.into_iter().flatten().map(|part| format!(", {part}")).collect();
            let fact = Fact::new("last_run", format!("its last run: {}{why} (run {})", how.words(), run.run_id))
                .at(self.date(run.ended.unwrap_or(run.began)));
            facts.push(if how == Ended::Done { fact } else { fact.advice(format!("runner show {}", run.run_id)) });
        } else if facts.is_empty() {
            facts.push(Fact::new("never_ran", "no run of it is known"));
        }
        facts
    }

    fn of_not_run(&self, run: &RunRecord) -> Fact {
        let slot = run.scheduled_at.map(|at| format!("the slot {} ", self.date(at).show("%Y-%m-%dT%H:%M:%S%:z"))).unwrap_or_default();
        let why = run.message.as_deref().unwrap_or("nobody knows why");
        let fact = Fact::new("slot_not_run", format!("{slot}was not run: {why}")).at(self.date(run.began));
        match run.outcome.as_deref() {
            Some("skipped") if why.contains("still runs") => {
                fact.advice("overlap = queue lets it wait; a longer time between slots, or a max_time, helps more")
            }
            Some("skipped") => fact,
            Some(_) | None => fact.advice("runner check"),
        }
    }

    fn of_future(&self, reading: &Reading) -> Vec<Fact> {
        let Some(chain) = self.booked.filter(|chain| chain.named.enabled) else { return Vec::new() };
        let Some(schedule) = &chain.schedule else { return Vec::new() };
        let delay = SignedDuration::try_from(chain.policy(&reading.here.machine).delay).unwrap_or_default();
        let mut facts = Vec::new();
        let next = self.now.checked_sub(delay).ok().and_then(|from| schedule.next_after(from));
        if let Some((slot, fires)) = next.and_then(|slot| Some((slot, slot.checked_add(delay).ok()?))) {
            let later = if delay.is_zero() {
                String::new()
            } else {
                format!(", the slot {} and its random_delay", Date::new(slot, schedule.zone()).show("%H:%M:%S"))
            };
            let text = format!("it fires next, in {}{later}", table::about(self.now.duration_until(fires)));
            facts.push(
                Fact::new("next", text).at(Date::new(fires, schedule.zone())).advice(format!("sooner: runner now {}", self.chain.name)),
            );
        }
        if schedule.at_boot() {
            facts.push(Fact::new("at_boot", "it fires once for each start of the machine (@boot)"));
        }
        if chain.named.idle {
            let window = chain.named.window.as_secs();
            facts.push(Fact::new("idle", format!("it is idle: it begins after all others of its minute, and only within {window} s")));
        }
        facts
    }
}

/// Who holds the lock of a chain, as far as its engine can tell.
fn of_lock(lock: &Lock) -> Option<Fact> {
    if let Some(why) = &lock.unknown {
        let advice = "runs are refused while it cannot be asked (exit 74)";
        return Some(Fact::new("lock_unknown", format!("nobody knows who holds its lock: {why}")).advice(advice));
    }
    let (held, holder) = (holder_in_words(lock)?, lock.holder.as_ref()?);
    let run = holder.run_id.as_deref().unwrap_or("unknown");
    let advice = if lock.held_here { format!("runner show {run}") } else { format!("look on {}: runner show {run}", holder.host) };
    Some(Fact::new("lock_held", format!("its lock {} is {held}, by run {run}", lock.name)).at(holder.since).advice(advice))
}
