//! Queues as they are shown and told: how many jobs of each state there are, what a worker has done of them, what it runs.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::queue::JobState;
use crate::status::{Date, Job, JobTotal, JobTotals, Queue, ResultTotal};
use crate::store::job::{JobRecord, QueueCount};
#[cfg(feature = "http")]
use crate::worker::Worker;
use crate::worker::tally::Tally;

/// How many jobs a queue has.
pub fn depths(name: &str, counts: &[QueueCount], zone: &TimeZone) -> Queue {
    let of = |state: JobState| counts.iter().find(|count| count.queue == name && count.state == state);
    let number = |state: JobState| of(state).map_or(0, |count| count.count);
    Queue {
        name: name.to_owned(),
        scheduled: number(JobState::Scheduled),
        ready: number(JobState::Ready),
        running: number(JobState::Running),
        failed: number(JobState::Failed),
        oldest_ready: of(JobState::Ready).and_then(|count| count.first_due).map(|at| Date::new(at, zone)),
        jobs: Vec::new(),
        done: number(JobState::Done),
        cancelled: number(JobState::Cancelled),
        places: None,
        trouble: None,
        uncounted: None,
        totals: JobTotals::default(),
    }
}

/// The same with what a worker has done.
pub fn with_totals(queue: Queue, tally: Option<&Tally>) -> Queue {
    let Some(tally) = tally else { return queue };
    let job = |outcome: JobState, count: u64| JobTotal { outcome: outcome.word().to_owned(), count };
    let jobs = [(JobState::Done, tally.done), (JobState::Failed, tally.failed), (JobState::Cancelled, tally.cancelled)];
    let result = |(result, (count, took)): (&&str, &(u64, std::time::Duration))| ResultTotal {
        result: (*result).to_owned(),
        count: *count,
        seconds: took.as_secs_f64(),
    };
    let totals = JobTotals { jobs: jobs.map(|(state, count)| job(state, count)).into(), tries: tally.tries.iter().map(result).collect() };
    Queue { totals, ..queue }
}

/// The same with what a worker of this program does at this moment.
#[cfg(feature = "http")]
pub fn with_worker(queue: Queue, worker: &Worker, zone: &TimeZone, now: Timestamp) -> Queue {
    let places = worker.queues().iter().find(|known| known.name == queue.name).map(|known| known.jobs as u64);
    let of_queue = worker.jobs().iter().filter(|job| job.record().queue == queue.name);
    let jobs = of_queue.map(|job| {
        let said = job.said();
        Job { progress: said.progress, status: said.status.clone(), ..running(job.record(), job.max_attempts(), zone, now) }
    });
    let jobs: Vec<Job> = jobs.collect();
    let tally = worker.tallies().of(&queue.name);
    with_totals(Queue { jobs, places, ..queue }, tally)
}

/// A job that runs, as the database has it.
pub fn running(record: &JobRecord, max_attempts: u32, zone: &TimeZone, now: Timestamp) -> Job {
    Job {
        id: record.id.to_string(),
        name: record.name.clone().unwrap_or_else(|| record.task.clone()),
        attempt: record.attempts,
        max_attempts,
        started_at: Date::new(record.began.unwrap_or(now), zone),
        progress: None,
        status: None,
    }
}
