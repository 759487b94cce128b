//! Progress: what a task says on its notification socket, what it is good for, and who may speak.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;

use rstest::rstest;
use rustix::process::Signal;

use crate::scene::{Outcome, Scene, skipped, succeeds};

fn one_try(settings: &str) -> Scene {
    Scene::new().config(&format!("[runner]\nmax_tries = 1\nhalt_on_give_up = no\nkill_after = 0.3\n{settings}"))
}

fn progress_of(run: &Outcome) -> Vec<String> {
    run.events("task_progress").iter().map(ToString::to_string).collect()
}

// ---- what is said ------------------------------------------------------------------------------

#[test]
fn a_status_is_told() {
    let run = one_try("").task("1-a.sh", "play notify 'STATUS=half way there' notify-barrier").run_logged(&[]).exits(0);
    let told = run.events("task_progress");
    assert_eq!(told[0]["task"], "1-a.sh");
    assert!(told[0].to_string().contains("half way there"), "{told:?}");
}

#[test]
fn a_percentage_is_told() {
    let run = one_try("").task("1-a.sh", "play notify X_RUNNER_PROGRESS=42 notify-barrier").run_logged(&[]).exits(0);
    assert!(progress_of(&run).iter().any(|m| m.contains("42")), "{run}");
}

#[rstest]
#[case("success")]
#[case("warning")]
#[case("error")]
fn a_result_is_shown_and_the_exit_code_decides(#[case] result: &str) {
    let run = one_try("")
        .task("1-a.sh", &format!("play notify X_RUNNER_RESULT={result} notify-barrier exit 0"))
        .task("2-b.sh", &format!("play notify X_RUNNER_RESULT={result} notify-barrier exit 1"))
        .run_logged(&[])
        .exits(1)
        .ran(["1-a.sh", "2-b.sh"]);
    let ended = run.events("task_ended");
    assert_eq!((&ended[0]["said"], &ended[0]["result"], &ended[1]["said"]), (&result.into(), &"OK".into(), &result.into()), "{run}");
    let level = if result == "success" { "info" } else { "warning" };
    assert_eq!((&ended[0]["level"], &ended[1]["level"]), (&level.into(), &"error".into()), "{run}");
}

#[test]
fn a_task_that_is_done_and_has_a_warning_is_seen_everywhere() {
    let scene = one_try("task_hook = ./hook.sh\nchain_hook = ./hook.sh\n[metrics]\ntextfile = runner.prom\n")
        .hook_keeper("hook.sh", "")
        .task("1-a.sh", "play notify X_RUNNER_RESULT=error notify X_RUNNER_RESULT=warning notify-barrier exit 0")
        .tasks(["2-b.sh"]);
    scene
        .run(&["-q"])
        .exits(0)
        .says("warning 1-a.sh: ok in ")
        .says(" s, says warning")
        .says("warning chain main: done in ")
        .says(" s, 2 tries; 1-a.sh says warning")
        .never_says("2-b.sh");
    let calls = scene.run(&["--only", "b"]).exits(0).hook_calls();
    let said: Vec<_> = calls.iter().map(|call| call["said"].as_str()).collect();
    // Of the first run: its start, before and after each task, its end; of the second nobody says anything.
    assert_eq!(said[..6], [None, None, Some("warning"), None, None, Some("warning")], "{calls:?}");
    assert!(said[6..].iter().all(Option::is_none), "{calls:?}");
    let text = std::fs::read_to_string(scene.path("runner.prom")).unwrap();
    assert!(text.contains("runner_last_run_said_results{chain=\"main\",said=\"warning\"} 0\n"), "of the last run: {text}");
    scene.run(&["--only", "a"]).exits(0);
    let text = std::fs::read_to_string(scene.path("runner.prom")).unwrap();
    assert!(text.contains("runner_last_run_said_results{chain=\"main\",said=\"warning\"} 1\n"), "{text}");
    if cfg!(feature = "store") {
        scene.run(&["show"]).exits(0).prints("done, 1-a.sh says warning\n").prints("OK, says warning");
        let run = &scene.run(&["show", "--json"]).exits(0).json()["run"];
        assert_eq!(
            (&run["said"], &run["tries"][0]["said"], &run["outcome"]),
            (&"warning".into(), &"warning".into(), &"done".into()),
            "{run}"
        );
        assert_eq!(scene.run(&["history", "--failed"]).exits(0).stdout_text(), "");
    }
}

#[test]
fn what_a_run_is_told_to_have_said_is_in_its_result() {
    let scene = one_try("[chain:b]\ntask_dir = b\n")
        .task("1-a.sh", "play notify X_RUNNER_RESULT=success notify-barrier exit 0")
        .task("2-b.sh", "once || exit 0\nplay notify X_RUNNER_RESULT=warning notify-barrier exit 0")
        .tasks_at("b", ["1-b.sh"]);
    let said = |args: &[&str]| {
        let result = scene.run(args).exits(0).json();
        result["runs"].as_array().unwrap().iter().map(|run| run["said"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let (success, warning) = (Some("success".to_owned()), Some("warning".to_owned()));
    assert_eq!(said(&["-n", "2", "--json"]), [warning, success], "each run has its own");
    if cfg!(all(feature = "schedule", feature = "store")) {
        let mut both = said(&["now", "main", "b", "--json"]);
        both.sort();
        assert_eq!(both, [None, Some("success".to_owned())]);
    }
}

#[rstest]
#[case("")]
#[case("STATUS")]
#[case("=")]
#[case("X_RUNNER_PROGRESS=1000")]
#[case("X_RUNNER_PROGRESS=-1")]
#[case("X_RUNNER_PROGRESS=half")]
#[case("X_RUNNER_RESULT=perhaps")]
#[case("EXTEND_TIMEOUT_USEC=soon")]
#[case("EXTEND_TIMEOUT_USEC=18446744073709551615")]
#[case("READY=1")]
#[case("MAINPID=1")]
#[case("FDSTORE=1")]
#[case("STATUS=a\nSTATUS=b\n\n\nWATCHDOG=1")]
fn nothing_that_is_said_breaks_anything(#[case] message: &str) {
    one_try("").env("MESSAGE", message).task("1-a.sh", "play notify \"$MESSAGE\" notify-barrier exit 0").run_logged(&[]).exits(0);
}

#[test]
fn what_is_no_text_breaks_nothing() {
    use std::os::unix::ffi::OsStrExt;
    one_try("")
        .env("MESSAGE", std::ffi::OsStr::from_bytes(b"STATUS=\xff\xfe\x1b[2Jx"))
        .task("1-a.sh", "play notify \"$MESSAGE\" notify-barrier exit 0")
        .run_logged(&[])
        .exits(0)
        .never_says("\x1b");
}

#[test]
fn a_storm_of_messages_makes_a_line_in_a_second() {
    let storm = ["notify 'STATUS=again and again'"; 300].join(" ");
    let body = format!("play {storm} notify 'STATUS=the last' X_RUNNER_PROGRESS=9 notify-barrier exit 0").replace("' X_", "' notify X_");
    let run = one_try("").task("1-a.sh", &body).run_logged(&[]).exits(0);
    let told = run.events("task_progress");
    // However slow the machine is: nobody needs 100 seconds for 300 letters.
    assert!((2..100).contains(&told.len()), "{} lines", told.len());
    let unshown: u64 = told.iter().map(|line| line["unshown"].as_u64().unwrap()).sum();
    assert_eq!(unshown + told.len() as u64, 302, "each is shown or counted");
    let last = told.last().unwrap();
    assert_eq!((last["status"].as_str(), last["percent"].as_u64()), (Some("the last"), Some(9)), "{last}");
}

#[test]
fn a_storm_of_messages_holds_nobody_up() {
    let storm = ["notify 'STATUS=again and again'"; 200].join(" ");
    one_try("").task("1-a.sh", &format!("play {storm} {storm} exit 0")).run(&[]).exits(0).quicker_than(9);
}

// ---- what it is good for -----------------------------------------------------------------------

#[test]
fn who_says_nothing_is_ended_after_the_idle_time() {
    let run = one_try("idle_timeout = 0.5\n").task("1-a.sh", "play pause").run_logged(&[]).exits(1).quicker_than(9);
    let ended = &run.events("task_ended")[0];
    assert_eq!(ended["result"], "RETRY");
    assert_eq!(ended["timed_out"], true);
}

#[rstest]
#[case("STATUS=still here")]
#[case("WATCHDOG=1")]
#[case("X_RUNNER_PROGRESS=7")]
#[case("EXTEND_TIMEOUT_USEC=5000000")]
fn each_word_is_progress(#[case] message: &str) {
    let body = format!("i=0; while [ $i -lt 8 ]; do probe notify '{message}' nap 250; i=$((i+1)); done; exit 0");
    one_try("idle_timeout = 1.2\n").task("1-a.sh", &body).run_logged(&[]).exits(0).slower_than(2000);
}

#[test]
fn mere_output_is_no_progress() {
    let body = "i=0; while [ $i -lt 40 ]; do echo still here; probe nap 50; i=$((i+1)); done; exit 0";
    one_try("idle_timeout = 0.7\n").task("1-a.sh", body).run(&[]).exits(1).quicker_than(9);
}

#[test]
fn progress_does_not_move_the_limit() {
    let body = "while :; do probe notify 'STATUS=still here' nap 50; done";
    one_try("max_time = 0.7\nidle_timeout = 10\n").task("1-a.sh", body).run(&[]).exits(1).quicker_than(9);
}

#[test]
fn a_task_may_ask_for_more_time() {
    one_try("max_time = 0.7\n")
        .task("1-a.sh", "play notify EXTEND_TIMEOUT_USEC=9000000 notify-barrier nap 1200 exit 0")
        .run(&[])
        .exits(0)
        .slower_than(1200);
}

#[test]
fn more_time_is_never_more_than_the_run_has() {
    one_try("max_time = 0.5\nchain_max_time = 1\n")
        .task("1-a.sh", "play notify EXTEND_TIMEOUT_USEC=60000000 notify-barrier pause")
        .run(&[])
        .exits(1)
        .nothing_alive()
        .quicker_than(9);
}

#[test]
fn the_limit_of_one_task_is_not_extended_by_another() {
    let run = one_try("max_parallel = 2\nmax_time = 0.8\n")
        .task("1-a.sh", "play notify EXTEND_TIMEOUT_USEC=9000000 notify-barrier wait-line \"$SUT_LOG\" task_ended 1-b.sh exit 0")
        .task("1-b.sh", "play pause")
        .run_logged(&[])
        .exits(1);
    let of = |task: &str| run.events("task_ended").into_iter().find(|e| e["task"] == task).unwrap()["timed_out"].clone();
    assert_eq!(of("1-a.sh"), false);
    assert_eq!(of("1-b.sh"), true);
}

// ---- who may speak -----------------------------------------------------------------------------

#[test]
fn a_stranger_is_not_heard() {
    let mut running =
        one_try("").task("1-a.sh", "play report r.json wait-file spoken notify 'STATUS=the task' notify-barrier exit 0").start_logged(&[]);
    running.wait_for_file("r.json");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(running.path("r.json")).unwrap()).unwrap();
    let name = report["env"]["NOTIFY_SOCKET"].as_str().unwrap().strip_prefix('@').unwrap().to_owned();
    let socket = UnixDatagram::unbound().unwrap();
    let address = SocketAddr::from_abstract_name(name).unwrap();
    socket.send_to_addr(b"STATUS=a stranger\nEXTEND_TIMEOUT_USEC=1000000000", &address).unwrap();
    std::fs::write(running.path("spoken"), "").unwrap();
    let run = running.finish().exits(0);
    let told = progress_of(&run);
    assert!(told.iter().any(|m| m.contains("the task")), "{run}");
    assert!(!told.iter().any(|m| m.contains("a stranger")), "{run}");
}

#[test]
fn a_grandchild_may_speak_for_its_task() {
    let run = one_try("")
        .task(
            "1-a.sh",
            "sh -c '\"$PROBE\" setsid-child { notify \"STATUS=from below\" notify-barrier touch said exit 0 }'; play wait-file said",
        )
        .run_logged(&[])
        .exits(0);
    assert!(progress_of(&run).iter().any(|m| m.contains("from below")), "{run}");
}

#[test]
fn systemd_notify_returns_at_once() {
    if !succeeds(Command::new("systemd-notify").arg("--version")) {
        skipped("systemd-notify is not installed");
        return;
    }
    let run = one_try("")
        .task("1-a.sh", "systemd-notify --status='from a script' || exit 1; systemd-notify X_RUNNER_PROGRESS=5 || exit 1; say told")
        .run_logged(&[])
        .exits(0)
        .logged(["1-a.sh 1", "- told"])
        .quicker_than(4);
    assert!(progress_of(&run).iter().any(|m| m.contains("from a script")), "{run}");
}

// ---- runner under a service manager ------------------------------------------------------------

fn texts(socket: &UnixDatagram) -> Vec<String> {
    let mut all = Vec::new();
    let mut buffer = [0_u8; 8192];
    while let Ok(length) = socket.recv(&mut buffer) {
        all.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    all
}

#[test]
fn runner_tells_its_manager_that_it_is_ready_and_what_it_does() {
    let scene = one_try("").tasks(["1-a.sh"]);
    let path = scene.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    scene.env("NOTIFY_SOCKET", path).run(&[]).exits(0);
    let all = texts(&socket);
    for word in ["READY=1", "STATUS=", "STOPPING=1"] {
        assert!(all.iter().any(|m| m.lines().any(|l| l.starts_with(word))), "{word}: {all:?}");
    }
}

#[test]
fn runner_feeds_the_watchdog_of_its_manager() {
    let scene = one_try("max_time = 600\n").task("1-a.sh", "play pause");
    let path = scene.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(crate::scene::DEADLINE)).unwrap();
    let mut running = scene.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", "300000").start(&[]);
    let mut fed = 0;
    let mut buffer = [0_u8; 8192];
    while fed < 4 {
        let length = socket.recv(&mut buffer).unwrap();
        fed += usize::from(String::from_utf8_lossy(&buffer[..length]).lines().any(|l| l == "WATCHDOG=1"));
    }
    running.signal(Signal::TERM);
    running.finish().dies_of(Signal::TERM);
}

#[test]
fn a_manager_that_does_not_listen_changes_nothing() {
    let scene = one_try("").tasks(["1-a.sh"]);
    let nowhere = scene.path("nowhere");
    scene.env("NOTIFY_SOCKET", nowhere).env("WATCHDOG_USEC", "1000").run(&[]).exits(0).ran(["1-a.sh"]);
}
