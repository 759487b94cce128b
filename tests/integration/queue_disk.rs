//! Disks that are small or full: the journal leaves room for what it is carried over into, and a daemon whose jobs cannot be
//! written down tells so, and goes on where it was when there is room.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use crate::daemon_http::{ask, json};
use crate::queue::scene as queue_scene;
use crate::scene::{Running, STATE_DIR, Scene, skipped, succeeds, until};

fn mounts_or_skipped() -> bool {
    let mounts = succeeds(Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "-o", "size=1m", "small", "/tmp"]));
    if !mounts {
        skipped("nothing can be mounted here");
    }
    mounts
}

/// The scene with a state directory of so many KiB.
fn on_a_disk_of(size: u32, scene: Scene) -> Scene {
    let scene = scene.file(format!("{STATE_DIR}/here"), "");
    let mount = format!("mount -t tmpfs -o size={size}k small \"$STATE_DIRECTORY\" && exec \"$@\"");
    scene.under(&["unshare", "--mount", "sh", "-c", &mount, "sh"])
}

/// Three hundred jobs, one after the other, on a disk of so many KiB.
fn drains_on(size: u32) {
    let add_and_work = "\"$SUT\" -c \"$1\" enqueue --stdin <\"$SCENE/jobs\" >/dev/null && exec \"$SUT\" -c \"$1\" work --drain --fail";
    let scene = queue_scene().config("jobs = 1\n").task("a.sh", "exit 0").file("jobs", "{\"task\":\"a.sh\"}\n".repeat(300));
    let scene = scene.script("all.sh", add_and_work);
    let mount = format!("mount -t tmpfs -o size={size}k small \"$STATE_DIRECTORY\" && exec sh \"$SCENE/all.sh\" \"$SCENE/runner.cfg\"");
    let scene = scene.file(format!("{STATE_DIR}/here"), "").under(&["unshare", "--mount", "sh", "-c", &mount]);
    scene.run(&["work"]).exits(0).never_says("full");
}

#[test]
fn a_journal_does_not_fill_a_small_disk() {
    if mounts_or_skipped() {
        drains_on(3 * 1024);
    }
}

#[test]
fn nor_one_that_is_as_small_as_the_journal_would_be() {
    if mounts_or_skipped() {
        drains_on(1024);
    }
}

/// Fills the disk to its last byte, as this process sees it.
fn fill(running: &Running, scene: &Scene) -> PathBuf {
    let name = scene.path(STATE_DIR).join("filler");
    let path = PathBuf::from(format!("/proc/{}/root{}", running.pid(), name.display()));
    let mut filler = File::create(&path).unwrap();
    for size in [64 * 1024, 4096, 1] {
        while filler.write_all(&vec![0; size]).is_ok() {}
    }
    path
}

#[test]
fn a_daemon_tells_that_ends_cannot_be_written_and_writes_them_when_there_is_room() {
    if !mounts_or_skipped() {
        return;
    }
    let fails = "probe touch begun wait-file go\necho because >&2\nexit 1";
    let scene = Scene::new().task("fails.sh", fails).task("quick.sh", "exit 0");
    let config = format!(
        "[runner]\ntask_dir = tasks.d\n[queue:mail]\ntask_dir = {}\npoll = 0.1\nmax_attempts = 1\n[daemon]\nlisten = {}\nqueues = *\n",
        scene.path("tasks.d").display(),
        scene.path("http").display()
    );
    let scene = on_a_disk_of(2048, scene.raw_config(config.clone()));
    let mut running = scene.start(&["daemon"]);
    running.wait_for_message("answers on", "");
    let pid = running.pid().to_string();
    let inside = Scene::new().raw_config(config).env("SCENE", scene.root()).env("STATE_DIRECTORY", scene.path(STATE_DIR));
    let inside = inside.under(&["nsenter", "--mount", "--target", &pid]);
    until("the database is there", || json(&running, "/status.json")["queues"][0]["uncounted"].is_null());
    let failed = crate::queue::enqueue(&inside, &["-Q", "mail", "fails.sh"])[0];
    until("it runs", || scene.path("begun").exists());
    let trouble = |running: &Running| json(running, "/status.json")["queues"][0]["trouble"].as_str().map(str::to_owned);
    assert_eq!(trouble(&running), None);
    let filler = fill(&running, &scene);
    fs::write(scene.path("go"), "").unwrap();
    until("it is told", || trouble(&running).is_some_and(|why| why.contains("full")));
    assert!(ask(&running, "GET", "/metrics").1.contains("runner_queue_working{queue=\"mail\"} 0"));
    assert!(ask(&running, "GET", "/").1.contains("jobs are not taken"));
    let much = "x".repeat(100_000);
    inside.run(&["enqueue", "-Q", "mail", "quick.sh", &much]).exits(74).says("full");
    fs::remove_file(filler).unwrap();
    until("it works again", || trouble(&running).is_none());
    until("the end is written down", || crate::queue::job(&inside, failed)["state"] == "failed");
    let job = crate::queue::job(&inside, failed);
    assert_eq!((&job["attempts"], &job["last_error"]), (&1.into(), &"because\n".into()), "{job}");
    let next = crate::queue::enqueue(&inside, &["-Q", "mail", "quick.sh"])[0];
    until("the next one is done", || crate::queue::job(&inside, next)["state"] == "done");
    assert!(ask(&running, "GET", "/metrics").1.contains("runner_queue_working{queue=\"mail\"} 1"));
    running.signal(Signal::TERM);
    running.finish().exits(0).says("the database is back");
}
