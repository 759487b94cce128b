//! A kernel without pidfds (before Linux 5.3), played by strace: the same promises by the other way of waiting.

use std::process::Command;

use crate::scene::{Scene, skipped, succeeds};

fn old_kernel() -> Option<Scene> {
    if !succeeds(Command::new("strace").args(["-o", "/dev/null", "-e", "inject=pidfd_open:error=ENOSYS", "true"])) {
        skipped("strace is not installed, or may not inject");
        return None;
    }
    let words = ["strace", "-o", "/dev/null", "-e", "trace=pidfd_open", "-e", "inject=pidfd_open:error=ENOSYS"];
    Some(Scene::new().under(&words))
}

#[test]
fn a_chain_runs_retries_and_halts() {
    let Some(scene) = old_kernel() else { return };
    scene
        .tasks(["1-a.sh"])
        .task("2-b.sh", "once && exit 1; exit 0")
        .task("3-c.sh", "exit 2")
        .task("halt.sh", "exit 0")
        .run(&[])
        .exits(3)
        .logged(["1-a.sh 1", "2-b.sh 1", "1-a.sh 2", "2-b.sh 2", "3-c.sh 2", "halt.sh -"]);
}

#[test]
fn side_by_side_each_end_is_heard() {
    let Some(scene) = old_kernel() else { return };
    let scene = (0..20).fold(scene.config("[runner]\nmax_parallel = 8\n"), |scene, task| scene.task(format!("1-{task:02}.sh"), "exit 0"));
    assert_eq!(scene.run(&[]).exits(0).log().len(), 20);
}

#[test]
fn a_time_out_ends_the_task_and_whoever_escaped_it() {
    let Some(scene) = old_kernel() else { return };
    scene
        .config("[runner]\nmax_time = 0.4\nkill_after = 0.3\nmax_tries = 1\nhalt_on_give_up = no\n")
        .task("1-a.sh", "play setsid-child { ignore TERM pid-file session pause } daemon { pid-file daemon pause } ignore TERM pause")
        .run(&[])
        .exits(1)
        .gone("session")
        .gone("daemon")
        .nothing_alive();
}
