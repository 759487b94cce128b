//! Hooks: what they are told and how, and that nothing they do changes a run.

use std::process::Command;

use rstest::rstest;
use rustix::process::Signal;
use serde_json::Value;

use crate::scene::{Outcome, Scene, skipped, succeeds};

const TASK_HOOK: &str = "[runner]\ntask_hook = bin/hook.sh\n";
const CHAIN_HOOK: &str = "[runner]\nchain_hook = bin/hook.sh\n";

fn hooked() -> Scene {
    Scene::new().hook_keeper("bin/hook.sh", "").config(TASK_HOOK)
}

fn posts(run: &Outcome) -> Vec<Value> {
    run.hook_calls().into_iter().filter(|call| call["event"] == "post").collect()
}

fn texts(calls: &[Value], key: &str) -> Vec<String> {
    calls.iter().map(|c| c[key].as_str().unwrap_or("-").to_owned()).collect()
}

#[test]
fn a_hook_runs_before_and_after_each_task() {
    let calls = hooked().tasks(["1-a.sh", "2-b.sh"]).run(&[]).exits(0).hook_calls();
    assert_eq!(texts(&calls, "task"), ["1-a.sh", "1-a.sh", "2-b.sh", "2-b.sh"]);
    assert_eq!(texts(&calls, "event"), ["pre", "post", "pre", "post"]);
    assert_eq!(texts(&calls, "result"), ["-", "OK", "-", "OK"]);
}

#[test]
fn the_four_documented_keys_are_what_they_were() {
    let run = hooked().config("max_tries = 3\n").task("30-buildbot.py", "exit 1").run(&[]).exits(1);
    let calls = run.hook_calls();
    assert_eq!(calls.len(), 6);
    for (at, call) in calls.iter().enumerate() {
        assert_eq!(call["task"], "30-buildbot.py");
        assert_eq!(call["try_num"], at / 2 + 1);
        assert_eq!(call["max_retries"], 3);
        assert_eq!(call.get("result").is_some(), at % 2 == 1, "{call}");
    }
}

#[test]
fn besides_these_there_are_the_new_ones() {
    let run = hooked().task("30-build-bot.py", "exit 7").config("max_tries = 1\n").run(&[]).exits(1);
    let calls = run.hook_calls();
    for call in &calls {
        assert_eq!(call["name"], "build-bot");
        assert_eq!(call["chain"], "main");
        assert_eq!(call["run_id"], calls[0]["run_id"]);
        assert!(!call["run_id"].as_str().unwrap().is_empty());
    }
    let post = &calls[1];
    assert_eq!(post["exit_code"], 7);
    assert_eq!(post["signal"], Value::Null);
    assert_eq!(post["timed_out"], false);
    assert!(post["duration_ms"].as_u64().is_some(), "{post}");
    assert_eq!(post["left_behind"], 0);
}

#[rstest]
#[case("exit 0", "OK")]
#[case("exit 1", "RETRY")]
#[case("exit 2", "HALT")]
#[case("exit 3", "EXIT")]
#[case("exit 75", "SKIP")]
#[case("kill -KILL $$", "RETRY")]
fn the_result_is_the_verdict(#[case] body: &str, #[case] result: &str) {
    let run = hooked()
        .config("max_tries = 1\nstop_codes = 3\nskip_codes = 75\nhalt_on_give_up = no\n")
        .task("1-a.sh", body)
        .task("halt.sh", "exit 0")
        .run(&[]);
    assert_eq!(texts(&posts(&run), "result"), [result]);
}

#[test]
fn the_last_failing_try_is_final() {
    let run = hooked().config("max_tries = 3\n").task("1-a.sh", "exit 1").run(&[]).exits(1);
    let posts = posts(&run);
    assert_eq!(texts(&posts, "result"), ["RETRY", "RETRY", "RETRY"]);
    let is_final: Vec<bool> = posts.iter().map(|p| p["final"] == true).collect();
    assert_eq!(is_final, [false, false, true]);
}

#[test]
fn a_signal_and_a_time_out_are_told() {
    let run = hooked().config("max_tries = 1\nmax_time = 0.5\n").task("1-a.sh", "play pause").run(&[]).exits(1);
    let post = &posts(&run)[0];
    assert_eq!(post["timed_out"], true);
    assert!(post["signal"].is_null() || post["signal"] == 15, "{post}");
    assert_eq!(post["exit_code"], Value::Null);
    let run = hooked().config("max_tries = 1\n").task("1-a.sh", "kill -KILL $$").run(&[]).exits(1);
    let post = &posts(&run)[0];
    assert_eq!(post["timed_out"], false);
    assert_eq!(post["signal"], 9);
}

#[test]
fn a_sibling_that_was_ended_is_cancelled() {
    let run = hooked()
        .config("max_parallel = 2\n")
        .task("1-a.sh", "probe wait-file sibling; exit 2")
        .task("1-b.sh", "play pid-file sibling pause")
        .task("halt.sh", "exit 0")
        .run(&[])
        .exits(3);
    let posts = posts(&run);
    let of = |task: &str| posts.iter().find(|p| p["task"] == task).unwrap()["result"].clone();
    assert_eq!(of("1-a.sh"), "HALT");
    assert_eq!(of("1-b.sh"), "CANCEL");
}

#[test]
fn what_a_task_left_is_counted() {
    let run = hooked().task("1-a.sh", "play setsid-child { pause }").run(&[]).exits(0);
    assert_eq!(posts(&run)[0]["left_behind"], 1);
}

#[test]
fn a_task_that_could_not_be_started_has_its_hook_too() {
    let run = hooked()
        .config("max_tries = 1\n")
        .file("tasks.d/1-a.sh", "#!/no/such/interpreter\n")
        .mode("tasks.d/1-a.sh", 0o755)
        .run(&[])
        .exits(1);
    assert_eq!(texts(&posts(&run), "result"), ["RETRY"]);
}

// ---- how it is told ----------------------------------------------------------------------------

#[test]
fn the_object_is_the_last_argument_and_on_stdin() {
    let run = Scene::new()
        .script("bin/hook.sh", "printf '%s' \"$1\" >\"$SCENE/argument\"\ncat >\"$SCENE/input\"")
        .config(TASK_HOOK)
        .tasks(["1-a.sh"])
        .run(&[])
        .exits(0);
    let (argument, input) = (run.report("argument"), run.report("input"));
    assert_eq!(argument["task"], "1-a.sh");
    assert_eq!(argument, input);
}

#[test]
fn a_hook_is_split_as_a_shell_splits_but_never_run_by_one() {
    let run = Scene::new()
        .script("bin/hook.sh", "printf '<%s>' \"$@\" >\"$SCENE/arguments\"")
        .config("[runner]\ntask_hook = bin/hook.sh \"a b\" 'c  d' $HOME | * `id` e\\ f ''\n")
        .tasks(["1-a.sh"])
        .run(&[])
        .exits(0);
    let arguments = run.text_of("arguments");
    assert!(arguments.starts_with("<a b><c  d><$HOME><|><*><`id`><e f><><{"), "{arguments}");
}

#[rstest]
#[case("10-it's.sh")]
#[case("10-\"quoted\".sh")]
#[case("10-back\\slash.sh")]
#[case("10-new\nline.sh")]
#[case("10-$(touch x) `y` %s.sh")]
#[case("10-é☃.sh")]
fn no_file_name_breaks_the_object(#[case] file: &str) {
    let run = hooked().script(format!("tasks.d/{file}"), "exit 0").run(&[]).exits(0).lacks_file("x");
    assert_eq!(texts(&run.hook_calls(), "task"), [file, file]);
}

#[test]
fn a_file_name_that_is_no_utf_8_breaks_nothing() {
    use std::os::unix::ffi::OsStrExt;
    let path = std::path::Path::new("tasks.d").join(std::ffi::OsStr::from_bytes(b"10-\xff.sh"));
    assert_eq!(hooked().script(path, "exit 0").run(&[]).exits(0).hook_calls().len(), 2);
}

#[test]
fn a_hook_with_a_slash_is_relative_to_the_configuration_and_one_without_is_found_in_the_path() {
    Scene::new()
        .script("bin/hook.sh", "say slash")
        .config("[runner]\ntask_hook = bin/hook.sh\nchain_hook = sh -c 'echo \"- path\" >>\"$SCENE/log\"'\n")
        .tasks(["1-a.sh"])
        .dir("elsewhere")
        .working_directory("elsewhere")
        .run(&[])
        .exits(0)
        .logged(["- path", "- slash", "1-a.sh 1", "- slash", "- path"]);
}

#[test]
fn a_hook_has_the_environment_of_its_task() {
    let run = Scene::new()
        .script("bin/hook.sh", "probe report hook.json")
        .config("[runner]\ntask_hook = bin/hook.sh\n[env]\nCOLOUR = red\n[hg]\nremote = over there\n")
        .env("RUNNER_FOREIGN", "1")
        .tasks(["1-a.sh"])
        .run(&[])
        .exits(0);
    let environment = run.report("hook.json")["env"].clone();
    assert_eq!(environment["COLOUR"], "red");
    assert_eq!(environment["RUNNER_TASK"], "1-a.sh");
    assert_eq!(environment["RUNNER_TRY"], "1");
    assert_eq!(environment["RUNNER_CHAIN"], "main");
    assert!(environment["RUNNER_CONFIG_CMD"].is_string());
    assert!(environment.get("RUNNER_FOREIGN").is_none());
}

// ---- it changes nothing ------------------------------------------------------------------------

#[rstest]
#[case::failing("exit 1")]
#[case::halting("exit 2")]
#[case::stopping("exit 3")]
#[case::killed("kill -KILL $$")]
#[case::hanging("play pause")]
#[case::hanging_for_good("play ignore TERM pause")]
#[case::not_reading("exec <&-; exit 0")]
#[case::noisy("play flood 300000")]
#[case::leaking("play setsid-child { pause } child { pause }")]
fn a_bad_hook_changes_no_result(#[case] body: &str) {
    for hook in ["task_hook", "chain_hook"] {
        Scene::new()
            .hook_keeper("bin/hook.sh", body)
            .config(&format!("[runner]\n{hook} = bin/hook.sh\nhook_max_time = 0.3\nkill_after = 0.2\nstop_codes = 3\n"))
            .tasks(["1-a.sh", "halt.sh"])
            .run(&[])
            .exits(0)
            .ran(["1-a.sh"])
            .quicker_than(9);
    }
}

#[rstest]
#[case("task_hook", "bin/missing.sh")]
#[case("task_hook", "no-such-command-anywhere")]
#[case("task_hook", "bin/plain.sh")]
#[case("chain_hook", "bin/missing.sh")]
fn a_hook_that_cannot_be_started_changes_no_result(#[case] key: &str, #[case] hook: &str) {
    Scene::new()
        .file("bin/plain.sh", "#!/bin/sh\n")
        .config(&format!("[runner]\n{key} = {hook}\n"))
        .tasks(["1-a.sh"])
        .run(&[])
        .exits(0)
        .ran(["1-a.sh"])
        .says(hook.rsplit('/').next().unwrap());
}

#[test]
fn a_hook_that_failed_is_a_warning() {
    Scene::new().script("bin/hook.sh", "exit 7").config(TASK_HOOK).tasks(["1-a.sh"]).run_logged(&[]).exits(0).warns();
}

#[test]
fn the_time_of_a_hook_is_not_that_of_its_task() {
    Scene::new()
        .script("bin/hook.sh", "probe nap 700")
        .config("[runner]\ntask_hook = bin/hook.sh\nmax_time = 0.6\nmax_tries = 1\n")
        .tasks(["1-a.sh"])
        .run(&[])
        .exits(0)
        .ran(["1-a.sh"]);
}

#[test]
fn a_hook_does_not_sweep_what_a_task_left() {
    Scene::new()
        .script("bin/hook.sh", "play pause")
        .config("[runner]\ntask_hook = bin/hook.sh\nhook_max_time = 0.3\nkill_after = 0.2\n")
        .task("1-a.sh", "play daemon { pid-file left pause }")
        .run(&[])
        .exits(0)
        .alive("left");
}

#[test]
fn a_second_term_ends_a_hanging_hook() {
    let mut running = Scene::new()
        .script("bin/hook.sh", "play touch hooked ignore TERM pause")
        .config("[runner]\ntask_hook = bin/hook.sh\nhook_max_time = 600\n")
        .tasks(["1-a.sh"])
        .start(&[]);
    running.wait_for_file("hooked").insist(Signal::TERM);
    let run = running.finish().dies_of(Signal::TERM).nothing_alive().quicker_than(9);
    run.says("told to stop by SIGTERM again; what runs is killed")
        .says("task_hook: it was killed, because runner was told to stop twice")
        .never_says("hook_max_time is");
}

// ---- chain_hook --------------------------------------------------------------------------------

fn chain_hooked() -> Scene {
    Scene::new().hook_keeper("bin/hook.sh", "").config(CHAIN_HOOK)
}

#[rstest]
#[case::done("exit 0", 0)]
#[case::gave_up("exit 1", 1)]
#[case::halted("exit 2", 3)]
#[case::stopped("exit 3", 5)]
#[case::tried_again("once && exit 1; exit 0", 0)]
fn a_chain_hook_runs_exactly_twice_a_run(#[case] body: &str, #[case] code: i32) {
    let run =
        chain_hooked().config("max_tries = 3\nstop_codes = 3\n").task("1-a.sh", body).tasks(["2-b.sh", "halt.sh"]).run(&[]).exits(code);
    let calls = run.hook_calls();
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert_eq!(texts(&calls, "chain"), ["main", "main"]);
    assert_eq!(calls[0]["run_id"], calls[1]["run_id"]);
    assert_ne!(calls[0]["event"], calls[1]["event"]);
}

#[test]
fn a_chain_hook_runs_twice_when_told_to_stop() {
    let mut running = chain_hooked().task("1-a.sh", "play touch begun pause").start(&[]);
    running.wait_for_file("begun").signal(Signal::TERM);
    assert_eq!(running.finish().dies_of(Signal::TERM).hook_calls().len(), 2);
}

#[test]
fn each_run_of_a_loop_has_its_two() {
    let run = chain_hooked().tasks(["1-a.sh"]).run(&["-n", "2"]).exits(0);
    let ids = texts(&run.hook_calls(), "run_id");
    assert_eq!(ids.len(), 4, "{ids:?}");
    assert_eq!(ids[0], ids[1]);
    assert_eq!(ids[2], ids[3]);
    assert_ne!(ids[0], ids[2]);
}

#[test]
fn a_run_that_did_not_begin_has_one() {
    let run = chain_hooked().config("task_dir = nowhere.d\n").run(&[]).exits(78);
    assert_eq!(run.hook_calls().len(), 1);
}

#[test]
fn the_chain_hook_surrounds_everything() {
    Scene::new()
        .script("bin/chain.sh", "say chain")
        .script("bin/task.sh", "say task")
        .config("[runner]\nchain_hook = bin/chain.sh\ntask_hook = bin/task.sh\n")
        .tasks(["1-a.sh"])
        .run(&[])
        .exits(0)
        .logged(["- chain", "- task", "1-a.sh 1", "- task", "- chain"]);
}

#[test]
fn no_hook_runs_for_a_look() {
    for args in [&["check"][..], &["list"], &["--dry-run"], &["-g", "runner.max_time"]] {
        let run = chain_hooked().config("task_hook = bin/hook.sh\n").tasks(["1-a.sh"]).run(args);
        assert!(run.hook_calls().is_empty(), "{args:?}");
    }
}

// ---- the examples of failure notices -----------------------------------------------------------

/// A web server that takes so many requests: their first lines and their bodies.
fn takes_requests(count: usize) -> (u16, std::thread::JoinHandle<Vec<(String, String)>>) {
    use std::io::{BufRead, BufReader, Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let take = move |_| {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(crate::scene::DEADLINE)).unwrap();
        let mut reader = BufReader::new(stream);
        let (mut first, mut length) = (String::new(), 0);
        reader.read_line(&mut first).unwrap();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        (first.trim().to_owned(), String::from_utf8(body).unwrap())
    };
    (port, std::thread::spawn(move || (0..count).map(take).collect()))
}

/// A scene with one of the example hooks.
fn with_example(hook: &str, notify: &str) -> Scene {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("example-tasks.d/hooks").join(hook);
    let config = format!("[runner]\nmax_tries = 1\nchain_hook = ./{hook}\n[notify]\n{notify}\n");
    Scene::new().file(hook, std::fs::read(file).unwrap()).mode(hook, 0o755).config(&config)
}

fn has_curl() -> bool {
    let found = crate::scene::succeeds(std::process::Command::new("curl").arg("--version"));
    if !found {
        crate::scene::skipped("curl is not installed");
    }
    found
}

#[test]
fn the_example_of_a_mail_says_what_to_do() {
    let scene = with_example("mail.sh", "mail_to = ops@example.org").script("sendmail", "cat >>\"$SCENE/mails\"");
    let sendmail = scene.path("sendmail");
    let scene = scene.env("SENDMAIL", sendmail).task("1-a.sh", "once && exit 7; exit 0");
    let run = scene.run(&[]).exits(1).never_says("chain_hook");
    let mail = run.text_of("mails");
    assert!(mail.starts_with("To: ops@example.org\nSubject: [runner] ") && mail.contains(": chain main ended: gave up\n\n"), "{mail}");
    assert!(mail.contains(&format!("runner -c {} show ", scene.config_file().display())) && mail.contains("\"task\":\"1-a.sh\""), "{mail}");
    let run = scene.run(&[]).exits(0).never_says("chain_hook");
    assert_eq!(run.text_of("mails"), mail, "what is done is no news");
    std::fs::remove_dir_all(scene.path("tasks.d")).unwrap();
    let run = scene.run(&[]).exits(78).never_says("chain_hook");
    assert!(run.text_of("mails")[mail.len()..].contains("chain main did not run: task_dir\n"), "{run}");
    let why = format!("did not run: task_dir.\n\n{}:", scene.config_file().display());
    assert!(run.text_of("mails")[mail.len()..].contains(&why), "in words, too{run}");
}

#[test]
fn the_example_of_a_webhook_sends_the_message() {
    if !has_curl() {
        return;
    }
    let (port, requests) = takes_requests(1);
    with_example("webhook.sh", &format!("webhook = http://127.0.0.1:{port}/runner"))
        .task("1-a.sh", "exit 0")
        .run(&[])
        .exits(0)
        .never_says("chain_hook");
    let requests = requests.join().unwrap();
    let message: serde_json::Value = serde_json::from_str(&requests[0].1).unwrap();
    assert_eq!((requests[0].0.as_str(), &message["outcome"]), ("POST /runner HTTP/1.1", &"done".into()));
}

#[test]
fn the_example_of_a_dead_mans_switch_pings() {
    if !has_curl() {
        return;
    }
    let (port, requests) = takes_requests(2);
    let scene = with_example("ping.sh", &format!("ping = http://127.0.0.1:{port}/id")).task("1-a.sh", "once && exit 7; exit 0");
    scene.run(&[]).exits(1).never_says("chain_hook");
    scene.run(&[]).exits(0).never_says("chain_hook");
    let lines: Vec<_> = requests.join().unwrap().into_iter().map(|(first, _)| first).collect();
    assert_eq!(lines, ["GET /id/fail HTTP/1.1", "GET /id HTTP/1.1"]);
}

/// A loaded machine comes back to whoever started a process when that is over: here the kernel holds it back for so long.
pub(crate) const HELD_BACK: [&str; 7] =
    ["strace", "-o", "/dev/null", "-e", "trace=vfork,clone,clone3", "-e", "inject=vfork,clone,clone3:delay_exit=100000"];

#[rstest]
#[case::alone("")]
#[case::with_a_hook_of_tasks("task_hook = true\n")]
#[case::with_a_hook_of_chains("chain_hook = true\n")]
fn what_is_over_when_we_come_back_from_starting_it_has_taken_its_time(#[case] hook: &str) {
    if !succeeds(Command::new("strace").arg("-V")) {
        skipped("strace is not installed");
        return;
    }
    let run = Scene::new().config(&format!("[runner]\n{hook}")).task("1-a.sh", "exit 0").under(&HELD_BACK).run_logged(&[]).exits(0);
    let took = run.events("task_ended")[0]["duration_ms"].as_u64().unwrap();
    assert!(took >= 100, "{took} ms, {run}");
}
