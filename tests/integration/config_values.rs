//! Values: what each key takes, and that a wrong one is told with file, line, key, value and what is
//! expected, before anything runs.

use rstest::rstest;

use crate::scene::Scene;

#[rstest]
#[case("max_time", "soon")]
#[case("max_time", "-1")]
#[case("max_time", "5 parsecs")]
#[case("kill_after", "x")]
#[case("idle_timeout", "1..5")]
#[case("chain_max_time", "-3")]
#[case("sleep_time", "-1")]
#[case("retry_jitter", "much")]
#[case("max_sleep_time", "long")]
#[case("retry_deadline", "never")]
#[case("hook_max_time", "1 2")]
#[case("sleep_time", "infinity")]
#[case("retry_jitter", "infinity")]
#[case("run_interval", "infinity")]
#[case("backoff", "x")]
#[case("backoff", "-1")]
#[case("max_tries", "-1")]
#[case("max_tries", "1.5")]
#[case("max_tries", "many")]
#[case("max_tries", "99999999999999999999")]
#[case("times", "-1")]
#[case("run_interval", "often")]
#[case("sleep_interval", "-5")]
#[case("retry_from", "begin")]
#[case("halt_on_give_up", "maybe")]
#[case("success_codes", "256")]
#[case("halt_codes", "-1")]
#[case("stop_codes", "one")]
#[case("skip_codes", "1-5")]
#[case("max_parallel", "0")]
#[case("nice", "40")]
#[case("nice", "-21")]
#[case("umask", "999")]
#[case("umask", "rwx")]
#[case("output", "loud")]
#[case("sweep", "sometimes")]
#[case("trust", "maybe")]
#[case("task_hook", "say \"hello")]
#[case("chain_hook", "say 'hello")]
#[case("interpreter", "sh 'x")]
fn a_wrong_value_is_told_before_anything_runs(#[case] key: &str, #[case] value: &str) {
    let scene = Scene::new().config(&format!("[runner]\n{key} = {value}\n")).tasks(["1-a.sh", "halt.sh"]);
    scene.run(&[]).exits(78).ran_nothing().says("runner.cfg:2").says(key).says(value);
    scene.run(&["check"]).exits(78).prints("runner.cfg:2: error:").prints(key);
}

#[rstest]
#[case("[task:a]", "max_time", "soon")]
#[case("[task:a]", "max_tries", "many")]
#[case("[task:a]", "args", "'x")]
#[case("[task:main/a]", "umask", "9")]
#[case("[a]", "max_time", "soon")]
#[case("[a]", "max_tries", "0x10")]
#[case("[a]", "sleep_time", "a while")]
fn a_wrong_value_of_one_task_is_told_too(#[case] section: &str, #[case] key: &str, #[case] value: &str) {
    Scene::new()
        .config(&format!("\n{section}\n{key} = {value}\n"))
        .tasks(["0-first.sh", "1-a.sh"])
        .run(&[])
        .exits(78)
        .ran_nothing()
        .says("runner.cfg:3")
        .says(key)
        .says(value);
}

#[test]
fn all_wrong_values_are_told_at_once() {
    Scene::new()
        .config("[runner]\nmax_time = soon\nmax_tries = many\n[task:a]\nnice = very\n")
        .tasks(["1-a.sh"])
        .run(&["check"])
        .exits(78)
        .prints("runner.cfg:2: error:")
        .prints("runner.cfg:3: error:")
        .prints("runner.cfg:5: error:");
}

#[rstest]
#[case("max_time", "0")]
#[case("max_time", "infinity")]
#[case("max_time", "600")]
#[case("max_time", "0.5")]
#[case("max_time", "5min 20s")]
#[case("max_time", "1h30m")]
#[case("max_time", "2 h")]
#[case("max_time", "1d")]
#[case("sleep_time", "100ms")]
#[case("max_sleep_time", "infinity")]
#[case("kill_after", "infinity")]
#[case("retry_deadline", "infinity")]
#[case("backoff", "1.14")]
#[case("max_tries", "0")]
#[case("times", "0")]
#[case("retry_from", "failed")]
#[case("halt_on_give_up", "yes")]
#[case("halt_on_give_up", "no")]
#[case("halt_on_give_up", "true")]
#[case("halt_on_give_up", "off")]
#[case("halt_on_give_up", "1")]
#[case("success_codes", "0, 5 ,7 9")]
#[case("stop_codes", "")]
#[case("nice", "0")]
#[case("nice", "19")]
#[case("umask", "022")]
#[case("umask", "0077")]
#[case("output", "capture")]
#[case("sweep", "always")]
#[case("trust", "warn")]
#[case("interpreter", "sh -e")]
#[case("task_hook", "sh -c 'echo \"a b\"' x")]
fn a_right_value_is_taken(#[case] key: &str, #[case] value: &str) {
    Scene::new().config(&format!("[runner]\n{key} = {value}\n")).tasks(["1-a.sh", "halt.sh"]).run(&["check", "--strict"]).exits(0);
}

#[rstest]
#[case("600", "600")]
#[case("0.5", "0.5")]
#[case("5min 20s", "320")]
#[case("1h30m", "5400")]
#[case("2m", "120")]
fn a_duration_is_printed_in_seconds(#[case] written: &str, #[case] seconds: &str) {
    Scene::new().config(&format!("[a]\nd = {written}\n")).runner_config(&["-g", "a.d", "--type", "duration"]).exits(0).prints_line(seconds);
}

#[test]
fn a_password_in_a_wrong_value_is_not_told() {
    let scene = Scene::new().config("[runner]\nmax_time = postgresql://me:s3cret@db/x\n").tasks(["1-a.sh"]);
    scene.run(&["-vv"]).exits(78).says("max_time").never_says("s3cret");
    scene.run(&["check"]).exits(78).prints("max_time").never_prints("s3cret").never_says("s3cret");
}
