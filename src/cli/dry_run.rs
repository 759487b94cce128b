//! `--dry-run`: order, stages, settings and the series of waits. Runs nothing, changes nothing.

use serde_json::json;

use super::exit::Failure;
use super::print;
use super::settings::Settings;
use crate::chain::setup::{Setup, Task};
use crate::clock::Seconds;
use crate::config::keys::RetryFrom;
use crate::names::{counted, printable};

/// So many waits of a series are shown; a series without end has to end somewhere.
const SHOWN_WAITS: u32 = 10;

/// Prints what a run would do.
///
/// # Errors
/// The result cannot be written.
pub fn print(settings: &Settings, setup: &Setup) -> Result<(), Failure> {
    if settings.json { print::json(&as_json(setup)) } else { print::text(&as_text(setup)) }
}

fn as_text(setup: &Setup) -> String {
    let mut text = format!(
        "chain {} in {}: {}, {} at once\n",
        setup.chain.name,
        printable(&setup.dir.display().to_string()),
        counted(setup.plan.places.len(), "task"),
        setup.chain.max_parallel
    );
    for place in &setup.plan.places {
        let task = &setup.tasks[place.task];
        let needs: Vec<_> = place.depends_on.iter().map(|need| setup.task_at(*need).name.text()).collect();
        let after = if needs.is_empty() { String::new() } else { format!("  after {}", printable(&needs.join(", "))) };
        let file = printable(task.name.text());
        text.push_str(&format!("  stage {:<3} {file}  max_time {}{after}\n", place.stage + 1, task.settings.max_time));
    }
    let chain_waits = setup.chain.retry_from == RetryFrom::Start;
    for task in setup.plan.places.iter().map(|place| &setup.tasks[place.task]).filter(|task| !chain_waits || has_own_waits(setup, task)) {
        text.push_str(&format!("waits after a failure of {}: {}\n", printable(task.name.text()), series(&waits(setup, task))));
    }
    if chain_waits {
        let tries = setup.chain.task.max_tries.count();
        text.push_str(&format!("waits between tries of the chain: {}\n", series(&bounds(&setup.chain.task.backoff, tries))));
    }
    text
}

fn has_own_waits(setup: &Setup, task: &Task) -> bool {
    task.settings.backoff != setup.chain.task.backoff || task.settings.max_tries != setup.chain.task.max_tries
}

type Bounds = Vec<(std::time::Duration, std::time::Duration)>;

fn waits(setup: &Setup, task: &Task) -> Bounds {
    let tries = match setup.chain.retry_from {
        RetryFrom::Start => task.settings.max_tries.count().min(setup.chain.task.max_tries.count()),
        RetryFrom::Failed => task.settings.max_tries.count(),
    };
    bounds(&task.settings.backoff, tries)
}

fn bounds(backoff: &crate::retry::Backoff, tries: u32) -> Bounds {
    (1..tries.min(SHOWN_WAITS + 1)).map(|failures| backoff.bounds(failures)).collect()
}

fn series(waits: &Bounds) -> String {
    let texts: Vec<_> = waits
        .iter()
        .map(|(low, high)| if low == high { Seconds(*low).to_string() } else { format!("{} to {}", Seconds(*low), Seconds(*high)) })
        .collect();
    if texts.is_empty() { "none, there is one try".to_owned() } else { texts.join(", ") }
}

fn as_json(setup: &Setup) -> serde_json::Value {
    let seconds = |waits: Bounds| waits.iter().map(|(low, high)| json!([low.as_secs_f64(), high.as_secs_f64()])).collect::<Vec<_>>();
    let tasks: Vec<_> = setup
        .plan
        .places
        .iter()
        .map(|place| {
            let task = &setup.tasks[place.task];
            json!({
                "file": task.name.text(), "name": task.name.short(), "stage": place.stage + 1,
                "depends_on": place.depends_on.iter().map(|need| setup.task_at(*need).name.text()).collect::<Vec<_>>(),
                "max_time": task.settings.max_time.duration().map(|limit| limit.as_secs_f64()),
                "waits": seconds(waits(setup, task)),
            })
        })
        .collect();
    let chain_waits = (setup.chain.retry_from == RetryFrom::Start)
        .then(|| seconds(bounds(&setup.chain.task.backoff, setup.chain.task.max_tries.count())));
    json!({ "version": 1, "chain": setup.chain.name, "task_dir": setup.dir.display().to_string(), "max_parallel": setup.chain.max_parallel, "tasks": tasks, "waits": chain_waits })
}
