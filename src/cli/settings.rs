//! From what was typed to what holds: files found, values parsed, the machine looked at once.

use std::env;
use std::ffi::CString;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::LevelFilter;

use super::args::{GlobalArgs, RunArgs, When};
use super::exit::{Exit, Failure};
use super::trusted::judge_files;
use super::variables::{local_zone, of_programs, own_variable};
use crate::clock::SystemClock;
use crate::config::chains::{self, NamedChain};
use crate::config::judge::{judge_env, judge_keys, judge_owners};
use crate::config::load::{DEFAULT_FILE, LoadError, Override, load};
use crate::config::push::PushSettings;
use crate::config::settings::{ChainSettings, StateSettings};
use crate::config::{Config, Finding, Origin, Severity, queues, value};
use crate::names::{MAIN_CHAIN, typed_suggestion};
use crate::outcome::RunOutcome;
use crate::push::{Push, Waits};
use crate::report::bars::Progress;
use crate::report::log::LogSettings;

/// What holds for every command.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The configuration file, absolute; `None` where there is none and none is needed.
    pub config_file: Option<PathBuf>,
    /// The configuration file as it was typed behind `-c`.
    #[cfg(all(feature = "schedule", feature = "store"))]
    pub named_config: Option<PathBuf>,
    /// `--set`.
    pub overrides: Vec<Override>,
    /// `--strict`.
    pub strict: bool,
    /// `--json`.
    pub json: bool,
    /// `--progress`.
    pub progress: Progress,
    /// The log.
    pub log: LogSettings,
}

impl Settings {
    /// Resolves the options of every command. `needs_config` is false where a task directory was named: then the
    /// default file may be missing.
    ///
    /// # Errors
    /// An option is wrong, or there is no configuration.
    pub fn resolve(args: &GlobalArgs, needs_config: bool) -> Result<Self, Failure> {
        let overrides = parse_overrides(&args.set)?;
        let color = match args.color {
            When::Always => true,
            When::Never => false,
            When::Auto => wants_color(),
        };
        Ok(Self {
            config_file: find_config(args.config.as_deref(), needs_config)?,
            #[cfg(all(feature = "schedule", feature = "store"))]
            named_config: args.config.clone(),
            overrides,
            strict: args.strict,
            json: args.json,
            progress: args.progress,
            log: log_settings(args, color),
        })
    }

    /// A command of this program as somebody types it who asked as we were asked: by the same configuration.
    #[cfg(all(feature = "schedule", feature = "store"))]
    pub fn command(&self, words: &str) -> String {
        match &self.named_config {
            Some(file) if super::variables::is_one_word(file) => format!("runner -c {} {words}", file.display()),
            Some(file) => format!("runner -c '{}' {words}", file.display().to_string().replace('\'', "'\\''")),
            None => format!("runner {words}"),
        }
    }

    /// The variables by which the tasks of this directory find the configuration.
    pub fn program_variables(&self, dir: &Path) -> Vec<CString> {
        of_programs(self.config_file.as_deref(), &self.overrides, dir)
    }

    /// Reads the configuration and judges it. Errors inside it are findings. One that root cannot trust is refused whole:
    /// nothing of it is executed, written, asked or listened on.
    ///
    /// # Errors
    /// A file of it cannot be read, or could have been written by others.
    pub fn load(&self) -> Result<Loaded, Failure> {
        let mut loaded = self.load_to_judge()?;
        let judged = judge_files(&loaded.config, loaded.chain.trust);
        let (untrusted, told): (Vec<_>, Vec<_>) = judged.into_iter().partition(|finding| finding.severity == Severity::Error);
        if !untrusted.is_empty() {
            return Err(Failure::Config(without_repeats(untrusted)));
        }
        loaded.findings.extend(told);
        Ok(loaded)
    }

    /// The same for who only tells what is wrong with it: trust is not asked for.
    ///
    /// # Errors
    /// A file of it cannot be read.
    pub fn load_to_judge(&self) -> Result<Loaded, Failure> {
        let mut findings = Vec::new();
        let config = load(self.config_file.as_deref(), &self.overrides, &mut findings).map_err(unreadable)?;
        // Of what is said in a file only its syntax is an error here, and then nothing of the file was taken in.
        let whole = findings.iter().all(|finding| finding.severity != Severity::Error);
        judge_keys(&config, &mut findings);
        judge_owners(&config, &mut findings);
        judge_env(&config, &mut findings);
        let chain = ChainSettings::of_chain(&config, MAIN_CHAIN, &mut findings);
        let state = StateSettings::new(&config, &mut findings);
        let push = PushSettings::new(&config, &mut findings);
        Ok(Loaded { config, chain, state, push, whole, findings })
    }
}

/// A configuration that was read.
#[derive(Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// What they mean for the main chain.
    pub chain: ChainSettings,
    /// What they mean for the state.
    pub state: StateSettings,
    /// Who is told of runs.
    pub push: PushSettings,
    /// Whether every file could be read to its end: else what is missing may stand in one that could not.
    pub whole: bool,
    /// What is wrong with them.
    pub findings: Vec<Finding>,
}

impl Loaded {
    /// Why something was not found: where a file was not read to its end, it may well stand there, and that is the reason.
    pub fn cause_of(&self, failure: Failure) -> Failure {
        if self.whole {
            return failure;
        }
        Failure::Config(self.findings.iter().filter(|finding| finding.severity == Severity::Error).cloned().collect())
    }
}

/// Those who are told of runs. `waits` is who waits for them.
pub fn push(settings: PushSettings, waits: Waits) -> Push {
    let exit_code = |outcome: &RunOutcome| Exit::of_run(outcome).code();
    Push::new(settings, waits, exit_code, Box::new(SystemClock::new()), local_zone)
}

/// A file that cannot be read is the configuration's fault, whatever the file system's reason.
pub fn unreadable(error: LoadError) -> Failure {
    Failure::Config(vec![Finding::error(&error.origin, error.to_string())])
}

/// `--set`, parsed.
///
/// # Errors
/// One of them is no `SECTION.KEY=VALUE`.
pub fn parse_overrides(texts: &[String]) -> Result<Vec<Override>, Failure> {
    texts.iter().map(|text| Override::parse(text).map_err(|expected| Failure::Usage(format!("--set {text}: {expected}")))).collect()
}

/// The configuration file: `-c`, else `$RUNNER_CONFIG`, else the default one.
///
/// # Errors
/// The file is named and not there, or none is named, the default is missing, and one is needed.
#[expect(clippy::disallowed_methods, reason = "cli owns the environment")]
pub fn find_config(named: Option<&Path>, needed: bool) -> Result<Option<PathBuf>, Failure> {
    let from_env = || env::var_os("RUNNER_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|error| Failure::config(format!("{}: {}", path.display(), why_not_absolute(&error))))
    };
    if let Some(file) = named.map(Path::to_owned).or_else(from_env) {
        return absolute(&file).map(Some);
    }
    let default = Path::new(DEFAULT_FILE);
    if default.exists() {
        return Ok(Some(default.to_owned()));
    }
    if needed {
        return Err(Failure::config(format!(
            "there is no configuration: {DEFAULT_FILE} is not there; name a file with --config, or a task directory: runner DIR, and -s runner.task_dir=DIR for check and list; the runs of runner DIR are shown with -c /dev/null"
        )));
    }
    Ok(None)
}

/// Whether colours are wanted on standard error (no-color.org, and CLICOLOR_FORCE of bixense.com/clicolors).
#[expect(clippy::disallowed_methods, reason = "cli owns the environment")]
fn wants_color() -> bool {
    let set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
    let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
    if env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        return false;
    }
    set("CLICOLOR_FORCE") || (std::io::stderr().is_terminal() && !dumb)
}

/// How the log is written.
pub fn log_settings(args: &GlobalArgs, color: bool) -> LogSettings {
    let level = match (args.quiet, args.verbose) {
        (true, _) => LevelFilter::Warn,
        (false, 0) => LevelFilter::Info,
        (false, 1) => LevelFilter::Debug,
        (false, _) => LevelFilter::Trace,
    };
    LogSettings { level, format: args.log_format, color, journal: stderr_is_journal(), syslog: args.syslog, tz: own_variable("TZ") }
}

/// Whether stderr is the journal's socket: JOURNAL_STREAM names its device and inode (systemd.exec(5)).
#[expect(clippy::disallowed_methods, reason = "cli owns the environment")]
fn stderr_is_journal() -> bool {
    let Some(stream) = env::var("JOURNAL_STREAM").ok() else { return false };
    let file = std::fs::metadata("/proc/self/fd/2");
    file.is_ok_and(|file| stream == format!("{}:{}", file.dev(), file.ino()))
}

/// The task directory: what was typed, else `task_dir`.
///
/// # Errors
/// Neither names one, or a lone word is no directory.
pub fn find_task_dir(typed: Option<&Path>, chain: &ChainSettings) -> Result<PathBuf, Failure> {
    let dir = match (typed, &chain.task_dir) {
        (Some(typed), _) => typed,
        (None, Some(configured)) => configured,
        (None, None) if chain.name == MAIN_CHAIN => {
            return Err(Failure::config("there is no task directory: name one, or write task_dir into [runner]"));
        }
        (None, None) => return Err(Failure::config(format!("there is no task directory: write task_dir into [chain:{}]", chain.name))),
    };
    std::path::absolute(dir).map_err(|error| Failure::config(format!("{}: {}", dir.display(), why_not_absolute(&error))))
}

/// What is said where a relative path leads nowhere.
pub const GONE: &str = "the working directory is not there any more: change to one that is, or write an absolute path";

fn why_not_absolute(error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::NotFound { GONE.to_owned() } else { error.to_string() }
}

/// The same for whoever means the main chain, who is told which others there are.
///
/// # Errors
/// As for [`find_task_dir`].
pub fn find_main_dir(config: &Config, typed: Option<&Path>, chain: &ChainSettings) -> Result<PathBuf, Failure> {
    if typed.is_some() || chain.task_dir.is_some() || has_only_main(config) {
        return find_task_dir(typed, chain);
    }
    let mut message = "there is no main chain, [runner] has no task_dir".to_owned();
    let mut others = |kind: &str, names: Vec<&str>, way_out: &str| {
        if let Some(first) = names.first() {
            message.push_str(&format!("; {kind}: {} ({})", names.join(", "), way_out.replace("NAME", first)));
        }
    };
    let of_chains = if cfg!(feature = "schedule") { "runner now NAME, runner list NAME" } else { "runner list NAME" };
    others("chains", chains::names(config).collect(), of_chains);
    others("queues", queues::names(config).collect(), "runner enqueue, runner work");
    Err(Failure::config(message))
}

/// Whether there is neither a chain with a name nor a queue, not even one that is wrong.
pub fn has_only_main(config: &Config) -> bool {
    chains::names(config).chain(queues::names(config)).next().is_none()
}

/// The named chain that a word of the command line means.
///
/// # Errors
/// No chain is called so, and what might have been meant.
pub fn find_chain(config: &Config, word: &str, findings: &mut Vec<Finding>) -> Result<NamedChain, Failure> {
    let mut all = chains::read_all(config, findings);
    if let Some(at) = all.iter().position(|chain| chain.chain.name == word) {
        return Ok(all.swap_remove(at));
    }
    let near = typed_suggestion(word, all.iter().map(|chain| chain.chain.name.as_str()).chain([MAIN_CHAIN]));
    Err(Failure::Usage(format!("no chain is called `{word}`{near}")))
}

/// Takes the options of a run over into the settings of the chain.
///
/// # Errors
/// A duration is none.
pub fn apply_run_args(chain: &mut ChainSettings, args: &RunArgs) -> Result<(), Failure> {
    let duration =
        |option: &str, text: &str| value::finite(text).map_err(|expected| Failure::Usage(format!("{option} {text}: {expected}")));
    if let Some(text) = &args.run_interval {
        (chain.run_interval, chain.sleep_interval) = (Some(duration("--run-interval", text)?), None);
    }
    if let Some(text) = &args.sleep_interval {
        (chain.run_interval, chain.sleep_interval) = (None, Some(duration("--sleep-interval", text)?));
    }
    if let Some(times) = args.times {
        chain.times = times;
    }
    if args.run_once {
        (chain.times, chain.run_interval, chain.sleep_interval) = (1, None, None);
    }
    if let Some(text) = &args.wait_lock {
        value::duration(text).map_err(|expected| Failure::Usage(format!("--wait-lock {text}: {expected}")))?;
    }
    apply_lock_args(chain, args)
}

fn apply_lock_args(chain: &mut ChainSettings, args: &RunArgs) -> Result<(), Failure> {
    if args.no_lock {
        chain.lock = None;
        return Ok(());
    }
    let Some(lock) = &mut chain.lock else {
        // Whoever believes to be the only one and is not would learn of it late.
        let typed =
            [("--keep-lock", args.keep_lock), ("--release-on-error", args.release_on_error), ("--wait-lock", args.wait_lock.is_some())];
        return match typed.iter().find(|(_, typed)| *typed) {
            Some((option, _)) => {
                Err(Failure::Usage(format!("{option}: there is no lock; write `lock` into [runner], or --set runner.lock=..")))
            }
            None => Ok(()),
        };
    };
    lock.keep |= args.keep_lock;
    if args.release_on_error {
        lock.release_on_error = Some(Origin::CommandLine);
    }
    if args.run_once {
        lock.release_on_error = None;
    }
    if let Some(text) = &args.wait_lock {
        lock.wait = (text.clone(), Origin::CommandLine);
    }
    Ok(())
}

/// Sorts findings out: the ones that end a command, and the ones that are only told.
pub fn part_findings(findings: Vec<Finding>, strict: bool) -> (Vec<Finding>, Vec<Finding>) {
    findings.into_iter().partition(|finding| is_error(finding, strict))
}

/// Whether a finding ends a command.
pub fn is_error(finding: &Finding, strict: bool) -> bool {
    match finding.severity {
        Severity::Error => true,
        Severity::Suspect => strict,
        Severity::Warning | Severity::Note => false,
    }
}

/// Each finding once: a bad value of `[runner]` is met again in every chain that takes it from there. Those of a file come in the order of its lines, and before
/// what stands in none.
pub fn without_repeats(findings: Vec<Finding>) -> Vec<Finding> {
    let mut seen = std::collections::HashSet::new();
    let mut once: Vec<Finding> = findings.into_iter().filter(|finding| seen.insert(finding.to_string())).collect();
    let mut files: Vec<Arc<Path>> = Vec::new();
    once.sort_by_cached_key(|finding| match &finding.origin {
        Origin::File { file, line } => {
            let at = files.iter().position(|known| known == file).unwrap_or_else(|| {
                files.push(file.clone());
                files.len() - 1
            });
            (at, *line)
        }
        Origin::CommandLine | Origin::Default => (usize::MAX, 0),
    });
    once
}
