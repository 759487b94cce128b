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
fn who_cannot_be_run_keeps_nobody_else_from_it() {
    // As with a tick; the gravest code is that of the program.
    let scene = chains(&["a", "b", "c"])
        .task_at("a/1-a.sh", "exit 0")
        .task_at("c/1-c.sh", "exit 2")
        .task_at("c/h.sh", "exit 0")
        .config("[task:c/1-c.sh]\nhalt_codes = 9\nmax_tries = 1\n");
    std::fs::remove_dir(scene.path("b")).unwrap();
    for args in [&["now", "--json"][..], &["now", "b", "a", "c", "--json"]] {
        let run = scene.run(args).exits(78).says("chain b does not run: ").says("the task directory");
        let mut ended: Vec<_> = run.json()["runs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|run| format!("{} {} {}", run["chain"], run["outcome"], run["exit_code"]))
            .collect();
        ended.sort();
        assert_eq!(ended, ["\"a\" \"done\" 0", "\"b\" \"refused\" 78", "\"c\" \"gave_up\" 1"], "{run}");
    }
    // Where none is left, and where the configuration itself is wrong, nothing begins.
    let run = scene.run(&["now", "b", "--json"]).exits(78);
    assert_eq!(run.json()["error"]["code"], 78, "{run}");
}

#[test]
fn a_configuration_that_is_wrong_keeps_all_from_running() {
    let scene = chains(&["a"]).tasks_at("a", ["1-a.sh"]).config("[chain:b]\ntask_dir = a\nmax_tries = x\n");
    scene.run(&["now"]).exits(78).ran_nothing().says("max_tries = x");
}

#[test]
fn a_section_of_a_task_of_nobody_is_told_and_strict_refuses_it() {
    let scene = chains(&["a"]).tasks_at("a", ["1-a.sh"]).config("[task:zz]\nmax_tries = 2\n");
    scene.run(&["--strict", "now"]).exits(78).ran_nothing().says("[task:zz]: no chain has a task that is called `zz`");
    scene.run(&["now"]).exits(0).says("[task:zz]: no chain has a task that is called `zz`");
}

#[test]
fn whose_tasks_cannot_be_run_hears_why_and_the_others_run() {
    let chains = ["a", "b", "c"].map(|name| format!("[chain:{name}]\ntask_dir = {name}\n")).concat();
    let scene = Scene::new()
        .hook_keeper("bin/hook.sh", "")
        .config(&format!("[runner]\nchain_hook = bin/hook.sh\n{chains}[task:c/c]\ndepends_on = nobody\n[metrics]\ntextfile = metrics\n"))
        .tasks_at("a", ["1-a.sh"])
        .tasks_at("c", ["1-c.sh"]);
    let run = scene.run(&["now"]).exits(78).ran(["1-a.sh"]).says("runner.cfg:6: the task directory").says("runner.cfg:10: ");
    // Each that is wrong, once.
    let refused: Vec<_> = run.hook_calls().into_iter().filter(|call| call["event"] == "refused").collect();
    let mut told: Vec<_> = refused.iter().map(|call| [&call["chain"], &call["reason"]].map(ToString::to_string)).collect();
    told.sort();
    assert_eq!(told, ["b", "c"].map(|chain| [chain, "task_dir"].map(|word| format!("\"{word}\""))));
    let of_b = refused.iter().find(|call| call["chain"] == "b").unwrap();
    assert!(of_b["message"].as_str().unwrap().contains("/b cannot be read"), "{run}");
    let refused = run.text_of("metrics").matches("reason=\"task_dir\"").count();
    assert_eq!(refused, 2, "{}", run.text_of("metrics"));
}

#[test]
fn of_what_is_wrong_with_the_configuration_itself_no_hook_hears() {
    let scene = chains(&["a", "b"]).hook_keeper("bin/hook.sh", "").config("chain_hook = bin/hook.sh\nmax_time = soon\n");
    std::fs::remove_dir(scene.path("b")).unwrap();
    let run = scene.run(&["now", "b"]).exits(78).says("runner.cfg:6: max_time = soon");
    assert!(run.hook_calls().is_empty(), "{run}");
}

#[test]
fn an_unknown_chain_is_a_usage_error_with_a_hint() {
    chains(&["nightly"]).run(&["now", "nightli"]).exits(64).ran_nothing().says("no chain is called `nightli`; did you mean `nightly`?");
}

#[test]
fn what_was_typed_is_no_suggestion_and_what_is_one_can_be_typed() {
    // A section whose name is none: that is what is wrong.
    let scene = Scene::new().config("[chain:a b]\ntask_dir = a\n");
    scene.run(&["now", "a b"]).exits(78).says("runner.cfg:1: [chain:a b]: expected a name").never_says("did you mean");
    scene.run(&["list", "a b"]).exits(64).says("no chain is called `a b`").never_says("did you mean");
    scene.run(&["list", "a bc"]).exits(64).never_says("did you mean");
    let task = Scene::new().tasks(["1-two words.sh"]);
    task.run(&["--only", "two word"]).exits(64).says("did you mean `'two words'`?");
    task.run(&["--only", "two words"]).exits(0).ran(["1-two words.sh"]);
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
