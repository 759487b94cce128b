//! HALT: when the halt task runs, with what, and that nothing it does changes the exit code.

use rstest::rstest;
use rustix::process::Signal;

use crate::scene::Scene;

/// A halting chain: the second of three tasks says HALT.
fn halting() -> Scene {
    Scene::new().task("1-a.sh", "exit 0").task("2-b.sh", "exit 2").task("3-c.sh", "exit 0")
}

#[test]
fn exit_2_runs_the_halt_task_and_ends_with_3() {
    halting().task("halt.sh", "exit 0").run(&[]).exits(3).logged(["1-a.sh 1", "2-b.sh 1", "halt.sh -"]);
}

#[test]
fn a_halt_is_never_tried_again() {
    halting().config("[runner]\nmax_tries = 9\n").task("halt.sh", "exit 1").run(&[]).exits(3).ran(["1-a.sh", "2-b.sh", "halt.sh"]);
}

#[test]
fn the_halt_task_is_told_why_and_by_whom() {
    let why = "say \"$RUNNER_FAILED_TASK\"; [ -n \"$RUNNER_HALT_REASON\" ] && say reason";
    halting().task("halt.sh", why).run(&[]).exits(3).logged(["1-a.sh 1", "2-b.sh 1", "halt.sh -", "- 2-b.sh", "- reason"]);
}

#[test]
fn a_halt_and_giving_up_have_different_reasons() {
    let reason_of = |body: &str| {
        let run =
            Scene::new().config("[runner]\nmax_tries = 1\n").task("1-a.sh", body).task("halt.sh", "say \"$RUNNER_HALT_REASON\"").run(&[]);
        run.log().last().unwrap().clone()
    };
    let (halted, gave_up) = (reason_of("exit 2"), reason_of("exit 1"));
    assert!(halted.len() > 2 && gave_up.len() > 2, "{halted} {gave_up}");
    assert_ne!(halted, gave_up);
}

#[test]
fn the_halt_task_gets_the_environment_and_the_global_interpreter() {
    Scene::new()
        .script("bin/interpreter", "say \"interpreter ${1##*/}\"\nexec /bin/sh \"$@\"")
        .config("[runner]\ninterpreter = bin/interpreter\n[env]\nCOLOUR = dark red\n[env:halt]\nSHAPE = round\n")
        .task("1-a.sh", "exit 2")
        .task("halt.sh", "say \"$COLOUR\"")
        .mode("tasks.d/halt.sh", 0o644)
        .run(&[])
        .exits(3)
        .logged(["- interpreter 1-a.sh", "1-a.sh 1", "- interpreter halt.sh", "halt.sh -", "- dark red"]);
}

#[test]
fn halt_after_gets_them_too() {
    Scene::new()
        .script("bin/interpreter", "exec /bin/sh \"$@\"")
        .config("[runner]\ninterpreter = bin/interpreter\n[env]\nCOLOUR = red\n")
        .task("1-a.sh", "exit 0")
        .task("halt.sh", "say \"$COLOUR\"")
        .mode("tasks.d/halt.sh", 0o644)
        .run(&["-H"])
        .exits(0)
        .logged(["1-a.sh 1", "halt.sh -", "- red"]);
}

// ---- which halt task ---------------------------------------------------------------------------

#[test]
fn another_file_of_the_task_directory_may_be_the_halt_task() {
    halting().config("[runner]\nhalt_task = 99-poweroff.sh\n").task("99-poweroff.sh", "exit 0").run(&[]).exits(3).ran([
        "1-a.sh",
        "2-b.sh",
        "99-poweroff.sh",
    ]);
}

#[test]
fn the_halt_task_may_be_an_absolute_path() {
    let scene = halting().task_at("elsewhere/off.sh", "exit 0");
    let path = scene.path("elsewhere/off.sh");
    scene.config(&format!("[runner]\nhalt_task = {}\n", path.display())).run(&[]).exits(3).ran(["1-a.sh", "2-b.sh", "off.sh"]);
}

#[test]
fn a_missing_halt_task_of_the_default_name_is_an_error_line_and_the_code_stays() {
    let run = halting().run_logged(&[]).exits(3).ran(["1-a.sh", "2-b.sh"]).says("halt.sh");
    assert!(run.has_message_of("err"), "{run}");
}

#[test]
fn a_missing_halt_task_of_the_default_name_is_a_note_in_check() {
    let run = halting().run(&["check", "--json"]).exits(0);
    let findings = run.json()["findings"].as_array().unwrap().clone();
    let halt = findings.iter().find(|f| f["message"].as_str().unwrap().contains("halt")).unwrap();
    assert_eq!(halt["severity"], "note");
}

#[rstest]
#[case("off.sh")]
#[case("/nonexistent/off.sh")]
#[case("halt.sh")]
fn a_missing_halt_task_that_is_named_is_an_error_before_anything_runs(#[case] name: &str) {
    Scene::new()
        .config(&format!("[runner]\nhalt_task = {name}\n"))
        .task("1-a.sh", "exit 0")
        .run(&[])
        .exits(78)
        .ran_nothing()
        .says("runner.cfg:2")
        .says(name);
}

// ---- what it does changes nothing --------------------------------------------------------------

#[rstest]
#[case::failing("exit 9")]
#[case::halting("exit 2")]
#[case::killed("kill -KILL $$")]
#[case::slow("trap '' TERM; play pause")]
fn a_bad_halt_task_changes_no_exit_code(#[case] body: &str) {
    for (task, code) in [("exit 2", 3), ("exit 1", 1)] {
        Scene::new()
            .config("[runner]\nmax_tries = 1\nmax_time = 0.6\nkill_after = 0.2\n")
            .task("1-a.sh", task)
            .task("halt.sh", body)
            .run(&[])
            .exits(code)
            .ran(["1-a.sh", "halt.sh"])
            .quicker_than(9);
    }
}

#[test]
fn a_halt_task_that_cannot_be_started_changes_no_exit_code() {
    halting()
        .file("tasks.d/halt.sh", "#!/no/such/interpreter\n")
        .mode("tasks.d/halt.sh", 0o755)
        .run(&[])
        .exits(3)
        .ran(["1-a.sh", "2-b.sh"])
        .says("halt.sh");
}

#[test]
fn a_halt_task_that_is_not_executable_changes_no_exit_code() {
    halting().task("halt.sh", "exit 0").mode("tasks.d/halt.sh", 0o644).run(&[]).exits(3).says("halt.sh");
}

#[test]
fn the_halt_task_has_its_own_limit() {
    Scene::new()
        .config("[runner]\nmax_time = 600\nkill_after = 0.2\n[task:halt]\nmax_time = 0.3\n")
        .task("1-a.sh", "exit 2")
        .task("halt.sh", "play pause")
        .run(&[])
        .exits(3)
        .nothing_alive()
        .quicker_than(9);
}

#[test]
fn what_the_halt_task_leaves_is_never_swept() {
    Scene::new()
        .config("[runner]\nsweep = always\n")
        .task("1-a.sh", "exit 2")
        .task("halt.sh", "play setsid-child { pid-file session pause } child { pid-file group pause }")
        .run(&[])
        .exits(3)
        .alive("session")
        .alive("group");
}

#[test]
fn there_is_no_task_hook_for_the_halt_task() {
    let run =
        halting().hook_keeper("bin/hook.sh", "").config("[runner]\ntask_hook = bin/hook.sh\n").task("halt.sh", "exit 0").run(&[]).exits(3);
    assert!(run.hook_calls().iter().all(|call| call["task"] != "halt.sh"));
    assert_eq!(run.hook_calls().len(), 4);
}

#[test]
fn the_chain_hook_has_run_before_the_halt_task() {
    Scene::new()
        .script("bin/hook.sh", "say hook")
        .config("[runner]\nchain_hook = bin/hook.sh\n")
        .task("1-a.sh", "exit 2")
        .task("halt.sh", "exit 0")
        .run(&[])
        .exits(3)
        .logged(["- hook", "1-a.sh 1", "- hook", "halt.sh -"]);
}

// ---- after the last run ------------------------------------------------------------------------

#[rstest]
#[case(&["-H"])]
#[case(&["--halt-after"])]
#[case(&["-n", "1", "-H"])]
fn halt_after_halts_after_success(#[case] args: &[&str]) {
    Scene::new().tasks(["1-a.sh", "halt.sh"]).run(args).exits(0).ran(["1-a.sh", "halt.sh"]);
}

#[test]
fn halt_after_has_the_id_of_the_last_run() {
    let scene = Scene::new().task("1-a.sh", "say $RUNNER_RUN_ID").task("halt.sh", "say $RUNNER_RUN_ID");
    let log = scene.run(&["-H", "-n", "2"]).exits(0).log();
    assert!(log[3] == log[5] && log[1] != log[3], "{log:?}");
}

#[rstest]
#[case("exit 1", 1)]
#[case("exit 2", 3)]
fn halt_after_never_halts_twice(#[case] body: &str, #[case] code: i32) {
    Scene::new()
        .config("[runner]\nmax_tries = 1\n")
        .task("1-a.sh", body)
        .task("halt.sh", "exit 0")
        .run(&["-H"])
        .exits(code)
        .ran(["1-a.sh", "halt.sh"]);
}

#[test]
fn halt_after_needs_that_all_were_done() {
    Scene::new()
        .config("[runner]\nstop_codes = 3\nmax_tries = 1\nhalt_on_give_up = no\n")
        .task("1-a.sh", "exit 3")
        .task("halt.sh", "exit 0")
        .run(&["-H"])
        .exits(5)
        .ran(["1-a.sh"]);
}

// ---- a signal while it runs --------------------------------------------------------------------

const SLOW_HALT: &str = "trap 'touch \"$SCENE/got-term\"' TERM\n\
    probe touch halting wait-file go-on\nsay finished";

#[test]
fn a_first_term_does_not_end_the_halt_task() {
    let mut running = Scene::new().task("1-a.sh", "exit 2").task("halt.sh", SLOW_HALT).start(&[]);
    running.wait_for_file("halting").signal(Signal::TERM);
    std::fs::write(running.path("go-on"), "").unwrap();
    running.finish().logged(["1-a.sh 1", "halt.sh -", "- finished"]).lacks_file("got-term");
}

#[test]
fn a_second_term_ends_the_halt_task() {
    let body = "play touch halting pause";
    let scene = Scene::new().config("[runner]\nmax_time = 600\n").task("1-a.sh", "exit 2").task("halt.sh", body);
    let mut running = scene.start(&[]);
    running.wait_for_file("halting").insist(Signal::TERM);
    running.finish().nothing_alive().quicker_than(9);
}

#[test]
fn no_halt_task_runs_when_told_to_stop() {
    let scene = Scene::new().task("1-a.sh", "play touch begun pause").tasks(["2-b.sh", "halt.sh"]);
    let mut running = scene.start(&[]);
    running.wait_for_file("begun").signal(Signal::TERM);
    running.finish().dies_of(Signal::TERM).ran(["1-a.sh"]).nothing_alive();
}

#[test]
fn the_halt_task_begins_when_all_tasks_are_gone() {
    let sibling = "play ignore TERM pid-file sibling setsid-child { pause } pause";
    let run = Scene::new()
        .config("[runner]\nmax_parallel = 2\nkill_after = 0.2\n")
        .task("1-a.sh", "probe wait-file sibling; exit 2")
        .task("1-b.sh", sibling)
        .task("halt.sh", "[ -e \"/proc/$(cat \"$SCENE/sibling\")\" ] || say gone")
        .run(&[])
        .exits(3)
        .nothing_alive();
    assert_eq!(run.log().last().unwrap(), "- gone");
}

#[rstest]
#[case::the_default_name("", "halt.sh")]
#[case::the_name_that_the_main_chain_has("halt_task = off.sh\n", "off.sh")]
fn a_named_chain_without_a_halt_task_runs_none_as_a_task(#[case] of_main: &str, #[case] file: &str) {
    let config = format!("[runner]\ntask_dir = m\n{of_main}[chain:nightly]\ntask_dir = n\n");
    let scene = Scene::new().dir("m").dir("n").tasks_at("m", ["1-a.sh", file]).tasks_at("n", ["1-b.sh", file]).config(&config);
    let told = format!("{file} is named as the halt task of [runner] and is not run");
    let line = config.lines().count();
    scene.run(&["check"]).exits(0).prints(&format!("runner.cfg:{line}")).prints(&told);
    scene.run(&["now", "nightly"]).exits(0).ran(["1-b.sh"]).says(&told);
}

#[test]
fn a_named_chain_runs_the_halt_task_that_it_names() {
    let config = "[chain:nightly]\ntask_dir = n\nhalt_task = halt.sh\n";
    let scene = Scene::new().dir("n").task_at("n/1-b.sh", "exit 2").tasks_at("n", ["halt.sh"]).config(config);
    scene.run(&["now", "nightly"]).exits(3).ran(["1-b.sh", "halt.sh"]);
}
