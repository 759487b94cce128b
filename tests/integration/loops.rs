//! Loops: how often, how far apart, what ends one; never twice within a second.

use rstest::rstest;
use rustix::process::Signal;

use crate::scene::Scene;

#[test]
fn once_is_the_default() {
    Scene::new().tasks(["1-a.sh"]).run(&[]).exits(0).ran(["1-a.sh"]);
}

#[rstest]
#[case::option("", &["-n", "2"])]
#[case::long_option("", &["--times", "2"])]
#[case::setting("[runner]\ntimes = 2\n", &[])]
#[case::option_first("[runner]\ntimes = 7\n", &["-n", "2"])]
fn it_runs_so_often_and_never_twice_within_a_second(#[case] config: &str, #[case] args: &[&str]) {
    Scene::new().config(config).tasks(["1-a.sh"]).run(args).exits(0).logged(["1-a.sh 1", "1-a.sh 1"]).slower_than(950).quicker_than(9);
}

#[rstest]
#[case(&["-n", "2", "--run-interval", "0"])]
#[case(&["-n", "2", "--sleep-interval", "0"])]
#[case(&["-n", "2", "--sleep-interval", "0.1"])]
fn an_interval_of_nothing_is_no_busy_loop(#[case] args: &[&str]) {
    Scene::new().tasks(["1-a.sh"]).run(args).exits(0).ran(["1-a.sh", "1-a.sh"]).slower_than(950);
}

#[test]
fn a_run_interval_counts_from_the_begin() {
    Scene::new()
        .task("1-a.sh", "probe nap 700")
        .run(&["-n", "2", "--run-interval", "1.4"])
        .exits(0)
        .ran(["1-a.sh", "1-a.sh"])
        .slower_than(2050)
        .quicker_than(9);
}

#[test]
fn a_sleep_interval_counts_from_the_end() {
    Scene::new()
        .config("[runner]\ntimes = 2\nsleep_interval = 1.2\n")
        .task("1-a.sh", "probe nap 300")
        .run(&[])
        .exits(0)
        .ran(["1-a.sh", "1-a.sh"])
        .slower_than(1750)
        .quicker_than(9);
}

#[test]
fn each_run_has_an_id_and_begins_with_the_first_try() {
    let run = Scene::new()
        .task("1-a.sh", "printf '%s\\n' \"$RUNNER_RUN_ID\" >>\"$SCENE/ids\"; once && exit 1; exit 0")
        .run_logged(&["-n", "2"])
        .exits(0)
        .logged(["1-a.sh 1", "1-a.sh 2", "1-a.sh 1"]);
    let ids = run.text_of("ids");
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[1], ids[2]);
    assert_eq!(run.events("run_started").len(), 2);
    assert_eq!(run.events("run_ended").len(), 2);
}

#[test]
fn run_once_is_one_run_without_intervals() {
    Scene::new()
        .config("[runner]\ntimes = 5\nrun_interval = 600\n")
        .tasks(["1-a.sh"])
        .run(&["--run-once"])
        .exits(0)
        .ran(["1-a.sh"])
        .quicker_than(5);
}

#[test]
fn both_intervals_are_an_error_of_the_configuration() {
    Scene::new()
        .config("[runner]\nrun_interval = 5\nsleep_interval = 5\n")
        .tasks(["1-a.sh"])
        .run(&[])
        .exits(78)
        .ran_nothing()
        .says("run_interval")
        .says("sleep_interval");
}

#[test]
fn both_intervals_are_a_usage_error() {
    let args = ["--run-interval", "5", "--sleep-interval", "5"];
    Scene::new().tasks(["1-a.sh"]).run(&args).exits(64).ran_nothing();
}

// ---- what ends a loop --------------------------------------------------------------------------

#[test]
fn a_failed_run_ends_a_loop_without_an_interval() {
    Scene::new()
        .config("[runner]\nmax_tries = 1\nhalt_on_give_up = no\n")
        .task("1-a.sh", "exit 1")
        .run(&["-n", "3"])
        .exits(1)
        .ran(["1-a.sh"]);
}

#[test]
fn with_an_interval_the_loop_goes_on_after_a_failed_run() {
    Scene::new()
        .config("[runner]\nmax_tries = 1\nhalt_on_give_up = no\n")
        .task("1-a.sh", "once && exit 1; exit 0")
        .run(&["-n", "2", "--sleep-interval", "0.1"])
        .ran(["1-a.sh", "1-a.sh"]);
}

#[rstest]
#[case::halt("exit 2", 3)]
#[case::stop_code("exit 3", 5)]
fn a_halt_and_a_stop_always_end_it(#[case] body: &str, #[case] code: i32) {
    for args in [&["-n", "3"][..], &["-n", "3", "--sleep-interval", "0.1"], &["-n", "0", "--run-interval", "0.1"]] {
        Scene::new().config("[runner]\nstop_codes = 3\n").task("1-a.sh", body).task("halt.sh", "say halted").run(args).exits(code);
    }
}

#[test]
fn a_loop_for_ever_ends_when_told_to() {
    let mut running = Scene::new().task("1-a.sh", "once first || touch \"$SCENE/second\"").start(&["-n", "0"]);
    running.wait_for_file("second").signal(Signal::TERM);
    running.finish().dies_of(Signal::TERM).nothing_alive();
}

#[test]
fn the_pause_between_runs_ends_at_once() {
    let scene = Scene::new().tasks(["1-a.sh"]);
    let mut running = scene.start_logged(&["-n", "2", "--sleep-interval", "600"]);
    running.wait_for_message("run_ended", "").signal(Signal::TERM);
    running.finish().dies_of(Signal::TERM).ran(["1-a.sh"]).quicker_than(9);
}

#[test]
fn halt_after_halts_after_the_last_run_only() {
    Scene::new().tasks(["1-a.sh", "halt.sh"]).run(&["-n", "2", "-H"]).exits(0).ran(["1-a.sh", "1-a.sh", "halt.sh"]);
}

#[rstest]
#[case("-1")]
#[case("often")]
#[case("1.5")]
fn a_wrong_number_of_times_is_a_usage_error(#[case] times: &str) {
    Scene::new().tasks(["1-a.sh"]).run(&[&format!("--times={times}")]).exits(64).ran_nothing();
}
