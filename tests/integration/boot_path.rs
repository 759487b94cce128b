//! What the way of the main chain touches, as the kernel sees it: the boot path is small and stays so.

use std::path::Path;
use std::process::Command;

use crate::scene::{Scene, skipped, succeeds};

/// The system calls of the runner process alone, its threads included, or nothing where there is no strace.
fn trace(scene: Scene) -> Option<(Scene, String)> {
    if !succeeds(Command::new("strace").arg("-V")) {
        skipped("strace is not installed");
        return None;
    }
    let dir = scene.path("traces");
    let scene = scene.dir("traces");
    let file = dir.join("of").display().to_string();
    let scene = scene.under(&["strace", "-ff", "-o", &file, "-s", "300", "-e", "trace=%file,%network,%process"]);
    scene.run(&[]).exits(0);
    let is_ours = |text: &String| text.lines().next().is_some_and(|line| line.starts_with("execve(") && line.contains("/runner\""));
    let traces = std::fs::read_dir(&dir).unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    let mut text = traces.into_iter().find(is_ours).unwrap();
    let threads: Vec<String> = threads(&text).map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect();
    for thread in threads {
        text.push_str(&std::fs::read_to_string(dir.join(format!("of.{thread}"))).unwrap());
    }
    Some((scene, text))
}

/// The calls that started a thread.
fn threads(trace: &str) -> impl Iterator<Item = &str> {
    trace.lines().filter(|line| line.starts_with("clone") && line.contains("CLONE_THREAD"))
}

/// The calls that started a process.
fn processes(trace: &str) -> impl Iterator<Item = &str> {
    let starts = |line: &&str| ["clone", "vfork(", "fork("].iter().any(|call| line.starts_with(call)) && !line.contains("CLONE_THREAD");
    trace.lines().filter(starts)
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
        let known = ["runner.cfg", "conf.d", "tasks.d", "state.d/runs"];
        assert!(!own || known.iter().any(|name| path.contains(name)), "opened {path}");
    }
    the_record_is_all_that_is_written(&scene, &trace);
    for needed in ["runner.cfg", "conf.d/1.cfg", "tasks.d", "/dev/null"] {
        assert!(trace.lines().filter_map(opened).any(|path| path.ends_with(needed)), "{needed} was not opened:\n{trace}");
    }
}

/// One file with the record of the run: written beside, renamed, its directory looked at and synced. After the last task, by a
/// thread that nobody waits for longer than two seconds.
fn the_record_is_all_that_is_written(scene: &Scene, trace: &str) {
    let written: Vec<&str> =
        trace.lines().filter(|line| line.contains("O_CREAT") || line.contains("O_WRONLY") || line.contains("O_RDWR")).collect();
    let renamed: Vec<&str> = trace.lines().filter(|line| line.starts_with("rename")).collect();
    let made = trace.lines().filter(|line| line.starts_with("mkdir") && !line.contains(" = -1 ")).count();
    if !cfg!(feature = "store") {
        assert_eq!((written.len(), renamed.len(), made), (0, 0, 0), "{trace}");
        return;
    }
    let runs = scene.path("state.d/runs");
    let beside = format!("\"{}/.", runs.display());
    assert!(written.len() == 1 && written[0].contains(&beside), "{written:?}");
    assert!(renamed.len() == 1 && renamed[0].contains(&beside), "{renamed:?}");
    assert_eq!((made, std::fs::read_dir(&runs).unwrap().count()), (2, 1), "state.d, state.d/runs, and one file");
}

#[test]
fn a_run_has_no_network_and_no_second_program_but_its_tasks() {
    let Some((_scene, trace)) = trace(scene()) else { return };
    let sockets: Vec<_> = trace.lines().filter(|line| line.starts_with("socket(") || line.starts_with("connect(")).collect();
    assert!(sockets.len() == 1 && sockets[0].contains("AF_UNIX"), "the progress socket of the tasks, and no other: {sockets:?}");
    assert_eq!(processes(&trace).count(), 5, "five tasks:\n{trace}");
    let calls: Vec<&str> =
        trace.lines().filter(|line| line.starts_with("clone") || line.starts_with("vfork(") || line.starts_with("fork(")).collect();
    let tail = &calls[5..];
    assert_eq!(tail.len(), usize::from(cfg!(feature = "store")), "the thread of the record, after the last task: {calls:?}");
    assert_eq!(threads(&trace).count(), tail.len());
    assert!(
        processes(&trace).filter(|line| line.starts_with("clone")).all(|line| line.contains("CLONE_VFORK")),
        "no page table is copied for a task"
    );
}

#[test]
fn an_empty_chain_opens_no_socket_at_all() {
    let Some((_scene, trace)) = trace(Scene::new().dir("tasks.d")) else { return };
    assert!(!trace.lines().any(|line| line.starts_with("socket(") || line.starts_with("connect(")), "{trace}");
    assert_eq!(processes(&trace).count(), 0, "{trace}");
}
