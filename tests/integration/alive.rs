//! Who is alive: finds the processes of a scene by the `SCENE` in their environment and by the pids
//! that probes reported, and ends what a test left behind. A zombie is not alive.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::running::pause_briefly;

/// A process that lives: its pid and what it is.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Read by `Debug`, in the message of a failed check.
    #[allow(dead_code, reason = "only shown")]
    command: String,
}

/// All living processes of the scene in this directory.
pub(crate) fn of_scene(directory: &Path) -> Vec<Process> {
    let mut variable = b"SCENE=".to_vec();
    variable.extend_from_slice(directory.as_os_str().as_bytes());
    let mut pids: Vec<u32> = all_pids().filter(|&pid| has_variable(pid, &variable)).collect();
    pids.extend(reported(directory));
    pids.sort_unstable();
    pids.dedup();
    pids.retain(|&pid| is_alive(pid));
    pids.into_iter().map(|pid| Process { pid, command: command_of(pid) }).collect()
}

/// Whether this process exists and is neither a zombie nor dead.
pub(crate) fn is_alive(pid: u32) -> bool {
    !matches!(state_of(pid), None | Some('Z' | 'X'))
}

/// The state letter of a process.
pub(crate) fn state_of(pid: u32) -> Option<char> {
    stat_field(pid, 0)?.chars().next()
}

/// Kills what is left of a scene, until nothing is: also those who go on forking for a while.
pub(crate) fn end_all(directory: &Path) {
    let begun = Instant::now();
    let mut found = false;
    let mut quiet = 0;
    // One look can miss those who hand on to a new process just then; three in a row do not.
    while quiet < 3 && begun.elapsed() < Duration::from_secs(5) {
        let left = of_scene(directory);
        if left.is_empty() && !found {
            return;
        }
        found = true;
        quiet = if left.is_empty() { quiet + 1 } else { 0 };
        for process in &left {
            if let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        pause_briefly();
    }
}

fn all_pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
}

fn has_variable(pid: u32, variable: &[u8]) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|&b| b == 0).any(|v| v == variable)
}

/// The pids in `pids/` that are still the processes which registered themselves there.
fn reported(directory: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(directory.join("pids")) else { return Vec::new() };
    let registered = entries.flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let started = fs::read_to_string(entry.path()).ok()?;
        (stat_field(pid, 19)? == started.trim()).then_some(pid)
    });
    registered.collect()
}

/// A field of /proc/PID/stat, counted from the state letter, which is 0.
fn stat_field(pid: u32, number: usize) -> Option<String> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat).into_owned();
    // The name in parentheses may hold anything, so the fields begin after the last one.
    stat.rsplit(')').next()?.split_whitespace().nth(number).map(str::to_owned)
}

fn command_of(pid: u32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ")
}
