//! A database that is moved away, deleted or replaced while somebody works, a disk that is full, and jobs that could never
//! begin.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rusqlite::Connection;
use rustix::process::Signal;

use crate::queue::{enqueue, job, scene};
use crate::scene::{STATE_DIR, Scene, skipped, spawn, succeeds, until};

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

#[test]
fn a_journal_does_not_fill_a_small_disk() {
    if !succeeds(Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "-o", "size=1m", "small", "/tmp"])) {
        return skipped("nothing can be mounted here");
    }
    let scene = scene().config("jobs = 1\n").task("a.sh", "exit 0");
    let jobs = (0..300).map(|_| "{\"task\":\"a.sh\"}\n").collect::<String>();
    let scene = scene.file("jobs", jobs).file("state/here", "");
    // Which writes the configuration.
    scene.run(&["queue", "prune"]).exits(0);
    let program = crate::scene::runner_binary();
    let (program, config) = (program.display(), scene.config_file());
    let script = format!(
        "mount -t tmpfs -o size=3m small state && {program} -c {config} enqueue --stdin <jobs >/dev/null && \
         timeout 50 {program} -c {config} work --drain --fail",
        config = config.display()
    );
    let mut shell = Command::new("unshare");
    shell
        .args(["--mount", "sh", "-c", &script])
        .current_dir(scene.root())
        .env("STATE_DIRECTORY", scene.path("state"))
        .env("SCENE", scene.root());
    shell.stdout(fs::File::create(scene.path("said")).unwrap()).stderr(fs::File::create(scene.path("cried")).unwrap());
    let ended = spawn(&mut shell).unwrap().0.wait().unwrap();
    assert!(ended.success(), "{}", fs::read_to_string(scene.path("cried")).unwrap());
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
