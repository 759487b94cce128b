//! The lock of a chain with a name: daemons and `now`s of several machines over one lock, and never two of their tasks
//! inside at once. A machine is a state directory of its own; the log of who enters and leaves is shared.

use rustix::process::Signal;
use serde_json::Value;

use crate::alive::is_alive;
use crate::consul_double::Consul;
use crate::lock_command::{entered, lock_scene, send};
use crate::lock_servers::{Server, etcd, postgres, start_etcd};
use crate::running::{Running, until};
use crate::scene::{Scene, skipped};

/// The shortest lease there is.
const SHORT: &str = "lock_ttl = 6\nlock_delay = 0\n";

/// What all machines share: the tasks of the chain `a`, which are inside and do this meanwhile, and the log.
fn shared(inside: &str) -> Scene {
    lock_scene().task_at("a/1-in.sh", &format!("exec \"$SCENE/inside.sh\" {inside}"))
}

/// One machine, with the chain `a` under this lock.
fn machine(home: &Scene, lock: &str, more: &str) -> Scene {
    let tasks = home.path("a");
    let chain = format!("[chain:a]\ntask_dir = {}\nlock = {lock}\nkill_after = 0\nmax_tries = 1\n{more}\n", tasks.display());
    Scene::new().env("SCENE", home.root()).raw_config(chain)
}

fn postgres_lock(server: &Server, key: &str) -> String {
    format!("postgresql://postgres@127.0.0.1:{}/postgres?key={key}", server.port)
}

fn etcd_lock(server: &Server, key: &str) -> String {
    format!("etcd://127.0.0.1:{}/{key}", server.port)
}

fn file_lock(home: &Scene) -> String {
    format!("file:{}", home.path("k.lock").display())
}

/// Waits until so many have entered; the newest: its runner and the process of its task.
#[track_caller]
fn inside(home: &Scene, number: usize) -> (i32, u32) {
    until("the next is inside", || entered(home).len() >= number);
    let (_, holder, task) = entered(home)[number - 1];
    (holder, task)
}

fn tokens(home: &Scene) -> Vec<u64> {
    entered(home).iter().map(|entry| entry.0).collect()
}

#[track_caller]
fn stop(mut running: Running) {
    running.signal(Signal::TERM);
    until("it is gone", || !is_alive(running.pid()));
    running.finish().exits(0);
}

/// The runs of the chain, the newest first.
fn history(machine: &Scene) -> Vec<Value> {
    machine.run(&["history", "a", "--json"]).exits(0).json()["runs"].as_array().unwrap().clone()
}

// ---- refused and waiting ---------------------------------------------------------------------------

#[test]
fn a_person_may_do_without_the_lock() {
    let scene = Scene::new().task_at("a/1-a.sh", "say none:$RUNNER_LOCK_TOKEN");
    let lock = file_lock(&scene);
    let scene = scene.raw_config(format!("[chain:a]\ntask_dir = a\nlock = {lock}\n"));
    let held = scene.path("held");
    let mut holder = scene.start(&["lock", &lock, "--", "sh", "-c", "touch \"$0\"; exec sleep 1000", held.to_str().unwrap()]);
    holder.wait_for_file("held");
    scene.run(&["now", "a"]).exits(75).ran_nothing();
    scene.run(&["now", "a", "--no-lock"]).exits(0).logged(["1-a.sh 1", "- none:"]);
}

#[test]
fn who_is_refused_is_told_by_whom_and_the_history_has_it() {
    let home = shared("sleep 1000").script("hook.sh", "printf '%s\\n' \"$1\" >>\"$SCENE/told\"");
    let hook = format!("chain_hook = {}", home.path("hook.sh").display());
    let (one, other) = (machine(&home, &file_lock(&home), ""), machine(&home, &file_lock(&home), &hook));
    let mut first = one.start(&["now", "a"]);
    inside(&home, 1);
    let second = other.run(&["now", "a", "--json"]).exits(75);
    let second = second.says(&format!("k.lock is held by pid {} on ", first.pid())).says(" since 20");
    assert_eq!((&second.json()["runs"][0]["outcome"], &second.json()["runs"][0]["exit_code"]), (&"refused".into(), &75.into()));
    let told = std::fs::read_to_string(home.path("told")).unwrap();
    let told: Value = serde_json::from_str(told.trim_end()).expect("one message");
    assert_eq!((&told["event"], &told["reason"], &told["chain"]), (&"refused".into(), &"lock".into(), &"a".into()));
    let runs = history(&other);
    assert_eq!((runs.len(), &runs[0]["outcome"]), (1, &"refused".into()));
    assert!(runs[0]["message"].as_str().unwrap().contains("is held by pid"), "{runs:?}");
    // A tick uses the slot up, and somebody else does its work: nothing is wrong.
    let ticking = machine(&home, &file_lock(&home), "schedule = * * * * *\nmissed = skip");
    ticking.run(&["tick"]).exits(0).says("is held by pid");
    assert_eq!(history(&ticking)[0]["outcome"], "refused");
    first.signal(Signal::TERM);
    first.finish().dies_of(Signal::TERM);
    assert_eq!(entered(&home).len(), 1);
}

#[test]
fn an_engine_that_is_not_there_is_74() {
    if !cfg!(feature = "net") {
        return;
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let home = shared("");
    let lock = format!("etcd://127.0.0.1:{port}/k");
    let machine = machine(&home, &lock, "schedule = * * * * *\nmissed = skip");
    machine.run(&["now", "a"]).exits(74).says("cannot be reached");
    machine.run(&["tick"]).exits(74).says("cannot be reached");
    assert!(entered(&home).is_empty());
}

#[test]
fn who_waits_keeps_no_other_chain_waiting_and_hears_signals() {
    let home = shared("sleep 1000").task_at("b/1-b.sh", "say b");
    let lock = file_lock(&home);
    let chain_b =
        format!("wait_lock = infinity\nschedule = every 1s\n[chain:b]\ntask_dir = {}\nschedule = every 1s", home.path("b").display());
    let (one, other) = (machine(&home, &lock, ""), machine(&home, &lock, &chain_b));
    let mut first = one.start(&["now", "a"]);
    inside(&home, 1);
    let mut daemon = other.start(&["daemon"]);
    daemon.wait_for_message("is held by pid", "chain a: file:");
    let ran = |home: &Scene| std::fs::read_to_string(home.path("log")).unwrap().matches("- b").count();
    let before = ran(&home);
    until("the other chain runs", || ran(&home) >= before + 2);
    first.signal(Signal::TERM);
    first.finish().dies_of(Signal::TERM);
    let (holder, _) = inside(&home, 2);
    assert_eq!(u32::try_from(holder).unwrap(), daemon.pid());
    // Another daemon waits, and is told to stop: its slot is left to whoever comes next, and nothing has crashed.
    let third = machine(&home, &lock, "wait_lock = infinity\nschedule = every 1s");
    let mut waiting = third.start(&["daemon"]);
    waiting.wait_for_message("is held by pid", "chain a: file:");
    stop(waiting);
    let mut waiting = third.start(&["now", "a"]);
    waiting.wait_for_message("is held by pid", "chain a: file:");
    waiting.signal(Signal::INT);
    waiting.finish().dies_of(Signal::INT);
    assert!(history(&third).iter().all(|run| run["outcome"] != "crashed" && run["outcome"] != "done"));
    stop(daemon);
    assert_eq!(entered(&home).len(), 2);
}

#[test]
fn an_idle_chain_does_not_wait_for_one_that_waits_for_its_lock() {
    let home = shared("sleep 1000").task_at("i/1-i.sh", "say idle");
    let lock = file_lock(&home);
    let idle = format!("[chain:i]\ntask_dir = {}\nschedule = * * * * *\nidle = yes\nwindow = 3600", home.path("i").display());
    let (one, other) = (machine(&home, &lock, ""), machine(&home, &lock, &format!("wait_lock = infinity\nschedule = * * * * *\n{idle}")));
    let mut first = one.start(&["now", "a"]);
    inside(&home, 1);
    let mut tick = other.start(&["tick"]);
    tick.wait_for_message("is held by pid", "chain a: file:");
    until("the idle chain has run", || std::fs::read_to_string(home.path("log")).unwrap().contains("- idle"));
    first.signal(Signal::TERM);
    first.finish().dies_of(Signal::TERM);
    inside(&home, 2);
    tick.signal(Signal::TERM);
    tick.finish().dies_of(Signal::TERM);
}

/// A slot that waits for its lock is one that still runs, to the slots behind it; a reload may take its chain away.
#[test]
fn what_waits_for_its_lock_is_replaced_queued_behind_or_given_up() {
    let home = shared("sleep 1000");
    let lock = file_lock(&home);
    let mut first = machine(&home, &lock, "").start(&["now", "a"]);
    inside(&home, 1);
    for (overlap, told) in [("skip", "the run before it has not begun yet"), ("replace", "a newer slot takes its place")] {
        let other = machine(&home, &lock, &format!("schedule = every 1s\nwait_lock = infinity\noverlap = {overlap}"));
        let mut daemon = other.start(&["daemon"]);
        daemon.wait_for_message(told, "chain a: the slot");
        let text = std::fs::read_to_string(other.config_file()).unwrap();
        std::fs::write(other.config_file(), text.replace("overlap", "enabled = no\noverlap")).unwrap();
        daemon.signal(Signal::HUP).wait_for_message("not in the configuration any more, or not enabled", "chain a: the slot");
        stop(daemon);
        let runs = history(&other);
        assert!(!runs.is_empty() && runs.iter().all(|run| run["outcome"] == "skipped"), "{overlap}: {runs:?}");
    }
    first.signal(Signal::TERM);
    first.finish().dies_of(Signal::TERM);
    assert_eq!(entered(&home).len(), 1);
}

// ---- racing ------------------------------------------------------------------------------------------

/// Two daemons of two machines and `now`s of a third race over one lock.
fn race(lock: impl Fn(&Scene) -> String) {
    let home = shared("sleep 0.05");
    let (lock, ttl) = (lock(&home), if lock(&home).starts_with("consul") { "lock_ttl = 10\n" } else { SHORT });
    let keys = |wait: &str| format!("{ttl}schedule = every 1s\nwait_lock = {wait}");
    let (one, other, third) = (machine(&home, &lock, &keys("0")), machine(&home, &lock, &keys("2")), machine(&home, &lock, &keys("10")));
    let daemons = [one.start(&["daemon"]), other.start(&["daemon"])];
    inside(&home, 1);
    for _ in 0..3 {
        third.run(&["now", "a"]).exits(0);
    }
    until("both daemons were inside", || {
        daemons.iter().all(|daemon| entered(&home).iter().any(|entry| u32::try_from(entry.1).unwrap() == daemon.pid()))
    });
    daemons.into_iter().for_each(stop);
    let (tokens, log) = (tokens(&home), std::fs::read_to_string(home.path("log")).unwrap());
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
    assert!(log.matches("leave ").count() + 2 >= tokens.len(), "only who was told to stop did not leave:\n{log}");
}

#[test]
fn a_race_over_a_file() {
    race(file_lock);
}

#[test]
fn a_race_over_postgresql() {
    let Some(server) = postgres() else { return };
    race(|_| postgres_lock(server, "named-race"));
}

#[test]
fn a_race_over_etcd() {
    let Some(server) = etcd() else { return };
    race(|_| etcd_lock(server, "named-race"));
}

#[test]
fn a_race_over_the_double_of_consul() {
    let consul = Consul::start();
    race(|_| format!("consul://127.0.0.1:{}/named-race", consul.port));
}

// ---- death and loss --------------------------------------------------------------------------------

#[test]
fn a_killed_daemon_is_followed_and_its_tasks_are_ended_first() {
    let (Some(postgres), Some(etcd)) = (postgres(), etcd()) else { return };
    for engine in 0..3 {
        let home = shared("sleep 1000");
        let lock = [file_lock(&home), postgres_lock(postgres, "named-killed"), etcd_lock(etcd, "named-killed")][engine].clone();
        let keys = "schedule = every 1s\nwait_lock = infinity";
        let (one, other) = (machine(&home, &lock, keys), machine(&home, &lock, keys));
        let first = one.start(&["daemon"]);
        let (holder, task) = inside(&home, 1);
        let mut second = other.start(&["daemon"]);
        second.wait_for_message("is held by pid", "chain a: ");
        send(holder, Signal::KILL);
        // The TTL is a minute: on one machine nobody waits for it.
        inside(&home, 2);
        assert!(!is_alive(task), "{lock}");
        first.finish().dies_of(Signal::KILL);
        stop(second);
        assert!(tokens(&home).is_sorted_by(|a, b| a < b));
    }
}

/// The engine of one chain stands still: others begin all the same, and the chain that holds the lock loses it in time.
#[test]
fn a_frozen_engine_delays_no_other_chain_and_a_lost_lock_ends_the_tasks() {
    let Some(server) = start_etcd() else { return skipped("etcd is not installed") };
    let Some(healthy) = etcd() else { return };
    let home = shared("sleep 1000").task_at("b/1-b.sh", "say b").task_at("c/1-c.sh", "say \"c $RUNNER_LOCK_TOKEN\"");
    let others = format!(
        "{SHORT}schedule = every 1s\n[chain:b]\ntask_dir = {}\nschedule = every 1s\n[chain:c]\ntask_dir = {}\nschedule = every 1s\nlock = {}\n",
        home.path("b").display(),
        home.path("c").display(),
        etcd_lock(healthy, "named-beside")
    );
    let machine = machine(&home, &etcd_lock(&server, "k"), &others);
    let mut daemon = machine.start(&["daemon"]);
    let (_, task) = inside(&home, 1);
    let ran = |chain: &str| std::fs::read_to_string(home.path("log")).unwrap().matches(&format!("- {chain}")).count();
    let alone = shared("sleep 1000");
    let now = self::machine(&alone, &etcd_lock(&server, "now"), SHORT).start(&["now", "a"]);
    inside(&alone, 1);
    send(server.pid(), Signal::STOP);
    // First while the lock is held, then while it is asked for again; the engine stands still all the time.
    let (b, c) = (ran("b"), ran("c"));
    until("the others go on", || ran("b") >= b + 2 && ran("c") >= c + 2);
    assert!(is_alive(task), "its lease is not over");
    until("the task is ended", || !is_alive(task));
    until("now has ended", || !is_alive(now.pid()));
    now.finish().exits(79).says("its lock was lost");
    daemon.wait_for_message("its lock was lost", "chain a");
    daemon.wait_for_message("chain a: etcd://", "cannot be reached");
    let (b, c) = (ran("b"), ran("c"));
    until("the others go on", || ran("b") >= b + 2 && ran("c") >= c + 2);
    send(server.pid(), Signal::CONT);
    inside(&home, 2);
    stop(daemon);
    assert!(tokens(&home).is_sorted_by(|a, b| a < b));
    let runs = history(&machine);
    assert!(runs.iter().any(|run| run["outcome"] == "lock_lost"), "{runs:?}");
}

#[test]
fn a_kept_lock_is_kept_between_the_runs_of_a_daemon_and_given_back_when_it_stops() {
    let Some(server) = postgres() else { return };
    let home = shared("");
    let lock = postgres_lock(server, "named-kept");
    let (one, other) = (machine(&home, &lock, "schedule = every 1s\nkeep_lock = yes"), machine(&home, &lock, ""));
    let daemon = one.start(&["daemon"]);
    inside(&home, 2);
    other.run(&["now", "a"]).exits(75).says("is held by pid");
    inside(&home, 3);
    let before = tokens(&home);
    assert!(before.iter().all(|token| *token == before[0]), "{before:?}");
    stop(daemon);
    other.run(&["now", "a"]).exits(0);
    assert!(tokens(&home).last() > before.last());
    // A configuration that does not keep it any more gives it back without a run.
    let mut daemon = one.start(&["daemon"]);
    inside(&home, before.len() + 2);
    let text = std::fs::read_to_string(one.config_file()).unwrap();
    std::fs::write(one.config_file(), text.replace("schedule = every 1s\nkeep_lock = yes", "schedule = @yearly")).unwrap();
    daemon.signal(Signal::HUP).wait_for_message("was read again", "");
    until("it is given back", || other.run(&["now", "a"]).status.success());
    stop(daemon);
}

#[test]
fn a_lock_that_is_not_to_be_kept_any_more_is_given_back_after_the_run_that_goes_on() {
    let home = shared("sh -c 'until [ -e \"$SCENE/go\" ]; do sleep 0.02; done'");
    let lock = file_lock(&home);
    let (one, other) = (machine(&home, &lock, "schedule = every 1s\nkeep_lock = yes"), machine(&home, &lock, ""));
    let mut daemon = one.start(&["daemon"]);
    inside(&home, 1);
    let text = std::fs::read_to_string(one.config_file()).unwrap();
    std::fs::write(one.config_file(), text.replace("schedule = every 1s\nkeep_lock = yes", "schedule = @yearly")).unwrap();
    daemon.signal(Signal::HUP).wait_for_message("was read again", "");
    other.run(&["now", "a"]).exits(75);
    std::fs::write(home.path("go"), "").unwrap();
    until("it is given back", || other.run(&["now", "a"]).status.success());
    stop(daemon);
}

#[test]
fn after_a_failure_another_machine_wins() {
    let home = lock_scene().task_at("a/1-in.sh", "echo \"enter $RUNNER_LOCK_TOKEN $PPID $$\" >>\"$SCENE/log\"; exit 1");
    let lock = file_lock(&home);
    let failing = "schedule = every 1s\nkeep_lock = yes\nrelease_on_error = yes";
    let (one, other) = (machine(&home, &lock, failing), machine(&home, &lock, &format!("wait_lock = infinity\n{failing}")));
    let mut first = one.start(&["daemon"]);
    inside(&home, 1);
    let second = other.start(&["daemon"]);
    first.wait_for_message("release_on_error", "chain a: the slot");
    until("the other one was inside", || entered(&home).iter().any(|entry| u32::try_from(entry.1).unwrap() == second.pid()));
    stop(first);
    stop(second);
    assert!(tokens(&home).is_sorted_by(|a, b| a < b));
}

/// Three daemons on three machines; in each round the one inside is hit, and another takes its place.
fn storm(lock: &str, rounds: usize) {
    let home = shared("sleep 1000");
    let ttl = if lock.starts_with("consul") { 10 } else { 6 };
    let keys = format!("schedule = every 1s\nwait_lock = infinity\nlock_delay = 0\nlock_ttl = {ttl}");
    let mut daemons: Vec<(Scene, Running)> = Vec::new();
    for _ in 0..3 {
        let machine = machine(&home, lock, &keys);
        let daemon = machine.start(&["daemon"]);
        daemons.push((machine, daemon));
    }
    for number in 1..=rounds {
        let (holder, task) = inside(&home, number);
        let at = daemons.iter().position(|(_, daemon)| daemon.pid() == u32::try_from(holder).unwrap()).unwrap();
        match number % 3 {
            0 => send(i32::try_from(task).unwrap(), Signal::KILL),
            round => {
                let (machine, hit) = daemons.swap_remove(at);
                let signal = if round == 1 { Signal::KILL } else { Signal::TERM };
                send(holder, signal);
                until("it is gone", || !is_alive(hit.pid()));
                drop(if round == 1 { hit.finish().dies_of(signal) } else { hit.finish().exits(0) });
                let next = machine.start(&["daemon"]);
                daemons.push((machine, next));
            }
        }
        inside(&home, number + 1);
        assert!(!is_alive(task), "its task goes on");
    }
    daemons.into_iter().for_each(|(_, daemon)| stop(daemon));
    assert!(tokens(&home).is_sorted_by(|a, b| a < b));
}

#[test]
fn a_storm_of_daemons_over_a_file() {
    let home = Scene::new();
    storm(&file_lock(&home), 6);
}

#[test]
fn a_storm_of_daemons_over_postgresql() {
    let Some(server) = postgres() else { return };
    storm(&postgres_lock(server, "named-storm"), 6);
}

#[test]
fn a_storm_of_daemons_over_etcd() {
    let Some(server) = etcd() else { return };
    storm(&etcd_lock(server, "named-storm"), 6);
}

#[test]
fn a_storm_of_daemons_over_the_double_of_consul() {
    let consul = Consul::start();
    storm(&format!("consul://127.0.0.1:{}/named-storm", consul.port), 6);
}

#[test]
#[ignore = "takes minutes; run by hand"]
fn a_long_storm_of_daemons_over_each_engine() {
    let (Some(postgres), Some(etcd)) = (postgres(), etcd()) else { return };
    let (home, consul) = (Scene::new(), Consul::start());
    let consul = format!("consul://127.0.0.1:{}/named-long", consul.port);
    for lock in [file_lock(&home), postgres_lock(postgres, "named-long"), etcd_lock(etcd, "named-long"), consul] {
        storm(&lock, std::env::var("STORM_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(200));
    }
}

#[test]
fn a_daemon_that_was_frozen_past_its_lease_does_not_go_on_with_its_run() {
    let Some(server) = postgres() else { return };
    let home = shared("sleep 1000").task_at("a/2-after.sh", "exec \"$SCENE/inside.sh\"");
    let lock = postgres_lock(server, "named-frozen");
    let keys = format!("{SHORT}schedule = every 1s\nwait_lock = infinity");
    let (one, other) = (machine(&home, &lock, &keys), machine(&home, &lock, &keys));
    let mut first = one.start(&["daemon"]);
    let (holder, task) = inside(&home, 1);
    let mut second = other.start(&["daemon"]);
    second.wait_for_message("is held by pid", "chain a: ");
    send(holder, Signal::STOP);
    inside(&home, 2);
    assert!(!is_alive(task), "its task goes on");
    send(holder, Signal::CONT);
    first.wait_for_message("its lock was lost", "chain a");
    first.wait_for_message("is held by pid", "chain a: ");
    assert_eq!(entered(&home).len(), 2, "it went on");
    // The one that waits first: it would be inside in a moment.
    stop(first);
    stop(second);
    assert!(tokens(&home).is_sorted_by(|a, b| a < b));
    assert!(history(&one).iter().any(|run| run["outcome"] == "lock_lost"));
}

// ---- what is seen of it ------------------------------------------------------------------------------

/// Asks the daemon whose socket is there.
#[cfg(feature = "http")]
fn ask(socket: &std::path::Path, path: &str) -> String {
    use std::io::{Read, Write};

    let mut socket = std::os::unix::net::UnixStream::connect(socket).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn everybody_sees_who_holds_the_lock() {
    let Some(server) = postgres() else { return };
    let home = shared("sleep 1000");
    let lock = postgres_lock(server, "named-seen");
    let socket = home.path("http");
    let listens = format!("schedule = every 1s\nwait_lock = infinity\n[daemon]\nlisten = {}", socket.display());
    let (one, other) = (machine(&home, &lock, ""), machine(&home, &lock, &listens));
    let status = other.run(&["status", "--json"]).exits(0).json();
    let seen = &status["locks"][0];
    assert_eq!((&seen["holder"], &seen["token"], &seen["held_here"]), (&Value::Null, &Value::Null, &false.into()));
    let mut first = one.start(&["now", "a"]);
    inside(&home, 1);
    let mut daemon = other.start(&["daemon"]);
    daemon.wait_for_message("is held by pid", "chain a: ");
    let by_page = |seen: &Value| {
        assert_eq!((&seen["engine"], &seen["key"], &seen["chains"][0]), (&"postgresql".into(), &"named-seen".into(), &"a".into()));
        assert_eq!((&seen["token"], &seen["held_here"]), (&tokens(&home)[0].into(), &true.into()));
        assert_eq!((&seen["holder"]["pid"], &seen["unknown"]), (&first.pid().into(), &Value::Null));
        assert!(seen["holder"]["since"].is_string() && seen["holder"]["run_id"].is_string(), "{seen}");
    };
    let status = other.run(&["status", "--json"]).exits(0).json();
    by_page(&status["locks"][0]);
    // The daemon's own run waits, and does not run.
    let chain = &status["chains"][0];
    assert_eq!(chain["running"].as_array().unwrap().len(), 0, "{chain}");
    assert!(chain["waits_because"].as_str().unwrap().contains("waits for its lock postgresql://"), "{chain}");
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let held = format!("held by {host} pid {} since 20", first.pid());
    other.run(&["status"]).exits(0).prints("waits for its lock").prints("TOKEN").prints(&format!("{host} pid {}", first.pid()));
    other.run(&["why", "a"]).exits(0).prints(&held).prints("its lock is asked for, by run");
    one.run(&["why", "a"]).exits(0).prints("is held by this run since 20").prints("it runs: run");
    #[cfg(feature = "http")]
    {
        let status: Value = serde_json::from_str(&ask(&socket, "/status.json")).unwrap();
        by_page(&status["locks"][0]);
        assert!(status["chains"][0]["waits_because"].as_str().unwrap().contains("its lock is held by pid"), "{status}");
        let page = ask(&socket, "/");
        assert!(
            page.contains("held on this machine") && page.contains("named-seen") && page.contains(&tokens(&home)[0].to_string()),
            "{page}"
        );
        let metrics = ask(&socket, "/metrics");
        let line = |name: &str| metrics.lines().find(|line| line.starts_with(&format!("{name}{{"))).unwrap_or_default().to_owned();
        for name in ["runner_lock_held", "runner_lock_held_here", "runner_lock_reachable"] {
            assert!(line(name).contains("named-seen") && line(name).ends_with(" 1"), "{name}: {metrics}");
        }
    }
    first.signal(Signal::TERM);
    first.finish().dies_of(Signal::TERM);
    inside(&home, 2);
    let status = other.run(&["status", "--json"]).exits(0).json();
    assert_eq!((status["chains"][0]["running"].as_array().unwrap().len(), &status["chains"][0]["waits_because"]), (1, &Value::Null));
    stop(daemon);
}

/// The page and the healthy chains do not wait for an engine that stands still.
#[test]
fn an_engine_that_does_not_answer_is_told_as_such() {
    let Some(server) = start_etcd() else { return skipped("etcd is not installed") };
    let home = shared("");
    let machine = machine(&home, &etcd_lock(&server, "k"), "");
    machine.run(&["status"]).exits(0).prints("nobody");
    send(server.pid(), Signal::STOP);
    machine.run(&["status"]).exits(0).prints("unknown: etcd://");
    machine.run(&["why", "a"]).exits(0).prints("nobody knows who holds its lock: etcd://");
    send(server.pid(), Signal::CONT);
}

#[test]
fn the_lock_of_the_main_chain_is_seen_as_well() {
    let scene = lock_scene().config("[runner]\nlock = file:k.lock\n").task("1-in.sh", "exec \"$SCENE/inside.sh\" sleep 1000");
    let mut first = scene.start(&[]);
    inside(&scene, 1);
    let status = scene.run(&["status", "--json"]).exits(0).json();
    let seen = &status["locks"][0];
    assert_eq!((&seen["engine"], &seen["chains"][0], &seen["token"]), (&"file".into(), &"main".into(), &tokens(&scene)[0].into()));
    scene.run(&["why", "main"]).exits(0).prints("is held by this run since 20").prints("no earlier run of it is known");
    first.signal(Signal::TERM);
    first.finish().dies_of(Signal::TERM);
}
