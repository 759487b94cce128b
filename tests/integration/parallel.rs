//! Width: how many run at once, stages, what becomes of siblings, and which verdict wins.

use rstest::rstest;
use serde_json::Value;

use crate::scene::{Outcome, Scene};

fn wide(width: usize) -> Scene {
    Scene::new().config(&format!("[runner]\nmax_parallel = {width}\nkill_after = 0.3\n"))
}

/// Waits, in a task, until the program has told that `task` ended.
fn when_ended(task: &str, then: &str) -> String {
    format!("probe wait-line \"$SUT_LOG\" task_ended {task}\n{then}")
}

/// The most tasks that ran at once, as the program's own events tell.
fn most_at_once(run: &Outcome) -> usize {
    let (mut now, mut most) = (0_usize, 0);
    for message in run.messages() {
        match message["event"].as_str() {
            Some("task_started") => now += 1,
            Some("task_ended") => now -= 1,
            _ => {}
        }
        most = most.max(now);
    }
    most
}

fn result_of(run: &Outcome, task: &str) -> Value {
    run.events("task_ended").iter().find(|e| e["task"] == task).unwrap()["result"].clone()
}

// ---- how many ----------------------------------------------------------------------------------

#[test]
fn one_at_a_time_is_the_default() {
    let run = Scene::new().tasks(["1-a.sh", "1-b.sh", "1-c.sh"]).run_logged(&[]).exits(0);
    assert_eq!(most_at_once(&run), 1);
}

#[test]
fn tasks_of_one_stage_run_at_once() {
    // Each waits until the other has begun: only side by side can both end well.
    wide(2)
        .task("1-a.sh", "play touch a wait-file b")
        .task("1-b.sh", "play touch b wait-file a")
        .run(&[])
        .exits(0)
        .ran_in_any_order(["1-a.sh", "1-b.sh"]);
}

#[test]
fn never_more_than_max_parallel_run() {
    let count = "mkdir -p \"$SCENE/now/$me\"; set -- \"$SCENE\"/now/*; say $#; probe nap 30; rmdir \"$SCENE/now/$me\"";
    let scene = (0..9).fold(wide(3), |scene, n| scene.task(format!("1-{n}.sh"), count));
    let run = scene.run_logged(&[]).exits(0);
    assert_eq!(most_at_once(&run), 3);
    let seen: Vec<u32> = run.log().iter().filter_map(|l| l.strip_prefix("- ")?.parse().ok()).collect();
    assert_eq!(seen.len(), 9);
    assert!(seen.iter().all(|&n| n <= 3), "{seen:?}");
}

#[test]
fn a_free_place_is_taken_at_once() {
    // The first waits for all others; they share the second place.
    wide(2)
        .task("1-a.sh", "play wait-file last")
        .task("1-b.sh", "exit 0")
        .task("1-c.sh", "exit 0")
        .task("1-d.sh", "play touch last")
        .run(&[])
        .exits(0);
}

#[rstest]
#[case("0")]
#[case("-1")]
#[case("many")]
fn a_width_is_at_least_one(#[case] width: &str) {
    Scene::new()
        .config(&format!("[runner]\nmax_parallel = {width}\n"))
        .tasks(["1-a.sh"])
        .run(&[])
        .exits(78)
        .ran_nothing()
        .says("runner.cfg:2")
        .says("max_parallel");
}

// ---- stages ------------------------------------------------------------------------------------

#[test]
fn stages_follow_one_another_with_a_barrier() {
    let run = wide(8)
        .task("1-a.sh", "exit 0")
        .task("1-b.sh", "probe nap 200; touch \"$SCENE/b.done\"")
        .task("2-c.sh", "[ -e \"$SCENE/b.done\" ] || exit 2")
        .task("x.sh", "[ -e \"$SCENE/b.done\" ] || exit 2")
        .run_logged(&[])
        .exits(0);
    let order: Vec<(String, String)> = run
        .messages()
        .iter()
        .filter(|m| ["task_started", "task_ended"].iter().any(|kind| m["event"] == *kind))
        .map(|m| (m["event"].as_str().unwrap().to_owned(), m["task"].as_str().unwrap().to_owned()))
        .collect();
    let place = |kind: &str, task: &str| order.iter().position(|(k, t)| k == kind && t == task).unwrap();
    for earlier in ["1-a.sh", "1-b.sh"] {
        assert!(place("task_ended", earlier) < place("task_started", "2-c.sh"), "{order:?}");
    }
    assert!(place("task_ended", "2-c.sh") < place("task_started", "x.sh"), "{order:?}");
}

#[test]
fn tasks_without_a_number_are_one_stage() {
    wide(2).task("a.sh", "play touch a wait-file b").task("b.sh", "play touch b wait-file a").run(&[]).exits(0);
}

// ---- what becomes of siblings ------------------------------------------------------------------

#[test]
fn a_halt_cancels_its_siblings() {
    let run = wide(2)
        .config("kill_after = 9\n")
        .task("1-a.sh", "probe wait-file ready; exit 2")
        .task("1-b.sh", "trap 'say told; exit 0' TERM\nprobe touch ready\nwhile :; do probe ignore TERM nap 20; done")
        .tasks(["1-c.sh", "2-d.sh", "halt.sh"])
        .run_logged(&[])
        .exits(3)
        .nothing_alive();
    assert_eq!(run.log()[2..], ["- told", "halt.sh -"]);
    assert_eq!(result_of(&run, "1-b.sh"), "CANCEL");
    assert_eq!(result_of(&run, "1-a.sh"), "HALT");
}

#[test]
fn a_failure_lets_its_siblings_end_and_starts_nothing_new() {
    wide(2)
        .task("1-a.sh", "once && exit 1; exit 0")
        .task("1-b.sh", &when_ended("1-a.sh", "say b went on; exit 0"))
        .task("1-c.sh", "exit 0")
        .run_logged(&[])
        .exits(0)
        .ran_in_any_order(["1-a.sh", "1-a.sh", "1-b.sh", "1-b.sh", "1-c.sh"]);
}

#[test]
fn several_failures_of_one_drain_are_one_try() {
    let run = wide(2)
        .config("max_tries = 2\nhalt_on_give_up = no\n")
        .task("1-a.sh", "probe touch a.$RUNNER_TRY wait-file b.$RUNNER_TRY; exit 1")
        .task("1-b.sh", "probe touch b.$RUNNER_TRY wait-file a.$RUNNER_TRY; exit 1")
        .run_logged(&[])
        .exits(1);
    let mut log = run.log();
    log.sort();
    assert_eq!(log, ["1-a.sh 1", "1-a.sh 2", "1-b.sh 1", "1-b.sh 2"]);
    assert_eq!(run.events("run_retry").len(), 1);
}

#[test]
fn the_pause_after_a_drain_is_the_longest_of_all() {
    wide(2)
        .config("max_tries = 2\nhalt_on_give_up = no\n[a]\nsleep_time = 0\n[b]\nsleep_time = 0.6\n")
        .task("1-a.sh", "probe touch a.$RUNNER_TRY wait-file b.$RUNNER_TRY; exit 1")
        .task("1-b.sh", "probe touch b.$RUNNER_TRY wait-file a.$RUNNER_TRY; exit 1")
        .run(&[])
        .exits(1)
        .slower_than(600);
}

#[test]
fn the_pause_begins_when_the_last_task_is_gone() {
    // The sibling takes longer than the pause: what began with the failure would be over by then.
    let run = wide(2)
        .config("max_tries = 2\nsleep_time = 0.5\nretry_jitter = 0\n")
        .task("1-a.sh", "once && exit 1; exit 0")
        .task("1-b.sh", &when_ended("1-a.sh", "probe nap 500; exit 0"))
        .run_logged(&[])
        .exits(0);
    run.slower_than(1000);
}

#[test]
fn a_halt_turns_a_drain_into_a_cancellation() {
    let run = wide(3)
        .task("1-a.sh", "probe wait-file c; exit 1")
        .task("1-b.sh", &when_ended("1-a.sh", "exit 2"))
        .task("1-c.sh", "play touch c pause")
        .task("halt.sh", "say \"$RUNNER_FAILED_TASK\"")
        .run_logged(&[])
        .exits(3)
        .nothing_alive();
    assert_eq!(run.log().last().unwrap(), "- 1-b.sh");
    assert_eq!(result_of(&run, "1-c.sh"), "CANCEL");
}

#[test]
fn a_halt_wins_over_giving_up() {
    wide(2)
        .config("max_tries = 1\n")
        .task("1-a.sh", "exit 1")
        .task("1-b.sh", &when_ended("1-a.sh", "exit 2"))
        .task("halt.sh", "say \"$RUNNER_FAILED_TASK\"")
        .run_logged(&[])
        .exits(3);
}

#[test]
fn a_stop_code_wins_over_a_retry_and_over_giving_up() {
    for tries in [1, 5] {
        wide(2)
            .config(&format!("max_tries = {tries}\nstop_codes = 3\n"))
            .task("1-a.sh", "exit 1")
            .task("1-b.sh", &when_ended("1-a.sh", "exit 3"))
            .tasks(["1-c.sh", "halt.sh"])
            .run_logged(&[])
            .exits(5)
            .ran_in_any_order(["1-a.sh", "1-b.sh"]);
    }
}

#[test]
fn a_retry_does_not_win_over_a_stop_code() {
    wide(2)
        .config("stop_codes = 3\n")
        .task("1-a.sh", "exit 3")
        .task("1-b.sh", &when_ended("1-a.sh", "exit 1"))
        .tasks(["1-c.sh", "halt.sh"])
        .run_logged(&[])
        .exits(5)
        .ran_in_any_order(["1-a.sh", "1-b.sh"]);
}

#[test]
fn a_halt_wins_over_a_stop_code() {
    wide(2)
        .config("stop_codes = 3\n")
        .task("1-a.sh", "exit 3")
        .task("1-b.sh", &when_ended("1-a.sh", "exit 2"))
        .task("halt.sh", "exit 0")
        .run_logged(&[])
        .exits(3);
}

#[test]
fn a_stop_code_lets_its_siblings_end() {
    let run = wide(2)
        .config("stop_codes = 3\n")
        .task("1-a.sh", "exit 3")
        .task("1-b.sh", &when_ended("1-a.sh", "say went on; exit 0"))
        .tasks(["1-c.sh", "2-d.sh", "halt.sh"])
        .run_logged(&[])
        .exits(5)
        .ran_in_any_order(["1-a.sh", "1-b.sh"]);
    assert_eq!(result_of(&run, "1-b.sh"), "OK");
    assert_eq!(run.log().last().unwrap(), "- went on");
}

#[test]
fn the_limit_of_a_run_cancels_all() {
    let run = wide(2)
        .config("chain_max_time = 0.6\n")
        .task("1-a.sh", "play touch a pause")
        .task("1-b.sh", "play ignore TERM pause")
        .tasks(["1-c.sh", "halt.sh"])
        .run_logged(&[])
        .exits(1)
        .ran_in_any_order(["1-a.sh", "1-b.sh", "halt.sh"])
        .nothing_alive();
    assert_eq!(result_of(&run, "1-a.sh"), "CANCEL");
}

#[test]
fn a_cancelled_task_is_no_failure() {
    // The second loop finds the task as untouched as before: its own limit of one try is not used up.
    let run = wide(2)
        .config("[b]\nmax_tries = 1\n")
        .task("1-a.sh", "probe wait-file b; exit 2")
        .task("1-b.sh", "play touch b pause")
        .task("halt.sh", "say \"$RUNNER_FAILED_TASK\"")
        .run_logged(&[])
        .exits(3);
    assert_eq!(run.log().last().unwrap(), "- 1-a.sh");
}

// ---- retry_from = failed -----------------------------------------------------------------------

fn wide_from_failed(width: usize) -> Scene {
    wide(width).config("retry_from = failed\n")
}

#[test]
fn only_the_failed_sibling_runs_again_and_the_next_stage_waits() {
    let run = wide_from_failed(2)
        .config("sleep_time = 0.3\nretry_jitter = 0\n")
        .task("1-a.sh", "once && exit 1; exit 0")
        .tasks(["1-b.sh", "1-c.sh", "2-d.sh"])
        .run_logged(&[])
        .exits(0)
        .ran_in_any_order(["1-a.sh", "1-a.sh", "1-b.sh", "1-c.sh", "2-d.sh"]);
    assert_eq!(run.log().last().unwrap(), "2-d.sh 1");
}

#[test]
fn a_sleeping_task_gives_its_place_away() {
    // The two others need both places, long before the first wakes again.
    let run = wide_from_failed(2)
        .config("sleep_time = 2\nretry_jitter = 0\n")
        .task("1-a.sh", "once && exit 1; exit 0")
        .task("1-b.sh", "play touch b wait-file c")
        .task("1-c.sh", "play touch c wait-file b")
        .run(&[])
        .exits(0);
    assert_eq!(run.log().last().unwrap(), "1-a.sh 2");
}

#[test]
fn who_gives_up_cancels_those_who_sleep() {
    wide_from_failed(2)
        .config("sleep_time = 600\nhalt_on_give_up = no\n[b]\nmax_tries = 1\n")
        .task("1-a.sh", "exit 1")
        .task("1-b.sh", &when_ended("1-a.sh", "exit 1"))
        .run_logged(&[])
        .exits(1)
        .ran_in_any_order(["1-a.sh", "1-b.sh"])
        .quicker_than(9);
}

#[test]
fn a_halt_wakes_those_who_sleep_for_ever() {
    wide_from_failed(2)
        .config("sleep_time = 600\n")
        .task("1-a.sh", "exit 1")
        .task("1-b.sh", &when_ended("1-a.sh", "exit 2"))
        .task("halt.sh", "exit 0")
        .run_logged(&[])
        .exits(3)
        .quicker_than(9);
}

#[test]
fn each_task_sees_its_own_try() {
    let run = wide_from_failed(3)
        .task("1-a.sh", "[ \"$RUNNER_TRY\" = 3 ]")
        .task("1-b.sh", "[ \"$RUNNER_TRY\" = 2 ]")
        .task("1-c.sh", "exit 0")
        .run(&[])
        .exits(0);
    let mut log = run.log();
    log.sort();
    assert_eq!(log, ["1-a.sh 1", "1-a.sh 2", "1-a.sh 3", "1-b.sh 1", "1-b.sh 2", "1-c.sh 1"]);
}

/// A thousand runs that end beside others would else look through a thousand processes each.
#[test]
fn who_ends_beside_others_and_leaves_nobody_has_one_file_of_proc_read() {
    if !crate::scene::succeeds(std::process::Command::new("strace").arg("-V")) {
        return crate::scene::skipped("strace is not installed");
    }
    let scene = wide(2)
        .task("1-a.sh", "play wait-file b-runs")
        .task("1-b.sh", "probe touch b-runs; until grep -q '1-a.sh: ok in' \"$SUT_LOG\"; do probe nap 5; done");
    let file = scene.path("trace").display().to_string();
    // The program alone, not what it starts.
    let run = scene.under(&["strace", "-o", &file, "-e", "trace=open,openat"]).run(&[]).exits(0);
    let trace = run.text_of("trace");
    let of_proc: Vec<&str> = trace.lines().filter_map(|line| line.split_once("\"/proc").map(|(_, path)| path)).collect();
    let looks_at_all =
        |path: &&str| path.starts_with('"') || path.strip_prefix('/').is_some_and(|path| path.starts_with(|c: char| c.is_ascii_digit()));
    assert!(of_proc.iter().any(|path| path.starts_with("/self/task/") && path.contains("/children\"")), "{of_proc:#?}");
    assert!(!of_proc.iter().any(looks_at_all), "{of_proc:#?}");
}

#[rstest]
#[case::of_a_main_chain(&[], "")]
#[case::that_change_their_user(&[], "umask = 027\n")]
#[case::of_other_chains(&["now"], "")]
fn many_tasks_have_descriptors_enough_and_begin_with_the_limit_that_runner_had(#[case] args: &[&str], #[case] key: &str) {
    // Each waits until the last has begun.
    let names: Vec<_> = (1..=120).map(|n| format!("t{n}")).collect();
    let last = "ulimit -Sn >\"$SCENE/limit\"; play touch all";
    let body = |n: usize| if n == 119 { last } else { "play wait-file all" };
    let tasks = "[runner]\nmax_parallel = 120\nmax_tries = 1\noutput = capture\n";
    let tasks = format!("{tasks}{key}[chain:a]\ntask_dir = tasks.d\nmax_parallel = 120\n");
    let scene = Scene::new().config(&tasks).under(&["sh", "-c", "ulimit -Sn 128; exec \"$0\" \"$@\""]);
    let scene = names.iter().enumerate().fold(scene, |scene, (n, name)| scene.task(name, body(n)));
    let run = scene.run(args).exits(0);
    assert_eq!(run.text_of("limit").trim(), "128");
}
