//! `runner status`: how chains stand, from the database, the marks of chains that run, and the schedules. Changes nothing.

use std::io::IsTerminal;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use super::exit::{Exit, Failure};
use super::lock_view::{holder_in_words, look, needed, waits_for};
use super::outside::judge_all;
use super::prepare::refuse_errors;
use super::queue_status;
use super::schedule::rules;
use super::settings::{Loaded, Settings, is_error, without_repeats};
use super::state::Reading;
use super::status_text::as_text;
use super::table;
use super::variables::local_zone;
use super::{going, print, unread, waiting, watchers};
use crate::clock::{Clock, SystemClock};
use crate::config::queues::{self, QueueSettings};
use crate::config::settings::ChainSettings;
use crate::config::{Config, Finding, Origin, value};
use crate::daemon::book::Booked;
use crate::mark;
use crate::names::{MAIN_CHAIN, counted, typed_suggestion};
use crate::push::target::sign_of_life;
use crate::status::{Chain, Configuration, Date, Going, Lock, Queue, RefusedConfiguration, Run, Status, Totals, VERSION, is_ahead};
use crate::store::past::{self, Known};
use crate::store::record::RunRecord;
use crate::store::{HistoryQuery, Owner};
use crate::worker::max_attempts;

/// How many of the next slots are told.
const SLOTS: usize = 3;
/// How often `--watch` looks whether something has changed.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// What was typed.
#[derive(Debug, Default)]
pub struct Question {
    /// The chains; all of them when none is named.
    pub chains: Vec<String>,
    /// `--max-age`.
    pub max_age: Option<String>,
    /// `--watch`.
    pub watch: bool,
}

/// Prints how chains stand, or whether they ran lately.
///
/// # Errors
/// A chain is not known; the state cannot be read; the result cannot be written.
pub fn status(settings: &Settings, question: &Question) -> Result<Exit, Failure> {
    if let Some(text) = &question.max_age {
        let most = value::duration(text).map_err(|expected| Failure::Usage(format!("--max-age {text}: {expected}")))?;
        return age(settings, question, most);
    }
    let terminal = std::io::stdout().is_terminal();
    if question.watch && (terminal || settings.json) {
        return watch(settings, question, terminal && !settings.json);
    }
    let status = collect(settings, &question.chains)?;
    if settings.json {
        print::json(&as_json(&status))?;
    } else {
        tell_wrong(settings, &status)?;
        print::text(&as_text(&status, settings))?;
    }
    Ok(Exit::Done)
}

fn as_json(status: &Status) -> serde_json::Value {
    serde_json::to_value(status).unwrap_or_default()
}

fn tell_wrong(settings: &Settings, status: &Status) -> Result<(), Failure> {
    if let Some(refused) = &status.configuration.refused {
        log::warn!("the configuration has errors, a daemon would not take it over: {}", refused.message.replace('\n', "; "));
        return Ok(());
    }
    // A daemon takes these as they are, and whoever wrote them believes that they count.
    let findings = without_repeats(settings.load()?.findings);
    let suspect: Vec<String> = findings.iter().filter(|one| is_error(one, true)).map(ToString::to_string).collect();
    if !suspect.is_empty() {
        log::warn!("the configuration looks wrong, see runner check: {}", suspect.join("; "));
    }
    Ok(())
}

// ---- again and again -------------------------------------------------------------------------------

/// Shows it whenever it has changed: on a terminal in place, as JSON a line each. A signal ends it, and whoever read it by going away.
fn watch(settings: &Settings, question: &Question, in_place: bool) -> Result<Exit, Failure> {
    let mut before: Option<String> = None;
    loop {
        let status = collect(settings, &question.chains)?;
        let shown = if in_place { as_text(&status, settings) } else { without_times(&status) };
        if before.as_ref() != Some(&shown) {
            if in_place {
                // Cursor to the first place, and everything behind it erased (ECMA-48, CUP and ED).
                print::text(&format!("\u{1b}[H\u{1b}[J{}", on_screen(&shown, table::height())))?;
            } else {
                print::text(&format!("{}\n", as_json(&status)))?;
            }
            before = Some(shown);
        }
        let stdout = std::io::stdout();
        let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
        if poll(&mut fds, Some(&LOOK_AGAIN)).is_ok_and(|ready| ready > 0) {
            return Ok(Exit::Done);
        }
    }
}

/// As much as the screen has lines for: the last one is left to the cursor.
fn on_screen(text: &str, height: Option<usize>) -> String {
    let lines = text.lines().count();
    let Some(room) = height.map(|height| height - 1).filter(|room| *room < lines) else { return text.to_owned() };
    let shown: String = text.split_inclusive('\n').take(room - 1).collect();
    format!("{shown}… {} more; name the chains you want to see\n", counted(lines + 1 - room, "line"))
}

/// What stays the same as long as nothing happens.
fn without_times(status: &Status) -> String {
    let mut value = as_json(status);
    value["time"].take();
    value["configuration"].take();
    value.to_string()
}

// ---- --max-age -------------------------------------------------------------------------------------

fn age(settings: &Settings, question: &Question, most: Duration) -> Result<Exit, Failure> {
    let mut status = collect(settings, &question.chains)?;
    add_signs_of_life(settings, &mut status)?;
    let named = !question.chains.is_empty();
    let others = status.chains.iter().any(|chain| chain.name != MAIN_CHAIN && chain.enabled);
    let asked = |chain: &&Chain| named || if others { chain.enabled && chain.name != MAIN_CHAIN } else { chain.name == MAIN_CHAIN };
    let now = status.time.at;
    let most = SignedDuration::try_from(most).unwrap_or(SignedDuration::MAX);
    let age_of = |chain: &Chain| chain.last_success.map(|last| last.at.duration_until(now));
    // One that is dated far ahead is from a clock that was wrong: nobody knows its age, and it must not count until then.
    let is_fresh = |chain: &Chain| age_of(chain).is_some_and(|age| age.abs() < most);
    let chains: Vec<&Chain> = status.chains.iter().filter(asked).collect();
    let fresh = !chains.is_empty() && chains.iter().all(|chain| is_fresh(chain));
    if settings.json {
        let list: Vec<_> = chains
            .iter()
            .map(|chain| json!({ "name": chain.name, "last_success": chain.last_success, "age_s": age_of(chain).map(|age| age.as_secs()), "fresh": is_fresh(chain) }))
            .collect();
        // JSON has no word for `infinity`.
        let most = Some(most).filter(|most| *most < SignedDuration::MAX).map(|most| most.as_secs());
        print::json(&json!({ "version": 1, "max_age_s": most, "fresh": fresh, "chains": list }))?;
    } else {
        let mut text = String::new();
        for chain in chains.iter().filter(|chain| !is_fresh(chain)) {
            let said = match (chain.last_success, age_of(chain)) {
                (Some(last), Some(age)) if age.is_negative() => {
                    format!("its last success is dated {} ahead of the clock ({last})", table::about(age.abs()))
                }
                (Some(last), Some(age)) => format!("its last success is {} old ({last})", table::about(age)),
                _ => "no success of it is known".to_owned(),
            };
            text.push_str(&format!("{}: {said}\n", chain.name));
        }
        if chains.is_empty() {
            text.push_str("there is no chain that is enabled\n");
        }
        print::text(&text)?;
    }
    Ok(if fresh { Exit::Done } else { Exit::GaveUp })
}

/// Where a liveness file tells of a later success than the history, which may be forgotten, or not kept at all.
fn add_signs_of_life(settings: &Settings, status: &mut Status) -> Result<(), Failure> {
    let Some(file) = settings.load()?.push.file else { return Ok(()) };
    let zone = local_zone();
    for chain in &mut status.chains {
        let now = status.time.at;
        let is_news = |at: &Timestamp| chain.last_success.is_none_or(|last| last.at < *at || is_ahead(last.at, now));
        let sign = sign_of_life(&file, &chain.name).filter(is_news);
        chain.last_success = sign.map(|at| Date::new(at, &zone)).or(chain.last_success);
    }
    Ok(())
}

// ---- what is known ---------------------------------------------------------------------------------

fn collect(settings: &Settings, words: &[String]) -> Result<Status, Failure> {
    let Loaded { config, chain: main, mut findings, whole, .. } = settings.load()?;
    let booked = judge_all(&config, &mut findings);
    let unknown = |others: &[ChainSettings]| {
        let names = || booked.iter().map(Booked::name).chain(others.iter().map(|chain| chain.name.as_str())).chain([MAIN_CHAIN]);
        let word = words.iter().find(|word| names().all(|name| name != word.as_str()))?;
        Some(Failure::Usage(format!("no chain is called `{word}`{}", typed_suggestion(word, names()))))
    };
    if let Some(failure) = unknown(&[]).filter(|_| whole) {
        return Err(failure);
    }
    let going = going::look();
    let mut reading = Reading::open(settings)?;
    let (now, zone) = (SystemClock::new().wall(), local_zone());
    let going = going::of_state(going, reading.state_dir.as_deref(), reading.database.as_deref(), &zone);
    let unread = unread::chains(whole, &config, &booked, &going, &mut reading)?;
    if let Some(failure) = unknown(&unread) {
        refuse_errors(settings, findings)?;
        return Err(failure);
    }
    let time = Date::new(now, &zone);
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| word == name);
    let mut chains = Vec::new();
    if wanted(MAIN_CHAIN) {
        let chain = Look { settings: &main, booked: None, now, zone: &zone, going: &going }.chain(&mut reading)?;
        if main.task_dir.is_some() || !chain.runs.is_empty() || !words.is_empty() {
            chains.push(chain);
        }
    }
    for chain in booked.iter().filter(|chain| wanted(chain.name())) {
        chains.push(Look { settings: &chain.named.chain, booked: Some(chain), now, zone: &zone, going: &going }.chain(&mut reading)?);
    }
    for chain in unread.iter().filter(|chain| wanted(&chain.name)) {
        chains.push(Look { settings: chain, booked: None, now, zone: &zone, going: &going }.chain(&mut reading)?);
    }
    chains.sort_by(|a, b| a.name.cmp(&b.name));
    let named = booked.iter().map(|chain| &chain.named.chain);
    let locks = needed([&main].into_iter().chain(named).filter(|chain| wanted(&chain.name)));
    let locks = look(&locks, time);
    for chain in &mut chains {
        part_waiting(chain, &locks);
    }
    let watchers = watchers::Watchers::look(settings, &config, &booked, &mut reading)?;
    let slots = reading.waiting_slots()?;
    for chain in chains.iter_mut().filter(|chain| slots.iter().any(|slot| slot.claim.key.chain == chain.name)) {
        let Some(booked) = booked.iter().find(|booked| booked.name() == chain.name) else { continue };
        if let Some(waiting) =
            waiting::of_chain(booked, (&slots, &config), &mut reading, now, (watchers.daemon, !chain.running.is_empty()))?
        {
            chain.waits_because = Some(waiting::because(&waiting.text));
        }
    }
    let file = settings.config_file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
    // Whoever asks for chains by their names is told of these.
    let queues = if words.is_empty() { queues(&config, &mut reading, now, &zone)? } else { Vec::new() };
    let watched: Vec<&Booked> = booked.iter().filter(|chain| wanted(chain.name())).collect();
    let remarks = watchers.remarks(&watched, &queues, &mut reading, time)?;
    let fires = booked.iter().any(|chain| wanted(chain.name()) && chain.named.enabled && chain.schedule.is_some());
    let no_clock = if fires { watchers::no_clock(now, &mut reading)? } else { None };
    let mut status = Status {
        version: VERSION,
        host: reading.here.host.clone(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        time,
        since: None,
        configuration: Configuration { file, loaded_at: time, refused: refused(findings, settings.strict, time) },
        chains,
        queues,
        locks,
        remarks,
    };
    if let Some(why) = no_clock {
        status.without_clock(&why.to_string());
    }
    Ok(status)
}

/// A run that was written down as begun, and under whose id nobody holds the lock, waits for it.
fn part_waiting(chain: &mut Chain, locks: &[Lock]) {
    let Some(lock) = locks.iter().find(|lock| lock.chains.contains(&chain.name)) else { return };
    let waits = |run: &Run| run.outcome.is_none() && waits_for(lock, &run.id);
    let Some(run) = chain.running.iter().find(|run| waits(run)) else { return };
    let held = holder_in_words(lock).unwrap_or_else(|| "which is free just now".to_owned());
    let why = format!("run {} waits for its lock {}, {held}", run.id, lock.name);
    chain.running.retain(|run| !waits(run));
    chain.waits_because = Some(why);
}

/// The queues of the configuration with all jobs that run, whoever runs them. The database is asked only if there are any.
fn queues(config: &Config, reading: &mut Reading, now: Timestamp, zone: &TimeZone) -> Result<Vec<Queue>, Failure> {
    let mut queues = queues::read_all(config, &mut Vec::new());
    if queues.is_empty() {
        return Ok(Vec::new());
    }
    queues.sort_by(|a, b| a.name.cmp(&b.name));
    let (counts, running) = reading.jobs(now)?;
    let of_queue = |queue: &QueueSettings| {
        let own = running.iter().filter(|job| job.queue == queue.name);
        let jobs = own.map(|job| queue_status::running(job, max_attempts(job, queue), zone, now)).collect();
        Queue { jobs, ..queue_status::depths(&queue.name, &counts, zone) }
    };
    Ok(queues.iter().map(of_queue).collect())
}

fn refused(findings: Vec<Finding>, strict: bool, at: Date) -> Option<RefusedConfiguration> {
    let errors: Vec<Finding> = without_repeats(findings).into_iter().filter(|finding| is_error(finding, strict)).collect();
    let (file, line) = match &errors.first()?.origin {
        Origin::File { file, line } => (Some(file.display().to_string()), Some(*line)),
        Origin::Default | Origin::CommandLine => (None, None),
    };
    let message = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    Some(RefusedConfiguration { at, message, file, line })
}

/// A look at one chain.
struct Look<'a> {
    settings: &'a ChainSettings,
    booked: Option<&'a Booked>,
    now: Timestamp,
    zone: &'a TimeZone,
    /// The runs that tell of themselves.
    going: &'a [Going],
}

impl Look<'_> {
    fn chain(&self, reading: &mut Reading) -> Result<Chain, Failure> {
        let name = &self.settings.name;
        let query = |limit| HistoryQuery { chain: Some(name.clone()), failed: false, limit };
        let known = Known::read(self.now, |limit| reading.history(&query(limit)))?;
        let mut running: Vec<Run> = known.going.iter().map(|run| self.run(run)).collect();
        running.extend(self.marked(reading, &known.ended).filter(|run| running.iter().all(|known| known.id != run.id)));
        self.add_told(&mut running, &known.ended);
        // One whose hook or halt task runs has its record already, and is told of once.
        let is_past = |run: &&RunRecord| running.iter().all(|going| going.id != run.run_id);
        let runs = known.told().filter(is_past).map(|run| self.run(run)).collect();
        let given_up = known.given_up(running.iter().map(|run| run.started_at.at).max(), self.zone);
        let schedule = self.booked.and_then(|chain| chain.schedule.as_ref());
        Ok(Chain {
            name: name.clone(),
            enabled: self.booked.is_none_or(|chain| chain.named.enabled),
            schedule: schedule.map(|schedule| rules(schedule.text())).unwrap_or_default(),
            timezone: self.booked.and_then(|chain| chain.named.timezone.clone()),
            next: self.next(&reading.here),
            waits_because: self.booked.filter(|chain| !chain.named.enabled).map(|_| "not enabled".to_owned()),
            runs,
            running,
            last_success: known.last_success.map(|at| Date::new(at, self.zone)),
            totals: Totals::default(),
            given_up,
        })
    }

    /// What runs tell of themselves is more than what is written of them; one that ended meanwhile has its record.
    fn add_told(&self, running: &mut Vec<Run>, ended: &[RunRecord]) {
        let ours = self.going.iter().filter(|going| going.chain == self.settings.name).map(|going| &going.run);
        for told in ours {
            let told = match (ended.iter().find(|run| run.run_id == told.id), &told.closing) {
                (None, _) => told.clone().with_tries(self.settings.task.max_tries.count()),
                (Some(record), Some(closing)) => Run { closing: Some(closing.clone()), ..self.run(record) },
                (Some(_), None) => continue,
            };
            match running.iter_mut().find(|known| known.id == told.id) {
                Some(known) => *known = told,
                None => running.push(told),
            }
        }
        // Whoever looks at the first sees one that works, where there is one.
        running.sort_by_key(|run| run.closing.is_some());
    }

    /// When it fires next.
    fn next(&self, here: &Owner) -> Vec<Date> {
        let Some((booked, schedule)) =
            self.booked.filter(|chain| chain.named.enabled).and_then(|chain| Some((chain, chain.schedule.as_ref()?)))
        else {
            return Vec::new();
        };
        let delay = SignedDuration::try_from(booked.policy(&here.machine).delay).unwrap_or_default();
        let from = self.now.checked_sub(delay).unwrap_or(self.now);
        let fires = schedule.slots_after(from).filter_map(|slot| slot.checked_add(delay).ok());
        fires.take(SLOTS).map(|at| Date::new(at, schedule.zone())).collect()
    }

    /// The run that has the mark of the chain: one of `now` stands in no database yet.
    fn marked(&self, reading: &Reading, ended: &[RunRecord]) -> Option<Run> {
        let holder = mark::look(reading.marks.as_ref()?, &self.settings.name)?;
        if let Some(record) = ended.iter().find(|run| run.run_id == holder.run_id) {
            return Some(self.run(record));
        }
        let started_at = Date::new(holder.since, self.zone);
        Some(Run { started_at, ..self.blank(holder.run_id, "now") })
    }

    fn blank(&self, id: String, trigger: &str) -> Run {
        Run {
            id,
            trigger: trigger.to_owned(),
            scheduled_at: None,
            started_at: Date::new(self.now, self.zone),
            ended_at: None,
            outcome: None,
            why: None,
            exit_code: None,
            said: None,
            try_num: 1,
            max_tries: self.settings.task.max_tries.count(),
            until: None,
            closing: None,
            tasks: Vec::new(),
        }
    }

    fn run(&self, record: &RunRecord) -> Run {
        past::shown(record, self.settings.task.max_tries.count(), self.zone)
    }
}
