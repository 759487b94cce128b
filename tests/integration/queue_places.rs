//! Workers in containers: two PID namespaces of one host name and one boot share a queue, and neither can see the
//! other's processes. Neither takes the other for dead; the lease tells.

use std::process::Command;

use crate::queue::{enqueue, job, scene};
use crate::scene::{Running, STATE_DIR, Scene, skipped, succeeds, until};

const NAMESPACE: [&str; 5] = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// Runs until it is told to go on; its first attempt alone.
const TASK: &str = "echo x >>\"$SCENE/begun\"; [ \"$RUNNER_TRY\" != 1 ] || play wait-file \"$SCENE/go\"";

/// Two scenes with one queue, the second of them in a namespace of its own.
fn two_places(config: &str) -> Option<(Scene, Scene)> {
    if !succeeds(Command::new(NAMESPACE[0]).args(&NAMESPACE[1..]).arg("true")) {
        skipped("no process namespace can be made here");
        return None;
    }
    let task_dir = |scene: &Scene| format!("[queue:default]\ntask_dir = {}\npoll = 0.1\n{config}", scene.path("tasks.d").display());
    let home = scene().task("a.sh", TASK);
    let home_config = task_dir(&home);
    let away = Scene::new().raw_config(home_config.clone()).env("SCENE", home.root()).env("STATE_DIRECTORY", home.path(STATE_DIR));
    Some((home.raw_config(home_config), away.under(&NAMESPACE)))
}

/// A job begins in one place, and whoever works in the other looks around.
fn is_let_alone(one: &Scene, other: &Scene, home: &Scene) -> (Running, i64) {
    let id = enqueue(home, &["a.sh"])[0];
    let mut worker = one.start(&["work"]);
    until("it has begun", || home.path("begun").exists());
    other.run(&["work", "--duration", "0.5"]).exits(0).never_says("gone");
    let running = job(home, id);
    assert_eq!((running["state"].as_str(), running["attempts"].as_i64()), (Some("running"), Some(1)), "{running}");
    worker.wait_for("it still works", |_| true);
    (worker, id)
}

fn begun(home: &Scene) -> usize {
    std::fs::read_to_string(home.path("begun")).unwrap().lines().count()
}

/// Both ways; then the one in the container is killed, and its lease is what the other waits for.
fn share_a_queue(config: &str, end_the_leases: impl Fn(&Scene)) {
    let Some((home, away)) = two_places(config) else { return };
    let (worker, id) = is_let_alone(&home, &away, &home);
    let home = home.file("go", "");
    until("it is done", || job(&home, id)["state"] == "done");
    drop(worker);
    std::fs::remove_file(home.path("go")).unwrap();
    std::fs::remove_file(home.path("begun")).unwrap();
    let (worker, id) = is_let_alone(&away, &home, &home);
    // Ends unshare, and by that all in the namespace.
    drop(worker);
    home.run(&["work", "--duration", "0.5"]).exits(0);
    assert_eq!((job(&home, id)["state"].as_str(), begun(&home)), (Some("running"), 1), "nobody knows that it is gone");
    end_the_leases(&home);
    home.run(&["work", "--drain"]).exits(0).says("is gone");
    let done = job(&home, id);
    assert_eq!((done["state"].as_str(), done["attempts"].as_i64(), begun(&home)), (Some("done"), Some(2), 2), "{done}");
}

const EXPIRE: &str = "UPDATE jobs SET lease_until = 1 WHERE state = 'running'";

#[test]
fn containers_that_share_a_file_do_not_take_each_other_for_dead() {
    share_a_queue("", |home| {
        rusqlite::Connection::open(home.path(STATE_DIR).join("runner.db")).unwrap().execute_batch(EXPIRE).unwrap();
    });
}

#[test]
fn a_worker_in_a_container_is_seen_to_live_although_its_lease_has_ended() {
    let Some((home, away)) = two_places("") else { return };
    let id = enqueue(&home, &["a.sh"])[0];
    let _worker = away.start(&["work"]);
    until("it has begun", || home.path("begun").exists());
    // As after a suspension, or while the disk is full: nobody has renewed it.
    rusqlite::Connection::open(home.path(STATE_DIR).join("runner.db")).unwrap().execute_batch(EXPIRE).unwrap();
    home.run(&["work", "--duration", "0.5"]).exits(0).never_says("gone");
    let home = home.file("go", "");
    until("it is done", || job(&home, id)["state"] == "done");
    assert_eq!((job(&home, id)["attempts"].as_i64(), begun(&home)), (Some(1), 1));
}

#[cfg(feature = "postgres")]
#[test]
fn containers_that_share_a_server_do_not_take_each_other_for_dead() {
    let Some(server) = crate::postgres::Server::start() else { return };
    share_a_queue(&format!("[runner]\ndatabase = {}\n", server.local()), |_| {
        let mut client = postgres::Client::connect(&server.local(), postgres::NoTls).unwrap();
        client.batch_execute(&format!("SET search_path TO runner; {EXPIRE}")).unwrap();
    });
}
