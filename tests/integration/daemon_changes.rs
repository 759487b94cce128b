//! What changes while `runner daemon` runs: drop-ins that come and go, chains that get another name; and a `tick` that
//! finds the database locked.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use rustix::process::Signal;

use crate::scene::{Running, STATE_DIR, Scene, until};
use crate::status::store;

/// A daemon's chain `a`, which runs every second, and a directory for more.
fn scene() -> Scene {
    Scene::new()
        .dir("conf.d")
        .config(&format!("[runner]\ninclude_dir = conf.d\n{}", section("a")))
        .task_at("a/1-a.sh", "say ran $RUNNER_CHAIN")
        .task_at("b/1-b.sh", "say ran $RUNNER_CHAIN")
}

/// A chain that runs every second; `b` is that of a drop-in, whose paths begin where it stands.
fn section(name: &str) -> String {
    format!("[chain:{name}]\ntask_dir = {}\nschedule = every 1s\n", if name == "b" { "../b" } else { "a" })
}

/// Puts a file in its place in one moment, as a package manager does.
fn put(path: &Path, text: &str) {
    let beside = path.with_extension("dpkg-new");
    fs::write(&beside, text).unwrap();
    fs::rename(beside, path).unwrap();
}

fn runs_of(running: &Running, chain: &str) -> usize {
    let log = fs::read_to_string(running.path("log")).unwrap_or_default();
    log.lines().filter(|line| *line == format!("- ran {chain}")).count()
}

fn wait_for_more(running: &mut Running, chain: &str, more: usize) {
    let before = runs_of(running, chain);
    running.wait_for(chain, |running| runs_of(running, chain) >= before + more);
}

fn reloads(running: &Running) -> usize {
    fs::read_to_string(running.path("stderr.1")).unwrap_or_default().matches("the configuration was read again").count()
}

fn wait_for_reload(running: &mut Running, change: impl FnOnce()) {
    let before = reloads(running);
    change();
    running.wait_for("the new configuration", |running| reloads(running) > before);
}

#[test]
fn a_drop_in_comes_is_changed_and_goes() {
    let scene = scene();
    let mut running = scene.start(&["-v", "daemon"]);
    let drop_in = scene.path("conf.d/10-b.cfg");
    wait_for_more(&mut running, "a", 1);
    wait_for_reload(&mut running, || put(&drop_in, &section("b")));
    wait_for_more(&mut running, "b", 1);
    // Broken: b goes on as it was, and the error names the drop-in.
    put(&drop_in, &section("b").replace("every 1s", "61 * * * *"));
    running.wait_for_message("the old one stays", "conf.d/10-b.cfg:3: schedule");
    wait_for_more(&mut running, "b", 1);
    wait_for_reload(&mut running, || fs::remove_file(&drop_in).unwrap());
    // What had begun may still end; what comes after another run of the other is none.
    wait_for_more(&mut running, "a", 1);
    let gone = runs_of(&running, "b");
    wait_for_more(&mut running, "a", 1);
    assert_eq!(runs_of(&running, "b"), gone, "it is not in the configuration any more");
    running.signal(Signal::TERM);
    running.finish().exits(0);
}

#[test]
fn a_chain_with_a_new_name_is_a_new_chain() {
    let scene = scene();
    let mut running = scene.start(&["-v", "daemon"]);
    wait_for_more(&mut running, "a", 1);
    let text = fs::read_to_string(scene.config_file()).unwrap();
    wait_for_reload(&mut running, || put(&scene.config_file(), &text.replace("[chain:a]", "[chain:renamed]")));
    wait_for_more(&mut running, "renamed", 1);
    let old = runs_of(&running, "a");
    wait_for_more(&mut running, "renamed", 1);
    assert_eq!(runs_of(&running, "a"), old);
    running.signal(Signal::TERM);
    running.finish().exits(0);
    let renamed = scene.path("renamed.cfg").display().to_string();
    fs::write(&renamed, text.replace("[chain:a]", "[chain:renamed]")).unwrap();
    scene.run(&["-c", &renamed, "why", "a"]).exits(64).says("no chain is called `a`");
    scene.run(&["-c", &renamed, "history", "a"]).exits(0).prints("done");
}

// ---- a database that somebody else writes to ---------------------------------------------------------

/// A tick that is due, and a database in which another process holds a transaction that writes.
fn locked() -> (Scene, Connection) {
    let scene = Scene::new().config("[chain:a]\ntask_dir = a\nschedule = * * * * *\nmissed = skip\n").task_at("a/1-a.sh", "exit 0");
    drop(store(&scene));
    let other = Connection::open(scene.path(STATE_DIR).join("runner.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    (scene, other)
}

/// Whether it has the database open, and waits: it has gone to sleep with the files in its hands.
fn waits(pid: u32) -> bool {
    let has = |name: &str| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_link(file.path()).ok()).any(|file| file.ends_with(name))
    };
    let sleeps = fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") S "));
    has("runner.db-wal") && sleeps
}

#[test]
fn a_tick_waits_for_whoever_writes_and_then_does_its_work() {
    let (scene, other) = locked();
    let running = scene.start(&["tick"]);
    until("it waits", || waits(running.pid()));
    assert_eq!(fs::read_to_string(running.path("log")).unwrap(), "", "nothing begins that is not written down");
    other.execute_batch("COMMIT").unwrap();
    running.finish().exits(0).ran(["1-a.sh"]);
}

#[test]
fn a_tick_that_is_killed_while_it_waits_has_used_no_slot() {
    let (scene, other) = locked();
    let mut running = scene.start(&["tick"]);
    until("it waits", || waits(running.pid()));
    running.insist(Signal::KILL);
    running.finish().dies_of(Signal::KILL).ran_nothing();
    other.execute_batch("ROLLBACK").unwrap();
    scene.run(&["tick"]).exits(0).ran(["1-a.sh"]);
}

#[test]
fn whoever_only_reads_does_not_wait() {
    let (scene, _other) = locked();
    for command in ["status", "history", "schedule"] {
        scene.run(&[command]).exits(0);
    }
}

#[test]
fn a_daemon_whose_newest_records_are_lost_does_not_say_that_all_is_well() {
    let scene = Scene::new().config("[chain:a]\ntask_dir = a\nschedule = every 1s\n").task_at("a/1-a.sh", "say in; play wait-file go");
    drop(store(&scene));
    let mut running = scene.start(&["daemon"]);
    running.wait_for_log("- in");
    let other = Connection::open(scene.path(STATE_DIR).join("runner.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    running.signal(Signal::TERM);
    running.finish().exits(74).says("the newest records could not be written");
    drop(other);
}
