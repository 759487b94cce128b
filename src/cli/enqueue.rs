//! `runner enqueue`: adds jobs to a queue and prints their ids. What was printed is durable.

use std::io::Read;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::json;

use super::exit::{Exit, Failure};
use super::print;
use super::queue::queues_of;
use super::queue_args::{EnqueueArgs, ExistingArg};
use super::settings::{Settings, own_variable};
use super::state::{failure, own_place};
use crate::clock::{Clock, SystemClock};
use crate::config::queues::QueueSettings;
use crate::config::value;
use crate::names::suggestion;
use crate::queue::{judge_args, judge_task};
use crate::schedule::when;
use crate::store::job::{Existing, NewJob};
use crate::store::wake;
use crate::zone;

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
    let zone = zone::local(own_variable("TZ").as_deref());
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
    Ok(Exit::Done)
}

fn refuse_unknown(queues: &[QueueSettings], name: &str) -> Result<(), Failure> {
    if queues.iter().any(|queue| queue.name == name) {
        return Ok(());
    }
    let near = suggestion(name, queues.iter().map(|queue| queue.name.as_str()));
    Err(Failure::Usage(format!("no queue is called `{name}`{near}; a queue has a section [queue:{name}] with a task_dir")))
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
            let mut job: Line = serde_json::from_str(line).map_err(|error| Failure::Usage(format!("line {number}: {error}")))?;
            job.queue.get_or_insert_with(|| args.queue.clone());
            job.priority.get_or_insert(args.priority);
            job.creator = job.creator.or_else(|| args.creator.clone());
            Ok((Some(number), job))
        })
        .collect()
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

    fn job(&self, now: Timestamp, zone: &TimeZone) -> Result<NewJob, String> {
        judge_task(&self.task).map_err(|expected| format!("`{}`: {expected}", self.task))?;
        judge_args(&self.args)?;
        let time = |text: &String| when(text, now, zone).map_err(|error| error.to_string());
        let due = match (&self.after, &self.at) {
            (Some(_), Some(_)) => return Err("`in` and `at` exclude each other".to_owned()),
            (Some(after), None) => Some(time(&format!("+{after}"))?),
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
    let every = value::duration(text).map_err(|expected| format!("repeat = {text}: {expected}"))?;
    if every < Duration::from_secs(1) || every == Duration::MAX {
        return Err(format!("repeat = {text}: expected at least one second"));
    }
    Ok(every)
}
