//! The halt task while it runs. It may power the machine off, so a first signal spares it, and what it leaves
//! behind is never swept.

use std::ffi::OsStr;
use std::time::Duration;

use super::World;
use super::attempt::add_limits;
use super::setup::{Halt, Setup, argv};
use crate::clock::Moment;
use crate::config::keys::Sweep;
use crate::environment::{Block, OwnVariables};
use crate::outcome::{ExitKind, HaltReason, LimitKind};
use crate::process::state::Cause;
use crate::process::unix::Spec;
use crate::process::{Family, Gone, Supervised, explain_start, find_program};
use crate::task::look_into;

/// A halt task that runs.
#[derive(Debug)]
pub struct HaltRun {
    process: Supervised,
    deadline: Option<Moment>,
    limit: Duration,
}

impl HaltRun {
    /// Starts it with the chain's environment and interpreter.
    ///
    /// # Errors
    /// Why it does not start, in words.
    pub fn start(
        halt: &Halt,
        setup: &Setup,
        run_variables: &Block,
        (reason, failed_task): (HaltReason, Option<&str>),
        world: &World<'_>,
    ) -> Result<Self, String> {
        let (path, settings, clock) = (&halt.path, &halt.settings, world.clock);
        let search = setup.variables.search.as_deref();
        let interpreter = match &settings.interpreter {
            None => None,
            Some(command) => {
                look_into(path).map_err(|error| format!("{}: {error}", path.display()))?;
                let program = find_program(OsStr::new(command.program()), search);
                Some((program.ok_or_else(|| format!("the interpreter `{}` is not found through PATH", command.program()))?, command))
            }
        };
        let interpreter = interpreter.as_ref().map(|(program, command)| (program.as_path(), *command));
        let program = interpreter.map_or(path.as_path(), |(program, _)| program);
        let argv = argv(path, interpreter, &settings.args).ok_or_else(|| "a word of its command holds a NUL byte".to_owned())?;
        let limit = settings.max_time.duration();
        let file = path.file_name().unwrap_or_default();
        let mut own = OwnVariables::new();
        own.add("RUNNER_TASK", file.as_encoded_bytes());
        own.add_number("RUNNER_TRY", 1);
        own.add_number("RUNNER_MAX_TRIES", 1);
        own.add("RUNNER_HALT_REASON", reason.word().as_bytes());
        if let Some(task) = failed_task {
            own.add("RUNNER_FAILED_TASK", task.as_bytes());
        }
        add_limits(&mut own, limit, None, clock.wall());
        let spec = Spec {
            argv: &argv,
            env: &[&setup.variables.block, run_variables],
            own_env: &own,
            stdin: None,
            stdout: None,
            stderr: None,
            working_dir: None,
            identity: None,
            umask: None,
            nice: None,
            reads: None,
        };
        let process = Supervised::start(&spec, world.family, None, settings.kill_after, Sweep::Never)
            .map_err(|error| explain_start(program, None, &error))?;
        Ok(Self { process, deadline: clock.now().after(settings.max_time), limit: limit.unwrap_or_default() })
    }

    /// The process to poll.
    pub fn process(&self) -> &Supervised {
        &self.process
    }

    /// The next moment at which time alone changes something.
    pub fn wake_at(&self) -> Option<Moment> {
        let limit = self.deadline.filter(|_| self.process.is_running());
        self.process.wake_at().into_iter().chain(limit).min()
    }

    /// It is to be gone: the second signal.
    pub fn kill_now(&mut self, family: &Family, now: Moment) {
        self.process.kill_now(family, now);
    }

    /// Looks whether it has ended, and how.
    pub fn advance(&mut self, family: &Family, now: Moment) -> Option<ExitKind> {
        if self.process.is_running() && self.deadline.is_some_and(|deadline| now >= deadline) {
            self.process.limit(LimitKind::MaxTime, family, now);
        }
        let gone = self.process.advance(family, now, |_| false)?;
        Some(match gone {
            Gone { cause: Some(Cause::Limit(limit)), .. } => ExitKind::TimedOut { limit, after: self.limit },
            Gone { cause: None, end: Some(end), .. } => ExitKind::Ended(end),
            Gone { cause: Some(Cause::Stopped), .. } | Gone { cause: None, end: None, .. } => ExitKind::Cancelled,
        })
    }
}
