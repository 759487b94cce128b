//! What a program that was killed has left running: found by the run id in the environment of each process, and ended
//! before somebody does its work again. Touches processes.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::tree::Stat;
use crate::clock::Moment;

/// How often they are looked for while there are any. Nobody tells of the end of a process that is not ours.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// So many looks in a row have to find nobody: one that was being started when its parent was killed carries its mark
/// only a moment later.
const EMPTY_LOOKS: u32 = 2;

/// The processes that one run has left behind.
#[derive(Debug)]
pub struct Leftovers {
    mark: Vec<u8>,
    kill_after: Duration,
    kill_at: Option<Moment>,
    look_at: Moment,
    empty: u32,
}

impl Leftovers {
    /// Those of the run with this id; they have `kill_after` from TERM to KILL.
    pub fn new(run_id: &str, kill_after: Duration, now: Moment) -> Self {
        let mark = format!("RUNNER_RUN_ID={run_id}").into_bytes();
        Self { mark, kill_after, kill_at: None, look_at: now, empty: 0 }
    }

    /// When to look again.
    pub fn wake_at(&self) -> Moment {
        self.look_at
    }

    /// Looks, and ends what is found. Tells whether none is left.
    pub fn advance(&mut self, now: Moment) -> bool {
        if now < self.look_at {
            return false;
        }
        self.look_at = now + LOOK_AGAIN;
        let found = find(&self.mark);
        if found.is_empty() {
            self.empty += 1;
            return self.empty >= EMPTY_LOOKS;
        }
        self.empty = 0;
        match self.kill_at {
            None => {
                self.kill_at = Some(now + self.kill_after);
                send(&found, Signal::TERM);
                send(&found, Signal::CONT);
            }
            Some(at) if now >= at => send(&found, Signal::KILL),
            Some(_) => {}
        }
        false
    }
}

/// The processes that still run of each run, by its id. Looks only, once for all; what a task left running on purpose is among
/// them, and cannot be told apart.
pub fn still_running() -> HashMap<String, Vec<i32>> {
    let all = living();
    let run_of = |pid: Pid| {
        let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_pid())).ok()?;
        let id = environment.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(b"RUNNER_RUN_ID="))?;
        Some(String::from_utf8_lossy(id).into_owned())
    };
    let marked: HashMap<i32, String> = all.iter().filter_map(|(pid, _)| Some((pid.as_raw_pid(), run_of(*pid)?))).collect();
    let mut runs: HashMap<String, Vec<i32>> = HashMap::new();
    for (pid, stat) in all {
        let pid = pid.as_raw_pid();
        if let Some(run) = marked.get(&pid).or_else(|| marked.get(&stat.group)) {
            runs.entry(run.clone()).or_default().push(pid);
        }
    }
    runs.values_mut().for_each(|pids| pids.sort_unstable());
    runs
}

/// Those processes in words, and how to end them.
pub fn in_words(pids: &[i32]) -> (String, String) {
    let list = pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let (noun, runs) = if pids.len() == 1 { ("process", "runs") } else { ("processes", "run") };
    (format!("{noun} {list} of it still {runs}"), format!("kill {list}"))
}

fn living() -> Vec<(Pid, Stat)> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
        .filter_map(|pid| Some((pid, Stat::of(pid)?)).filter(|(_, stat)| stat.alive()))
        .collect()
}

/// Living processes that carry the mark, and those of the groups that one of them leads.
fn find(mark: &[u8]) -> Vec<(Pid, u64)> {
    let all = living();
    let carries = |pid: Pid| {
        let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_pid())).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark)
    };
    let marked: HashSet<i32> = all.iter().filter(|(pid, _)| carries(*pid)).map(|(pid, _)| pid.as_raw_pid()).collect();
    let is_ours = |pid: Pid, stat: &Stat| marked.contains(&pid.as_raw_pid()) || marked.contains(&stat.group);
    all.into_iter().filter(|(pid, stat)| is_ours(*pid, stat)).map(|(pid, stat)| (pid, stat.start_time)).collect()
}

fn send(found: &[(Pid, u64)], signal: Signal) {
    for (pid, start_time) in found {
        // The number may have passed to another process since; a moment is left in which it could.
        if Stat::of(*pid).is_some_and(|stat| stat.start_time == *start_time) {
            let _ = rustix::process::kill_process(*pid, signal);
        }
    }
}
