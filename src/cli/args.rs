//! What can be typed. One definition for parsing, help, man pages and completions.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::report::bars::Progress;
use crate::report::log::LogFormat;

/// Run the executables of a directory, in order, until it worked.
#[derive(Debug, Parser)]
#[command(
    name = "runner",
    version,
    about = "Run the executables of a directory, in order, until it worked",
    after_help = "Exit: 0 done, 1 gave up, 3 halted by a task, 4 filters left nothing, 5 stopped by a task, 64 usage, 70 internal error, 74 output, state or lock engine, 75 already running, 78 configuration, 79 lock lost; by a signal when told to stop by one.",
    disable_help_subcommand = true
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What stands before a command, or without one.
    #[command(flatten)]
    pub main: MainArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What is typed for the main chain.
#[derive(Debug, Default, Args)]
pub struct MainArgs {
    /// Options of a run.
    #[command(flatten)]
    pub run: RunArgs,
    /// Print one value of the configuration (as `runner-config -g` does)
    #[arg(short, long, value_name = "SECTION.KEY", conflicts_with = "task_dir")]
    pub get: Option<String>,
    /// Run the tasks of this directory instead of task_dir
    #[arg(value_name = "TASK_DIR")]
    pub task_dir: Option<PathBuf>,
}

/// The commands that have a name. Without one the main chain is run. What each is given is put together when it is called; the
/// first line of that type's own description is then what help says of the command, so it is the same as here.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum Command {
    /// Run the tasks of a directory
    Run(RunCommand),
    /// Look for mistakes in the configuration and the task directory
    Check,
    /// Show the tasks in their order, with their settings and where each was said
    List {
        /// The chain
        #[arg(default_value = crate::names::MAIN_CHAIN)]
        chain: String,
    },
    /// Run chains at once, side by side, once
    #[cfg(feature = "schedule")]
    Now {
        /// The chains; every enabled one with a name of its own when none is named
        #[arg(value_name = "CHAIN")]
        chains: Vec<String>,
        /// Run without the locks of the configuration
        #[arg(long, visible_alias = "disable-one-instance")]
        no_lock: bool,
    },
    /// Fire chains on their schedules until told to stop
    #[cfg(all(feature = "schedule", feature = "store"))]
    Daemon,
    /// Fire what is due in this minute, wait for it, exit (from cron or a timer)
    #[cfg(all(feature = "schedule", feature = "store"))]
    Tick,
    /// Show the next slots of all chains by time, or of those that are named
    #[cfg(all(feature = "schedule", feature = "store"))]
    Schedule {
        /// The chains; all that have a name when none is named
        #[arg(value_name = "CHAIN")]
        chains: Vec<String>,
        /// Not more than N of each chain [default: 5, in a table of all of more than 4 chains 1; 1000 with --before]
        #[arg(short = 'n', long, value_name = "N")]
        count: Option<usize>,
        /// Those after this time (RFC 3339, HH:MM, +D) instead of after now
        #[arg(long, value_name = "TIME")]
        after: Option<String>,
        /// Only those before this time; HH:MM is the first such time after --after, else after now
        #[arg(long, value_name = "TIME")]
        before: Option<String>,
    },
    /// Show the runs of the past, the newest first
    #[cfg(feature = "store")]
    History {
        /// Only the runs of this chain
        chain: Option<String>,
        /// Only those that ended otherwise than wanted
        #[arg(long)]
        failed: bool,
        /// Not more than N
        #[arg(short = 'n', long = "count", value_name = "N", default_value_t = 20)]
        count: u32,
    },
    /// Show one run with the tries of its tasks
    #[cfg(feature = "store")]
    Show {
        /// The id of the run, or as much of its beginning or end as no other has; or a chain: its last run [default: the last
        /// run of all]
        #[arg(value_name = "RUN|CHAIN")]
        run: Option<String>,
    },
    /// End a run of the daemon, of `now` or of the main chain, and wait until it is over
    ///
    /// The run ends as by TERM: its tasks get TERM, and KILL after kill_after; no halt task is run. The daemon goes on. A second
    /// `stop` of the same run kills at once. Only root and the user that runner runs as are obeyed.
    #[cfg(all(feature = "schedule", feature = "store"))]
    Stop {
        /// The chains, or the ids of runs (as much of their beginning or end as no other has)
        #[arg(value_name = "CHAIN|RUN")]
        words: Vec<String>,
        /// Do not wait until it is over
        #[arg(long)]
        no_wait: bool,
    },
    /// Add a job to a queue; prints its id
    #[cfg(all(feature = "schedule", feature = "store"))]
    Enqueue(super::queue_args::EnqueueArgs),
    /// Work queues until told to stop
    #[cfg(all(feature = "schedule", feature = "store"))]
    Work(super::queue_args::WorkArgs),
    /// Look after the jobs of queues
    #[cfg(all(feature = "schedule", feature = "store"))]
    Queue {
        /// What to do.
        #[command(subcommand)]
        command: super::queue_args::QueueCommand,
    },
    /// Show how chains, locks and queues stand: what runs, what came of the last run, what is next
    ///
    /// A table of chains (what runs and how far it is, when a run last began and ended, how, and when the next comes), one of
    /// the locks that they need and who holds them, one of the queues with their jobs; below them whether anybody is there to
    /// fire slots and to work queues.
    #[cfg(all(feature = "schedule", feature = "store"))]
    Status {
        /// The chains; all of them when none is named
        #[arg(value_name = "CHAIN")]
        chains: Vec<String>,
        /// Exit with 1 and name the chains whose last success is not younger than this
        #[arg(long, value_name = "D")]
        max_age: Option<String>,
        /// Show it again whenever something changes, until a signal comes
        #[arg(long, conflicts_with = "max_age")]
        watch: bool,
    },
    /// Tell why a chain did not run, or does not run yet
    #[cfg(all(feature = "schedule", feature = "store"))]
    Why {
        /// The chain; without one, what is not well of all of them
        #[arg(value_name = "CHAIN")]
        chain: Option<String>,
    },
    /// Turn what another system has into chains
    #[cfg(feature = "schedule")]
    Import {
        /// What it is.
        #[command(subcommand)]
        from: ImportFrom,
    },
    /// Run a command that only one at a time may run
    Lock(LockArgs),
    /// End what runs under a lock when its holder dies (called by runner itself)
    #[command(hide = true)]
    LockGuard {
        /// From TERM to KILL, in seconds.
        kill_after: f64,
    },
    /// Print what a shell needs to complete command lines
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a directory
    Man {
        /// The directory
        dir: PathBuf,
    },
}

/// Turn what another system has into chains
#[cfg(feature = "schedule")]
#[derive(Debug, Subcommand)]
pub enum ImportFrom {
    /// Print the sections of chains that do what a crontab does
    Crontab {
        /// The crontab; - reads standard input
        file: PathBuf,
        /// It is a user's own, as crontab -l prints it: no column for the user
        #[arg(long)]
        user: bool,
        /// Write the commands as scripts into this directory; over nothing that is there
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
    },
}

/// Where the help shows what every command takes: behind what is its own.
const EVERYWHERE: &str = "Options of every command";

/// Options of every command.
#[derive(Debug, Args)]
pub struct GlobalArgs {
    /// Configuration file [default: $RUNNER_CONFIG, else /etc/runner/runner.cfg]
    #[arg(short, long, value_name = "FILE", global = true, help_heading = EVERYWHERE)]
    pub config: Option<PathBuf>,
    /// Set one value of the configuration; wins over every file
    #[arg(short, long, value_name = "SECTION.KEY=VALUE", global = true, help_heading = EVERYWHERE, action = ArgAction::Append)]
    pub set: Vec<String>,
    /// Tell more; twice tells all
    #[arg(short, long, global = true, help_heading = EVERYWHERE, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Tell only what went wrong
    #[arg(short, long, global = true, help_heading = EVERYWHERE)]
    pub quiet: bool,
    /// What looks wrong is an error
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub strict: bool,
    /// How log lines are written
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text, global = true, help_heading = EVERYWHERE)]
    pub log_format: LogFormat,
    /// When to colour (NO_COLOR and CLICOLOR_FORCE are heard)
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = When::Auto, global = true, help_heading = EVERYWHERE)]
    pub color: When,
    /// What is drawn on a terminal while tasks run
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Progress::Auto, global = true, help_heading = EVERYWHERE)]
    pub progress: Progress,
    /// Log to syslog instead of stderr
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub syslog: bool,
    /// Print the result as JSON
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub json: bool,
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Run the tasks of a directory
#[derive(Debug, Args)]
pub struct RunCommand {
    /// Options of the run.
    #[command(flatten)]
    pub run: RunArgs,
    /// The directory; task_dir of the configuration when it is not given
    #[arg(value_name = "TASK_DIR")]
    pub task_dir: Option<PathBuf>,
}

/// Options of a run.
#[derive(Debug, Default, Args)]
pub struct RunArgs {
    /// How many runs, 0 = for ever [default: times, else 1]
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true)]
    pub times: Option<u32>,
    /// One run, whatever the configuration says of times and intervals
    #[arg(long, conflicts_with_all = ["times", "run_interval", "sleep_interval"])]
    pub run_once: bool,
    /// The next run begins this long after the last began
    #[arg(long, value_name = "D", conflicts_with = "sleep_interval")]
    pub run_interval: Option<String>,
    /// The next run begins this long after the last ended
    #[arg(long, value_name = "D")]
    pub sleep_interval: Option<String>,
    /// Run without the lock of the configuration
    #[arg(long, visible_alias = "disable-one-instance")]
    pub no_lock: bool,
    /// Keep the lock between runs
    #[arg(long)]
    pub keep_lock: bool,
    /// Let the lock go after a failed run, and wait twice the interval
    #[arg(long)]
    pub release_on_error: bool,
    /// How long to wait for the lock (`infinity`: for ever)
    #[arg(long, value_name = "D")]
    pub wait_lock: Option<String>,
    /// Run the halt task after the last run, when all were done
    #[arg(short = 'H', long)]
    pub halt_after: bool,
    /// Show order, settings and waits; run nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Run only these tasks (names or file names, repeatable)
    #[arg(long, value_name = "TASK", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Leave these tasks out
    #[arg(long, value_name = "TASK", value_delimiter = ',')]
    pub skip: Vec<String>,
    /// Begin at this task
    #[arg(long, value_name = "TASK")]
    pub from: Option<String>,
    /// End with this task
    #[arg(long, value_name = "TASK")]
    pub until: Option<String>,
}

/// Run a command that only one at a time may run
#[derive(Debug, Args)]
#[command(
    after_help = "Exit: the command's code, 128+N when it died of signal N, 126 it did not start, 127 it is not found, 64 usage, 74 the lock's engine could not be reached, 75 somebody else holds the lock, 78 a file of passwords or certificates cannot be used, 79 the lock was lost while the command ran; by a signal when told to stop by one."
)]
pub struct LockArgs {
    /// How long to wait for the lock (`infinity`: for ever)
    #[arg(long, value_name = "D")]
    pub wait: Option<String>,
    /// How long a lease lasts without a renewal [default: 60]
    #[arg(long, value_name = "D")]
    pub ttl: Option<String>,
    /// How long a lease that has run out is kept from others [default: 1]
    #[arg(long, value_name = "D")]
    pub delay: Option<String>,
    /// From TERM to KILL when the command is ended
    #[arg(long, value_name = "D", default_value = "10")]
    pub kill_after: String,
    /// A name, file:PATH, or the URL of a lock in PostgreSQL, etcd or Consul
    #[arg(value_name = "KEY")]
    pub key: String,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", last = true, required = true)]
    pub command: Vec<OsString>,
}

impl RunArgs {
    /// Whether any of them was typed.
    pub fn is_given(&self) -> bool {
        let Self { times, run_once, run_interval, sleep_interval, halt_after, dry_run, only, skip, from, until, .. } = self;
        let words = run_interval.is_some() || sleep_interval.is_some() || from.is_some() || until.is_some();
        let lock = self.no_lock || self.keep_lock || self.release_on_error || self.wait_lock.is_some();
        times.is_some() || *run_once || words || *halt_after || *dry_run || !only.is_empty() || !skip.is_empty() || lock
    }

    /// What was typed before `run` and after it, taken together; after wins.
    pub fn merge(self, after: Self) -> Self {
        Self {
            times: after.times.or(self.times),
            run_once: after.run_once || self.run_once,
            run_interval: after.run_interval.or(self.run_interval),
            sleep_interval: after.sleep_interval.or(self.sleep_interval),
            no_lock: after.no_lock || self.no_lock,
            keep_lock: after.keep_lock || self.keep_lock,
            release_on_error: after.release_on_error || self.release_on_error,
            wait_lock: after.wait_lock.or(self.wait_lock),
            halt_after: after.halt_after || self.halt_after,
            dry_run: after.dry_run || self.dry_run,
            only: [self.only, after.only].concat(),
            skip: [self.skip, after.skip].concat(),
            from: after.from.or(self.from),
            until: after.until.or(self.until),
        }
    }
}

/// Print values of the configuration: what tasks call as `$RUNNER_CONFIG_CMD -g SECTION.KEY`.
#[derive(Debug, Parser)]
#[command(
    name = "runner-config",
    version,
    about = "Print values of runner's configuration",
    after_help = "Exit: 0 found, 1 not there, 64 usage, 78 the configuration cannot be read."
)]
pub struct ConfigCli {
    /// Print this value
    #[arg(short, long, value_name = "SECTION.KEY", required_unless_present = "list", conflicts_with = "list")]
    pub get: Option<String>,
    /// What to print, with exit 0, when the value is not there
    #[arg(long, value_name = "V", requires = "get")]
    pub default: Option<String>,
    /// What the value has to be
    #[arg(long = "type", value_name = "TYPE", value_enum, requires = "get")]
    pub kind: Option<ValueType>,
    /// List all values, or those of one section
    #[arg(short, long, value_name = "SECTION", num_args = 0..=1, default_missing_value = "")]
    pub list: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print where the value stands, too
    #[arg(long)]
    pub origin: bool,
    /// Configuration file [default: $RUNNER_CONFIG, else /etc/runner/runner.cfg]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one value; wins over every file
    #[arg(short, long, value_name = "SECTION.KEY=VALUE", action = ArgAction::Append)]
    pub set: Vec<String>,
}

/// What a value has to be, and how it is printed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ValueType {
    /// Anything, as it stands.
    Str,
    /// A whole number.
    Int,
    /// yes or no, printed as true or false.
    Bool,
    /// A duration, printed in seconds.
    Duration,
    /// A path, printed as an absolute one: relative to the file that names it.
    Path,
}
