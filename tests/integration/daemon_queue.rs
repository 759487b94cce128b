//! A daemon that works queues: jobs beside chains, another configuration, a stop, a crash, a database that is broken.

use std::fs;

use rusqlite::Connection;
use rustix::process::Signal;

use crate::daemon_http::{ask, json};
use crate::push::promtool_is_content;
use crate::queue::{enqueue, job, jobs};
use crate::queue_crash::{all_is_well, noted_scene, ran};
use crate::scene::{Running, STATE_DIR, Scene, until};

/// Tells that its attempt has begun, and ends when it may.
const JOB: &str = "touch \"$SCENE/begun.$RUNNER_JOB_ID.$RUNNER_TRY\"; exec \"$PROBE\" wait-file \"$SCENE/go.$RUNNER_JOB_ID\"";
/// Queues that nobody looks into without being told.
const QUEUES: &str =
    "[queue:mail]\ntask_dir = tasks.d\npoll = 1h\nkill_after = 1\n[queue:images]\ntask_dir = tasks.d\npoll = 1h\nkill_after = 1\n";

/// A daemon that works these queues and answers on a socket file; `rest` is more of its section, or of the configuration.
fn config(scene: &Scene, queues: &str, rest: &str) -> String {
    format!("[runner]\ntask_dir = tasks.d\n{QUEUES}[daemon]\nlisten = {}\nqueues = {queues}\n{rest}\n", scene.path("http").display())
}

fn scene(queues: &str, rest: &str) -> Scene {
    let scene = Scene::new().script("tasks.d/a.sh", JOB).script("tasks.d/quick.sh", "exit 0");
    with(scene, queues, rest)
}

/// The scene with another configuration, which is in its file at once.
fn with(scene: Scene, queues: &str, rest: &str) -> Scene {
    let text = config(&scene, queues, rest);
    fs::write(scene.config_file(), &text).unwrap();
    scene.raw_config(text)
}

fn start(scene: &Scene) -> Running {
    let mut running = scene.start(&["daemon"]);
    running.wait_for_message("answers on", "");
    // Whoever adds a job while the database is being made may be told that it cannot be opened.
    until("the database is there", || json(&running, "/status.json")["queues"][0]["uncounted"].is_null());
    running
}

fn is_done(scene: &Scene, id: i64) -> bool {
    job(scene, id)["state"] == "done"
}

/// A job that is allowed to end at once, added and done.
#[track_caller]
fn does(scene: &Scene, queue: &str) {
    let id = enqueue(scene, &["-Q", queue, "quick.sh"])[0];
    until("the job is done", || is_done(scene, id));
}

fn ends(mut running: Running) {
    running.signal(Signal::TERM);
    running.finish().exits(0).nothing_alive();
}

#[test]
fn jobs_are_done_and_shown() {
    let says = "\"$PROBE\" notify 'STATUS=half <b>way</b>' notify X_RUNNER_PROGRESS=50 notify-barrier touch \"$SCENE/begun\" wait-file \"$SCENE/go\"";
    let scene = scene("*", "").script("tasks.d/says.sh", says);
    let mut running = start(&scene);
    let status = json(&running, "/status.json");
    assert_eq!((&status["queues"][1]["name"], &status["queues"][1]["ready"]), (&"mail".into(), &0.into()), "{status}");
    let first = enqueue(&scene, &["-Q", "mail", "--name", "to all", "says.sh"])[0];
    running.wait_for_file("begun");
    enqueue(&scene, &["-Q", "mail", "quick.sh"]);
    enqueue(&scene, &["-Q", "mail", "--in", "1h", "quick.sh"]);
    until("it is shown", || json(&running, "/status.json")["queues"][1]["scheduled"] == 1);
    let queue = &json(&running, "/status.json")["queues"][1];
    let numbers = ["scheduled", "ready", "running", "failed", "places"].map(|key| queue[key].as_i64());
    assert_eq!(numbers, [1, 1, 1, 0, 1].map(Some), "{queue}");
    assert!(queue["oldest_ready"].as_str().is_some_and(|at| at.parse::<jiff::Timestamp>().is_ok()), "{queue}");
    let shown = &queue["jobs"][0];
    assert_eq!((&shown["name"], &shown["progress"], &shown["attempt"]), (&"to all".into(), &50.into(), &1.into()), "{queue}");
    let (_, page) = ask(&running, "GET", "/");
    assert!(page.contains("half &lt;b&gt;way&lt;/b&gt;") && page.contains("1 job ready in 2 queues"), "{page}");
    let (_, metrics) = ask(&running, "GET", "/metrics");
    for line in ["runner_queue_jobs{queue=\"mail\",state=\"ready\"} 1", "runner_queue_places{queue=\"images\"} 1"] {
        assert!(metrics.lines().any(|known| known == line), "{line}: {metrics}");
    }
    let table = scene.run(&["status"]).exits(0).stdout_text();
    assert!(table.contains("QUEUE   READY  OLDEST WAITS  RUNNING  DUE LATER  FAILED"), "{table}");
    assert!(table.lines().any(|line| line.starts_with("1    mail ") && line.ends_with("to all")), "{table}");
    let status = scene.run(&["status", "--json"]).exits(0).json();
    assert_eq!((&status["queues"][1]["running"], &status["queues"][1]["jobs"][0]["id"]), (&1.into(), &"1".into()), "{status}");
    fs::write(running.path("go"), "").unwrap();
    until("both are done", || is_done(&scene, first) && is_done(&scene, 2));
    until("it is counted", || {
        let metrics = ask(&running, "GET", "/metrics").1;
        metrics.contains("runner_jobs_total{queue=\"mail\",outcome=\"done\"} 2")
            && metrics.contains("runner_job_tries_total{queue=\"mail\",result=\"OK\"} 2")
    });
    promtool_is_content(&scene, &ask(&running, "GET", "/metrics").1);
    ends(running);
}

#[test]
fn a_daemon_without_queues_works_none_and_shows_them() {
    let scene = scene("", "[chain:a]\ntask_dir = tasks.d\n");
    enqueue(&scene, &["-Q", "mail", "quick.sh"]);
    let running = start(&scene);
    let status = json(&running, "/status.json");
    assert_eq!((&status["queues"][1]["ready"], &status["queues"][1]["places"]), (&1.into(), &serde_json::Value::Null), "{status}");
    let threads = fs::read_dir(format!("/proc/{}/task", running.pid())).unwrap().flatten();
    let names: Vec<String> = threads.map(|thread| fs::read_to_string(thread.path().join("comm")).unwrap_or_default()).collect();
    assert_eq!(names.iter().filter(|name| name.trim() == "store").count(), 1, "{names:?}");
    let sockets = fs::read_dir(scene.path(STATE_DIR).join("runner.db-workers")).map_or(0, Iterator::count);
    assert_eq!(sockets, 0, "it listens for jobs");
    ends(running);
}

#[test]
fn a_queue_that_is_not_there_is_told_with_its_line() {
    for command in ["daemon", "check"] {
        let outcome = scene("mial", "").run(&[command]).exits(78);
        let text = format!("{}{}", outcome.stdout_text(), outcome.stderr_text());
        assert!(text.contains("runner.cfg:13:") && text.contains("no queue is called `mial`; did you mean `mail`?"), "{text}");
    }
    let scene = scene("mail", "");
    assert!(scene.run(&["check"]).exits(0).stdout_text().contains("runner daemon works 1 queue: mail (1 job) side by side"));
    let list = scene.run(&["list"]).exits(0).stdout_text();
    assert!(list.lines().any(|line| line.starts_with("queue mail in ") && line.ends_with("runner.cfg:3")), "{list}");
    assert_eq!(scene.run(&["list", "--json"]).exits(0).json()["queues"][0]["jobs"], 1);
}

#[test]
fn another_configuration_leaves_what_runs_alone() {
    let scene = scene("mail", "");
    let mut running = start(&scene);
    let first = enqueue(&scene, &["-Q", "mail", "a.sh"])[0];
    running.wait_for_file("begun.1.1");
    // The same queue anew: its one place is taken.
    let scene = with(scene, "mail images", "");
    running.signal(Signal::HUP).wait_for_message("the configuration was read again", "");
    enqueue(&scene, &["-Q", "mail", "a.sh"]);
    does(&scene, "images");
    assert!(!scene.path("begun.2.1").exists(), "jobs = 1, and two of them run");
    // Another queue: that one takes nothing more.
    let scene = with(scene, "images", "stop_time = 7\n");
    running.signal(Signal::HUP);
    until("it is told", || {
        json(&running, "/status.json")["queues"][1]["places"].is_null() && json(&running, "/status.json")["queues"][1]["running"] == 1
    });
    fs::write(scene.path("go.1"), "").unwrap();
    until("the first is done", || is_done(&scene, first));
    does(&scene, "images");
    assert_eq!((job(&scene, first)["attempts"].as_i64(), job(&scene, 2)["state"].as_str()), (Some(1), Some("ready")));
    // One that is broken changes nothing.
    let scene = with(scene, "mail pictures", "");
    running.signal(Signal::HUP).wait_for_message("the old one stays", "pictures");
    let scene = with(scene, "images", "stop_time = 7\n");
    does(&scene, "images");
    // None at all: nothing of it is left but the count of it.
    let scene = with(scene, "", "");
    running.signal(Signal::HUP).wait_for_message("works no queue any more", "");
    let scene = with(scene, "*", "").file("go.2", "");
    running.signal(Signal::HUP);
    until("the second is done", || is_done(&scene, 2));
    assert!(!scene.path("begun.1.2").exists() && !scene.path("begun.2.2").exists());
    ends(running);
}

#[test]
fn a_changed_file_is_seen_before_jobs_are_taken() {
    let scene = scene("mail", "");
    let mut running = start(&scene);
    does(&scene, "mail");
    // Nobody tells it. It looks at its files once a second at most, when there are jobs.
    let scene = with(scene, "mail images", "");
    let id = enqueue(&scene, &["-Q", "images", "quick.sh"])[0];
    until("the new queue is worked", || {
        does(&scene, "mail");
        is_done(&scene, id)
    });
    running.wait_for_message("works 2 queues: mail, images", "");
    ends(running);
}

#[test]
fn told_to_stop_it_gives_jobs_back_or_lets_them_end() {
    let scene = scene("mail", "");
    let id = enqueue(&scene, &["-Q", "mail", "a.sh"])[0];
    let mut running = start(&scene);
    running.wait_for_file("begun.1.1");
    ends(running);
    assert_eq!((job(&scene, id)["state"].as_str(), job(&scene, id)["attempts"].as_i64()), (Some("ready"), Some(0)));
    // With time to end.
    let scene = with(scene, "mail", "[daemon]\nstop_time = 1h\n");
    fs::remove_file(scene.path("begun.1.1")).unwrap();
    let mut running = start(&scene);
    running.wait_for_file("begun.1.1");
    enqueue(&scene, &["-Q", "mail", "quick.sh"]);
    running.signal(Signal::TERM).wait_for_message("told to stop; 1 job still", "");
    fs::write(scene.path("go.1"), "").unwrap();
    running.finish().exits(0).nothing_alive();
    assert_eq!((job(&scene, id)["state"].as_str(), job(&scene, id)["attempts"].as_i64()), (Some("done"), Some(1)));
    assert_eq!(job(&scene, 2)["state"], "ready", "nothing new begins");
    // And with somebody who cannot wait.
    let id = enqueue(&scene, &["-Q", "mail", "--priority", "1", "a.sh"])[0];
    let mut running = start(&scene);
    running.wait_for_file(&format!("begun.{id}.1"));
    running.signal(Signal::TERM).wait_for_message("told to stop", "1 job still");
    running.insist(Signal::TERM);
    running.finish().exits(0).nothing_alive();
    assert_eq!((job(&scene, id)["state"].as_str(), job(&scene, id)["attempts"].as_i64()), (Some("ready"), Some(0)));
}

#[test]
fn a_third_signal_kills_what_does_not_obey() {
    let scene = scene("mail", "stop_time = 1h\n[queue:mail]\nkill_after = 600\n")
        .script("tasks.d/a.sh", "trap 'say told' TERM\nprobe touch begun\nwhile :; do probe ignore TERM nap 20; done");
    enqueue(&scene, &["-Q", "mail", "a.sh"]);
    let mut running = start(&scene);
    running.wait_for_file("begun").signal(Signal::TERM).wait_for_message("told to stop", "1 job still");
    // The same one within a tenth of a second would be an echo.
    running.signal(Signal::INT).wait_for_log("- told").signal(Signal::TERM);
    running.finish().exits(0).nothing_alive().quicker_than(30);
}

#[test]
fn after_a_crash_the_next_daemon_begins_the_job_again() {
    // Two of them at the same time are found by a lock that a dead one lets go.
    let locked = "exec 9>\"$SCENE/lock\"; flock -n 9 || touch \"$SCENE/twice\"\n";
    let scene = scene("mail", "").script("tasks.d/a.sh", &format!("{locked}{JOB}"));
    let id = enqueue(&scene, &["-Q", "mail", "a.sh"])[0];
    let mut running = start(&scene);
    running.wait_for_file("begun.1.1");
    running.insist(Signal::KILL);
    drop(running);
    let mut running = start(&scene);
    running.wait_for_message("job 1: its worker, process", "is gone");
    running.wait_for_file("begun.1.2");
    fs::write(scene.path("go.1"), "").unwrap();
    until("it is done", || is_done(&scene, id));
    assert_eq!(job(&scene, id)["attempts"], 2);
    assert!(!scene.path("twice").exists(), "two at the same time");
    ends(running);
}

#[test]
fn daemons_that_are_killed_again_and_again_lose_no_job() {
    const DEATHS: usize = 6;
    let scene = noted_scene().config("[daemon]\nqueues = default\n");
    let scene = scene.file("stdin", "{\"task\":\"a.sh\"}\n".repeat(5 * DEATHS));
    let ids = enqueue(&scene, &["--stdin"]);
    for _ in 0..DEATHS {
        let before = ran(&scene).len();
        let mut running = scene.start(&["daemon"]);
        until("some jobs are done, or all", || ran(&scene).len() > before || ran(&scene).len() == ids.len());
        running.insist(Signal::KILL);
    }
    // What a job has written is no end: one that is stopped between the two is given back, and its next run has the same number.
    let running = scene.start(&["daemon"]);
    until("all jobs are done", || jobs(&scene).iter().all(|job| job["state"] == "done"));
    ends(running);
    all_is_well(&scene, &ids, 1 + DEATHS as i64);
}

#[test]
fn a_job_that_the_worker_has_lost_is_begun_again() {
    let scene = scene("mail", "[queue:mail]\njobs = 2\npoll = 0.1\n");
    enqueue(&scene, &["-Q", "mail", "a.sh"]);
    let mut running = start(&scene);
    running.wait_for_file("begun.1.1");
    // As if the answer to a turn had been lost with its database: the row is this worker's, who knows nothing of it.
    let database = Connection::open(scene.path(STATE_DIR).join("runner.db")).unwrap();
    database.busy_timeout(crate::running::DEADLINE).unwrap();
    let lost = "INSERT INTO jobs (queue, task, state, attempts, claim, host, boot_id, pid, start_time, lease_until, began) \
                SELECT queue, 'quick.sh', state, attempts, 'lost.2', host, boot_id, pid, start_time, lease_until, began FROM jobs WHERE id = 1";
    database.execute_batch(lost).unwrap();
    until("it is done after all", || is_done(&scene, 2));
    running.wait_for_message("job 2: this worker has lost it", "");
    assert_eq!(job(&scene, 2)["attempts"], 2);
    fs::write(scene.path("go.1"), "").unwrap();
    until("the other one is left alone", || is_done(&scene, 1));
    assert_eq!(job(&scene, 1)["attempts"], 1);
    ends(running);
}

#[test]
fn chains_go_on_while_the_table_of_jobs_is_broken() {
    let chain = "[chain:a]\ntask_dir = chain\nschedule = every 1s\n";
    let scene = scene("mail", chain).script("chain/1-a.sh", "echo x >>\"$SCENE/slots\"");
    let mut running = start(&scene);
    // A job that runs meanwhile is left alone; its end is written down later.
    let first = enqueue(&scene, &["-Q", "mail", "a.sh"])[0];
    running.wait_for_file("begun.1.1");
    let database = Connection::open(scene.path(STATE_DIR).join("runner.db")).unwrap();
    database.busy_timeout(crate::running::DEADLINE).unwrap();
    database.execute_batch("ALTER TABLE jobs RENAME TO hidden").unwrap();
    fs::write(scene.path("go.1"), "").unwrap();
    running.wait_for_message("the queues are not worked, chains go on", "jobs");
    let slots = |scene: &Scene| fs::read_to_string(scene.path("slots")).unwrap_or_default().len();
    let before = slots(&scene);
    until("chains go on", || slots(&scene) > before + 2);
    let queue = &json(&running, "/status.json")["queues"][1];
    assert!(queue["trouble"].as_str().is_some_and(|why| why.contains("jobs")), "{queue}");
    assert!(ask(&running, "GET", "/").1.contains("jobs are not taken"));
    assert!(ask(&running, "GET", "/metrics").1.contains("runner_queue_working{queue=\"mail\"} 0"));
    database.execute_batch("ALTER TABLE hidden RENAME TO jobs").unwrap();
    running.wait_for_message("the queues are worked again", "");
    until("it is written down", || is_done(&scene, first));
    assert_eq!(job(&scene, first)["attempts"], 1);
    does(&scene, "mail");
    ends(running);
}

#[test]
fn others_are_told_how_queues_stand() {
    let scene = scene("mail", "[metrics]\ntextfile = out.prom\n");
    let told =
        |scene: &Scene, line: &str| fs::read_to_string(scene.path("out.prom")).unwrap_or_default().lines().any(|known| known == line);
    enqueue(&scene, &["-Q", "mail", "quick.sh"]);
    enqueue(&scene, &["-Q", "mail", "--in", "1h", "quick.sh"]);
    scene.run(&["work", "-Q", "mail", "--drain"]).exits(0);
    for line in [
        "runner_queue_jobs{queue=\"mail\",state=\"scheduled\"} 1",
        "runner_queue_jobs{queue=\"mail\",state=\"done\"} 1",
        "runner_queue_oldest_ready_seconds{queue=\"mail\"} 0",
        "runner_jobs_total{queue=\"mail\",outcome=\"done\"} 1",
        "runner_job_tries_total{queue=\"mail\",result=\"OK\"} 1",
    ] {
        assert!(told(&scene, line), "{line}: {}", fs::read_to_string(scene.path("out.prom")).unwrap_or_default());
    }
    promtool_is_content(&scene, &fs::read_to_string(scene.path("out.prom")).unwrap());
    fs::remove_file(scene.path("out.prom")).unwrap();
    let running = start(&scene);
    until("the daemon tells, too", || told(&scene, "runner_queue_jobs{queue=\"mail\",state=\"scheduled\"} 1"));
    does(&scene, "mail");
    ends(running);
    assert!(told(&scene, "runner_jobs_total{queue=\"mail\",outcome=\"done\"} 1"));
}
