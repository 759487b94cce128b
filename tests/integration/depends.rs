//! Dependencies: by name and by file name, cycles and unknown names, what is left out, stages.

use rstest::rstest;
use serde_json::Value;

use crate::scene::Scene;

/// Stage by file name, as `list --json` tells them.
fn stage<'a>(listed: &'a Value, file: &str) -> &'a Value {
    let tasks = listed["tasks"].as_array().unwrap();
    &tasks.iter().find(|t| t["file"] == file).unwrap()["stage"]
}

#[test]
fn the_smallest_ready_task_is_taken_again_and_again() {
    Scene::new()
        .config("[a]\ndepends_on = c\n")
        .tasks(["10-a.sh", "20-b.sh", "30-c.sh", "40-d.sh"])
        .run(&[])
        .exits(0)
        .ran(["20-b.sh", "30-c.sh", "10-a.sh", "40-d.sh"]);
}

#[rstest]
#[case::name("[a]\ndepends_on = c\n")]
#[case::file_name("[a]\ndepends_on = 30-c.sh\n")]
#[case::section_of_the_task("[task:a]\ndepends_on = c\n")]
#[case::section_with_the_chain("[task:main/a]\ndepends_on = 30-c.sh\n")]
#[case::twice("[a]\ndepends_on = c, c , 30-c.sh\n")]
fn a_dependency_is_a_name_or_a_file_name(#[case] config: &str) {
    Scene::new().config(config).tasks(["10-a.sh", "30-c.sh"]).run(&[]).exits(0).ran(["30-c.sh", "10-a.sh"]);
}

#[test]
fn names_with_dashes_and_dots_can_be_named() {
    Scene::new()
        .config("[a.v1]\ndepends_on = foo-bar.v2, 7-x-y\n[foo-bar.v2]\ndepends_on = x-y\n")
        .tasks(["5-a.v1.sh", "6-foo-bar.v2.py", "7-x-y"])
        .run(&[])
        .exits(0)
        .ran(["7-x-y", "6-foo-bar.v2.py", "5-a.v1.sh"]);
}

#[test]
fn a_chain_of_dependencies_turns_the_order_round() {
    Scene::new()
        .config("[a]\ndepends_on = b\n[b]\ndepends_on = c\n[c]\ndepends_on = d\n")
        .tasks(["1-a.sh", "2-b.sh", "3-c.sh", "4-d.sh"])
        .run(&[])
        .exits(0)
        .ran(["4-d.sh", "3-c.sh", "2-b.sh", "1-a.sh"]);
}

#[test]
fn an_empty_list_of_dependencies_is_none() {
    Scene::new().config("[a]\ndepends_on =\n").tasks(["1-a.sh", "2-b.sh"]).run(&[]).exits(0).ran(["1-a.sh", "2-b.sh"]);
}

#[test]
fn a_cycle_is_printed_whole_and_nothing_runs() {
    Scene::new()
        .config("[a]\ndepends_on = b\n[b]\ndepends_on = c\n[c]\ndepends_on = a\n")
        .tasks(["10-a.sh", "20-b.sh", "30-c.sh", "40-bystander.sh", "halt.sh"])
        .run(&[])
        .exits(78)
        .ran_nothing()
        .says("10-a.sh")
        .says("20-b.sh")
        .says("30-c.sh")
        .never_says("40-bystander");
}

#[test]
fn a_task_that_needs_itself_is_a_cycle() {
    Scene::new().config("[a]\ndepends_on = a\n").tasks(["10-a.sh", "20-b.sh"]).run(&[]).exits(78).ran_nothing().says("10-a.sh");
}

#[test]
fn an_unknown_name_is_an_error_with_its_line_and_a_likely_name() {
    Scene::new()
        .config("[a]\ndepends_on = networc\n")
        .tasks(["10-a.sh", "20-network.sh"])
        .run(&[])
        .exits(78)
        .ran_nothing()
        .says("runner.cfg:2")
        .says("networc")
        .says("did you mean")
        .says("network");
}

#[rstest]
#[case::not_executable("20-b.sh", "b", "executable")]
#[case::left_over("20-b.bak", "b", "bak")]
#[case::halt_task("halt.sh", "halt", "halt")]
#[case::by_file_name("20-b.sh", "20-b.sh", "executable")]
fn a_dependency_on_a_file_that_is_left_out_says_why(#[case] file: &str, #[case] name: &str, #[case] reason: &str) {
    let scene = Scene::new().config(&format!("[a]\ndepends_on = {name}\n")).task("10-a.sh", "exit 0").task(file, "exit 0");
    let scene = if reason == "executable" { scene.mode(format!("tasks.d/{file}"), 0o644) } else { scene };
    scene.run(&[]).exits(78).ran_nothing().says(name).says(reason);
}

#[test]
fn check_tells_of_wrong_dependencies_too() {
    let scene = Scene::new().config("[a]\ndepends_on = nobody\n").tasks(["10-a.sh", "20-b.sh"]);
    scene.run(&["check"]).exits(78).prints("runner.cfg:2: error:").prints("nobody");
}

#[test]
fn two_files_with_one_name_share_their_section() {
    let scene = Scene::new().config("[runner]\nmax_tries = 9\n[x]\nmax_tries = 2\n").task("10-x.sh", "exit 0").task("20-x.py", "exit 1");
    scene.run(&[]).exits(1).logged(["10-x.sh 1", "20-x.py 1", "10-x.sh 2", "20-x.py 2"]);
}

#[test]
fn a_name_that_two_files_have_cannot_be_depended_on() {
    let scene = Scene::new().config("[a]\ndepends_on = x\n").tasks(["10-x.sh", "20-x.py", "5-a.sh"]);
    scene.run(&[]).exits(78).ran_nothing().says("10-x.sh").says("20-x.py");
}

#[test]
fn one_of_two_files_with_one_name_can_be_named_by_its_file() {
    Scene::new()
        .config("[a]\ndepends_on = 20-x.py\n")
        .tasks(["10-x.sh", "20-x.py", "5-a.sh"])
        .run(&[])
        .exits(0)
        .ran(["10-x.sh", "20-x.py", "5-a.sh"]);
}

// ---- stages ------------------------------------------------------------------------------------

#[test]
fn at_width_one_each_task_is_its_own_stage() {
    let scene = Scene::new().tasks(["10-a.sh", "10-b.sh", "20-c.sh"]);
    let listed = scene.run(&["list", "--json"]).exits(0).json();
    assert_ne!(stage(&listed, "10-a.sh"), stage(&listed, "10-b.sh"));
    assert_ne!(stage(&listed, "10-b.sh"), stage(&listed, "20-c.sh"));
}

#[test]
fn a_stage_is_a_number_or_that_of_the_latest_dependency() {
    let scene = Scene::new()
        .config("[runner]\nmax_parallel = 4\n[a]\ndepends_on = c\n[e]\ndepends_on = b\n")
        .tasks(["10-a.sh", "10-z.sh", "20-b.sh", "30-c.sh", "30-d.sh", "40-e.sh", "x.sh", "y.sh"]);
    let listed = scene.run(&["list", "--json"]).exits(0).json();
    let of = |file| stage(&listed, file);
    assert_eq!(of("10-a.sh"), of("30-c.sh"));
    assert_eq!(of("30-d.sh"), of("30-c.sh"));
    assert_ne!(of("10-z.sh"), of("10-a.sh"));
    assert_ne!(of("20-b.sh"), of("30-c.sh"));
    assert_ne!(of("40-e.sh"), of("20-b.sh"));
    assert_eq!(of("x.sh"), of("y.sh"));
    assert_ne!(of("x.sh"), of("40-e.sh"));
}

#[test]
fn a_dependency_is_done_before_its_task_begins_at_any_width() {
    let scene = Scene::new()
        .config("[runner]\nmax_parallel = 4\n[a]\ndepends_on = b\n")
        .task("10-a.sh", "[ -e \"$SCENE/b.done\" ] || exit 1")
        .task("10-b.sh", "touch \"$SCENE/b.done\"");
    let run = scene.run_logged(&["-s", "runner.max_tries=1"]).exits(0);
    assert_eq!(run.tasks_of("task_started"), ["10-b.sh", "10-a.sh"]);
}

#[test]
fn a_task_that_waits_for_a_later_number_runs_in_that_stage() {
    let scene =
        Scene::new().config("[runner]\nmax_parallel = 4\n[a]\ndepends_on = c\n").tasks(["10-a.sh", "20-b.sh", "30-c.sh", "40-d.sh"]);
    scene.run(&[]).exits(0).ran(["20-b.sh", "30-c.sh", "10-a.sh", "40-d.sh"]);
}

#[test]
fn dependencies_hold_again_after_a_retry() {
    Scene::new()
        .config("[runner]\nmax_parallel = 4\n[a]\ndepends_on = c\n")
        .task("10-a.sh", "once && exit 1; exit 0")
        .tasks(["20-b.sh", "30-c.sh"])
        .run(&[])
        .exits(0)
        .logged(["20-b.sh 1", "30-c.sh 1", "10-a.sh 1", "20-b.sh 2", "30-c.sh 2", "10-a.sh 2"]);
}
