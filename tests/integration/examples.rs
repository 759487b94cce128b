//! The example chain: runner.cfg and example-tasks.d, run as a reader of README.md would run them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::docs::example_scene;
use crate::scene::{Scene, skipped, succeeds};

const TASKS: [&str; 8] =
    ["10-clock.sh", "10-disk.sh", "20-network.sh", "30-repository.sh", "30-checkout.sh", "40-build.sh", "50-purge.sh", "report.sh"];

/// The names with those of the first stage in byte order: they run side by side.
fn sorted_first_stages(mut names: Vec<String>) -> Vec<String> {
    for stage in names.chunk_by_mut(|a, b| a.starts_with("10-") && b.starts_with("10-")) {
        stage.sort();
    }
    names
}

fn lines(scene: &Scene, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(scene.path("state").join(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn has_git() -> bool {
    let found = succeeds(Command::new("git").arg("--version"));
    if !found {
        skipped("git is not installed");
    }
    found
}

#[test]
fn the_chain_is_done_in_its_second_try() {
    if !has_git() {
        return;
    }
    let scene = example_scene();
    let outcome = scene.run_logged(&[]).exits(0).nothing_alive();
    let first_try = ["10-clock.sh", "10-disk.sh", "20-network.sh"];
    let expected: Vec<_> = first_try.iter().chain(&TASKS).map(|name| (*name).to_owned()).collect();
    assert_eq!(sorted_first_stages(outcome.tasks_of("task_started")), expected, "{outcome}");
    let failed: Vec<_> = outcome.events("task_ended").into_iter().filter(|event| event["result"] != "OK").collect();
    assert_eq!(failed.len(), 1, "{outcome}");
    assert_eq!((&failed[0]["task"], &failed[0]["try_num"]), (&"20-network.sh".into(), &1.into()));
    let outcome = outcome.prints("report.sh | done in try 2 of 3").prints("50-purge.sh | removed 0 build directories, kept 1");
    assert_eq!(outcome.events("run_retry").len(), 1);
    assert!(!outcome.has_message_of("error"), "{outcome}");
}

#[test]
fn it_can_be_run_again_and_keeps_three_build_directories() {
    if !has_git() {
        return;
    }
    let scene = example_scene();
    let up = ["--set", "network.up_on_try=1", "--set", "purge.keep=2"];
    for (commits, removed) in [(1, 0), (2, 0), (3, 1)] {
        let outcome = scene.run(&up).exits(0);
        let outcome = outcome.prints(&format!("the repository has {commits} commits")).prints(&format!("removed {removed} build"));
        assert_eq!(lines(&scene, "hook.log").iter().filter(|line| line["event"] == "start").count(), 1, "a log for each run{outcome}");
    }
    let mut builds: Vec<_> = fs::read_dir(scene.path("state/builds")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    builds.sort();
    assert_eq!(builds, ["build-000002", "build-000003", "last"]);
}

#[test]
fn the_hooks_write_what_they_hear() {
    let scene = example_scene();
    // One after the other: side by side, the hook after a task may be overtaken by the one before the next stage.
    scene.run(&["--only", "clock,network", "--quiet", "--set", "runner.max_parallel=1"]).exits(0);
    let heard = lines(&scene, "hook.log");
    let short: Vec<_> = heard
        .iter()
        .map(|line| [&line["event"], &line["task"], &line["result"]].map(|word| word.as_str().unwrap_or("-").to_owned()).join(" "))
        .collect();
    let expected = [
        "start - -",
        "pre 10-clock.sh -",
        "post 10-clock.sh OK",
        "pre 20-network.sh -",
        "post 20-network.sh RETRY",
        "pre 10-clock.sh -",
        "post 10-clock.sh OK",
        "pre 20-network.sh -",
        "post 20-network.sh OK",
        "end - -",
    ];
    assert_eq!(short, expected);
    assert_eq!(heard.last().unwrap()["outcome"], "done");
}

#[test]
fn a_full_disk_halts_and_the_halt_task_only_says_so() {
    let scene = example_scene();
    let outcome = scene.run_logged(&["--set", "disk.min_free_mb=999999999"]).exits(3);
    let outcome = outcome.prints("would power this machine off now (reason halt, task 10-disk.sh); [halt] power_off = no\n");
    assert_eq!(outcome.events("halt_ended")[0]["exit_code"], 0, "{outcome}");
    assert!(!outcome.tasks_of("task_started").contains(&"20-network.sh".to_owned()), "{outcome}");
    assert_eq!(lines(&scene, "hook.log").last().unwrap()["outcome"], "halted");
}

#[test]
fn a_network_that_never_comes_uses_the_tries_up() {
    let scene = example_scene();
    let outcome = scene.run_logged(&["--set", "network.up_on_try=9"]).exits(1);
    let outcome = outcome.prints("would power this machine off now (reason give-up, task 20-network.sh)");
    assert_eq!(outcome.events("run_retry").len(), 2, "{outcome}");
    let scene = example_scene();
    scene.run(&["--set", "network.up_on_try=9", "--set", "runner.halt_on_give_up=no"]).exits(1).never_prints("power");
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let scene = example_scene();
    let remote = scene.run_logged(&["--only", "repository", "--set", "git.remote=https://example.org/x"]).exits(0);
    assert_eq!(remote.events("task_ended")[0]["result"], "SKIP", "{remote}");

    let scene = example_scene().dir("state").mode("state", 0o777);
    let outcome = scene.run(&["--only", "disk"]).exits(5).says("not a directory that only you can write to").never_prints("free");
    assert_eq!(outcome.mode_of("state"), 0o777, "{outcome}");
    let scene = example_scene().dir("elsewhere").link("state", "elsewhere");
    scene.run(&["--only", "disk"]).exits(5);
    example_scene().run(&["--only", "disk", "--set", "example.work_dir=state"]).exits(5).says("expected an absolute path");
}

#[test]
fn without_git_the_chain_is_done_all_the_same() {
    let scene = example_scene().dir("bin");
    for program in ["sh", "id", "mkdir", "find", "mv", "date", "df", "cat", "ls", "rm"] {
        let path = ["/usr/bin", "/bin"].map(|dir| std::path::Path::new(dir).join(program)).into_iter().find(|path| path.exists());
        std::os::unix::fs::symlink(path.unwrap(), scene.path("bin").join(program)).unwrap();
    }
    let path = format!("env.PATH={}", scene.path("bin").display());
    let outcome = scene.run_logged(&["--set", &path, "--set", "network.up_on_try=1"]).exits(0);
    let skipped: Vec<_> = outcome.events("task_ended").into_iter().filter(|event| event["result"] == "SKIP").collect();
    let skipped: Vec<_> = skipped.iter().map(|event| event["task"].as_str().unwrap()).collect();
    assert_eq!(skipped, ["30-repository.sh", "30-checkout.sh"], "{outcome}");
}

#[test]
fn it_writes_below_the_home_of_whoever_is_not_root() {
    if rustix::process::geteuid().is_root() {
        // As root it would be /var/lib/runner-example: the machine of whoever runs the tests is not ours to write to.
        return;
    }
    let scene = example_scene();
    scene.run(&["--only", "disk", "--set", "example.work_dir="]).exits(0);
    let made = scene.path(".local/state/runner-example");
    assert_eq!(fs::metadata(made).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn check_finds_no_error_and_every_script_is_one() {
    let scene = example_scene();
    scene.run(&["check"]).exits(0).prints("0 errors, 0 warnings");
    for script in TASKS.iter().chain(&["halt.sh", "hooks/log.sh", "lib/work-dir"]) {
        let path = scene.path("example-tasks.d").join(script);
        assert!(succeeds(Command::new("sh").arg("-n").arg(&path)), "{script}");
    }
}
