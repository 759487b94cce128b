//! Whether root may use what a configuration and its files say: the one place where trust is asked for. Looks at owners and
//! modes; opens and changes nothing.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::Path;

#[cfg(all(feature = "schedule", feature = "store"))]
use super::exit::Failure;
use super::variables::program_search;
use crate::chain::setup::{self, Setup};
#[cfg(all(feature = "schedule", feature = "store"))]
use crate::config::database::DatabaseUrl;
use crate::config::keys::{self, Trust};
use crate::config::load::include_dir;
use crate::config::sections::Sections;
use crate::config::settings::ChainSettings;
use crate::config::value::CommandLine;
use crate::config::{Config, Finding, Origin, Severity};
use crate::names::MAIN_CHAIN;
use crate::process::find_program;
#[cfg(all(feature = "schedule", feature = "store"))]
use crate::store::open::Place;
use crate::trust::TrustCheck;

fn finding(severity: Severity, origin: &Origin, wrong: &str) -> Finding {
    Finding::new(severity, origin, format!("not trusted: {wrong}"))
}

/// The line that has a file of the configuration read: none for the first one.
fn named_by(config: &Config, file: &Path) -> Origin {
    let is_drop_in = config.files().first().is_some_and(|first| **first != *file);
    include_dir(config).filter(|_| is_drop_in).map_or(Origin::Default, |(_, origin)| origin)
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
    // A directory above several of them is told with the first.
    let mut told = HashSet::new();
    let words = wrong.iter().flat_map(|(file, wrong)| wrong.iter().map(move |wrong| (*file, wrong)));
    let once = words.filter(|(_, wrong)| told.insert(*wrong));
    once.map(|(file, wrong)| finding(severity, &named_by(config, file), &format!("{wrong}{excused}"))).collect()
}

/// What others could have written of everything that a run of the chain would read or execute, as grave as its `trust` says.
pub fn judge_chain(config: &Config, chain: &ChainSettings, dir: &Path, setup: Option<&Setup>) -> Vec<Finding> {
    let severity = match chain.trust {
        Trust::Refuse => Severity::Error,
        Trust::Warn => Severity::Warning,
    };
    let wrong = Look::for_root().map(|mut look| {
        let sections = Sections::new(config, &chain.name);
        let of_dir = || setup::dir_origin(&sections, chain, dir);
        look.beside_tasks(config, chain);
        look.path(dir, of_dir);
        setup.into_iter().for_each(|setup| look.tasks(setup, &sections, &of_dir));
        look.wrong
    });
    wrong.unwrap_or_default().iter().map(|(origin, wrong)| finding(severity, origin, wrong)).collect()
}

/// Why not even the hooks of a chain may be told that nothing is run.
pub fn refuse_hooks(config: &Config, chain: &ChainSettings) -> Option<String> {
    let mut look = Look::for_root().filter(|_| chain.trust == Trust::Refuse)?;
    look.beside_tasks(config, chain);
    let findings = look.wrong.iter().map(|(origin, wrong)| finding(Severity::Error, origin, wrong).to_string());
    (!look.wrong.is_empty()).then(|| findings.collect::<Vec<_>>().join("; "))
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
    let (_, origin) = Sections::for_chain(config, MAIN_CHAIN).of_chain().explain(&keys::DATABASE.info);
    let told = |severity| wrong.iter().map(|wrong| finding(severity, &origin, &format!("the database: {wrong}"))).collect::<Vec<_>>();
    match ChainSettings::of_chain(config, MAIN_CHAIN, &mut Vec::new()).trust {
        Trust::Refuse if !wrong.is_empty() => Err(Failure::Config(told(Severity::Error))),
        Trust::Refuse | Trust::Warn => {
            told(Severity::Warning).iter().for_each(|finding| log::warn!("{finding}"));
            Ok(())
        }
    }
}

/// A look at what a chain would read or execute.
struct Look {
    check: TrustCheck,
    /// What is wrong, and which line led there.
    wrong: Vec<(Origin, String)>,
}

impl Look {
    fn for_root() -> Option<Self> {
        TrustCheck::for_root().map(|check| Self { check, wrong: Vec::new() })
    }

    fn path(&mut self, path: &Path, origin: impl Fn() -> Origin) {
        let wrong = self.check.check(path);
        self.note(wrong, origin);
    }

    fn note(&mut self, wrong: impl IntoIterator<Item = String>, origin: impl Fn() -> Origin) {
        self.wrong.extend(wrong.into_iter().map(|wrong| (origin(), wrong)));
    }

    /// The program of a command, and the first file that its words name with a `/`: what an interpreter executes (`sh
    /// ./hook`). Of those behind it nobody knows; what a hook reads is its own affair, as it is with a task. `search` is the PATH
    /// by which the program will be found.
    fn command(&mut self, command: &CommandLine, search: Option<&OsStr>, origin: impl Fn() -> Origin) {
        if let Some(path) = find_program(command.program().as_ref(), search) {
            self.path(&path, &origin);
        }
        let mut named = command.words().iter().skip(1).filter(|word| word.contains('/')).map(Path::new);
        if let Some(file) = named.find(|word| word.is_file()) {
            self.path(file, origin);
        }
    }

    /// The files of the configuration, and the hooks.
    fn beside_tasks(&mut self, config: &Config, chain: &ChainSettings) {
        config.files().iter().for_each(|file| self.path(file, || named_by(config, file)));
        let of_task = chain.task_hook.as_ref().map(|hook| (hook, &keys::TASK_HOOK.info));
        let of_chain = chain.chain_hook.as_ref().map(|hook| (hook, &keys::CHAIN_HOOK.info));
        let hooks: Vec<_> = of_task.into_iter().chain(of_chain).collect();
        if !hooks.is_empty() {
            let (search, sections) = (program_search(config), Sections::for_chain(config, &chain.name));
            for (hook, key) in hooks {
                self.command(hook, search.as_deref(), || sections.of_chain().explain(key).1);
            }
        }
    }

    fn tasks(&mut self, setup: &Setup, sections: &Sections<'_>, of_dir: &dyn Fn() -> Origin) {
        for task in &setup.tasks {
            match task.seen {
                Some(seen) => self.note(self.check.check_seen(&task.path, seen), of_dir),
                None => self.path(&task.path, of_dir),
            }
        }
        if let Some(halt) = &setup.halt {
            self.path(&halt.path, || match &setup.chain.halt_task_origin {
                Origin::Default => of_dir(),
                said @ (Origin::CommandLine | Origin::File { .. }) => said.clone(),
            });
        }
        // A task may have a PATH of its own ([env:NAME]).
        let of_tasks = setup.tasks.iter().map(|task| (&task.settings, &task.variables, Some(&task.name)));
        let of_halt = setup.halt.iter().map(|halt| (&halt.settings, &setup.variables, None));
        let with_search = of_tasks
            .chain(of_halt)
            .filter_map(|(settings, variables, task)| Some((settings.interpreter.as_ref()?, variables.search.as_deref(), task)));
        let mut interpreters: Vec<_> = with_search.collect();
        interpreters.dedup_by(|(later, path, _), (earlier, search, _)| (later, path) == (earlier, search));
        for (interpreter, search, task) in interpreters {
            let said = || match task {
                Some(task) => sections.of_task(task).explain(&keys::INTERPRETER.info).1,
                None => sections.of_chain().explain(&keys::INTERPRETER.info).1,
            };
            self.command(interpreter, search, said);
        }
    }
}
