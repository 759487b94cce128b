//! `runner queue`: the jobs of queues, shown and looked after.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::exit::{Exit, Failure};
use super::print;
use super::queue_args::{QueueCommand, StateArg};
use super::queues::queues_of;
use super::settings::Settings;
use super::state::{failure, own_place};
use super::table::{self, Table, harmless};
use super::variables::local_zone;
use super::work;
use crate::clock::{Clock, SystemClock};
use crate::config::queues::QueueSettings;
use crate::names::{counted, typed_or_all};
use crate::outcome::{Verdict, signal_name};
use crate::queue::JobState;
use crate::store::job::{JobQuery, JobRecord, Kept, QueueCount};
use crate::store::open::Place;
use crate::store::{Store, StoreError, wake};
use crate::worker::max_attempts;

/// How many failed jobs begin anew at once.
const RETRIED_AT_ONCE: u32 = 100_000;
/// How many jobs are forgotten in one transaction.
const PRUNED_AT_ONCE: u32 = 1000;

/// Does what was asked for.
///
/// # Errors
/// The state cannot be read or written; a job is not known.
pub fn queue(settings: &Settings, command: QueueCommand) -> Result<Exit, Failure> {
    if let QueueCommand::Run { id } = command {
        return work::run_one(settings, id);
    }
    let (queues, state) = queues_of(settings)?;
    let place = own_place(&state);
    let now = SystemClock::new().wall();
    match command {
        QueueCommand::List { queue, state, count } => {
            let mut store = reading(&place)?;
            if let Some(queue) = &queue {
                refuse_unknown(&queues, queue, store.as_deref_mut(), now)?;
            }
            let query = JobQuery { queue, state: state.map(state_of), limit: count, now };
            let jobs = store.map(|mut store| store.jobs(&query)).transpose().map_err(failure)?;
            if jobs.as_ref().is_some_and(Vec::is_empty) && !settings.json {
                log::info!("{}", none_of(&query));
            }
            list(settings, &queues, &jobs.unwrap_or_default(), now)?;
        }
        QueueCommand::Show { id } => show(settings, &place, &queues, (id, now))?,
        QueueCommand::Cancel { ids } => return cancel(settings, &place, &ids, now),
        QueueCommand::Retry { ids, failed, queue } => {
            if let Some(queue) = &queue {
                refuse_unknown(&queues, queue, reading(&place)?.as_deref_mut(), now)?;
            }
            return retry(settings, &place, (ids, failed, queue), now);
        }
        QueueCommand::Prune => prune(settings, &place, &queues, now)?,
        QueueCommand::Stats => stats(settings, &place, &queues, now)?,
        QueueCommand::Run { .. } => {}
    }
    Ok(Exit::Done)
}

/// A queue that is neither configured nor has a job is a slip.
fn refuse_unknown(queues: &[QueueSettings], name: &str, store: Option<&mut (dyn Store + 'static)>, now: Timestamp) -> Result<(), Failure> {
    if queues.iter().any(|queue| queue.name == name) {
        return Ok(());
    }
    let counts = store.map_or(Ok(Vec::new()), |store| store.count_jobs(now)).map_err(failure)?;
    let known = || queues.iter().map(|queue| queue.name.as_str()).chain(counts.iter().map(|count| count.queue.as_str()));
    if known().any(|known| known == name) {
        return Ok(());
    }
    Err(Failure::Usage(format!("no queue is called `{name}`{}", typed_or_all(name, known()))))
}

/// How often it was tried, of how often it is.
fn attempts(job: &JobRecord, queues: &[QueueSettings]) -> String {
    let of_queue = queues.iter().find(|queue| queue.name == job.queue).map(|queue| max_attempts(job, queue));
    let most = of_queue.or(job.max_attempts).filter(|most| *most != 0 && *most != u32::MAX);
    most.map_or_else(|| job.attempts.to_string(), |most| format!("{} of {most}", job.attempts))
}

/// How its last attempt ended.
fn result(job: &JobRecord) -> String {
    let parts = [job.result.clone(), job.message.clone(), job.signal.map(signal_name)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The database; none where nobody has made one yet, and the first job would.
fn reading(place: &Place) -> Result<Option<Box<dyn Store>>, Failure> {
    match place.open_to_read() {
        Ok(store) => Ok(Some(store)),
        Err(StoreError::Absent { database }) => {
            place.could_be_made().map_err(failure)?;
            log::info!("{database}: no job has been added yet");
            Ok(None)
        }
        Err(error) => Err(failure(error)),
    }
}

fn state_of(arg: StateArg) -> JobState {
    match arg {
        StateArg::Scheduled => JobState::Scheduled,
        StateArg::Ready => JobState::Ready,
        StateArg::Running => JobState::Running,
        StateArg::Done => JobState::Done,
        StateArg::Failed => JobState::Failed,
        StateArg::Cancelled => JobState::Cancelled,
    }
}

/// A job as JSON; version 1.
fn as_json(job: &JobRecord, now: Timestamp) -> Value {
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    let args: Value = serde_json::from_str(&job.args).unwrap_or(Value::String(job.args.clone()));
    json!({
        "id": job.id, "queue": job.queue, "task": job.task, "args": args, "name": job.name, "creator": job.creator, "key": job.key,
        "state": job.state(now).word(), "priority": job.priority, "due": job.due.to_string(), "planned": job.planned().to_string(),
        "repeat_ms": job.repeat_ms, "repeat_until": time(job.repeat_until), "attempts": job.attempts, "max_attempts": job.max_attempts,
        "created": job.created.to_string(), "host": job.host, "pid": job.pid, "run_id": job.claim, "began": time(job.began),
        "ended": time(job.ended), "result": job.result, "exit_code": job.exit_code, "signal": job.signal, "message": job.message,
        "last_error": job.last_error,
    })
}

fn words(job: &JobRecord) -> String {
    let args: Vec<String> = serde_json::from_str(&job.args).unwrap_or_else(|_| vec![job.args.clone()]);
    std::iter::once(job.task.clone()).chain(args).collect::<Vec<_>>().join(" ")
}

/// That there is no job, of those that were asked for.
fn none_of(query: &JobQuery) -> String {
    let of = query.queue.as_ref().map(|queue| format!(" of the queue {queue}")).unwrap_or_default();
    let which = query.state.map(|state| format!(" that is {}", state.word())).unwrap_or_default();
    format!("there is no job{of}{which}")
}

fn list(settings: &Settings, queues: &[QueueSettings], jobs: &[JobRecord], now: Timestamp) -> Result<(), Failure> {
    if settings.json {
        let jobs: Vec<Value> = jobs.iter().map(|job| as_json(job, now)).collect();
        return print::json(&json!({ "version": 1, "jobs": jobs }));
    }
    if jobs.is_empty() {
        return Ok(());
    }
    let zone = local_zone();
    let mut table = Table::new(&["ID", "QUEUE", "STATE", "PRIO", "DUE", "ATTEMPTS", "RESULT", "TASK"]);
    for job in jobs {
        let state = job.state(now).word().to_owned();
        let due = table::time(job.due, &zone);
        let (id, priority) = (job.id.to_string(), job.priority.to_string());
        table.add(vec![id, job.queue.clone(), state, priority, due, attempts(job, queues), result(job), words(job)]);
    }
    print::text(&table.text(table::width()))
}

fn unknown(id: i64) -> Failure {
    Failure::NotThere(format!("there is no job {id}; `runner queue list` shows which there are"))
}

fn show(settings: &Settings, place: &Place, queues: &[QueueSettings], (id, now): (i64, Timestamp)) -> Result<(), Failure> {
    let job = match reading(place)? {
        Some(mut store) => store.job(id).map_err(failure)?,
        None => None,
    };
    let job = job.ok_or_else(|| unknown(id))?;
    if settings.json {
        return print::json(&json!({ "version": 1, "job": as_json(&job, now) }));
    }
    print::text(&as_text(&job, queues, now, &local_zone()))
}

fn as_text(job: &JobRecord, queues: &[QueueSettings], now: Timestamp, zone: &TimeZone) -> String {
    let time = |at| table::time(at, zone);
    let worker = job.pid.map(|pid| format!("process {pid} on {}", job.host.as_deref().unwrap_or("?")));
    let waits = job.attempts > 0 && job.state(now) == JobState::Scheduled && job.result.as_deref() == Some(Verdict::Retry.word());
    let lines = [
        ("job", Some(job.id.to_string())),
        ("queue", Some(job.queue.clone())),
        ("task", Some(words(job))),
        ("name", job.name.clone()),
        ("creator", job.creator.clone()),
        ("key", job.key.clone()),
        ("state", Some(job.state(now).word().to_owned())),
        ("priority", Some(job.priority.to_string())),
        ("due", Some(time(job.due))),
        ("repeats", job.repeat_ms.map(|every| format!("every {}", table::length(Some(every))))),
        ("until", job.repeat_until.map(time)),
        ("attempts", Some(attempts(job, queues))),
        ("next try", waits.then(|| format!("in {}", table::about(now.duration_until(job.due))))),
        ("worker", worker),
        ("began", job.began.map(time)),
        ("ended", job.ended.map(time)),
        ("result", Some(result(job)).filter(|text| !text.is_empty())),
    ];
    let mut text = String::new();
    for (name, value) in lines {
        if let Some(value) = value {
            text.push_str(&format!("{name:9}  {}\n", harmless(&value).replace('\n', " ")));
        }
    }
    if let Some(error) = job.last_error.as_deref().filter(|error| !error.is_empty()) {
        text.push_str("\nthe end of the output of its last attempt that failed:\n");
        text.extend(error.lines().map(|line| format!("    {}\n", harmless(line))));
    }
    text
}

fn cancel(settings: &Settings, place: &Place, ids: &[i64], now: Timestamp) -> Result<Exit, Failure> {
    let mut store = place.open_quickly().map_err(failure)?;
    let (cancelled, ending) = store.cancel_jobs(ids, now).map_err(failure)?;
    if !ending.is_empty() {
        wake::ring(place, true);
    }
    let rest: Vec<i64> = ids.iter().copied().filter(|id| !cancelled.contains(id) && !ending.contains(id)).collect();
    if settings.json {
        print::json(&json!({ "version": 1, "cancelled": cancelled, "ending": ending, "unchanged": rest }))?;
    } else {
        let said = |ids: &[i64], what: &str| ids.iter().map(|id| format!("{id}  {what}\n")).collect::<String>();
        print::text(&format!("{}{}", said(&cancelled, "cancelled"), said(&ending, "is being ended")))?;
    }
    tell_rest(store.as_mut(), &rest, "is not ended", now)?;
    Ok(if rest.is_empty() { Exit::Done } else { Exit::GaveUp })
}

fn retry(
    settings: &Settings,
    place: &Place,
    (mut ids, failed, queue): (Vec<i64>, bool, Option<String>),
    now: Timestamp,
) -> Result<Exit, Failure> {
    let mut store = place.open_quickly().map_err(failure)?;
    if failed {
        let query = JobQuery { queue, state: Some(JobState::Failed), limit: RETRIED_AT_ONCE, now };
        ids = store.jobs(&query).map_err(failure)?.iter().map(|job| job.id).collect();
    }
    let begun = store.retry_jobs(&ids, now).map_err(failure)?;
    wake::ring(place, false);
    let rest: Vec<i64> = ids.iter().copied().filter(|id| !begun.contains(id)).collect();
    if settings.json {
        print::json(&json!({ "version": 1, "retried": begun, "unchanged": rest }))?;
    } else {
        print::text(&begun.iter().map(|id| format!("{id}  begins anew\n")).collect::<String>())?;
    }
    if failed && ids.is_empty() {
        log::info!("there is no job that failed for good");
    }
    tell_rest(store.as_mut(), &rest, "does not begin anew", now)?;
    Ok(if rest.is_empty() { Exit::Done } else { Exit::GaveUp })
}

fn tell_rest(store: &mut dyn Store, ids: &[i64], what: &str, now: Timestamp) -> Result<(), Failure> {
    for id in ids {
        match store.job(*id).map_err(failure)? {
            Some(job) => log::warn!("job {id} {what}: it is {}", job.state(now).word()),
            None => log::warn!("there is no job {id}; `runner queue list` shows which there are"),
        }
    }
    Ok(())
}

fn prune(settings: &Settings, place: &Place, queues: &[QueueSettings], now: Timestamp) -> Result<(), Failure> {
    let mut store = place.open_quickly().map_err(failure)?;
    let kept = |queue: &QueueSettings| Kept { queue: queue.name.clone(), done: queue.keep_done, failed: queue.keep_failed };
    let kept: Vec<Kept> = queues.iter().map(kept).collect();
    let mut gone = 0;
    loop {
        let some = store.prune_jobs(&kept, now, PRUNED_AT_ONCE).map_err(failure)?;
        gone += some;
        if some < u64::from(PRUNED_AT_ONCE) {
            break;
        }
    }
    if settings.json {
        print::json(&json!({ "version": 1, "forgotten": gone }))
    } else {
        print::text(&format!("{} forgotten\n", counted(usize::try_from(gone).unwrap_or(usize::MAX), "job")))
    }
}

fn stats(settings: &Settings, place: &Place, queues: &[QueueSettings], now: Timestamp) -> Result<(), Failure> {
    let counts = reading(place)?.map_or(Ok(Vec::new()), |mut store| store.count_jobs(now)).map_err(failure)?;
    let mut names: Vec<&str> = queues.iter().map(|queue| queue.name.as_str()).collect();
    names.extend(counts.iter().map(|count| count.queue.as_str()));
    names.sort_unstable();
    names.dedup();
    let of = |name: &str, state: JobState| counts.iter().find(|count| count.queue == name && count.state == state);
    let number = |count: Option<&QueueCount>| count.map_or(0, |count| count.count);
    let age = |name: &str| {
        let first = of(name, JobState::Ready)?.first_due?;
        u64::try_from(now.duration_since(first).as_millis()).ok()
    };
    if settings.json {
        let queues = names.iter().map(|name| {
            let mut fields = serde_json::Map::new();
            fields.insert("queue".to_owned(), json!(name));
            fields.extend(crate::queue::STATES.map(|state| (state.word().to_owned(), json!(number(of(name, state))))));
            fields.insert("oldest_ready_ms".to_owned(), json!(age(name)));
            Value::Object(fields)
        });
        return print::json(&json!({ "version": 1, "queues": queues.collect::<Vec<_>>() }));
    }
    if names.is_empty() {
        log::info!("there is no queue: write [queue:default] with a task_dir");
        return Ok(());
    }
    let waits = |name: &str| {
        age(name).and_then(|millis| i64::try_from(millis).ok()).map(SignedDuration::from_millis).map(table::about).unwrap_or_default()
    };
    let mut table = Table::new(&["QUEUE", "SCHEDULED", "READY", "RUNNING", "DONE", "FAILED", "CANCELLED", "WAITS"]);
    for name in names {
        let numbers = crate::queue::STATES.map(|state| number(of(name, state)).to_string());
        let row = std::iter::once(name.to_owned()).chain(numbers).chain([waits(name)]);
        table.add(row.collect());
    }
    print::text(&table.text(table::width()))
}
