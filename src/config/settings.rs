//! What the configuration means for a chain and for each of its tasks. Decides only.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::database::DatabaseUrl;
use super::keys::{self, Key, Output, RetryFrom, Sweep, Trust};
use super::sections::{SectionPath, Sections};
use super::value::{self, CommandLine, Tries};
use super::{Config, Entry, Finding, Origin};
use crate::clock::Limit;
use crate::names::{MAIN_CHAIN, TaskName};
use crate::outcome::{Codes, Verdict};
use crate::retry::Backoff;

/// How one task is run and retried.
#[derive(Debug, Clone)]
pub struct TaskSettings {
    /// `max_time`.
    pub max_time: Limit,
    /// `kill_after`.
    pub kill_after: Duration,
    /// `idle_timeout`.
    pub idle_timeout: Limit,
    /// `max_tries`.
    pub max_tries: Tries,
    /// `sleep_time`, `retry_jitter`, `backoff`, `max_sleep_time`.
    pub backoff: Backoff,
    /// `interpreter`.
    pub interpreter: Option<CommandLine>,
    /// `success_codes`, `halt_codes`, `stop_codes`, `skip_codes`.
    pub codes: Codes,
    /// `user`.
    pub user: Option<String>,
    /// `umask`.
    pub umask: Option<u32>,
    /// `nice`.
    pub nice: Option<i32>,
    /// `working_dir`.
    pub working_dir: Option<PathBuf>,
    /// `output`.
    pub output: Output,
    /// `sweep`.
    pub sweep: Sweep,
    /// `args`.
    pub args: Vec<String>,
}

/// How a chain is run.
#[derive(Debug, Clone)]
pub struct ChainSettings {
    /// The name of the chain.
    pub name: String,
    /// `task_dir`.
    pub task_dir: Option<PathBuf>,
    /// `retry_deadline`.
    pub retry_deadline: Limit,
    /// `retry_from`.
    pub retry_from: RetryFrom,
    /// `chain_max_time`.
    pub chain_max_time: Limit,
    /// `max_parallel`.
    pub max_parallel: usize,
    /// `halt_task`, as it was written; a named chain has none unless it names one.
    pub halt_task: Option<PathBuf>,
    /// Whether somebody wrote `halt_task`, and where.
    pub halt_task_origin: Origin,
    /// `halt_on_give_up`.
    pub halt_on_give_up: bool,
    /// `task_hook`.
    pub task_hook: Option<CommandLine>,
    /// `chain_hook`.
    pub chain_hook: Option<CommandLine>,
    /// `hook_max_time`.
    pub hook_max_time: Limit,
    /// `times`; 0 is for ever.
    pub times: u32,
    /// `run_interval`.
    pub run_interval: Option<Duration>,
    /// `sleep_interval`.
    pub sleep_interval: Option<Duration>,
    /// `trust`.
    pub trust: Trust,
    /// `lock` and its keys, where there is one.
    pub lock: Option<LockKeys>,
    /// What holds for a task that has no section of its own.
    pub task: Rc<TaskSettings>,
}

impl ChainSettings {
    /// Reads what the configuration says of a chain: `[runner]` of the main chain, `[chain:NAME]` of another. Whatever is
    /// wrong goes to `findings`.
    pub fn of_chain(config: &Config, name: &str, findings: &mut Vec<Finding>) -> Self {
        let sections = Sections::for_chain(config, name);
        let path = sections.of_chain();
        let is_main = name == MAIN_CHAIN;
        let names_halt_task = path.find(&keys::HALT_TASK.info).is_some();
        let mut reader = Reader { path: &path, findings };
        let settings = Self {
            name: name.to_owned(),
            task_dir: reader.optional(&keys::TASK_DIR),
            retry_deadline: reader.value(&keys::RETRY_DEADLINE),
            retry_from: reader.value(&keys::RETRY_FROM),
            chain_max_time: reader.value(&keys::CHAIN_MAX_TIME),
            max_parallel: reader.value(&keys::MAX_PARALLEL),
            halt_task: (is_main || names_halt_task).then(|| reader.value(&keys::HALT_TASK)),
            // An empty value is told, and the default stands in for it.
            halt_task_origin: path
                .find(&keys::HALT_TASK.info)
                .filter(|entry| !entry.value.is_empty())
                .map_or(Origin::Default, |entry| entry.origin.clone()),
            halt_on_give_up: reader.value(&keys::HALT_ON_GIVE_UP),
            task_hook: reader.optional(&keys::TASK_HOOK),
            chain_hook: reader.optional(&keys::CHAIN_HOOK),
            hook_max_time: reader.value(&keys::HOOK_MAX_TIME),
            times: if is_main { reader.value(&keys::TIMES) } else { 1 },
            run_interval: if is_main { reader.optional(&keys::RUN_INTERVAL) } else { None },
            sleep_interval: if is_main { reader.optional(&keys::SLEEP_INTERVAL) } else { None },
            trust: reader.value(&keys::TRUST),
            lock: LockKeys::read(&mut reader),
            task: Rc::new(reader.task_settings(None)),
        };
        if let (Some(_), Some(_), Some(entry)) = (settings.run_interval, settings.sleep_interval, path.find(&keys::SLEEP_INTERVAL.info)) {
            findings.push(Finding::error(&entry.origin, "run_interval and sleep_interval exclude each other; write one of them"));
        }
        settings
    }

    /// The settings of one task, and the words of its `depends_on` with their origin.
    pub fn of_task(
        &self,
        sections: &Sections<'_>,
        task: &TaskName,
        findings: &mut Vec<Finding>,
    ) -> (Rc<TaskSettings>, Vec<String>, Origin) {
        let path = sections.of_task(task);
        if path.is_general() {
            return (self.task.clone(), Vec::new(), Origin::Default);
        }
        let mut reader = Reader { path: &path, findings };
        let depends_on = reader.value(&keys::DEPENDS_ON);
        // Thousands of tasks may have a section for nothing but their dependencies.
        let says_more = path.says_more_than(&keys::DEPENDS_ON.info);
        let settings = if says_more { Rc::new(reader.task_settings(Some(&self.task))) } else { self.task.clone() };
        (settings, depends_on, path.explain(&keys::DEPENDS_ON.info).1)
    }
}

/// What is said of the lock of a chain: each text as it was written, and where. The lock itself judges what they mean together.
#[derive(Debug, Clone)]
pub struct LockKeys {
    /// `lock`.
    pub lock: (String, Origin),
    /// `lock_ttl`.
    pub ttl: (String, Origin),
    /// `lock_delay`.
    pub delay: (String, Origin),
    /// `wait_lock`.
    pub wait: (String, Origin),
    /// `keep_lock`.
    pub keep: bool,
    /// Where `release_on_error` was asked for.
    pub release_on_error: Option<Origin>,
}

impl LockKeys {
    /// What is wrong with the lock, with the line that names it.
    pub fn told(&self, wrong: &str) -> String {
        Finding::error(&self.lock.1, wrong).to_string()
    }

    fn read(reader: &mut Reader<'_, '_, '_>) -> Option<Self> {
        // Also what stands there without a lock is judged.
        let lock = reader.optional(&keys::LOCK);
        for key in [&keys::LOCK_TTL, &keys::LOCK_DELAY, &keys::WAIT_LOCK] {
            reader.value(key);
        }
        let (keep, releases) = (reader.value(&keys::KEEP_LOCK), reader.value(&keys::RELEASE_ON_ERROR));
        let explain = |info| {
            let (text, origin) = reader.path.explain(info);
            (text.to_owned(), origin)
        };
        Some(Self {
            lock: (lock?, explain(&keys::LOCK.info).1),
            ttl: explain(&keys::LOCK_TTL.info),
            delay: explain(&keys::LOCK_DELAY.info),
            wait: explain(&keys::WAIT_LOCK.info),
            keep,
            release_on_error: releases.then(|| explain(&keys::RELEASE_ON_ERROR.info).1),
        })
    }
}

/// What is kept of the past, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateSettings {
    /// The file that says so, as it was called; none where there is no configuration.
    pub config_file: Option<PathBuf>,
    /// `database`; the default one of the state directory when `None`.
    pub database: Option<DatabaseUrl>,
    /// `keep_runs`.
    pub keep_runs: u32,
    /// `keep_days`.
    pub keep_days: u32,
}

impl StateSettings {
    /// Reads what `[runner]` says of the state. Whatever is wrong goes to `findings`.
    pub fn new(config: &Config, findings: &mut Vec<Finding>) -> Self {
        let sections = Sections::for_chain(config, MAIN_CHAIN);
        let path = sections.of_chain();
        let mut reader = Reader { path: &path, findings };
        Self {
            config_file: config.files().first().map(|file| file.to_path_buf()),
            database: reader.optional(&keys::DATABASE),
            keep_runs: reader.value(&keys::KEEP_RUNS),
            keep_days: reader.value(&keys::KEEP_DAYS),
        }
    }
}

/// What `[daemon]` says.
#[derive(Debug, Clone)]
pub struct DaemonSettings {
    /// `listen`, and where it stands.
    pub listen: Option<(String, Origin)>,
    /// `allow`, and where it stands.
    pub allow: Option<(String, Origin)>,
    /// `token_file`, and where it stands.
    pub token_file: Option<(PathBuf, Origin)>,
    /// `stop_time`.
    pub stop_time: Duration,
    /// `trust` of `[runner]`.
    pub trust: Trust,
}

impl DaemonSettings {
    /// Reads `[daemon]`. Whatever is wrong goes to `findings`.
    pub fn new(config: &Config, findings: &mut Vec<Finding>) -> Self {
        let sections = Sections::for_daemon(config);
        let path = sections.of_chain();
        let mut reader = Reader { path: &path, findings };
        Self {
            listen: reader.optional(&keys::LISTEN).map(|text| (text, path.explain(&keys::LISTEN.info).1)),
            allow: reader.optional(&keys::ALLOW).map(|text| (text, path.explain(&keys::ALLOW.info).1)),
            token_file: reader.optional(&keys::TOKEN_FILE).map(|file| (file, path.explain(&keys::TOKEN_FILE.info).1)),
            stop_time: reader.value(&keys::STOP_TIME),
            trust: Reader { path: &Sections::for_chain(config, MAIN_CHAIN).of_chain(), findings: &mut Vec::new() }.value(&keys::TRUST),
        }
    }
}

/// Reads values along the sections that speak of a task or a chain.
pub(super) struct Reader<'a, 's, 'c> {
    /// Where the values stand.
    pub(super) path: &'a SectionPath<'s, 'c>,
    /// Where to tell what is wrong with them.
    pub(super) findings: &'a mut Vec<Finding>,
}

impl Reader<'_, '_, '_> {
    /// The value of a key that always has one: a bad value is reported, and the default stands in for it.
    pub(super) fn value<T>(&mut self, key: &Key<T>) -> T {
        match self.read(key) {
            Some(value) => value,
            None => match (key.read)(key.info.default, Path::new("")) {
                Ok(value) => value,
                Err(expected) => unreachable!("the default of {} does not parse: {expected}", key.info.name),
            },
        }
    }

    /// The value of a key that may be absent; an empty value is an absent one.
    pub(super) fn optional<T>(&mut self, key: &Key<T>) -> Option<T> {
        let entry = self.path.find(&key.info)?;
        if entry.value.is_empty() { None } else { self.read(key) }
    }

    fn read<T>(&mut self, key: &Key<T>) -> Option<T> {
        let entry = self.path.find(&key.info)?;
        match (key.read)(&entry.value, entry.origin.base().unwrap_or(Path::new(""))) {
            Ok(value) => Some(value),
            Err(expected) => {
                self.findings.push(bad_value(&self.path.naming(&key.info), entry, &expected));
                None
            }
        }
    }

    /// What holds for a task. One of thousands says little in its own sections: the rest was read, and judged, for its chain.
    fn task_settings(&mut self, of_chain: Option<&TaskSettings>) -> TaskSettings {
        let codes = [&keys::SUCCESS_CODES, &keys::HALT_CODES, &keys::STOP_CODES, &keys::SKIP_CODES];
        TaskSettings {
            max_time: self.own(&keys::MAX_TIME, of_chain.map(|of| of.max_time)),
            kill_after: self.own(&keys::KILL_AFTER, of_chain.map(|of| of.kill_after)),
            idle_timeout: self.own(&keys::IDLE_TIMEOUT, of_chain.map(|of| of.idle_timeout)),
            max_tries: self.own(&keys::MAX_TRIES, of_chain.map(|of| of.max_tries)),
            backoff: Backoff {
                sleep_time: self.own(&keys::SLEEP_TIME, of_chain.map(|of| of.backoff.sleep_time)),
                retry_jitter: self.own(&keys::RETRY_JITTER, of_chain.map(|of| of.backoff.retry_jitter)),
                factor: self.own(&keys::BACKOFF, of_chain.map(|of| of.backoff.factor)),
                max_sleep_time: self.own(&keys::MAX_SLEEP_TIME, of_chain.map(|of| of.backoff.max_sleep_time)),
            },
            interpreter: self.own_if_any(&keys::INTERPRETER, of_chain.map(|of| of.interpreter.clone())),
            codes: match of_chain {
                Some(of) if !codes.iter().any(|key| self.path.says(&key.info)) => of.codes.clone(),
                _ => self.codes(),
            },
            user: self.own_if_any(&keys::USER, of_chain.map(|of| of.user.clone())),
            umask: self.own_if_any(&keys::UMASK, of_chain.map(|of| of.umask)),
            nice: self.own_if_any(&keys::NICE, of_chain.map(|of| of.nice)),
            working_dir: self.own_if_any(&keys::WORKING_DIR, of_chain.map(|of| of.working_dir.clone())),
            output: self.own(&keys::OUTPUT, of_chain.map(|of| of.output)),
            sweep: self.own(&keys::SWEEP, of_chain.map(|of| of.sweep)),
            args: self.own(&keys::ARGS, of_chain.map(|of| of.args.clone())),
        }
    }

    /// `inherited`, unless a section of its own says another thing.
    fn own<T>(&mut self, key: &Key<T>, inherited: Option<T>) -> T {
        inherited.filter(|_| !self.path.says(&key.info)).unwrap_or_else(|| self.value(key))
    }

    /// The same of a key that may be absent.
    fn own_if_any<T>(&mut self, key: &Key<T>, inherited: Option<Option<T>>) -> Option<T> {
        inherited.filter(|_| !self.path.says(&key.info)).unwrap_or_else(|| self.optional(key))
    }

    /// The four lists of exit codes as one table. One code in two lists is an error, said where somebody wrote one of
    /// the two: the default of the other list may be what is in the way.
    fn codes(&mut self) -> Codes {
        let lists = [
            (&keys::SUCCESS_CODES, Verdict::Ok),
            (&keys::HALT_CODES, Verdict::Halt),
            (&keys::STOP_CODES, Verdict::Exit),
            (&keys::SKIP_CODES, Verdict::Skip),
        ];
        let mut codes = Codes::none();
        for (key, verdict) in lists {
            for code in self.value(key) {
                let Err(other) = codes.set(code, verdict) else { continue };
                let Some((other, _)) = lists.iter().find(|(_, verdict)| *verdict == other) else { continue };
                let mut both = [&key.info, &other.info].map(|info| (self.path.says(info), self.path.explain(info).1));
                // What the section of the task says has brought them together.
                both.sort_by_key(|(own, _)| !own);
                let said = both.iter().map(|(_, origin)| origin).find(|origin| **origin != Origin::Default);
                let origin = said.unwrap_or(&Origin::Default);
                let (one, two) = (key.info.name, other.info.name);
                let message = format!(
                    "the code {code} is in {two} and in {one}; a code has one meaning: write both lists, with {code} in one of them"
                );
                self.findings.push(Finding::error(origin, message));
            }
        }
        codes
    }
}

/// A value that is none.
pub(super) fn bad_value(name: &str, entry: &Entry, expected: &str) -> Finding {
    let shown = value::mask_secrets(&entry.value).replace('\n', "\\n");
    Finding::error(&entry.origin, format!("{name} = {shown}: {expected}{}", value::slip(&entry.value)))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::sync::Arc;

    use super::*;
    use crate::config::judge;
    use crate::config::keys::Scope;
    use crate::outcome::{ExitKind, ProcessEnd};

    fn read(text: &str) -> (Config, ChainSettings, Vec<String>) {
        let (mut config, mut findings) = (Config::default(), Vec::new());
        let file: Arc<Path> = Path::new("/etc/r.cfg").into();
        config.add_document(&file, super::super::ini::parse(text.as_bytes()).unwrap(), &mut findings);
        judge::judge_keys(&config, &mut findings);
        judge::judge_env(&config, &mut findings);
        let chain = ChainSettings::of_chain(&config, MAIN_CHAIN, &mut findings);
        let told = findings.iter().map(ToString::to_string).collect();
        (config, chain, told)
    }

    fn task(config: &Config, chain: &ChainSettings, file: &str) -> Rc<TaskSettings> {
        let mut findings = Vec::new();
        let settings = chain.of_task(&Sections::new(config, MAIN_CHAIN), &TaskName::parse(OsStr::new(file)), &mut findings).0;
        assert!(findings.is_empty(), "{findings:?}");
        settings
    }

    #[test]
    fn an_empty_configuration_has_the_documented_defaults() {
        let (_, chain, told) = read("");
        assert!(told.is_empty());
        assert_eq!(chain.task.max_time, Limit::of(Duration::from_secs(600)));
        assert_eq!(chain.task.backoff.wait(9, 0.0), Duration::from_secs(1));
        assert_eq!((chain.times, chain.max_parallel, chain.retry_from), (1, 1, RetryFrom::Start));
        assert_eq!(chain.task.codes.verdict(&ExitKind::Ended(ProcessEnd::Code(2))), Verdict::Halt);
        assert_eq!(chain.task.codes.verdict(&ExitKind::Ended(ProcessEnd::Code(3))), Verdict::Retry);
    }

    #[test]
    fn the_nearest_section_decides() {
        let text = "[DEFAULT]\nmax_time = 9\n[runner]\nmax_time = 1\nkill_after = 1\n[b]\nmax_time = 2\nkill_after = 2\n[task:b]\nmax_time = 3\n[task:main/b]\nmax_tries = 4\n";
        let (config, chain, told) = read(text);
        assert!(told.is_empty(), "{told:?}");
        let b = task(&config, &chain, "1-b.sh");
        assert_eq!((b.max_time, b.max_tries.count()), (Limit::of(Duration::from_secs(3)), 4));
        assert_eq!(b.kill_after, Duration::from_secs(1), "kill_after in a plain section belongs to the user");
        assert_eq!(task(&config, &chain, "1-c.sh").max_time, Limit::of(Duration::from_secs(1)));
    }

    #[test]
    fn a_task_takes_from_its_chain_what_its_own_sections_do_not_say() {
        let keys = [
            ("max_time", "1", "2"),
            ("kill_after", "1", "2"),
            ("idle_timeout", "1", "2"),
            ("max_tries", "3", "4"),
            ("sleep_time", "1", "2"),
            ("retry_jitter", "1", "2"),
            ("backoff", "2", "3"),
            ("interpreter", "/bin/sh", ""),
            ("success_codes", "0, 7", "0, 8"),
            ("halt_codes", "9", "2"),
            ("stop_codes", "10", "11"),
            ("skip_codes", "12", "13"),
            ("user", "root", ""),
            ("umask", "077", "022"),
            ("nice", "1", "2"),
            ("working_dir", "/a", ""),
            ("output", "prefix", "capture"),
            ("sweep", "never", "always"),
            ("args", "", "c"),
        ];
        let known: Vec<_> = keys::names_in(Scope::TASK).filter(|name| *name != keys::DEPENDS_ON.info.name).collect();
        assert_eq!(known.len(), keys.len(), "{known:?}");
        let general: String =
            keys.iter().filter(|(_, of_chain, _)| !of_chain.is_empty()).map(|(key, of_chain, _)| format!("{key} = {of_chain}\n")).collect();
        for (key, _, own) in keys {
            let (config, chain, told) = read(&format!("[runner]\n{general}[task:a]\n{key} = {own}\n"));
            assert!(told.is_empty(), "{told:?}");
            let (sections, name) = (Sections::new(&config, MAIN_CHAIN), TaskName::parse(OsStr::new("a")));
            let path = sections.of_task(&name);
            let read_anew = Reader { path: &path, findings: &mut Vec::new() }.task_settings(None);
            let taken = task(&config, &chain, "a");
            assert_eq!(format!("{taken:?}"), format!("{read_anew:?}"), "{key}");
            assert_ne!(format!("{taken:?}"), format!("{:?}", chain.task), "{key}");
        }
    }

    #[test]
    fn what_is_wrong_in_a_chain_is_told_once_however_many_tasks_have_sections() {
        let (config, chain, told) = read("[runner]\nmax_time = soon\nskip_codes = 2\n[task:a]\nnice = 1\n[task:b]\nnice = 2\n");
        assert_eq!(told.len(), 2, "{told:?}");
        let nice = |name| task(&config, &chain, name).nice;
        assert_ne!(nice("a"), nice("b"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_the_way_out() {
        let (_, _, told) = read(
            "[runner]\nmax_trys = 3\nmax_time = soon\nskip_codes = 2\nhalt_codes = 2\nrun_interval=1\nsleep_interval=1\n[env]\nRUNNER_X = 1\n",
        );
        assert_eq!(
            told,
            [
                "/etc/r.cfg:2: unknown key `max_trys` in [runner]; did you mean `max_tries`?",
                "/etc/r.cfg:9: `RUNNER_X` in [env] is not set: names that begin with RUNNER_ are runner's own",
                "/etc/r.cfg:3: max_time = soon: expected a duration: seconds such as 90 or 0.5, `10min`, `1h30m`, or `infinity`",
                "/etc/r.cfg:4: the code 2 is in halt_codes and in skip_codes; a code has one meaning: write both lists, with 2 in one of them",
                "/etc/r.cfg:7: run_interval and sleep_interval exclude each other; write one of them",
            ]
        );
    }

    #[test]
    fn a_code_that_a_default_list_has_is_taken_and_the_message_says_by_which() {
        let (_, _, told) = read("[runner]\nstop_codes = 2, 3\n");
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("/etc/r.cfg:2: the code 2 is in halt_codes and in stop_codes"), "{told:?}");
        let (config, chain, _) = read("[runner]\nhalt_codes = 7\n[task:z]\nsuccess_codes = 0 7\n");
        let mut findings = Vec::new();
        chain.of_task(&Sections::new(&config, MAIN_CHAIN), &TaskName::parse(OsStr::new("z")), &mut findings);
        assert!(findings[0].to_string().starts_with("/etc/r.cfg:4: the code 7 is in success_codes and in halt_codes"), "{findings:?}");
        let (_, chain, told) = read("[runner]\nstop_codes = 2, 3\nhalt_codes =\n");
        assert!(told.is_empty(), "{told:?}");
        assert_eq!(chain.task.codes.verdict(&ExitKind::Ended(ProcessEnd::Code(2))), Verdict::Exit);
    }

    #[test]
    fn variables_of_one_task_come_after_those_of_all() {
        let (config, ..) = read("[env]\nA = 1\nB = 1\n[env:x]\nB = 2\n");
        let name = TaskName::parse(OsStr::new("3-x.sh"));
        let pairs: Vec<_> = Sections::new(&config, MAIN_CHAIN)
            .variables(Some(&name))
            .into_iter()
            .map(|entry| (entry.key.as_str(), entry.value.as_str()))
            .collect();
        assert_eq!(pairs, [("A", "1"), ("B", "1"), ("B", "2")]);
    }
}
