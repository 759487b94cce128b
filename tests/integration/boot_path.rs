//! What the way of the main chain touches, as the kernel sees it: the boot path is small and stays so.

use std::path::Path;
use std::process::Command;

use crate::scene::{Scene, skipped, succeeds};

/// The system calls of the runner process alone, or nothing where there is no strace.
fn trace(scene: Scene) -> Option<(Scene, String)> {
    if !succeeds(Command::new("strace").arg("-V")) {
        skipped("strace is not installed");
        return None;
    }
    let file = scene.path("trace");
    let scene = scene.under(&["strace", "-o", file.to_str().unwrap(), "-s", "300", "-e", "trace=%file,%network,%process"]);
    scene.run(&[]).exits(0);
    let text = std::fs::read_to_string(file).unwrap();
    Some((scene, text))
}

/// The path of a call that opened one and succeeded.
fn opened(line: &str) -> Option<&str> {
    let call = line.strip_prefix("openat(AT_FDCWD, \"").or_else(|| line.strip_prefix("open(\""))?;
    (!line.contains(" = -1 ")).then(|| call.split('"').next().unwrap())
}

fn scene() -> Scene {
    let scene =
        Scene::new().config("[runner]\ninclude_dir = conf.d\n[task:b]\nmax_time = 5\n").dir("conf.d").file("conf.d/1.cfg", "[hg]\na = b\n");
    (1..=5).fold(scene, |scene, number| scene.task(format!("{number}-b.sh"), "exit 0"))
}

#[test]
fn a_run_opens_what_it_reads_and_nothing_else() {
    let Some((scene, trace)) = trace(scene()) else { return };
    let home = scene.root();
    for path in trace.lines().filter_map(opened) {
        let own = Path::new(path).starts_with(home);
        // The loader, the time zone, and two facts of the kernel: our memory map (read by Rust's start-up code for the
        // guard page) and the boot id in the run id.
        let allowed = [
            "/etc/ld.so",
            "/lib",
            "/usr/lib",
            "/etc/localtime",
            "/usr/share/zoneinfo/",
            "/dev/null",
            "/proc/self/",
            "/proc/sys/kernel/random/boot_id",
        ];
        assert!(own || allowed.iter().any(|start| path.starts_with(start)), "opened {path}");
        let known = ["runner.cfg", "conf.d", "tasks.d"];
        assert!(!own || known.iter().any(|name| path.contains(name)), "opened {path}");
    }
    for needed in ["runner.cfg", "conf.d/1.cfg", "tasks.d", "/dev/null"] {
        assert!(trace.lines().filter_map(opened).any(|path| path.ends_with(needed)), "{needed} was not opened:\n{trace}");
    }
}

#[test]
fn a_run_has_no_network_and_no_second_program_but_its_tasks() {
    let Some((_scene, trace)) = trace(scene()) else { return };
    let sockets: Vec<_> = trace.lines().filter(|line| line.starts_with("socket(") || line.starts_with("connect(")).collect();
    assert!(sockets.len() == 1 && sockets[0].contains("AF_UNIX"), "the progress socket of the tasks, and no other: {sockets:?}");
    let started = trace.lines().filter(|line| line.starts_with("clone") || line.starts_with("vfork(") || line.starts_with("fork(")).count();
    assert_eq!(started, 5, "five tasks:\n{trace}");
    assert!(!trace.contains("CLONE_THREAD"), "a thread was started");
    assert!(
        trace.lines().filter(|line| line.starts_with("clone")).all(|line| line.contains("CLONE_VFORK")),
        "no page table is copied for a task"
    );
}

#[test]
fn an_empty_chain_opens_no_socket_at_all() {
    let Some((_scene, trace)) = trace(Scene::new().dir("tasks.d")) else { return };
    assert!(!trace.lines().any(|line| line.starts_with("socket(") || line.starts_with("connect(") || line.starts_with("clone")), "{trace}");
}
