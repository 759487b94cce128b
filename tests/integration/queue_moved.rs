//! A database that is moved away, deleted or replaced while somebody works, and jobs that could never begin.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rustix::process::Signal;

use crate::queue::{enqueue, job, scene};
use crate::scene::{STATE_DIR, Scene, until};

const ENDINGS: [&str; 3] = ["", "-wal", "-shm"];

fn database(scene: &Scene) -> PathBuf {
    scene.path(STATE_DIR).join("runner.db")
}

/// A worker has done a job; then this happens, and a job that was added afterwards is done as well.
fn works_on_after(deed: impl Fn(&Scene)) -> Scene {
    let scene = scene().script("tasks.d/a.sh", "echo $1 >>\"$SCENE/ran\"");
    let ran = |what: &str| fs::read_to_string(scene.path("ran")).unwrap_or_default() == what;
    let mut worker = scene.start(&["work", "--sleep", "0.1"]);
    enqueue(&scene, &["a.sh", "old"]);
    until("the first is done", || ran("old\n"));
    deed(&scene);
    enqueue(&scene, &["a.sh", "new"]);
    until("the second is done", || ran("old\nnew\n"));
    worker.signal(Signal::TERM);
    worker.finish().exits(0).says("it was moved away, deleted or replaced");
    until("it is written down", || job(&scene, 1)["state"] == "done");
    assert_eq!(job(&scene, 1)["args"], serde_json::json!(["new"]));
    let checked =
        |file: PathBuf| Connection::open(file).unwrap().query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(checked(database(&scene)), "ok");
    scene
}

#[test]
fn a_database_that_is_moved_away_takes_all_along_and_a_new_one_is_begun() {
    let away = |scene: &Scene| scene.path("away.db");
    let scene = works_on_after(|scene| fs::rename(database(scene), away(scene)).unwrap());
    let old = Connection::open(away(&scene)).unwrap();
    let kept: (String, String) = old.query_row("SELECT args, state FROM jobs", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(kept.0, "[\"old\"]", "what was acknowledged went with the file");
}

#[test]
fn a_database_that_is_moved_with_all_its_files_or_deleted_with_its_directory_is_begun_anew() {
    works_on_after(|scene| {
        for ending in ENDINGS {
            let _ = fs::rename(format!("{}{ending}", database(scene).display()), scene.path(format!("away{ending}")));
        }
    });
    works_on_after(|scene| fs::remove_dir_all(scene.path(STATE_DIR)).unwrap());
}

#[test]
fn a_journal_that_was_left_behind_is_kept_for_the_file_that_was_moved() {
    let scene = scene().task("a.sh", "exit 0");
    enqueue(&scene, &["a.sh", "old"]);
    let journal = |of: &Path, ending: &str| PathBuf::from(format!("{}-wal{ending}", of.display()));
    let (there, away) = (database(&scene), scene.path("away.db"));
    fs::rename(&there, &away).unwrap();
    enqueue(&scene, &["a.sh", "new"]);
    assert_eq!(job(&scene, 1)["args"], serde_json::json!(["new"]));
    fs::rename(journal(&there, ".1"), journal(&away, "")).unwrap();
    let kept: String = Connection::open(away).unwrap().query_row("SELECT args FROM jobs", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, "[\"old\"]", "what was acknowledged is not lost");
}

#[test]
fn whoever_opens_a_file_twice_keeps_it_from_others() {
    let scene = scene().task("a.sh", "exit 0");
    enqueue(&scene, &["a.sh"]);
    let _first = runner::store::sqlite::Sqlite::open(&database(&scene)).unwrap();
    drop(runner::store::sqlite::Sqlite::open_to_read(&database(&scene)).unwrap());
    let _second = runner::store::sqlite::Sqlite::open(&database(&scene)).unwrap();
    // The last one to close a file takes its journal away.
    scene.run(&["queue", "prune"]).exits(0);
    assert!(scene.path(STATE_DIR).join("runner.db-wal").exists(), "it was taken for a file that nobody uses");
}

/// Whether somebody listens beside the database.
fn is_heard_of(scene: &Scene) -> bool {
    let beside = scene.path(STATE_DIR).join("runner.db-workers");
    fs::read_dir(beside).into_iter().flatten().flatten().any(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()))
}

#[test]
fn a_daemon_whose_state_directory_is_taken_away_works_on_and_hears_of_jobs_at_once() {
    let config =
        |poll: &str| format!("[runner]\ntask_dir = tasks.d\n[queue:default]\ntask_dir = tasks.d\npoll = {poll}\n[daemon]\nqueues = *\n");
    let scene = Scene::new().task("a.sh", "exit 0").raw_config(config("0.1"));
    let is_done = |scene: &Scene, id: i64| job(scene, id)["state"] == "done";
    let mut daemon = scene.start(&["daemon"]);
    until("it listens", || is_heard_of(&scene));
    let old = enqueue(&scene, &["a.sh"])[0];
    until("the first is done", || is_done(&scene, old));
    fs::rename(scene.path(STATE_DIR), scene.path("away")).unwrap();
    until("it listens again", || is_heard_of(&scene));
    let new = enqueue(&scene, &["a.sh"])[0];
    until("the second is done", || is_done(&scene, new));
    // From now on it looks by itself once an hour, after one look that stands already.
    let scene = scene.raw_config(config("1h"));
    fs::write(scene.config_file(), config("1h")).unwrap();
    daemon.signal(Signal::HUP).wait_for_message("the configuration was read again", "");
    for _ in 0..3 {
        let id = enqueue(&scene, &["a.sh"])[0];
        until("it is told", || is_done(&scene, id));
    }
    daemon.signal(Signal::TERM);
    daemon.finish().exits(0).says("it was moved away, deleted or replaced").says("heard of at once again");
}

#[test]
fn what_could_never_begin_is_refused_or_fails_at_once() {
    let scene = scene().config("retry_delay = 0\n").task("a.sh", "exit 0");
    let long = format!("{{\"task\":\"a.sh\"}}\n\n{{\"task\":\"a.sh\",\"args\":[\"{}\"]}}\n", "x".repeat(131_072));
    scene.run(&["queue", "prune"]).exits(0);
    let scene = scene.file("stdin", long);
    scene.run(&["enqueue", "--stdin"]).exits(64).says("line 3: argument 1 has 131072 bytes");
    assert_eq!(crate::queue::jobs(&scene).len(), 0, "all or none");
    let sql = format!("INSERT INTO jobs (task, args) VALUES ('a.sh', '[\"{}\"]')", "x".repeat(200_000));
    Connection::open(database(&scene)).unwrap().execute_batch(&sql).unwrap();
    scene.run(&["work", "--drain"]).exits(0);
    let job = job(&scene, 1);
    assert_eq!((job["state"].as_str(), job["attempts"].as_i64()), (Some("failed"), Some(1)), "{}", job["message"]);
}
