//! Supervision of one task: its limit, TERM and then KILL, a stopped task, and the surroundings in
//! which it runs whatever runner was started with.

use rstest::rstest;
use serde_json::json;

use crate::alive;
use crate::scene::{Outcome, Scene, is_root_or_skipped, until};

fn one_try() -> Scene {
    Scene::new().config("[runner]\nmax_tries = 1\nhalt_on_give_up = no\n")
}

// ---- the limit ---------------------------------------------------------------------------------

#[test]
fn a_task_beyond_its_limit_is_told_to_end() {
    let run = one_try()
        .config("max_time = 0.4\nkill_after = 9\n")
        .task("1-a.sh", "play pause")
        .task("2-b.sh", "exit 0")
        .run_logged(&[])
        .exits(1)
        .ran(["1-a.sh"])
        .nothing_alive()
        .slower_than(400)
        .quicker_than(8);
    let ended = &run.events("task_ended")[0];
    assert_eq!(ended["task"], "1-a.sh");
    assert_eq!(ended["timed_out"], true);
    assert!(ended["signal"].is_null() || ended["signal"] == 15, "{ended}");
}

#[test]
fn who_ignores_term_is_killed() {
    one_try()
        .config("max_time = 0.3\nkill_after = 0.3\n")
        .task("1-a.sh", "play ignore TERM child { pause } setsid-child { pause } pause")
        .run(&[])
        .exits(1)
        .nothing_alive()
        .slower_than(600)
        .quicker_than(9);
}

#[test]
fn between_term_and_kill_there_is_time_to_clean_up() {
    one_try()
        .config("max_time = 0.4\nkill_after = 9\n")
        .task("1-a.sh", "trap 'probe nap 300; say cleaned; exit 1' TERM\nwhile :; do probe ignore TERM nap 20; done")
        .run(&[])
        .exits(1)
        .logged(["1-a.sh 1", "- cleaned"])
        .quicker_than(8);
}

#[test]
fn term_goes_to_the_whole_group() {
    one_try()
        .config("max_time = 0.5\nkill_after = 9\n")
        .task("1-a.sh", "sh -c 'trap \"echo - inner >>$SCENE/log; exit 1\" TERM; while :; do \"$PROBE\" nap 20; done'; exit 1")
        .run(&[])
        .exits(1)
        .logged(["1-a.sh 1", "- inner"])
        .quicker_than(8);
}

#[test]
fn a_limit_of_one_task_fires() {
    one_try()
        .config("max_time = 600\n[task:b]\nmax_time = 0.3\n")
        .task("1-a.sh", "exit 0")
        .task("2-b.sh", "play pause")
        .run(&[])
        .exits(1)
        .ran(["1-a.sh", "2-b.sh"])
        .quicker_than(9);
}

#[test]
fn no_second_try_begins_beside_the_first() {
    let body = "[ \"$RUNNER_TRY\" = 1 ] && play pid-file first ignore TERM pause\n\
        [ -e \"/proc/$(cat \"$SCENE/first\")\" ] && say beside\nexit 1";
    Scene::new()
        .config("[runner]\nmax_tries = 2\nmax_time = 0.4\nkill_after = 0.2\nhalt_on_give_up = no\n")
        .task("1-a.sh", body)
        .run(&[])
        .exits(1)
        .logged(["1-a.sh 1", "1-a.sh 2"])
        .gone("first");
}

#[test]
fn a_stopped_task_is_continued_so_that_it_can_end() {
    one_try()
        .config("max_time = 0.9\nkill_after = 15\n")
        .task("1-a.sh", "trap 'say continued; exit 1' TERM\nprobe touch stopping\nkill -STOP $$\nprobe nap 50")
        .run(&[])
        .exits(1)
        .logged(["1-a.sh 1", "- continued"])
        .quicker_than(9);
}

#[test]
fn a_stopped_task_is_not_an_ended_one() {
    let mut running = one_try().task("1-a.sh", "play pid-file task stop exit 0").start(&[]);
    running.wait_for_file("task");
    let pid: i32 = std::fs::read_to_string(running.path("task")).unwrap().parse().unwrap();
    until("the task is stopped", || alive::state_of(pid.unsigned_abs()) == Some('T'));
    let task = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(task, rustix::process::Signal::CONT).unwrap();
    running.finish().exits(0);
}

#[rstest]
#[case("0")]
#[case("infinity")]
fn a_task_may_have_no_limit(#[case] limit: &str) {
    one_try().config(&format!("max_time = {limit}\n")).tasks(["1-a.sh"]).run(&[]).exits(0).quicker_than(5);
}

#[rstest]
#[case::in_a_pause("exit 1")]
#[case::in_a_task("play pause")]
fn a_run_has_a_limit_that_no_try_outlives(#[case] body: &str) {
    Scene::new()
        .config("[runner]\nchain_max_time = 0.6\nsleep_time = 60\nkill_after = 0.2\n")
        .task("1-a.sh", body)
        .tasks(["2-b.sh", "halt.sh"])
        .run(&[])
        .exits(1)
        .ran(["1-a.sh", "halt.sh"])
        .nothing_alive()
        .quicker_than(9);
}

#[test]
fn the_limit_of_a_run_halts_only_where_giving_up_halts() {
    Scene::new()
        .config("[runner]\nchain_max_time = 0.5\nhalt_on_give_up = no\n")
        .task("1-a.sh", "play pause")
        .task("halt.sh", "exit 0")
        .run(&[])
        .exits(1)
        .ran(["1-a.sh"]);
}

#[test]
fn who_ends_its_own_group_ends_nobody_else() {
    Scene::new()
        .config("[runner]\nmax_tries = 2\n")
        .task("1-a.sh", "once && kill -KILL 0; exit 0")
        .task("2-b.sh", "exit 0")
        .run(&[])
        .exits(0)
        .logged(["1-a.sh 1", "1-a.sh 2", "2-b.sh 2"]);
}

// ---- what runner looks after -------------------------------------------------------------------

#[test]
fn strangers_are_reaped_while_the_chain_runs() {
    one_try()
        .task("1-a.sh", "play daemon { pid-file stranger exit 0 }")
        .task("2-b.sh", "play wait-file stranger wait-gone stranger exit 0")
        .run(&[])
        .exits(0);
}

#[test]
fn children_that_runner_was_born_with_are_not_touched() {
    one_try()
        .through(&["child", "{", "pid-file", "brother", "pause", "}"])
        .config("max_time = 0.4\nkill_after = 0.2\nsweep = always\n")
        .task("1-a.sh", "play ignore TERM pause")
        .run(&[])
        .exits(1)
        .alive("brother");
}

#[test]
fn a_brother_that_ends_is_not_taken_for_a_task() {
    one_try()
        .through(&["child", "{", "wait-file", "begun", "exit", "9", "}"])
        .task("1-a.sh", "play touch begun nap 100 exit 0")
        .run(&[])
        .exits(0)
        .ran(["1-a.sh"]);
}

#[rstest]
#[case("inherit")]
#[case("prefix")]
#[case("capture")]
fn who_holds_the_output_open_delays_nobody(#[case] output: &str) {
    let leak = "echo told; probe child { pid-file left pause }; probe daemon { pause }; exit 0";
    one_try()
        .config(&format!("output = {output}\n"))
        .task("1-a.sh", leak)
        .task("2-b.sh", "exit 0")
        .run(&[])
        .exits(0)
        .ran(["1-a.sh", "2-b.sh"])
        .alive("left")
        .quicker_than(5);
}

// ---- surroundings ------------------------------------------------------------------------------

/// What a task sees when runner is started by a probe that does `actions` first.
fn reported(config: &str, actions: &[&str]) -> Outcome {
    one_try().through(actions).config(config).task("1-a.sh", "play report r.json").run(&[]).exits(0)
}

#[rstest]
#[case("output = inherit\n")]
#[case("output = prefix\n")]
#[case("output = capture\nmax_parallel = 4\n")]
fn a_task_has_no_descriptor_but_three(#[case] config: &str) {
    let report = reported(config, &["open-fd", "3", "open-fd", "7", "open-fd", "63"]).report("r.json");
    let open: Vec<&String> = report["fds"].as_object().unwrap().keys().collect();
    assert_eq!(open, ["0", "1", "2"], "{report}");
}

#[test]
fn the_input_of_a_task_is_nothing() {
    let run = reported("", &["open-fd", "9"]);
    assert_eq!(run.report("r.json")["fds"]["0"], "/dev/null");
    let run = one_try().task("1-a.sh", "play keep-stdin input").run(&[]).exits(0);
    assert_eq!(run.text_of("input"), "");
}

#[rstest]
#[case::closed(&["close", "0", "close", "1", "close", "2"])]
#[case::only_stdin(&["close", "0"])]
fn a_task_has_three_descriptors_even_if_runner_had_none(#[case] actions: &[&str]) {
    let report = reported("", actions).report("r.json");
    let open: Vec<&String> = report["fds"].as_object().unwrap().keys().collect();
    assert_eq!(open, ["0", "1", "2"], "{report}");
}

#[rstest]
#[case::nothing(&[])]
#[case::ignored(&[
    "ignore", "CHLD", "ignore", "PIPE", "ignore", "HUP", "ignore", "INT", "ignore", "TERM", "ignore", "USR1", "ignore", "TSTP",
])]
#[case::blocked(&[
    "block", "CHLD", "block", "PIPE", "block", "HUP", "block", "INT", "block", "TERM", "block", "USR2", "block", "WINCH",
])]
fn the_signals_of_a_task_are_at_default(#[case] actions: &[&str]) {
    let report = reported("", actions).report("r.json");
    // Also 32 and 33, which the C library keeps for itself and would ignore in what it spawns.
    assert_eq!(report["ignored"], json!([]));
    assert_eq!(report["blocked"], json!([]));
}

#[rstest]
#[case(&["ignore", "CHLD"])]
#[case(&["block", "CHLD"])]
#[case(&["ignore", "CHLD", "block", "CHLD"])]
fn exit_codes_are_seen_whatever_became_of_sigchld(#[case] actions: &[&str]) {
    Scene::new()
        .through(actions)
        .config("[runner]\nmax_time = 15\n")
        .task("1-a.sh", "once && exit 1; exit 0")
        .task("2-b.sh", "exit 2")
        .task("halt.sh", "exit 0")
        .run(&[])
        .exits(3)
        .ran(["1-a.sh", "1-a.sh", "2-b.sh", "halt.sh"])
        .quicker_than(9);
}

#[test]
fn a_task_leads_its_own_group() {
    let report = reported("", &[]).report("r.json");
    assert_eq!(report["pgid"], report["pid"]);
}

#[test]
fn a_task_is_given_its_arguments() {
    let run = one_try()
        .config("[task:a]\nargs = report r.json \"a b\" '' $HOME *\n")
        .task("1-a.sh", "printf '<%s>' \"$@\" >\"$SCENE/arguments\"")
        .run(&[])
        .exits(0);
    assert_eq!(run.text_of("arguments"), "<report><r.json><a b><><$HOME><*>");
}

#[test]
fn an_interpreter_stands_before_the_file() {
    let run = one_try()
        .script("bin/interpreter", "printf '<%s>' \"$@\" >\"$SCENE/arguments\"")
        .config("interpreter = bin/interpreter -x 'a b'\n[task:a]\nargs = last\n")
        .task("1-a.sh", "exit 0")
        .run(&[])
        .exits(0);
    let arguments = run.text_of("arguments");
    assert!(arguments.starts_with("<-x><a b><"), "{arguments}");
    assert!(arguments.ends_with("tasks.d/1-a.sh><last>"), "{arguments}");
}

#[test]
fn an_interpreter_without_a_slash_is_found_in_the_path() {
    one_try()
        .config("interpreter = sh -e\n")
        .task("1-a.sh", "false; say went on")
        .mode("tasks.d/1-a.sh", 0o644)
        .run(&[])
        .exits(1)
        .logged(["1-a.sh 1"]);
}

#[test]
fn umask_nice_and_working_directory_are_set() {
    let run = one_try()
        .dir("work here")
        .config("umask = 027\nnice = 5\nworking_dir = work here\n")
        .task("1-a.sh", "play report r.json")
        .run(&[])
        .exits(0);
    let report = run.report("r.json");
    assert_eq!(report["umask"], "0027");
    assert_eq!(report["nice"], 5);
    assert_eq!(report["cwd"], run.path("work here").to_str().unwrap());
}

#[test]
fn one_task_may_have_others() {
    let run = one_try()
        .config("umask = 027\n[task:b]\numask = 077\n")
        .task("1-a.sh", "play report a.json")
        .task("2-b.sh", "play report b.json")
        .run(&[])
        .exits(0);
    assert_eq!(run.report("a.json")["umask"], "0027");
    assert_eq!(run.report("b.json")["umask"], "0077");
}

#[test]
fn root_may_run_tasks_as_somebody_else() {
    if !is_root_or_skipped() {
        return;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let nobody: Vec<&str> = passwd.lines().find(|l| l.starts_with("nobody:")).unwrap().split(':').collect();
    let scene = one_try().dir("open").mode("open", 0o777).mode("log", 0o666).config("user = nobody\n").copy_of_probe("open/probe");
    let report = scene.task("1-a.sh", "exec \"$SCENE/open/probe\" report open/r.json").run(&[]).exits(0).report("open/r.json");
    for (kind, id) in [("uid", nobody[2]), ("gid", nobody[3])] {
        let id: u32 = id.parse().unwrap();
        assert_eq!(report[kind], json!([id, id, id, id]));
    }
    assert!(!report["groups"].as_array().unwrap().contains(&json!(0)), "{report}");
    for (name, value) in [("USER", "nobody"), ("LOGNAME", "nobody"), ("HOME", nobody[5]), ("SHELL", nobody[6])] {
        assert_eq!(report["env"][name], value);
    }
}

#[test]
fn a_user_that_does_not_exist_is_an_error() {
    one_try().config("user = nobody-of-that-name\n").tasks(["1-a.sh"]).run(&[]).exits(78).ran_nothing().says("user");
}
