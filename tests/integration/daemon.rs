//! `runner daemon` and `runner tick`: slots, each once; overlap; idle chains; reload; what a crash leaves.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;

use rstest::rstest;
use rustix::process::Signal;

use crate::scene::{Running, Scene, until};

/// Named chains, each with a directory of its name, and a state of their own.
fn chains(sections: &[(&str, &str)]) -> Scene {
    let scene = Scene::new();
    let state = scene.path("state");
    let scene = sections.iter().fold(scene.env("STATE_DIRECTORY", state), |scene, (name, _)| scene.dir(name));
    sections.iter().fold(scene, |scene, (name, keys)| scene.config(&format!("[chain:{name}]\ntask_dir = {name}\n{keys}\n")))
}

/// A chain that runs every second and says its slot.
const EVERY_SECOND: &str = "schedule = every 1s\ntimezone = UTC";
const SAY_SLOT: &str = "say \"$RUNNER_CHAIN $RUNNER_SCHEDULED_AT\"";

/// The slots of a chain that were said so far.
fn slots(log: &[String], chain: &str) -> Vec<String> {
    let start = format!("- {chain} ");
    log.iter().filter_map(|line| line.strip_prefix(&start).map(str::to_owned)).collect()
}

fn log_of(running: &Running) -> Vec<String> {
    std::fs::read_to_string(running.path("log")).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn wait_for_slots(running: &mut Running, chain: &str, count: usize) {
    running.wait_for("slots", |running| slots(&log_of(running), chain).len() >= count);
}

/// Whole seconds of each slot since 1970.
fn seconds(slots: &[String]) -> Vec<i64> {
    slots.iter().map(|slot| slot.parse::<jiff::Timestamp>().unwrap().as_second()).collect()
}

fn assert_each_once(slots: &[String]) {
    let distinct: BTreeSet<&String> = slots.iter().collect();
    assert_eq!(distinct.len(), slots.len(), "a slot was used twice: {slots:?}");
}

#[test]
fn a_chain_runs_at_its_slots_and_is_told_which() {
    let mut running = chains(&[("a", EVERY_SECOND)]).task_at("a/1-a.sh", &format!("{SAY_SLOT}; say $RUNNER_TRIGGER")).start(&["daemon"]);
    wait_for_slots(&mut running, "a", 2);
    running.signal(Signal::TERM);
    let run = running.finish().exits(0).nothing_alive();
    let slots = slots(&run.log(), "a");
    assert!(slots.iter().all(|slot| slot.ends_with("+00:00")), "{slots:?}");
    let times = seconds(&slots);
    assert!(times.windows(2).all(|pair| pair[1] > pair[0]), "{slots:?}");
    assert!(run.log().contains(&"- schedule".to_owned()));
}

#[test]
fn two_daemons_and_ticks_use_each_slot_once() {
    let scene = chains(&[("a", EVERY_SECOND)]).task_at("a/1-a.sh", SAY_SLOT);
    let mut one = scene.start(&["daemon"]);
    let mut other = scene.start(&["daemon"]);
    wait_for_slots(&mut one, "a", 1);
    for _ in 0..3 {
        scene.run(&["tick"]).exits(0);
    }
    wait_for_slots(&mut one, "a", 3);
    one.signal(Signal::TERM);
    other.signal(Signal::TERM);
    one.finish().exits(0);
    let slots = slots(&other.finish().exits(0).log(), "a");
    assert_each_once(&slots);
}

#[test]
fn after_a_crash_no_slot_is_used_twice_and_none_is_lost() {
    let keys = format!("{EVERY_SECOND}\nmissed = all");
    let scene = chains(&[("a", &keys)]).task_at("a/1-a.sh", SAY_SLOT);
    for round in 1..=3 {
        let mut running = scene.start(&["daemon"]);
        wait_for_slots(&mut running, "a", 2 * round);
        running.insist(Signal::KILL);
        running.finish().dies_of(Signal::KILL);
    }
    let mut running = scene.start(&["daemon"]);
    wait_for_slots(&mut running, "a", 8);
    running.signal(Signal::TERM);
    let slots = slots(&running.finish().exits(0).log(), "a");
    assert_each_once(&slots);
    let times = seconds(&slots);
    let all: Vec<i64> = (times[0]..times[0] + i64::try_from(times.len()).unwrap()).collect();
    assert_eq!(times, all, "each second has its slot");
}

#[rstest]
#[case::skip("skip", "given up: the chain still runs")]
#[case::queue("queue", "given up: the chain still runs, and another slot waits already")]
fn a_slot_whose_chain_still_runs(#[case] overlap: &str, #[case] told: &str) {
    let keys = format!("{EVERY_SECOND}\noverlap = {overlap}");
    let mut running = chains(&[("a", &keys)]).task_at("a/1-a.sh", &format!("{SAY_SLOT}; probe wait-file go")).start(&["daemon"]);
    running.wait_for_message(told, "chain a: the slot");
    assert_eq!(slots(&log_of(&running), "a").len(), 1, "one at a time");
    std::fs::write(running.path("go"), "").unwrap();
    wait_for_slots(&mut running, "a", 2);
    running.signal(Signal::TERM);
    let slots = slots(&running.finish().exits(0).log(), "a");
    let times = seconds(&slots);
    assert_each_once(&slots);
    // Who waits keeps the slot it was meant for; who is given up does not come again.
    assert_eq!(times[1] == times[0] + 1, overlap == "queue", "{slots:?}");
}

#[test]
fn a_slot_may_replace_the_run_before_it() {
    let keys = format!("{EVERY_SECOND}\noverlap = replace");
    let scene = chains(&[("a", &keys)]).task_at("a/1-a.sh", &format!("{SAY_SLOT}; exec \"$PROBE\" setsid-child {{ pause }} pause"));
    let mut running = scene.start(&["daemon"]);
    wait_for_slots(&mut running, "a", 3);
    running.wait_for_message("overlap = replace", "its run is stopped");
    running.signal(Signal::TERM);
    let ended = running.finish().exits(0).nothing_alive();
    // Nobody reads of a run that makes room that the daemon was told to stop, and the history tells the two apart.
    ended.never_says("told to stop by").says("chain a: its run is stopped for the slot 2");
    let history = scene.run(&["history", "a"]).exits(0).stdout_text();
    assert!(history.contains("told to stop by SIGTERM (replaced by the slot 2"), "{history}");
}

#[test]
fn a_run_that_is_over_but_for_its_hook_is_not_stopped_for_the_next_slot() {
    let keys = format!("{EVERY_SECOND}\noverlap = replace\nchain_hook = ./hook");
    let scene = chains(&[("a", &keys)]).task_at("a/1-a.sh", SAY_SLOT);
    let scene = scene.script("hook", "case \"$1\" in *'\"end\"'*) probe touch hooked wait-file go ;; esac");
    let mut running = scene.start(&["daemon"]);
    running.wait_for_file("hooked");
    let told = || scene.run(&["status", "--json"]).exits(0).json()["chains"][0]["waits_because"].as_str().unwrap_or_default().to_owned();
    until("a slot waits", || told().contains("its slot waits for the end of the run before it"));
    scene.run(&["why", "a"]).exits(0).prints("it is over but for its chain_hook").prints("; the next slot waits for that");
    std::fs::write(scene.path("go"), "").unwrap();
    wait_for_slots(&mut running, "a", 2);
    running.signal(Signal::TERM);
    running.finish().exits(0).nothing_alive().never_says("is stopped for the slot");
}

#[test]
fn the_stop_of_a_daemon_names_its_chains_and_its_last_word_is_that_it_has_ended() {
    let scene = chains(&[("a", EVERY_SECOND)]).task_at("a/1-a.sh", "play touch begun pause");
    let mut running = scene.start(&["daemon"]);
    running.wait_for_file("begun").signal(Signal::TERM);
    let ended = running.finish().exits(0).nothing_alive();
    let ended =
        ended.never_says("told to stop by").says("chain a: its run is told to stop (the daemon stops); a second time kills at once");
    assert!(ended.stderr_text().lines().last().is_some_and(|line| line.ends_with("the daemon has ended")), "{ended}");
    scene.run(&["history", "a"]).exits(0).prints("told to stop by SIGTERM (the daemon stops)");
}

#[test]
fn a_changed_configuration_is_taken_over_and_a_broken_one_is_not() {
    let scene = chains(&[("a", EVERY_SECOND)]).dir("b").task_at("a/1-a.sh", SAY_SLOT).task_at("b/1-b.sh", SAY_SLOT);
    let mut running = scene.start(&["daemon"]);
    wait_for_slots(&mut running, "a", 1);
    let good = std::fs::read_to_string(scene.config_file()).unwrap();
    std::fs::write(scene.config_file(), format!("{good}\n[chain:b]\ntask_dir = b\nschedule = 61 * * * *\n")).unwrap();
    running.wait_for_message("the configuration is not taken over, the old one stays", "schedule");
    let before = slots(&log_of(&running), "a").len();
    wait_for_slots(&mut running, "a", before + 1);
    std::fs::write(scene.config_file(), format!("{good}\n[chain:b]\ntask_dir = b\n{EVERY_SECOND}\n")).unwrap();
    running.signal(Signal::HUP);
    wait_for_slots(&mut running, "b", 1);
    running.signal(Signal::TERM);
    running.finish().exits(0);
}

#[test]
fn a_reload_leaves_running_chains_as_they_began() {
    let keys = format!("{EVERY_SECOND}\nmax_time = 100");
    let scene = chains(&[("a", &keys)]).task_at("a/1-a.sh", "say $RUNNER_TIME_LIMIT; probe touch begun wait-file go; say ended");
    let mut running = scene.start(&["daemon"]);
    running.wait_for_file("begun");
    let good = std::fs::read_to_string(scene.config_file()).unwrap();
    std::fs::write(scene.config_file(), good.replace("max_time = 100", "max_time = 0.001")).unwrap();
    running.signal(Signal::HUP);
    running.wait_for_message("the configuration was read again", "");
    std::fs::write(running.path("go"), "").unwrap();
    running.wait_for_log("- ended");
    running.signal(Signal::TERM);
    let log = running.finish().exits(0).log();
    assert_eq!(log[1], "- 100");
}

#[test]
fn it_stops_cleanly_with_what_it_runs() {
    let mut running = chains(&[("a", EVERY_SECOND)])
        .task_at("a/1-a.sh", "play setsid-child { pause } daemon { pause } touch begun pause")
        .start(&["daemon"]);
    running.wait_for_file("begun").signal(Signal::TERM);
    running.finish().exits(0).nothing_alive();
}

#[test]
fn a_second_signal_kills_what_does_not_obey() {
    let mut running = chains(&[("a", &format!("{EVERY_SECOND}\nkill_after = 600"))])
        .task_at("a/1-a.sh", "trap 'say told' TERM\nprobe touch begun\nwhile :; do probe ignore TERM nap 20; done")
        .start(&["daemon"]);
    running.wait_for_file("begun").signal(Signal::TERM).wait_for_log("- told").insist(Signal::TERM);
    running.finish().exits(0).nothing_alive().quicker_than(30);
}

#[test]
fn at_boot_is_once_for_each_boot() {
    let scene = chains(&[("a", "schedule = @boot"), ("b", EVERY_SECOND)])
        .task_at("a/1-a.sh", "say \"a $RUNNER_TRIGGER ${RUNNER_SCHEDULED_AT-none}\"")
        .task_at("b/1-b.sh", SAY_SLOT);
    for round in 1..=2 {
        let mut running = scene.start(&["daemon"]);
        wait_for_slots(&mut running, "b", 2 * round);
        running.signal(Signal::TERM);
        running.finish().exits(0);
    }
    let log = scene.run(&["tick"]).exits(0).log();
    assert_eq!(slots(&log, "a"), ["boot none"]);
}

#[test]
fn a_chain_that_cannot_run_is_told_and_harms_no_other() {
    let scene = chains(&[("a", "schedule = every 1s\nchain_hook = ./hook"), ("b", EVERY_SECOND)])
        .hook_keeper("hook", "")
        .task_at("b/1-b.sh", SAY_SLOT);
    std::fs::remove_dir(scene.path("a")).unwrap();
    let mut running = scene.start(&["daemon"]);
    wait_for_slots(&mut running, "b", 2);
    running.wait_for_file("hooks").signal(Signal::TERM);
    let run = running.finish().exits(0);
    let call = &run.hook_calls()[0];
    assert_eq!((&call["event"], &call["chain"], &call["reason"]), (&"refused".into(), &"a".into(), &"task_dir".into()));
}

#[test]
fn a_chain_with_two_wrong_rules_is_an_error_with_the_line_of_the_rule() {
    chains(&[("a", "schedule = @daily\n  61 * * * *")]).run(&["daemon"]).exits(78).says("runner.cfg:4: schedule:");
}

/// Reads what a manager hears until a line begins with each of these.
fn wait_for_notes(socket: &UnixDatagram, words: &[&str]) {
    let mut missing: BTreeSet<&str> = words.iter().copied().collect();
    let mut buffer = [0_u8; 8192];
    while !missing.is_empty() {
        let length = socket.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        missing.retain(|word| !text.lines().any(|line| line.starts_with(word)));
    }
}

#[test]
fn it_tells_its_manager_what_it_does() {
    let scene = chains(&[("a", "schedule = 0 0 29 2 *")]).tasks_at("a", ["1-a.sh"]);
    let path = scene.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(crate::scene::DEADLINE)).unwrap();
    let mut running = scene.env("NOTIFY_SOCKET", path).start(&["daemon"]);
    wait_for_notes(&socket, &["READY=1", "STATUS=1 chain on schedule"]);
    running.signal(Signal::HUP);
    wait_for_notes(&socket, &["RELOADING=1", "MONOTONIC_USEC="]);
    wait_for_notes(&socket, &["READY=1"]);
    running.signal(Signal::TERM);
    wait_for_notes(&socket, &["STOPPING=1"]);
    running.finish().exits(0);
}

// ---- tick ------------------------------------------------------------------------------------------

#[test]
fn a_tick_runs_what_is_due_and_waits_for_it() {
    let run = chains(&[("a", "schedule = * * * * *"), ("b", "schedule = 0 0 29 2 *")])
        .task_at("a/1-a.sh", "say $RUNNER_TRIGGER")
        .tasks_at("b", ["1-b.sh"])
        .run(&["tick", "--json"])
        .exits(0)
        .logged(["1-a.sh 1", "- tick"]);
    let runs = run.json();
    assert_eq!((&runs["version"], &runs["runs"][0]["chain"], &runs["runs"][0]["outcome"]), (&1.into(), &"a".into(), &"done".into()));
}

#[test]
fn the_same_minute_is_used_once() {
    // Two minutes may pass between the first and the last of these; no more.
    let scene = chains(&[("a", "schedule = * * * * *\nmissed = skip")]).task_at("a/1-a.sh", SAY_SLOT);
    for _ in 0..4 {
        scene.run(&["tick"]).exits(0);
    }
    assert_each_once(&slots(&scene.run(&["tick"]).exits(0).log(), "a"));
}

#[test]
fn nothing_due_is_no_failure() {
    chains(&[("a", "schedule = 0 0 29 2 *")]).tasks_at("a", ["1-a.sh"]).run(&["tick"]).exits(0).ran_nothing();
}

#[test]
fn idle_chains_follow_all_others_one_after_the_other() {
    let due = "schedule = * * * * *";
    let idle = format!("{due}\nidle = yes\nwindow = 3600");
    let log = chains(&[("i", &idle), ("a", due), ("j", &idle), ("b", due)])
        .task_at("a/1-a.sh", "play touch a-runs wait-file b-runs")
        .task_at("b/1-b.sh", "play touch b-runs wait-file a-runs")
        .task_at("i/1-i.sh", "say $((RUNNER_TIME_LEFT > 3000 && RUNNER_TIME_LEFT <= 3600))")
        .task_at("j/1-j.sh", "exit 0")
        .run(&["tick"])
        .exits(0)
        .ran_in_any_order(["1-a.sh", "1-b.sh", "1-i.sh", "1-j.sh"])
        .log();
    assert_eq!(log[2..], ["1-i.sh 1", "- 1", "1-j.sh 1"]);
}

#[test]
fn an_idle_chain_without_time_is_left_out() {
    // A window of nothing has no time left from its first moment on.
    chains(&[("i", "schedule = * * * * *\nidle = yes\nwindow = 0")])
        .tasks_at("i", ["1-i.sh"])
        .run(&["tick"])
        .exits(0)
        .ran_nothing()
        .says("its window of");
}

#[test]
fn an_idle_slot_says_for_whom_it_waits() {
    let idle = "schedule = * * * * *\nidle = yes\nwindow = 3600";
    let due = "schedule = * * * * *";
    let scene = chains(&[("a", due), ("i", idle), ("j", idle)]).task_at("a/1-a.sh", "play touch begun wait-file go");
    let scene = scene.tasks_at("i", ["1-i.sh"]).tasks_at("j", ["1-j.sh"]);
    let mut running = scene.start(&["tick"]);
    running.wait_for_file("begun");
    let says = |command: &str, chain: &str, fragment: &str| scene.run(&[command, chain]).exits(0).stdout_text().contains(fragment);
    // Neither for the other: which of them is first is not known.
    for chain in ["i", "j"] {
        until("why says so", || says("why", chain, "its slot waits for a: it is idle; its window ends in"));
        until("status says so", || says("status", chain, "its slot waits for a: it is idle"));
    }
    // Its slot has come, whatever the delay is now.
    let config = std::fs::read_to_string(scene.config_file()).unwrap();
    std::fs::write(scene.config_file(), config.replace("idle = yes", "idle = yes\nrandom_delay = 1h")).unwrap();
    until("status still says so", || says("status", "i", "its slot waits for a: it is idle"));
    std::fs::write(running.path("go"), "").unwrap();
    running.finish().exits(0).ran(["1-a.sh", "1-i.sh", "1-j.sh"]);
}

#[test]
fn a_slot_that_waits_for_its_own_run_says_so() {
    let keys = format!("{EVERY_SECOND}\noverlap = queue");
    let scene = chains(&[("a", &keys)]).task_at("a/1-a.sh", "play touch begun wait-file go");
    let mut running = scene.start(&["daemon"]);
    running.wait_for_message("chain a: the slot", "waits for the end of the run before it (overlap = queue)");
    scene.run(&["why", "a"]).exits(0).prints("its slot waits for the end of the run before it");
    running.signal(Signal::TERM);
    running.finish().exits(0);
    // That it was left is no crash.
    let mut next = scene.start(&["daemon"]);
    next.wait_for_message("chain a: the slot", "is taken over: whoever had claimed it ended before its run began");
    std::fs::write(next.path("go"), "").unwrap();
    next.signal(Signal::TERM);
    next.finish().exits(0).never_says("is gone");
}

#[test]
fn a_failing_chain_stops_no_other_and_the_gravest_is_the_exit_code() {
    let due = "schedule = * * * * *";
    chains(&[("a", due), ("b", due), ("c", due)])
        .config("[runner]\nmax_tries = 1\n")
        .task_at("a/1-a.sh", "exit 1")
        .task_at("b/1-b.sh", "exit 2")
        .tasks_at("c", ["1-c.sh"])
        .run(&["tick"])
        .exits(3)
        .ran_in_any_order(["1-a.sh", "1-b.sh", "1-c.sh"]);
}

#[test]
fn without_a_state_a_tick_does_nothing() {
    let scene = chains(&[("a", "schedule = * * * * *")]).tasks_at("a", ["1-a.sh"]).file("state", "a file is in the way");
    scene.run(&["tick"]).exits(74).ran_nothing().says("state");
}

#[test]
fn a_chain_that_runs_is_refused_to_a_person_and_its_hook_hears_it() {
    let scene =
        chains(&[("a", "chain_hook = sh -c 'printf \"%s\\n\" \"$1\" >> heard' hook")]).task_at("a/1-a.sh", "play touch begun wait-file go");
    let mut running = scene.start(&["now", "a"]);
    running.wait_for_file("begun");
    let refused = scene.run(&["now", "a", "--json"]).exits(75).says("chain a still runs").json();
    assert_eq!((&refused["runs"][0]["chain"], &refused["runs"][0]["outcome"]), (&"a".into(), &"refused".into()), "{refused}");
    assert!(refused["runs"][0]["message"].as_str().is_some_and(|why| why.starts_with("it still runs: ")), "{refused}");
    let heard = std::fs::read_to_string(running.path("heard")).unwrap();
    assert!(heard.lines().any(|line| line.contains("\"event\":\"refused\"") && line.contains("\"reason\":\"overlap\"")), "{heard}");
    std::fs::write(running.path("go"), "").unwrap();
    running.finish().exits(0);
}

#[test]
fn a_daemon_that_never_had_its_state_stops_well() {
    let scene = chains(&[("a", "schedule = * * * * *")]).tasks_at("a", ["1-a.sh"]).file("state", "a file is in the way");
    let mut running = scene.start(&["daemon"]);
    running.wait_for_message("state", "");
    running.signal(Signal::TERM);
    running.finish().exits(0).ran_nothing();
}

#[test]
fn a_tick_and_a_person_do_not_run_a_chain_beside_itself() {
    let scene = chains(&[("a", "schedule = * * * * *")]).task_at("a/1-a.sh", "play touch begun wait-file go");
    let mut running = scene.start(&["now", "a"]);
    running.wait_for_file("begun");
    scene.run(&["tick"]).exits(0).says("the chain still runs: run ");
    std::fs::write(running.path("go"), "").unwrap();
    running.finish().exits(0).ran(["1-a.sh"]);
}

#[test]
fn what_a_killed_tick_left_running_is_named_with_the_way_to_end_it() {
    let task = "[ -e \"$SCENE/begun\" ] && exit 0; play pid-file pid touch begun wait-file go";
    let scene = chains(&[("a", EVERY_SECOND)]).task_at("a/1-a.sh", task);
    let mut first = scene.start(&["tick"]);
    first.wait_for_file("begun");
    first.insist(Signal::KILL);
    let pid = std::fs::read_to_string(first.path("pid")).unwrap();
    first.finish().dies_of(Signal::KILL);
    // As long as nobody has looked, and after that: its task runs beside the others.
    let named = |text: &str| text.lines().any(|line| line.contains("kill ") && line.split([' ', ';']).any(|word| word == pid));
    let why = scene.run(&["why", "a"]).exits(0);
    assert!(named(&why.stdout_text()), "{why}");
    let tick = scene
        .run(&["tick"])
        .exits(0)
        .says("the process that ran it is gone; process")
        .says("the next run ends that only if the chain has a `lock`; else: kill");
    assert!(named(&tick.stderr_text()), "{tick}");
    assert!(named(&scene.run(&["why", "a"]).exits(0).stdout_text()));
    std::fs::write(scene.path("go"), "").unwrap();
    let pid: u32 = pid.parse().unwrap();
    until("it is gone", || !crate::alive::is_alive(pid));
    scene.run(&["why", "a"]).exits(0).never_prints("still run");
}

#[test]
fn what_a_killed_now_left_running_is_named_by_whoever_comes_next() {
    let task = "[ -e \"$SCENE/begun\" ] && exit 0; play pid-file pid touch begun wait-file go";
    for taken_in in [false, true] {
        let scene = chains(&[("a", "schedule = 0 0 29 2 *")]).task_at("a/1-a.sh", task);
        let mut first = scene.start(&["now", "a"]);
        first.wait_for_file("begun");
        if taken_in {
            // A tick in between takes the beginning into the database.
            scene.run(&["tick"]).exits(0);
        }
        assert_eq!(scene.run(&["status", "--json", "a"]).exits(0).json()["chains"][0]["running"].as_array().unwrap().len(), 1);
        first.signal(Signal::KILL);
        let pid = std::fs::read_to_string(first.path("pid")).unwrap();
        first.finish().dies_of(Signal::KILL);
        let named = |text: &str| text.lines().any(|line| line.contains("kill ") && line.split([' ', ';']).any(|word| word == pid));
        let why = scene.run(&["why", "a"]).exits(0);
        assert!(named(&why.stdout_text()), "{why}");
        scene.run(&["status", "a"]).exits(0).prints("crashed");
        let next = scene.run(&["now", "a"]).exits(0).says("the process that ran it is gone; process");
        assert!(named(&next.stderr_text()), "{next}");
        assert!(named(&scene.run(&["tick"]).exits(0).stderr_text()));
        scene.run(&["why"]).exits(0).prints(&format!("process {pid} of it still runs"));
        scene.run(&["stop", "a"]).exits(0).prints("whose process is gone, had left running: ").prints(&format!("{pid}; ended"));
        assert!(!crate::alive::is_alive(pid.parse().unwrap()));
        scene.run(&["stop", "a"]).exits(0).prints("nothing of the chain a runs");
        scene.run(&["now", "a"]).exits(0).never_says("is gone");
        let history = scene.run(&["history", "a"]).exits(0).stdout_text();
        assert_eq!((history.matches("  done").count(), history.matches("  crashed").count()), (2, 1), "{history}");
    }
}

#[test]
fn two_configurations_with_one_state_are_told_that_they_share_their_slots() {
    let scene = chains(&[("a", EVERY_SECOND)]).task_at("a/1-a.sh", ":");
    let text = "[chain:a]\ntask_dir = a\nschedule = every 1s\ntimezone = UTC\n";
    let scene = scene.file("other.cfg", text).file("apart.cfg", format!("[runner]\ndatabase = sqlite:apart.db\n{text}"));
    scene.run(&["tick"]).exits(0).never_says("of this name");
    scene.run(&["-c", "apart.cfg", "tick"]).exits(0).never_says("of this name");
    scene.run(&["tick"]).exits(0).never_says("of this name");
    scene.run(&["-c", "other.cfg", "tick"]).exits(0).says("has a chain of this name and used its last slot").says("runner.cfg has a chain");
}

/// The only way to hear of it without looking at the clock again and again: timerfd_create(2), TFD_TIMER_CANCEL_ON_SET.
#[test]
fn it_hears_when_the_clock_is_set_and_also_where_nothing_is_due_for_years() {
    let mut running = chains(&[("a", "schedule = 0 0 29 2 *\ntimezone = UTC")]).tasks_at("a", ["1-a.sh"]).start(&["daemon"]);
    let descriptors = format!("/proc/{}/fdinfo", running.pid());
    let is_armed = |text: &str| {
        let has = |line: &str| text.lines().any(|of| of.split_whitespace().eq(line.split_whitespace()));
        has("clockid: 0") && has("settime flags: 03") && !has("it_value: (0, 0)")
    };
    until("it has an alarm", || {
        let all = std::fs::read_dir(&descriptors).unwrap().flatten();
        all.filter_map(|one| std::fs::read_to_string(one.path()).ok()).filter(|text| is_armed(text)).count() == 1
    });
    running.signal(Signal::TERM);
    running.finish().exits(0).ran_nothing();
}

// ---- the same trouble at every slot -----------------------------------------------------------------

#[test]
fn two_configurations_with_two_databases_share_no_chain_of_a_name() {
    let scene = chains(&[("a", "schedule = 0 0 29 2 *")]).task_at("a/1-a.sh", "play touch begun wait-file go");
    let scene = scene.task_at("b/1-b.sh", "exit 0").file("apart.cfg", "[runner]\ndatabase = sqlite:apart.db\n[chain:a]\ntask_dir = b\n");
    let scene = scene.file("same.cfg", "[runner]\ndatabase = sqlite:state/runner.db\n[chain:a]\ntask_dir = b\n");
    let mut running = scene.start(&["now", "a"]);
    running.wait_for_file("begun");
    scene.run(&["-c", "same.cfg", "now", "a"]).exits(75).says("chain a still runs");
    scene.run(&["-c", "apart.cfg", "now", "a"]).exits(0).never_says("still runs");
    scene.run(&["-c", "apart.cfg", "why", "a"]).exits(0).never_prints("it runs: ");
    scene.run(&["-c", "apart.cfg", "stop", "a"]).exits(0).prints("nothing of the chain a runs");
    scene.run(&["why", "a"]).exits(0).prints("it runs: ");
    std::fs::write(running.path("go"), "").unwrap();
    running.finish().exits(0);
}

fn lines_with(running: &Running, fragment: &str) -> usize {
    running.said().lines().filter(|line| line.contains(fragment)).count()
}

#[test]
fn a_trouble_of_a_chain_is_told_once_and_when_it_has_passed() {
    let hook = format!("{EVERY_SECOND}\nchain_hook = sh -c 'echo refused >>$SCENE/refused'");
    let scene = chains(&[("a", &hook)]).task_at("a/1-a.sh", SAY_SLOT);
    let (there, away) = (scene.path("a"), scene.path("away"));
    std::fs::rename(&there, &away).unwrap();
    let mut running = scene.start(&["daemon"]);
    let count = |running: &Running| std::fs::read_to_string(running.path("refused")).unwrap_or_default().lines().count();
    running.wait_for("refused slots", |running| count(running) >= 3);
    assert_eq!(lines_with(&running, "cannot be read"), 1);
    std::fs::rename(&away, &there).unwrap();
    wait_for_slots(&mut running, "a", 1);
    assert_eq!(lines_with(&running, "is well again"), 1);
    running.signal(Signal::TERM);
    running.finish().exits(0);
    let history = scene.run(&["history", "a"]).exits(0).stdout_text();
    assert!(history.matches("  did not run, ").count() >= 3, "the history has each: {history}");
}

#[test]
fn a_mark_that_cannot_be_kept_is_told_once() {
    let scene = chains(&[("a", EVERY_SECOND)]).task_at("a/1-a.sh", SAY_SLOT).file("state/running", "no directory");
    let mut running = scene.start(&["daemon"]);
    wait_for_slots(&mut running, "a", 3);
    assert_eq!(lines_with(&running, "other programs cannot see that it runs"), 1);
    std::fs::remove_file(running.path("state/running")).unwrap();
    running.wait_for_message("is well again", "other programs can see");
    running.signal(Signal::TERM);
    running.finish().exits(0);
}
