//! Hooks: commands that hear of tasks and runs as JSON, as their last argument and on standard input.
//! A hook that fails, hangs or does not read is a warning and changes nothing.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::clock::{Limit, Moment, Seconds};
use crate::config::keys::Sweep;
use crate::config::value::CommandLine;
use crate::environment::{Block, OwnVariables};
use crate::event::{RunRef, TaskEnd};
use crate::names::TaskName;
use crate::opinion::Opinion;
use crate::outcome::{LimitKind, ProcessEnd, RunOutcome};
use crate::process::state::Cause;
use crate::process::unix::Spec;
use crate::process::{Family, Supervised, c_string, explain_start, find_program};

/// The longest argument the kernel takes, its NUL included (MAX_ARG_STRLEN, execve(2)). What is longer comes on
/// standard input only.
const MAX_ARGUMENT: usize = 128 * 1024;

/// The JSON of a task that is about to run. `task`, `try_num`, `max_retries` and, after it, `result` are what the
/// old runner documented; keys are only ever added.
pub fn before_task(run: &RunRef, task: &TaskName, try_num: u32, max_tries: u32) -> Value {
    Value::Object(task_keys(run, task, try_num, max_tries, "pre"))
}

/// The JSON of a task that has run.
pub fn after_task(run: &RunRef, end: &TaskEnd) -> Value {
    let mut keys = task_keys(run, &end.task, end.try_num, end.max_tries, "post");
    keys.insert("result".into(), json!(end.verdict.word()));
    if end.last {
        keys.insert("final".into(), json!(true));
    }
    let timed_out = matches!(end.exit, crate::outcome::ExitKind::TimedOut { .. });
    keys.insert("exit_code".into(), json!(end.exit.code()));
    keys.insert("signal".into(), json!(end.exit.signal()));
    keys.insert("timed_out".into(), json!(timed_out));
    keys.insert("duration_ms".into(), json!(millis(end.duration)));
    keys.insert("left_behind".into(), json!(end.left_behind.len()));
    if let Some(said) = end.said {
        keys.insert("said".into(), json!(said.word()));
    }
    Value::Object(keys)
}

fn task_keys(run: &RunRef, task: &TaskName, try_num: u32, max_tries: u32, event: &str) -> Map<String, Value> {
    let keys = json!({
        "task": task.text(), "try_num": try_num, "max_retries": max_tries,
        "name": task.short(), "chain": run.chain, "run_id": run.id.as_str(), "event": event,
    });
    match keys {
        Value::Object(keys) => keys,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

/// The JSON of a run that begins.
pub fn run_started(run: &RunRef, tasks: usize) -> Value {
    json!({ "chain": run.chain, "run_id": run.id.as_str(), "event": "start", "tasks": tasks })
}

/// The JSON of a run that is over, or about to halt.
pub fn run_ended(run: &RunRef, outcome: &RunOutcome, tries: u32, duration: Duration, said: Option<Opinion>) -> Value {
    let mut keys = json!({
        "chain": run.chain, "run_id": run.id.as_str(), "event": "end", "outcome": outcome.word(),
        "task": outcome.task().map(TaskName::text), "tries": tries, "duration_ms": millis(duration),
    });
    if let Some(said) = said {
        keys["said"] = json!(said.word());
    }
    keys
}

/// The JSON of a run that did not begin.
pub fn run_refused(chain: &str, reason: &str, message: &str) -> Value {
    json!({ "chain": chain, "run_id": null, "event": "refused", "reason": reason, "message": message })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A hook that runs.
#[derive(Debug)]
pub struct HookRun {
    /// Which key named it.
    pub key: &'static str,
    process: Supervised,
    deadline: Option<Moment>,
    limit: Limit,
}

/// What a hook is started with.
#[derive(Debug)]
pub struct HookStart<'a> {
    /// The key that names it.
    pub key: &'static str,
    /// Its command.
    pub command: &'a CommandLine,
    /// What it hears.
    pub message: &'a Value,
    /// Its variables, in parts.
    pub env: &'a [&'a Block],
    /// The value of PATH among them.
    pub search: Option<&'a OsStr>,
    /// `hook_max_time`.
    pub max_time: Limit,
    /// From TERM to KILL.
    pub kill_after: Duration,
}

impl HookRun {
    /// Starts a hook.
    ///
    /// # Errors
    /// Why it does not start, in words.
    pub fn start(start: &HookStart<'_>, family: &Family, now: Moment) -> Result<Self, String> {
        let text = start.message.to_string();
        let program = find_program(OsStr::new(start.command.program()), start.search)
            .ok_or_else(|| format!("{} is not found through PATH", start.command.program()))?;
        let mut words: Vec<OsString> = vec![program.clone().into_os_string()];
        words.extend(start.command.words()[1..].iter().map(OsString::from));
        if text.len() < MAX_ARGUMENT {
            words.push(OsString::from(&text));
        }
        let argv: Option<Vec<_>> = words.into_iter().map(|word| c_string(word.into_encoded_bytes())).collect();
        let argv = argv.ok_or_else(|| "a word of it holds a NUL byte".to_owned())?;
        let stdin = message_file(&text).map_err(|error| format!("no memory for its input: {error}"))?;
        let spec = Spec {
            argv: &argv,
            env: start.env,
            own_env: &OwnVariables::default(),
            stdin: Some(stdin.as_fd()),
            stdout: None,
            stderr: None,
            working_dir: None,
            identity: None,
            umask: None,
            nice: None,
            reads: None,
        };
        let process = Supervised::start(&spec, family, None, start.kill_after, Sweep::Never)
            .map_err(|error| explain_start(Path::new(&program), None, &error))?;
        Ok(Self { key: start.key, process, deadline: now.after(start.max_time), limit: start.max_time })
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

    /// It is to be gone.
    pub fn kill_now(&mut self, family: &Family, now: Moment) {
        self.process.kill_now(family, now);
    }

    /// Looks whether it has ended. Tells then, and how it failed if it did.
    pub fn advance(&mut self, family: &Family, now: Moment) -> Option<Result<(), String>> {
        if self.process.is_running() && self.deadline.is_some_and(|deadline| now >= deadline) {
            self.process.limit(LimitKind::MaxTime, family, now);
        }
        let gone = self.process.advance(family, now, |_| false)?;
        Some(match (gone.cause, gone.end) {
            (Some(Cause::Stopped), _) => Err("it was killed, because runner was told to stop twice".to_owned()),
            (Some(Cause::Limit(_)), _) | (None, None) => Err(match self.limit.duration() {
                Some(limit) => format!("it was ended, hook_max_time is {}", Seconds(limit)),
                None => "it was ended".to_owned(),
            }),
            (None, Some(ProcessEnd::Code(0))) => Ok(()),
            (None, Some(end)) => Err(crate::outcome::ExitKind::Ended(end).to_string()),
        })
    }
}

/// A file in memory that holds the message: a hook that does not read it can neither block us nor be blocked.
fn message_file(text: &str) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("runner-hook", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::RunId;
    use crate::outcome::{ExitKind, Verdict};
    use crate::trigger::{Trigger, TriggerKind};

    fn run() -> RunRef {
        RunRef { chain: "main".into(), id: RunId::new("", 0, 1), trigger: Trigger::of(TriggerKind::Boot) }
    }

    #[test]
    fn the_documented_keys_come_first_and_others_are_added() {
        let task = TaskName::parse(OsStr::new("30-a\"b'.sh"));
        let pre = before_task(&run(), &task, 1, 5).to_string();
        insta::assert_snapshot!(pre, @r#"{"task":"30-a\"b'.sh","try_num":1,"max_retries":5,"name":"a\"b'","chain":"main","run_id":"00000000-0-0000000000000001","event":"pre"}"#);
        let end = TaskEnd {
            task,
            try_num: 5,
            max_tries: 5,
            exit: ExitKind::Ended(ProcessEnd::Code(7)),
            verdict: Verdict::Retry,
            last: true,
            duration: Duration::from_millis(12),
            said: None,
            left_behind: Vec::new(),
            unkillable: false,
            tail: Vec::new(),
            tail_lost: 0,
            show_tail: false,
        };
        let post = after_task(&run(), &end).to_string();
        insta::assert_snapshot!(post, @r#"{"task":"30-a\"b'.sh","try_num":5,"max_retries":5,"name":"a\"b'","chain":"main","run_id":"00000000-0-0000000000000001","event":"post","result":"RETRY","final":true,"exit_code":7,"signal":null,"timed_out":false,"duration_ms":12,"left_behind":0}"#);
        let said = after_task(&run(), &TaskEnd { said: Some(Opinion::Warning), ..end }).to_string();
        assert_eq!(said, format!("{},\"said\":\"warning\"}}", post.trim_end_matches('}')));
        let ended = |said| run_ended(&run(), &RunOutcome::Done, 3, Duration::from_millis(12), said).to_string();
        insta::assert_snapshot!(ended(Some(Opinion::Error)), @r#"{"chain":"main","run_id":"00000000-0-0000000000000001","event":"end","outcome":"done","task":null,"tries":3,"duration_ms":12,"said":"error"}"#);
        assert!(!ended(None).contains("said"), "who says nothing has no key");
    }
}
