//! The command line: sees all rooms and is seen by none. The only place for the environment, the terminal and exit
//! codes; one file for each command.

pub mod args;
#[cfg(all(feature = "schedule", feature = "store"))]
#[cfg_attr(not(feature = "http"), path = "nobody.rs")]
mod audience;
mod check;
mod check_programs;
#[cfg(all(feature = "schedule", feature = "store"))]
mod check_schedule;
#[cfg(feature = "schedule")]
mod crontab;
#[cfg(all(feature = "schedule", feature = "store"))]
mod crowded;
#[cfg(all(feature = "schedule", feature = "store"))]
mod daemon;
#[cfg(all(feature = "schedule", feature = "store"))]
mod doing;
mod dry_run;
#[cfg(all(feature = "schedule", feature = "store"))]
mod enqueue;
pub mod exit;
mod filter;
mod generate;
mod get;
#[cfg(feature = "store")]
mod going;
mod guarded;
#[cfg(feature = "store")]
mod history;
#[cfg(feature = "schedule")]
mod import;
#[cfg(all(feature = "schedule", feature = "store"))]
mod left;
mod list;
mod lock;
#[cfg(all(feature = "schedule", feature = "store"))]
mod lock_view;
#[cfg(feature = "schedule")]
mod now;
#[cfg(all(feature = "schedule", feature = "store"))]
mod outside;
mod parse;
mod prepare;
mod print;
#[cfg(all(feature = "schedule", feature = "store"))]
mod queue;
#[cfg(all(feature = "schedule", feature = "store"))]
pub mod queue_args;
#[cfg(all(feature = "schedule", feature = "store"))]
mod queue_status;
#[cfg(all(feature = "schedule", feature = "store"))]
mod queues;
mod record;
mod refused;
mod run;
#[cfg(all(feature = "schedule", feature = "store"))]
mod schedule;
mod settings;
#[cfg(feature = "store")]
mod show;
mod stage;
#[cfg(feature = "store")]
mod state;
#[cfg(all(feature = "schedule", feature = "store"))]
mod status;
#[cfg(all(feature = "schedule", feature = "store"))]
mod status_text;
#[cfg(all(feature = "schedule", feature = "store"))]
mod stop;
mod strangers;
#[cfg(feature = "store")]
mod table;
mod trusted;
#[cfg(all(feature = "schedule", feature = "store"))]
mod unread;
mod variables;
#[cfg(all(feature = "schedule", feature = "store"))]
mod waiting;
#[cfg(all(feature = "schedule", feature = "store"))]
mod watchers;
#[cfg(all(feature = "schedule", feature = "store", feature = "http"))]
mod web;
#[cfg(all(feature = "schedule", feature = "store"))]
mod why;
#[cfg(all(feature = "schedule", feature = "store"))]
mod work;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};

use crate::names::MAIN_CHAIN;
use crate::names::typed_suggestion;
use crate::process::unix;
use crate::report::log::{self as report_log, LogFormat};
use crate::report::sink::{self, Stream};
#[cfg(feature = "store")]
use crate::store::HistoryQuery;
use args::{Cli, Command, ConfigCli, MainArgs, RunCommand};
use exit::{Exit, Failure};
use settings::{GONE, Settings, log_settings};

/// `runner`.
pub fn runner_main() -> ExitCode {
    unix::begin_process();
    leave(guard(|| {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        match parse::parse(&arguments) {
            Ok(cli) => {
                let json = cli.global.json;
                // Whoever has a program read the log wants it to understand also why there is none.
                let log = (cli.global.log_format != LogFormat::Text).then(|| log_settings(&cli.global, false));
                let result = dispatch(cli);
                if let Some(log) = log.filter(|_| result.is_err() && !log::log_enabled!(log::Level::Error)) {
                    report_log::start(log);
                }
                finish(result, json, "runner")
            }
            Err(error) => tell_parse_error(error, asks_for_json(&arguments)),
        }
    }))
}

/// `runner-config`.
pub fn config_main() -> ExitCode {
    unix::begin_process();
    leave(guard(|| {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        match ConfigCli::try_parse_from(&arguments) {
            Ok(args) => finish(get::config(&args), args.json, "runner-config"),
            Err(error) => tell_parse_error(error, asks_for_json(&arguments)),
        }
    }))
}

fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    let Cli { global, main: MainArgs { run, get, task_dir }, command } = cli;
    let runs = matches!(command, None | Some(Command::Run(_)));
    if let Some(dir) = task_dir.as_ref().filter(|_| !runs && !run.is_given()) {
        let dir = dir.display();
        return Err(Failure::Usage(format!(
            "`{dir}` before this command would be a directory to run; check and list take it by -s runner.task_dir={dir}"
        )));
    }
    if !runs && (run.is_given() || task_dir.is_some()) {
        return Err(Failure::Usage(
            "the options before this command are those of a run of the main chain, and have no meaning for it".to_owned(),
        ));
    }
    if let Some(name) = get {
        if command.is_some() || run.is_given() {
            return Err(Failure::Usage("-g prints a value and takes no command".to_owned()));
        }
        let settings = Settings::resolve(&global, true)?;
        return get::value_of(settings.config_file.as_deref(), &settings.overrides, &name, settings.json);
    }
    match command {
        None => {
            if let Some(word) = &task_dir {
                refuse_unknown_word(word)?;
            }
            start(&global, run, task_dir.as_deref())
        }
        Some(Command::Run(RunCommand { run: after, task_dir: after_dir })) => {
            if task_dir.is_some() && after_dir.is_some() {
                return Err(Failure::Usage("two task directories; name one".to_owned()));
            }
            start(&global, run.merge(after), after_dir.or(task_dir).as_deref())
        }
        Some(Command::Check) => {
            let settings = Settings::resolve(&global, !names_task_dir(&global))?;
            report_log::start(settings.log.clone());
            check::check(&settings)
        }
        Some(Command::List { chain }) => {
            let settings = Settings::resolve(&global, !names_task_dir(&global)).map_err(|failure| meant_directory(failure, &chain))?;
            report_log::start(settings.log.clone());
            list::list(&settings, &chain).map_err(|failure| match failure {
                // No chain is called so. What else may be wrong is said as it is.
                Failure::Usage(_) => meant_directory(failure, &chain),
                other => other,
            })
        }
        #[cfg(feature = "schedule")]
        Some(Command::Now { chains, no_lock }) => {
            let settings = Settings::resolve(&global, true)?;
            report_log::start(settings.log.clone());
            now::now(&settings, &chains, no_lock)
        }
        #[cfg(all(feature = "schedule", feature = "store"))]
        Some(Command::Schedule { chains, count, after, before }) => {
            let settings = Settings::resolve(&global, true)?;
            report_log::start(settings.log.clone());
            schedule::schedule(&settings, &schedule::Question { chains, count, after, before })
        }
        #[cfg(all(feature = "schedule", feature = "store"))]
        Some(Command::Status { chains, max_age, watch }) => {
            let settings = Settings::resolve(&global, true)?;
            report_log::start(settings.log.clone());
            status::status(&settings, &status::Question { chains, max_age, watch })
        }
        #[cfg(all(feature = "schedule", feature = "store"))]
        Some(Command::Why { chain }) => {
            let settings = Settings::resolve(&global, true)?;
            report_log::start(settings.log.clone());
            why::why(&settings, chain.as_deref())
        }
        #[cfg(feature = "store")]
        Some(Command::History { chain, failed, count }) => {
            let settings = Settings::resolve(&global, false)?;
            report_log::start(settings.log.clone());
            history::history(&settings, HistoryQuery { chain, failed, limit: count })
        }
        #[cfg(feature = "store")]
        Some(Command::Show { run }) => {
            let settings = Settings::resolve(&global, false)?;
            report_log::start(settings.log.clone());
            show::show(&settings, run.as_deref())
        }
        #[cfg(all(feature = "schedule", feature = "store"))]
        Some(Command::Stop { words, no_wait }) => {
            let settings = Settings::resolve(&global, false)?;
            report_log::start(settings.log.clone());
            stop::stop(&settings, &words, no_wait)
        }
        #[cfg(all(feature = "schedule", feature = "store"))]
        Some(Command::Daemon) => {
            // Before anything else: whoever stops it in its first moments has it end as at any other.
            let signals = stage::hear_signals()?;
            let settings = Settings::resolve(&global, true)?;
            report_log::start(settings.log.clone());
            daemon::daemon(&settings, signals)
        }
        #[cfg(all(feature = "schedule", feature = "store"))]
        Some(Command::Tick) => {
            let settings = Settings::resolve(&global, true)?;
            report_log::start(settings.log.clone());
            daemon::tick(&settings)
        }
        Some(Command::Lock(args)) => {
            let settings = Settings::resolve(&global, false)?;
            report_log::start(settings.log);
            lock::lock(&args)
        }
        Some(Command::LockGuard { kill_after }) => lock::guard(kill_after),
        #[cfg(feature = "schedule")]
        Some(Command::Import { from: args::ImportFrom::Crontab { file, user, into } }) => {
            let settings = Settings::resolve(&global, false)?;
            report_log::start(settings.log.clone());
            import::crontab(&settings, &import::Question { file, of_user: user, into })
        }
        #[cfg(all(feature = "schedule", feature = "store"))]
        Some(command @ (Command::Enqueue(_) | Command::Work(_) | Command::Queue { .. })) => {
            let settings = Settings::resolve(&global, true)?;
            report_log::start(settings.log.clone());
            match command {
                Command::Enqueue(args) => enqueue::enqueue(&settings, args),
                Command::Work(args) => work::work(&settings, &args),
                Command::Queue { command } => queue::queue(&settings, command),
                _ => Ok(Exit::Internal),
            }
        }
        Some(Command::Completions { shell }) => generate::completions(shell),
        Some(Command::Man { dir }) => generate::man(&dir),
    }
}

fn start(global: &args::GlobalArgs, run_args: args::RunArgs, task_dir: Option<&Path>) -> Result<Exit, Failure> {
    let settings = Settings::resolve(global, task_dir.is_none())?;
    if run_args.halt_after && run_args.times == Some(0) {
        return Err(Failure::Usage("--halt-after needs a last run; --times 0 has none".to_owned()));
    }
    report_log::start(settings.log.clone());
    run::run(&settings, run_args, task_dir)
}

/// Whether `--set` says which directory is meant: then it need not stand in a file.
fn names_task_dir(global: &args::GlobalArgs) -> bool {
    global.set.iter().any(|text| text.starts_with("runner.task_dir="))
}

/// Why a word that was to be a chain is none: it may be a directory.
fn meant_directory(failure: Failure, word: &str) -> Failure {
    if word == MAIN_CHAIN || !Path::new(word).is_dir() {
        return failure;
    }
    Failure::Usage(format!(
        "`{word}` is a directory, and what stands here is the name of a chain; write -s runner.task_dir={word} in its place"
    ))
}

/// A lone word that is no directory was meant as a command, mostly.
fn refuse_unknown_word(word: &Path) -> Result<(), Failure> {
    let text = word.to_string_lossy();
    if word.is_dir() || text.contains('/') {
        return Ok(());
    }
    if std::env::current_dir().is_err() {
        return Err(Failure::Usage(format!("`{text}` is no command, and {GONE}")));
    }
    // What this program has, by its own definition.
    let commands = Cli::command();
    let names = commands.get_subcommands().filter(|command| !command.is_hide_set()).map(|command| command.get_name());
    let near = typed_suggestion(&text, names);
    Err(Failure::Usage(format!("`{text}` is neither a command nor a directory{near}")))
}

fn is_option(known: &clap::Arg, word: &str) -> bool {
    word.strip_prefix("--")
        .is_some_and(|long| known.get_long() == Some(long) || known.get_all_aliases().is_some_and(|all| all.contains(&long)))
}

/// Whether JSON was asked for on a command line that could not be understood.
fn asks_for_json(arguments: &[OsString]) -> bool {
    arguments.iter().skip(1).take_while(|word| *word != "--").any(|word| word == "--json")
}

/// What clap says, without what it says of the usage in general.
fn parse_error_json(error: &clap::Error) -> serde_json::Value {
    let text = error.to_string();
    let message = text.split("\n\nUsage:").next().unwrap_or_default();
    let message = message.split("\n\nFor more information").next().unwrap_or_default().trim();
    Failure::Usage(message.strip_prefix("error: ").unwrap_or(message).to_owned()).json()
}

/// clap's own errors: its help and version go to stdout with 0, everything else is a usage error.
fn tell_parse_error(mut error: clap::Error, json: bool) -> Exit {
    let unknown = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) if error.kind() == ErrorKind::UnknownArgument => Some(word.clone()),
        Some(_) | None => None,
    };
    if unknown.is_some() {
        // It says how to pass the word on as a value, which nobody means who types an option.
        error.remove(ContextKind::Suggested);
    }
    // Where no directory can stand.
    let second_dir = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) => Some(word.clone()),
        Some(_) | None => unknown.clone(),
    };
    let second_dir = second_dir.filter(|word| Path::new(word).is_dir());
    if second_dir.is_some() {
        error.remove(ContextKind::Suggested);
        error.remove(ContextKind::SuggestedSubcommand);
    }
    let printed = error.print();
    if let Some(word) = second_dir {
        tell(&format!("`{word}` is a directory: `runner {word}` runs one, and check and list take it by -s runner.task_dir={word}"));
    }
    if json && error.use_stderr() {
        // Nobody may be there to read it; the exit code says the same.
        let _ = print::json(&parse_error_json(&error));
    }
    let of_a_run = |word: &String| {
        let mut all = Cli::command();
        // What a command is given is added when it is asked for.
        all.build();
        all.find_subcommand("run").is_some_and(|run| run.get_arguments().any(|known| is_option(known, word)))
    };
    if let Some(word) = unknown.filter(of_a_run) {
        tell(&format!("{word} is an option of a run: see runner run --help"));
    }
    match (error.kind(), printed) {
        (ErrorKind::DisplayHelp | ErrorKind::DisplayVersion, Ok(())) => Exit::Done,
        (ErrorKind::DisplayHelp | ErrorKind::DisplayVersion, Err(failed)) => Failure::Output(failed).exit(),
        _ => Exit::Usage,
    }
}

/// Says why a command did not do what was asked: text on stderr always, JSON on stdout when JSON was asked for.
fn finish(result: Result<Exit, Failure>, json: bool, program: &str) -> Exit {
    let failure = match result {
        Ok(exit) => return exit,
        Err(failure) => failure,
    };
    let exit = failure.exit();
    if exit != Exit::Done {
        for line in failure.to_string().lines() {
            tell(&format!("{program}: {line}"));
        }
        if matches!(failure, Failure::Usage(_)) {
            tell(&format!("{program}: see {program} --help"));
        }
        if json {
            // Nobody may be there to read it; the exit code says the same.
            let _ = print::json(&failure.json());
        }
    }
    exit
}

fn tell(line: &str) {
    if log::log_enabled!(log::Level::Error) {
        log::error!("{line}");
    } else {
        sink::write(Stream::Err, format!("{line}\n").as_bytes());
    }
}

/// A fault of our own ends the program with its code, after the tasks were ended on the way out of the panic.
fn guard(body: impl FnOnce() -> Exit + std::panic::UnwindSafe) -> Exit {
    std::panic::catch_unwind(body).unwrap_or(Exit::Internal)
}

/// Ends the program: by the signal that told it to, so that whoever sent it sees that; else with the code.
fn leave(exit: Exit) -> ExitCode {
    if let Exit::Signal(signal) = exit {
        unix::die_of(signal);
    }
    ExitCode::from(exit.code())
}
