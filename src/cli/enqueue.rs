//! `runner enqueue`: adds jobs to a queue and prints their ids. What was printed is durable.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::json;

use super::exit::{Exit, Failure};
use super::print;
use super::queue_args::{EnqueueArgs, ExistingArg};
use super::queues::queues_of;
use super::settings::Settings;
use super::state::{failure, own_place};
use super::variables::local_zone;
use crate::clock::{Clock, SystemClock};
use crate::config::queues::QueueSettings;
use crate::config::value;
use crate::names::{TaskName, counted, typed_or_all, typed_suggestion};
use crate::queue::{judge_args, judge_task};
use crate::schedule::when;
use crate::store::job::{Existing, NewJob};
use crate::store::wake;
use crate::task::left_over;

/// Adds jobs.
///
/// # Errors
/// What was typed is wrong; the queue is not known; the state cannot be written.
pub fn enqueue(settings: &Settings, args: EnqueueArgs) -> Result<Exit, Failure> {
    let (queues, state) = queues_of(settings)?;
    let place = own_place(&state);
    let jobs = if args.stdin { read_lines(&args)? } else { vec![(None, Line::of(args))] };
    for (_, job) in &jobs {
        refuse_unknown(&queues, job.queue())?;
    }
    let mut store = place.open_quickly().map_err(failure)?;
    let now = store.clock(SystemClock::new().wall()).map_err(failure)?;
    // Most jobs name no time.
    let zone: LazyCell<TimeZone> = LazyCell::new(local_zone);
    let place_of = |number: &Option<u64>| number.map(|number| format!("line {number}: ")).unwrap_or_default();
    let new: Result<Vec<NewJob>, Failure> = jobs
        .iter()
        .map(|(number, line)| line.job(now, &zone).map_err(|why| Failure::Usage(format!("{}{why}", place_of(number)))))
        .collect();
    let ids = store.enqueue(&new?, now).map_err(failure)?;
    wake::ring(&place, false);
    if settings.json {
        print::json(&json!({ "version": 1, "ids": ids }))?;
    } else {
        print::text(&ids.iter().map(|id| format!("{id}\n")).collect::<String>())?;
    }
    warn_of_missing(&queues, jobs.iter().map(|(_, job)| job));
    Ok(Exit::Done)
}

/// Tells of jobs whose task is not there. The worker may well be on another machine, or the task still to come: nothing is
/// refused for it, and where the directory cannot be read here nothing is said. A job that gives its task's file name costs
/// one look; only where that is not there the names of the directory are read.
fn warn_of_missing<'a>(queues: &[QueueSettings], jobs: impl Iterator<Item = &'a Line>) {
    /// A list may hold thousands.
    const TOLD: usize = 3;
    let (mut seen, mut names, mut missing) = (HashSet::new(), HashMap::new(), 0_usize);
    for job in jobs.filter(|job| seen.insert((job.queue(), job.task.as_str()))) {
        let queue = queues.iter().find(|queue| queue.name == job.queue());
        let Some(dir) = queue.and_then(|queue| queue.chain.task_dir.as_deref()) else { continue };
        if dir.join(&job.task).is_file() {
            continue;
        }
        let known: &Option<Vec<TaskName>> = names.entry(dir).or_insert_with(|| names_in(dir));
        let Some(known) = known.as_ref().filter(|known| known.iter().all(|name| !name.answers_to(&job.task))) else { continue };
        missing += 1;
        if missing <= TOLD {
            let near = typed_suggestion(&job.task, known.iter().flat_map(|name| [name.short(), name.text()]));
            let dir = dir.display();
            log::warn!("no task in {dir} is called `{}`: its job fails where the worker has none either{near}", job.task);
        }
    }
    if missing > TOLD {
        log::warn!("so it is with {} more", counted(missing - TOLD, "task"));
    }
}

/// The names of a directory that may be tasks; `None` where it cannot be read.
fn names_in(dir: &Path) -> Option<Vec<TaskName>> {
    let names = fs::read_dir(dir).ok()?.map(|entry| entry.map(|entry| TaskName::parse(entry.file_name())));
    let names = names.collect::<Result<Vec<_>, _>>().ok()?;
    Some(names.into_iter().filter(|name| !name.text().starts_with('.') && left_over(name.text()).is_none()).collect())
}

fn refuse_unknown(queues: &[QueueSettings], name: &str) -> Result<(), Failure> {
    if queues.iter().any(|queue| queue.name == name) {
        return Ok(());
    }
    let near = typed_or_all(name, queues.iter().map(|queue| queue.name.as_str()));
    Err(Failure::Usage(format!("no queue is called `{name}`: there is no section [queue:{name}] with a task_dir{near}")))
}

/// A job as it is typed, or as a line of standard input says it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    task: String,
    #[serde(default)]
    args: Vec<String>,
    queue: Option<String>,
    #[serde(rename = "in")]
    after: Option<String>,
    at: Option<String>,
    #[serde(default)]
    priority: Option<i64>,
    repeat: Option<String>,
    repeat_until: Option<String>,
    name: Option<String>,
    creator: Option<String>,
    key: Option<String>,
    existing: Option<String>,
    max_attempts: Option<u32>,
}

/// Standard input, line by line with their numbers; what was typed beside --stdin holds where a line does not say it.
fn read_lines(args: &EnqueueArgs) -> Result<Vec<(Option<u64>, Line)>, Failure> {
    let mut text = String::new();
    std::io::stdin().lock().read_to_string(&mut text).map_err(|error| Failure::Usage(format!("standard input: {error}")))?;
    let lines = text.lines().zip(1_u64..).filter(|(line, _)| !line.trim().is_empty());
    lines
        .map(|(line, number)| {
            let mut job: Line = serde_json::from_str(line).map_err(|error| unreadable(number, &error))?;
            job.queue.get_or_insert_with(|| args.queue.clone());
            job.priority.get_or_insert(args.priority);
            job.creator = job.creator.or_else(|| args.creator.clone());
            Ok((Some(number), job))
        })
        .collect()
}

/// A line that is no job. Where in it that is seen is said once: each line is a document of its own to its reader.
fn unreadable(number: u64, error: &serde_json::Error) -> Failure {
    let (text, column) = (error.to_string(), error.column());
    let what = text.strip_suffix(&format!(" at line {} column {column}", error.line())).unwrap_or(&text);
    let form = r#"expected a JSON object, such as {"task": "NAME", "args": ["WORD"]}"#;
    Failure::Usage(format!("standard input, line {number}, column {column}: {what}; {form}"))
}

impl Line {
    fn of(args: EnqueueArgs) -> Self {
        let mut words = args.task.into_iter();
        let existing = args.existing.map(|existing| match existing {
            ExistingArg::Keep => "keep",
            ExistingArg::Reschedule => "reschedule",
            ExistingArg::Replace => "replace",
            ExistingArg::Add => "add",
        });
        Self {
            task: words.next().unwrap_or_default(),
            args: words.collect(),
            queue: Some(args.queue),
            after: args.after,
            at: args.at,
            priority: Some(args.priority),
            repeat: args.repeat,
            repeat_until: args.repeat_until,
            name: args.name,
            creator: args.creator,
            key: args.key,
            existing: existing.map(str::to_owned),
            max_attempts: args.max_attempts,
        }
    }

    fn queue(&self) -> &str {
        self.queue.as_deref().unwrap_or("default")
    }

    fn job(&self, now: Timestamp, zone: &LazyCell<TimeZone>) -> Result<NewJob, String> {
        judge_task(&self.task).map_err(|expected| format!("`{}`: {expected}", self.task))?;
        judge_args(&self.args)?;
        let time = |text: &String| when(text, now, zone).map_err(|error| error.to_string());
        let due = match (&self.after, &self.at) {
            (Some(_), Some(_)) => return Err("`in` and `at` exclude each other".to_owned()),
            (Some(after), None) => {
                value::duration(after).map_err(|expected| format!("in = {after}: {expected}"))?;
                // The same in every zone.
                Some(when(&format!("+{after}"), now, &TimeZone::UTC).map_err(|error| error.to_string())?)
            }
            (None, Some(at)) => Some(time(at)?),
            (None, None) => None,
        };
        let repeat = self.repeat.as_deref().map(every).transpose()?;
        let existing = match self.existing.as_deref() {
            None => None,
            Some("keep") => Some(Existing::Keep),
            Some("reschedule") => Some(Existing::Reschedule),
            Some("replace") => Some(Existing::Replace),
            Some("add") => Some(Existing::Add),
            Some(word) => return Err(format!("existing = {word}: expected keep, reschedule, replace or add")),
        };
        let equal = || existing.map(|_| json!([self.task, self.args]).to_string());
        Ok(NewJob {
            queue: self.queue().to_owned(),
            task: self.task.clone(),
            args: self.args.clone(),
            name: self.name.clone(),
            creator: self.creator.clone(),
            key: self.key.clone().or_else(equal),
            existing: existing.unwrap_or_default(),
            priority: self.priority.unwrap_or(0),
            due,
            repeat,
            repeat_until: self.repeat_until.as_ref().map(time).transpose()?,
            max_attempts: self.max_attempts,
        })
    }
}

fn every(text: &str) -> Result<Duration, String> {
    let every = value::finite(text).map_err(|expected| format!("repeat = {text}: {expected}"))?;
    if every < Duration::from_secs(1) {
        return Err(format!("repeat = {text}: expected at least one second"));
    }
    Ok(every)
}
