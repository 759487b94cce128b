//! `runner queue` without a state: where one can still be made there is no job yet, where none can be it is 74.

use rstest::rstest;

use crate::queue::scene;
use crate::scene::{Outcome, STATE_DIR, Scene, is_root_or_skipped};

/// Every command of `runner queue`.
const COMMANDS: [&[&str]; 8] =
    [&["list"], &["list", "--queue", "mail"], &["show", "1"], &["stats"], &["cancel", "1"], &["retry", "1"], &["prune"], &["run", "1"]];

fn queue(scene: &Scene, command: &[&str]) -> Outcome {
    scene.run(&[&["queue"], command].concat())
}

/// Each of them says so, once.
fn none_of_them_works(scene: &Scene, why: &str) {
    for command in COMMANDS {
        let run = queue(scene, command).exits(74).says(why);
        assert_eq!(run.stderr_text().lines().count(), 1, "{command:?}: {run}");
    }
    assert_eq!(queue(scene, &["list", "--json"]).exits(74).json()["error"]["code"], 74);
}

#[test]
fn where_nothing_was_ever_added_there_is_no_job_and_none_is_made_by_looking() {
    let scene = scene().task("1-a.sh", "exit 0");
    queue(&scene, &["list"]).exits(0).says("runner.db: no job has been added yet").never_says("there is no job");
    assert_eq!(queue(&scene, &["list", "--json"]).exits(0).json()["jobs"], serde_json::json!([]));
    queue(&scene, &["stats"]).exits(0).says("no job has been added yet").prints("default  0 ");
    queue(&scene, &["show", "1"]).exits(64).says("there is no job 1");
    assert!(!scene.path(STATE_DIR).exists(), "whoever looks makes nothing");
    // What changes something needs a state, and makes it.
    queue(&scene, &["cancel", "1"]).exits(1).says("there is no job 1");
    queue(&scene, &["run", "1"]).exits(64).says("there is no job 1");
    queue(&scene, &["list"]).exits(0).says("there is no job\n").never_says("has been added");
    queue(&scene, &["list", "--state", "failed"]).exits(0).says("there is no job that is failed");
    queue(&scene, &["list", "-Q", "default", "--state", "ready"]).exits(0).says("there is no job of the queue default that is ready");
}

#[rstest]
#[case::through_a_file("story.sh/state", "Not a directory")]
#[case::where_nobody_makes_files("/proc/runner/state", "")]
fn a_state_directory_that_cannot_be_is_74(#[case] place: &str, #[case] why: &str) {
    let scene = scene();
    let place = scene.path(place);
    none_of_them_works(&scene.env("STATE_DIRECTORY", place), why);
}

#[test]
fn a_file_of_something_else_is_74() {
    let scene = scene().file("state.d/runner.db", "this is something else, and it is long enough".repeat(50));
    none_of_them_works(&scene, "is no database of runner");
}

#[test]
fn who_may_neither_read_nor_make_it_is_told_so() {
    if !is_root_or_skipped() {
        return;
    }
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    none_of_them_works(&scene().under(&nobody), "Permission denied");
    let scene = scene();
    scene.run(&["enqueue", "1-a.sh"]).exits(0);
    none_of_them_works(&scene.under(&nobody), "Permission denied");
}

#[cfg(feature = "postgres")]
#[test]
fn a_server_that_is_not_there_is_74() {
    let closed = "[runner]\ndatabase = postgresql://me@127.0.0.1:1/x?connect_timeout=2\n";
    none_of_them_works(&scene().config(closed), "postgresql://me@127.0.0.1:1/x?connect_timeout=2: cannot connect");
}
