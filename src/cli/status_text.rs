//! `runner status` for people: the tables, and what is to be said below them.

use super::settings::Settings;
use super::table::{self, Table};
use super::{doing, waiting};
use crate::status::{Chain, Date, Ended, GivenUp, Holder, NO_CLOCK, Run, Status};

/// All that is known, as tables that fit the terminal.
pub fn as_text(status: &Status, settings: &Settings) -> String {
    let mut table = Table::new(&["CHAIN", "STATE", "LAST RUN", "LAST SUCCESS", "NEXT", "RESULT"]);
    let ago = |at: Option<Date>| at.map_or("-".to_owned(), |at| format!("{} ago", table::about(at.at.duration_until(status.time.at))));
    let unwatched = status.remarks.iter().any(|remark| remark.kind == "nobody_fires");
    let clock = status.remarks.iter().find(|remark| remark.kind == NO_CLOCK).map(|remark| remark.text.as_str());
    for chain in &status.chains {
        // What the clock does to all of them is said below, once.
        let waits = chain.waits_because.as_deref().filter(|why| chain.enabled && Some(*why) != clock);
        let is_timed = clock.is_some() && chain.enabled && !chain.schedule.is_empty();
        let next = chain.next.first().map(|at| format!("in {}", table::about(status.time.at.duration_until(at.at))));
        // A slot comes, and below it is said that nobody is there to fire it.
        let next = next.map(|next| if unwatched { format!("({next})") } else { next });
        table.add(vec![
            chain.name.clone(),
            state(chain, waits, status.time),
            ago(chain.last_run().map(|run| run.ended_at.unwrap_or(run.started_at))),
            ago(chain.last_success),
            next.unwrap_or_else(|| if is_timed { "no clock" } else { "-" }.to_owned()),
            result(chain, waits, status.time),
        ]);
    }
    let mut text = table.text(table::width());
    if !status.locks.is_empty() {
        let mut table = Table::new(&["LOCK", "CHAINS", "HELD BY", "SINCE", "TOKEN"]);
        for lock in &status.locks {
            let (by, since) = match (&lock.holder, &lock.unknown) {
                (Some(holder), _) => (format!("{} pid {}{}", holder.host, holder.pid, under(holder)), ago(Some(holder.since))),
                (None, Some(why)) => (format!("unknown: {why}"), "-".to_owned()),
                (None, None) => ("nobody".to_owned(), "-".to_owned()),
            };
            let token = lock.token.map_or("-".to_owned(), |token| token.to_string());
            table.add(vec![lock.name.clone(), lock.chains.join(", "), by, since, token]);
        }
        text.push('\n');
        text.push_str(&table.text(table::width()));
    }
    if !status.queues.is_empty() {
        text.push('\n');
        text.push_str(&queues_as_text(status));
    }
    text.push_str(&below(status, settings));
    text
}

/// What a chain does, waits for, or came to, and what came to nothing since.
fn result(chain: &Chain, waits: Option<&str>, now: Date) -> String {
    let doing = chain.running.first().and_then(|run| doing::of_run(run, now));
    let last = || {
        // While it runs, how the run before it ended is not what it came to.
        let run = chain.last_run().filter(|_| chain.running.is_empty())?;
        let word = run.outcome?.words();
        Some(run.why.as_ref().map_or_else(|| word.to_owned(), |why| format!("{word}: {why}")))
    };
    let given_up = chain.given_up.as_ref().map(GivenUp::words);
    let parts: Vec<String> = if chain.refused().is_some() {
        given_up.into_iter().chain(last().map(|last| format!("before: {last}"))).collect()
    } else {
        // While a run goes on the slot after it may wait.
        let now: Vec<String> = doing.into_iter().chain(waits.map(str::to_owned)).collect();
        let past = if now.is_empty() { last() } else { None };
        now.into_iter().chain(past).chain(given_up).collect()
    };
    if parts.is_empty() { "-".to_owned() } else { parts.join("; ") }
}

/// What belongs to no line of a table, and how to end what runs.
fn below(status: &Status, settings: &Settings) -> String {
    let width = table::width().unwrap_or(usize::MAX);
    let mut text = String::new();
    for remark in &status.remarks {
        let since = remark.since.map(|at| format!(" since {}", at.show("%Y-%m-%dT%H:%M:%S%:z"))).unwrap_or_default();
        text.push_str(&table::wrapped(&format!("{}{since}", table::harmless(&remark.text)), 0, 4, width));
    }
    let running: Vec<&str> = status.chains.iter().filter(|chain| !chain.running.is_empty()).map(|chain| chain.name.as_str()).collect();
    match running.as_slice() {
        [] => {}
        [only] => text.push_str(&format!("to end its run: {}\n", settings.command(&format!("stop {only}")))),
        [..] => text.push_str(&format!("to end a run: {}\n", settings.command("stop CHAIN"))),
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

fn queues_as_text(status: &Status) -> String {
    let since = |at: Date| table::about(at.at.duration_until(status.time.at));
    let mut table = Table::new(&["QUEUE", "READY", "OLDEST WAITS", "RUNNING", "DUE LATER", "FAILED"]);
    for queue in &status.queues {
        let numbers = [queue.running, queue.scheduled, queue.failed].map(|number| number.to_string());
        let oldest = queue.oldest_ready.map_or("-".to_owned(), since);
        table.add([queue.name.clone(), queue.ready.to_string(), oldest].into_iter().chain(numbers).collect());
    }
    let mut text = table.text(table::width());
    let mut jobs = Table::new(&["JOB", "QUEUE", "RUNS", "ATTEMPT", "NAME"]);
    for (queue, job) in status.queues.iter().flat_map(|queue| queue.jobs.iter().map(move |job| (queue, job))) {
        jobs.add(vec![job.id.clone(), queue.name.clone(), since(job.started_at), job.attempt.to_string(), job.name.clone()]);
    }
    if status.queues.iter().any(|queue| !queue.jobs.is_empty()) {
        text.push('\n');
        text.push_str(&jobs.text(table::width()));
    }
    text
}

fn state(chain: &Chain, waits: Option<&str>, now: Date) -> String {
    if let Some(run) = chain.running.first() {
        return format!("runs {}", table::about(run.started_at.at.duration_until(now.at)));
    }
    let last = chain.last_run().and_then(|run| run.outcome);
    let words = match last {
        _ if !chain.enabled => "not enabled",
        _ if waits.is_some_and(|why| why.starts_with(waiting::SLOT)) => "waits",
        _ if waits.is_some() => "waits for its lock",
        _ if chain.refused().is_some() => Ended::NotStarted.words(),
        Some(Ended::Done) => return chain.last_run().and_then(Run::doubt).map_or("ok".to_owned(), |said| format!("ok ({said})")),
        Some(Ended::Signalled) => Ended::Signalled.words(),
        Some(Ended::GaveUp | Ended::Halted | Ended::Stopped | Ended::LockLost | Ended::NotStarted | Ended::Lost) => "failed",
        None => "never ran",
    };
    words.to_owned()
}

/// The command that runs under a lock, where it is one of `runner lock`.
fn under(holder: &Holder) -> String {
    holder.command.as_ref().map(|command| format!(" ({command})")).unwrap_or_default()
}
