//! `runner stop`: one run ends and nothing else does.

use rustix::process::Signal;
use serde_json::Value;

use crate::scene::{Running, Scene};

const HANGS: &str = "play touch begun-$RUNNER_CHAIN wait-file go";

fn two_chains() -> Scene {
    let chains = "[chain:a]\ntask_dir = a\nschedule = @boot\n[chain:b]\ntask_dir = b\nschedule = @boot\n";
    Scene::new().raw_config(chains).task_at("a/1-a.sh", HANGS).task_at("b/1-b.sh", HANGS)
}

fn daemon(scene: &Scene) -> Running {
    let mut daemon = scene.start(&["-v", "daemon"]);
    daemon.wait_for_file("begun-a").wait_for_file("begun-b");
    daemon
}

fn running(scene: &Scene) -> Vec<String> {
    let status = scene.run(&["status", "--json"]).exits(0).json();
    let running = |chain: &&Value| !chain["running"].as_array().unwrap().is_empty();
    status["chains"].as_array().unwrap().iter().filter(running).map(|chain| chain["name"].as_str().unwrap().to_owned()).collect()
}

fn finish(mut daemon: Running) {
    daemon.signal(Signal::TERM);
    daemon.finish().exits(0).nothing_alive();
}

#[test]
fn a_run_of_the_daemon_ends_and_the_daemon_goes_on() {
    let scene = two_chains();
    let daemon = daemon(&scene);
    let named = scene.run(&["stop"]).exits(64).says("these run: ").stderr_text();
    assert!(named.contains("a (run ") && named.contains("b (run "), "{named}");
    scene.run(&["stop", "c"]).exits(64).says("no chain or run is called `c`");
    let why = scene.run(&["why", "a"]).exits(0).prints("it is at 1-a.sh (process ").stdout_text();
    assert!(why.contains(&format!("to end it: runner -c {} stop a", scene.config_file().display())), "{why}");
    let stopped = scene.run(&["stop", "a", "--json"]).exits(0).json();
    assert_eq!((&stopped["version"], &stopped["runs"][0]["outcome"]), (&1.into(), &"signalled".into()), "{stopped}");
    let id = stopped["runs"][0]["run_id"].as_str().unwrap();
    assert_eq!(running(&scene), ["b"]);
    crate::scene::until("it is written down", || scene.run(&["show", id, "--json"]).json()["run"]["outcome"] == "signalled");
    scene.run(&["stop", "a"]).exits(0).prints("nothing of the chain a runs\n");
    assert!(scene.run(&["stop", "a", "--json"]).exits(0).json()["runs"][0]["run_id"].is_null());
    scene.run(&["stop", id]).exits(0).prints("is over already: stopped");
    scene.run(&["show", id]).exits(0).prints("told to stop by SIGTERM (runner stop)");
    finish(daemon);
}

#[test]
fn a_run_is_named_by_its_id_too() {
    let scene = two_chains();
    let daemon = daemon(&scene);
    let status = scene.run(&["status", "b", "--json"]).exits(0).json();
    let id = status["chains"][0]["running"][0]["id"].as_str().unwrap();
    scene.run(&["stop", &id[id.len() - 8..]]).exits(0).prints("chain b: the run ").prints("is over: stopped");
    assert_eq!(running(&scene), ["a"]);
    finish(daemon);
}

#[test]
fn a_second_stop_kills_at_once() {
    let scene = Scene::new()
        .raw_config("[runner]\nkill_after = 1h\n[chain:a]\ntask_dir = a\nschedule = @boot\n")
        .task_at("a/1-a.sh", "play ignore TERM touch begun-a wait-file go");
    let mut daemon = scene.start(&["-v", "daemon"]);
    daemon.wait_for_file("begun-a");
    scene.run(&["stop", "--no-wait", "a"]).exits(0).prints("was told to stop");
    assert_eq!(running(&scene), ["a"]);
    scene.run(&["stop", "a"]).exits(0).prints("is over: stopped");
    finish(daemon);
}

#[test]
fn the_main_chain_ends_as_if_it_had_been_sent_term() {
    let scene = Scene::new().config("[runner]\ntimes = 5\nrun_interval = 1h\n").task("1-a.sh", "play touch begun wait-file go");
    let mut main = scene.start(&["-v"]);
    main.wait_for_file("begun");
    scene.run(&["stop", "main"]).exits(0).prints("is over: stopped");
    main.finish().dies_of(Signal::TERM).nothing_alive();
}

#[test]
fn of_several_chains_of_now_only_one_ends() {
    let scene = two_chains();
    let mut now = scene.start(&["now", "a", "b"]);
    now.wait_for_file("begun-a").wait_for_file("begun-b");
    scene.run(&["stop", "a"]).exits(0).prints("is over: stopped");
    assert_eq!(running(&scene), ["b"]);
    std::fs::write(now.path("go"), "").unwrap();
    now.finish().dies_of(Signal::TERM);
}

#[test]
fn a_program_that_is_frozen_is_told_as_such() {
    let scene = two_chains();
    let mut now = scene.start(&["now", "a"]);
    now.wait_for_file("begun-a").signal(Signal::STOP);
    scene.run(&["stop", "a"]).exits(74).says("does not answer: its process is frozen");
    now.signal(Signal::CONT);
    scene.run(&["stop", "a"]).exits(0).prints("is over: stopped");
    now.finish().dies_of(Signal::TERM);
}
