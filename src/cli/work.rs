//! `runner work`: takes jobs and runs them, until it is told to stop or its limits say so. `runner queue run` is the same
//! for one job, at once.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use jiff::tz::TimeZone;

use super::exit::{Exit, Failure};
use super::prepare::{Prepared, prepare};
use super::queue_args::WorkArgs;
use super::queue_status;
use super::queues::{find_queues, queues_with_config};
use super::record::Record;
use super::run::tell_findings;
use super::settings::{Settings, find_task_dir, part_findings, push, without_repeats};
use super::stage::Stage;
use super::state::{failure, own_place};
use super::trusted::refuse_database;
use super::variables::own_variable;
use crate::chain::setup::{Setup, Task};
use crate::clock::{Clock, SystemClock};
use crate::config::push::PushSettings;
use crate::config::queues::QueueSettings;
use crate::config::settings::{StateSettings, TaskSettings};
use crate::config::{Config, value};
use crate::names::counted;
use crate::notify::systemd;
use crate::presence::{self, Presence, Work};
use crate::push::{Push, Waits};
use crate::store::Owner;
use crate::store::job::QueueCount;
use crate::store::wake::Alarm;
use crate::task::graph::{Place, Plan};
use crate::worker::tally::Tallies;
use crate::worker::{Limits, Orders, Parts, State, Summary, Tasks, Telling, Worker};

/// How often others are told how queues stand.
const TOLD_EVERY: Duration = Duration::from_secs(30);
/// How long the last results may take to be written.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Works queues.
///
/// # Errors
/// The configuration is wrong; a queue is not known; the state is of a kind that time does not cure.
pub fn work(settings: &Settings, args: &WorkArgs) -> Result<Exit, Failure> {
    let wrong = |option: &str, text: &String, expected| Failure::Usage(format!("{option} {text}: {expected}"));
    let duration = |option: &str, text: &Option<String>| {
        let read = |text: &String| value::duration(text).map_err(|expected| wrong(option, text, expected));
        text.as_ref().map(read).transpose()
    };
    let sleep = args.sleep.as_ref().map(|text| value::finite(text).map_err(|expected| wrong("--sleep", text, expected))).transpose()?;
    let limits = Limits {
        jobs: args.jobs.map(|jobs| jobs as usize),
        drain: args.drain,
        duration: duration("--duration", &args.duration)?.filter(|limit| !limit.is_zero()),
        poll: sleep.map(|sleep| sleep.max(Duration::from_millis(20))),
        grace: duration("--grace", &Some(args.grace.clone()))?.unwrap_or_default(),
        only: None,
    };
    let (config, queues, state) = queues_with_config(settings)?;
    let queues = find_queues(queues, &args.queue)?;
    let summary = drive(settings, (config, queues, state), limits, false)?;
    Ok(if args.fail && summary.failed > 0 { Exit::GaveUp } else { Exit::Done })
}

/// Runs one job that waits, here and now.
///
/// # Errors
/// As for [`work`]; or it does not wait.
pub fn run_one(settings: &Settings, id: i64) -> Result<Exit, Failure> {
    let (config, queues, state) = queues_with_config(settings)?;
    let queues = find_queues(queues, &[])?;
    let limits = Limits { only: Some(id), grace: Duration::ZERO, ..Limits::default() };
    let summary = drive(settings, (config, queues, state), limits, true)?;
    if summary.not_taken {
        return Err(Failure::NotThere(format!(
            "there is no job {id} that waits in a queue of this configuration; `runner queue list` shows which there are"
        )));
    }
    Ok(if summary.failed > 0 { Exit::GaveUp } else { Exit::Done })
}

fn drive(
    settings: &Settings,
    (config, queues, state): (Config, Vec<QueueSettings>, StateSettings),
    limits: Limits,
    foreground: bool,
) -> Result<Summary, Failure> {
    let managed = own_variable("NOTIFY_SOCKET").is_some();
    // One job that somebody asked for by its number says nothing of its queue.
    let push = (!foreground).then(|| push(PushSettings::new(&config, &mut Vec::new()), Waits::TheEnd));
    let place = own_place(&state);
    refuse_database(&config, &place)?;
    let longest_stop = queues.iter().map(|queue| queue.chain.task.kill_after).max().unwrap_or_default() + limits.grace;
    let mut stage = Stage::new(managed, None, longest_stop, Record::of_nobody())?;
    stage.expect_many();
    stage.be_silent_about_runs();
    let opened = place.clone();
    let owner = Owner::look();
    let open = move || opened.open(SystemClock::new().wall());
    // Somebody waits for this one job, and hears at once that there is no state; a worker waits for it.
    let mut first = if foreground { Some(open().map_err(failure)?) } else { None };
    let open = move || first.take().map_or_else(&open, Ok);
    let alarm = Alarm::new(&place).inspect_err(|error| log::info!("new jobs are not heard of at once, only looked for: {error}")).ok();
    let state = State::new(open, owner, &queues).context("the thread of the store cannot be started")?;
    if !foreground {
        log::info!("worker of {}, process {}", counted(queues.len(), "queue"), state.owner().pid);
    }
    let (mut driver, ids) = stage.driver();
    let telling = push.and_then(|push| telling(&push, queues.iter().map(|queue| queue.name.clone()).collect()));
    let names = queues.iter().map(|queue| queue.name.clone()).collect();
    let presence = Presence { work: Work::Worker, pid: std::process::id(), config: settings.config_file.clone(), queues: names };
    let _here = if foreground { None } else { presence::announce(place.state_dir.as_deref(), &presence) };
    let tasks = Box::new(TaskFinder { settings: settings.clone(), config, foreground, known: HashMap::new() });
    let (parts, orders) = (Parts { ids: ids.branch(), state, alarm }, Orders { queues, tasks, telling });
    let mut worker = Worker::new(parts, orders, limits, driver.world.clock.now());
    systemd::ready(managed);
    let worked = worker.work(&mut driver);
    systemd::stopping(managed);
    worker.settle(LAST_WORDS, SystemClock::new().wall());
    match worked {
        Ok(summary) if summary.unwritten => Err(Failure::State("the state could not be written before the worker had to go".to_owned())),
        worked => worked.map_err(failure),
    }
}

/// Tells others of these queues, if there is somebody to tell.
pub fn telling(push: &Push, queues: Vec<String>) -> Option<Telling> {
    if !push.wants_queues() {
        return None;
    }
    let push = push.clone();
    let tell = move |counts: &[QueueCount], tallies: &Tallies| {
        let of = |name: &String| queue_status::with_totals(queue_status::depths(name, counts, &TimeZone::UTC), tallies.of(name));
        push.queues(queues.iter().map(of).collect());
    };
    Some(Telling { every: TOLD_EVERY, tell: Box::new(tell) })
}

/// The tasks of queues, looked up when a job runs. What was read of a directory is kept until it changes.
pub struct TaskFinder {
    settings: Settings,
    config: Config,
    foreground: bool,
    known: HashMap<String, Known>,
}

struct Known {
    setup: Setup,
    variables: Vec<CString>,
    seen: Stamp,
    files: HashMap<PathBuf, Stamp>,
}

/// What tells a changed file or directory from the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    mode: u32,
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self { inode: found.ino(), mode: found.mode(), changed: (found.ctime(), found.ctime_nsec()) })
    }
}

impl Tasks for TaskFinder {
    fn prepare(&mut self, queue: &QueueSettings, name: &str, args: &[String]) -> Result<(Setup, Vec<CString>), String> {
        let dir = find_task_dir(None, &queue.chain).map_err(|failure| failure.to_string())?;
        let seen = Stamp::of(&dir);
        if self.known.get(&queue.name).is_none_or(|known| Some(known.seen) != seen) {
            self.read(queue, &dir)?;
        }
        if let Some(known) = self.known.get(&queue.name)
            && let Ok(index) = known.setup.find(name)
        {
            let path = &known.setup.tasks[index].path;
            if known.files.get(path).copied() != Stamp::of(path) {
                self.read(queue, &dir)?;
            }
        }
        let Some(known) = self.known.get(&queue.name) else { return Err(format!("{} cannot be used", dir.display())) };
        let index = known.setup.find(name).map_err(|why| {
            let left_out = known.setup.left_out.iter().find(|(left_out, _)| left_out.answers_to(name));
            left_out.map_or(why, |(_, reason)| format!("{name} is no task: {reason}"))
        })?;
        Ok((alone(&known.setup, &known.setup.tasks[index], args, !self.foreground), known.variables.clone()))
    }
}

impl TaskFinder {
    /// Those of a worker in the background.
    pub fn new(settings: &Settings, config: &Config) -> Self {
        Self { settings: settings.clone(), config: config.clone(), foreground: false, known: HashMap::new() }
    }

    fn read(&mut self, queue: &QueueSettings, dir: &Path) -> Result<(), String> {
        let seen = Stamp::of(dir);
        self.known.remove(&queue.name);
        let Prepared { setup, findings, .. } = prepare(&self.config, queue.chain.clone(), Vec::new(), dir);
        let (errors, told) = part_findings(without_repeats(findings), self.settings.strict);
        if !errors.is_empty() {
            return Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
        }
        tell_findings(&told);
        if let (Some(setup), Some(seen)) = (setup, seen) {
            let stamped = setup.tasks.iter().filter_map(|task| Some((task.path.clone(), Stamp::of(&task.path)?)));
            let files = stamped.collect();
            let variables = self.settings.program_variables(dir);
            self.known.insert(queue.name.clone(), Known { setup, variables, seen, files });
        }
        Ok(())
    }
}

/// The setup of one task with the arguments of a job behind its own.
fn alone(of: &Setup, task: &Task, args: &[String], beside_others: bool) -> Setup {
    let settings = if args.is_empty() {
        task.settings.clone()
    } else {
        let args = task.settings.args.iter().chain(args).cloned().collect();
        Rc::new(TaskSettings { args, ..TaskSettings::clone(&task.settings) })
    };
    let task = Task {
        name: task.name.clone(),
        path: task.path.clone(),
        seen: task.seen,
        settings,
        variables: task.variables.clone(),
        identity: task.identity.clone(),
        depends_on: Vec::new(),
    };
    Setup {
        chain: of.chain.clone(),
        dir: of.dir.clone(),
        tasks: vec![task],
        plan: Plan { places: vec![Place { task: 0, depends_on: Vec::new(), stage: 0 }] },
        left_out: Vec::new(),
        halt: None,
        variables: of.variables.clone(),
        beside_others,
    }
}
