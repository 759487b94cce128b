//! `runner lock KEY -- COMMAND`: what its users see, with locks in files.

use std::net::TcpListener;

use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};

use crate::alive::is_alive;
use crate::running::{Running, until};
use crate::scene::Scene;

/// A script that is inside: it holds `inside` while it runs, says so in the log, and does the rest of its words. Two at
/// once are told by the kernel, not by the clock; when it was is the time of a file.
const INSIDE: &str = r#"exec 9>>"$SCENE/inside"
flock -n 9 || { echo "TWO $RUNNER_LOCK_TOKEN" >>"$SCENE/log"; exit 99; }
: >"$SCENE/at.$RUNNER_LOCK_TOKEN"
echo "enter $RUNNER_LOCK_TOKEN $PPID $$" >>"$SCENE/log"
"$@"
echo "leave $RUNNER_LOCK_TOKEN" >>"$SCENE/log""#;

/// A scene whose locks stand below it.
pub(crate) fn lock_scene() -> Scene {
    let scene = Scene::new().script("inside.sh", INSIDE);
    let state = scene.path("state");
    scene.env("STATE_DIRECTORY", state)
}

/// Who has entered: the token, the runner above, the command.
pub(crate) fn entered(scene: &Scene) -> Vec<(u64, i32, u32)> {
    let log = std::fs::read_to_string(scene.path("log")).unwrap_or_default();
    assert!(!log.contains("TWO"), "two inside at once:\n{log}");
    let whole = log.lines().filter_map(|line| {
        let mut words = line.strip_prefix("enter ")?.split(' ').map(str::parse::<u64>);
        let mut next = || words.next()?.ok();
        Some((next()?, i32::try_from(next()?).unwrap(), u32::try_from(next()?).unwrap()))
    });
    whole.collect()
}

/// Starts a command under the lock that stays inside until it is ended.
pub(crate) fn stay_inside(scene: &Scene, options: &[&str], key: &str) -> Running {
    let words = [&["lock"], options, &[key, "--", "./inside.sh", "sleep", "1000"]].concat();
    scene.start(&words)
}

pub(crate) fn send(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[test]
fn the_command_has_our_descriptors_and_we_its_exit_code() {
    let scene = lock_scene();
    let outcome = scene.run(&["lock", "k", "--", "sh", "-c", "cat; echo token $RUNNER_LOCK_TOKEN; exit 7"]).exits(7);
    assert!(outcome.stdout_text().starts_with("not for tasks\ntoken 1"), "{}", outcome.stdout_text());
    scene.run(&["lock", "k", "--", "sh", "-c", "kill -9 $$"]).exits(137);
    scene.run(&["lock", "k", "--", "no-such-command"]).exits(127).says("no-such-command is not found");
    let scene = scene.file("data", "x").mode("data", 0o755);
    scene.run(&["lock", "k", "--", "./data"]).exits(126).says("is no program");
}

#[test]
fn tokens_grow_from_one_to_the_next() {
    let scene = lock_scene();
    for _ in 0..3 {
        scene.run(&["lock", "k", "--", "./inside.sh"]).exits(0);
    }
    let tokens: Vec<u64> = entered(&scene).iter().map(|entry| entry.0).collect();
    assert!(tokens.len() == 3 && tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
    // A clock in the far future moves the counter; one that was set back does not.
    let scene = scene.file("state/locks/k.token", "9000000000000000\n");
    scene.run(&["lock", "k", "--", "./inside.sh"]).exits(0);
    assert_eq!(entered(&scene)[3].0, 9_000_000_000_000_001);
}

#[test]
fn a_second_one_is_refused_and_told_who_has_it() {
    let scene = lock_scene();
    let mut first = stay_inside(&scene, &[], "k");
    first.wait_for("the first is inside", |_| entered(&scene).len() == 1);
    let second = scene.run(&["lock", "k", "--", "./inside.sh"]).exits(75);
    second.says(&format!("state/locks/k is held by pid {} on ", first.pid())).says(" since 20").says(", by runner lock");
    let json = scene.run(&["--json", "lock", "k", "--", "./inside.sh"]).exits(75).json();
    assert_eq!(json["error"]["code"], 75);
    scene.run(&["lock", "another", "--", "true"]).exits(0);
    first.signal(Signal::TERM);
    first.finish().dies_of(Signal::TERM);
    assert_eq!(entered(&scene).len(), 1);
    scene.run(&["lock", "k", "--", "true"]).exits(0);
}

#[test]
fn who_waits_gets_it_when_it_is_free() {
    let scene = lock_scene();
    let mut first = stay_inside(&scene, &[], "k");
    first.wait_for("the first is inside", |_| entered(&scene).len() == 1);
    let mut second = stay_inside(&scene, &["--wait", "infinity"], "k");
    second.wait_for_message("is held by pid", &first.pid().to_string());
    first.signal(Signal::INT);
    first.finish().dies_of(Signal::INT);
    second.wait_for("the second is inside", |_| entered(&scene).len() == 2);
    second.signal(Signal::TERM);
    second.finish().dies_of(Signal::TERM);
    // Waiting ends in time, and a signal ends it, too.
    let mut third = stay_inside(&scene, &[], "k");
    third.wait_for("the third is inside", |_| entered(&scene).len() == 3);
    scene.run(&["lock", "--wait", "0.2", "k", "--", "true"]).exits(75).slower_than(200);
    let mut fourth = stay_inside(&scene, &["--wait", "infinity"], "k");
    fourth.wait_for_message("is held by pid", &third.pid().to_string());
    fourth.signal(Signal::TERM);
    fourth.finish().dies_of(Signal::TERM);
    assert!(is_alive(third.pid()));
}

#[test]
fn a_killed_holder_is_known_at_once_and_what_it_left_is_ended_first() {
    let scene = lock_scene();
    let mut first = stay_inside(&scene, &[], "k");
    first.wait_for("the first is inside", |_| entered(&scene).len() == 1);
    let mut second = stay_inside(&scene, &["--wait", "infinity"], "k");
    second.wait_for_message("is held by pid", &first.pid().to_string());
    let command = entered(&scene)[0].2;
    first.signal(Signal::KILL);
    second.wait_for("the second is inside", |_| entered(&scene).len() == 2);
    assert!(!is_alive(command), "the first command goes on");
    // The same for one that comes later and does not wait.
    let (_, holder, command) = entered(&scene)[1];
    send(holder, Signal::KILL);
    until("the second is gone", || !is_alive(u32::try_from(holder).unwrap()));
    assert!(is_alive(command), "nobody is there yet who ends it");
    scene.run(&["lock", "k", "--", "./inside.sh"]).exits(0);
    assert!(!is_alive(command) && entered(&scene).len() == 3);
}

#[test]
fn whoever_left_the_group_is_ended_too() {
    let scene = lock_scene();
    let mut first = scene.start(&["lock", "k", "--", "./inside.sh", "setsid", "sh", "-c", "echo $$ >\"$SCENE/away\"; sleep 1000"]);
    first.wait_for("somebody is away", |running| std::fs::read_to_string(running.path("away")).is_ok_and(|text| text.ends_with('\n')));
    first.signal(Signal::KILL);
    let away: u32 = std::fs::read_to_string(scene.path("away")).unwrap().trim().parse().unwrap();
    assert!(is_alive(away));
    scene.run(&["lock", "k", "--", "./inside.sh"]).exits(0);
    assert!(!is_alive(away));
}

/// The kernel does not mind the name of what is locked, but whoever comes next does.
#[rstest]
#[case::removed("rm \"$SCENE/l\"; exit 0", Some(79))]
#[case::by_one_that_fails("rm \"$SCENE/l\"; exit 3", Some(79))]
#[case::exchanged("rm \"$SCENE/l\"; : >\"$SCENE/l\"", Some(79))]
#[case::touched("touch \"$SCENE/l\"; exit 5", None)]
fn a_file_that_is_removed_is_a_lock_that_is_lost(#[case] then: &str, #[case] lost: Option<i32>) {
    let scene = lock_scene();
    let key = format!("file:{}", scene.path("l").display());
    let wait = format!("mkfifo \"$SCENE/go\"; read -r go <\"$SCENE/go\"; {then}");
    let mut running = scene.start(&["lock", &key, "--", "sh", "-c", &wait]);
    // Nobody looks at the file any more until the command has ended.
    running.wait_for("the command is written down, and waits", |running| {
        let owner = std::fs::read_to_string(running.path("l.owner")).unwrap_or_default();
        running.path("go").exists() && owner.contains("\"task\":\"sh\"")
    });
    std::fs::write(scene.path("go"), "on\n").unwrap();
    let run = running.finish();
    match lost {
        Some(code) => {
            let told = format!("{key} was lost, which is seen only now that sh has ended; somebody else may have run beside it: ");
            run.exits(code).says(&told).never_says("could not be given back")
        }
        None => run.exits(5).never_says("lost"),
    };
    assert_eq!(scene.path("l").exists(), !then.ends_with("exit 0") && !then.ends_with("exit 3"), "what another one has made stays");
}

#[test]
fn a_command_that_ignores_term_is_killed() {
    let scene = lock_scene();
    let script = "trap '' TERM; echo \"ready\" >>\"$SCENE/log\"; while :; do sleep 1000; done";
    let mut stubborn = scene.start(&["lock", "--kill-after", "0.2", "k", "--", "sh", "-c", script]);
    stubborn.wait_for_log("ready");
    stubborn.signal(Signal::TERM);
    stubborn.finish().dies_of(Signal::TERM);
    scene.run(&["lock", "k", "--", "true"]).exits(0);
}

#[test]
fn what_is_wrong_is_told_before_anything_runs() {
    let scene = lock_scene();
    let refused = |words: &[&str], code, says: &str| {
        let words = [&["lock"], words, &["--", "./inside.sh"]].concat();
        scene.run(&words).exits(code).says(says);
    };
    refused(&["a/b"], 64, "expected a name without `/`");
    refused(&[".."], 64, "expected a name without `/`");
    refused(&["redis://h/k"], 64, "expected file:PATH");
    refused(&["--wait", "soon", "k"], 64, "--wait soon: expected a duration");
    refused(&["--ttl", "5", "etcd://h/k"], 64, "--ttl 5: expected at least 36 s");
    if cfg!(feature = "postgres") {
        refused(&["postgresql://me:hunter2@h/d?key=k"], 64, "everybody sees in the list of processes");
        scene.run(&["lock", "postgresql://me:hunter2@h/d?key=k", "--", "true"]).exits(64).never_says("hunter2");
    }
    scene.run(&["lock", "k"]).exits(64);
    assert!(entered(&scene).is_empty());
}

/// The same directory that the database and the marks are in.
#[test]
fn a_bare_name_is_in_the_state_directory_and_a_relative_one_counts_for_nothing() {
    let scene = Scene::new().dir("home");
    let (home, dirs) = (scene.path("home"), scene.path("first:second"));
    let mut scene = scene.env("STATE_DIRECTORY", "relative").env("HOME", home);
    if !rustix::process::geteuid().is_root() {
        scene.run(&["lock", "k", "--", "true"]).exits(0);
        assert!(scene.path("home/.local/state/runner/locks/k.token").exists());
        scene = scene.env("HOME", "");
        scene.run(&["lock", "k", "--", "true"]).exits(78).says("there is no directory for the lock k");
    }
    let scene = scene.env("STATE_DIRECTORY", dirs);
    scene.run(&["lock", "k", "--", "true"]).exits(0);
    assert!(scene.path("first/locks/k.token").exists() && !scene.path("relative").exists());
}

#[test]
fn an_engine_that_is_not_there_is_74() {
    if !cfg!(feature = "net") {
        return;
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let scene = lock_scene();
    let key = format!("etcd://127.0.0.1:{port}/k");
    scene.run(&["lock", &key, "--", "./inside.sh"]).exits(74).says(&format!("{key} cannot be reached"));
    scene.run(&["lock", "--wait", "0.3", &key, "--", "./inside.sh"]).exits(74).slower_than(300);
    // A state directory that cannot be written.
    let scene = scene.file("state", "no directory");
    scene.run(&["lock", "k", "--", "./inside.sh"]).exits(74).says("state/locks");
    assert!(entered(&scene).is_empty());
}
