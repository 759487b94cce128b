//! The queue in PostgreSQL: workers are told by the server, share jobs, die and are replaced.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::Signal;

use crate::postgres::Server;
use crate::queue::{enqueue, job, jobs};
use crate::scene::{Running, Scene, until};

fn scene(server: &Server, poll: &str) -> Scene {
    Scene::new()
        .config(&format!("[queue:default]\ntask_dir = tasks.d\npoll = {poll}\nkill_after = 1\n[runner]\ndatabase = {}\n", server.local()))
        .script("tasks.d/a.sh", "echo \"$RUNNER_JOB_ID $RUNNER_TRY\" >>\"$SCENE/ran\"; [ -z \"$1\" ] || probe wait-file \"$SCENE/$1\"")
}

fn ran(scene: &Scene) -> BTreeMap<String, usize> {
    let mut ran = BTreeMap::new();
    for line in fs::read_to_string(scene.path("ran")).unwrap_or_default().lines() {
        *ran.entry(line.to_owned()).or_default() += 1;
    }
    ran
}

#[test]
fn the_server_wakes_workers_and_they_share_its_jobs() {
    let Some(server) = Server::start() else { return };
    let scene = scene(&server, "1h");
    scene.run(&["queue", "prune"]).exits(0);
    let mut workers: Vec<Running> = (0..3).map(|_| scene.start(&["-v", "work", "--jobs", "2"])).collect();
    workers.iter_mut().for_each(|worker| {
        worker.wait_for_message("worker of", "queue");
    });
    enqueue(&scene, &["a.sh"]);
    until("the first is done", || ran(&scene).len() == 1);
    // Whoever speaks SQL is heard as well.
    let mut client = postgres::Client::connect(&server.local(), postgres::NoTls).unwrap();
    client.batch_execute("INSERT INTO runner.jobs (task) SELECT 'a.sh' FROM generate_series(1, 40)").unwrap();
    until("all are done", || ran(&scene).len() == 41 && jobs(&scene).iter().all(|job| job["state"] == "done"));
    assert!(ran(&scene).values().all(|times| *times == 1), "{:?}", ran(&scene));
    enqueue(&scene, &["a.sh", "go"]);
    until("it runs", || ran(&scene).len() == 42);
    assert_eq!(scene.run(&["queue", "cancel", "42"]).exits(0).stdout_text(), "42  is being ended\n");
    until("it is ended", || job(&scene, 42)["state"] == "cancelled");
    for mut worker in workers {
        worker.signal(Signal::TERM);
        worker.finish().exits(0);
    }
}

#[test]
fn a_worker_dies_and_a_server_goes_away() {
    let Some(mut server) = Server::start() else { return };
    let scene = scene(&server, "0.2");
    let id = enqueue(&scene, &["a.sh", "go"])[0];
    let mut worker = scene.start(&["work"]);
    worker.wait_for("it runs", |_| ran(&scene).len() == 1);
    worker.signal(Signal::KILL);
    drop(worker);
    let mut worker = scene.start(&["work"]);
    worker.wait_for("it runs again", |_| ran(&scene).len() == 2);
    assert!(ran(&scene).contains_key(&format!("{id} 2")));
    // The job ends while nobody can be told.
    server.stop();
    let scene = scene.file("go", "");
    worker.wait_for_message("job 1,", "done");
    server.start_again();
    until("it is written down", || scene.run(&["queue", "show", "1", "--json"]).stdout_text().contains("\"done\""));
    worker.signal(Signal::TERM);
    worker.finish().exits(0);
    assert_eq!(job(&scene, id)["attempts"], 2);
}
