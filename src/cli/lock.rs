//! `runner lock KEY -- COMMAND...`: one lock around any command, with the guarantees that a chain has.

use std::ffi::{CString, OsStr, OsString};
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;

use super::args::LockArgs;
use super::exit::{Exit, Failure};
use super::stage::random;
use super::variables::{inherited_variables, own_variable};
use crate::chain::ears::{Ears, readable};
use crate::clock::{BootTime, Clock, Moment, Seconds, SystemClock};
use crate::config::database::state_dir;
use crate::config::keys::Sweep;
use crate::config::value;
use crate::environment::{Block, OwnVariables, variable};
use crate::lock::address::{Address, LockSettings, LockTexts};
use crate::lock::guard::{self, Guard};
use crate::lock::owner::TaskGroup;
use crate::lock::{Lock, LockError, LockEvent, Refusal, here, ourselves, start_time};
use crate::names::{RunId, TaskName};
use crate::notify::systemd::Watchdog;
use crate::outcome::ProcessEnd;
use crate::process::signal::Signals;
use crate::process::tree::Mark;
use crate::process::unix::{Spec, WaitMethod};
use crate::process::{Family, Gone, Supervised, c_string, close_stdin, explain_start, find_program};

/// What shells say when a command is not found, and when it is and does not start.
const NOT_FOUND: Exit = Exit::Command(127);
const NOT_STARTED: Exit = Exit::Command(126);

/// Runs a command under a lock.
///
/// # Errors
/// The lock cannot be had, or what was typed is wrong.
pub fn lock(args: &LockArgs) -> Result<Exit, Failure> {
    let kill_after = value::duration(&args.kill_after).map_err(|expected| usage("--kill-after", &args.kill_after, &expected))?;
    let settings = settings(args, kill_after)?;
    let Some(program) = find_program(&args.command[0], own_variable("PATH").as_deref()) else {
        log::error!("{} is not found through PATH", args.command[0].to_string_lossy());
        return Ok(NOT_FOUND);
    };
    if std::io::stdin().is_terminal() {
        // The command leads a process group of its own, and would be stopped when it read from the terminal.
        close_stdin().context("standard input cannot be closed")?;
    }
    let clock = SystemClock::new();
    let family = Family::new(WaitMethod::detect());
    let signals = Signals::install().context("signals cannot be heard")?;
    let ears = Ears::new(signals, Watchdog::new(false, clock.now()));
    let run_id = RunId::new(&here().boot_id, 0, random());
    let lock = Lock::open(&settings, ourselves(true)).map_err(unusable)?;
    // A lock in a file ends with its holder, and whoever comes next is on this machine.
    let guarded = Guarded {
        lock,
        guard: None,
        needs_guard: settings.address.is_leased(),
        overslept: false,
        ears,
        family: &family,
        clock: &clock,
        run_id,
    };
    guarded.run(&args.command, &program)
}

/// The hidden command behind [`Guard`].
///
/// # Errors
/// The kernel gives no timer.
pub fn guard(kill_after: f64) -> Result<Exit, Failure> {
    // Whoever ends the holder's process group or service is not to end the guard before it has done its work; it ends
    // itself with the holder.
    let _signals = Signals::install().context("signals cannot be heard")?;
    let kill_after = Duration::try_from_secs_f64(kill_after).unwrap_or(Duration::ZERO);
    guard::serve(kill_after).context("the guard of the lock")?;
    Ok(Exit::Done)
}

fn usage(option: &str, text: &str, expected: &str) -> Failure {
    Failure::Usage(format!("{option} {text}: {expected}"))
}

/// Why a lock cannot even be asked for.
pub fn unusable(error: LockError) -> Failure {
    match error {
        LockError::Unreachable { .. } => Failure::State(error.to_string()),
        LockError::Refused { .. } | LockError::File { .. } | LockError::NotBuilt { .. } => Failure::config(error.to_string()),
        LockError::Kernel(error) => Failure::Internal(error.into()),
    }
}

fn settings(args: &LockArgs, kill_after: Duration) -> Result<LockSettings, Failure> {
    if value::holds_secret(&args.key) {
        return Err(Failure::Usage(
            "the KEY holds a password, which everybody sees in the list of processes: put it into a file (password_file=, passfile=)"
                .to_owned(),
        ));
    }
    let text = if args.key.contains("://") || args.key.starts_with("file:") {
        args.key.clone()
    } else {
        let name = lock_name(&args.key)?;
        let dir = state_dir(own_variable, rustix::process::geteuid().is_root()).ok_or_else(|| {
            Failure::config(format!(
                "there is no directory for the lock {name}: set STATE_DIRECTORY or HOME to an absolute path, or write file:PATH"
            ))
        })?;
        format!("file:{}", dir.join("locks").join(name).display())
    };
    let texts = LockTexts { lock: &text, ttl: args.ttl.as_deref(), delay: args.delay.as_deref(), wait: args.wait.as_deref() };
    let option = |key| match key {
        "lock_ttl" => "--ttl",
        "lock_delay" => "--delay",
        "wait_lock" => "--wait",
        _ => "KEY",
    };
    let base = std::env::current_dir().unwrap_or_default();
    let settings = LockSettings::parse(texts, kill_after, &base);
    let mut settings = settings.map_err(|error| usage(option(error.key), &error.value, &error.expected))?;
    find_passfile(&mut settings);
    Ok(settings)
}

/// PGPASSFILE, else the place where libpq looks; a file that the URL names wins.
pub fn find_passfile(settings: &mut LockSettings) {
    if let Address::Postgres(address) = &mut settings.address
        && address.passfile.is_none()
        && address.password_file.is_none()
    {
        let named = own_variable("PGPASSFILE").map(PathBuf::from);
        let usual = || own_variable("HOME").map(|home| Path::new(&home).join(".pgpass")).filter(|file| file.exists());
        address.passfile = named.or_else(usual);
    }
}

/// A name that is a file's.
fn lock_name(key: &str) -> Result<&str, Failure> {
    let good = !key.is_empty() && key.len() <= 200 && !key.starts_with('.') && !key.contains(|c: char| c == '/' || c.is_control());
    if good {
        return Ok(key);
    }
    Err(Failure::Usage(format!("KEY {key}: expected a name without `/`, or file:PATH, postgresql://..., etcd://..., consul://...")))
}

/// The lock and what waits for it.
struct Guarded<'a> {
    lock: Lock,
    guard: Option<Guard>,
    needs_guard: bool,
    /// The guard was due before the lease was renewed.
    overslept: bool,
    ears: Ears,
    family: &'a Family,
    clock: &'a SystemClock,
    run_id: RunId,
}

/// How waiting ended.
enum Waited {
    Ours,
    Refused(Refusal),
    Signal(i32),
}

impl Guarded<'_> {
    fn run(mut self, words: &[OsString], program: &Path) -> Result<Exit, Failure> {
        match self.acquire() {
            Waited::Ours if self.needs_guard => self.guard = Guard::beside(self.family, self.lock.kill_after()),
            Waited::Ours => {}
            Waited::Signal(signal) => {
                self.give_back();
                return Ok(Exit::Signal(signal));
            }
            Waited::Refused(Refusal::Held(holder)) => {
                self.await_given_back();
                return Err(Failure::Refused(format!("{} is held{}", self.lock.shown(), holder.by())));
            }
            Waited::Refused(Refusal::Unreachable(why)) => return Err(Failure::State(why)),
        }
        let name = Path::new(&words[0]).file_name().unwrap_or(&words[0]).to_owned();
        let exit = match self.start(words, program, &name) {
            Ok(process) => self.supervise(process, &name),
            Err((exit, why)) => {
                log::error!("{why}");
                exit
            }
        };
        self.give_back();
        Ok(exit)
    }

    fn acquire(&mut self) -> Waited {
        self.lock.contend(self.run_id.as_str(), BootTime::now());
        loop {
            for event in self.lock.hear(BootTime::now()) {
                match event {
                    LockEvent::Acquired(token) => {
                        log::debug!("{} is ours, token {token}", self.lock.shown());
                        return Waited::Ours;
                    }
                    LockEvent::GaveUp(refusal) => return Waited::Refused(refusal),
                    LockEvent::Waiting(holder) => log::info!("{} is held{}", self.lock.shown(), holder.by()),
                    LockEvent::Unreachable(why) => log::warn!("{why}"),
                    LockEvent::Doubt { .. } | LockEvent::Sure | LockEvent::Stop(_) | LockEvent::Kill(_) | LockEvent::GivenBack(_) => {}
                }
            }
            let fds = self.lock.fds().map(readable).collect();
            if let Some(signal) = self.ears.listen(fds, None, self.family, self.clock).stops.first() {
                return Waited::Signal(*signal);
            }
        }
    }

    fn start(&mut self, words: &[OsString], program: &Path, name: &OsStr) -> Result<Supervised, (Exit, String)> {
        let no = |why: String| (NOT_STARTED, why);
        let argv: Option<Vec<CString>> = [program.as_os_str()]
            .into_iter()
            .chain(words[1..].iter().map(OsString::as_os_str))
            .map(|word| c_string(word.as_bytes()))
            .collect();
        let argv = argv.ok_or_else(|| no("a word of the command holds a NUL byte".to_owned()))?;
        let token = self.lock.token().map(|token| token.to_string()).unwrap_or_default();
        let ours = [
            variable(b"RUNNER_RUN_ID", self.run_id.as_str().as_bytes()),
            variable(b"RUNNER_TASK", name.as_bytes()),
            variable(b"RUNNER_TRY", b"1"),
            variable(b"RUNNER_LOCK_TOKEN", token.as_bytes()),
        ];
        let ours: Block = ours.into_iter().flatten().collect();
        let replaced = |name: &OsStr| ["RUNNER_RUN_ID", "RUNNER_TASK", "RUNNER_TRY", "RUNNER_LOCK_TOKEN"].iter().any(|own| name == *own);
        let inherited: Block = inherited_variables()
            .filter(|(name, _)| !replaced(name))
            .filter_map(|(name, value)| variable(name.as_bytes(), value.as_bytes()))
            .collect();
        let spec = Spec {
            argv: &argv,
            env: &[&inherited, &ours],
            own_env: &OwnVariables::default(),
            stdin: None,
            stdout: None,
            stderr: None,
            working_dir: None,
            identity: None,
            umask: None,
            nice: None,
            reads: None,
        };
        if !self.lock.may_start(BootTime::now()) {
            return Err((Exit::LockLost, format!("{} ran out before the command could begin", self.lock.shown())));
        }
        // The guard first: it knows the processes by the run id, and by their group a moment later.
        self.tell_guard(true);
        let mark = Mark { run: self.run_id.clone(), task: TaskName::parse(name), try_num: 1 };
        let process = Supervised::start(&spec, self.family, Some(mark), self.lock.kill_after(), Sweep::OnFailure)
            .map_err(|error| no(explain_start(program, None, &error)))?;
        let pid = process.pid().as_raw_pid();
        let group = TaskGroup { pid, start_time: start_time(pid), task: name.to_string_lossy().into_owned(), try_num: 1 };
        self.lock.record(vec![group], BootTime::now());
        self.tell_guard(true);
        Ok(process)
    }

    fn supervise(&mut self, mut process: Supervised, name: &OsStr) -> Exit {
        let name = name.to_string_lossy();
        let (mut lost, mut signalled) = (false, None);
        loop {
            // The lock first: whoever was frozen must not go on with anything before that is known.
            for event in self.lock.hear(BootTime::now()) {
                lost |= self.obey(event, &mut process, &name);
            }
            self.look_after_guard();
            if let Some(gone) = process.advance(self.family, self.clock.now(), |end| end != ProcessEnd::Code(0)) {
                lost = lost || self.is_lost_at_the_end(&name);
                return self.exit(&gone, lost, signalled, &name);
            }
            let guard = self.guard.iter().flat_map(|guard| guard.process().fds());
            let fds = self.lock.fds().chain(process.fds()).chain(guard).map(readable).collect();
            let deadline = process.wake_at();
            let heard = self.ears.listen(fds, deadline, self.family, self.clock);
            for signal in heard.stops {
                let now = self.clock.now();
                if signalled.is_none() {
                    signalled = Some(signal);
                    process.stop(self.family, now);
                } else {
                    process.kill_now(self.family, now);
                }
            }
        }
    }

    /// The command is gone: looks whether the lock was ours until then, where it is not renewed (a file that was removed). As late as
    /// can be: what ran while somebody else could is not done.
    fn is_lost_at_the_end(&mut self, name: &str) -> bool {
        self.lock.look();
        let mut lost = false;
        for event in self.lock.hear(BootTime::now()) {
            if let LockEvent::Stop(why) | LockEvent::Kill(why) = event {
                let shown = self.lock.shown();
                log::error!("{shown} was lost, which is seen only now that {name} has ended; somebody else may have run beside it: {why}");
                lost = true;
            }
        }
        lost
    }

    /// Does what the lock says; tells whether it is lost.
    fn obey(&self, event: LockEvent, process: &mut Supervised, name: &str) -> bool {
        let shown = self.lock.shown();
        match event {
            LockEvent::Stop(why) => {
                log::error!("{shown} is lost, {name} is ended: {why}");
                process.stop(self.family, self.clock.now());
                true
            }
            LockEvent::Kill(why) => {
                log::error!("{shown} is lost, and somebody else may have it; {name} is killed: {why}");
                process.kill_now(self.family, self.clock.now());
                true
            }
            LockEvent::Doubt { why, stop_in } => {
                log::warn!("{shown} is in doubt, {name} is ended in {} if it stays so: {why}", Seconds(stop_in));
                false
            }
            LockEvent::Sure => {
                log::info!("{shown} is ours beyond doubt again");
                false
            }
            LockEvent::Acquired(_) | LockEvent::Waiting(_) | LockEvent::Unreachable(_) | LockEvent::GaveUp(_) | LockEvent::GivenBack(_) => {
                false
            }
        }
    }

    fn exit(&self, gone: &Gone, lost: bool, signalled: Option<i32>, name: &str) -> Exit {
        if !gone.left_behind.is_empty() {
            log::warn!("{name} has left processes running without the lock: {:?}", gone.left_behind);
        }
        if gone.unkillable {
            log::error!("a process of {name} survived KILL");
        }
        let killed_by_guard = self.overslept && gone.end == Some(ProcessEnd::Signal(Signal::KILL.as_raw()));
        match (lost || killed_by_guard, signalled, gone.end) {
            (true, _, _) => Exit::LockLost,
            (false, Some(signal), _) => Exit::Signal(signal),
            (false, None, Some(ProcessEnd::Code(code))) => Exit::Command(code),
            (false, None, Some(ProcessEnd::Signal(signal))) => Exit::Command(128 | u8::try_from(signal).unwrap_or(0)),
            (false, None, None) => Exit::Internal,
        }
    }

    fn tell_guard(&mut self, with_owner: bool) {
        let Some(guard) = &mut self.guard else { return };
        guard.tell_until(self.lock.trusted_until(), BootTime::now());
        self.overslept |= guard.was_due();
        if with_owner {
            guard.tell_owner(self.lock.owner());
        }
    }

    /// A guard that has done its work, or was killed, is buried at once: a dead child of ours hides others behind it.
    fn look_after_guard(&mut self) {
        self.tell_guard(false);
        let now = self.clock.now();
        self.guard.take_if(|guard| guard.is_gone(self.family, now));
    }

    fn dismiss_guard(&mut self) {
        let Some(mut guard) = self.guard.take() else { return };
        guard.dismiss(self.family, self.clock.now());
        while !guard.is_gone(self.family, self.clock.now()) {
            let fds = guard.process().fds().map(readable).collect();
            self.ears.listen(fds, guard.process().wake_at(), self.family, self.clock);
        }
    }

    fn give_back(&mut self) {
        self.dismiss_guard();
        self.lock.let_go(BootTime::now());
        self.await_given_back();
    }

    fn await_given_back(&mut self) {
        let until: Moment = self.clock.now() + self.lock.give_back_limit();
        loop {
            for event in self.lock.hear(BootTime::now()) {
                if let LockEvent::GivenBack(result) = event {
                    if let Some(why) = result {
                        log::warn!("{} could not be given back and ends by itself: {why}", self.lock.shown());
                    }
                    return;
                }
            }
            if self.clock.now() >= until {
                log::warn!("{} gave no answer when it was given back; it ends by itself", self.lock.shown());
                return;
            }
            let fds = self.lock.fds().map(readable).collect();
            self.ears.listen(fds, Some(until), self.family, self.clock);
        }
    }
}
