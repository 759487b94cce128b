//! Runs that go on in any program of this machine, as they tell of themselves: for the commands that show runs.

use std::path::Path;
use std::time::Duration;

use jiff::tz::TimeZone;
use rustix::process::Pid;

use super::table::{self, Table, about};
#[cfg(all(feature = "schedule", feature = "http"))]
use crate::chain;
use crate::event::ClosingPart;
use crate::notify::asking::ask_all;
use crate::outcome::signal_name;
use crate::process::tree::Stat;
#[cfg(all(feature = "schedule", feature = "http"))]
use crate::status::Status;
use crate::status::{Closing, Date, Going, Run, Try, VERSION};
use crate::store::Owner;
use crate::store::record::{Occasion, RunRecord};

/// How long all of them are waited for together: each answers from its loop, which never waits for anything.
/// On a machine with much to do that may take a while; only one that is stopped keeps us so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks them. Whoever does so before reading the history misses nobody: a run that ends meanwhile stands there.
pub fn look() -> Vec<Going> {
    let read = |answer: Vec<u8>| serde_json::from_slice::<Going>(&answer).ok().filter(|going| going.version == VERSION);
    ask_all(PATIENCE).into_iter().filter_map(read).collect()
}

/// Those whose record will be in this state, with their dates in this zone; those that are over but for their hook or halt task come
/// last. `database` is ours as it may be shown.
pub fn of_state(all: Vec<Going>, state_dir: Option<&Path>, database: Option<&str>, zone: &TimeZone) -> Vec<Going> {
    let same = |going: &Going| going.database.is_none() || going.database.as_deref() == database;
    let ours = |going: &Going| state_dir.is_some_and(|dir| dir == Path::new(&going.state_dir)) && same(going);
    let mut ours: Vec<Going> = all.into_iter().filter(ours).map(|going| Going { run: in_zone(going.run, zone), ..going }).collect();
    ours.sort_by_key(|going| going.run.closing.is_some());
    ours
}

fn in_zone(mut run: Run, zone: &TimeZone) -> Run {
    let tries = run.tasks.iter_mut().flat_map(|task| task.until.iter_mut().chain(task.tries.iter_mut().map(|last| &mut last.started_at)));
    for date in [&mut run.started_at].into_iter().chain(&mut run.scheduled_at).chain(&mut run.until).chain(tries) {
        *date = Date::new(date.at, zone);
    }
    run
}

/// The record of a run that has none yet, without its tries: those are in what it tells.
pub fn record(going: &Going, here: &Owner) -> RunRecord {
    let run = &going.run;
    let pid = i32::try_from(going.pid).unwrap_or_default();
    let start_time = Pid::from_raw(pid).and_then(Stat::of).map_or(0, |stat| stat.start_time);
    let occasion = Occasion { trigger: run.trigger.clone(), scheduled_at: run.scheduled_at.map(|date| date.at) };
    RunRecord::begun(&run.id, &going.chain, occasion, &Owner { pid, start_time, ..here.clone() }, run.started_at.at)
}

/// What still runs of a run whose end was told; one that does not answer does not say which of them it is.
pub fn of_closing(closing: Option<&Closing>) -> String {
    match closing {
        Some(closing) if closing.what == ClosingPart::HaltTask.word() => format!("its halt task (process {})", closing.pid),
        Some(closing) => format!("its {} (process {})", closing.what, closing.pid),
        None => "its chain_hook or its halt task".to_owned(),
    }
}

/// Says it of the chains of a daemon: their board has such a run among those that have ended.
#[cfg(all(feature = "schedule", feature = "http"))]
pub fn show_closing(runs: &[chain::run::Run], status: &mut Status) {
    for (run, (what, pid)) in runs.iter().filter_map(|run| Some((run.run_ref(), run.closing_part()?))) {
        if let Ok(at) = status.chains.binary_search_by(|chain| chain.name.cmp(&run.chain)) {
            let closing = Closing { what: what.word().to_owned(), pid };
            let words = || format!("its run {} is over but for {}", run.id, of_closing(Some(&closing)));
            status.chains[at].waits_because.get_or_insert_with(words);
        }
    }
}

/// How a try that failed has ended, in a few words.
fn how_it_ended(last: &Try) -> Option<String> {
    let code = last.exit_code.filter(|code| *code != 0).map(|code| format!("exit {code}"));
    let signal = last.signal.map(|signal| format!("died of {}", signal_name(signal)));
    if last.timed_out { Some("timed out".to_owned()) } else { code.or(signal) }
}

/// The tasks of a run and where each stands, one in a line.
pub fn tasks(run: &Run, now: Date) -> String {
    let mut table = Table::new(&["TASK", "STATE", "TRY", "SAYS"]);
    for task in &run.tasks {
        let try_num = task.tries.last().map(|last| last.try_num.to_string()).unwrap_or_default();
        let again = task.until.map(|until| format!("again in {}", about(now.at.duration_until(until.at))));
        let opinion = task.said().map(|said| format!("says {said}"));
        let says = [
            task.tries.last().and_then(how_it_ended),
            again,
            task.progress.map(|percent| format!("{percent}%")),
            task.status.clone(),
            opinion,
        ];
        let says: Vec<String> = says.into_iter().flatten().filter(|part| !part.is_empty()).collect();
        table.add(vec![task.file.clone(), task.state.word().to_owned(), try_num, says.join(" ")]);
    }
    table.text(table::width())
}
