//! `runner now`: chains at once, side by side, once.

use rstest::rstest;
use rustix::process::Signal;

use crate::scene::Scene;

/// Named chains, each with a directory of its name and the tasks that follow.
fn chains(names: &[&str]) -> Scene {
    let scene = names.iter().fold(Scene::new(), |scene, name| scene.dir(name));
    names.iter().fold(scene, |scene, name| scene.config(&format!("[chain:{name}]\ntask_dir = {name}\n")))
}

#[test]
fn every_enabled_chain_runs_side_by_side() {
    // Each waits for the other: one after the other they would wait in vain.
    let run = chains(&["a", "b", "off"])
        .config("enabled = no\n")
        .task_at("a/1-a.sh", "play touch a-runs wait-file b-runs")
        .task_at("b/1-b.sh", "play touch b-runs wait-file a-runs")
        .tasks_at("off", ["1-off.sh"])
        .run_logged(&["now", "--json"])
        .exits(0)
        .ran_in_any_order(["1-a.sh", "1-b.sh"]);
    let runs = run.json();
    assert_eq!(runs["version"], 1);
    let chains: Vec<_> = runs["runs"].as_array().unwrap().iter().map(|run| run["chain"].as_str().unwrap()).collect();
    assert!(chains.contains(&"a") && chains.contains(&"b") && chains.len() == 2, "{chains:?}");
    assert!(runs["runs"].as_array().unwrap().iter().all(|run| run["outcome"] == "done"));
}

#[test]
fn a_chain_that_is_not_enabled_runs_when_it_is_named() {
    chains(&["on", "off"])
        .config("enabled = no\n")
        .tasks_at("on", ["1-on.sh"])
        .tasks_at("off", ["1-off.sh"])
        .run(&["now", "off"])
        .exits(0)
        .ran(["1-off.sh"]);
}

#[test]
fn the_main_chain_may_be_named_too_and_nobody_runs_twice() {
    chains(&["a"])
        .tasks(["1-main.sh"])
        .tasks_at("a", ["1-a.sh"])
        .run(&["now", "main", "a", "main", "a"])
        .exits(0)
        .ran_in_any_order(["1-a.sh", "1-main.sh"]);
}

#[test]
fn a_chain_is_what_its_tasks_see() {
    let seen = "say $RUNNER_CHAIN $RUNNER_TRIGGER $(basename \"$RUNNER_TASK_DIR\") ${RUNNER_SCHEDULED_AT-none}";
    chains(&["a"]).task_at("a/1-a.sh", seen).run(&["now"]).exits(0).logged(["1-a.sh 1", "- a now a none"]);
}

#[rstest]
#[case::halted_is_graver_than_stopped(2, 5, 3)]
#[case::stopped_is_graver_than_gave_up(5, 1, 5)]
#[case::gave_up_is_graver_than_done(0, 1, 1)]
fn the_gravest_outcome_is_the_exit_code(#[case] one: i32, #[case] other: i32, #[case] expected: i32) {
    chains(&["a", "b"])
        .config("[runner]\nmax_tries = 1\nstop_codes = 5\n")
        .task_at("a/1-a.sh", &format!("exit {one}"))
        .task_at("b/1-b.sh", &format!("exit {other}"))
        .run(&["now"])
        .exits(expected)
        .ran_in_any_order(["1-a.sh", "1-b.sh"]);
}

#[test]
fn a_halt_ends_its_own_run_and_runs_no_halt_task_that_is_not_named() {
    chains(&["a", "b"])
        .task_at("a/1-a.sh", "probe touch halted; exit 2")
        .task_at("a/halt.sh", "exit 0")
        .task_at("a/9-never.sh", "exit 0")
        .task_at("b/1-b.sh", "play wait-file halted")
        .task_at("b/2-b.sh", "exit 0")
        .run(&["now"])
        .exits(3)
        .ran_in_any_order(["1-a.sh", "1-b.sh", "2-b.sh"]);
}

#[test]
fn a_halt_task_that_is_named_runs() {
    chains(&["a"])
        .config("halt_task = stop-it.sh\n")
        .task_at("a/1-a.sh", "exit 2")
        .task_at("a/stop-it.sh", "say halting because of $RUNNER_FAILED_TASK")
        .run(&["now"])
        .exits(3)
        .logged(["1-a.sh 1", "stop-it.sh -", "- halting because of 1-a.sh"]);
}

#[test]
fn a_signal_stops_all_of_them() {
    let mut running = chains(&["a", "b"])
        .task_at("a/1-a.sh", "play touch a-runs pause")
        .task_at("b/1-b.sh", "play wait-file a-runs touch b-runs setsid-child { pause } pause")
        .start(&["now"]);
    running.wait_for_file("b-runs").signal(Signal::TERM);
    running.finish().dies_of(Signal::TERM).nothing_alive();
}

#[test]
fn groups_retry_only_what_failed() {
    // As runningtrack had it: members side by side, each with tries of its own.
    chains(&["group"])
        .config("max_parallel = 2\nretry_from = failed\nmax_tries = 3\n")
        .task_at("group/a.sh", "exit 0")
        .task_at("group/b.sh", "exit $((RUNNER_TRY < 3))")
        .run(&["now"])
        .exits(0)
        .ran_in_any_order(["a.sh", "b.sh", "b.sh", "b.sh"]);
}

#[test]
fn nothing_begins_when_one_of_them_cannot() {
    chains(&["a"])
        .tasks_at("a", ["1-a.sh"])
        .config("[chain:b]\ntask_dir = not-there\n")
        .run(&["now"])
        .exits(78)
        .ran_nothing()
        .says("runner.cfg:4: the task directory");
}

#[test]
fn an_unknown_chain_is_a_usage_error_with_a_hint() {
    chains(&["nightly"]).run(&["now", "nightli"]).exits(64).ran_nothing().says("no chain is called `nightli`; did you mean `nightly`?");
}

#[test]
fn without_any_chain_there_is_nothing_to_do() {
    Scene::new().run(&["now"]).exits(0).says("there is no chain to run");
}

#[test]
fn what_is_wrong_is_told_where_no_chain_is_left() {
    Scene::new().config("[chain:main]\ntask_dir = a\n").run(&["now"]).exits(78).says("runner.cfg:1: ");
    Scene::new()
        .config("[chain:a b]\ntask_dir = a\n[chain:off]\ntask_dir = a\nenabled = no\n")
        .run(&["now"])
        .exits(78)
        .says("runner.cfg:1: ");
}

#[test]
fn a_chain_does_not_run_inside_itself() {
    chains(&["a"])
        .task_at("a/1-a.sh", "\"$RUNNER\" now a; say $?")
        .env("RUNNER", runner())
        .run(&["now"])
        .exits(0)
        .logged(["1-a.sh 1", "- 75"]);
}

#[test]
fn lines_of_several_chains_are_marked_with_both_names() {
    chains(&["a", "b"])
        .task_at("a/1-a.sh", "echo from a")
        .task_at("b/1-b.sh", "echo from b")
        .run(&["now"])
        .exits(0)
        .prints("a/1-a.sh | from a")
        .prints("b/1-b.sh | from b");
}

#[test]
fn every_command_that_lists_knows_the_chains() {
    let scene = chains(&["a"]).config("max_time = 7\n").tasks_at("a", ["1-a.sh"]).task_at("a/2-b.sh", "exit 0");
    scene.run(&["list", "a"]).exits(0).prints("1. 1-a.sh").prints("max_time = 7    # ");
    scene.run(&["list", "b"]).exits(64).says("no chain is called `b`");
}

fn runner() -> &'static std::path::Path {
    crate::scene::runner_binary()
}

#[test]
fn lines_of_tasks_name_their_chain() {
    let scene = chains(&["a"]).config("max_tries = 1\nhalt_task = h.sh\n").task_at("a/1-a.sh", "exit 2").task_at("a/h.sh", "exit 0");
    let run = scene.run(&["now", "a"]).exits(3);
    run.says("a/1-a.sh: started, try 1 of 1").says("a/1-a.sh: asks for the halt task: exit 2").says("/a/h.sh: done");
    let events = scene.run_logged(&["now", "a"]).events("task_started");
    assert_eq!((&events[0]["task"], &events[0]["chain"]), (&"1-a.sh".into(), &"a".into()));
    // Of the main chain they stay as they were.
    let main = Scene::new().tasks(["1-a.sh"]).run(&[]).exits(0);
    assert!(main.stderr_text().lines().any(|line| line.ends_with("1-a.sh: started, try 1 of 5") && !line.contains('/')), "{main}");
}

#[test]
fn an_idle_chain_has_its_whole_window() {
    let scene =
        Scene::new().raw_config("[runner]\nmax_tries = 1\n[chain:i]\ntask_dir = i\nidle = yes\nwindow = 3600\n[chain:a]\ntask_dir = i\n");
    let scene = scene.task_at("i/1-i.sh", "set -u\nsay $((RUNNER_TIME_LEFT > 3000 && RUNNER_TIME_LEFT <= 3600))");
    assert_eq!(scene.run(&["now", "i"]).exits(0).log().last().map(String::as_str), Some("- 1"));
    assert_eq!(scene.run(&["now", "a"]).exits(0).log().last().map(String::as_str), Some("- 0"), "one that is not idle has none");
}
