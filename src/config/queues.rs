//! The queues of jobs, `[queue:NAME]`: how their jobs are run, retried and kept. Decides only.

use std::time::Duration;

use super::chains::judge_name;
use super::keys;
use super::queue_values::{Keep, PriorityOrder, RetryDelay};
use super::sections::{QUEUE_PREFIX, Sections};
use super::settings::{ChainSettings, Reader};
use super::value::Tries;
use super::{Config, Finding, Origin};
use crate::names::suggestion;

/// A queue, and how its jobs are run.
#[derive(Debug, Clone)]
pub struct QueueSettings {
    /// Its name.
    pub name: String,
    /// The header of its section.
    pub origin: Origin,
    /// How a task is run; its name is that of the section.
    pub chain: ChainSettings,
    /// `jobs`.
    pub jobs: usize,
    /// `max_attempts`.
    pub max_attempts: Tries,
    /// `retry_delay`.
    pub retry_delay: RetryDelay,
    /// `poll`; at least a tenth of a second.
    pub poll: Duration,
    /// `priority_order`.
    pub order: PriorityOrder,
    /// `keep_done`.
    pub keep_done: Keep,
    /// `keep_failed`.
    pub keep_failed: Keep,
}

/// The names of the queues, in the order of their sections.
pub fn names(config: &Config) -> impl Iterator<Item = &str> {
    config.sections().filter_map(|section| section.name.strip_prefix(QUEUE_PREFIX))
}

/// Reads all queues. Whatever is wrong goes to `findings`; a queue whose name is none is left out.
pub fn read_all(config: &Config, findings: &mut Vec<Finding>) -> Vec<QueueSettings> {
    let sections = config.sections().filter_map(|section| Some((section, section.name.strip_prefix(QUEUE_PREFIX)?)));
    let mut queues = Vec::new();
    for (section, name) in sections {
        match judge_name(name) {
            Ok(()) => queues.push(QueueSettings::read(config, name, section.origin.clone(), findings)),
            Err(expected) => findings.push(Finding::error(&section.origin, format!("[{}]: {expected}", section.name))),
        }
    }
    queues
}

/// The queues that `[daemon] queues` names, in the order of their sections. One that is not there goes to `findings`, and
/// what is wrong with the sections.
pub fn of_daemon(config: &Config, findings: &mut Vec<Finding>) -> Vec<QueueSettings> {
    const ALL: &str = "*";
    let sections = Sections::for_daemon(config);
    let path = sections.of_chain();
    let wanted = Reader { path: &path, findings }.value(&keys::QUEUES);
    if wanted.is_empty() {
        return Vec::new();
    }
    let origin = path.explain(&keys::QUEUES.info).1;
    for name in wanted.iter().filter(|name| *name != ALL && names(config).all(|known| known != name.as_str())) {
        let near = suggestion(name, names(config));
        let way_out = if near.is_empty() { format!("; write [{QUEUE_PREFIX}{name}] with a task_dir") } else { near };
        findings.push(Finding::error(&origin, format!("queues: no queue is called `{name}`{way_out}")));
    }
    let is_wanted = |queue: &QueueSettings| wanted.iter().any(|name| *name == ALL || *name == queue.name);
    read_all(config, findings).into_iter().filter(is_wanted).collect()
}

impl QueueSettings {
    /// Reads what `[queue:NAME]` says.
    pub fn read(config: &Config, name: &str, origin: Origin, findings: &mut Vec<Finding>) -> Self {
        /// A worker that looks more often does nothing else.
        const LEAST_POLL: Duration = Duration::from_millis(100);
        let section = format!("{QUEUE_PREFIX}{name}");
        let chain = ChainSettings::of_chain(config, &section, findings);
        let sections = Sections::for_chain(config, &section);
        let path = sections.of_chain();
        let mut reader = Reader { path: &path, findings };
        let queue = Self {
            jobs: reader.value(&keys::JOBS),
            max_attempts: reader.value(&keys::MAX_ATTEMPTS),
            retry_delay: reader.value(&keys::RETRY_DELAY),
            poll: reader.value(&keys::POLL).max(LEAST_POLL),
            order: reader.value(&keys::PRIORITY_ORDER),
            keep_done: reader.value(&keys::KEEP_DONE),
            keep_failed: reader.value(&keys::KEEP_FAILED),
            name: name.to_owned(),
            chain,
            origin,
        };
        if queue.chain.task_dir.is_none() {
            findings.push(Finding::error(&queue.origin, format!("[{section}] needs a task_dir")));
        }
        queue
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::clock::Limit;
    use crate::config::{ini, judge};

    fn read(text: &str) -> (Vec<QueueSettings>, Vec<String>) {
        let (mut config, mut findings) = (Config::default(), Vec::new());
        let file: Arc<Path> = Path::new("/etc/r.cfg").into();
        config.add_document(&file, ini::parse(text.as_bytes()).unwrap(), &mut findings);
        judge::judge_keys(&config, &mut findings);
        let queues = read_all(&config, &mut findings);
        (queues, findings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn it_inherits_how_tasks_are_run() {
        let (queues, told) =
            read("[runner]\ntask_dir = t\nmax_time = 7\nkill_after = 3\n[queue:mail]\ntask_dir = mail\nkill_after = 2\njobs = 4\n");
        assert_eq!(told, [""; 0]);
        let queue = &queues[0];
        assert_eq!((queue.name.as_str(), queue.chain.name.as_str(), queue.jobs), ("mail", "queue:mail", 4));
        assert_eq!(queue.chain.task_dir.as_deref(), Some(Path::new("/etc/mail")));
        assert_eq!(queue.chain.task.max_time, Limit::of(Duration::from_secs(7)));
        assert_eq!((queue.chain.task.kill_after, queue.max_attempts.count()), (Duration::from_secs(2), 25));
        assert_eq!((queue.retry_delay, queue.order), (RetryDelay::Quartic, PriorityOrder::Descending));
    }

    #[test]
    fn what_is_wrong_is_told() {
        let (_, told) = read("[queue:a b]\ntask_dir = x\n[queue:c]\nmax_tries = 2\nretry_delay = soon\n");
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(told[0].contains("unknown key `max_tries` in [queue:c]"), "{told:?}");
    }

    #[test]
    fn a_daemon_works_the_queues_it_names() {
        let of_daemon = |queues: &str| {
            let (mut config, mut findings) = (Config::default(), Vec::new());
            let file: Arc<Path> = Path::new("/etc/r.cfg").into();
            let text = format!("[queue:mail]\ntask_dir = a\njobs = 2\n[queue:images]\ntask_dir = b\n[daemon]\n{queues}");
            config.add_document(&file, ini::parse(text.as_bytes()).unwrap(), &mut findings);
            judge::judge_keys(&config, &mut findings);
            let queues = of_daemon(&config, &mut findings);
            let names: Vec<String> = queues.iter().map(|queue| format!("{} {}", queue.name, queue.jobs)).collect();
            (names.join(", "), findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        };
        let good = |names: &str| (names.to_owned(), String::new());
        assert_eq!(of_daemon(""), good(""));
        assert_eq!(of_daemon("queues =\n"), good(""));
        assert_eq!(of_daemon("queues = images\n"), good("images 1"));
        assert_eq!(of_daemon("queues = images, mail mail\n"), good("mail 2, images 1"));
        assert_eq!(of_daemon("queues = *\n"), good("mail 2, images 1"));
        let (_, told) = of_daemon("queues = mial\n");
        assert_eq!(told, "/etc/r.cfg:7: queues: no queue is called `mial`; did you mean `mail`?");
        let (_, told) = of_daemon("queues = * paint\n");
        assert!(told.contains(":7: queues: no queue is called `paint`; write [queue:paint] with a task_dir"), "{told}");
    }
}
