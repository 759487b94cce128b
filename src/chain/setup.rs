//! A chain made ready to run: its tasks in order, each with its settings. Reads the task directory; starts nothing.

use std::cell::LazyCell;
use std::collections::HashSet;
use std::ffi::{CString, OsString};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::config::keys::Output;
use crate::config::sections::Sections;
use crate::config::settings::{ChainSettings, TaskSettings};
use crate::config::value::{self, CommandLine};
use crate::config::{Config, Finding, Origin, Section, Severity, chains, keys, queues};
use crate::environment::{Environment, Variables};
use crate::names::{MAIN_CHAIN, TaskName, counted, suggestion, typed_suggestion};
use crate::process::state::UNKILLABLE_AFTER;
use crate::process::user::Identity;
use crate::task::graph::{Plan, Resolver};
use crate::task::{LeftOut, TaskDir};
use crate::trust::Ownership;

/// A task and all that is needed to start it.
#[derive(Debug)]
pub struct Task {
    /// Its name.
    pub name: TaskName,
    /// Its file.
    pub path: PathBuf,
    /// What was seen of its file when the directory was listed; nothing if it is a link.
    pub seen: Option<Ownership>,
    /// How it is run and retried.
    pub settings: Rc<TaskSettings>,
    /// Its variables, without those of a try.
    pub variables: Rc<Variables>,
    /// Who it runs as.
    pub identity: Option<Rc<Identity>>,
    /// The tasks it depends on, as indices of [`Setup::tasks`].
    pub depends_on: Vec<usize>,
}

/// The halt task of a chain.
#[derive(Debug)]
pub struct Halt {
    /// Its file.
    pub path: PathBuf,
    /// Its settings; the interpreter is the chain's.
    pub settings: Rc<TaskSettings>,
}

/// A chain made ready.
#[derive(Debug)]
pub struct Setup {
    /// What holds for the chain.
    pub chain: ChainSettings,
    /// Its task directory.
    pub dir: PathBuf,
    /// Its tasks in their sort order.
    pub tasks: Vec<Task>,
    /// The order and the stages, without what a filter took away.
    pub plan: Plan,
    /// What is no task, and why.
    pub left_out: Vec<(TaskName, LeftOut)>,
    /// The halt task; a named chain has none unless it names one.
    pub halt: Option<Halt>,
    /// The variables of hooks and of the halt task.
    pub variables: Rc<Variables>,
    /// Other chains run beside this one.
    pub beside_others: bool,
}

impl Setup {
    /// Makes the main chain ready. What is wrong goes to `findings`; `None` when the directory itself cannot be used.
    pub fn new(config: &Config, chain: ChainSettings, dir: &Path, environment: &Environment, findings: &mut Vec<Finding>) -> Option<Self> {
        let sections = Sections::new(config, &chain.name);
        let mut of_halt = Vec::new();
        let halt = Halt::new(&sections, &chain, dir, &mut of_halt);
        let halt_path = halt.as_ref().map(|halt| halt.path.as_path());
        let unnamed = unnamed_halt(config, &chain, dir);
        let never = halt_path.map(|path| (path, LeftOut::HaltTask));
        let never = never.or_else(|| Some((unnamed.as_deref()?, LeftOut::UnnamedHaltTask)));
        let of_chain = !sections.of_chain().explain(&keys::INTERPRETER.info).0.is_empty();
        let has_interpreter = |name: &TaskName| {
            let path = sections.of_task(name);
            if path.is_general() { of_chain } else { !path.explain(&keys::INTERPRETER.info).0.is_empty() }
        };
        let found = match TaskDir::read(dir, never, has_interpreter) {
            Ok(found) => found,
            Err(error) => {
                let origin = dir_origin(&sections, &chain, dir);
                let slip = if is_configured(&chain, dir) { value::slip(sections.of_chain().explain(&keys::TASK_DIR.info).0) } else { "" };
                findings.push(Finding::error(&origin, format!("{}{slip}", error.to_string().replace('\n', "\\n"))));
                // In a directory that is not there, nothing is.
                findings.extend(of_halt.into_iter().filter(|_| halt_path.is_some_and(|path| !path.starts_with(dir))));
                return None;
            }
        };
        findings.extend(of_halt);
        if let Some((name, _)) = found.left_out.iter().find(|(_, reason)| *reason == LeftOut::UnnamedHaltTask) {
            let (chain, (_, origin)) = (&chain.name, sections.of_chain().explain(&keys::TASK_DIR.info));
            let message = format!(
                "chain {chain}: {name} is named as the halt task of [runner] and is not run; if it is this chain's, write halt_task = {name} in [chain:{chain}], if it is a task, rename it"
            );
            findings.push(Finding::new(Severity::Warning, &origin, message));
        }
        if found.tasks.is_empty() {
            findings.push(Finding::about(Severity::Warning, format!("there is no task in {}{}", dir.display(), why_none(&found.left_out))));
        }
        let mut setup = Self {
            variables: Rc::new(environment.variables(sections.variables(None), &[])),
            chain,
            dir: dir.to_owned(),
            tasks: Vec::with_capacity(found.tasks.len()),
            plan: Plan::default(),
            left_out: found.left_out,
            halt,
            beside_others: false,
        };
        let (names, seen): (Vec<_>, Vec<_>) = found.tasks.into_iter().unzip();
        setup.take_in(&sections, &names, &seen, environment, findings);
        judge_sections(config, &setup, findings);
        Some(setup)
    }

    fn take_in(
        &mut self,
        sections: &Sections<'_>,
        names: &[TaskName],
        seen: &[Option<Ownership>],
        environment: &Environment,
        findings: &mut Vec<Finding>,
    ) {
        let reasons: Vec<(&TaskName, String)> = self.left_out.iter().map(|(name, reason)| (name, reason.to_string())).collect();
        // Most chains have no dependencies, and then nobody has to be found by name.
        let resolver = LazyCell::new(|| Resolver::new(names, reasons.iter().map(|(name, reason)| (*name, reason.as_str()))));
        let mut needs = Vec::with_capacity(names.len());
        for (name, seen) in names.iter().zip(seen) {
            let (settings, words, origin) = self.chain.of_task(sections, name, findings);
            let mut depends_on: Vec<usize> = Vec::new();
            for word in &words {
                match resolver.resolve(name, word) {
                    Ok(need) if depends_on.contains(&need) => {}
                    Ok(need) => depends_on.push(need),
                    Err(error) => findings.push(Finding::error(&origin, error.to_string())),
                }
            }
            let identity = identity(&settings, sections, name, findings);
            let own_variables = identity.is_some() || sections.has_own_variables(name);
            let login = identity.as_ref().map_or(&[][..], |identity| &identity.variables);
            let variables =
                if own_variables { Rc::new(environment.variables(sections.variables(Some(name)), login)) } else { self.variables.clone() };
            needs.push(depends_on.clone());
            self.tasks.push(Task {
                path: file_in(&self.dir, name),
                name: name.clone(),
                seen: *seen,
                settings,
                variables,
                identity,
                depends_on,
            });
        }
        match Plan::new(names, &needs, self.chain.max_parallel) {
            Ok(plan) => self.plan = plan,
            Err(error) => {
                let origin = |task: usize| sections.of_task(&names[task]).explain(&keys::DEPENDS_ON.info).1;
                let origin = error.task().map_or(Origin::Default, origin);
                findings.push(Finding::error(&origin, error.to_string()));
            }
        }
    }

    /// The task at a place of the plan.
    pub fn task_at(&self, place: usize) -> &Task {
        &self.tasks[self.plan.places[place].task]
    }

    /// The longest time a stop may take: the longest grace of a task, and its hook.
    pub fn longest_stop(&self) -> Duration {
        let grace = self.tasks.iter().map(|task| task.settings.kill_after).max().unwrap_or_default();
        let hook = self.chain.task_hook.as_ref().and(self.chain.hook_max_time.duration()).unwrap_or_default();
        grace.saturating_add(UNKILLABLE_AFTER).saturating_add(hook)
    }

    /// Whether what some task writes goes this way.
    pub fn writes_to(&self, output: Output) -> bool {
        self.tasks.iter().any(|task| self.output_of(task) == output)
    }

    /// What happens to what a task writes: `auto` passes it on where nobody else writes at the same time.
    pub fn output_of(&self, task: &Task) -> Output {
        match task.settings.output {
            Output::Auto if self.chain.max_parallel == 1 && !self.beside_others => Output::Inherit,
            Output::Auto => Output::Prefix,
            output @ (Output::Inherit | Output::Prefix | Output::Capture) => output,
        }
    }

    /// What marks the lines of a task: its name, and its chain where there are several or it is not the main one.
    pub fn label_of(&self, task: &Task) -> String {
        if self.beside_others || self.chain.name != MAIN_CHAIN {
            format!("{}/{}", self.chain.name, task.name)
        } else {
            task.name.text().to_owned()
        }
    }

    /// Finds the task that a word of the command line means.
    ///
    /// # Errors
    /// No task is called so, and what might have been meant; or two are.
    pub fn find(&self, word: &str) -> Result<usize, String> {
        if let Some(index) = self.tasks.iter().position(|task| task.name.text() == word) {
            return Ok(index);
        }
        let called: Vec<usize> = (0..self.tasks.len()).filter(|index| self.tasks[*index].name.short() == word).collect();
        match called.as_slice() {
            [index] => Ok(*index),
            [] => {
                if let Some((name, reason)) = self.left_out.iter().find(|(name, _)| name.answers_to(word)) {
                    return Err(format!("`{word}` is no task: {name} is left out, {reason}"));
                }
                let names = self.tasks.iter().flat_map(|task| [task.name.short(), task.name.text()]);
                Err(format!("no task is called `{word}`{}", typed_suggestion(word, names)))
            }
            several => {
                let files: Vec<_> = several.iter().map(|index| self.tasks[*index].name.text()).collect();
                Err(format!("`{word}` means {}; write the file name", files.join(" and ")))
            }
        }
    }
}

/// Whether it is the configuration that names a task directory, and not the command line.
fn is_configured(chain: &ChainSettings, dir: &Path) -> bool {
    chain.task_dir.as_ref().is_some_and(|configured| std::path::absolute(configured).is_ok_and(|path| path == dir))
}

/// Where the task directory of a chain was said. Named on the command line, it is not the configuration's fault.
pub fn dir_origin(sections: &Sections<'_>, chain: &ChainSettings, dir: &Path) -> Origin {
    if is_configured(chain, dir) { sections.of_chain().explain(&keys::TASK_DIR.info).1 } else { Origin::CommandLine }
}

impl Halt {
    /// An explicitly named halt task has to be there; the default one may be missing until it is needed.
    fn new(sections: &Sections<'_>, chain: &ChainSettings, dir: &Path, findings: &mut Vec<Finding>) -> Option<Self> {
        let path = dir.join(chain.halt_task.as_ref()?);
        if !path.is_file() {
            let message = format!("the halt task {} is not there", path.display());
            findings.push(match &chain.halt_task_origin {
                Origin::Default => Finding::about(Severity::Note, format!("{message}; a halt would only end the run")),
                origin @ (Origin::CommandLine | Origin::File { .. }) => Finding::error(origin, message),
            });
        }
        let name = TaskName::parse(path.file_name().unwrap_or_default());
        let own = chain.of_task(sections, &name, findings).0;
        let settings = Rc::new(TaskSettings { interpreter: chain.task.interpreter.clone(), ..TaskSettings::clone(&own) });
        Some(Self { path, settings })
    }
}

/// What would be the halt task if a named chain took it from `[runner]`. It does not, and has none unless it names one; but a file
/// that powers the machine off must not become a task by being forgotten.
fn unnamed_halt(config: &Config, chain: &ChainSettings, dir: &Path) -> Option<PathBuf> {
    let forgotten = chain.halt_task.is_none() && chain.name != MAIN_CHAIN;
    forgotten.then(|| dir.join(Sections::for_chain(config, MAIN_CHAIN).of_chain().explain(&keys::HALT_TASK.info).0))
}

/// Why a directory that is not empty has no task: the tail of a message.
fn why_none(left_out: &[(TaskName, LeftOut)]) -> String {
    let Some(((name, reason), others)) = left_out.split_first() else { return String::new() };
    let files = counted(left_out.len(), "file");
    if others.iter().all(|(_, other)| other == reason) {
        format!("; {files} left out: {reason}")
    } else {
        format!("; {files} left out, such as {name}: {reason} (runner check names all)")
    }
}

/// The path of a task. A join would allocate twice and look at each part anew, and there may be thousands.
fn file_in(dir: &Path, name: &TaskName) -> PathBuf {
    let mut path = OsString::with_capacity(dir.as_os_str().len() + name.file().len() + 1);
    path.push(dir);
    if !dir.as_os_str().as_encoded_bytes().ends_with(b"/") {
        path.push("/");
    }
    path.push(name.file());
    path.into()
}

fn identity(settings: &TaskSettings, sections: &Sections<'_>, name: &TaskName, findings: &mut Vec<Finding>) -> Option<Rc<Identity>> {
    match Identity::look_up(settings.user.as_ref()?) {
        Ok(identity) => Some(Rc::new(identity)),
        Err(error) => {
            let path = sections.of_task(name);
            let origin = path.explain(&keys::USER.info).1;
            findings.push(Finding::error(&origin, format!("{}: {error}", path.naming(&keys::USER.info))));
            None
        }
    }
}

/// A section that speaks of a task nobody has is a slip, mostly.
fn judge_sections(config: &Config, setup: &Setup, findings: &mut Vec<Finding>) {
    let names: LazyCell<HashSet<&str>, _> =
        LazyCell::new(|| setup.tasks.iter().flat_map(|task| [task.name.text(), task.name.short()]).collect());
    let left_out: LazyCell<HashSet<&str>, _> =
        LazyCell::new(|| setup.left_out.iter().flat_map(|(name, _)| [name.text(), name.short()]).collect());
    let mut judge = |section: &Section, word: &str| {
        // `[task:other/NAME]` belongs to another chain.
        if !word.contains('/') && !names.contains(word) && !left_out.contains(word) {
            let message = format!("[{}]: no task is called `{word}`{}", section.name, suggestion(word, names.iter().copied()));
            findings.push(Finding::new(Severity::Suspect, &section.origin, message));
        }
    };
    let own = format!("task:{}/", setup.chain.name);
    // Where there are others a plain name may be a task of theirs. There may be thousands, and none looks at the sections of all.
    let several = setup.chain.name != MAIN_CHAIN || chains::names(config).chain(queues::names(config)).next().is_some();
    if several {
        config.sections_of(&setup.chain.name).for_each(|section| judge(section, section.name.strip_prefix(&own).unwrap_or_default()));
        return;
    }
    for section in config.sections() {
        match section.name.split_once(':') {
            Some(("task", word)) => judge(section, section.name.strip_prefix(&own).unwrap_or(word)),
            Some(("env", word)) => judge(section, word),
            Some(_) | None => {}
        }
    }
}

/// The words of a command: most tasks are nothing but their file.
pub type Words = SmallVec<[CString; 1]>;

/// The words a task is started with: interpreter, file, arguments. `None` when one holds a NUL byte.
pub fn argv(program: &Path, interpreter: Option<(&Path, &CommandLine)>, arguments: &[String]) -> Option<Words> {
    let path = |path: &Path| CString::new(path.as_os_str().as_encoded_bytes()).ok();
    let word = |word: &String| CString::new(word.as_bytes()).ok();
    let mut words = Words::new();
    if let Some((file, command)) = interpreter {
        words.push(path(file)?);
        for option in &command.words()[1..] {
            words.push(word(option)?);
        }
    }
    words.push(path(program)?);
    for argument in arguments {
        words.push(word(argument)?);
    }
    Some(words)
}
