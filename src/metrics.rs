//! The status as numbers, in Prometheus' text format (version 0.0.4), for the daemon's `/metrics` and for node
//! exporter's textfile collector. Decides only: whoever has a file or a socket writes it there.

use std::fmt::Write;

use crate::opinion::Opinion;
use crate::status::{Chain, Date, Ended, Queue, Status};

/// A metric under construction: names are ours, values of labels may be anything.
struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
    /// What stands above the first sample; nothing where there is none.
    head: String,
}

/// Begins a metric. `kind` is the word of its TYPE line.
fn family<'a>(text: &'a mut String, name: &'static str, kind: &str, help: &str) -> Family<'a> {
    Family { text, name, head: format!("# HELP {name} {help}\n# TYPE {name} {kind}\n") }
}

impl Family<'_> {
    fn add(&mut self, labels: &[(&str, &str)], value: f64) {
        self.add_as("", labels, value);
    }

    /// A part of the metric, `_sum` or `_count`.
    fn add_as(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(&std::mem::take(&mut self.head));
        let _ = write!(self.text, "{}{suffix}", self.name);
        for (at, (name, label)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{open}{name}=\"{}\"", escape(label));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }
}

/// The value of a label: a backslash, a quote and a line feed are escaped, as the format has it.
fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn seconds(date: Date) -> f64 {
    date.at.as_duration().as_secs_f64()
}

fn truth(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "the format has no other numbers; 2^53 runs are far away")]
fn number(count: u64) -> f64 {
    count as f64
}

/// The whole text. Series of one metric stand together, as the format wants it.
pub fn prometheus(status: &Status) -> String {
    let mut text = String::new();
    daemon(&mut text, status);
    totals(&mut text, &status.chains);
    last_runs(&mut text, &status.chains);
    now(&mut text, status);
    tasks(&mut text, &status.chains);
    queues(&mut text, status.time, &status.queues);
    let mut held = family(&mut text, "runner_lock_held", "gauge", "Whether somebody holds the lock.");
    let known = || status.locks.iter().filter(|lock| lock.unknown.is_none());
    known().for_each(|lock| held.add(&[("lock", &lock.name)], truth(lock.holder.is_some() || lock.held_here)));
    let mut here = family(&mut text, "runner_lock_held_here", "gauge", "Whether this machine's runner holds the lock.");
    known().for_each(|lock| here.add(&[("lock", &lock.name)], truth(lock.held_here)));
    let mut reached = family(&mut text, "runner_lock_reachable", "gauge", "Whether the engine of the lock answers.");
    status.locks.iter().for_each(|lock| reached.add(&[("lock", &lock.name)], truth(lock.unknown.is_none())));
    text
}

fn daemon(text: &mut String, status: &Status) {
    let labels = [("version", status.program.as_str()), ("host", status.host.as_str())];
    family(text, "runner_build_info", "gauge", "The version of runner.").add(&labels, 1.0);
    if let Some(since) = status.since {
        family(text, "runner_start_time_seconds", "gauge", "When the daemon began, in Unix seconds.").add(&[], seconds(since));
    }
    let configuration = &status.configuration;
    family(text, "runner_config_last_reload_successful", "gauge", "Whether the newest configuration is the one in force.")
        .add(&[], truth(configuration.refused.is_none()));
    family(text, "runner_config_loaded_timestamp_seconds", "gauge", "When the configuration in force was read.")
        .add(&[], seconds(configuration.loaded_at));
}

fn totals(text: &mut String, chains: &[Chain]) {
    let mut runs = family(text, "runner_runs_total", "counter", "Runs since the daemon began, by outcome.");
    for chain in chains {
        for total in &chain.totals.runs {
            runs.add(&[("chain", &chain.name), ("outcome", total.outcome.word())], number(total.count));
        }
    }
    let mut durations = family(text, "runner_run_duration_seconds", "summary", "How long runs took.");
    for chain in chains {
        let labels = [("chain", chain.name.as_str())];
        // What did not begin took no time. A sum of nothing would be -0.
        let begun = || chain.totals.runs.iter().filter(|total| total.outcome != Ended::NotStarted);
        durations.add_as("_sum", &labels, begun().fold(0.0, |sum, total| sum + total.seconds));
        durations.add_as("_count", &labels, number(begun().map(|total| total.count).sum()));
    }
    let tries = |chain: &Chain| chain.totals.tries.clone();
    let mut counts = family(text, "runner_tries_total", "counter", "Tries of tasks since the daemon began, by result.");
    for chain in chains {
        for total in tries(chain) {
            counts.add(&[("chain", &chain.name), ("task", &total.task), ("result", &total.result)], number(total.count));
        }
    }
    let mut spent = family(text, "runner_try_seconds_total", "counter", "Time that tries of tasks took since the daemon began.");
    for chain in chains {
        for total in tries(chain) {
            spent.add(&[("chain", &chain.name), ("task", &total.task), ("result", &total.result)], total.seconds);
        }
    }
    let mut said = family(text, "runner_said_results_total", "counter", "Tries since the daemon began, by what they said of themselves.");
    for chain in chains {
        for total in &chain.totals.said {
            said.add(&[("chain", &chain.name), ("said", &total.said)], number(total.count));
        }
    }
}

/// What was counted of the tries of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastTries {
    /// All of them.
    pub all: u32,
    /// Those that failed.
    pub failed: u32,
    /// Those that said so of themselves, in the order of [`Opinion::ALL`].
    pub said: [u32; 3],
}

/// How the last run of a chain ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LastRun<'a> {
    /// The chain.
    pub chain: &'a str,
    /// How.
    pub outcome: Ended,
    /// The exit code of such an end.
    pub exit_code: Option<u8>,
    /// When, in Unix seconds.
    pub ended_at: f64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Tries of tasks, where they were counted.
    pub tries: Option<LastTries>,
}

/// What one program knows of the one run that it made: the same metrics as [`prometheus`], without totals, which only a
/// program that goes on can know. A run that did not end well says nothing of the last one that did.
pub fn of_run(run: &LastRun<'_>) -> String {
    let mut text = String::new();
    run_families(&mut text, &[*run]);
    let good: Vec<_> = (run.outcome == Ended::Done).then_some((run.chain, run.ended_at)).into_iter().collect();
    success_families(&mut text, &good);
    text
}

/// A run of `chain` that did not begin at `at` (Unix seconds), and why in a word. Nothing else of the chain changes.
pub fn of_refusal(chain: &str, reason: &str, at: f64) -> String {
    let mut text = String::new();
    family(&mut text, "runner_last_refusal_timestamp_seconds", "gauge", "When a run last did not begin, in Unix seconds.")
        .add(&[("chain", chain), ("reason", reason)], at);
    text
}

fn last_runs(text: &mut String, chains: &[Chain]) {
    let last = |chain: &Chain| {
        let run = chain.last_run()?;
        Some((run.outcome?, run.ended_at?, run.exit_code, run.seconds(run.ended_at?)))
    };
    let ended: Vec<LastRun<'_>> = chains
        .iter()
        .filter_map(|chain| {
            let (outcome, at, exit_code, length) = last(chain)?;
            Some(LastRun { chain: &chain.name, outcome, exit_code, ended_at: seconds(at), seconds: length, tries: None })
        })
        .collect();
    run_families(text, &ended);
    let good: Vec<_> = chains.iter().filter_map(|chain| Some((chain.name.as_str(), seconds(chain.last_success?)))).collect();
    success_families(text, &good);
}

fn run_families(text: &mut String, runs: &[LastRun<'_>]) {
    let mut codes = family(text, "runner_last_run_exit_code", "gauge", "The exit code of each chain's last run.");
    for run in runs {
        if let Some(code) = run.exit_code {
            codes.add(&[("chain", run.chain)], f64::from(code));
        }
    }
    let mut times = family(text, "runner_last_run_timestamp_seconds", "gauge", "When each chain's last run ended, in Unix seconds.");
    runs.iter().for_each(|run| times.add(&[("chain", run.chain)], run.ended_at));
    let mut outcomes = family(text, "runner_last_run_outcome", "gauge", "How each chain's last run ended: 1 beside the word for it.");
    runs.iter().for_each(|run| outcomes.add(&[("chain", run.chain), ("outcome", run.outcome.word())], 1.0));
    let mut lengths = family(text, "runner_last_run_duration_seconds", "gauge", "How long each chain's last run took.");
    runs.iter().for_each(|run| lengths.add(&[("chain", run.chain)], run.seconds));
    let counted = || runs.iter().filter_map(|run| Some((run.chain, run.tries?)));
    let mut tries = family(text, "runner_last_run_tries", "gauge", "Tries of tasks in each chain's last run.");
    counted().for_each(|(chain, counted)| tries.add(&[("chain", chain)], f64::from(counted.all)));
    let mut failed = family(text, "runner_last_run_failed_tries", "gauge", "Tries of tasks that failed in each chain's last run.");
    counted().for_each(|(chain, counted)| failed.add(&[("chain", chain)], f64::from(counted.failed)));
    let mut said =
        family(text, "runner_last_run_said_results", "gauge", "Tries in each chain's last run, by what they said of themselves.");
    for (chain, counted) in counted() {
        for (opinion, count) in Opinion::ALL.into_iter().zip(counted.said) {
            said.add(&[("chain", chain), ("said", opinion.word())], f64::from(count));
        }
    }
    let mut jobslib = family(text, "job_duration_seconds", "gauge", "How long each chain's last run took, under jobslib's name.");
    runs.iter().for_each(|run| jobslib.add(&[("chain", run.chain), ("status", run.outcome.of_jobslib())], run.seconds));
}

fn success_families(text: &mut String, good: &[(&str, f64)]) {
    let mut own = family(text, "runner_last_success_timestamp_seconds", "gauge", "When a run last ended well, in Unix seconds.");
    good.iter().for_each(|(chain, at)| own.add(&[("chain", chain)], *at));
    let mut jobslib = family(text, "last_successful_run_timestamp", "gauge", "When a run last ended well, under jobslib's name.");
    good.iter().for_each(|(chain, at)| jobslib.add(&[("chain", chain)], *at));
}

fn now(text: &mut String, status: &Status) {
    let chains = &status.chains;
    let mut running = family(text, "runner_running", "gauge", "Runs that are under way.");
    chains.iter().for_each(|chain| running.add(&[("chain", &chain.name)], number(chain.running.len() as u64)));
    let mut enabled = family(text, "runner_chain_enabled", "gauge", "Whether the chain fires on its schedule.");
    chains.iter().for_each(|chain| enabled.add(&[("chain", &chain.name)], truth(chain.enabled)));
    let mut next = family(text, "runner_next_slot_timestamp_seconds", "gauge", "The next slot of each chain, in Unix seconds.");
    for chain in chains {
        if let Some(slot) = chain.next.first() {
            next.add(&[("chain", &chain.name)], seconds(*slot));
        }
    }
}

fn tasks(text: &mut String, chains: &[Chain]) {
    let mut codes = family(text, "runner_task_last_exit_code", "gauge", "The exit code of each task's last try; none after a signal.");
    for chain in chains {
        for (task, last) in chain.last_run().into_iter().flat_map(|run| &run.tasks).filter_map(|task| Some((task, task.tries.last()?))) {
            if let Some(code) = last.exit_code {
                codes.add(&[("chain", &chain.name), ("task", &task.file)], f64::from(code));
            }
        }
    }
    let mut progress = family(text, "runner_task_progress_ratio", "gauge", "How far a running task says it is, 0 to 1.");
    for chain in chains {
        // One run of a chain at a time; its id as a label would make a new series for each.
        let tasks = chain.running.first().into_iter().flat_map(|run| &run.tasks);
        for (task, percent) in tasks.filter_map(|task| Some((task, task.progress?))) {
            progress.add(&[("chain", &chain.name), ("task", &task.file)], f64::from(percent) / 100.0);
        }
    }
}

/// What is pushed of one queue: the same metrics as [`prometheus`] has of it. `now` is when its jobs were counted.
pub fn of_queue(queue: &Queue, now: Date) -> String {
    let mut text = String::new();
    queues(&mut text, now, std::slice::from_ref(queue));
    text
}

fn queues(text: &mut String, now: Date, queues: &[Queue]) {
    // What nobody could count is not zero.
    let counted = || queues.iter().filter(|queue| queue.uncounted.is_none());
    let mut depth = family(text, "runner_queue_jobs", "gauge", "Jobs of a queue, by state.");
    for queue in counted() {
        let states = [
            ("scheduled", queue.scheduled),
            ("ready", queue.ready),
            ("running", queue.running),
            ("done", queue.done),
            ("failed", queue.failed),
            ("cancelled", queue.cancelled),
        ];
        states.iter().for_each(|(state, jobs)| depth.add(&[("queue", &queue.name), ("state", state)], number(*jobs)));
    }
    let mut age = family(text, "runner_queue_oldest_ready_seconds", "gauge", "For how long the oldest ready job has been due.");
    for queue in counted() {
        let since = queue.oldest_ready.map_or(0.0, |oldest| oldest.seconds_until(now).max(0.0));
        age.add(&[("queue", &queue.name)], since);
    }
    let mut places = family(text, "runner_queue_places", "gauge", "How many jobs of the queue this daemon runs side by side.");
    for (queue, count) in queues.iter().filter_map(|queue| Some((queue, queue.places?))) {
        places.add(&[("queue", &queue.name)], number(count));
    }
    let mut working = family(text, "runner_queue_working", "gauge", "Whether the jobs of a queue that this daemon works can be taken.");
    for queue in queues.iter().filter(|queue| queue.places.is_some()) {
        working.add(&[("queue", &queue.name)], truth(queue.trouble.is_none()));
    }
    let mut ended = family(text, "runner_jobs_total", "counter", "Jobs that this program has brought to an end, by outcome.");
    for queue in queues {
        queue.totals.jobs.iter().for_each(|total| {
            ended.add(&[("queue", &queue.name), ("outcome", &total.outcome)], number(total.count));
        });
    }
    let tries = || queues.iter().flat_map(|queue| queue.totals.tries.iter().map(move |total| (queue, total)));
    let mut counts = family(text, "runner_job_tries_total", "counter", "Attempts of jobs in this program, by result.");
    tries().for_each(|(queue, total)| counts.add(&[("queue", &queue.name), ("result", &total.result)], number(total.count)));
    let mut spent = family(text, "runner_job_try_seconds_total", "counter", "Time that attempts of jobs took in this program.");
    tries().for_each(|(queue, total)| spent.add(&[("queue", &queue.name), ("result", &total.result)], total.seconds));
}
