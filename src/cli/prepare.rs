//! A configuration and a task directory made ready together: what `run`, `check` and `list` have in common.

use std::path::Path;

use super::exit::Failure;
use super::guarded;
use super::settings::{Settings, own_environment};
use super::trusted::judge_chain;
use crate::chain::hold::LockPlan;
use crate::chain::setup::Setup;
use crate::config::settings::ChainSettings;
use crate::config::{Config, Finding, Severity};

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
}

/// Makes a chain ready. `findings` are those there are already.
pub fn prepare(config: &Config, chain: ChainSettings, mut findings: Vec<Finding>, dir: &Path) -> Prepared {
    let judged = chain.clone();
    let setup = Setup::new(config, chain, dir, own_environment(), &mut findings);
    let lock = setup.as_ref().and_then(|setup| guarded::plan(setup, &mut findings));
    let wrong = judge_chain(config, &judged, dir, setup.as_ref());
    let untrusted = wrong.iter().any(|finding| finding.severity == Severity::Error);
    findings.extend(wrong);
    Prepared { setup, findings, untrusted, lock }
}

/// Refuses to go on with a configuration that could not even be read as a whole.
///
/// # Errors
/// The findings that end the command.
pub fn refuse_errors(settings: &Settings, findings: Vec<Finding>) -> Result<Vec<Finding>, Failure> {
    let findings = super::settings::without_repeats(findings);
    let (errors, told) = super::settings::part_findings(findings, settings.strict);
    if errors.is_empty() { Ok(told) } else { Err(Failure::Config(errors)) }
}
