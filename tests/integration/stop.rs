//! Stopping: TERM, INT and HUP once and twice, in every phase of a run, and death by that signal.

use std::process::Command;

use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};

use crate::alive;
use crate::scene::{Scene, skipped, succeeds, until};

#[rstest]
#[case(Signal::TERM)]
#[case(Signal::INT)]
#[case(Signal::HUP)]
#[case(Signal::QUIT)]
#[case(Signal::USR1)]
#[case(Signal::USR2)]
#[case(Signal::ALARM)]
#[case(Signal::XCPU)]
fn it_dies_of_the_signal_once_all_tasks_are_gone(#[case] signal: Signal) {
    let mut running = Scene::new()
        .task("1-a.sh", "play child { pause } setsid-child { pause } touch begun pause")
        .tasks(["2-b.sh", "halt.sh"])
        .start(&[]);
    running.wait_for_file("begun").signal(signal);
    running.finish().dies_of(signal).ran(["1-a.sh"]).nothing_alive().quicker_than(9);
}

#[rstest]
#[case::to_end("TERM")]
#[case::to_be_stopped("INT")]
fn it_can_be_stopped_even_if_it_was_started_with_the_signal_blocked(#[case] name: &str) {
    let signal = if name == "TERM" { Signal::TERM } else { Signal::INT };
    let mut running = Scene::new().through(&["block", name]).task("1-a.sh", "play touch begun pause").start(&[]);
    running.wait_for_file("begun").signal(signal);
    running.finish().dies_of(signal).nothing_alive().quicker_than(9);
}

#[test]
fn tasks_are_told_first_and_have_time() {
    let mut running = Scene::new()
        .config("[runner]\nkill_after = 15\n")
        .task("1-a.sh", "trap 'probe nap 200; say cleaned; exit 0' TERM\nprobe touch begun\nwhile :; do probe ignore TERM nap 20; done")
        .start(&[]);
    running.wait_for_file("begun").signal(Signal::TERM);
    running.finish().dies_of(Signal::TERM).logged(["1-a.sh 1", "- cleaned"]).quicker_than(9);
}

#[test]
fn who_ignores_it_is_killed_after_the_grace() {
    let mut running = Scene::new().config("[runner]\nkill_after = 0.3\n").task("1-a.sh", "play ignore TERM touch begun pause").start(&[]);
    running.wait_for_file("begun").signal(Signal::TERM);
    running.finish().dies_of(Signal::TERM).nothing_alive().slower_than(300).quicker_than(9);
}

#[rstest]
#[case(Signal::TERM)]
#[case(Signal::INT)]
fn a_second_signal_kills_at_once(#[case] signal: Signal) {
    let mut running = Scene::new()
        .config("[runner]\nkill_after = 600\n")
        .task("1-a.sh", "trap 'say told' TERM INT\nprobe touch begun\nwhile :; do probe ignore TERM nap 20; done")
        .start(&[]);
    running.wait_for_file("begun").signal(signal).wait_for_log("- told").insist(signal);
    running.finish().dies_of(signal).ran(["1-a.sh"]).nothing_alive().quicker_than(9);
}

#[test]
fn a_pause_ends_at_once() {
    let mut running =
        Scene::new().config("[runner]\nsleep_time = 600\n").task("1-a.sh", "exit 1").task("halt.sh", "exit 0").start_logged(&[]);
    running.wait_for_message("run_retry", "").signal(Signal::TERM);
    running.finish().dies_of(Signal::TERM).ran(["1-a.sh"]).quicker_than(9);
}

#[test]
fn a_pause_of_one_task_ends_at_once() {
    let mut running = Scene::new().config("[runner]\nsleep_time = 600\nretry_from = failed\n").task("1-a.sh", "exit 1").start_logged(&[]);
    running.wait_for_message("task_ended", "1-a.sh").signal(Signal::TERM);
    running.finish().dies_of(Signal::TERM).ran(["1-a.sh"]).quicker_than(9);
}

#[test]
fn all_siblings_are_stopped() {
    let mut running = Scene::new()
        .config("[runner]\nmax_parallel = 3\n")
        .task("1-a.sh", "play touch a pause")
        .task("1-b.sh", "play wait-file a touch b pause")
        .task("1-c.sh", "play wait-file b touch c pause")
        .tasks(["1-d.sh", "2-e.sh"])
        .start(&[]);
    running.wait_for_file("c").signal(Signal::TERM);
    running.finish().dies_of(Signal::TERM).ran_in_any_order(["1-a.sh", "1-b.sh", "1-c.sh"]).nothing_alive();
}

#[test]
fn a_task_that_is_stopped_itself_is_ended_too() {
    let mut running = Scene::new()
        .config("[runner]\nkill_after = 15\n")
        .task("1-a.sh", "trap 'say continued; exit 1' TERM\necho $$ >\"$SCENE/pid\"\nprobe touch begun\nkill -STOP $$\nprobe nap 50")
        .start(&[]);
    running.wait_for_file("begun");
    let pid = std::fs::read_to_string(running.path("pid")).unwrap().trim().parse().unwrap();
    until("the task is stopped", || alive::state_of(pid) == Some('T'));
    running.signal(Signal::TERM);
    running.finish().dies_of(Signal::TERM).logged(["1-a.sh 1", "- continued"]).quicker_than(9);
}

#[test]
fn a_halt_turns_into_nothing_else_when_stopped_while_cancelling() {
    // A signal stands before HALT: no halt task, and the death is the signal's.
    let mut running = Scene::new()
        .config("[runner]\nmax_parallel = 2\nkill_after = 3\n")
        .task("1-a.sh", "probe wait-file begun; exit 2")
        .task("1-b.sh", "trap 'probe touch told' TERM\nprobe touch begun\nwhile :; do probe ignore TERM nap 20; done")
        .task("halt.sh", "exit 0")
        .start(&[]);
    running.wait_for_file("told").signal(Signal::TERM);
    running.finish().dies_of(Signal::TERM).ran_in_any_order(["1-a.sh", "1-b.sh"]).nothing_alive();
}

#[test]
fn the_end_of_a_stopped_run_is_told() {
    let mut running = Scene::new().task("1-a.sh", "play touch begun pause").start_logged(&[]);
    running.wait_for_file("begun").signal(Signal::TERM);
    let run = running.finish().dies_of(Signal::TERM);
    assert_eq!(run.events("task_ended")[0]["result"], "CANCEL");
    assert_eq!(run.events("run_ended").len(), 1);
}

#[test]
fn as_pid_1_it_exits_with_128_and_the_signal() {
    let namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    if !succeeds(Command::new(namespace[0]).args(&namespace[1..]).arg("true")) {
        skipped("no process namespace can be made here");
        return;
    }
    let scene = Scene::new().under(&namespace).task("1-a.sh", "play daemon { pause } touch begun pause").tasks(["2-b.sh"]);
    let mut running = scene.start(&[]);
    running.wait_for_file("begun");
    let pid = running.pid();
    let child = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    kill_process(Pid::from_raw(child.trim().parse().unwrap()).unwrap(), Signal::TERM).unwrap();
    running.finish().exits(128 + 15).ran(["1-a.sh"]).nothing_alive();
}

/// A tick is no daemon, and a second signal is told as one all the same.
#[cfg(feature = "schedule")]
#[test]
fn a_second_term_to_a_tick_kills_what_runs() {
    let config = "[chain:a]\ntask_dir = tasks.d\nschedule = * * * * *\nkill_after = 60\n";
    let scene = Scene::new().raw_config(config).task("1-a.sh", "play touch begun ignore TERM pause");
    let mut tick = scene.start(&["tick"]);
    tick.wait_for_file("begun").insist(Signal::TERM);
    let run = tick.finish().nothing_alive().says("told to stop by SIGTERM; a second signal kills at once");
    run.says("chain a: told to stop by SIGTERM again; what runs is killed").never_says("the daemon stops");
}
