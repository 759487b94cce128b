//! Trust where a configuration does more than run one chain: daemon, tick, worker, and what they write and tell.

use rstest::rstest;
use rustix::process::Signal;

use crate::scene::{Scene, is_root_or_skipped};

/// Some user that is not ours.
const OTHER: u32 = 65_534;

/// Everything that a configuration could do, each of which leaves something behind.
fn daemon_scene() -> Scene {
    let scene = Scene::new();
    let state = scene.path("state");
    scene
        .env("STATE_DIRECTORY", state)
        .config("[runner]\ntask_dir = a\nchain_hook = sh -c 'echo hook >>$SCENE/hooked'\nlock = file:lock/l\ninclude_dir = conf.d\n")
        .config("[metrics]\ntextfile = metrics.prom\n[liveness]\nfile = alive-{chain}\n[queue:default]\ntask_dir = a\n[daemon]\nqueues = default\n")
        .config("[chain:a]\ntask_dir = a\nschedule = every 1s\ntimezone = UTC\n")
        .file("conf.d/a.cfg", "[hg]\nk = v\n")
        .task_at("a/1-a.sh", "say a")
}

const DONE: [&str; 5] = ["hooked", "metrics.prom", "alive-a", "lock", "state"];

#[rstest]
fn of_a_configuration_that_fails_nothing_is_done_at_all(
    #[values("runner.cfg", "conf.d/a.cfg", "conf.d")] path: &str,
    #[values(&[], &["now"], &["daemon"], &["tick"], &["work", "--drain"], &["enqueue", "1-a.sh"], &["status"])] command: &[&str],
) {
    if !is_root_or_skipped() {
        return;
    }
    let scene = daemon_scene();
    // It has to be there before its owner can be changed.
    scene.run(&["list"]).exits(0);
    let run = scene.owner(path, OTHER, 0).run(command).exits(78).logged([]).says("not trusted");
    for name in DONE {
        assert!(!run.path(name).exists(), "{name} is there: {run}");
    }
}

/// Only the chain that it belongs to is refused, and its hook does not hear of that.
#[rstest]
#[case::hook("bin/hook.sh")]
#[case::task("b/1-b.sh")]
#[case::task_directory("b")]
fn what_one_chain_cannot_trust_the_others_do_not_feel(#[case] path: &str) {
    if !is_root_or_skipped() {
        return;
    }
    let scene = daemon_scene().script("bin/hook.sh", "say hook").task_at("b/1-b.sh", "say b");
    let scene = scene.config("[chain:b]\ntask_dir = b\nschedule = every 1s\nchain_hook = bin/hook.sh\n");
    scene.run(&["list"]).exits(0);
    let run = scene.owner(path, OTHER, 0).run(&["tick"]).exits(78).says("not trusted").says(path).ran(["1-a.sh"]);
    assert!(!run.log().contains(&"- hook".to_owned()), "{run}");
}

/// A person is told, the hook is not: it may be what is wrong.
#[rstest]
#[case::hook("bin/hook.sh")]
#[case::task("b/1-b.sh")]
#[case::task_directory("b")]
#[case::directory_that_is_wrong_as_well("b/1-a.sh")]
fn a_person_who_asks_for_what_is_not_trusted_starts_no_hook(#[case] path: &str) {
    if !is_root_or_skipped() {
        return;
    }
    let scene = daemon_scene().script("bin/hook.sh", "say hook").task_at("b/1-b.sh", "say b").task_at("b/1-a.sh", "say a");
    let scene = scene.config("[chain:b]\ntask_dir = b\nchain_hook = bin/hook.sh\n[task:b/b]\ndepends_on = nobody\n");
    scene.run(&["list"]).exits(0);
    let run = scene.run(&["now", "b"]).exits(78);
    assert_eq!(run.log(), ["- hook"], "its tasks are wrong, and that is told: {run}");
    scene.owner(path, OTHER, 0).run(&["now", "b"]).exits(78).says("not trusted").says(path).logged(["- hook"]);
}

/// The old one stays.
#[test]
fn a_daemon_takes_nothing_over_that_it_cannot_trust() {
    if !is_root_or_skipped() {
        return;
    }
    let scene = Scene::new().task_at("a/1-a.sh", "say a").config("[chain:a]\ntask_dir = a\nschedule = every 1s\n");
    let state = scene.path("state");
    let scene = scene.env("STATE_DIRECTORY", state);
    let mut running = scene.start(&["daemon"]);
    running.wait_for_log("- a");
    let text = "[runner]\nchain_hook = sh -c 'echo hook >>$SCENE/hooked'\n[metrics]\ntextfile = metrics.prom\n[chain:b]\ntask_dir = a\nschedule = every 1s\n";
    std::fs::write(scene.path("new.cfg"), text).unwrap();
    let scene = scene.owner("new.cfg", OTHER, 0);
    std::fs::rename(scene.path("new.cfg"), scene.config_file()).unwrap();
    running.signal(Signal::HUP);
    running.wait_for_message("the configuration is not taken over, the old one stays", "belongs to user 65534");
    // Runs are not begun either: their tasks would read the file.
    running.wait_for_message("chain a: not trusted", "belongs to user 65534");
    let path = scene.config_file();
    std::fs::write(&path, "[chain:a]\ntask_dir = a\nschedule = every 1s\n[chain:c]\ntask_dir = c\nschedule = every 1s\n").unwrap();
    let _scene = scene.task_at("c/1-c.sh", "say c").owner(path, 0, 0);
    running.wait_for_log("- c");
    running.signal(Signal::TERM);
    let run = running.finish().exits(0);
    assert!(!run.path("hooked").exists() && !run.path("metrics.prom").exists(), "{run}");
}

/// Who may write the database runs tasks as the worker.
#[rstest]
fn a_database_that_others_can_write_is_not_worked(
    #[values("state/runner.db", "state")] path: &str,
    #[values(&["work", "--drain"], &["tick"], &["daemon"], &["queue", "run", "1"])] command: &[&str],
) {
    if !is_root_or_skipped() {
        return;
    }
    let scene = daemon_scene();
    scene.run(&["enqueue", "1-a.sh"]).exits(0);
    let scene = scene.owner(path, OTHER, 0);
    scene.run(command).exits(78).logged([]).says("not trusted: the database").says(path);
    // Who only reads it, or leaves a job there, runs nothing.
    scene.run(&["queue", "list"]).exits(0);
}

#[test]
fn the_line_that_names_a_database_is_told() {
    if !is_root_or_skipped() {
        return;
    }
    let scene = Scene::new().config("[runner]\ndatabase = sqlite:own/db\n[queue:default]\ntask_dir = tasks.d\n").tasks(["1-a.sh"]);
    scene.run(&["enqueue", "1-a.sh"]).exits(0);
    let said = format!("{}:2: not trusted: the database: ", scene.config_file().display());
    let scene = scene.owner("own/db", OTHER, 0);
    scene.run(&["work", "--drain"]).exits(78).logged([]).says(&said);
    scene.run(&["-s", "runner.trust=warn", "work", "--drain"]).exits(0).says(&said).ran(["1-a.sh"]);
}

#[rstest]
#[case::lock("locks/l", 0o666)]
#[case::token("locks/l.token", 0o666)]
#[case::owner("locks/l.owner", 0o666)]
#[case::directory("locks", 0o777)]
fn a_lock_that_others_can_write_is_none(#[case] path: &str, #[case] mode: u32) {
    if !is_root_or_skipped() {
        return;
    }
    let named = "[chain:c]\ntask_dir = tasks.d\nlock = file:locks/l\nschedule = * * * * *\n";
    let scene = Scene::new().task("1-a.sh", "say a").config(&format!("[runner]\nlock = file:locks/l\n{named}"));
    scene.run(&[]).exits(0);
    let scene = if path.ends_with("owner") { scene.file(path, "{}") } else { scene }.mode(path, mode);
    let key = format!("file:{}", scene.path("locks/l").display());
    std::fs::write(scene.path("log"), "").unwrap();
    scene.run(&[]).exits(78).logged([]).says("not trusted").says(path);
    scene.run(&["lock", &key, "--", "true"]).exits(78).says("not trusted");
    let said = format!("chain c: {}:5: {}", scene.config_file().display(), scene.path("locks").display());
    for command in ["now", "tick"] {
        scene.run(&[command]).exits(78).logged([]).says(&said).says("not trusted").says(path);
    }
    // As /run/lock is: what is ours there is ours alone.
    scene.mode(path, if mode == 0o777 { 0o1777 } else { 0o644 }).run(&[]).exits(0).ran(["1-a.sh"]);
}
