//! A daemon that works a queue in PostgreSQL: the server wakes it, goes away in the middle of a job, and comes back.

use std::fs;

use rustix::process::Signal;

use crate::daemon_http::{ask, json};
use crate::postgres::Server;
use crate::queue::{enqueue, job};
use crate::scene::{Scene, until};

#[test]
fn a_server_wakes_the_daemon_goes_away_and_comes_back() {
    let Some(mut server) = Server::start() else { return };
    let scene = Scene::new();
    let listen = scene.path("http");
    let scene = scene
        .config(&format!("[queue:default]\ntask_dir = tasks.d\npoll = 1h\n[daemon]\nqueues = *\nlisten = {}\n", listen.display()))
        .config(&format!("[chain:a]\ntask_dir = chain\nschedule = 0 0 1 1 *\n[runner]\ndatabase = {}\n", server.local()))
        .script("chain/1-a.sh", "exit 0")
        .script("tasks.d/a.sh", "touch \"$SCENE/begun.$RUNNER_TRY\"; exec \"$PROBE\" wait-file \"$SCENE/go\"");
    let mut running = scene.start(&["daemon"]);
    running.wait_for_message("answers on", "");
    until("it is ready for jobs", || json(&running, "/status.json")["queues"][0]["uncounted"].is_null());
    let id = enqueue(&scene, &["a.sh"])[0];
    running.wait_for_file("begun.1");
    server.stop();
    // It answers, and says that it cannot count.
    until("it is told", || json(&running, "/status.json")["queues"][0]["uncounted"].is_string());
    assert!(!ask(&running, "GET", "/metrics").1.contains("runner_queue_jobs"));
    fs::write(scene.path("go"), "").unwrap();
    running.wait_for_message("job 1,", "done");
    server.start_again();
    until("it is written down", || scene.run(&["queue", "show", "1", "--json"]).stdout_text().contains("\"done\""));
    assert_eq!(job(&scene, id)["attempts"], 1);
    running.signal(Signal::TERM);
    running.finish().exits(0).nothing_alive();
    assert!(!scene.path("begun.2").exists());
}
