//! `runner why`: the facts that keep a chain from running, and what to do.

use jiff::{SignedDuration, Timestamp};
use rstest::rstest;
use runner::presence::{self, Presence, Work};
use runner::store::record::RunRecord;
use runner::store::{Owner, Store};
use rustix::process::Signal;
use serde_json::Value;

use crate::scene::{STATE_DIR, Scene};
use crate::status::{run, store};

fn scene(keys: &str) -> Scene {
    Scene::new().tasks_at("a", ["1-a.sh"]).raw_config(format!("[chain:a]\ntask_dir = a\n{keys}\n"))
}

/// The facts by name.
fn facts(scene: &Scene) -> Vec<Value> {
    let document = scene.run(&["why", "a", "--json"]).exits(0).json();
    assert_eq!((&document["version"], &document["chain"]), (&1.into(), &"a".into()));
    document["facts"].as_array().unwrap().clone()
}

fn kinds(scene: &Scene) -> Vec<String> {
    facts(scene).iter().map(|fact| fact["fact"].as_str().unwrap().to_owned()).collect()
}

fn text_of(scene: &Scene, kind: &str) -> String {
    let facts = facts(scene);
    let fact = facts.iter().find(|fact| fact["fact"] == kind).unwrap_or_else(|| panic!("no {kind} in {facts:#?}"));
    format!("{} -> {}", fact["text"].as_str().unwrap(), fact["advice"].as_str().unwrap_or("-"))
}

fn mark(scene: &Scene, seconds_ago: i64) {
    let (here, now) = (Owner::look(), Timestamp::now());
    let at = now.checked_sub(SignedDuration::from_secs(seconds_ago)).unwrap();
    store(scene).set_watermarks(&here.machine, &[("a".to_owned(), at)], &here, now).unwrap();
}

#[test]
fn nobody_has_looked_yet() {
    let scene = scene("schedule = every 1h");
    assert_eq!(kinds(&scene), ["nobody_looks", "never_ran", "next"]);
    assert!(text_of(&scene, "nobody_looks").contains("no daemon runs on this machine -> is runner daemon running"));
    let run = scene.run(&["why", "a"]).exits(0);
    run.prints("a\n  nobody has looked at its schedule yet, and no daemon runs on this machine\n      -> is runner daemon")
        .prints("its next slot, in ");
}

#[test]
fn a_chain_in_order_has_a_next_slot_and_nothing_else() {
    let scene = scene("schedule = every 1h");
    mark(&scene, 0);
    store(&scene).put_runs(&[run("r", "a", "done", 60)]).unwrap();
    assert_eq!(kinds(&scene), ["no_daemon", "last_run", "next"]);
    let presence = Presence { work: Work::Daemon, pid: std::process::id(), config: Some(scene.config_file()), queues: Vec::new() };
    let _here = presence::announce(Some(&scene.path(STATE_DIR)), &presence).unwrap();
    assert_eq!(kinds(&scene), ["last_run", "next"]);
    assert_eq!(text_of(&scene, "last_run"), "its last run: done (run r) -> -");
}

#[test]
fn an_error_anywhere_and_a_key_that_means_nothing_are_told_by_why_and_by_status() {
    let scene = scene("schedule = every 1h\n[queue:q]\ntask_dir = q\njobs = two");
    assert!(text_of(&scene, "wrong").contains("runner.cfg:6: jobs = two"));
    scene.run(&["status"]).exits(0).says("runner.cfg:6: jobs = two");
    let slip = self::scene("schedul = every 1h\n[daemon]\nlisten = 127.0.0.1:1\nstop = 3");
    assert!(text_of(&slip, "suspect").contains("runner.cfg:3: unknown key `schedul` in [chain:a]; did you mean `schedule`?"));
    let status = slip.run(&["status"]).exits(0).never_says("would not take it over");
    status.says("runner.cfg:3: unknown key `schedul`").says("runner.cfg:6: unknown key `stop` in [daemon]");
}

#[test]
fn what_is_wrong_with_other_chains_is_counted_and_not_told() {
    let others = "[chain:b]\ntask_dir = a\nshedule = x\n[task:b/a]\nmax_tme = 1\n[task:z]\nmax_tme = 1\n[daemon]\nstop = 3";
    let own = "[runner]\nmax_trys = 3\n[task:a]\nnise = 3";
    let scene = scene(&format!("schedul = every 1h\n{others}\n{own}"));
    let suspects = || facts(&scene).into_iter().filter(|fact| fact["fact"] == "suspect").map(|fact| fact["text"].to_string());
    let suspects: Vec<String> = suspects().collect();
    for (word, is_told) in [("schedul`", 1), ("max_trys", 1), ("nise", 1), ("shedule", 0), ("max_tme", 0), ("`stop`", 0)] {
        assert_eq!(suspects.iter().filter(|text| text.contains(word)).count(), is_told, "{word} in {suspects:#?}");
    }
    assert_eq!(suspects.last().unwrap(), "\"elsewhere in the configuration, not about this chain: 4 findings\"");
    scene.run(&["why", "b"]).exits(0).prints("unknown key `shedule`").never_prints("unknown key `schedul`");
    let wrong = self::scene("schedule = every 1h\n[queue:q]\njobs = two\n[queue:r]\njobs = two\n[runner]\nmax_time = x");
    let document = wrong.run(&["why", "a", "--json"]).exits(0).json();
    let texts: Vec<String> = document["facts"].as_array().unwrap().iter().map(|fact| fact["text"].to_string()).collect();
    assert!(texts.iter().any(|text| text.contains("runner.cfg:9: max_time = x")), "{texts:#?}");
    assert!(texts.iter().any(|text| text.contains("elsewhere in the configuration: 4 errors, the first is ")), "{texts:#?}");
}

#[cfg(feature = "http")]
#[test]
fn an_error_of_the_daemon_is_told_by_why_and_by_status() {
    let scene = scene("schedule = every 1h\n[daemon]\nlisten = 7780");
    assert!(text_of(&scene, "wrong").contains("runner.cfg:5: listen: `7780` is no address"));
    scene.run(&["status"]).exits(0).says("would not take it over").says("runner.cfg:5: listen: ");
}

#[test]
fn nobody_misses_a_daemon_where_a_tick_runs_or_ran() {
    let scene = scene("schedule = * * * * *\n[chain:b]\ntask_dir = b\nschedule = 0 0 29 2 *\n[chain:c]\ntask_dir = b\nschedule = @boot");
    let scene = scene.tasks_at("b", ["1-b.sh"]).task_at("a/1-a.sh", "play touch begun wait-file go");
    let mut tick = scene.start(&["tick"]);
    tick.wait_for_file("begun");
    let nobody_is_missed = || {
        scene.run(&["status"]).exits(0).never_prints("no daemon runs");
        for chain in ["a", "b", "c"] {
            scene.run(&["why", chain]).exits(0).never_prints("no daemon runs");
        }
    };
    nobody_is_missed();
    std::fs::write(tick.path("go"), "").unwrap();
    tick.finish().exits(0);
    nobody_is_missed();
}

#[test]
fn a_slot_that_nobody_looked_at() {
    let scene = scene("schedule = every 1h");
    mark(&scene, 7200);
    assert!(
        text_of(&scene, "nobody_looks")
            .starts_with("this slot has passed and nobody has looked at it: no daemon runs on this machine (missed = last)")
    );
}

#[test]
fn what_was_refused_of_a_chain_without_a_schedule_were_no_slots() {
    let scene = Scene::new().tasks(["1-a.sh"]);
    let refused =
        |id: &str, ago| RunRecord { scheduled_at: None, message: Some("the lock is held".into()), ..run(id, "main", "refused", ago) };
    let not_run = || {
        let facts = scene.run(&["why", "main", "--json"]).exits(0).json();
        let facts = facts["facts"].as_array().unwrap().clone();
        facts.iter().find(|fact| fact["fact"] == "slot_not_run").unwrap()["text"].as_str().unwrap().to_owned()
    };
    store(&scene).put_runs(&[run("f", "main", "done", 90), refused("s1", 60)]).unwrap();
    let one = not_run();
    assert!(one.starts_with("the run of 2") && one.ends_with(" did not begin: the lock is held"), "{one}");
    store(&scene).put_runs(&[refused("s2", 30)]).unwrap();
    let two = not_run();
    assert!(two.starts_with("2 runs since its last run began did not begin, the last one was that of 2"), "{two}");
}

#[rstest]
#[case::by_default("", "it is idle: it begins after all others of its minute, and only within 60 s")]
#[case::without_an_end("window = infinity", "it is idle: it begins after all others of its minute")]
fn how_long_an_idle_chain_may_begin(#[case] window: &str, #[case] words: &str) {
    assert_eq!(text_of(&scene(&format!("schedule = every 1h\nidle = yes\n{window}")), "idle"), format!("{words} -> -"));
}

#[test]
fn one_slot_that_was_missed_has_one_date() {
    let passed = Timestamp::now().checked_sub(SignedDuration::from_mins(30)).unwrap();
    let keys = passed.strftime("schedule = %M %H * * *\ntimezone = UTC\nmissed = skip");
    let scene = scene(&keys.to_string());
    mark(&scene, 3600);
    let slot = passed.strftime("chain a: the slot %Y-%m-%dT%H:%M:00Z given up: missed = skip").to_string();
    scene.run(&["tick"]).exits(0).says(&slot);
}

/// The window of a slot that was missed begins when it is caught up, and that is what is said.
#[rstest]
#[case::in_a_daemon("daemon")]
#[case::in_a_tick("tick")]
fn the_window_of_a_slot_that_was_missed(#[case] command: &str) {
    let passed = Timestamp::now().checked_sub(SignedDuration::from_mins(30)).unwrap();
    let schedule = passed.strftime("schedule = %M %H * * *\ntimezone = UTC").to_string();
    let scene = scene(&format!("{schedule}\nidle = yes\nwindow = 2h\n[chain:b]\ntask_dir = b\n{schedule}"));
    let scene = scene.task_at("b/1-b.sh", "play touch begun wait-file go");
    mark(&scene, 3600);
    let here = Owner::look();
    let (now, an_hour) = (Timestamp::now(), SignedDuration::from_hours(1));
    store(&scene).set_watermarks(&here.machine, &[("b".to_owned(), now.checked_sub(an_hour).unwrap())], &here, now).unwrap();
    let mut running = scene.start(&[command]);
    running.wait_for_file("begun");
    let text = text_of(&scene, "slot_waits");
    assert!(text.contains("its slot waits for b: it is idle; its window ends in 1 h 5"), "{text}");
    running.signal(Signal::TERM);
    std::fs::write(running.path("go"), "").unwrap();
    drop(running.finish());
}

#[test]
fn it_is_not_enabled_or_has_no_schedule() {
    let off = scene("schedule = every 1h\nenabled = no");
    let fact = text_of(&off, "disabled");
    assert!(fact.contains("runner.cfg:4 -> write enabled = yes; once and now: runner -c "), "{fact}");
    assert!(!kinds(&off).contains(&"next".to_owned()));
    assert!(text_of(&scene(""), "no_schedule").starts_with("it has no schedule ->"));
    let main = Scene::new().tasks(["1-a.sh"]);
    main.run(&["why", "main"]).exits(0).prints("it runs when runner is called");
}

#[test]
fn it_would_be_refused_now() {
    let scene = scene("schedule = every 1h\n[task:a/a]\ndepends_on = nobody");
    assert!(text_of(&scene, "refused").contains("runner.cfg:5"), "{}", text_of(&scene, "refused"));
    std::fs::remove_dir_all(scene.path("a")).unwrap();
    assert!(text_of(&scene, "refused").contains("the task directory"));
    let wrong = scene.raw_config("[chain:a]\ntask_dir = b\nschedule = 61 * * * *\n");
    assert!(text_of(&wrong, "wrong").contains("runner.cfg:3: schedule: minute `61`"));
    let several = wrong.raw_config("[chain:a]\ntask_dir = b\nschedule = 61 * * * *\n  @daily\n  monday\n  every 0s\n");
    let check = several.run(&["check"]).exits(78).prints("runner.cfg:3: error: schedule: minute `61`");
    check.prints("runner.cfg:5: error: schedule: `monday` names no time").prints("runner.cfg:6: error: schedule: `every 0s`");
}

#[rstest]
#[case::of_a_tick("tick", "the chain still runs: run x of process 1", "in a daemon, overlap = queue lets it wait")]
#[case::of_a_daemon("schedule", "the chain still runs: run x of process 1", "overlap = queue lets it wait;")]
#[case::where_one_waits("schedule", "the chain still runs, and another slot waits already", "already -> a longer time between slots, or")]
fn what_helps_against_slots_that_find_their_chain_running(#[case] trigger: &str, #[case] why: &str, #[case] advice: &str) {
    let scene = scene("schedule = every 1h");
    let message = Some(why.into());
    let skipped = RunRecord { trigger: trigger.into(), message, ..run("s", "a", "skipped", 30) };
    store(&scene).put_runs(&[run("f", "a", "done", 90), skipped]).unwrap();
    let text = text_of(&scene, "slot_not_run");
    assert!(text.contains(advice), "{text}");
}

#[test]
fn slots_that_were_given_up_and_the_run_that_failed() {
    let scene = scene("schedule = every 1h");
    let skipped = |id: &str, ago| RunRecord {
        scheduled_at: Some(Timestamp::UNIX_EPOCH),
        message: Some("the chain still runs: run x of process 1".into()),
        ..run(id, "a", "skipped", ago)
    };
    let failed = RunRecord { failed_task: Some("1-a.sh".into()), message: Some("exit 7".into()), ..run("f", "a", "gave_up", 90) };
    store(&scene).put_runs(&[failed, skipped("s1", 60), skipped("s2", 30)]).unwrap();
    let kinds = kinds(&scene);
    assert_eq!(kinds.iter().filter(|kind| *kind == "slot_not_run").count(), 1, "{kinds:?}");
    let text = text_of(&scene, "slot_not_run");
    assert!(
        text.contains(
            "2 slots since its last run began were not run, the last one was the slot 1970-01-01T00:00:00+00:00: the chain still runs ->"
        ),
        "{text}"
    );
    let show = format!("runner -c {} show f", scene.config_file().display());
    assert_eq!(text_of(&scene, "last_run"), format!("its last run: gave up, 1-a.sh, exit 7 (run f) -> {show}"));
}

#[test]
fn a_run_that_is_done_and_whose_task_says_that_not_all_is_well() {
    let scene = scene("schedule = every 1h");
    let doubtful = RunRecord { said: Some("warning".into()), message: Some("1-a.sh says warning".into()), ..run("d", "a", "done", 90) };
    store(&scene).put_runs(&[doubtful]).unwrap();
    let show = format!("runner -c {} show d", scene.config_file().display());
    assert_eq!(text_of(&scene, "last_run"), format!("its last run: done, 1-a.sh says warning (run d) -> {show}"));
    scene.run(&["why"]).exits(0).prints("a: ").prints("1-a.sh says warning");
}

#[test]
fn it_runs() {
    let scene = scene("schedule = every 1h").task_at("a/1-a.sh", "play touch begun wait-file go");
    let mut running = scene.start(&["now", "a"]);
    running.wait_for_file("begun");
    let fact = text_of(&scene, "running");
    assert!(fact.starts_with("it runs: run ") && fact.contains("(overlap = skip) -> runner -c ") && fact.ends_with(" stop a"), "{fact}");
    std::fs::write(running.path("go"), "").unwrap();
    running.finish().exits(0);
    assert!(!kinds(&scene).contains(&"running".to_owned()));
}

#[test]
fn a_clock_that_is_none() {
    let scene = scene("schedule = every 1h");
    let (here, later) = (Owner::look(), Timestamp::now().checked_add(SignedDuration::from_hours(48)).unwrap());
    store(&scene).set_watermarks(&here.machine, &[("a".to_owned(), later)], &here, later).unwrap();
    assert!(text_of(&scene, "no_clock").contains("before the newest stored time"));
    assert!(!kinds(&scene).contains(&"next".to_owned()), "there is no date for it");
    let text = scene.run(&["status"]).exits(0).prints("before the newest stored time").stdout_text();
    assert!(text.lines().any(|line| line.starts_with("a ") && line.contains("never ran") && line.contains("no clock")), "{text}");
    let status = scene.run(&["status", "--json"]).exits(0).json();
    let chain = &status["chains"][0];
    assert_eq!((&chain["next"], &status["remarks"][1]["kind"]), (&Value::Array(Vec::new()), &"no_clock".into()), "{status:#}");
    assert_eq!(chain["waits_because"], status["remarks"][1]["text"], "as the daemon has it");
}

/// A machine that has no battery for its clock begins in 1970.
#[cfg(all(feature = "net", feature = "postgres"))]
#[test]
fn a_clock_that_was_not_set_yet_gives_no_dates() {
    let home = scene("schedule = every 1h");
    let Some(clock) = crate::lock_clock::WallClock::new(&home, "clock") else { return };
    clock.set(60 - Timestamp::now().as_second());
    let scene = clock.scene(&home).tasks_at("a", ["1-a.sh"]).raw_config("[chain:a]\ntask_dir = a\nschedule = every 1h\n");
    let words = "the clock shows 1970-01-01T00:0";
    scene.run(&["why", "a"]).exits(0).prints(words).never_prints("next");
    scene.run(&["status"]).exits(0).prints(words).prints("no clock").never_prints("in 5");
    scene.run(&["schedule", "a"]).exits(0).says(words);
    scene.run(&["schedule", "a", "--after", "2027-01-01T00:00:00Z"]).exits(0).never_says(words);
}

#[test]
fn an_unknown_chain() {
    scene("").run(&["why", "aa"]).exits(64).says("no chain is called `aa`; did you mean `a`?");
}

#[test]
fn a_line_that_cannot_be_read_hides_no_chain() {
    let good = "[chain:x]\ntask_dir = a\nschedule = every 1h\n";
    let scene = Scene::new().raw_config(good).task_at("a/1-a.sh", "play touch begun wait-file go");
    store(&scene).put_runs(&[run("r-old", "y", "gave_up", 60)]).unwrap();
    let mut running = scene.start(&["now", "x"]);
    running.wait_for_file("begun");
    let scene = scene.raw_config(format!("{good}garbage\n"));
    let why =
        scene.run(&["why"]).exits(0).prints("the configuration, x, y: ").prints("runner.cfg:4: `garbage`").never_prints("nothing is known");
    assert!(why.stdout_text().contains("y: ") && why.stdout_text().contains("its last run: gave up"), "{why}");
    let all = scene.run(&["why", "--json"]).exits(0).json();
    assert_eq!((&all["configuration"][0]["fact"], &all["chains"][0]["chain"]), (&"wrong".into(), &"x".into()), "{all:#}");
    scene.run(&["why", "x"]).exits(0).prints("it runs: run ").prints("`garbage`").never_prints("no schedule");
    scene.run(&["why", "nothere"]).exits(78);
    let status = scene.run(&["status", "--json"]).exits(0).json();
    let names: Vec<&str> = status["chains"].as_array().unwrap().iter().map(|chain| chain["name"].as_str().unwrap()).collect();
    assert_eq!((names, status["chains"][0]["running"].as_array().unwrap().len()), (vec!["x", "y"], 1), "{status:#}");
    assert_eq!(status["configuration"]["refused"]["line"], 4);
    scene.run(&["status", "x"]).exits(0).says("would not take it over").prints("x  ");
    scene.run(&["show", "x"]).exits(0);
    scene.run(&["show", "y"]).exits(0).prints("r-old");
    std::fs::write(running.path("go"), "").unwrap();
    running.finish().exits(0);
    // Without any chain that is known it is told all the same.
    let alone = Scene::new().raw_config("garbage\n");
    alone.run(&["why"]).exits(0).prints("the configuration: ").prints("`garbage`");
}
