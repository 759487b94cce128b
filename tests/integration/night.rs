//! What somebody sees who looks at three in the morning: after a crash, beside a chain that hangs, with nobody there to fire.

use jiff::{SignedDuration, Timestamp};
use runner::store::record::RunRecord;
use runner::store::{Owner, Store};
use rustix::process::Signal;
use serde_json::Value;

use crate::scene::{Running, STATE_DIR, Scene};
use crate::status::{run, store};

fn hanging(keys: &str) -> Scene {
    let config = format!("[chain:hang]\ntask_dir = a\nschedule = every 1s\n{keys}\n");
    Scene::new().raw_config(config).task_at("a/1-a.sh", "play touch begun wait-file go")
}

fn chain(scene: &Scene, name: &str) -> Value {
    let status = scene.run(&["status", "--json"]).exits(0).json();
    status["chains"].as_array().unwrap().iter().find(|chain| chain["name"] == name).unwrap().clone()
}

/// The line of the table that begins with this word.
fn line(scene: &Scene, chain: &str) -> String {
    let text = scene.run(&["status"]).exits(0).stdout_text();
    let line = text.lines().find(|line| line.starts_with(&format!("{chain} "))).unwrap_or_else(|| panic!("no {chain} in {text}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn kill(mut running: Running) {
    running.signal(Signal::KILL);
    running.finish().dies_of(Signal::KILL);
}

#[test]
fn slots_that_were_given_up_do_not_hide_the_run_that_was_killed() {
    let scene = hanging("");
    let mut daemon = scene.start(&["-v", "daemon"]);
    daemon.wait_for_file("begun").wait_for_message("is given up", "still runs");
    let status = scene.run(&["status"]).exits(0).prints("slot").prints("given up since").never_prints("did not run").stdout_text();
    assert!(status.contains("to end its run: runner -c ") && status.contains(" stop hang\n"), "{status}");
    assert!(!status.contains("no daemon"), "{status}");
    assert!(line(&scene, "hang").starts_with("hang runs "), "{status}");
    assert!(chain(&scene, "hang")["given_up"]["count"].as_u64().unwrap() >= 1);
    kill(daemon);
    let after = line(&scene, "hang");
    assert!(after.contains(" failed ") && after.contains("crashed") && !after.contains("did not run"), "{after}");
    scene.run(&["status"]).exits(0).prints("no daemon runs on this machine: nothing will fire").prints("no schedule was looked at since 2");
    scene.run(&["why", "hang"]).exits(0).prints("no daemon runs on this machine");
    scene.run(&["history"]).exits(0).prints("crashed");
}

/// However many slots were given up since.
#[test]
fn a_hundred_slots_do_not_hide_it_either() {
    let scene = hanging("").task_at("a/1-a.sh", "exit 0");
    let skipped = |ago: i64| RunRecord { message: Some("the chain still runs".into()), ..run(&format!("s{ago}"), "hang", "skipped", ago) };
    let runs: Vec<RunRecord> = (1..=100).map(skipped).chain([run("real", "hang", "signalled", 7200)]).collect();
    store(&scene).put_runs(&runs).unwrap();
    let hang = chain(&scene, "hang");
    assert_eq!((&hang["given_up"]["count"], &hang["given_up"]["reason"]), (&100.into(), &"skipped".into()), "{hang:#}");
    assert!(hang["runs"].as_array().unwrap().iter().any(|run| run["id"] == "real"));
    let line = line(&scene, "hang");
    assert!(line.starts_with("hang stopped 2 h ago - (in ") && line.ends_with("stopped; 100 slots given up since"), "{line}");
    let why = scene.run(&["why", "hang"]).exits(0).prints("100 slots since its last run began were not run").stdout_text();
    assert!(why.matches("still runs").count() == 1 && why.contains("its last run: stopped (run real)"), "{why}");
    // One that was refused is another matter: nothing runs, and somebody has to look.
    let refused = RunRecord { message: Some("its lock is held".into()), ..run("r", "hang", "refused", 0) };
    store(&scene).put_runs(&[refused]).unwrap();
    let text = scene.run(&["status"]).exits(0).stdout_text();
    assert!(text.contains("did not run") && text.contains("101 runs refused since: its lock is held; before: stopped"), "{text}");
}

#[cfg(feature = "http")]
#[test]
fn metrics_of_the_last_run_are_those_of_one_that_began() {
    let scene = hanging("");
    let config = format!("[chain:hang]\ntask_dir = a\nschedule = every 1s\n[daemon]\nlisten = {}\n", scene.path("http").display());
    let scene = scene.raw_config(config);
    let mut daemon = scene.start(&["-v", "daemon"]);
    daemon.wait_for_file("begun").wait_for_message("is given up", "still runs");
    let (_, metrics) = crate::daemon_http::ask(&daemon, "GET", "/metrics");
    assert!(metrics.contains("runner_runs_total{chain=\"hang\",outcome=\"not_started\"}"), "{metrics}");
    assert!(!metrics.contains("runner_last_run_outcome") && !metrics.contains("job_duration_seconds"), "{metrics}");
    assert!(metrics.contains("runner_run_duration_seconds_count{chain=\"hang\"} 0\n"), "{metrics}");
    assert!(metrics.contains("runner_run_duration_seconds_sum{chain=\"hang\"} 0\n"), "{metrics}");
    let (_, page) = crate::daemon_http::ask(&daemon, "GET", "/");
    assert!(page.contains("given up since") && page.contains("No chain failed"), "{page}");
    daemon.signal(Signal::TERM);
    daemon.finish().exits(0);
}

#[test]
fn nobody_works_a_queue() {
    let scene = Scene::new().tasks_at("q", ["send.sh"]).raw_config("[queue:mail]\ntask_dir = q\n");
    scene.run(&["enqueue", "-Q", "mail", "send"]).exits(0);
    let text = "no worker for the queue mail runs on this machine: its 1 job that is ready";
    scene.run(&["status"]).exits(0).prints(text);
    let status = scene.run(&["status", "--json"]).exits(0).json();
    assert_eq!((&status["remarks"][0]["kind"], &status["remarks"][0]["queue"]), (&"nobody_works".into(), &"mail".into()));
    let scene = scene.task_at("q/send.sh", "play touch begun wait-file go");
    let mut worker = scene.start(&["work"]);
    worker.wait_for_file("begun");
    scene.run(&["enqueue", "-Q", "mail", "send"]).exits(0);
    scene.run(&["status"]).exits(0).prints("mail").never_prints("no worker");
    std::fs::write(worker.path("go"), "").unwrap();
    worker.signal(Signal::TERM);
    worker.finish().exits(0);
    assert_eq!(std::fs::read_dir(scene.path(STATE_DIR).join("present")).unwrap().count(), 0, "it takes its file with it");
}

/// Where ticks fire slots no daemon is missed, as long as they come.
#[test]
fn ticks_are_enough() {
    let looked = |seconds_ago: i64| {
        let scene = Scene::new().tasks_at("a", ["1-a.sh"]).raw_config("[chain:a]\ntask_dir = a\nschedule = every 1h\n");
        let (here, now) = (Owner::look(), Timestamp::now());
        let marks = [("a".to_owned(), now - SignedDuration::from_secs(seconds_ago))];
        store(&scene).set_watermarks(&here.machine, &marks, &here, now).unwrap();
        store(&scene).put_runs(&[RunRecord { trigger: "tick".into(), ..run("r", "a", "done", seconds_ago) }]).unwrap();
        scene.run(&["status"]).exits(0)
    };
    looked(0).never_prints("no daemon");
    looked(7200).prints("no daemon runs on this machine, and no tick comes");
}

#[test]
fn a_lock_that_a_command_holds_is_told_as_such() {
    let scene = Scene::new().tasks_at("a", ["1-a.sh"]).raw_config("[chain:a]\ntask_dir = a\nlock = file:k.lock\n");
    let key = format!("file:{}", scene.path("k.lock").display());
    let probe = crate::scene::probe_binary().display().to_string();
    let mut holder = scene.start(&["lock", &key, "--", &probe, "touch", "held", "wait-file", "go"]);
    holder.wait_for_file("held");
    let why = scene.run(&["why", "a"]).exits(0).stdout_text();
    assert!(why.contains("is held by `") && why.contains(" wait-file go` on "), "{why}");
    assert!(why.contains(&format!("to end it: kill {}", holder.pid())) && !why.contains("runner show"), "{why}");
    std::fs::write(holder.path("go"), "").unwrap();
    holder.finish().exits(0);
}

#[test]
fn without_a_chain_it_is_told_what_is_not_well() {
    let scene = Scene::new()
        .tasks_at("a", ["1-a.sh"])
        .raw_config("[chain:a]\ntask_dir = a\n[chain:b]\ntask_dir = a\n[chain:c]\ntask_dir = a\nenabled = no\n");
    scene.run(&["why"]).exits(0).prints("3 chains: nothing is known to be wrong\n");
    store(&scene).put_runs(&[run("x-good", "a", "done", 60), run("x-bad", "b", "gave_up", 60)]).unwrap();
    let text = scene.run(&["why"]).exits(0).stdout_text();
    assert!(text.starts_with("b: ") && text.contains("its last run: gave up (run x-bad)"), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains(&format!("what to do about it: runner -c {} why CHAIN", scene.config_file().display())), "{text}");
    let all = scene.run(&["why", "--json"]).exits(0).json();
    assert_eq!((all["chains"].as_array().unwrap().len(), &all["chains"][1]["facts"][1]["fact"]), (3, &"last_run".into()), "{all:#}");
}

#[test]
fn a_run_is_found_by_its_end_its_chain_or_without_a_word() {
    let scene = Scene::new().tasks_at("a", ["1-a.sh"]).raw_config("[chain:a]\ntask_dir = a\n[chain:b]\ntask_dir = a\n");
    let boot = "4062abca-0-";
    let runs = [("0ae64b46f0d06c0d", "a", "done", 90), ("1be64b46f0d06c0e", "b", "gave_up", 60), ("2ce64b46f0d06c0f", "b", "skipped", 5)];
    let runs = runs.map(|(id, chain, outcome, ago)| run(&format!("{boot}{id}"), chain, outcome, ago));
    store(&scene).put_runs(&runs).unwrap();
    let shown = |args: &[&str]| {
        let all: Vec<&str> = ["show", "--json"].iter().chain(args).copied().collect();
        scene.run(&all).exits(0).json()["run"]["run_id"].as_str().unwrap().trim_start_matches(boot).to_owned()
    };
    assert_eq!(shown(&["d06c0d"]), "0ae64b46f0d06c0d");
    assert_eq!(shown(&["a"]), "0ae64b46f0d06c0d");
    // The last that began.
    assert_eq!((shown(&["b"]), shown(&[])), ("1be64b46f0d06c0e".to_owned(), "1be64b46f0d06c0e".to_owned()));
    scene.run(&["show", "06c0d"]).exits(64);
    scene.run(&["show", boot]).exits(64).says("or of its end");
    scene.run(&["show", "main"]).exits(64).says("no run of the chain main is known");
}
