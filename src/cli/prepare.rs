//! A configuration and a task directory made ready together: what whoever runs chains has in common, and `check` and `list`.

use std::path::Path;

use super::exit::Failure;
use super::guarded;
use super::settings::{Settings, is_error, part_findings, without_repeats};
use super::trusted::judge_chain;
use super::variables::own_environment;
use crate::chain::hold::LockPlan;
use crate::chain::setup::Setup;
use crate::config::settings::ChainSettings;
use crate::config::{Config, Finding, Severity};

/// A chain that can be run.
#[derive(Debug)]
pub struct Fit {
    /// The chain.
    pub setup: Setup,
    /// The lock that a run needs.
    pub lock: Option<LockPlan>,
    /// What is worth knowing, and stops nobody.
    pub told: Vec<Finding>,
}

/// Why a chain cannot be run.
#[derive(Debug)]
pub struct Unfit {
    /// The reasons; at least one.
    pub errors: Vec<Finding>,
    /// What the configuration says is right, its tasks are wrong: whoever is to be told of refused runs is told.
    pub of_tasks: bool,
    /// Something that is not trusted was found: then nothing is executed, no hook either.
    pub untrusted: bool,
}

impl Unfit {
    /// The reasons, as the hook of the chain is told.
    pub fn message(&self) -> String {
        self.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

/// Makes a chain ready to be run: the one way of `run`, `now`, a tick and the daemon. `findings` are those of the configuration.
///
/// # Errors
/// It cannot be run.
pub fn make_fit(settings: &Settings, config: &Config, chain: ChainSettings, findings: Vec<Finding>, dir: &Path) -> Result<Fit, Unfit> {
    let config_is_wrong = findings.iter().any(|finding| is_error(finding, settings.strict));
    let Prepared { setup, findings, untrusted, lock, wrong_lock } = prepare(config, chain, findings, dir);
    let of_tasks = !config_is_wrong && !wrong_lock;
    let (mut errors, told) = part_findings(without_repeats(findings), settings.strict);
    match setup {
        Some(setup) if errors.is_empty() => return Ok(Fit { setup, lock, told }),
        Some(_) => {}
        None if errors.is_empty() => errors.push(Finding::about(Severity::Error, format!("{} cannot be used", dir.display()))),
        None => {}
    }
    Err(Unfit { errors, of_tasks, untrusted })
}

/// A chain made ready, and everything that was found on the way.
#[derive(Debug)]
pub struct Prepared {
    /// The chain; `None` when its directory cannot be used.
    pub setup: Option<Setup>,
    /// What was found, the trust of every file included.
    pub findings: Vec<Finding>,
    /// Whether something that is not trusted was found: then nothing is executed, no hook either.
    pub untrusted: bool,
    /// The lock that a run needs.
    pub lock: Option<LockPlan>,
    /// What the configuration says of it is wrong.
    pub wrong_lock: bool,
}

/// Makes a chain ready. `findings` are those there are already.
pub fn prepare(config: &Config, chain: ChainSettings, mut findings: Vec<Finding>, dir: &Path) -> Prepared {
    let judged = chain.clone();
    let setup = Setup::new(config, chain, dir, own_environment(), &mut findings);
    let before = findings.len();
    let lock = setup.as_ref().and_then(|setup| guarded::plan(config, setup, &mut findings));
    let wrong_lock = findings.len() > before;
    let wrong = judge_chain(config, &judged, dir, setup.as_ref());
    let untrusted = wrong.iter().any(|finding| finding.severity == Severity::Error);
    findings.extend(wrong);
    Prepared { setup, findings, untrusted, lock, wrong_lock }
}

/// Refuses to go on with a configuration that could not even be read as a whole.
///
/// # Errors
/// The findings that end the command.
pub fn refuse_errors(settings: &Settings, findings: Vec<Finding>) -> Result<Vec<Finding>, Failure> {
    let (errors, told) = part_findings(without_repeats(findings), settings.strict);
    if errors.is_empty() { Ok(told) } else { Err(Failure::Config(errors)) }
}
