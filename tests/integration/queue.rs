//! The queue from the command line: jobs are added, worked, tried again, repeated, looked after; workers stop and die.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::hooks::HELD_BACK;
use crate::scene::{Outcome, Running, STATE_DIR, Scene, skipped, spawn, succeeds, until};

/// A scene with a queue, whose workers look often.
pub(crate) fn scene() -> Scene {
    Scene::new().config("[queue:default]\ntask_dir = tasks.d\npoll = 0.1\nkill_after = 2\n")
}

/// The ids that `enqueue` printed.
pub(crate) fn enqueue(scene: &Scene, args: &[&str]) -> Vec<i64> {
    let words: Vec<&str> = ["enqueue"].iter().chain(args).copied().collect();
    let outcome = scene.run(&words).exits(0);
    outcome.stdout_text().lines().map(|line| line.parse().unwrap()).collect()
}

fn json(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout_text()).unwrap()
}

pub(crate) fn job(scene: &Scene, id: i64) -> Value {
    json(&scene.run(&["queue", "show", &id.to_string(), "--json"]).exits(0))["job"].clone()
}

pub(crate) fn jobs(scene: &Scene) -> Vec<Value> {
    let listed = json(&scene.run(&["queue", "list", "-n", "100000", "--json"]).exits(0));
    listed["jobs"].as_array().unwrap().clone()
}

fn state(scene: &Scene, id: i64) -> String {
    job(scene, id)["state"].as_str().unwrap().to_owned()
}

fn work(scene: &Scene, args: &[&str]) -> Running {
    let words: Vec<&str> = ["work"].iter().chain(args).copied().collect();
    scene.start(&words)
}

#[test]
fn a_job_is_added_worked_and_kept() {
    let scene = scene().task("10-greet.sh", "say \"$# $1 $RUNNER_TRIGGER $RUNNER_JOB_ID $RUNNER_CHAIN $RUNNER_MAX_TRIES\"");
    let ids = enqueue(&scene, &["greet", "two words", "-x"]);
    assert_eq!(ids, [1]);
    assert_eq!(state(&scene, 1), "ready");
    scene.run(&["work", "--drain"]).exits(0).logged(["10-greet.sh 1", "- 2 two words queue 1 queue:default 25"]);
    let job = job(&scene, 1);
    assert_eq!((job["state"].as_str(), job["attempts"].as_i64(), job["exit_code"].as_i64()), (Some("done"), Some(1), Some(0)));
    assert_eq!(job["args"], serde_json::json!(["two words", "-x"]));
}

#[test]
fn a_job_that_is_over_when_its_worker_comes_back_from_starting_it_has_taken_its_time() {
    if !succeeds(Command::new("strace").arg("-V")) {
        skipped("strace is not installed");
        return;
    }
    let scene = scene().config("[runner]\ntask_hook = true\n").task("a.sh", "exit 0");
    enqueue(&scene, &["a"]);
    let run = scene.under(&HELD_BACK).run_logged(&["work", "--drain"]).exits(0);
    let took = run.events("job_ended")[0]["duration_ms"].as_u64().unwrap();
    assert!(took >= 100, "{took} ms, {run}");
}

#[test]
fn what_a_job_says_of_itself_is_told_and_kept() {
    let scene = scene().task("warn.sh", "play notify X_RUNNER_RESULT=warning notify-barrier exit 0");
    enqueue(&scene, &["warn"]);
    let run = scene.run_logged(&["work", "--drain"]).exits(0);
    let ended = &run.events("job_ended")[0];
    assert_eq!((&ended["said"], &ended["level"], &ended["result"]), (&"warning".into(), &"warning".into(), &"OK".into()), "{run}");
    assert!(ended["message"].as_str().unwrap().ends_with(" s, says warning"), "{run}");
    for event in [ended, &run.events("job_started")[0]] {
        assert_eq!((&event["queue"], &event["chain"]), (&"default".into(), &"queue:default".into()), "{event}");
        assert!(event["run_id"].is_string() && event["job"] == 1, "{event}");
    }
    let job = job(&scene, 1);
    assert_eq!((&job["state"], &job["message"]), (&"done".into(), &"exit 0, says warning".into()));
}

#[test]
fn a_job_whose_task_is_not_there_is_added_with_a_warning() {
    let scene = scene().task("10-greet.sh", "exit 0").file("tasks.d/old.sh~", "");
    for word in ["greet", "10-greet.sh"] {
        scene.run(&["enqueue", word]).exits(0).never_says("is called");
    }
    let run = scene.run(&["enqueue", "gret"]).exits(0).prints_line("3");
    run.says("/tasks.d is called `gret`: its job fails where the worker has none either; did you mean `greet`?");
    scene.run(&["enqueue", "old"]).exits(0).says("is called `old`");
    // A few lines, however many there are.
    let lines: String = (0..99).map(|number| format!("{{\"task\": \"job-{}\"}}\n", number % 9)).collect();
    let run = scene.file("jobs", lines).under(&["sh", "-c", "exec \"$@\" <jobs", "sh"]).run(&["enqueue", "--stdin"]).exits(0);
    assert_eq!(run.stderr_text().lines().count(), 4, "{run}");
    run.says("is called `job-0`").says("so it is with 6 tasks more");
    // Another machine has the directory.
    let elsewhere = Scene::new().config("[queue:default]\ntask_dir = /nowhere/at/all\n");
    assert_eq!(elsewhere.run(&["enqueue", "greet"]).exits(0).stderr_text(), "");
}

#[test]
fn those_who_make_the_database_at_the_same_time_all_find_it() {
    for _ in 0..5 {
        let scene = scene().task("10-greet.sh", "exit 0");
        let everybody: Vec<Running> = (0..6).map(|_| scene.start(&["enqueue", "greet"])).collect();
        for one in everybody {
            one.finish().exits(0);
        }
        assert_eq!(jobs(&scene).len(), 6);
    }
}

#[test]
fn what_an_exit_means() {
    let scene = scene()
        .config("skip_codes = 4\nmax_attempts = 2\nretry_delay = 0\n")
        .task("halt.sh.sh", "exit 2")
        .task("skip.sh", "exit 4")
        .task("fail.sh", "echo because >&2; exit 7")
        .task("once.sh", "once || exit 0; exit 1")
        .task("plain", "exit 0")
        .mode("tasks.d/plain", 0o644);
    for task in ["halt.sh", "skip.sh", "fail.sh", "once.sh", "nosuch", "plain"] {
        enqueue(&scene, &[task]);
    }
    scene.run(&["work", "--drain", "--fail", "--jobs", "3"]).exits(1);
    let seen: Vec<_> =
        (1..=6).map(|id| job(&scene, id)).map(|job| (job["state"].clone(), job["attempts"].clone(), job["message"].clone())).collect();
    let expected = [
        ("failed", 1, "exit 2"),
        ("done", 1, "exit 4"),
        ("failed", 2, "exit 7"),
        ("done", 2, "exit 0"),
        ("failed", 2, "could not start: no task is called `nosuch`"),
        ("failed", 2, "could not start: plain is no task: not executable (chmod +x makes it a task)"),
    ];
    for ((state, attempts, message), expected) in seen.into_iter().zip(expected) {
        assert_eq!((state.as_str().unwrap(), attempts.as_i64().unwrap(), message.as_str().unwrap()), expected);
    }
    assert_eq!(job(&scene, 3)["last_error"], "because\n");
    assert_eq!(scene.run(&["queue", "retry", "--failed"]).exits(0).stdout_text().lines().count(), 4);
    assert_eq!((state(&scene, 3).as_str(), job(&scene, 3)["attempts"].as_i64()), ("ready", Some(0)));
}

#[test]
fn names_that_are_none_and_queues_that_are_not_there_are_refused() {
    let scene = scene().task("a.sh", "exit 0");
    for task in ["../a.sh", ".a", "tasks.d/a.sh"] {
        scene.run(&["enqueue", task]).exits(64);
    }
    scene.run(&["enqueue", "-Q", "defualt", "a.sh"]).exits(64).says("did you mean `default`");
    scene.run(&["work", "-Q", "other"]).exits(64);
    scene.run(&["enqueue"]).exits(64);
    scene.run(&["enqueue", "--at", "soon", "a.sh"]).exits(64);
    scene.run(&["queue", "show", "9"]).exits(64);
    Scene::new().run(&["work"]).exits(78);
    assert_eq!(jobs(&scene).len(), 0);
}

#[test]
fn a_job_that_is_tried_again_says_how_it_failed_how_often_and_when_it_comes() {
    let scene = scene().config("max_attempts = 25\n").task("a.sh", "exit 7");
    enqueue(&scene, &["a.sh"]);
    enqueue(&scene, &["nosuch"]);
    let work = scene.run(&["work", "--drain", "--log-format", "json"]).exits(0);
    let lines: Vec<Value> = work.stderr_text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let line = |job: i64| lines.iter().find(|line| line["event"] == "job_ended" && line["job"] == job).unwrap_or_else(|| panic!("{work}"));
    for (job, how) in [(1, "failed: exit 7, attempt 1 of 25"), (2, "failed: could not start: no task is called `nosuch`, attempt 1 of 25")]
    {
        let line = line(job);
        assert_eq!((line["level"].as_str(), line["try_num"].as_u64(), line["result"].as_str()), (Some("warning"), Some(1), Some("RETRY")));
        let message = line["message"].as_str().unwrap();
        assert!(message.contains(how) && message.contains("; next try in 6.0"), "{message}");
    }
    let list = scene.run(&["queue", "list"]).exits(0).prints("RESULT").prints("1 of 25").prints("RETRY, exit 7");
    assert!(!list.stdout_text().contains("OK"), "{list}");
    scene.run(&["queue", "show", "1"]).exits(0).prints("attempts   1 of 25").prints("next try   in ").prints("result     RETRY, exit 7");
}

#[test]
fn what_is_not_there_is_said_to_be_so() {
    let scene = scene().config("[queue:stuck]\ntask_dir = tasks.d\n").task("a.sh", "exit 0");
    scene.run(&["queue", "list"]).exits(0).says("no job has been added yet").prints("");
    scene.run(&["queue", "list", "-Q", "stukc"]).exits(64).says("no queue is called `stukc`; did you mean `stuck`?");
    scene.run(&["queue", "retry", "--failed", "-Q", "stukc"]).exits(64).says("did you mean `stuck`?");
    scene.run(&["queue", "retry", "--failed"]).exits(0).says("there is no job that failed for good");
    let unknown = scene.run(&["enqueue", "-Q", "paint", "a"]).exits(64);
    unknown.says("no queue is called `paint`: there is no section [queue:paint] with a task_dir; there is default, stuck");
    enqueue(&scene, &["a.sh"]);
    scene.run(&["work", "--drain"]).exits(0);
    scene.run(&["queue", "cancel", "1"]).exits(1).says("job 1 is not ended: it is done");
    scene.run(&["queue", "cancel", "999"]).exits(1).says("there is no job 999; `runner queue list` shows").never_says("job 999 is");
    scene.run(&["queue", "run", "1"]).exits(64).says("`runner queue list` shows which there are").never_says("--help");
    scene.run(&["enqueue", "-Q", "stukc", "a.sh"]).exits(64).says("with a task_dir; did you mean `stuck`?");
    scene.run(&["enqueue", "--in", "tomorrow", "a.sh"]).exits(64).says("in = tomorrow: expected").never_says("+tomorrow");
    let scene = scene.file("stdin", "{\"task\":\"a.sh\"}\nnope\n");
    scene
        .run(&["enqueue", "--stdin"])
        .exits(64)
        .says("standard input, line 2, column 2: expected ident; expected a JSON object, such as {")
        .never_says("line 1");
}

#[test]
fn a_task_hook_hears_of_each_attempt() {
    let hook = "[runner]\ntask_hook = bin/hook.sh\nchain_hook = bin/hook.sh\n[queue:default]\n";
    let scene = scene()
        .config(&format!("{hook}max_attempts = 2\nretry_delay = 0\n"))
        .hook_keeper("bin/hook.sh", "echo \"$RUNNER_HOOK $RUNNER_JOB_ID $RUNNER_TRY\" >>\"$SCENE/knew\"")
        .task("7-fail.sh", "exit 1");
    let id = enqueue(&scene, &["fail"])[0];
    let calls = scene.run(&["work", "--drain"]).exits(0).hook_calls();
    let told: Vec<_> = calls
        .iter()
        .map(|call| ["event", "task", "chain", "try_num", "max_retries", "result", "final"].map(|key| call[key].clone()))
        .collect();
    let call = |event: &str, attempt: i64, result: Value, last: Value| {
        [event.into(), "7-fail.sh".into(), "queue:default".into(), attempt.into(), 2.into(), result, last]
    };
    let (none, failed) = (Value::Null, Value::from("RETRY"));
    let expected = [
        call("pre", 1, none.clone(), none.clone()),
        call("post", 1, failed.clone(), none.clone()),
        call("pre", 2, none.clone(), none),
        call("post", 2, failed, true.into()),
    ];
    assert_eq!(told, expected, "a job has no chain_hook: it is one task");
    let knew = fs::read_to_string(scene.path("knew")).unwrap();
    assert_eq!(knew, format!("task {id} 1\ntask {id} 1\ntask {id} 2\ntask {id} 2\n"));
}

#[test]
fn equal_jobs_have_one_key_or_one_task_with_the_same_arguments() {
    let scene = scene().task("a.sh", "exit 0");
    let add = |args: &[&str]| enqueue(&scene, &[&["--in", "1h"], args].concat())[0];
    assert_eq!([add(&["a.sh", "x"]), add(&["a.sh", "x"])], [1, 2], "nobody asked for it");
    assert_eq!(add(&["--existing", "keep", "a.sh", "x"]), 3, "those without a key have nothing in common");
    assert_eq!([add(&["--existing", "keep", "a.sh", "x"]), add(&["--existing", "keep", "a.sh", "y"])], [3, 4]);
    assert_eq!(add(&["--existing", "reschedule", "--priority", "7", "a.sh", "x"]), 3);
    assert_eq!(job(&scene, 3)["priority"], 7);
    assert_eq!(add(&["--existing", "replace", "a.sh", "x"]), 5);
    assert_eq!(state(&scene, 3), "cancelled");
    assert_eq!(add(&["--existing", "add", "a.sh", "x"]), 6);
    assert_eq!([add(&["--key", "k", "a.sh"]), add(&["--key", "k", "a.sh", "z"]), add(&["--key", "l", "a.sh"])], [7, 7, 8]);
    scene.run(&["enqueue", "--existing", "drop", "a.sh"]).exits(64);
}

#[test]
fn without_a_state_nothing_is_added_and_a_worker_waits_for_one() {
    let scene = scene().task("a.sh", "exit 0").file(STATE_DIR, "in the way");
    for words in [&["enqueue", "a.sh"][..], &["queue", "cancel", "1"], &["queue", "prune"]] {
        scene.run(words).exits(74).says("runner.db");
    }
    let mut worker = work(&scene, &["--sleep", "0.1"]);
    worker.wait_for_message("it is tried again until it works", "");
    fs::remove_file(scene.path(STATE_DIR)).unwrap();
    let id = enqueue(&scene, &["a.sh"])[0];
    until("it is done", || state(&scene, id) == "done");
    worker.signal(Signal::TERM);
    worker.finish().exits(0).says("heard of at once again");
}

#[test]
fn a_job_takes_the_task_that_is_there_when_it_runs_in_the_order_of_its_queue() {
    let scene = scene().config("jobs = 1\n[queue:nice]\ntask_dir = tasks.d\npriority_order = asc\njobs = 1\n");
    for queue in ["default", "nice"] {
        for (priority, name) in [("0", "middle"), ("-5", "low"), ("7", "high"), ("0", "later")] {
            enqueue(&scene, &["-Q", queue, "--priority", priority, "late.sh", name]);
        }
    }
    let scene = scene.script("tasks.d/late.sh", "echo \"$1\" >>\"$SCENE/$RUNNER_CHAIN\"");
    scene.run(&["work", "--drain"]).exits(0);
    let order = |queue: &str| fs::read_to_string(scene.path(queue)).unwrap();
    assert_eq!(order("queue:default"), "high\nmiddle\nlater\nlow\n");
    assert_eq!(order("queue:nice"), "low\nmiddle\nlater\nhigh\n");
}

#[test]
fn jobs_come_by_lines_all_or_none() {
    let lines = "{\"task\":\"a.sh\",\"args\":[\"x\"],\"priority\":3}\n\n{\"task\":\"a.sh\",\"in\":\"1h\",\"key\":\"k\"}\n{\"task\":\"a.sh\",\"key\":\"k\"}\n";
    let scene = scene().task("a.sh", "exit 0").file("stdin", lines);
    assert_eq!(enqueue(&scene, &["--stdin"]), [1, 2, 2]);
    let scene = scene.file("stdin", "{\"task\":\"a.sh\"}\n{\"task\":\"a.sh\",\"arg\":[]}\n");
    scene.run(&["enqueue", "--stdin"]).exits(64).says("line 2");
    let scene = scene.file("stdin", "{\"task\":\"a.sh\"}\n{\"task\":\"-a.sh\"}\n");
    scene.run(&["enqueue", "--stdin"]).exits(64).says("line 2");
    assert_eq!(jobs(&scene).len(), 2);
}

#[test]
fn a_job_repeats_and_its_plan_is_kept() {
    let scene = scene().config("max_attempts = 1\n").task("a.sh", "exit 0").task("b.sh", "exit 1");
    enqueue(&scene, &["--repeat", "1h", "--at", "2026-01-01T00:10:00Z", "a.sh"]);
    enqueue(&scene, &["--repeat", "1h", "--at", "2026-01-01T00:10:00Z", "b.sh"]);
    enqueue(&scene, &["--repeat", "1h", "--repeat-until", "2026-01-01T00:20:00Z", "--at", "2026-01-01T00:10:00Z", "a.sh"]);
    scene.run(&["work", "--drain"]).exits(0);
    let all = jobs(&scene);
    assert_eq!(all.len(), 5, "{all:?}");
    let word = |id: i64| all.iter().find(|job| job["id"] == id).unwrap()["state"].as_str().unwrap().to_owned();
    assert_eq!([word(1), word(2), word(3)], ["done", "failed", "done"], "its next repetition stands, whatever became of it");
    for job in all.iter().filter(|job| job["state"] == "scheduled") {
        assert!(job["due"].as_str().unwrap().ends_with(":10:00Z"), "{job}");
    }
}

#[test]
fn a_job_that_is_added_wakes_the_worker() {
    let scene = Scene::new().config("[queue:default]\ntask_dir = tasks.d\npoll = 1h\n").task("a.sh", "exit 0");
    let mut worker = work(&scene, &[]);
    worker.wait_for_message("worker of", "queue");
    for number in 1..=3 {
        let id = enqueue(&scene, &["a.sh"])[0];
        worker.wait_for_message(&format!("job {id},"), "done");
        assert_eq!(id, number);
    }
    enqueue(&scene, &["--in", "0.3", "a.sh"]);
    worker.wait_for_message("job 4,", "done");
    worker.signal(Signal::TERM);
    worker.finish().exits(0);
}

#[test]
fn told_to_stop_a_worker_ends_its_jobs_or_gives_them_back() {
    let scene = scene().task("quick.sh", "say begun; probe wait-file \"$SCENE/go\"; say over").task("slow.sh", "say begun; exec sleep 60");
    let mut worker = work(&scene, &["--jobs", "2"]);
    let quick = enqueue(&scene, &["quick.sh"])[0];
    worker.wait_for_log("quick.sh 1");
    worker.signal(Signal::TERM);
    worker.wait_for_message("told to stop", "1 job");
    let scene = scene.file("go", "");
    worker.finish().exits(0);
    assert_eq!(state(&scene, quick), "done");
    let slow = enqueue(&scene, &["slow.sh"])[0];
    let mut worker = work(&scene, &["--grace", "0"]);
    worker.wait_for_log("slow.sh 1");
    worker.signal(Signal::TERM);
    worker.finish().exits(0);
    let back = job(&scene, slow);
    assert_eq!((back["state"].as_str(), back["attempts"].as_i64()), (Some("ready"), Some(0)), "as if it had never begun");
}

#[test]
fn a_duration_ends_the_taking_and_not_the_jobs() {
    let scene = scene().task("a.sh", "probe wait-file \"$SCENE/go\"");
    enqueue(&scene, &["a.sh"]);
    enqueue(&scene, &["a.sh"]);
    let mut worker = work(&scene, &["--duration", "0.5", "--jobs", "1"]);
    worker.wait_for_log("a.sh 1");
    until("the time is over", || worker_has_lasted(&worker, 0.6));
    let scene = scene.file("go", "");
    worker.finish().exits(0);
    assert_eq!([state(&scene, 1), state(&scene, 2)], ["done", "ready"]);
}

fn worker_has_lasted(worker: &Running, seconds: f64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", worker.pid())).unwrap();
    let begun: f64 = stat[stat.rfind(')').unwrap()..].split(' ').nth(20).unwrap().parse().unwrap();
    let now: f64 = fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
    now - begun / 100.0 > seconds
}

#[test]
fn a_running_job_is_cancelled_and_a_waiting_one_too() {
    let scene = scene().task("a.sh", "exec sleep 60");
    let ids = [enqueue(&scene, &["a.sh"])[0], enqueue(&scene, &["--in", "1h", "a.sh"])[0]];
    let mut worker = work(&scene, &[]);
    worker.wait_for_log("a.sh 1");
    let outcome = scene.run(&["queue", "cancel", "1", "2"]).exits(0);
    assert_eq!(outcome.stdout_text(), "2  cancelled\n1  is being ended\n");
    worker.wait_for_message("job 1,", "stopped");
    until("it is written down", || state(&scene, ids[0]) == "cancelled");
    scene.run(&["queue", "cancel", "1"]).exits(1);
    worker.signal(Signal::TERM);
    worker.finish().exits(0);
}

#[test]
fn max_time_ends_a_job_and_starts_no_copy() {
    let scene = scene().config("max_time = 0.3\nmax_attempts = 1\n").task("a.sh", "exec sleep 60");
    enqueue(&scene, &["a.sh"]);
    scene.run(&["work", "--drain"]).exits(0).logged(["a.sh 1"]);
    assert_eq!(state(&scene, 1), "failed");
    assert!(job(&scene, 1)["message"].as_str().unwrap().contains("max_time"));
}

#[test]
fn a_killed_workers_job_is_ended_and_begun_again_by_another() {
    let scene = scene().task(
        "a.sh",
        "say $$; [ \"$RUNNER_TRY\" = 1 ] || exit 0; probe setsid-child { ignore TERM pause } daemon { pause } & exec sleep 60",
    );
    enqueue(&scene, &["a.sh"]);
    let mut first = work(&scene, &[]);
    first.wait_for_log("a.sh 1");
    first.signal(Signal::KILL);
    drop(first);
    assert_eq!(state(&scene, 1), "running");
    scene.run(&["work", "--drain"]).exits(0).says("is gone");
    let done = job(&scene, 1);
    assert_eq!((done["state"].as_str(), done["attempts"].as_i64()), (Some("done"), Some(2)), "it knows its attempt");
    let marked = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let of_scene = format!("SCENE={}", scene.root().display());
        environment.split(|byte| *byte == 0).any(|variable| variable == of_scene.as_bytes())
    });
    assert_eq!(marked.count(), 0, "nothing of the first attempt lives");
}

#[test]
fn one_job_is_run_here_and_now() {
    let scene = scene().task("a.sh", "echo out; exit $1");
    enqueue(&scene, &["--in", "1h", "a.sh", "0"]);
    enqueue(&scene, &["a.sh", "5"]);
    assert_eq!(scene.run(&["queue", "run", "1"]).exits(0).stdout_text(), "out\n");
    scene.run(&["queue", "run", "2"]).exits(1);
    scene.run(&["queue", "run", "1"]).exits(64);
    assert_eq!((state(&scene, 1).as_str(), job(&scene, 2)["attempts"].as_i64()), ("done", Some(1)));
}

#[test]
fn whoever_speaks_sql_adds_jobs() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/moving-from-django-background-tasks.md")).unwrap();
    let program = page.split("```python\n").nth(1).unwrap().split("\n```").next().unwrap();
    let scene = scene().config("[runner]\ndatabase = sqlite:runner.db\n").task("greet.sh", "say $1").file("enqueue.py", program);
    scene.run(&["work", "--drain"]).exits(0);
    let mut python = Command::new("python3");
    python.arg(scene.path("enqueue.py")).arg(scene.path("runner.db"));
    assert!(spawn(&mut python).unwrap().0.wait().unwrap().success());
    let job = job(&scene, 1);
    assert_eq!((job["priority"].as_i64(), job["name"].as_str(), job["state"].as_str()), (Some(5), Some("from Python"), Some("ready")));
    scene.run(&["work", "--drain"]).exits(0).logged(["greet.sh 1", "- world"]);
}
