//! The lock of a chain: two runners with one configuration, and never two of their tasks inside at once.

use std::time::{Duration, Instant};

use rstest::rstest;
use rustix::process::Signal;

use crate::alive::is_alive;
use crate::lock_command::{entered, lock_scene, send};
use crate::lock_servers::{Server, etcd, postgres, start_etcd, start_postgres};
use crate::running::{Running, until};
use crate::scene::{Scene, skipped};

/// The shortest lease there is.
const SHORT: &str = "kill_after = 0\nlock_ttl = 6\nlock_delay = 0\n";

/// A chain under this lock; its one task is inside while it runs, and does this meanwhile.
fn chain(lock: &str, more: &str, inside: &str) -> Scene {
    lock_scene()
        .config(&format!("[runner]\nhalt_on_give_up = no\nmax_tries = 1\nlock = {lock}\n{more}"))
        .task("1-in.sh", &format!("exec \"$SCENE/inside.sh\" {inside}"))
}

/// The same with a task that stays inside until it is ended.
fn long_chain(lock: &str, more: &str) -> Scene {
    chain(lock, more, "sleep 1000")
}

fn postgres_lock(server: &Server, key: &str) -> String {
    format!("postgresql://postgres@127.0.0.1:{}/postgres?key={key}", server.port)
}

fn etcd_lock(server: &Server, key: &str) -> String {
    format!("etcd://127.0.0.1:{}/{key}", server.port)
}

/// Waits until so many have entered; the newest: its runner and the process of its task.
#[track_caller]
fn inside(scene: &Scene, running: &mut Running, number: usize) -> (i32, u32) {
    running.wait_for("the next is inside", |_| entered(scene).len() >= number);
    let (_, holder, task) = entered(scene)[number - 1];
    (holder, task)
}

#[track_caller]
fn tokens_grow(scene: &Scene) {
    let tokens: Vec<u64> = entered(scene).iter().map(|entry| entry.0).collect();
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
}

#[track_caller]
fn end(mut running: Running, signal: Signal) {
    running.signal(signal);
    until("it is gone", || !is_alive(running.pid()));
    running.finish().dies_of(signal);
}

/// What the hook was told, one message a line.
fn told(scene: &Scene) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(scene.path("told")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_second_one_is_refused_and_told_who_has_the_lock() {
    let scene = long_chain("file:k.lock", "chain_hook = ./hook.sh\n").script("hook.sh", "printf '%s\\n' \"$1\" >>\"$SCENE/told\"");
    let mut first = scene.start(&[]);
    inside(&scene, &mut first, 1);
    let second = scene.run(&[]).exits(75);
    second.says(&format!("k.lock is held by pid {} on ", first.pid())).says(" since 20").says(", run ");
    let refused: Vec<_> = told(&scene).into_iter().filter(|message| message["event"] == "refused").collect();
    assert_eq!((refused.len(), refused[0]["reason"].as_str()), (1, Some("lock")));
    assert!(refused[0]["message"].as_str().unwrap().contains("is held by pid"), "{refused:?}");
    assert_eq!(scene.run(&["--json"]).exits(75).json()["error"]["code"], 75);
    // Of several none is lost because the last one was refused.
    let several = scene.run(&["--json", "-n", "2", "--run-interval", "0.1"]).exits(75).says("is held by pid").json();
    let outcomes: Vec<_> = several["runs"].as_array().unwrap().iter().map(|run| (&run["outcome"], &run["exit_code"])).collect();
    assert_eq!(outcomes, [(&"refused".into(), &75.into()); 2], "{several}");
    assert_eq!(entered(&scene).len(), 1);
    end(first, Signal::TERM);
    tokens_grow(&scene);
    if cfg!(feature = "store") {
        scene.run(&["history", "--json"]).exits(0).prints("\"refused\"").prints("is held by pid");
    }
}

#[test]
fn who_waits_gets_it_when_it_is_free_and_hears_signals_meanwhile() {
    let scene = long_chain("file:k.lock", "wait_lock = infinity\n");
    let mut first = scene.start(&[]);
    inside(&scene, &mut first, 1);
    let mut second = scene.start(&[]);
    second.wait_for_message("is held by pid", &first.pid().to_string());
    end(first, Signal::TERM);
    inside(&scene, &mut second, 2);
    scene.run(&["--wait-lock", "0.2"]).exits(75).slower_than(200);
    let mut third = scene.start(&[]);
    third.wait_for_message("is held by pid", &second.pid().to_string());
    end(third, Signal::INT);
    end(second, Signal::TERM);
    tokens_grow(&scene);
}

#[test]
fn what_a_killed_holder_left_on_this_machine_is_ended_before_the_next_begins() {
    let mut locks = vec!["file:k.lock".to_owned()];
    let (Some(postgres), Some(etcd)) = (postgres(), etcd()) else { return };
    locks.extend([postgres_lock(postgres, "chain-killed"), etcd_lock(etcd, "chain-killed")]);
    for lock in locks {
        let scene = long_chain(&lock, "wait_lock = infinity\n");
        let mut first = scene.start(&[]);
        let (_, task) = inside(&scene, &mut first, 1);
        let mut second = scene.start(&[]);
        second.wait_for_message("is held by pid", &first.pid().to_string());
        first.signal(Signal::KILL);
        // The TTL is a minute: here nobody waits for it.
        inside(&scene, &mut second, 2);
        assert!(!is_alive(task), "{lock}");
        first.finish().dies_of(Signal::KILL);
        end(second, Signal::TERM);
        tokens_grow(&scene);
    }
}

/// Two tasks side by side, one of which has left its group: both belong to the dead holder.
/// Three runners; in each round the one inside is hit, and another takes its place.
fn storm(lock: &str, rounds: usize) {
    let scene = long_chain(lock, "wait_lock = infinity\nkill_after = 0\n");
    let mut runners: Vec<Running> = (0..3).map(|_| scene.start(&[])).collect();
    for number in 1..=rounds {
        let (holder, task) = inside(&scene, &mut runners[0], number);
        let at = runners.iter().position(|running| running.pid() == u32::try_from(holder).unwrap()).unwrap();
        let hit = runners.swap_remove(at);
        runners.push(scene.start(&[]));
        let of_task = number % 3 == 0;
        send(if of_task { i32::try_from(task).unwrap() } else { holder }, Signal::KILL);
        until("it is gone", || !is_alive(hit.pid()));
        if of_task {
            hit.finish().exits(1)
        } else {
            hit.finish().dies_of(Signal::KILL)
        };
        inside(&scene, &mut runners[0], number + 1);
        assert!(!is_alive(task), "its task goes on");
    }
    for running in runners {
        end(running, Signal::TERM);
    }
    tokens_grow(&scene);
}

#[test]
fn a_storm_over_a_file() {
    storm("file:k.lock", 9);
}

#[test]
fn a_storm_over_postgresql() {
    let Some(server) = postgres() else { return };
    storm(&postgres_lock(server, "chain-storm"), 6);
}

#[test]
fn a_storm_over_etcd() {
    let Some(server) = etcd() else { return };
    storm(&etcd_lock(server, "chain-storm"), 6);
}

#[test]
fn all_tasks_of_a_killed_holder_are_ended() {
    let scene = lock_scene()
        .config("[runner]\nmax_parallel = 2\nlock = file:k.lock\n")
        .task("1-a.sh", "setsid sh -c 'echo $$ >\"$SCENE/away\"; exec sleep 1000'")
        .dir("other.d")
        .script("other.d/1-in.sh", "exec \"$SCENE/inside.sh\"")
        .task("1-b.sh", "echo $$ >\"$SCENE/here\"; exec sleep 1000");
    let pid = |name: &str| std::fs::read_to_string(scene.path(name)).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let mut first = scene.start(&[]);
    first.wait_for("both run", |_| pid("away").is_some() && pid("here").is_some());
    let pids = [pid("away").unwrap(), pid("here").unwrap()];
    first.signal(Signal::KILL);
    first.finish().dies_of(Signal::KILL);
    let mut next = scene.start(&["other.d"]);
    next.wait_for("the next is inside", |_| entered(&scene).len() == 1);
    assert!(pids.iter().all(|pid| !is_alive(*pid)), "{pids:?}");
    next.finish().exits(0);
}

#[test]
fn a_holder_that_was_frozen_past_its_lease_does_not_go_on() {
    let Some(server) = postgres() else { return };
    let scene = lock_scene()
        .config(&format!("[runner]\nlock = {}\nwait_lock = infinity\n{SHORT}", postgres_lock(server, "chain-frozen")))
        .task("1-in.sh", "exec \"$SCENE/inside.sh\" sleep 1000")
        .task("2-after.sh", "exec \"$SCENE/inside.sh\"");
    let mut first = scene.start(&[]);
    let (holder, task) = inside(&scene, &mut first, 1);
    let mut second = scene.start(&[]);
    second.wait_for_message("is held by pid", &first.pid().to_string());
    send(holder, Signal::STOP);
    inside(&scene, &mut second, 2);
    assert!(!is_alive(task), "its task goes on");
    send(holder, Signal::CONT);
    first.finish().exits(79).says("is lost");
    assert_eq!(entered(&scene).len(), 2, "it went on");
    end(second, Signal::TERM);
    tokens_grow(&scene);
}

#[test]
fn a_server_that_stays_silent_ends_the_tasks_before_the_lease_is_over() {
    let Some(server) = start_etcd() else { return skipped("etcd is not installed") };
    let scene = long_chain(&etcd_lock(&server, "k"), SHORT).task("halt.sh", "exit 0");
    let mut holder = scene.start(&[]);
    let (_, task) = inside(&scene, &mut holder, 1);
    send(server.pid(), Signal::STOP);
    let begun = Instant::now();
    until("the task is ended", || !is_alive(task));
    assert!(begun.elapsed() < Duration::from_secs(6), "its lease could be another's by then: {:?}", begun.elapsed());
    send(server.pid(), Signal::CONT);
    let outcome = holder.finish().exits(79).says("its lock was lost");
    assert!(!outcome.text_of("log").contains("halt.sh"), "{}", outcome.text_of("log"));
}

#[test]
fn a_server_that_is_silent_for_a_moment_costs_nothing() {
    let Some(server) = start_etcd() else { return skipped("etcd is not installed") };
    let scene = chain(&etcd_lock(&server, "k"), SHORT, "sh -c 'while ! [ -e \"$SCENE/go\" ]; do sleep 0.05; done'");
    let mut holder = scene.start(&[]);
    inside(&scene, &mut holder, 1);
    send(server.pid(), Signal::STOP);
    holder.wait_for_message("is in doubt", "etcd://");
    send(server.pid(), Signal::CONT);
    holder.wait_for_message("beyond doubt again", "etcd://");
    std::fs::write(scene.path("go"), "").unwrap();
    holder.finish().exits(0);
}

#[test]
fn a_server_that_starts_again_within_the_lease_costs_nothing() {
    let Some(server) = start_postgres() else { return skipped("PostgreSQL is not installed") };
    // Longer than the lease: it has been renewed by the server that came after.
    let scene = chain(&postgres_lock(&server, "k"), SHORT, "sleep 6.5");
    let mut holder = scene.start(&[]);
    inside(&scene, &mut holder, 1);
    let old = server.pid();
    send(old, Signal::INT);
    until("another server runs", || server.pid() != old);
    holder.finish().exits(0).never_says("is lost");
    tokens_grow(&scene);
}

/// The file of a lock is not to be removed while it is held; where it is, nobody says that all went well. A hook at the end comes too late
/// to change that.
#[rstest]
#[case::by_its_last_task("rm state/lk && while :; do echo on; sleep 0.05; done", "true", 79)]
#[case::by_the_hook_at_its_end("true", "rm state/lk", 0)]
fn a_file_that_is_removed_is_a_lock_that_is_lost(#[case] task: &str, #[case] hook: &str, #[case] exit: i32) {
    let keys = "lock = file:state/lk\nhalt_on_give_up = no\noutput = prefix\nchain_hook = ./hook\n";
    let scene = lock_scene().config(&format!("[runner]\n{keys}[chain:c]\ntask_dir = tasks.d\nlock = file:state/lk\n"));
    let scene = scene.task("1-a.sh", &format!("cd \"$SCENE\" && {task}"));
    let scene = scene.script("hook", &format!("cd \"$SCENE\"; case \"$1\" in *'\"end\"'*) {hook} ;; esac"));
    for args in [&[][..], &["now", "c"]] {
        let run = scene.run(args).exits(exit);
        if exit == 79 {
            run.says("is lost, its tasks are ended")
        } else {
            // Whether somebody still looks before the lock is given back is chance; that nothing comes of it is not.
            run.never_says("its tasks are ended")
        };
        let word = if exit == 79 { "lock lost" } else { "done" };
        scene.run(&["history", "-n", "1"]).exits(0).prints(word);
    }
}

/// The loser of each round asks again in its next one; with `keep_lock` there is no next one for it.
#[test]
fn a_kept_lock_is_kept_between_runs() {
    let scene = chain("file:k.lock", "keep_lock = yes\ntimes = 3\nsleep_interval = 0\nwait_lock = infinity\n", "");
    let mut first = scene.start(&[]);
    inside(&scene, &mut first, 1);
    let second = scene.start(&["--times", "1"]);
    first.finish().exits(0).slower_than(1900);
    second.finish().exits(0);
    let runners: Vec<i32> = entered(&scene).iter().map(|entry| entry.1).collect();
    let tokens: Vec<u64> = entered(&scene).iter().map(|entry| entry.0).collect();
    assert!(runners[0] == runners[1] && runners[1] == runners[2] && runners[2] != runners[3], "{runners:?}");
    assert!(tokens[0] == tokens[2] && tokens[2] < tokens[3], "{tokens:?}");
}

#[test]
fn a_lock_is_free_between_runs_unless_it_is_kept() {
    let scene = chain("file:k.lock", "times = 0\nsleep_interval = 1000\n", "");
    let mut loops = scene.start(&[]);
    inside(&scene, &mut loops, 1);
    scene.run(&["--run-once", "--wait-lock", "20"]).exits(0);
    end(loops, Signal::TERM);
    tokens_grow(&scene);
    let scene = chain("file:k.lock", "times = 0\nsleep_interval = 1000\nkeep_lock = yes\n", "");
    let mut loops = scene.start(&[]);
    loops.wait_for_message("done in", "chain main");
    scene.run(&["--run-once"]).exits(75);
    end(loops, Signal::TERM);
    scene.run(&["--run-once"]).exits(0);
}

#[test]
fn a_failure_lets_another_win() {
    let more = "keep_lock = yes\nrelease_on_error = yes\ntimes = 2\nrun_interval = 1.2\nwait_lock = infinity\n";
    let scene = chain("file:k.lock", more, "sh -c 'exit 1'").script("inside.sh", FAILING);
    let begun = Instant::now();
    let mut first = scene.start(&[]);
    inside(&scene, &mut first, 1);
    let second = scene.start(&["--run-once"]);
    second.finish().exits(1);
    first.finish().exits(1);
    assert!(begun.elapsed() >= Duration::from_millis(2400), "it waits for twice the interval: {:?}", begun.elapsed());
    let runners: Vec<i32> = entered(&scene).iter().map(|entry| entry.1).collect();
    assert!(runners.len() == 3 && runners[0] != runners[1] && runners[0] == runners[2], "{runners:?}");
    tokens_grow(&scene);
}

/// Enters, and fails.
const FAILING: &str = "echo \"enter $RUNNER_LOCK_TOKEN $PPID $$\" >>\"$SCENE/log\"; exit 1";

#[test]
fn a_loop_that_is_refused_asks_again() {
    let scene = long_chain("file:k.lock", "run_interval = 0.2\n");
    let mut first = scene.start(&["--run-once"]);
    inside(&scene, &mut first, 1);
    scene.run(&["--times", "2"]).exits(75).slower_than(950);
    let mut second = scene.start(&["--times", "0"]);
    second.wait_for_message("is held by pid", "chain main");
    end(first, Signal::TERM);
    inside(&scene, &mut second, 2);
    end(second, Signal::TERM);
}

#[test]
fn a_loop_that_lost_its_lock_asks_for_it_again() {
    let Some(server) = start_etcd() else { return skipped("etcd is not installed") };
    let scene = long_chain(&etcd_lock(&server, "k"), &format!("times = 0\nsleep_interval = 0\nwait_lock = infinity\n{SHORT}"));
    let mut loops = scene.start(&[]);
    let (_, task) = inside(&scene, &mut loops, 1);
    send(server.pid(), Signal::STOP);
    until("the task is ended", || !is_alive(task));
    send(server.pid(), Signal::CONT);
    inside(&scene, &mut loops, 2);
    end(loops, Signal::TERM);
    tokens_grow(&scene);
}

#[test]
fn tasks_hooks_and_the_halt_task_have_the_token() {
    let scene = lock_scene()
        .config("[runner]\nlock = file:k\ntask_hook = ./hook.sh\nchain_hook = ./hook.sh\n")
        .script("hook.sh", "echo \"token $RUNNER_LOCK_TOKEN\" >>\"$SCENE/log\"")
        .task("1-a.sh", "echo \"token $RUNNER_LOCK_TOKEN\" >>\"$SCENE/log\"; exit 2")
        .task("halt.sh", "echo \"token $RUNNER_LOCK_TOKEN\" >>\"$SCENE/log\"");
    let log = scene.run(&[]).exits(3).log();
    let tokens: Vec<&str> = log.iter().filter_map(|line| line.strip_prefix("token ")).collect();
    assert!(tokens.len() == 6 && tokens.iter().all(|token| token.parse::<u64>() == tokens[0].parse()), "{log:?}");
}

#[test]
fn without_the_lock_nobody_is_asked() {
    let scene = long_chain("file:k.lock", "");
    let mut first = scene.start(&[]);
    inside(&scene, &mut first, 1);
    let scene = scene.task("1-in.sh", "test -z \"$RUNNER_LOCK_TOKEN\"");
    scene.run(&["--no-lock"]).exits(0);
    scene.run(&["--disable-one-instance", "--keep-lock"]).exits(0);
    scene.run(&["--dry-run"]).exits(0);
    end(first, Signal::TERM);
    assert!(entered(&scene).len() == 1 && !scene.path("k.lock.owner").exists());
}

#[test]
fn an_engine_that_is_not_there_is_74() {
    if !cfg!(feature = "net") {
        return;
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let scene = long_chain(&format!("etcd://127.0.0.1:{port}/k"), "");
    scene.run(&[]).exits(74).says("cannot be reached");
    scene.run(&["--wait-lock", "0.3"]).exits(74).slower_than(300);
    assert!(entered(&scene).is_empty());
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let wrong = |config: &str, says: &str| {
        let scene = lock_scene().config(config).tasks(["1-a.sh"]);
        scene.run(&["check"]).exits(78).prints(says);
        scene.run(&[]).exits(78).says(says).ran([""; 0]);
    };
    wrong("[runner]\nlock = nightly\n", "runner.cfg:2: ");
    wrong("[runner]\nlock = file:k\nlock_ttl = soon\n", "lock_ttl = soon: expected a duration");
    wrong("[runner]\nlock = etcd://h/k\nlock_ttl = 30\n", "at least 36 s");
    wrong("[runner]\nkill_after = 30\nlock = etcd://h/k\n", "at least 96 s");
    wrong("[runner]\nlock = etcd://h/k\n[task:a]\nkill_after = 30\n", "at least 96 s");
    wrong("[runner]\nlock = file:k\nlock_delay = 70\n", "expected 0 to 60 s");
    wrong("[runner]\nlock = file:k\nrelease_on_error = yes\n", "release_on_error needs run_interval or sleep_interval");
    for (text, name) in [("wait_lock = -1", "wait_lock"), ("lock_delay = -1", "lock_delay"), ("lock_ttl = infinity", "lock_ttl")] {
        let scene = lock_scene().config(&format!("[runner]\nlock = file:k\n{text}\n")).tasks(["1-a.sh"]);
        scene.run(&["check"]).exits(78).prints(&format!("runner.cfg:3: error: {name} = ")).prints("1 error, ");
    }
    let scene = lock_scene().config("[runner]\nlock = file:k\n").tasks(["1-a.sh"]);
    for text in ["wait_lock=-1", "lock_delay=61"] {
        let typed = format!("runner.{text}");
        let named = format!("command line: error: --set runner.{}: expected ", text.replace('=', " = "));
        scene.run(&["check", "--set", &typed]).exits(78).prints(&named).prints("1 error, ");
    }
    // Its tasks are right, and nothing of a wrong configuration is executed.
    let hooked = "chain_hook = sh -c 'touch hooked' hook\n";
    let scene = lock_scene().config(&format!("[runner]\nlock = file:k\n{hooked}")).tasks(["1-a.sh"]);
    scene.run(&["--release-on-error"]).exits(78).says("release_on_error needs run_interval or sleep_interval");
    let scene = scene.raw_config(format!("[chain:c]\ntask_dir = tasks.d\nlock = file:k\nlock_delay = 70\n{hooked}"));
    scene.run(&["now", "c"]).exits(78).says("expected 0 to 60 s");
    assert!(!scene.path("hooked").exists());
    let scene = lock_scene().tasks(["1-a.sh"]);
    scene.run(&["--keep-lock"]).exits(64).says("--keep-lock: there is no lock");
    scene.run(&["--wait-lock", "soon"]).exits(64).says("--wait-lock soon: expected a duration");
    let scene = lock_scene().config("[runner]\nlock = file:k\nrelease_on_error = yes\n").tasks(["1-a.sh"]);
    scene.run(&["--run-once"]).exits(0);
    let scene = lock_scene().config("[chain:a]\ntask_dir = tasks.d\nlock = nightly\nrelease_on_error = yes\n").tasks(["1-a.sh"]);
    scene.run(&["check"]).exits(78).prints("runner.cfg:3: error: lock = nightly: expected file:PATH").prints("needs a schedule");
    if cfg!(feature = "schedule") && cfg!(feature = "store") {
        let scene = lock_scene().config("[runner]\nlock = file:k\n").task("1-a.sh", "say \"token $RUNNER_LOCK_TOKEN\"");
        let log = scene.run(&["now", "main"]).exits(0).log();
        assert!(log[1].starts_with("- token 1"), "{log:?}");
    }
}
