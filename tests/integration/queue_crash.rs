//! The queue under kill -9 and in a crowd: nothing that was acknowledged is lost, no job runs twice at the same time, none
//! is stuck, and each attempt has a number of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use rusqlite::Connection;
use rustix::process::Signal;

use crate::queue::{enqueue, job, jobs, scene};
use crate::running::pause_briefly;
use crate::scene::{Running, STATE_DIR, Scene, spawn, until};

/// Notes each attempt when it ends; two of one job at the same time are found by a lock that a dead one lets go.
pub(crate) const NOTED: &str = "exec 9>\"$SCENE/lock.$RUNNER_JOB_ID\"\nflock -n 9 || echo \"$RUNNER_JOB_ID\" >>\"$SCENE/twice\"\n\
                     sleep 0.02\necho \"$RUNNER_JOB_ID $RUNNER_TRY\" >>\"$SCENE/ran\"";

pub(crate) fn noted_scene() -> Scene {
    scene().config("jobs = 3\n").script("tasks.d/a.sh", NOTED)
}

/// The attempts that came to their end, by job.
pub(crate) fn ran(scene: &Scene) -> BTreeMap<i64, Vec<i64>> {
    let mut ran: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for line in fs::read_to_string(scene.path("ran")).unwrap_or_default().lines() {
        let (job, attempt) = line.split_once(' ').unwrap();
        ran.entry(job.parse().unwrap()).or_default().push(attempt.parse().unwrap());
    }
    ran
}

/// All of these are done, each attempt had its own number, and never two of them at once.
#[track_caller]
pub(crate) fn all_is_well(scene: &Scene, acknowledged: &[i64], most_attempts: i64) {
    let (jobs, ran) = (jobs(scene), ran(scene));
    let known: BTreeSet<i64> = jobs.iter().map(|job| job["id"].as_i64().unwrap()).collect();
    assert!(acknowledged.iter().all(|id| known.contains(id)), "acknowledged and lost: {acknowledged:?}, {known:?}");
    for job in &jobs {
        let id = job["id"].as_i64().unwrap();
        let attempts = ran.get(&id).cloned().unwrap_or_default();
        assert_eq!(job["state"], "done", "stuck: {job}");
        assert!(!attempts.is_empty(), "done without having run: {job}");
        assert_eq!(attempts.iter().collect::<BTreeSet<_>>().len(), attempts.len(), "one attempt twice: {id} {attempts:?}");
        assert!(job["attempts"].as_i64().unwrap() <= most_attempts, "{job}");
    }
    assert!(!scene.path("twice").exists(), "at the same time: {}", fs::read_to_string(scene.path("twice")).unwrap_or_default());
}

/// strace kills the program at its `when`th call; tells whether it was.
pub(crate) fn killed_at(scene: &Scene, call: &str, when: u32, args: &[&str]) -> (bool, String) {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e"]);
    strace.arg(format!("inject={call}:signal=KILL:when={when}")).arg(crate::scene::runner_binary());
    strace.arg("-c").arg(scene.config_file()).args(args).env("STATE_DIRECTORY", scene.path(STATE_DIR)).env("SCENE", scene.root());
    let said = scene.path("said");
    strace.stdout(fs::File::create(&said).unwrap()).stderr(fs::File::create(scene.path("cried")).unwrap());
    let ended = spawn(&mut strace).unwrap().0.wait().unwrap();
    (!ended.success(), fs::read_to_string(said).unwrap())
}

/// Kills a worker at each of these calls, and lets another one finish its job.
fn workers_die_at(calls: &[(&str, u32)], least: u32) {
    let mut deaths = 0;
    for (call, times) in calls {
        for when in 1..=*times {
            let scene = noted_scene();
            let id = enqueue(&scene, &["a.sh"])[0];
            let (died, _) = killed_at(&scene, call, when, &["work", "--drain"]);
            deaths += u32::from(died);
            scene.run(&["work", "--drain"]).exits(0);
            all_is_well(&scene, &[id], 2);
        }
    }
    assert!(deaths >= least, "only {deaths} were killed");
}

#[test]
fn a_worker_may_die_before_and_after_whatever_is_durable() {
    workers_die_at(&[("fdatasync,fsync", 4), ("pwrite64", 9)], 6);
}

#[test]
fn a_worker_may_die_where_a_process_begins_and_where_its_end_is_heard_of() {
    workers_die_at(&[("clone3,vfork,clone", 3), ("waitid", 3), ("eventfd2,write", 5)], 4);
}

#[test]
fn an_enqueuer_may_die_at_every_step() {
    let mut deaths = 0;
    for (call, times) in [("fdatasync,fsync", 3), ("pwrite64", 10), ("write", 2)] {
        for when in 1..=times {
            let scene = noted_scene();
            enqueue(&scene, &["a.sh"]);
            let (died, said) = killed_at(&scene, call, when, &["enqueue", "a.sh"]);
            deaths += u32::from(died);
            let acknowledged: Vec<i64> = said.lines().filter_map(|line| line.parse().ok()).chain([1]).collect();
            scene.run(&["work", "--drain"]).exits(0);
            all_is_well(&scene, &acknowledged, 1);
        }
    }
    assert!(deaths > 5, "only {deaths} were killed");
}

#[test]
fn workers_that_are_killed_again_and_again_lose_nothing() {
    // More of them in a run that somebody wants to be long.
    let deaths: usize = std::env::var("QUEUE_DEATHS").ok().and_then(|deaths| deaths.parse().ok()).unwrap_or(12);
    let count = 5 * deaths as i64;
    let scene = noted_scene();
    let lines = "{\"task\":\"a.sh\"}\n".repeat(5 * deaths);
    let scene = scene.file("stdin", lines);
    let ids = enqueue(&scene, &["--stdin"]);
    let start = || scene.start(&["work", "--sleep", "0.1"]);
    let mut workers: Vec<Running> = vec![start(), start()];
    for death in 0..deaths {
        let before = ran(&scene).len();
        until("some jobs are done, or all", || ran(&scene).len() > before + 1 || ran(&scene).len() as i64 == count);
        // Not always at the same point of its life.
        (0..death % 5).for_each(|_| pause_briefly());
        let mut worker = workers.remove(0);
        worker.signal(Signal::KILL);
        drop(worker);
        workers.push(start());
    }
    until("all jobs are done", || ran(&scene).len() as i64 == count);
    for mut worker in workers {
        worker.signal(Signal::TERM);
        worker.finish().exits(0);
    }
    scene.run(&["work", "--drain", "--sleep", "0.1"]).exits(0);
    all_is_well(&scene, &ids, 1 + deaths as i64);
}

#[test]
fn eight_workers_and_sixteen_writers_share_a_file() {
    const WRITERS: usize = 16;
    const EACH: usize = 4;
    let scene = noted_scene();
    scene.run(&["queue", "prune"]).exits(0);
    let workers: Vec<Running> = (0..8).map(|_| scene.start(&["work", "--jobs", "2", "--sleep", "0.2"])).collect();
    let enqueue_some =
        format!("for n in 1 2 3 4; do {} -c {} enqueue a.sh || exit; done", env!("CARGO_BIN_EXE_runner"), scene.config_file().display());
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let mut writer = Command::new("sh");
            writer.args(["-c", &enqueue_some]).env("STATE_DIRECTORY", scene.path(STATE_DIR));
            writer.stdout(std::process::Stdio::null());
            spawn(&mut writer).unwrap().0
        })
        .collect();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success(), "an enqueuer was refused");
    }
    until("all jobs are done", || ran(&scene).len() == WRITERS * EACH);
    for mut worker in workers {
        worker.signal(Signal::TERM);
        worker.finish().exits(0).never_says("locked").never_says("error");
    }
    all_is_well(&scene, &[], 1);
    assert_eq!(jobs(&scene).len(), WRITERS * EACH);
}

#[test]
fn a_healthy_job_outlives_its_lease() {
    // As if a minute had passed without a renewal: a worker beside it sees that the process lives.
    let scene = scene().script("tasks.d/a.sh", "echo x >>\"$SCENE/begun\"; probe wait-file \"$SCENE/go\"");
    let id = enqueue(&scene, &["a.sh"])[0];
    let mut worker = scene.start(&["work"]);
    worker.wait_for_file("begun");
    Connection::open(scene.path(STATE_DIR).join("runner.db")).unwrap().execute_batch("UPDATE jobs SET lease_until = 1").unwrap();
    scene.run(&["work", "--duration", "0.5"]).exits(0);
    let scene = scene.file("go", "");
    until("it is done", || job(&scene, id)["state"] == "done");
    assert_eq!((fs::read_to_string(scene.path("begun")).unwrap().as_str(), job(&scene, id)["attempts"].as_i64()), ("x\n", Some(1)));
}

#[test]
fn a_worker_of_another_machine_is_believed_until_its_lease_ends() {
    let scene = noted_scene();
    let id = enqueue(&scene, &["a.sh"])[0];
    let sql = |text: &str| Connection::open(scene.path(STATE_DIR).join("runner.db")).unwrap().execute_batch(text).unwrap();
    sql("UPDATE jobs SET state = 'running', attempts = 1, claim = 'x.1', host = 'elsewhere', boot_id = 'b', pid = 1, start_time = 1, \
         lease_until = CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) + 600000");
    scene.run(&["work", "--duration", "0.4"]).exits(0);
    assert_eq!(job(&scene, id)["state"], "running");
    sql("UPDATE jobs SET lease_until = 1");
    scene.run(&["work", "--drain"]).exits(0).says("its worker on elsewhere is gone");
    assert_eq!((job(&scene, id)["state"].as_str(), job(&scene, id)["attempts"].as_i64()), (Some("done"), Some(2)));
}
