//! In which order `runner daemon` does what a slot asks for: what is on the disk before a task starts, and what is left to do
//! when the slot is due.

use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::scene::{Running, Scene, skipped, succeeds};

/// What is looked at: writes and syncs of the database, directories that are listed, the alarm, starts of programs.
const CALLS: &str = "trace=pwrite64,fdatasync,getdents64,read,execve";

/// A daemon whose calls are written down, as far as they are there.
fn trace(running: &Running) -> Vec<String> {
    std::fs::read_to_string(running.path("trace")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Where tasks start, and their run ids.
fn starts(trace: &[String]) -> Vec<(usize, String)> {
    let id = |line: &String| {
        let rest = line.split_once("\"RUNNER_RUN_ID=")?.1;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let lines = trace.iter().enumerate().filter(|(_, line)| line.contains("execve(") && line.contains("/a/1-a.sh"));
    lines.filter_map(|(at, line)| Some((at, id(line)?))).collect()
}

fn is_synced(line: &str) -> bool {
    line.contains("fdatasync") && line.ends_with("= 0")
}

/// Whether the alarm for this start was followed by nothing that waits for a disk.
fn was_ready(before: &[String]) -> bool {
    let Some(alarm) = before.iter().rposition(|line| line.contains("read(") && line.contains("timerfd")) else { return false };
    before[alarm..].iter().all(|line| !line.contains("fdatasync") && !line.contains("getdents64"))
}

#[test]
fn a_slot_is_on_the_disk_before_it_is_due_and_then_its_task_only_has_to_start() {
    if !succeeds(Command::new("strace").arg("-V")) {
        return skipped("strace is not installed");
    }
    let scene = Scene::new().dir("a").task_at("a/1-a.sh", "say ran").config("[chain:a]\ntask_dir = a\nschedule = every 1s\n");
    let (file, state) = (scene.path("trace"), scene.path("state"));
    let file = file.display().to_string();
    let scene = scene.env("STATE_DIRECTORY", state).under(&["strace", "-f", "-y", "-v", "-s", "5000", "-o", &file, "-e", CALLS]);
    let mut running = scene.start(&["daemon"]);
    // A busy disk may take longer than the moment that is left for it: then the slot is late, and still on the disk first.
    let ready = |trace: &[String]| starts(trace).iter().any(|(at, _)| was_ready(&trace[..*at]));
    running.wait_for("a slot for which nothing was left to do", |running| ready(&trace(running)));
    let lines = trace(&running);
    let daemon: i32 = lines[0].split_whitespace().next().unwrap().parse().unwrap();
    kill_process(Pid::from_raw(daemon).unwrap(), Signal::TERM).unwrap();
    running.finish().exits(0);
    for (at, run) in starts(&lines) {
        let written = lines[..at].iter().position(|line| line.contains("pwrite64(") && line.contains(&run));
        let written = written.unwrap_or_else(|| panic!("{run} is not written down before it starts:\n{}", lines[..at].join("\n")));
        assert!(lines[written..at].iter().any(|line| is_synced(line)), "{run} is not synced before it starts");
    }
}
