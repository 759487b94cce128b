//! The environment of tasks: what runner adds, what it takes away, `[env]` and `[env:NAME]`.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use rstest::rstest;
use serde_json::Value;

use crate::scene::{Outcome, Scene, skipped, succeeds};

const REPORT: &str = "play report r.json";

fn environment(run: &Outcome) -> Value {
    run.report("r.json")["env"].clone()
}

#[test]
fn a_task_is_told_what_it_is() {
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let scene = Scene::new().config("[runner]\nmax_tries = 7\nmax_time = 500\n").task("30-build-bot.py", REPORT);
    let run = scene.run(&[]).exits(0);
    let env = environment(&run);
    assert_eq!(env["RUNNER_CONFIG"], scene.config_file().to_str().unwrap());
    assert_eq!(env["RUNNER_CHAIN"], "main");
    assert_eq!(env["RUNNER_TASK"], "30-build-bot.py");
    assert_eq!(env["RUNNER_TRY"], "1");
    assert_eq!(env["RUNNER_MAX_TRIES"], "7");
    assert_eq!(env["RUNNER_TIME_LIMIT"], "500");
    assert_eq!(env["RUNNER_TRIGGER"], "boot");
    assert!(!env["RUNNER_RUN_ID"].as_str().unwrap().is_empty());
    assert!(env["RUNNER_CONFIG_CMD"].as_str().unwrap().contains("runner-config"));
    assert!(env["NOTIFY_SOCKET"].as_str().unwrap().starts_with('@'));
    let deadline: u64 = env["RUNNER_DEADLINE"].as_str().unwrap().parse().unwrap();
    assert!((before + 499..before + 530).contains(&deadline), "{deadline} {before}");
}

#[test]
fn the_deadline_of_a_task_counts_from_its_start_behind_the_hook() {
    let hook = "[ \"$RUNNER_DEADLINE\" ] || exit 1; [ -e \"$SCENE/hooked\" ] || { sleep 2; date +%s >\"$SCENE/hooked\"; }";
    let scene = Scene::new().script("bin/hook.sh", hook).config("[runner]\ntask_hook = bin/hook.sh\nmax_time = 100\n");
    let run = scene.task("1-a.sh", REPORT).run(&[]).exits(0).never_says("task_hook");
    let deadline: u64 = environment(&run)["RUNNER_DEADLINE"].as_str().unwrap().parse().unwrap();
    let hooked: u64 = run.text_of("hooked").trim().parse().unwrap();
    assert!(deadline >= hooked + 100, "{deadline} {hooked}");
}

#[test]
fn the_limit_of_a_run_is_a_deadline_too() {
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let run = Scene::new().config("[runner]\nchain_max_time = 100\n").task("1-a.sh", REPORT).run(&[]).exits(0);
    let deadline: u64 = environment(&run)["RUNNER_DEADLINE"].as_str().unwrap().parse().unwrap();
    assert!((before + 90..before + 130).contains(&deadline), "{deadline} {before}");
}

#[test]
fn all_tries_of_a_run_have_its_id() {
    let tell = "printf '%s\\n' \"$RUNNER_RUN_ID\" >>\"$SCENE/ids\"; once && exit 1; exit 0";
    let run = Scene::new().task("1-a.sh", tell).task("2-b.sh", tell).run(&[]).exits(0);
    let ids = run.text_of("ids");
    let mut ids: Vec<&str> = ids.lines().collect();
    assert_eq!(ids.len(), 5);
    ids.dedup();
    assert_eq!(ids.len(), 1);
}

#[test]
fn two_runs_have_different_ids() {
    let scene = Scene::new().task("1-a.sh", REPORT);
    let first = environment(&scene.run(&[]).exits(0));
    let second = environment(&scene.run(&[]).exits(0));
    assert_ne!(first["RUNNER_RUN_ID"], second["RUNNER_RUN_ID"]);
}

#[test]
fn the_commandline_s_overrides_are_passed_on() {
    let run = Scene::new().task("1-a.sh", REPORT).run(&["-s", "hg.remote=there"]).exits(0);
    let env = environment(&run);
    assert!(env["RUNNER_OVERRIDES"].as_str().unwrap().contains("there"), "{env}");
}

#[rstest]
#[case("RUNNER_SOMETHING")]
#[case("RUNNER_JOB_ID")]
#[case("RUNNER_LOCK_TOKEN")]
#[case("WATCHDOG_USEC")]
#[case("WATCHDOG_PID")]
#[case("LISTEN_FDS")]
#[case("LISTEN_PID")]
#[case("LISTEN_FDNAMES")]
#[case("MAINPID")]
#[case("INVOCATION_ID")]
#[case("CREDENTIALS_DIRECTORY")]
#[case("STATE_DIRECTORY")]
fn what_was_meant_for_runner_is_not_passed_on(#[case] name: &str) {
    let run = Scene::new()
        .script("bin/hook.sh", "probe report hook.json")
        .config("[runner]\ntask_hook = bin/hook.sh\n")
        // A path, lest a test that is run by root leaves its record in the machine's own state.
        .env(name, "/proc/4711")
        .task("1-a.sh", REPORT)
        .run(&["-H"])
        .exits(0);
    assert_eq!(environment(&run).get(name), None);
    assert_eq!(run.report("hook.json")["env"].get(name), None);
}

#[test]
fn the_halt_task_does_not_get_it_either() {
    let run = Scene::new()
        .env("INVOCATION_ID", "1")
        .env("RUNNER_SOMETHING", "1")
        .task("1-a.sh", "exit 2")
        .task("halt.sh", REPORT)
        .run(&[])
        .exits(3);
    let env = environment(&run);
    assert_eq!(env.get("INVOCATION_ID"), None);
    assert_eq!(env.get("RUNNER_SOMETHING"), None);
}

#[test]
fn the_notify_socket_of_runner_is_not_that_of_a_task() {
    let scene = Scene::new().task("1-a.sh", REPORT);
    let socket = scene.path("notify");
    let run = scene.env("NOTIFY_SOCKET", &socket).run(&[]).exits(0);
    assert_ne!(environment(&run)["NOTIFY_SOCKET"], socket.to_str().unwrap());
}

#[rstest]
#[case("TRACEPARENT", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]
#[case("HTTP_PROXY", "http://proxy.example:3128")]
#[case("LISTENER", "not LISTEN_")]
#[case("EMPTY", "")]
fn all_else_passes_unchanged(#[case] name: &str, #[case] value: &str) {
    let run = Scene::new().env(name, value).task("1-a.sh", REPORT).run(&[]).exits(0);
    assert_eq!(environment(&run)[name], value);
}

#[test]
fn a_value_that_is_no_utf_8_passes_unchanged() {
    use std::os::unix::ffi::OsStrExt;
    let value = std::ffi::OsStr::from_bytes(b"a\xff\xfeb");
    let run = Scene::new().env("ODD", value).task("1-a.sh", "printf '%s' \"$ODD\" >\"$SCENE/odd\"").run(&[]).exits(0);
    assert_eq!(std::fs::read(run.path("odd")).unwrap(), value.as_bytes());
}

// ---- [env] -------------------------------------------------------------------------------------

#[rstest]
#[case("plain", "plain")]
#[case("\"quoted\" 'too'", "\"quoted\" 'too'")]
#[case("$HOME ${X} `id` $(id) %d %(x)s *", "$HOME ${X} `id` $(id) %d %(x)s *")]
#[case("back\\slash\\n \\", "back\\slash\\n \\")]
#[case("a # b", "a # b")]
#[case("a=b:c", "a=b:c")]
#[case("one\n two", "one\ntwo")]
#[case("", "")]
fn a_value_is_literal(#[case] written: &str, #[case] seen: &str) {
    let run = Scene::new().config(&format!("[env]\nVALUE = {written}\n")).task("1-a.sh", REPORT).run(&[]).exits(0);
    assert_eq!(environment(&run)["VALUE"], seen);
}

#[test]
fn names_keep_their_case_and_win_over_what_was_there() {
    let run = Scene::new().env("Colour", "old").config("[env]\nColour = new\nCOLOUR = other\n").task("1-a.sh", REPORT).run(&[]).exits(0);
    let env = environment(&run);
    assert_eq!(env["Colour"], "new");
    assert_eq!(env["COLOUR"], "other");
}

#[test]
fn one_task_may_have_others() {
    Scene::new()
        .config("[env]\nA = all\nB = all\n[env:b]\nB = mine\nC = mine\n")
        .task("1-a.sh", "say $A $B $C")
        .task("2-b.sh", "say $A $B $C")
        .run(&[])
        .exits(0)
        .logged(["1-a.sh 1", "- all all", "2-b.sh 1", "- all mine mine"]);
}

#[test]
fn what_runner_says_wins_over_env_with_a_warning() {
    let run = Scene::new()
        .config("[env]\nRUNNER_TRY = 42\nRUNNER_OWN = 1\n[env:a]\nRUNNER_TASK = me\n")
        .task("1-a.sh", REPORT)
        .run_logged(&[])
        .exits(0)
        .warns()
        .says("RUNNER_TRY");
    let env = environment(&run);
    assert_eq!(env["RUNNER_TRY"], "1");
    assert_eq!(env["RUNNER_TASK"], "1-a.sh");
    assert_eq!(env.get("RUNNER_OWN"), None);
}

#[test]
fn a_new_path_is_the_path_of_the_task() {
    Scene::new().config("[env]\nPATH = /nowhere\n").task("1-a.sh", "say \"$PATH\"").run(&[]).exits(0).logged(["1-a.sh 1", "- /nowhere"]);
}

/// An initramfs may have nothing in /dev yet; what somebody's `>/dev/null` has made there is no device.
#[rstest]
#[case::nothing("", "No such file")]
#[case::a_file("echo junk >/dev/null; ", "it is no device")]
#[case::a_pipe("mkfifo /dev/null; ", "it is no device")]
fn without_dev_null_tasks_find_an_end_to_read_all_the_same(#[case] before: &str, #[case] why: &str) {
    if !succeeds(Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "none", "/tmp"])) {
        return skipped("nothing can be mounted here");
    }
    let mount = format!("mount -t tmpfs none /dev; {before}exec \"$@\"");
    let scene = Scene::new()
        .config("[runner]\ntask_hook = ./hook\n[task:c]\numask = 022\n[chain:d]\ntask_dir = d\n")
        .script("hook", "cat >>\"$SCENE/hooked\"")
        .tasks(["1-a.sh"])
        .task("2-b.sh", "say \"read: $(cat)\"")
        .task("3-c.sh", "say \"read: $(cat)\"")
        .task_at("d/1-d.sh", "say \"read: $(cat)\"")
        .under(&["unshare", "--mount", "sh", "-c", &mount, "sh"]);
    let told = format!("/dev/null cannot be used: {why}");
    let run = scene.run_logged(&[]).exits(0).logged(["1-a.sh 1", "2-b.sh 1", "- read: ", "3-c.sh 1", "- read: "]);
    assert!(run.warns().says(&told).says("mknod -m 666 /dev/null c 1 3").text_of("hooked").contains("1-a.sh"));
    scene.run(&["check"]).exits(0).never_says("/dev/null cannot");
    if cfg!(all(feature = "schedule", feature = "store")) {
        std::fs::write(scene.path("log"), "").unwrap();
        scene.run(&["now", "d"]).exits(0).says(&told).logged(["1-d.sh 1", "- read: "]);
    }
}

#[test]
fn the_working_directory_is_that_of_runner() {
    let run = Scene::new().dir("here").working_directory("here").task("1-a.sh", REPORT).run(&[]).exits(0);
    assert_eq!(run.report("r.json")["cwd"], run.path("here").to_str().unwrap());
}
