//! A configuration and a task directory made ready together: what `run`, `check` and `list` have in common.

use std::path::{Path, PathBuf};

use super::exit::Failure;
use super::guarded;
use super::settings::{Settings, own_environment, program_search};
use crate::chain::hold::LockPlan;
use crate::chain::setup::Setup;
use crate::config::keys::Trust;
use crate::config::settings::ChainSettings;
use crate::config::value::CommandLine;
use crate::config::{Config, Finding, Severity};
use crate::process::find_program;
use crate::trust::TrustCheck;

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
    let severity = match chain.trust {
        Trust::Refuse => Severity::Error,
        Trust::Warn => Severity::Warning,
    };
    let hooks: Vec<CommandLine> = chain.task_hook.iter().chain(&chain.chain_hook).cloned().collect();
    let setup = Setup::new(config, chain, dir, &own_environment(), &mut findings);
    let lock = setup.as_ref().and_then(|setup| guarded::plan(setup, &mut findings));
    let wrong = TrustCheck::for_root().map(|check| find_untrusted(check, config, dir, &hooks, setup.as_ref())).unwrap_or_default();
    let untrusted = severity == Severity::Error && !wrong.is_empty();
    findings.extend(wrong.into_iter().map(|wrong| Finding::about(severity, format!("not trusted: {wrong}"))));
    Prepared { setup, findings, untrusted, lock }
}

/// Checks everything that a run would read or execute.
fn find_untrusted(mut check: TrustCheck, config: &Config, dir: &Path, hooks: &[CommandLine], setup: Option<&Setup>) -> Vec<String> {
    let mut wrong: Vec<String> = config.files().iter().flat_map(|file| check.check(file)).collect();
    wrong.extend(check.check(dir));
    let search = program_search(config);
    let program = |command: &CommandLine| find_program(command.program().as_ref(), search.as_deref());
    wrong.extend(hooks.iter().filter_map(program).flat_map(|path| check.check(&path)));
    let Some(setup) = setup else { return wrong };
    for task in &setup.tasks {
        match task.seen {
            Some(seen) => wrong.extend(check.check_seen(&task.path, seen)),
            None => wrong.extend(check.check(&task.path)),
        }
    }
    wrong.extend(setup.halt.iter().flat_map(|halt| check.check(&halt.path)));
    let mut interpreters: Vec<PathBuf> =
        setup.tasks.iter().filter_map(|task| task.settings.interpreter.as_ref()).filter_map(program).collect();
    interpreters.sort();
    interpreters.dedup();
    wrong.extend(interpreters.iter().flat_map(|path| check.check(path)));
    wrong
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
