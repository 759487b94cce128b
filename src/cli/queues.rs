//! The queues of the configuration, for the commands that put jobs in, look at them and work them.

use super::exit::Failure;
use super::settings::{Settings, part_findings, without_repeats};
use crate::config::Config;
use crate::config::queues::{self, QueueSettings};
use crate::config::settings::StateSettings;
use crate::names::typed_or_all;

/// The queues of the configuration, and where the state is.
///
/// # Errors
/// The configuration cannot be read, or is wrong in what concerns queues.
pub fn queues_of(settings: &Settings) -> Result<(Vec<QueueSettings>, StateSettings), Failure> {
    queues_with_config(settings).map(|(_, queues, state)| (queues, state))
}

/// The same, and the configuration itself.
///
/// # Errors
/// As for [`queues_of`].
pub fn queues_with_config(settings: &Settings) -> Result<(Config, Vec<QueueSettings>, StateSettings), Failure> {
    let loaded = settings.load()?;
    let mut findings = loaded.findings;
    let queues = queues::read_all(&loaded.config, &mut findings);
    let (errors, told) = part_findings(without_repeats(findings), settings.strict);
    if !errors.is_empty() {
        return Err(Failure::Config(errors));
    }
    super::run::tell_findings(&told);
    Ok((loaded.config, queues, loaded.state))
}

/// The queues that are named, or all.
///
/// # Errors
/// One is not known, or there is none.
pub fn find_queues(all: Vec<QueueSettings>, names: &[String]) -> Result<Vec<QueueSettings>, Failure> {
    if all.is_empty() {
        return Err(Failure::config("there is no queue: write [queue:default] with a task_dir"));
    }
    for name in names {
        if all.iter().all(|queue| queue.name != *name) {
            let near = typed_or_all(name, all.iter().map(|queue| queue.name.as_str()));
            return Err(Failure::Usage(format!("no queue is called `{name}`{near}")));
        }
    }
    Ok(all.into_iter().filter(|queue| names.is_empty() || names.contains(&queue.name)).collect())
}
