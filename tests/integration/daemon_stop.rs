//! How `runner daemon` is stopped: in its first moments, within `stop_time`, and what its manager hears of that.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use rustix::process::Signal;

use crate::scene::{DEADLINE, Running, Scene, skipped, succeeds};

/// A daemon with one chain; nothing is due unless `keys` say so.
fn scene(sections: &str) -> Scene {
    Scene::new().dir("a").config(&format!("[chain:a]\ntask_dir = a\n{sections}\n"))
}

/// Whether the process has a handler of its own for TERM.
fn hears_term(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).map(|mask| u64::from_str_radix(mask.trim(), 16).unwrap());
    caught.is_some_and(|mask| mask & (1 << (Signal::TERM.as_raw() - 1)) != 0)
}

#[test]
fn a_stop_in_the_first_moment_is_as_clean_as_any() {
    let scene = scene("schedule = 0 0 29 2 *");
    for _ in 0..20 {
        let mut running = scene.start(&["daemon"]);
        let begun = Instant::now();
        // Without a pause: the moment in which it hears the signal is the first in which it can be stopped.
        while !hears_term(running.pid()) {
            assert!(begun.elapsed() < DEADLINE, "it never hears TERM");
        }
        running.signal(Signal::TERM);
        running.finish().exits(0).says("told to stop; nothing runs");
    }
}

#[test]
fn a_stop_right_after_the_first_line_of_the_log() {
    let scene = scene("schedule = 0 0 29 2 *");
    for _ in 0..10 {
        let mut running = scene.start(&["-v", "daemon"]);
        running.wait_for_message("", "").signal(Signal::TERM);
        running.finish().exits(0);
    }
}

/// There is no moment between the first word and the signal being heard: the order of the calls says so.
#[test]
fn it_hears_the_signal_before_it_reads_or_says_anything() {
    if !succeeds(Command::new("strace").arg("-V")) {
        return skipped("strace is not installed");
    }
    let scene = scene("schedule = 61 * * * *");
    let file = scene.path("trace");
    let scene = scene.under(&["strace", "-o", &file.display().to_string(), "-s", "300", "-e", "trace=rt_sigaction,openat,write"]);
    scene.run(&["daemon"]).exits(78);
    let trace = std::fs::read_to_string(&file).unwrap();
    let first = |what: &str| trace.lines().position(|line| line.contains(what)).unwrap_or_else(|| panic!("no {what} in\n{trace}"));
    let hears = first("rt_sigaction(SIGTERM, {sa_handler=0x");
    assert!(hears < first("runner.cfg") && hears < first("write(2, "), "{trace}");
}

/// A task that has heard TERM and goes on.
const STUBBORN: &str = "trap 'say told' TERM\nprobe touch begun\nwhile :; do probe ignore TERM nap 20; done";

#[test]
fn a_run_may_go_on_for_stop_time_and_is_then_ended() {
    let scene = scene("schedule = every 1s\nkill_after = 0.2\n[daemon]\nstop_time = 0.7").task_at("a/1-a.sh", STUBBORN);
    let mut running = scene.start(&["daemon"]);
    running.wait_for_file("begun");
    let told = Instant::now();
    running.signal(Signal::TERM);
    running.wait_for_message("told to stop; 1 run still", "");
    let run = running.finish().exits(0).nothing_alive();
    assert!(told.elapsed().as_millis() >= 900, "stop_time and kill_after: {:?}", told.elapsed());
    assert!(told.elapsed() < DEADLINE);
    assert_eq!(run.log().iter().filter(|line| *line == "- told").count(), 1, "TERM came when stop_time was over");
}

#[test]
fn a_run_that_ends_within_stop_time_is_not_disturbed() {
    let scene = scene("schedule = every 1s\n[daemon]\nstop_time = infinity")
        .task_at("a/1-a.sh", "trap 'say told' TERM\nprobe touch begun\nprobe wait-file go\nsay ended");
    let mut running = scene.start(&["daemon"]);
    running.wait_for_file("begun");
    running.signal(Signal::TERM).wait_for_message("told to stop; 1 run still", "");
    std::fs::write(running.path("go"), "").unwrap();
    let log = running.finish().exits(0).log();
    assert_eq!(log.last().map(String::as_str), Some("- ended"), "{log:?}");
    assert!(!log.contains(&"- told".to_owned()), "{log:?}");
}

/// The next datagram that has a line which begins so: the whole of it.
fn wait_for_note(socket: &UnixDatagram, start: &str) -> String {
    let mut buffer = [0_u8; 8192];
    loop {
        let length = socket.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.lines().any(|line| line.starts_with(start)) {
            return text;
        }
    }
}

fn manager(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// What the manager is asked for when the daemon is told to stop, in seconds.
fn asked_for(socket: &UnixDatagram, running: &mut Running) -> u64 {
    running.signal(Signal::TERM);
    let note = wait_for_note(socket, "STOPPING=1");
    let time = note.lines().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC=")).unwrap_or_else(|| panic!("{note}"));
    time.parse::<u64>().unwrap() / 1_000_000
}

#[test]
fn its_manager_is_asked_for_the_time_that_a_stop_may_take() {
    let scene = scene("schedule = every 1s\nkill_after = 7\n[daemon]\nstop_time = 2h").task_at("a/1-a.sh", STUBBORN);
    let socket = manager(&scene.path("notify"));
    let path = scene.path("notify");
    let mut running = scene.env("NOTIFY_SOCKET", path).start(&["daemon"]);
    running.wait_for_file("begun");
    // stop_time, then kill_after, 5 s in which a process may survive KILL, 5 s for the last records.
    assert_eq!(asked_for(&socket, &mut running), 7200 + 7 + 5 + 5);
    running.insist(Signal::TERM);
    running.finish().exits(0).nothing_alive();
}

#[test]
fn a_job_that_takes_its_time_counts_as_well() {
    let scene = scene("schedule = 0 0 29 2 *\n[queue:q]\ntask_dir = jobs\nkill_after = 9\n[daemon]\nqueues = q\nstop_time = 2h");
    let scene = scene.dir("jobs").task_at("jobs/1-job.sh", STUBBORN);
    let socket = manager(&scene.path("notify"));
    let path = scene.path("notify");
    let scene = scene.env("NOTIFY_SOCKET", path);
    scene.run(&["enqueue", "-Q", "q", "job"]).exits(0);
    let mut running = scene.start(&["daemon"]);
    running.wait_for_file("begun");
    assert_eq!(asked_for(&socket, &mut running), 7200 + 9 + 5 + 5);
    running.insist(Signal::TERM);
    running.finish().exits(0).nothing_alive();
}

#[test]
fn where_nothing_runs_it_asks_for_little() {
    let scene = scene("schedule = 0 0 29 2 *\n[daemon]\nstop_time = infinity");
    let socket = manager(&scene.path("notify"));
    let path = scene.path("notify");
    let mut running = scene.env("NOTIFY_SOCKET", path).start(&["daemon"]);
    wait_for_note(&socket, "READY=1");
    assert_eq!(asked_for(&socket, &mut running), 5);
    running.finish().exits(0);
}

#[test]
fn a_new_stop_time_holds_after_a_reload() {
    let scene = scene("schedule = every 1s\nkill_after = 7\n[daemon]\nstop_time = 0").task_at("a/1-a.sh", STUBBORN);
    let socket = manager(&scene.path("notify"));
    let path = scene.path("notify");
    let scene = scene.env("NOTIFY_SOCKET", path);
    let mut running = scene.start(&["daemon"]);
    running.wait_for_file("begun");
    let text = std::fs::read_to_string(scene.config_file()).unwrap();
    std::fs::write(scene.config_file(), text.replace("stop_time = 0", "stop_time = 1h")).unwrap();
    running.signal(Signal::HUP).wait_for_message("the configuration was read again", "");
    assert_eq!(asked_for(&socket, &mut running), 3600 + 17);
    running.insist(Signal::TERM);
    running.finish().exits(0).nothing_alive();
}
