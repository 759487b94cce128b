//! Filters: --only, --skip, --from, --until.

use rstest::rstest;

use crate::scene::{Outcome, Scene};

fn run(args: &[&str]) -> Outcome {
    Scene::new().tasks(["10-a.sh", "20-b.sh", "30-c.sh", "40-d.sh"]).run(args)
}

#[rstest]
#[case(&["--only", "b"], &["20-b.sh"])]
#[case(&["--only", "20-b.sh"], &["20-b.sh"])]
#[case(&["--only=d", "--only", "b"], &["20-b.sh", "40-d.sh"])]
#[case(&["--skip", "b"], &["10-a.sh", "30-c.sh", "40-d.sh"])]
#[case(&["--skip", "b", "--skip", "40-d.sh"], &["10-a.sh", "30-c.sh"])]
#[case(&["--from", "c"], &["30-c.sh", "40-d.sh"])]
#[case(&["--until", "b"], &["10-a.sh", "20-b.sh"])]
#[case(&["--from", "b", "--until", "30-c.sh"], &["20-b.sh", "30-c.sh"])]
#[case(&["--from", "b", "--skip", "c"], &["20-b.sh", "40-d.sh"])]
#[case(&["--from", "c", "--until", "c"], &["30-c.sh"])]
fn a_filter_leaves_these(#[case] args: &[&str], #[case] left: &[&str]) {
    let run = run(args).exits(0);
    let ran: Vec<String> = run.log().iter().map(|l| l.replace(" 1", "")).collect();
    assert_eq!(ran, left);
}

#[rstest]
#[case(&["--only", "b", "--skip", "b"])]
#[case(&["--from", "c", "--until", "b"])]
#[case(&["--only", "a", "--from", "b"])]
#[case(&["--skip", "a", "--skip", "b", "--skip", "c", "--skip", "d"])]
fn nothing_left_is_4(#[case] args: &[&str]) {
    run(args).exits(4).ran_nothing();
}

#[rstest]
#[case("--only")]
#[case("--skip")]
#[case("--from")]
#[case("--until")]
fn an_unknown_task_is_a_usage_error_with_a_likely_name(#[case] option: &str) {
    Scene::new()
        .tasks(["10-network.sh", "20-b.sh"])
        .run(&[option, "networc"])
        .exits(64)
        .ran_nothing()
        .says("networc")
        .says("did you mean")
        .says("network");
}

#[test]
fn a_dependency_that_is_left_out_counts_as_met_with_a_warning() {
    let run = Scene::new()
        .config("[b]\ndepends_on = a\n")
        .tasks(["10-a.sh", "20-b.sh"])
        .run_logged(&["--only", "b"])
        .exits(0)
        .ran(["20-b.sh"])
        .warns();
    assert!(run.messages().iter().any(|m| m["message"].as_str().unwrap().contains("10-a.sh") || m.to_string().contains("\"a\"")));
}

#[test]
fn no_warning_for_a_dependency_that_stays() {
    let run = Scene::new()
        .config("[b]\ndepends_on = a\n")
        .tasks(["10-a.sh", "20-b.sh", "30-c.sh"])
        .run_logged(&["--until", "b"])
        .exits(0)
        .ran(["10-a.sh", "20-b.sh"]);
    assert!(!run.has_message_of("warn"), "{run}");
}

#[test]
fn from_and_until_follow_the_order_with_its_dependencies() {
    let scene = Scene::new().config("[a]\ndepends_on = c\n").tasks(["10-a.sh", "20-b.sh", "30-c.sh", "40-d.sh"]);
    scene.run(&["--from", "c", "--until", "a"]).exits(0).ran(["30-c.sh", "10-a.sh"]);
}

#[test]
fn a_retry_begins_again_at_the_task_of_from() {
    Scene::new().tasks(["10-a.sh", "20-b.sh"]).task("30-c.sh", "once && exit 1; exit 0").run(&["--from", "b"]).exits(0).logged([
        "20-b.sh 1",
        "30-c.sh 1",
        "20-b.sh 2",
        "30-c.sh 2",
    ]);
}

#[test]
fn the_halt_task_runs_whatever_is_filtered() {
    Scene::new().task("10-a.sh", "exit 2").tasks(["20-b.sh", "halt.sh"]).run(&["--only", "a"]).exits(3).ran(["10-a.sh", "halt.sh"]);
}

#[test]
fn a_dry_run_shows_what_is_left() {
    let shown = run(&["--from", "c", "--dry-run"]).exits(0).ran_nothing();
    shown.prints("30-c.sh").prints("40-d.sh").never_prints("20-b.sh");
}

#[test]
fn a_task_that_is_left_out_is_told_with_the_reason() {
    let scene = Scene::new().tasks(["10-a.sh"]).file("tasks.d/20-report.sh", "#!/bin/sh\n");
    for word in ["report", "20-report.sh"] {
        let run = scene.run(&["--only", word]).exits(64).never_says("no task is called");
        run.says(&format!("`{word}` is no task: 20-report.sh is left out, not executable (chmod +x"));
    }
}

#[test]
fn a_directory_without_a_task_says_what_was_left_out() {
    let scene = Scene::new().file("tasks.d/a.sh", "#!/bin/sh\n").file("tasks.d/b.sh", "#!/bin/sh\n");
    scene.run(&[]).exits(0).says("/tasks.d; 2 files left out: not executable (chmod +x makes it a task)");
    let run = scene.file("tasks.d/.c", "").run(&[]).exits(0);
    run.says("/tasks.d; 3 files left out, such as .c: its name begins with a dot (runner check names all)");
    Scene::new().dir("tasks.d").run(&[]).exits(0).says("there is no task in ").never_says("left out");
}
