//! Retries: which tasks run again, how tries are counted, how long it waits, what an exit code means.

use rstest::rstest;

use crate::scene::{Outcome, Scene};

const CHAIN: [&str; 8] = ["0-a.sh", "1-b.sh", "2-c.sh", "3-d.sh", "4-e.sh", "5-f.sh", "6-g.sh", "7-h.sh"];

/// A chain of eight, of which those at `failing` fail in their first try.
fn chain_of_eight(retry_from: &str, failing: &[usize]) -> Outcome {
    let scene = Scene::new().config(&format!("[runner]\nretry_from = {retry_from}\n"));
    let all = CHAIN
        .iter()
        .enumerate()
        .fold(scene, |scene, (at, task)| scene.task(task, if failing.contains(&at) { "once && exit 1; exit 0" } else { "exit 0" }));
    all.run(&[])
}

fn lines(tasks: &[&str], try_num: u32) -> Vec<String> {
    tasks.iter().map(|t| format!("{t} {try_num}")).collect()
}

#[rstest]
fn from_the_start_all_tasks_run_again(#[values(0, 1, 2, 3, 4, 5, 6, 7)] at: usize) {
    let run = chain_of_eight("start", &[at]).exits(0);
    assert_eq!(run.log(), [lines(&CHAIN[..=at], 1), lines(&CHAIN, 2)].concat());
}

#[rstest]
fn from_the_failed_one_only_that_task_runs_again(#[values(0, 1, 2, 3, 4, 5, 6, 7)] at: usize) {
    let run = chain_of_eight("failed", &[at]).exits(0);
    let again = lines(&CHAIN[at..=at], 2);
    assert_eq!(run.log(), [lines(&CHAIN[..=at], 1), again, lines(&CHAIN[at + 1..], 1)].concat());
}

#[test]
fn several_failures_from_the_start_each_begin_the_chain_again() {
    let run = chain_of_eight("start", &[2, 5, 7]).exits(0);
    let expected = [lines(&CHAIN[..=2], 1), lines(&CHAIN[..=5], 2), lines(&CHAIN, 3), lines(&CHAIN, 4)];
    assert_eq!(run.log(), expected.concat());
}

#[test]
fn several_failures_from_the_failed_ones_count_for_each_task_alone() {
    let run = chain_of_eight("failed", &[2, 3, 7]).exits(0);
    let again = |at: usize| lines(&CHAIN[at..=at], 2);
    let expected = [lines(&CHAIN[..=2], 1), again(2), lines(&CHAIN[3..=3], 1), again(3), lines(&CHAIN[4..], 1), again(7)];
    assert_eq!(run.log(), expected.concat());
}

#[test]
fn the_whole_chain_is_the_default() {
    Scene::new()
        .task("1-a.sh", "exit 0")
        .task("2-b.sh", "once && exit 1; exit 0")
        .run(&[])
        .exits(0)
        .logged(["1-a.sh 1", "2-b.sh 1", "1-a.sh 2", "2-b.sh 2"]);
}

// ---- counting ----------------------------------------------------------------------------------

#[test]
fn five_tries_are_the_default() {
    Scene::new().task("1-a.sh", "exit 1").run(&[]).exits(1).logged(["1-a.sh 1", "1-a.sh 2", "1-a.sh 3", "1-a.sh 4", "1-a.sh 5"]);
}

#[rstest]
#[case("start", 1)]
#[case("start", 3)]
#[case("failed", 1)]
#[case("failed", 3)]
fn max_tries_are_the_tries_in_all(#[case] retry_from: &str, #[case] tries: usize) {
    let run = Scene::new()
        .config(&format!("[runner]\nmax_tries = {tries}\nretry_from = {retry_from}\n"))
        .task("1-a.sh", "exit 1")
        .task("2-never.sh", "exit 0")
        .run(&[])
        .exits(1);
    assert_eq!(run.log().len(), tries);
}

#[rstest]
#[case("start")]
#[case("failed")]
fn max_tries_0_is_no_limit(#[case] retry_from: &str) {
    Scene::new()
        .config(&format!("[runner]\nmax_tries = 0\nretry_from = {retry_from}\n"))
        .task("1-a.sh", "[ \"$RUNNER_TRY\" -ge 9 ]")
        .run(&[])
        .exits(0)
        .logged(["1-a.sh 1", "1-a.sh 2", "1-a.sh 3", "1-a.sh 4", "1-a.sh 5", "1-a.sh 6", "1-a.sh 7", "1-a.sh 8", "1-a.sh 9"]);
}

#[test]
fn a_lower_limit_of_one_task_counts_its_own_failures_only() {
    Scene::new()
        .config("[runner]\nmax_tries = 5\n[b]\nmax_tries = 2\n")
        .task("1-a.sh", "once && exit 1; exit 0")
        .task("2-b.sh", "exit 1")
        .run(&[])
        .exits(1)
        .logged(["1-a.sh 1", "1-a.sh 2", "2-b.sh 2", "1-a.sh 3", "2-b.sh 3"]);
}

#[test]
fn a_higher_limit_of_one_task_does_not_lift_that_of_the_chain() {
    Scene::new()
        .config("[runner]\nmax_tries = 2\n[a]\nmax_tries = 9\n")
        .task("1-a.sh", "exit 1")
        .run(&[])
        .exits(1)
        .logged(["1-a.sh 1", "1-a.sh 2"]);
}

#[test]
fn from_the_failed_one_each_task_has_its_own_tries() {
    Scene::new()
        .config("[runner]\nmax_tries = 2\nretry_from = failed\n[c]\nmax_tries = 4\n")
        .task("1-a.sh", "once && exit 1; exit 0")
        .task("2-b.sh", "once && exit 1; exit 0")
        .task("3-c.sh", "[ \"$RUNNER_TRY\" = 4 ]")
        .task("4-d.sh", "exit 1")
        .run(&[])
        .exits(1)
        .logged(["1-a.sh 1", "1-a.sh 2", "2-b.sh 1", "2-b.sh 2", "3-c.sh 1", "3-c.sh 2", "3-c.sh 3", "3-c.sh 4", "4-d.sh 1", "4-d.sh 2"]);
}

#[rstest]
#[case("start")]
#[case("failed")]
fn the_try_a_task_sees_is_never_above_its_limit(#[case] retry_from: &str) {
    let run = Scene::new()
        .config(&format!("[runner]\nmax_tries = 4\nretry_from = {retry_from}\n[b]\nmax_tries = 2\n"))
        .task("1-a.sh", "say $RUNNER_TRY $RUNNER_MAX_TRIES; [ \"$RUNNER_TRY\" -ge 3 ]")
        .task("2-b.sh", "say $RUNNER_TRY $RUNNER_MAX_TRIES; exit 1")
        .run(&[])
        .exits(1);
    let said: Vec<(u32, u32)> = run
        .log()
        .iter()
        .filter_map(|l| l.strip_prefix("- ")?.split_once(' '))
        .map(|(now, all)| (now.parse().unwrap(), all.parse().unwrap()))
        .collect();
    assert!(said.len() >= 5, "{said:?}");
    assert!(said.iter().all(|(now, all)| now <= all), "{said:?}");
}

// ---- giving up ---------------------------------------------------------------------------------

#[test]
fn giving_up_runs_the_halt_task_and_exits_1() {
    Scene::new()
        .config("[runner]\nmax_tries = 2\n")
        .task("1-a.sh", "exit 1")
        .task("halt.sh", "say \"$RUNNER_FAILED_TASK\"")
        .run(&[])
        .exits(1)
        .ran(["1-a.sh", "1-a.sh", "halt.sh"]);
}

#[test]
fn without_halt_on_give_up_no_halt_task_runs() {
    Scene::new()
        .config("[runner]\nmax_tries = 2\nhalt_on_give_up = no\n")
        .task("1-a.sh", "exit 1")
        .task("halt.sh", "exit 0")
        .run(&[])
        .exits(1)
        .ran(["1-a.sh", "1-a.sh"]);
}

#[rstest]
#[case("start")]
#[case("failed")]
fn no_try_begins_after_the_deadline_and_none_is_waited_for_in_vain(#[case] retry_from: &str) {
    Scene::new()
        .config(&format!("[runner]\nretry_deadline = 5\nsleep_time = 60\nretry_from = {retry_from}\n"))
        .task("1-a.sh", "exit 1")
        .run(&[])
        .exits(1)
        .logged(["1-a.sh 1"])
        .quicker_than(4);
}

#[rstest]
#[case("infinity")]
#[case("0")]
fn a_deadline_may_be_none(#[case] deadline: &str) {
    Scene::new()
        .config(&format!("[runner]\nretry_deadline = {deadline}\nmax_tries = 2\n"))
        .task("1-a.sh", "exit 1")
        .run(&[])
        .exits(1)
        .logged(["1-a.sh 1", "1-a.sh 2"]);
}

// ---- waiting -----------------------------------------------------------------------------------

/// The waits, in seconds, that a dry run tells.
fn told_waits(settings: &str) -> Vec<f64> {
    let run = Scene::new().config(&format!("[runner]\n{settings}")).task("1-a.sh", "exit 1").run(&["--dry-run"]);
    let run = run.exits(0).ran_nothing();
    let text = run.stdout_text();
    let line = text.lines().find(|l| l.contains("wait")).unwrap_or_else(|| panic!("no waits{run}"));
    let numbers = line.split(|c: char| !c.is_ascii_digit() && c != '.').filter_map(|n| n.parse().ok());
    numbers.collect()
}

#[test]
fn the_wait_grows_by_backoff() {
    assert_eq!(told_waits("sleep_time = 3\nretry_jitter = 0\nbackoff = 3\nmax_tries = 4\n"), [3.0, 9.0, 27.0]);
    assert_eq!(told_waits("sleep_time = 3\nretry_jitter = 0\nmax_tries = 3\n"), [3.0, 3.0]);
}

#[test]
fn the_wait_never_grows_beyond_max_sleep_time() {
    let settings = "sleep_time = 3\nretry_jitter = 0\nbackoff = 3\nmax_tries = 5\nmax_sleep_time = 22\n";
    assert_eq!(told_waits(settings), [3.0, 9.0, 22.0, 22.0]);
}

#[test]
fn it_waits_at_least_sleep_time() {
    Scene::new()
        .config("[runner]\nsleep_time = 0.4\nmax_tries = 2\n")
        .task("1-a.sh", "exit 1")
        .run(&[])
        .exits(1)
        .slower_than(400)
        .quicker_than(9);
}

#[test]
fn the_wait_between_tries_grows_for_real() {
    Scene::new()
        .config("[runner]\nsleep_time = 0.1\nbackoff = 2\nmax_tries = 4\n")
        .task("1-a.sh", "exit 1")
        .run(&[])
        .exits(1)
        .slower_than(700)
        .quicker_than(9);
}

#[test]
fn jitter_only_ever_adds() {
    Scene::new()
        .config("[runner]\nsleep_time = 0.2\nretry_jitter = 0.2\nmax_tries = 2\n")
        .task("1-a.sh", "exit 1")
        .run(&[])
        .exits(1)
        .slower_than(200)
        .quicker_than(9);
}

#[test]
fn a_task_has_its_own_wait() {
    Scene::new()
        .config("[runner]\nsleep_time = 60\n[a]\nsleep_time = 0\nmax_tries = 2\n")
        .task("1-a.sh", "exit 1")
        .run(&[])
        .exits(1)
        .logged(["1-a.sh 1", "1-a.sh 2"])
        .quicker_than(9);
}

// ---- what an exit code means -------------------------------------------------------------------

#[rstest]
#[case::only_zero_by_default("", "exit 77", 1)]
#[case::one_more("success_codes = 0, 77", "exit 77", 0)]
#[case::by_blanks("success_codes = 0 77 78", "exit 78", 0)]
#[case::without_zero("success_codes = 77", "exit 0", 1)]
#[case::halt_by_default("", "exit 2", 3)]
#[case::other_halt_code("halt_codes = 9 10", "exit 10", 3)]
#[case::two_is_then_a_failure("halt_codes = 9", "exit 2", 1)]
#[case::no_halt_code("halt_codes =", "exit 2", 1)]
#[case::stop_code("stop_codes = 3", "exit 3", 5)]
#[case::no_stop_code_by_default("", "exit 3", 1)]
#[case::skip_code("skip_codes = 75", "exit 75", 0)]
#[case::last_code("success_codes = 0 255", "exit 255", 0)]
#[case::signal("", "kill -KILL $$", 1)]
#[case::a_signal_is_no_code("success_codes = 0 9 137", "kill -KILL $$", 1)]
fn a_code_means_what_the_lists_say(#[case] setting: &str, #[case] body: &str, #[case] code: i32) {
    Scene::new()
        .config(&format!("[runner]\nmax_tries = 1\nhalt_on_give_up = no\n{setting}\n"))
        .task("1-a.sh", body)
        .task("halt.sh", "exit 0")
        .run(&[])
        .exits(code);
}

#[test]
fn one_task_has_its_own_codes() {
    Scene::new()
        .config("[runner]\nmax_tries = 1\n[task:a]\nhalt_codes =\nsuccess_codes = 0 2\n")
        .task("1-a.sh", "exit 2")
        .task("2-b.sh", "exit 2")
        .task("halt.sh", "exit 0")
        .run(&[])
        .exits(3)
        .ran(["1-a.sh", "2-b.sh", "halt.sh"]);
}

#[test]
fn a_skipped_task_counts_as_done() {
    let run = Scene::new()
        .config("[runner]\nskip_codes = 75\n[b]\ndepends_on = a\n")
        .task("1-a.sh", "exit 75")
        .task("2-b.sh", "exit 0")
        .run_logged(&[])
        .exits(0)
        .logged(["1-a.sh 1", "2-b.sh 1"]);
    assert_eq!(run.events("task_ended")[0]["result"], "SKIP");
}

#[test]
fn a_stop_ends_the_chain_without_the_halt_task() {
    Scene::new()
        .config("[runner]\nstop_codes = 3\n")
        .task("1-a.sh", "exit 3")
        .tasks(["2-b.sh", "halt.sh"])
        .run(&[])
        .exits(5)
        .ran(["1-a.sh"]);
}

#[rstest]
#[case("success_codes = 0, 7\nstop_codes = 7\n")]
#[case("halt_codes = 7\nskip_codes = 7\n")]
#[case("stop_codes = 9\nskip_codes = 8 9\n")]
fn one_code_in_two_lists_is_an_error(#[case] lists: &str) {
    Scene::new().config(&format!("[runner]\n{lists}")).tasks(["1-a.sh"]).run(&[]).exits(78).ran_nothing().says("_codes");
}

#[test]
fn an_exit_3_that_retries_is_explained_once() {
    let run = Scene::new()
        .config("[runner]\nmax_tries = 3\n")
        .task("1-a.sh", "exit 3")
        .run(&[])
        .exits(1)
        .logged(["1-a.sh 1", "1-a.sh 2", "1-a.sh 3"]);
    let hints = run.stderr_text().lines().filter(|l| l.contains("stop_codes")).count();
    assert_eq!(hints, 1, "{run}");
    let last = Scene::new().config("[runner]\nmax_tries = 1\n").task("1-a.sh", "exit 3").run(&[]).exits(1);
    last.says("failed for good: exit 3").never_says("is tried again");
}

#[test]
fn an_exit_3_that_stops_needs_no_explanation() {
    Scene::new().config("[runner]\nstop_codes = 3\n").task("1-a.sh", "exit 3").run(&[]).exits(5).never_says("stop_codes");
}

// ---- what else is a failure --------------------------------------------------------------------

#[test]
fn a_task_that_cannot_be_started_is_a_failed_try_that_says_why() {
    Scene::new()
        .config("[runner]\nmax_tries = 2\n")
        .task("1-a.sh", "exit 0")
        .file("tasks.d/2-b.sh", "#!/no/such/interpreter\n")
        .mode("tasks.d/2-b.sh", 0o755)
        .task("halt.sh", "exit 0")
        .run(&[])
        .exits(1)
        .ran(["1-a.sh", "1-a.sh", "halt.sh"])
        .says("2-b.sh")
        .says("/no/such/interpreter");
}

#[test]
fn a_file_that_is_no_program_is_a_failed_try() {
    Scene::new()
        .config("[runner]\nmax_tries = 2\nhalt_on_give_up = no\n")
        .file("tasks.d/1-a", b"\x7fELF but not really")
        .mode("tasks.d/1-a", 0o755)
        .task("2-b.sh", "exit 0")
        .run(&[])
        .exits(1)
        .ran_nothing()
        .says("1-a");
}

#[test]
fn a_script_without_a_first_line_is_a_failed_try() {
    // The old one could not start it either; only a shell would guess.
    Scene::new()
        .config("[runner]\nmax_tries = 1\nhalt_on_give_up = no\n")
        .file("tasks.d/1-a.sh", "echo hello\n")
        .mode("tasks.d/1-a.sh", 0o755)
        .run(&[])
        .exits(1)
        .never_prints("hello")
        .says("1-a.sh");
}

#[test]
fn a_missing_file_under_an_interpreter_is_no_halt() {
    // `sh MISSING` exits with 2, which would mean HALT.
    Scene::new()
        .config("[runner]\ninterpreter = /bin/sh\nmax_tries = 1\n")
        .task("1-a.sh", "rm \"$SCENE/tasks.d/2-b.sh\"")
        .task("2-b.sh", "exit 0")
        .task("halt.sh", "exit 0")
        .run(&[])
        .exits(1)
        .ran(["1-a.sh", "halt.sh"])
        .says("2-b.sh");
}

#[rstest]
#[case("exit 0")]
#[case("exit 2")]
#[case("exit 5")]
fn a_time_out_is_a_failure_whatever_code_it_leaves(#[case] last: &str) {
    let body = format!("trap '{last}' TERM; while :; do probe ignore TERM nap 20; done");
    let run = Scene::new()
        .config("[runner]\nmax_tries = 1\nmax_time = 0.4\nkill_after = 9\nstop_codes = 5\nhalt_on_give_up = no\n")
        .task("1-a.sh", &body)
        .task("halt.sh", "exit 0")
        .run_logged(&[])
        .exits(1)
        .ran(["1-a.sh"])
        .quicker_than(9);
    let ended = &run.events("task_ended")[0];
    assert_eq!(ended["result"], "RETRY");
    assert_eq!(ended["timed_out"], true);
}

#[test]
fn a_retry_is_told_as_an_event() {
    let run = Scene::new().config("[runner]\nmax_tries = 3\n").task("1-a.sh", "exit 1").run_logged(&[]).exits(1);
    assert_eq!(run.events("run_retry").len(), 2);
    assert_eq!(run.events("run_ended").len(), 1);
}
