//! `runner why`: why a chain did not run, or does not run yet, as a list of facts and what to do about each. Changes nothing.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::exit::{Exit, Failure};
use super::lock_view::{holder_in_words, look, needed, waits_for};
use super::outside::judge_all;
use super::prepare::prepare;
use super::settings::{Loaded, Settings, find_chain, find_task_dir, is_error, part_findings, without_repeats};
use super::state::Reading;
use super::table;
use super::variables::local_zone;
use super::watchers::{Watchers, no_clock, overdue};
use super::{crowded, doing, going, left, print, unread, waiting};
use crate::clock::{Clock, SystemClock};
use crate::config::keys::{self, Overlap};
use crate::config::sections::{Lines, Sections, matters_to};
use crate::config::settings::ChainSettings;
use crate::config::{Config, Finding};
use crate::daemon::book::Booked;
use crate::mark;
use crate::names::{MAIN_CHAIN, TaskName, counted};
use crate::process::leftovers::in_words;
use crate::schedule::room::FEWEST;
use crate::status::{Date, Ended, Going, Lock, Run, Task};
use crate::store::HistoryQuery;
use crate::store::record::{REFUSED, RunRecord, SKIPPED};
use crate::task::TaskDir;

/// How many of the last runs are looked at.
const RUNS: u32 = 20;
/// How many reasons for slots that were not run are told.
const NOT_RUN: usize = 3;
/// What is not well, of all that there is to say.
const NOT_WELL: [&str; 11] = [
    "waits_for_lock",
    "lock_unknown",
    "waiting",
    "wrong",
    "refused",
    "no_clock",
    "nobody_looks",
    "no_daemon",
    "slot_not_run",
    "crowded",
    "left_running",
];

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

    /// Whether somebody should look at it.
    fn is_bad(&self) -> bool {
        // How the last run ended, and who holds the lock, has advice where that is not well.
        NOT_WELL.contains(&self.kind) || (["last_run", "lock_held"].contains(&self.kind) && self.advice.is_some())
    }

    fn json(&self) -> Value {
        json!({ "fact": self.kind, "at": self.at, "text": self.text, "advice": self.advice })
    }

    /// The line without the advice.
    fn line(&self) -> String {
        // Which slots they were is in the text; that nobody is there is so now.
        let when = self.at.filter(|_| !["slot_not_run", "no_daemon"].contains(&self.kind));
        let when = when.map(|at| format!("{}  ", at.show("%Y-%m-%dT%H:%M:%S%:z"))).unwrap_or_default();
        format!("{when}{}", table::harmless(&self.text).replace('\n', " "))
    }
}

/// Prints what is known of why a chain does not run; without one, what is not well of all of them.
///
/// # Errors
/// The chain is not known; the state cannot be read; the result cannot be written.
pub fn why(settings: &Settings, word: Option<&str>) -> Result<Exit, Failure> {
    let loaded = settings.load()?;
    if let Some(word) = word.filter(|word| loaded.whole && *word != MAIN_CHAIN) {
        find_chain(&loaded.config, word, &mut Vec::new())?;
    }
    let (told, zone) = (going::look(), local_zone());
    let mut reading = Reading::open(settings)?;
    let told = going::of_state(told, reading.state_dir.as_deref(), reading.database.as_deref(), &zone);
    let mut judged = loaded.findings.clone();
    let booked = judge_all(&loaded.config, &mut judged);
    let unread = unread::chains(loaded.whole, &loaded.config, &booked, &told, &mut reading)?;
    let mut asked: Vec<(ChainSettings, Option<&Booked>)> = booked.iter().map(|chain| (chain.named.chain.clone(), Some(chain))).collect();
    asked.extend(unread.iter().map(|chain| (chain.clone(), None)));
    if word == Some(MAIN_CHAIN) || loaded.chain.task_dir.is_some() {
        asked.push((loaded.chain.clone(), None));
    }
    if let Some(word) = word {
        asked.retain(|(chain, _)| chain.name == word);
        if asked.is_empty() {
            return Err(loaded.cause_of(Failure::Usage(format!("no chain is called `{word}`"))));
        }
    }
    let Loaded { config, whole, .. } = loaded;
    let findings = judged;
    let watchers = Watchers::look(settings, &config, &booked, &mut reading)?;
    let now = SystemClock::new().wall();
    let locks = look(&needed(asked.iter().map(|(chain, _)| chain)), Date::new(now, &zone));
    let mut all: Vec<(String, Vec<Fact>)> = Vec::new();
    for (chain, booked) in &asked {
        let told = told.iter().find(|going| going.chain == chain.name);
        let lock = locks.iter().find(|lock| lock.chains.contains(&chain.name));
        let (config, watchers, zone) = (&config, &watchers, zone.clone());
        let case = Case { settings, config, whole, alone: word.is_some(), chain, booked: *booked, told, lock, watchers, now, zone };
        all.push((chain.name.clone(), case.facts(findings.clone(), &mut reading)?));
    }
    // With an error that hides chains nobody knows of which of them it is to be said.
    let unreadable = if whole { Vec::new() } else { of_errors(settings, findings, &|_| true).1 };
    match (word, settings.json) {
        (Some(word), true) => print::json(&json!({ "version": 1, "chain": word, "facts": facts_as_json(&all[0].1) }))?,
        (Some(word), false) => print::text(&as_text(word, &all[0].1))?,
        (None, true) => {
            let chains: Vec<Value> = all.iter().map(|(name, facts)| json!({ "chain": name, "facts": facts_as_json(facts) })).collect();
            print::json(&json!({ "version": 1, "chains": chains, "configuration": facts_as_json(&unreadable) }))?;
        }
        (None, false) => {
            let count = all.len();
            all.insert(0, ("the configuration".to_owned(), unreadable));
            print::text(&all_as_text(settings, &all, count))?;
        }
    }
    Ok(Exit::Done)
}

fn facts_as_json(facts: &[Fact]) -> Vec<Value> {
    facts.iter().map(Fact::json).collect()
}

fn as_text(chain: &str, facts: &[Fact]) -> String {
    let mut text = format!("{chain}\n");
    let width = table::width().unwrap_or(usize::MAX);
    for fact in facts {
        text.push_str(&table::wrapped(&fact.line(), 2, 4, width));
        if let Some(advice) = &fact.advice {
            text.push_str(&table::wrapped(&format!("-> {advice}"), 6, 9, width));
        }
    }
    text
}

/// What is not well, in a line each; what is said of several chains in the same words only once.
fn all_as_text(settings: &Settings, all: &[(String, Vec<Fact>)], count: usize) -> String {
    let width = table::width().unwrap_or(usize::MAX);
    let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
    for (name, facts) in all {
        for fact in facts.iter().filter(|fact| fact.is_bad()) {
            let line = fact.line();
            match lines.iter_mut().find(|(known, _)| *known == line) {
                Some((_, names)) => names.push(name),
                None => lines.push((line, vec![name])),
            }
        }
    }
    if lines.is_empty() {
        return format!("{}: nothing is known to be wrong\n", counted(count, "chain"));
    }
    let mut text: String =
        lines.iter().map(|(line, names)| table::wrapped(&format!("{}: {line}", names.join(", ")), 0, 4, width)).collect();
    text.push_str(&format!("what to do about it: {}\n", settings.command("why CHAIN")));
    text
}

/// What is wrong in the configuration, and the facts that say so: a line each of what is ours, and one for all the rest.
fn of_errors(settings: &Settings, findings: Vec<Finding>, is_ours: &dyn Fn(&Finding) -> bool) -> (Vec<Finding>, Vec<Fact>) {
    let (errors, others) = part_findings(without_repeats(findings), settings.strict);
    let check = settings.command("check");
    let (ours, others): (Vec<_>, Vec<_>) = others.iter().filter(|other| is_error(other, true)).partition(|other| is_ours(other));
    let suspect = |one: &&Finding| Fact::new("suspect", one.to_string()).advice(format!("nothing comes of it; {check}"));
    let mut facts: Vec<Fact> = ours.iter().map(suspect).collect();
    if !others.is_empty() {
        let text = format!("elsewhere in the configuration, not about this chain: {}", counted(others.len(), "finding"));
        facts.push(Fact::new("suspect", text).advice(format!("{check} names them")));
    }
    // An error of others keeps all of it from being taken over.
    let (ours, others): (Vec<&Finding>, Vec<&Finding>) = errors.iter().partition(|error| is_ours(error));
    let wrong = |text: String| Fact::new("wrong", text).advice(advice_of(settings));
    facts.extend(ours.iter().map(|error| wrong(error.to_string())));
    match others.as_slice() {
        [] => {}
        [only] => facts.push(wrong(only.to_string())),
        [first, ..] => {
            facts.push(wrong(format!("elsewhere in the configuration: {}, the first is {first}", counted(others.len(), "error"))))
        }
    }
    (errors, facts)
}

fn advice_of(settings: &Settings) -> String {
    format!("put it right; {} shows all there is", settings.command("check"))
}

/// The chain that is asked about, and all that is known without the state.
struct Case<'a> {
    settings: &'a Settings,
    config: &'a Config,
    /// Whether it could be read to its end.
    whole: bool,
    /// No other chain is asked about.
    alone: bool,
    chain: &'a ChainSettings,
    booked: Option<&'a Booked>,
    /// A run of it that tells of itself.
    told: Option<&'a Going>,
    /// Its lock, as it is seen now.
    lock: Option<&'a Lock>,
    watchers: &'a Watchers,
    now: Timestamp,
    zone: TimeZone,
}

impl Case<'_> {
    fn facts(&self, findings: Vec<Finding>, reading: &mut Reading) -> Result<Vec<Fact>, Failure> {
        let mut runs = reading.of_chain(&self.chain.name, RUNS)?;
        let (run, running) = self.of_running(&runs, reading).unzip();
        // One whose hook or halt task runs has its record already, and is told of once.
        runs.retain(|known| known.outcome.is_none() || run.as_deref() != Some(&known.run_id));
        let mut facts: Vec<Fact> = running.into_iter().collect();
        facts.extend(self.told.filter(|_| run.is_some()).map(|told| self.of_told(&told.run)).unwrap_or_default());
        facts.extend(self.lock.and_then(|lock| self.of_lock(lock, run.as_deref())));
        facts.extend(self.of_configuration(findings));
        facts.extend(self.of_waiting(reading, run.is_some())?);
        let no_clock = self.of_clock(reading)?;
        let believed = no_clock.is_none();
        facts.extend(no_clock);
        facts.extend(self.of_firing(reading)?);
        facts.extend(self.of_crashed(&runs));
        facts.extend(self.of_past(&runs, run.is_some()));
        facts.extend(self.of_room(runs, reading)?);
        let future = self.of_future(reading, run.is_some());
        // Of a clock that is none no date comes.
        facts.extend(future.into_iter().filter(|fact| believed || fact.kind != "next"));
        Ok(facts)
    }

    fn date(&self, at: Timestamp) -> Date {
        Date::new(at, &self.zone)
    }

    /// The sentence of a key that stands somewhere.
    fn place(&self, key: &keys::KeyInfo) -> String {
        Sections::for_chain(self.config, &self.chain.name).of_chain().explain(key).1.to_string()
    }

    /// The run that goes on, and what is to be said of it.
    fn of_running(&self, runs: &[RunRecord], reading: &Reading) -> Option<(String, Fact)> {
        let open = runs.iter().find(|run| run.outcome.is_none()).map(|run| (run.run_id.clone(), run.pid, run.began));
        let pid_of = |going: &Going| i32::try_from(going.pid).unwrap_or_default();
        // One that ended since it was asked has its record.
        let goes_on = |going: &&Going| going.run.closing.is_some() || runs.iter().all(|run| run.run_id != going.run.id);
        let told = || self.told.filter(goes_on).map(|going| (going.run.id.clone(), pid_of(going), going.run.started_at.at));
        let marked = || {
            let holder = reading.marks.as_ref().and_then(|room| mark::look(room, &self.chain.name));
            holder.map(|holder| (holder.run_id, holder.pid, holder.since))
        };
        let (run, pid, since) = open.or_else(marked).or_else(told)?;
        let closing = self.told.and_then(|going| going.run.closing.as_ref());
        let is_over = closing.is_some() || runs.iter().any(|known| known.run_id == run && known.outcome.is_some());
        if !is_over && self.lock.is_some_and(|lock| waits_for(lock, &run)) {
            let text =
                format!("its lock is asked for, by run {run} of process {pid}, for {}", table::about(since.duration_until(self.now)));
            return Some((run, Fact::new("waits_for_lock", text).at(self.date(since)).advice("wait_lock says how long it waits")));
        }
        let meanwhile = match self.booked.map(|chain| chain.named.overlap) {
            Some(Overlap::Skip) => "; slots that come meanwhile are given up (overlap = skip)",
            Some(Overlap::Queue) => "; one slot that comes meanwhile waits (overlap = queue)",
            Some(Overlap::Replace) if is_over => "; the next slot waits for that",
            Some(Overlap::Replace) => "; the next slot stops it (overlap = replace)",
            None => "",
        };
        let over = if is_over { format!("; it is over but for {}", going::of_closing(closing)) } else { String::new() };
        let text = format!("it runs: run {run} of process {pid}, for {}{over}{meanwhile}", table::about(since.duration_until(self.now)));
        let (show, stop) = (self.settings.command(&format!("show {run}")), self.settings.command(&format!("stop {}", self.chain.name)));
        Some((run, Fact::new("running", text).at(self.date(since)).advice(format!("{show}; to end it: {stop}"))))
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
                let process = task.pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
                Some(Fact::new("task", format!("it is at {}{process}", doing::of_task(task, now))).at(last.started_at))
            }
            (None, Some(_) | None) => None,
        };
        whole.into_iter().chain(run.tasks.iter().filter_map(task)).collect()
    }

    fn of_configuration(&self, findings: Vec<Finding>) -> Vec<Fact> {
        let (lines, tasks) = (Lines::new(self.config), self.task_names());
        let is_ours = |finding: &Finding| {
            let section = lines.section_of(&finding.origin);
            !self.alone || section.is_none_or(|section| matters_to(section, &self.chain.name, &tasks))
        };
        let (errors, mut facts) = of_errors(self.settings, findings, &is_ours);
        match self.booked {
            // What it has may stand in what could not be read.
            None if !self.whole => {}
            None => facts
                .push(Fact::new("no_schedule", "it has no schedule: it runs when runner is called").advice(self.settings.command("run"))),
            Some(chain) if !chain.named.enabled => {
                let text = format!("it is not enabled: enabled = no in {}", self.place(&keys::ENABLED.info));
                facts.push(Fact::new("disabled", text).advice(format!("write enabled = yes; once and now: {}", self.now_command())));
            }
            Some(chain) if chain.named.schedule.is_none() => {
                let advice = format!("write schedule = ...; once and now: {}", self.now_command());
                facts.push(Fact::new("no_schedule", "it has no schedule").advice(advice));
            }
            Some(_) => {}
        }
        if let Ok(dir) = find_task_dir(None, self.chain) {
            let prepared = prepare(self.config, self.chain.clone(), Vec::new(), &dir);
            let (wrong, _) = part_findings(without_repeats(prepared.findings), self.settings.strict);
            let new: Vec<&Finding> =
                wrong.iter().filter(|wrong| errors.iter().all(|error| error.to_string() != wrong.to_string())).collect();
            facts.extend(new.iter().map(|wrong| Fact::new("refused", format!("it would be refused now: {wrong}")).advice(self.check())));
        }
        facts
    }

    /// The names of its tasks, the halt task among them.
    fn task_names(&self) -> Vec<TaskName> {
        let dir = find_task_dir(None, self.chain).ok().filter(|_| self.alone);
        let read = dir.and_then(|dir| TaskDir::read(&dir, None, |_| true).ok());
        read.map(|dir| dir.tasks.into_iter().map(|(name, _)| name).collect()).unwrap_or_default()
    }

    /// The slot that is ours and has not begun.
    fn of_waiting(&self, reading: &mut Reading, runs_now: bool) -> Result<Option<Fact>, Failure> {
        let Some(chain) = self.booked else { return Ok(None) };
        let all = reading.waiting_slots()?;
        let waiting = waiting::of_chain(chain, (&all, self.config), reading, self.now, (self.watchers.daemon, runs_now))?;
        Ok(waiting.map(|waiting| Fact::new("slot_waits", waiting::because(&waiting.text)).at(self.date(waiting.slot))))
    }

    fn of_clock(&self, reading: &mut Reading) -> Result<Option<Fact>, Failure> {
        let why = if self.booked.is_some() { no_clock(self.now, reading)? } else { None };
        let advice = "set the clock; if the stored time is wrong, docs/state.md tells how to forget it";
        Ok(why.map(|why| Fact::new("no_clock", why.to_string()).advice(advice)))
    }

    fn now_command(&self) -> String {
        self.settings.command(&format!("now {}", self.chain.name))
    }

    fn check(&self) -> String {
        advice_of(self.settings)
    }

    /// Whether somebody looks at its schedule.
    fn of_firing(&self, reading: &mut Reading) -> Result<Option<Fact>, Failure> {
        let Some(chain) = self.booked.filter(|chain| chain.named.enabled) else { return Ok(None) };
        let Some(schedule) = &chain.schedule else { return Ok(None) };
        let mark = self.watchers.mark(chain, reading)?;
        let slot = mark.and_then(|mark| overdue(chain, mark, &reading.here.machine, self.now));
        let alone = !self.watchers.daemon && !self.watchers.may_be_elsewhere(chain);
        let text = match (slot, mark) {
            (Some(_), _) if alone => {
                format!("this slot has passed and nobody has looked at it: no daemon runs on this machine (missed = {})", self.missed())
            }
            (Some(_), _) => format!("this slot has passed and nobody has looked at it (missed = {})", self.missed()),
            // It may not have come so far.
            (None, None) if alone && self.watchers.ticking => return Ok(None),
            (None, None) if alone => "nobody has looked at its schedule yet, and no daemon runs on this machine".to_owned(),
            (None, None) => "nobody has looked at its schedule yet".to_owned(),
            // A tick leaves no word where nothing was due: nobody knows whether it was one that looked.
            (None, Some(_)) if alone && !self.watchers.ticks => {
                "no daemon runs on this machine: it fires if `runner tick` is called each minute".to_owned()
            }
            (None, Some(_)) => return Ok(None),
        };
        let is_late = slot.is_some() || mark.is_none();
        let advice = if is_late {
            "is runner daemon running (systemctl status runner-daemon), or runner tick called each minute?"
        } else {
            "where cron or a timer calls runner tick, all is well; else start runner daemon (systemctl status runner-daemon)"
        };
        let at = slot.map(|slot| Date::new(slot, schedule.zone())).or(mark.map(|mark| self.date(mark)));
        // A tick may have looked a minute ago, and leaves no word where nothing was due.
        let kind = if slot.is_none() && mark.is_some() { "no_daemon" } else { "nobody_looks" };
        Ok(Some(Fact { at, ..Fact::new(kind, text).advice(advice) }))
    }

    fn missed(&self) -> String {
        Sections::for_chain(self.config, &self.chain.name).of_chain().explain(&keys::MISSED.info).0.to_owned()
    }

    /// What still runs of runs whose process is gone.
    fn of_crashed(&self, runs: &[RunRecord]) -> Vec<Fact> {
        let fact = |(run, pids): &left::Left<'_>| {
            let (words, end) = in_words(pids);
            let stop = self.settings.command(&format!("stop {}", self.chain.name));
            Fact::new("left_running", format!("the process of its run {} is gone, and {words}", run.run_id))
                .at(self.date(run.began))
                .advice(format!("{stop}, or {end}; where it has a `lock` the next run does that"))
        };
        left::find(runs).iter().map(fact).collect()
    }

    /// Slots that were not run since the last run began, and how the last one that has ended did. `runs_now`: one goes on.
    fn of_past(&self, runs: &[RunRecord], runs_now: bool) -> Vec<Fact> {
        let mut groups: Vec<(&str, Vec<&RunRecord>)> = Vec::new();
        for run in runs.iter().take_while(|run| !run.has_begun()) {
            // Which run it was that still ran is no reason of its own.
            let why = run.message.as_deref().unwrap_or("nobody knows why");
            let why = why.split_once(": run ").map_or(why, |(why, _)| why);
            match groups.iter_mut().find(|(known, _)| *known == why) {
                Some((_, of_reason)) => of_reason.push(run),
                None => groups.push((why, vec![run])),
            }
        }
        let mut facts: Vec<Fact> = groups.iter().take(NOT_RUN).filter_map(|(why, of_reason)| self.of_not_run(why, of_reason)).collect();
        let last = runs.iter().filter(|run| run.has_begun()).find_map(|run| Some((run, Ended::of_record(run.outcome.as_deref()?))));
        if let Some((run, how)) = last {
            let why = how.why(run.failed_task.as_deref(), run.message.as_deref());
            let why = why.map(|why| format!(", {why}")).unwrap_or_default();
            let which = if runs_now { "the run before it" } else { "its last run" };
            let fact = Fact::new("last_run", format!("{which}: {}{why} (run {})", how.words(), run.run_id))
                .at(self.date(run.ended.unwrap_or(run.began)));
            let show = || self.settings.command(&format!("show {}", run.run_id));
            // Of one that is done there is only to be said what its tasks doubt.
            let is_well = how == Ended::Done && run.message.is_none();
            facts.push(if is_well { fact } else { fact.advice(show()) });
        } else if runs_now {
            facts.push(Fact::new("never_ran", "no earlier run of it is known"));
        } else if facts.is_empty() {
            facts.push(Fact::new("never_ran", "no run of it is known"));
        }
        facts
    }

    /// That its slots always find it running.
    fn of_room(&self, runs: Vec<RunRecord>, reading: &mut Reading) -> Result<Option<Fact>, Failure> {
        let Some(chain) = self.booked else { return Ok(None) };
        // Many slots may have been given up for each run.
        let runs = if crowded::lengths(&runs).count() < FEWEST && runs.len() >= RUNS as usize {
            let query = HistoryQuery { chain: Some(self.chain.name.clone()), failed: false, limit: crowded::LOOKED_AT };
            reading.history(&query)?
        } else {
            runs
        };
        let advice = || format!("a longer time between slots, in {}, or tasks that take less", self.place(&keys::SCHEDULE.info));
        Ok(crowded::remark(chain, &runs, self.now).map(|text| Fact::new("crowded", text).advice(advice())))
    }

    /// Slots and runs, the newest first, that came to nothing for the same reason.
    fn of_not_run(&self, why: &str, runs: &[&RunRecord]) -> Option<Fact> {
        let show = |at: Timestamp| self.date(at).show("%Y-%m-%dT%H:%M:%S%:z");
        let last = runs.first()?;
        // A chain without a schedule has no slots, and a run of one that has one may have been asked for by hand.
        let of_slots = runs.iter().filter(|run| run.scheduled_at.is_some()).count();
        let text = match (runs.len(), last.scheduled_at) {
            (1, Some(at)) => format!("the slot {} was not run: {why}", show(at)),
            (1, None) => format!("the run of {} did not begin: {why}", show(last.began)),
            (count, at) => {
                let what = if of_slots == count {
                    "slots"
                } else if of_slots == 0 {
                    "runs"
                } else {
                    "slots and runs"
                };
                let did_not = if of_slots == 0 { "did not begin" } else { "were not run" };
                let last = at.map_or_else(|| format!("that of {}", show(last.began)), |at| format!("the slot {}", show(at)));
                format!("{count} {what} since its last run began {did_not}, the last one was {last}: {why}")
            }
        };
        let fact = Fact::new("slot_not_run", text).at(self.date(last.began));
        let advice = match last.outcome.as_deref() {
            // A tick waits for nothing: what still runs is another's.
            Some(SKIPPED) if why.contains("still runs") && last.trigger == "tick" => {
                Some("a longer time between slots, or a max_time, helps; in a daemon, overlap = queue lets it wait".to_owned())
            }
            Some(SKIPPED) if why.contains("waits already") => Some("a longer time between slots, or a max_time, helps".to_owned()),
            Some(SKIPPED) if why.contains("still runs") => {
                Some("overlap = queue lets it wait; a longer time between slots, or a max_time, helps more".to_owned())
            }
            Some(SKIPPED) if why.contains("has not begun yet") => Some("the run before it waited for its lock: wait_lock".to_owned()),
            Some(SKIPPED) => None,
            Some(REFUSED) if why.contains(" is held") => Some("wait_lock = D lets a run wait for its lock so long".to_owned()),
            Some(_) | None => Some(self.settings.command("check")),
        };
        Some(Fact { advice, ..fact })
    }

    fn of_future(&self, reading: &Reading, runs_now: bool) -> Vec<Fact> {
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
            let about = table::about(self.now.duration_until(fires));
            let alone = !self.watchers.daemon && !self.watchers.may_be_elsewhere(chain);
            let text = if alone { format!("its next slot, in {about}{later}") } else { format!("it fires next, in {about}{later}") };
            let fact = Fact::new("next", text).at(Date::new(fires, schedule.zone()));
            facts.push(if runs_now { fact } else { fact.advice(format!("sooner: {}", self.now_command())) });
        }
        if schedule.at_boot() {
            facts.push(Fact::new("at_boot", "it fires once for each start of the machine (@boot)"));
        }
        if chain.named.idle {
            // `infinity` is a window that does not end.
            let ends = SignedDuration::try_from(chain.named.window).ok();
            let window = ends.map(|window| format!(", and only within {} s", window.as_secs())).unwrap_or_default();
            facts.push(Fact::new("idle", format!("it is idle: it begins after all others of its minute{window}")));
        }
        facts
    }

    /// Who holds its lock, as far as the engine can tell. `run` is the one that goes on.
    fn of_lock(&self, lock: &Lock, run: Option<&str>) -> Option<Fact> {
        if let Some(why) = &lock.unknown {
            let advice = "runs are refused: while it cannot be asked with 74, where it is itself what is wrong with 78";
            return Some(Fact::new("lock_unknown", format!("nobody knows who holds its lock: {why}")).advice(advice));
        }
        let (held, holder) = (holder_in_words(lock)?, lock.holder.as_ref()?);
        let id = holder.run_id.as_deref();
        if id.is_some() && id == run {
            let since = holder.since.show("%Y-%m-%dT%H:%M:%S%:z");
            return Some(Fact::new("lock_held", format!("its lock {} is held by this run since {since}", lock.name)).at(holder.since));
        }
        let fact = Fact::new("lock_held", format!("its lock {} is {held}", lock.name)).at(holder.since);
        let advice = match (id, &holder.command) {
            // `runner lock` leaves no run that could be shown.
            (_, Some(_)) if lock.held_here => format!("it is free when that command ends; to end it: kill {}", holder.pid),
            (_, Some(_)) => format!("it is free when that command ends, on {}", holder.host),
            (Some(run), None) if lock.held_here => self.settings.command(&format!("show {run}")),
            (Some(run), None) => format!("look on {}: runner show {run}", holder.host),
            (None, None) => "no program of ours holds it: look into its engine".to_owned(),
        };
        let text = match (id, &holder.command) {
            (Some(run), None) => format!("{}, by run {run}", fact.text),
            (Some(_) | None, _) => fact.text.clone(),
        };
        Some(Fact { text, ..fact.advice(advice) })
    }
}
