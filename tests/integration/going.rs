//! Runs that go on as `runner status` and `runner why` see them: the main chain and those of `now`, which stand in no
//! database yet, with their progress and the tries they wait for.

use jiff::{SignedDuration, Timestamp};
use rstest::rstest;
use runner::store::{Owner, Store};
use rustix::process::Signal;
use serde_json::Value;

use crate::scene::{Running, Scene, until};

/// A main chain of two tasks, of which the second says how far it is and waits.
fn main_chain() -> Scene {
    Scene::new()
        .config("[runner]\nmax_tries = 4\n")
        .task("1-a.sh", "exit 0")
        .task("2-b.sh", "play notify 'STATUS=half \u{1b}[31mway' notify X_RUNNER_PROGRESS=50 notify-barrier touch begun wait-file go")
}

fn status(scene: &Scene) -> Value {
    scene.run(&["status", "--json"]).exits(0).json()["chains"][0].clone()
}

fn facts(scene: &Scene, chain: &str) -> Vec<String> {
    let document = scene.run(&["why", chain, "--json"]).exits(0).json();
    let text = |fact: &Value| format!("{}: {}", fact["fact"].as_str().unwrap(), fact["text"].as_str().unwrap());
    document["facts"].as_array().unwrap().iter().map(text).collect()
}

fn end(mut running: Running) {
    running.signal(Signal::TERM);
    running.finish().dies_of(Signal::TERM).nothing_alive();
}

#[test]
fn the_main_chain_is_seen_while_it_runs() {
    let scene = main_chain();
    let mut running = scene.start(&[]);
    running.wait_for_file("begun");
    let chain = status(&scene);
    let run = &chain["running"][0];
    assert_eq!((&chain["name"], &run["trigger"], run["tasks"].as_array().unwrap().len()), (&"main".into(), &"boot".into(), 2), "{chain:#}");
    assert_eq!((&run["tasks"][0]["state"], &run["tasks"][1]["state"]), (&"done".into(), &"running".into()), "{chain:#}");
    assert_eq!((&run["tasks"][1]["progress"], &run["tasks"][1]["status"]), (&50.into(), &"half [31mway".into()), "{chain:#}");
    let text = scene.run(&["status"]).exits(0).stdout_text();
    assert!(text.contains("runs ") && text.contains("1 task done, 2-b.sh 50% half [31mway"), "{text}");
    let facts = facts(&scene, "main");
    assert!(
        facts[0].starts_with("running: it runs: run ") && facts[1].starts_with("task: it is at 2-b.sh 50% half [31mway (process "),
        "{facts:#?}"
    );
    // Whoever has its id from there can look at it, too.
    let id = run["id"].as_str().unwrap();
    let shown = scene.run(&["show", &id[..id.len() - 1]]).exits(0).prints("running").stdout_text();
    assert!(shown.contains("1-a.sh  done     1") && shown.contains("2-b.sh  running  1    50% half [31mway"), "{shown}");
    let shown = scene.run(&["show", id, "--json"]).exits(0).json();
    assert_eq!((&shown["run"]["outcome"], &shown["going"]["tasks"][1]["progress"]), (&Value::Null, &50.into()), "{shown:#}");
    assert_eq!(scene.run(&["history", "--json"]).exits(0).json()["runs"][0]["run_id"], id);
    std::fs::write(running.path("go"), "").unwrap();
    running.finish().exits(0);
    let shown = scene.run(&["show", id, "--json"]).exits(0).json();
    assert_eq!(
        (&shown["run"]["outcome"], &shown["going"], scene.run(&["history", "--json"]).json()["runs"][1].is_null()),
        (&"done".into(), &Value::Null, true)
    );
    let chain = status(&scene);
    assert_eq!((chain["running"].as_array().unwrap().len(), &chain["runs"][0]["outcome"]), (0, &"done".into()), "{chain:#}");
}

#[test]
fn a_chain_that_waits_for_its_next_try_says_until_when() {
    let scene = Scene::new().config("[runner]\nmax_tries = 4\nsleep_time = 1h\n").task("1-a.sh", "exit 0").task("2-b.sh", "exit 7");
    let mut running = scene.start(&["-v"]);
    running.wait_for_message("from the start again in", "try 2 of 4");
    let run = status(&scene)["running"][0].clone();
    assert_eq!((&run["try_num"], &run["max_tries"], &run["tasks"][1]["state"]), (&2.into(), &4.into(), &"failed".into()), "{run:#}");
    let id = run["id"].as_str().unwrap();
    let shown = scene.run(&["show", id]).exits(0).stdout_text();
    assert!(shown.contains("1-a.sh  done    1") && shown.contains("2-b.sh  failed  1    exit 7"), "{shown}");
    let until: jiff::Timestamp = run["until"].as_str().unwrap().parse().unwrap();
    let left = jiff::Timestamp::now().duration_until(until).as_secs();
    assert!((3500..=3600).contains(&left), "{left} s");
    let text = scene.run(&["status"]).exits(0).stdout_text();
    assert!(text.contains("try 2 of 4 begins in 59 min"), "{text}");
    let facts = facts(&scene, "main");
    assert!(facts[1].starts_with("waiting: it waits to begin again from its start, try 2 of 4, in 59 min"), "{facts:#?}");
    end(running);
}

#[test]
fn a_task_that_waits_for_its_next_try_says_until_when() {
    let scene = Scene::new()
        .config("[runner]\nmax_tries = 3\nsleep_time = 1h\nretry_from = failed\nmax_parallel = 2\n")
        .task("1-a.sh", "exit 7")
        .task("1-b.sh", "play touch begun wait-file go");
    let mut running = scene.start(&["-v"]);
    running.wait_for_file("begun").wait_for_message("1-a.sh: next try in", "");
    let text = scene.run(&["status"]).exits(0).stdout_text();
    assert!(text.contains("1-a.sh is tried again in 59 min") && text.contains("1-b.sh"), "{text}");
    let facts = facts(&scene, "main");
    assert!(facts.iter().any(|fact| fact.starts_with("waiting: 1-a.sh waits to be tried again, try 2 of 3, in 59 min")), "{facts:#?}");
    assert!(facts.iter().any(|fact| fact.starts_with("task: it is at 1-b.sh (process ")), "{facts:#?}");
    end(running);
}

#[test]
fn runs_of_now_and_of_a_daemon_show_their_tasks() {
    let task = "play notify X_RUNNER_PROGRESS=7 notify-barrier touch begun-$RUNNER_CHAIN wait-file go";
    let scene = Scene::new()
        .raw_config("[chain:a]\ntask_dir = a\n[chain:b]\ntask_dir = b\nschedule = every 1s\n")
        .task_at("a/1-a.sh", task)
        .task_at("b/1-b.sh", task);
    let mut now = scene.start(&["now", "a"]);
    let mut daemon = scene.start(&["daemon"]);
    now.wait_for_file("begun-a");
    daemon.wait_for_file("begun-b");
    let document = scene.run(&["status", "--json"]).exits(0).json();
    for (at, trigger) in [(0, "now"), (1, "schedule")] {
        let running = document["chains"][at]["running"].as_array().unwrap();
        assert_eq!(
            (running.len(), &running[0]["tasks"][0]["progress"], &running[0]["trigger"]),
            (1, &7.into(), &trigger.into()),
            "{document:#}"
        );
    }
    std::fs::write(now.path("go"), "").unwrap();
    now.finish().exits(0);
    daemon.signal(Signal::TERM);
    daemon.finish().exits(0);
}

/// Those that are over, while others of the same program go on.
#[test]
fn a_run_of_now_that_is_over_leaves_no_socket_that_says_nothing() {
    let scene = Scene::new().raw_config("[chain:a]\ntask_dir = a\n[chain:b]\ntask_dir = b\n");
    let scene = scene.task_at("a/1-a.sh", "echo $RUNNER_RUN_ID >\"$SCENE/id\"").task_at("b/1-b.sh", "play touch begun wait-file go");
    let mut now = scene.start(&["now", "a", "b"]);
    now.wait_for_file("begun").wait_for_file("id");
    let id = || std::fs::read_to_string(scene.path("id")).unwrap();
    until("its id is written", || !id().is_empty());
    let name = format!("@runner/{}\n", id().trim());
    until("its socket is gone", || !std::fs::read_to_string("/proc/net/unix").unwrap().contains(&name));
    std::fs::write(now.path("go"), "").unwrap();
    now.finish().exits(0);
}

#[test]
fn a_run_whose_task_speaks_without_pause_is_seen_and_can_be_stopped() {
    let scene = Scene::new().task("1-a.sh", "play touch begun notify-always STATUS=on");
    let mut running = scene.start(&[]);
    running.wait_for_file("begun");
    assert_eq!(status(&scene)["running"][0]["tasks"][0]["state"], "running");
    scene.run(&["stop", "main"]).exits(0).prints("is over: stopped");
    running.finish().dies_of(Signal::TERM).nothing_alive();
}

#[test]
fn a_frozen_run_keeps_nobody_waiting_and_one_of_another_state_is_none_of_ours() {
    let other = main_chain();
    let mut elsewhere = other.start(&[]);
    elsewhere.wait_for_file("begun");
    let scene = main_chain();
    let mut running = scene.start(&[]);
    running.wait_for_file("begun");
    assert_eq!(status(&scene)["running"].as_array().unwrap().len(), 1);
    running.signal(Signal::STOP);
    assert_eq!(status(&scene)["running"].as_array().unwrap().len(), 0);
    running.signal(Signal::CONT);
    end(running);
    end(elsewhere);
}

/// More tasks than one datagram has room for: those that are done are left out.
#[test]
fn a_run_of_a_thousand_tasks_tells_what_goes_on() {
    let names: Vec<String> = (0..1000).map(|number| format!("{number}-{}.sh", "x".repeat(200))).collect();
    let scene = Scene::new().config("[runner]\nmax_parallel = 8\n");
    let dir = scene.path("tasks.d");
    for name in &names {
        std::os::unix::fs::symlink("/bin/true", dir.join(name)).unwrap();
    }
    let scene = scene.task("9999-last.sh", "play touch begun wait-file go");
    let mut running = scene.start(&["-q"]);
    running.wait_for_file("begun");
    let run = status(&scene)["running"][0].clone();
    let tasks = run["tasks"].as_array().unwrap();
    assert_eq!((tasks.len(), &tasks[0]["file"]), (1, &"9999-last.sh".into()));
    std::fs::write(running.path("go"), "").unwrap();
    running.finish().exits(0);
}

/// A tick has looked at every chain; `why` does not say that nobody has.
#[test]
fn whoever_is_called_by_cron_looks_at_chains_that_are_not_due_as_well() {
    let scene = Scene::new().tasks_at("a", ["1-a.sh"]).raw_config("[chain:a]\ntask_dir = a\nschedule = 0 0 29 2 *\n");
    assert!(facts(&scene, "a")[0].starts_with("nobody_looks: "));
    scene.run(&["tick"]).exits(0).ran_nothing();
    let after = facts(&scene, "a");
    assert!(!after.iter().any(|fact| fact.starts_with("nobody_looks: ")), "{after:#?}");
}

fn a_moment_ago() -> Timestamp {
    Timestamp::now().checked_sub(SignedDuration::from_secs(90)).unwrap()
}

/// A chain whose hook at the end, and whose halt task, each wait for a file.
fn closing(chain: &str) -> Scene {
    let schedule = a_moment_ago().strftime("%M %H * * *");
    let hook = "chain_hook = bin/hook.sh\n";
    let text = match chain {
        "main" => format!("{hook}max_tries = 1\n"),
        _ => format!("[chain:a]\ntask_dir = a\nhalt_task = ../bin/halt.sh\nmax_tries = 1\nschedule = {schedule}\ntimezone = UTC\n{hook}"),
    };
    let scene = if chain == "main" { Scene::new().config(&format!("[runner]\n{text}")) } else { Scene::new().raw_config(text) };
    let halt = "play touch begun-halt wait-file go-halt";
    scene
        .task_at(if chain == "main" { "tasks.d/1-a.sh" } else { "a/1-a.sh" }, "exit 2")
        .task("halt.sh", halt)
        .script("bin/halt.sh", halt)
        .script("bin/hook.sh", "case $1 in *'\"end\"'*) play touch begun-hook wait-file go-hook ;; esac")
}

fn run_names(chain: &Value, list: &str) -> Vec<String> {
    chain[list].as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect()
}

/// Its record stands in the state by then, and it goes on all the same: it is told of once, and says what it does.
#[rstest]
#[case::the_main_chain("main", &[], "boot")]
#[case::now("a", &["now", "a"], "now")]
#[case::a_daemon("a", &["daemon"], "missed")]
#[case::a_tick("a", &["tick"], "missed")]
fn a_run_whose_hook_or_halt_task_runs_is_seen_once(#[case] name: &str, #[case] command: &[&str], #[case] trigger: &str) {
    let scene = closing(name);
    let (here, past) = (Owner::look(), a_moment_ago().checked_sub(SignedDuration::from_mins(2)).unwrap());
    crate::status::store(&scene).set_watermarks(&here.machine, &[("a".to_owned(), past)], &here, past).unwrap();
    let mut running = scene.start(command);
    for (part, words) in [("hook", "chain_hook"), ("halt", "halt task")] {
        running.wait_for_file(&format!("begun-{part}"));
        let chain = status(&scene);
        assert_eq!((run_names(&chain, "running").len(), run_names(&chain, "runs").len()), (1, 0), "{chain:#}");
        let run = &chain["running"][0];
        let what = words.replace(' ', "_");
        assert_eq!(
            (&run["outcome"], &run["closing"]["what"], &run["trigger"]),
            (&"halted".into(), &what.into(), &trigger.into()),
            "{run:#}"
        );
        let text = scene.run(&["status"]).exits(0).stdout_text();
        assert!(text.contains(&format!("halted; its {words} (process ")), "{text}");
        let id = run["id"].as_str().unwrap();
        let facts = facts(&scene, name);
        let named: Vec<&String> = facts.iter().filter(|fact| fact.contains(id)).collect();
        assert!(named.len() == 1 && named[0].starts_with(&format!("running: it runs: run {id}")), "{facts:#?}");
        assert!(named[0].contains(&format!("; it is over but for its {words} (process ")), "{facts:#?}");
        scene.run(&["show", id]).exits(0).prints(&format!("runs still    its {words} (process "));
        if part == "hook" {
            let stopped = scene.run(&["stop", "--no-wait", name, "-v"]).exits(0).says(&format!("is over but for its {words} (process "));
            stopped.prints("was told to stop");
        }
        std::fs::write(running.path(format!("go-{part}")), "").unwrap();
    }
    if command == ["daemon"] {
        until("it is over", || run_names(&status(&scene), "running").is_empty());
        running.signal(Signal::TERM);
        running.finish().exits(0);
    } else {
        drop(running.finish());
    }
    let chain = status(&scene);
    assert_eq!((run_names(&chain, "running").len(), &chain["runs"][0]["outcome"]), (0, &"halted".into()), "{chain:#}");
}

#[test]
fn a_run_that_works_is_told_before_one_that_is_over_but_for_its_hook() {
    let hook = "case \"$1\" in *'\"end\"'*) probe touch hooked wait-file go ;; esac";
    let scene = Scene::new().config("[runner]\nchain_hook = ./hook\n").script("hook", hook);
    let scene = scene.task("1-a.sh", "[ ! -e \"$SCENE/hooked\" ] || play touch begun wait-file go");
    let mut first = scene.start(&[]);
    first.wait_for_file("hooked");
    let mut second = scene.start(&[]);
    second.wait_for_file("begun");
    let running = &status(&scene)["running"];
    assert_eq!((running.as_array().unwrap().len(), &running[0]["closing"]), (2, &Value::Null), "{running:#}");
    scene.run(&["status"]).exits(0).prints("1-a.sh");
    let facts = facts(&scene, "main");
    assert!(facts[0].contains(running[0]["id"].as_str().unwrap()) && facts[1].starts_with("task: it is at 1-a.sh"), "{facts:#?}");
    std::fs::write(scene.path("go"), "").unwrap();
    first.finish().exits(0);
    second.finish().exits(0);
}

#[test]
fn the_halt_task_after_the_last_run_is_seen_as_well() {
    let scene = Scene::new().task("1-a.sh", "exit 0").task("halt.sh", "play touch begun wait-file go");
    let mut running = scene.start(&["-H", "-n", "1"]);
    running.wait_for_file("begun");
    let chain = status(&scene);
    assert_eq!(
        (&chain["running"][0]["outcome"], &chain["running"][0]["closing"]["what"]),
        (&"done".into(), &"halt_task".into()),
        "{chain:#}"
    );
    std::fs::write(running.path("go"), "").unwrap();
    running.finish().exits(0);
}
