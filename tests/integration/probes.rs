//! The probe itself: a scene is worth no more than the child that plays in it.

use std::process::Command;

use crate::alive;
use crate::scene::{Scene, probe_binary, skipped, spawn, succeeds, until};

fn probe(scene: &Scene, args: &[&str]) -> Option<i32> {
    let mut command = Command::new(probe_binary());
    spawn(command.env("SCENE", scene.root()).args(args)).unwrap().0.wait().unwrap().code()
}

#[test]
fn it_does_its_actions_in_order() {
    let scene = Scene::new();
    assert_eq!(probe(&scene, &["log", "one", "log", "two", "exit", "7", "log", "never"]), Some(7));
    assert_eq!(std::fs::read_to_string(scene.path("log")).unwrap(), "- one\n- two\n");
}

#[test]
fn an_unknown_action_is_loud() {
    assert_eq!(probe(&Scene::new(), &["misbehave"]), Some(99));
}

#[test]
fn who_is_alive_is_found_in_every_disguise() {
    let scene = Scene::new();
    for kin in ["child", "group-child", "setsid-child", "setsid-child-clean", "daemon", "daemon-clean"] {
        assert_eq!(probe(&scene, &[kin, "{", "pid-file", kin, "pause", "}"]), Some(0));
        let file = scene.path(kin);
        until("the child has told its pid", || file.exists());
        let pid: u32 = std::fs::read_to_string(file).unwrap().parse().unwrap();
        let found = alive::of_scene(scene.root());
        assert!(found.iter().any(|p| p.pid == pid), "{kin}: {found:?}");
    }
    alive::end_all(scene.root());
    assert!(alive::of_scene(scene.root()).is_empty());
}

#[test]
fn a_cleared_environment_is_empty() {
    let scene = Scene::new();
    probe(&scene, &["daemon-clean", "{", "report", "r.json", "exit", "0", "}"]);
    let file = scene.path("r.json");
    until("the report is there", || file.exists());
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(report["env"], serde_json::json!({}));
    assert_ne!(report["sid"], report["pid"]);
}

#[test]
fn a_session_of_another_pid_namespace_is_reported() {
    // As in a container that was entered from outside: the session began where its number means nothing, and is 0.
    let scene = Scene::new();
    let namespace = || {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        command
    };
    if !succeeds(namespace().arg("true")) {
        skipped("no process namespace can be made here");
        return;
    }
    assert!(succeeds(namespace().arg(probe_binary()).args(["report", "r.json"]).env("SCENE", scene.root())));
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(scene.path("r.json")).unwrap()).unwrap();
    assert_eq!(report["sid"], 0);
}
