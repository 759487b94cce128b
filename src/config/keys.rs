//! The keys that runner knows: name, default, meaning, and the sections they may stand in.
//! A key's type and reader stand beside it; `settings` asks for keys only through this table.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::database::DatabaseUrl;
use super::endpoint::{self, Endpoint, Influx};
use super::queue_values::{Keep, PriorityOrder, RetryDelay};
use super::value::{self, CommandLine, Parsed, Tries};
use crate::clock::Limit;

/// What others could write may be refused, or only told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Nothing of it is executed.
    Refuse,
    /// A warning is written.
    Warn,
}

/// Where the chain begins again after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryFrom {
    /// At its first task, as the old documentation says.
    Start,
    /// Only the failed task runs again; each task has its own tries.
    Failed,
}

/// What happens to what a task writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// `inherit` at width 1, else `prefix`.
    Auto,
    /// The task has our descriptors; nothing is kept.
    Inherit,
    /// Each line is marked with its task.
    Prefix,
    /// Shown when the task fails.
    Capture,
}

/// When processes that a task left behind are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// Only the process group after a time-out or a stop.
    Never,
    /// After a failure, a time-out, a stop.
    OnFailure,
    /// Always.
    Always,
}

/// Slots that passed while nobody could start them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// Are given up.
    Skip,
    /// The newest one is caught up, once.
    Last,
    /// Each of them is caught up, at most a hundred.
    All,
}

/// What happens to a slot whose chain still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// It is given up.
    Skip,
    /// It waits for the run to end; a second one that waits is given up.
    Queue,
    /// The running one is stopped for it.
    Replace,
}

/// Among whom a slot is used once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotScope {
    /// The programs of this machine.
    Machine,
    /// All machines that share the database.
    Cluster,
}

/// The sections a key may stand in, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope(u16);

impl Scope {
    /// `[runner]`.
    pub const RUNNER: Self = Self(1);
    /// `[task:NAME]` and `[task:CHAIN/NAME]`.
    pub const TASK: Self = Self(2);
    /// A plain section with a task's name, as the old one had it.
    pub const OLD_TASK: Self = Self(4);
    /// `[chain:NAME]`.
    pub const CHAIN: Self = Self(8);
    /// What a named chain takes from `[runner]` when it does not say it itself: how a task is run and retried.
    pub const INHERITED: Self = Self(16);
    /// `[daemon]`.
    pub const DAEMON: Self = Self(32);
    /// `[metrics]`.
    pub const METRICS: Self = Self(64);
    /// `[liveness]`.
    pub const LIVENESS: Self = Self(128);
    /// `[queue:NAME]`.
    pub const QUEUE: Self = Self(256);
    const EACH_CHAIN: Self = Self(Self::RUNNER.0 | Self::CHAIN.0);
    const EACH_DIR: Self = Self(Self::EACH_CHAIN.0 | Self::QUEUE.0);
    const SHARED: Self = Self(Self::EACH_CHAIN.0 | Self::INHERITED.0);
    const SHARED_BY_ALL: Self = Self(Self::SHARED.0 | Self::QUEUE.0);
    const SHARED_AND_TASK: Self = Self(Self::SHARED.0 | Self::TASK.0);
    const HOW_TO_RUN: Self = Self(Self::SHARED_AND_TASK.0 | Self::QUEUE.0);
    const OLD: Self = Self(Self::SHARED_AND_TASK.0 | Self::OLD_TASK.0);
    const OLD_HOW_TO_RUN: Self = Self(Self::OLD.0 | Self::QUEUE.0);
    const TASK_AND_OLD: Self = Self(Self::TASK.0 | Self::OLD_TASK.0);

    /// Whether a key of this scope may stand in `section`.
    pub fn covers(self, section: Self) -> bool {
        self.0 & section.0 == section.0
    }
}

/// What is known of a key without its type.
#[derive(Debug)]
pub struct KeyInfo {
    /// As it is written.
    pub name: &'static str,
    /// The text that stands for a key nobody wrote; empty where there is no default.
    pub default: &'static str,
    /// In one line.
    pub meaning: &'static str,
    /// Where it may stand.
    pub scope: Scope,
}

/// A key and the reader of its values. Relative paths are resolved against the given directory.
#[derive(Debug)]
pub struct Key<T> {
    /// Name, default, meaning, scope.
    pub info: KeyInfo,
    /// From text to value, or what was expected.
    pub read: fn(&str, &Path) -> Parsed<T>,
}

macro_rules! keys {
    ($($ident:ident: $type:ty = $name:literal, $default:literal, $scope:ident, $read:expr, $meaning:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "`: ", $meaning, ".")]
            pub const $ident: Key<$type> = Key {
                info: KeyInfo { name: $name, default: $default, meaning: $meaning, scope: Scope::$scope },
                read: $read,
            };
        )*
        /// Every key, in the order of the documentation.
        pub const ALL: &[&KeyInfo] = &[$(&$ident.info),*];

        /// The key of this name.
        fn find(name: &str) -> Option<&'static KeyInfo> {
            match name {
                $($name => Some(&$ident.info),)*
                _ => None,
            }
        }

        /// What is expected where the text is no value of the key of this name; nothing where it is one, or there is no such key.
        pub fn judge(name: &str, text: &str, base: &Path) -> Option<String> {
            match name {
                $($name => ($ident.read)(text, base).err(),)*
                _ => None,
            }
        }
    };
}

// `infinity` is a `value::duration`, no `value::finite` one; of a `value::limit` it is none, as 0 is.
keys! {
    TASK_DIR: PathBuf = "task_dir", "", EACH_DIR, value::path, "directory of tasks";
    INCLUDE_DIR: PathBuf = "include_dir", "", RUNNER, value::path, "directory of drop-in configuration, `*.cfg` by name";
    SLEEP_TIME: Duration = "sleep_time", "1", OLD, |text, _| value::finite(text), "least wait before the next try";
    RETRY_JITTER: Duration = "retry_jitter", "30", OLD, |text, _| value::finite(text), "a random part of this is added to sleep_time";
    BACKOFF: f64 = "backoff", "1", SHARED_AND_TASK, |text, _| value::factor(text), "factor by which the wait grows with each try";
    MAX_SLEEP_TIME: Duration = "max_sleep_time", "1h", SHARED, |text, _| value::duration(text), "the wait never grows over this";
    MAX_TRIES: Tries = "max_tries", "5", OLD, |text, _| value::tries(text), "tries in all, 0 = no limit";
    RETRY_DEADLINE: Limit = "retry_deadline", "infinity", SHARED, |text, _| value::limit(text), "no try begins later than this after the first";
    RETRY_FROM: RetryFrom = "retry_from", "start", SHARED, |text, _| value::choice(text, &[("start", RetryFrom::Start), ("failed", RetryFrom::Failed)]), "where to begin again: the chain's start, or only the failed task";
    MAX_TIME: Limit = "max_time", "600", OLD_HOW_TO_RUN, |text, _| value::limit(text), "limit of one task";
    KILL_AFTER: Duration = "kill_after", "10", HOW_TO_RUN, |text, _| value::duration(text), "time from TERM to KILL";
    IDLE_TIMEOUT: Limit = "idle_timeout", "0", HOW_TO_RUN, |text, _| value::limit(text), "limit since the task's start or last progress";
    CHAIN_MAX_TIME: Limit = "chain_max_time", "0", EACH_CHAIN, |text, _| value::limit(text), "limit of a whole run";
    HALT_TASK: PathBuf = "halt_task", "halt.sh", EACH_CHAIN, |text, _| value::path(text, Path::new("")), "a file of the task directory, or an absolute path";
    HALT_ON_GIVE_UP: bool = "halt_on_give_up", "yes", EACH_CHAIN, |text, _| value::boolean(text), "run the halt task when tries are used up, too";
    TASK_HOOK: CommandLine = "task_hook", "", SHARED_BY_ALL, value::command, "command run before and after each task";
    CHAIN_HOOK: CommandLine = "chain_hook", "", SHARED, value::command, "command run at start and end of a run, and when one did not start";
    HOOK_MAX_TIME: Limit = "hook_max_time", "60", SHARED_BY_ALL, |text, _| value::limit(text), "limit of one hook";
    INTERPRETER: CommandLine = "interpreter", "", OLD_HOW_TO_RUN, value::command, "command put before each task file";
    SUCCESS_CODES: Vec<u8> = "success_codes", "0", HOW_TO_RUN, |text, _| value::codes(text), "exit codes that mean done";
    HALT_CODES: Vec<u8> = "halt_codes", "2", HOW_TO_RUN, |text, _| value::codes(text), "exit codes that mean: run the halt task and stop";
    STOP_CODES: Vec<u8> = "stop_codes", "", HOW_TO_RUN, |text, _| value::codes(text), "exit codes that mean: stop without the halt task";
    SKIP_CODES: Vec<u8> = "skip_codes", "", HOW_TO_RUN, |text, _| value::codes(text), "exit codes that mean: done, nothing to do";
    MAX_PARALLEL: usize = "max_parallel", "1", EACH_CHAIN, |text, _| value::width(text), "tasks that may run side by side";
    TIMES: u32 = "times", "1", RUNNER, |text, _| value::count(text), "how many runs, 0 = for ever";
    RUN_INTERVAL: Duration = "run_interval", "", RUNNER, |text, _| value::finite(text), "the next run begins this long after the last began";
    SLEEP_INTERVAL: Duration = "sleep_interval", "", RUNNER, |text, _| value::finite(text), "the next run begins this long after the last ended";
    USER: String = "user", "", HOW_TO_RUN, |text, _| Ok(text.to_owned()), "user the tasks run as";
    UMASK: u32 = "umask", "", HOW_TO_RUN, |text, _| value::umask(text), "file mode creation mask of tasks";
    NICE: i32 = "nice", "", HOW_TO_RUN, |text, _| value::nice(text), "niceness of tasks";
    WORKING_DIR: PathBuf = "working_dir", "", HOW_TO_RUN, value::path, "directory the tasks start in";
    OUTPUT: Output = "output", "auto", HOW_TO_RUN, |text, _| value::choice(text, &[("auto", Output::Auto), ("inherit", Output::Inherit), ("prefix", Output::Prefix), ("capture", Output::Capture)]), "what happens to what a task writes";
    SWEEP: Sweep = "sweep", "on-failure", HOW_TO_RUN, |text, _| value::choice(text, &[("never", Sweep::Never), ("on-failure", Sweep::OnFailure), ("always", Sweep::Always)]), "when processes a task left behind are ended";
    TRUST: Trust = "trust", "refuse", SHARED_BY_ALL, |text, _| value::choice(text, &[("refuse", Trust::Refuse), ("warn", Trust::Warn)]), "what others could write: refuse it, or only warn";
    LOCK: String = "lock", "", EACH_CHAIN, |text, _| Ok(text.to_owned()), "the lock that a run needs: file:PATH, postgresql://..., etcd://..., consul://...";
    LOCK_TTL: Duration = "lock_ttl", "60", EACH_CHAIN, |text, _| value::finite(text), "how long the lock lasts without a renewal";
    LOCK_DELAY: Duration = "lock_delay", "1", EACH_CHAIN, |text, _| value::finite(text), "how long a lock that has run out is kept from others";
    WAIT_LOCK: Duration = "wait_lock", "0", EACH_CHAIN, |text, _| value::duration(text), "how long a run waits for the lock";
    KEEP_LOCK: bool = "keep_lock", "no", EACH_CHAIN, |text, _| value::boolean(text), "keep the lock between runs";
    RELEASE_ON_ERROR: bool = "release_on_error", "no", EACH_CHAIN, |text, _| value::boolean(text), "let the lock go after a failed run, and wait twice the interval, or leave the next slot to others";
    DATABASE: DatabaseUrl = "database", "", RUNNER, DatabaseUrl::parse, "where state is kept: sqlite:PATH or postgresql://...";
    KEEP_RUNS: u32 = "keep_runs", "1000", RUNNER, |text, _| value::count(text), "how many runs the history keeps";
    KEEP_DAYS: u32 = "keep_days", "90", RUNNER, |text, _| value::count(text), "how many days the history goes back";
    DEPENDS_ON: Vec<String> = "depends_on", "", TASK_AND_OLD, |text, _| Ok(value::words(text)), "tasks that must be done first, by name or file name";
    ARGS: Vec<String> = "args", "", TASK, |text, _| value::arguments(text), "arguments of the task";
    SCHEDULE: String = "schedule", "", CHAIN, |text, _| Ok(text.to_owned()), "when the chain runs: cron, days and times, @words, every D; a line each";
    TIMEZONE: String = "timezone", "", CHAIN, |text, _| value::time_zone(text), "zone of the schedule; the machine's without one";
    MISSED: Missed = "missed", "last", CHAIN, |text, _| value::choice(text, &[("skip", Missed::Skip), ("last", Missed::Last), ("all", Missed::All)]), "slots that passed while nothing ran: give them up, catch up the newest, catch up all";
    MISSED_WINDOW: Duration = "missed_window", "1d", CHAIN, |text, _| value::duration(text), "how far back missed slots are looked for";
    OVERLAP: Overlap = "overlap", "skip", CHAIN, |text, _| value::choice(text, &[("skip", Overlap::Skip), ("queue", Overlap::Queue), ("replace", Overlap::Replace)]), "a slot whose chain still runs: give it up, let it wait, or stop the run for it";
    RANDOM_DELAY: Duration = "random_delay", "0", CHAIN, |text, _| value::finite(text), "each run begins up to this later, always the same on one machine";
    IDLE: bool = "idle", "no", CHAIN, |text, _| value::boolean(text), "run after all others of the tick, while time is left in the window";
    WINDOW: Duration = "window", "60", CHAIN, |text, _| value::duration(text), "how long after its slot, or after a missed one is caught up, an idle chain may begin";
    SCOPE: SlotScope = "scope", "machine", CHAIN, |text, _| value::choice(text, &[("machine", SlotScope::Machine), ("cluster", SlotScope::Cluster)]), "whether each machine takes a slot, or one of all that share the database";
    LISTEN: String = "listen", "", DAEMON, |text, _| Ok(text.to_owned()), "where the daemon answers HTTP: addresses with ports, or the path of a socket";
    ALLOW: String = "allow", "", DAEMON, |text, _| Ok(text.to_owned()), "who may ask: addresses and networks, and host names it is called by; this machine without one";
    TOKEN_FILE: PathBuf = "token_file", "", DAEMON, value::path, "file with the token that those who ask must have";
    QUEUES: Vec<String> = "queues", "", DAEMON, |text, _| Ok(value::words(text)), "queues whose jobs the daemon runs, by name; `*` is all of them";
    STOP_TIME: Duration = "stop_time", "0", DAEMON, |text, _| value::duration(text), "how long running chains and jobs may go on when the daemon is told to stop";
    TEXTFILE: PathBuf = "textfile", "", METRICS, value::path, "file for node exporter's textfile collector, written after each run";
    INFLUXDB: Influx = "influxdb", "", METRICS, endpoint::influxdb, "InfluxDB that gets a point of each run";
    PUSHGATEWAY: Endpoint = "pushgateway", "", METRICS, endpoint::pushgateway, "Pushgateway that gets the last run of each chain";
    FILE: PathBuf = "file", "", LIVENESS, value::path, "file that tells when a run last ended well";
    CONSUL: Endpoint = "consul", "", LIVENESS, endpoint::consul, "key in Consul that tells the same";
    ETCD: Endpoint = "etcd", "", LIVENESS, endpoint::etcd, "key in etcd that tells the same";
    JOBS: usize = "jobs", "1", QUEUE, |text, _| value::width(text), "jobs of the queue that one worker runs side by side";
    MAX_ATTEMPTS: Tries = "max_attempts", "25", QUEUE, |text, _| value::tries(text), "attempts of a job in all, 0 = no limit";
    RETRY_DELAY: RetryDelay = "retry_delay", "quartic", QUEUE, |text, _| RetryDelay::parse(text), "wait before the next attempt of a job: quartic, or D xF max D";
    POLL: Duration = "poll", "5", QUEUE, |text, _| value::finite(text), "how often a worker looks although nothing has woken it";
    PRIORITY_ORDER: PriorityOrder = "priority_order", "desc", QUEUE, |text, _| value::choice(text, &[("desc", PriorityOrder::Descending), ("asc", PriorityOrder::Ascending)]), "which priority goes first: the highest, or the lowest (as niceness)";
    KEEP_DONE: Keep = "keep_done", "1000 30d", QUEUE, |text, _| Keep::parse(text), "how many jobs that are done or cancelled are kept, and how long";
    KEEP_FAILED: Keep = "keep_failed", "10000 90d", QUEUE, |text, _| Keep::parse(text), "how many jobs that failed for good are kept, and how long";
    ENABLED: bool = "enabled", "yes", CHAIN, |text, _| value::boolean(text), "whether the schedule counts";
}

/// Whether a key of this name may stand in a section of this kind.
pub fn is_known(name: &str, section: Scope) -> bool {
    find(name).is_some_and(|key| key.scope.covers(section))
}

/// The names of the keys that may stand in a section of this kind.
pub fn names_in(section: Scope) -> impl Iterator<Item = &'static str> {
    ALL.iter().filter(move |key| key.scope.covers(section)).map(|key| key.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_runner_read_six_keys_from_a_plain_section() {
        let mut old: Vec<_> = names_in(Scope::OLD_TASK).collect();
        old.sort_unstable();
        assert_eq!(old, ["depends_on", "interpreter", "max_time", "max_tries", "retry_jitter", "sleep_time"]);
    }

    #[test]
    fn every_default_is_a_value_of_its_key() {
        assert!((SLEEP_TIME.read)(SLEEP_TIME.info.default, Path::new("")).is_ok());
        let here = Path::new("");
        assert_eq!((RETRY_FROM.read)(RETRY_FROM.info.default, here), Ok(RetryFrom::Start));
        assert_eq!((OUTPUT.read)(OUTPUT.info.default, here), Ok(Output::Auto));
        assert_eq!((SWEEP.read)(SWEEP.info.default, here), Ok(Sweep::OnFailure));
        assert_eq!((TRUST.read)(TRUST.info.default, here), Ok(Trust::Refuse));
        assert_eq!((HALT_CODES.read)(HALT_CODES.info.default, here), Ok(vec![2]));
    }
}
