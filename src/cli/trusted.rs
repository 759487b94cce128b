//! Whether root may use what a configuration and its files say: the one place where trust is asked for. Looks at owners and
//! modes; opens and changes nothing.

use std::ffi::OsStr;
use std::path::Path;

#[cfg(all(feature = "schedule", feature = "store"))]
use super::exit::Failure;
use super::settings::program_search;
use crate::chain::setup::Setup;
#[cfg(all(feature = "schedule", feature = "store"))]
use crate::config::database::DatabaseUrl;
use crate::config::keys::{self, Trust};
use crate::config::sections::Sections;
use crate::config::settings::ChainSettings;
use crate::config::value::CommandLine;
use crate::config::{Config, Finding, Origin, Severity};
use crate::names::MAIN_CHAIN;
use crate::process::find_program;
#[cfg(all(feature = "schedule", feature = "store"))]
use crate::store::open::Place;
use crate::trust::TrustCheck;

fn finding(severity: Severity, wrong: &str) -> Finding {
    Finding::about(severity, format!("not trusted: {wrong}"))
}

/// What others could have written of the files of a configuration. An error, which refuses the whole configuration: it may
/// say where records are written, who is told and which passwords are sent where. `trust = warn` of `[runner]` makes it a
/// warning, unless the very file that says so is not trusted: whoever can write it could have written that, too.
pub fn judge_files(config: &Config, trust: Trust) -> Vec<Finding> {
    let look = |file: &Path| TrustCheck::for_root().map(|mut check| check.check(file)).unwrap_or_default();
    let wrong: Vec<(&Path, Vec<String>)> =
        config.files().iter().map(|file| (&**file, look(file))).filter(|(_, wrong)| !wrong.is_empty()).collect();
    let severity = match trust {
        Trust::Refuse => Severity::Error,
        Trust::Warn => {
            let (_, said) = Sections::for_chain(config, MAIN_CHAIN).of_chain().explain(&keys::TRUST.info);
            match said {
                Origin::File { file, .. } if wrong.iter().any(|(wrong, _)| **wrong == *file) => Severity::Error,
                Origin::File { .. } | Origin::CommandLine | Origin::Default => Severity::Warning,
            }
        }
    };
    let excused = if trust == Trust::Warn && severity == Severity::Error {
        "; that it says `trust = warn` itself does not count, --set runner.trust=warn would"
    } else {
        ""
    };
    wrong.iter().flat_map(|(_, wrong)| wrong).map(|wrong| finding(severity, &format!("{wrong}{excused}"))).collect()
}

/// What others could have written of everything that a run of the chain would read or execute, as grave as its `trust` says.
pub fn judge_chain(config: &Config, chain: &ChainSettings, dir: &Path, setup: Option<&Setup>) -> Vec<Finding> {
    let severity = match chain.trust {
        Trust::Refuse => Severity::Error,
        Trust::Warn => Severity::Warning,
    };
    let wrong = Look::for_root().map(|mut look| {
        look.beside_tasks(config, chain);
        look.path(dir);
        setup.into_iter().for_each(|setup| look.tasks(setup));
        look.wrong
    });
    wrong.unwrap_or_default().iter().map(|wrong| finding(severity, wrong)).collect()
}

/// Why not even the hooks of a chain may be told that nothing is run.
pub fn refuse_hooks(config: &Config, chain: &ChainSettings) -> Option<String> {
    let mut look = Look::for_root().filter(|_| chain.trust == Trust::Refuse)?;
    look.beside_tasks(config, chain);
    (!look.wrong.is_empty()).then(|| format!("not trusted: {}", look.wrong.join("; ")))
}

/// Refuses to run what stands in a database, or to note there what has run, that others could write: who may write it runs tasks
/// as the worker. `trust = warn` only tells.
///
/// # Errors
/// It is not trusted.
#[cfg(all(feature = "schedule", feature = "store"))]
pub fn refuse_database(config: &Config, place: &Place) -> Result<(), Failure> {
    let Ok(DatabaseUrl::Sqlite(path)) = place.url() else { return Ok(()) };
    let Some(mut check) = TrustCheck::for_root() else { return Ok(()) };
    let companions = ["", "-wal", "-shm", "-journal"].map(|ending| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        name
    });
    let wrong: Vec<String> = companions.iter().flat_map(|name| check.check(Path::new(name))).collect();
    match ChainSettings::of_chain(config, MAIN_CHAIN, &mut Vec::new()).trust {
        Trust::Refuse if !wrong.is_empty() => {
            Err(Failure::Config(wrong.iter().map(|wrong| finding(Severity::Error, &format!("the database: {wrong}"))).collect()))
        }
        Trust::Refuse | Trust::Warn => {
            wrong.iter().for_each(|wrong| log::warn!("not trusted: the database: {wrong}"));
            Ok(())
        }
    }
}

/// A look at what a chain would read or execute.
struct Look {
    check: TrustCheck,
    wrong: Vec<String>,
}

impl Look {
    fn for_root() -> Option<Self> {
        TrustCheck::for_root().map(|check| Self { check, wrong: Vec::new() })
    }

    fn path(&mut self, path: &Path) {
        self.wrong.extend(self.check.check(path));
    }

    /// The program of a command, and the first file that its words name with a `/`: what an interpreter executes (`sh
    /// ./hook`). Of those behind it nobody knows; what a hook reads is its own affair, as it is with a task. `search` is the PATH
    /// by which the program will be found.
    fn command(&mut self, command: &CommandLine, search: Option<&OsStr>) {
        if let Some(path) = find_program(command.program().as_ref(), search) {
            self.path(&path);
        }
        let mut named = command.words().iter().skip(1).filter(|word| word.contains('/')).map(Path::new);
        if let Some(file) = named.find(|word| word.is_file()) {
            self.path(file);
        }
    }

    /// The files of the configuration, and the hooks.
    fn beside_tasks(&mut self, config: &Config, chain: &ChainSettings) {
        config.files().iter().for_each(|file| self.path(file));
        let hooks: Vec<&CommandLine> = chain.task_hook.iter().chain(&chain.chain_hook).collect();
        if !hooks.is_empty() {
            let search = program_search(config);
            hooks.into_iter().for_each(|hook| self.command(hook, search.as_deref()));
        }
    }

    fn tasks(&mut self, setup: &Setup) {
        for task in &setup.tasks {
            match task.seen {
                Some(seen) => self.wrong.extend(self.check.check_seen(&task.path, seen)),
                None => self.path(&task.path),
            }
        }
        setup.halt.iter().for_each(|halt| self.path(&halt.path));
        // A task may have a PATH of its own ([env:NAME]).
        let of_tasks = setup.tasks.iter().map(|task| (&task.settings, &task.variables));
        let of_halt = setup.halt.iter().map(|halt| (&halt.settings, &setup.variables));
        let with_search =
            of_tasks.chain(of_halt).filter_map(|(settings, variables)| Some((settings.interpreter.as_ref()?, variables.search.as_deref())));
        let mut interpreters: Vec<_> = with_search.collect();
        interpreters.dedup();
        interpreters.into_iter().for_each(|(interpreter, search)| self.command(interpreter, search));
    }
}
