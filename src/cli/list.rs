//! `runner list`: the tasks in their order, their settings with the place each was said in, and what was left out.

use std::path::Path;

use serde_json::{Map, json};

use super::exit::{Exit, Failure};
use super::prepare::{prepare, refuse_errors};
use super::print;
use super::settings::{Loaded, Settings, find_chain, find_main_dir};
use crate::chain::setup::{Setup, Task};
use crate::config::keys::{self, KeyInfo, Scope};
use crate::config::queues::{self, QueueSettings};
use crate::config::sections::Sections;
use crate::config::{Origin, value};
use crate::names::{MAIN_CHAIN, counted, printable};

/// Prints the tasks of a chain.
///
/// # Errors
/// There is no such chain; the configuration or the directory is wrong; the result cannot be written.
pub fn list(settings: &Settings, chain: &str) -> Result<Exit, Failure> {
    let loaded = settings.load()?;
    let mut told = Vec::new();
    let own =
        if chain == MAIN_CHAIN { Ok(loaded.chain.clone()) } else { find_chain(&loaded.config, chain, &mut told).map(|own| own.chain) };
    let chain_settings = own.map_err(|failure| loaded.cause_of(failure))?;
    let dir = find_main_dir(&loaded.config, None, &chain_settings).map_err(|failure| loaded.cause_of(failure))?;
    let Loaded { config, mut findings, .. } = loaded;
    findings.extend(told);
    let prepared = prepare(&config, chain_settings, findings, &dir);
    for finding in refuse_errors(settings, prepared.findings)? {
        log::debug!("{finding}");
    }
    let sections = Sections::new(&config, chain);
    let queues = if chain == MAIN_CHAIN { queues::of_daemon(&config, &mut Vec::new()) } else { Vec::new() };
    let Some(setup) = prepared.setup else { return Err(Failure::config(format!("{} cannot be used", dir.display()))) };
    if settings.json {
        print::json(&with_queues(as_json(&sections, &setup), &queues))?
    } else {
        print::text(&format!("{}{}", as_text(&sections, &setup), of_queues(&queues)))?
    }
    Ok(Exit::Done)
}

/// The keys of a task and what decides each: (key, text, origin).
fn explain(sections: &Sections<'_>, task: &Task) -> impl Iterator<Item = (&'static KeyInfo, String, Origin)> {
    let path = sections.of_task(&task.name);
    keys::ALL.iter().filter(|key| key.scope.covers(Scope::TASK) && key.name != keys::DEPENDS_ON.info.name).map(move |key| {
        let (text, origin) = path.explain(key);
        (*key, value::mask_secrets(text), origin)
    })
}

/// The queues that the daemon works.
fn of_queues(queues: &[QueueSettings]) -> String {
    let of_queue = |queue: &QueueSettings| {
        let dir = queue.chain.task_dir.as_deref().unwrap_or(Path::new("-")).display().to_string();
        format!("queue {} in {}: {} at once    # {}\n", queue.name, printable(&dir), counted(queue.jobs, "job"), queue.origin)
    };
    queues.iter().map(of_queue).collect()
}

fn with_queues(mut list: serde_json::Value, queues: &[QueueSettings]) -> serde_json::Value {
    if !queues.is_empty() {
        let of_queue = |queue: &QueueSettings| json!({ "name": queue.name, "jobs": queue.jobs, "origin": queue.origin.to_string() });
        list["queues"] = queues.iter().map(of_queue).collect();
    }
    list
}

fn needs<'a>(setup: &'a Setup, task: &'a Task) -> Vec<&'a str> {
    task.depends_on.iter().map(|need| setup.tasks[*need].name.text()).collect()
}

fn as_text(sections: &Sections<'_>, setup: &Setup) -> String {
    let mut text =
        format!("chain {} in {}: {}\n", setup.chain.name, printable(&setup.dir.display().to_string()), counted(setup.tasks.len(), "task"));
    for (at, place) in setup.plan.places.iter().enumerate() {
        let task = &setup.tasks[place.task];
        let needs = needs(setup, task);
        let after = if needs.is_empty() { String::new() } else { format!(", after {}", printable(&needs.join(", "))) };
        let (file, short) = (printable(task.name.text()), printable(task.name.short()));
        text.push_str(&format!("{:>3}. {file} (name {short}, stage {}{after})\n", at + 1, place.stage + 1));
        for (key, value, origin) in explain(sections, task) {
            if origin != Origin::Default {
                let lines: Vec<_> = value.lines().map(printable).collect();
                text.push_str(&format!("       {} = {}    # {origin}\n", key.name, lines.join("\n           ")));
            }
        }
    }
    for (name, reason) in &setup.left_out {
        text.push_str(&format!("  -  {}: {reason}\n", printable(name.text())));
    }
    text
}

fn as_json(sections: &Sections<'_>, setup: &Setup) -> serde_json::Value {
    let tasks: Vec<_> = setup.plan.places.iter().map(|place| {
        let task = &setup.tasks[place.task];
        let settings: Map<_, _> = explain(sections, task).map(|(key, value, origin)| (key.name.to_owned(), json!({ "value": value, "origin": origin.to_string() }))).collect();
        json!({ "file": task.name.text(), "name": task.name.short(), "stage": place.stage + 1, "depends_on": needs(setup, task), "settings": settings })
    }).collect();
    let left_out: Vec<_> =
        setup.left_out.iter().map(|(name, reason)| json!({ "file": name.text(), "reason": reason.to_string() })).collect();
    json!({ "version": 1, "chain": setup.chain.name, "task_dir": setup.dir.display().to_string(), "tasks": tasks, "left_out": left_out })
}
