//! The record that a run leaves, and the commands that show it.

use std::fs;
use std::process::Command;

use runner::store::open::Place;
use runner::store::record::{RunRecord, TryRecord};
use runner::store::sqlite::Sqlite;
use runner::store::{Owner, Store};
use serde_json::Value;

use crate::contract::{at, begun, ended};
use crate::scene::{STATE_DIR, Scene, is_root_or_skipped, skipped, succeeds};

/// The records that lie in the state directory of the scene.
fn left(scene: &Scene) -> Vec<Value> {
    let Ok(entries) = fs::read_dir(scene.path(STATE_DIR).join("runs")) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| serde_json::from_slice(&fs::read(file).unwrap()).unwrap()).collect()
}

fn store(scene: &Scene) -> Sqlite {
    Sqlite::open(&scene.path(STATE_DIR).join("runner.db")).unwrap()
}

#[test]
fn a_run_leaves_its_record() {
    let scene = Scene::new().config("[runner]\nmax_tries = 2\noutput = capture\n").task("1-a.sh", "once && { echo no; exit 7; }; exit 0");
    scene.run(&[]).exits(0);
    let [record] = left(&scene).try_into().unwrap();
    assert_eq!((record["version"].as_u64(), record["chain"].as_str(), record["trigger"].as_str()), (Some(1), Some("main"), Some("boot")));
    assert_eq!((record["outcome"].as_str(), record["exit_code"].as_u64()), (Some("done"), Some(0)));
    let tries = record["tries"].as_array().unwrap();
    assert_eq!((tries.len(), tries[0]["exit_code"].as_u64(), tries[0]["output_tail"].as_str()), (2, Some(7), Some("no\n")));
    assert_eq!((tries[1]["try_num"].as_u64(), tries[1]["verdict"].as_str()), (Some(2), Some("OK")));
}

#[test]
fn the_record_is_there_before_the_hook_and_the_halt_task() {
    let look = "ls \"$SCENE/state.d/runs\" 2>/dev/null | wc -l | xargs echo \"${0##*/}\" >>\"$SCENE/seen\"";
    let scene = Scene::new()
        .config("[runner]\nchain_hook = ./hook.sh\n")
        .task("1-a.sh", &format!("{look}; exit 2"))
        .task("halt.sh", look)
        .script("hook.sh", look);
    let outcome = scene.run(&[]).exits(3);
    assert_eq!(outcome.text_of("seen"), "hook.sh 0\n1-a.sh 0\nhook.sh 1\nhalt.sh 1\n");
    assert_eq!(left(&scene)[0]["failed_task"], "1-a.sh");
}

#[test]
fn each_run_of_a_loop_leaves_one_and_a_signal_is_kept() {
    let scene = Scene::new().tasks(["1-a.sh"]);
    scene.run(&["-n", "2"]).exits(0);
    assert_eq!(left(&scene).len(), 2);
    let scene = Scene::new().task("1-a.sh", "kill -TERM $PPID; sleep 60");
    scene.run(&[]).dies_of(rustix::process::Signal::TERM);
    let record = &left(&scene)[0];
    assert_eq!((record["outcome"].as_str(), record["signal"].as_i64(), record["exit_code"].as_i64()), (Some("signalled"), Some(15), None));
}

#[test]
fn where_nobody_may_write_nothing_is_left_and_nothing_said() {
    Scene::new().tasks(["1-a.sh"]).env("STATE_DIRECTORY", "/proc/nowhere").run(&[]).exits(0).never_says("record");
    let scene = Scene::new().tasks(["1-a.sh"]).env("STATE_DIRECTORY", "");
    scene.env("XDG_STATE_HOME", "").env("HOME", "/proc/nowhere").run(&["--dry-run"]).exits(0);
}

#[test]
fn a_disk_that_fails_or_hangs_costs_one_warning_and_two_seconds() {
    if !succeeds(Command::new("strace").arg("-V")) {
        return skipped("strace is not installed");
    }
    let scene = |inject| Scene::new().tasks(["1-a.sh"]).under(&["strace", "-f", "-o", "/dev/null", "-e", "trace=fsync", "-e", inject]);
    let outcome = scene("inject=fsync:error=EIO").run(&[]).exits(0).says("is not kept in");
    assert_eq!(outcome.stderr_text().matches("warning").count(), 1, "{outcome}");
    assert_eq!(fs::read_dir(outcome.path(STATE_DIR).join("runs")).unwrap().count(), 0, "nothing half is left");
    scene("inject=fsync:delay_enter=3500000").run(&[]).exits(0).says("has not taken it within 2 s").slower_than(2000);
}

// ---- the commands ------------------------------------------------------------------------------

#[test]
fn history_and_show_tell_of_what_was_left() {
    let scene = Scene::new().task("1-a.sh", "exit 5").config("[runner]\nmax_tries = 1\nstop_codes = 5\n");
    scene.run(&["history"]).exits(0).says("no run has been recorded yet").prints("");
    scene.run(&["--skip", "1-a.sh"]);
    scene.run(&[]).exits(5);
    let outcome = scene.run(&["history"]).exits(0).prints("stopped by a task, 1-a.sh");
    assert!(outcome.stdout_text().starts_with("RUN "), "{outcome}");
    let id = left(&scene)[0]["run_id"].as_str().unwrap().to_owned();
    scene.run(&["show", &id[..id.len() - 1]]).exits(0).prints(&id).prints("EXIT, exit 5");
    let json = scene.run(&["show", &id, "--json"]).exits(0).json();
    let mut file = left(&scene).remove(0);
    let fields = file.as_object_mut().unwrap();
    let (config, database) = (fields.remove("config").unwrap(), fields.remove("database").unwrap());
    let expected = format!("sqlite:{}", scene.path(STATE_DIR).join("runner.db").display());
    assert_eq!((config.as_str(), database.as_str()), (scene.config_file().to_str(), Some(expected.as_str())), "whose it is");
    assert_eq!((json["version"].as_u64(), &json["run"]), (Some(1), &file));
    let json = scene.run(&["history", "main", "--failed", "--json"]).exits(0).json();
    assert_eq!((json["runs"][0]["run_id"].as_str(), json["runs"][0].get("tries")), (Some(id.as_str()), None));
    scene.run(&["history", "-n", "0"]).exits(0).never_prints(&id);
}

#[test]
fn show_says_why_there_is_no_output() {
    let scene = Scene::new().task("1-a.sh", "play out 'here\n'");
    scene.run(&[]).exits(0);
    let id = left(&scene)[0]["run_id"].as_str().unwrap().to_owned();
    let why = "output: not kept (output = inherit): see the journal of its unit (journalctl -u runner), or set output = prefix";
    scene.run(&["show", &id]).exits(0).prints(why);
    scene.run(&["show", &id, "-s", "runner.output=prefix"]).exits(0).never_prints(why);
}

#[cfg(feature = "schedule")]
#[test]
fn a_task_of_a_tick_that_wrote_nothing_wrote_nothing() {
    let scene = Scene::new().config("[chain:a]\ntask_dir = tasks.d\nschedule = * * * * *\n").task("1-a.sh", "exit 0");
    scene.run(&["tick"]).exits(0);
    scene.run(&["show", "a"]).exits(0).prints("1-a.sh").never_prints("not kept");
    scene.run(&["show", "a", "-s", "runner.output=inherit"]).exits(0).prints("not kept (output = inherit)");
    scene.run(&["now", "a"]).exits(0);
    scene.run(&["show", "a"]).exits(0).prints("output: none, or not kept: a chain that `now` runs alone");
}

#[test]
fn an_empty_database_file_is_one_in_which_nothing_is_recorded_yet() {
    let scene = Scene::new().tasks(["1-a.sh"]).config("[chain:nightly]\ntask_dir = tasks.d\n");
    scene.run(&[]).exits(0);
    let id = left(&scene)[0]["run_id"].as_str().unwrap().to_owned();
    let file = scene.path(STATE_DIR).join("runner.db");
    fs::write(&file, "").unwrap();
    // As where there is no file: what the main chain left is shown, and the file stays as it is.
    scene.run(&["history"]).exits(0).prints(&id);
    scene.run(&["status"]).exits(0);
    scene.run(&["why"]).exits(0);
    assert_eq!(fs::metadata(&file).unwrap().len(), 0);
    scene.run(&["tick"]).exits(0);
    assert!(fs::metadata(&file).unwrap().len() > 0);
    scene.run(&["history"]).exits(0).prints(&id);
}

#[test]
fn history_is_of_the_database_and_of_what_was_left_since() {
    let scene = Scene::new().tasks(["1-a.sh"]).config("[chain:nightly]\ntask_dir = tasks.d\n");
    store(&scene).put_runs(&[ended(begun("stored", "old", 0), "gave_up"), begun("open", "nightly", 1)]).unwrap();
    scene.run(&[]).exits(0);
    let ids = |args: &[&str]| {
        let runs = scene.run(&[&["--json", "history"], args].concat()).exits(0).json()["runs"].take();
        let mut ids: Vec<_> = runs.as_array().unwrap().iter().map(|run| run["run_id"].as_str().unwrap().to_owned()).collect();
        // Which of them is the newest depends on when this test runs.
        ids.sort();
        ids
    };
    let own = left(&scene)[0]["run_id"].as_str().unwrap().to_owned();
    assert_eq!(ids(&[]), [own.as_str(), "open", "stored"]);
    assert_eq!(ids(&["old"]), ["stored"], "a chain that is not configured any more");
    assert_eq!((ids(&["--failed"]), ids(&["nightly"])), (vec!["stored".to_owned()], vec!["open".to_owned()]));
    scene.run(&["history", "nigthly"]).exits(64).says("no chain is called `nigthly`").says("did you mean `nightly`?");
    assert!(scene.path(STATE_DIR).join("runs").read_dir().unwrap().count() == 1, "reading takes nothing in");
}

#[test]
fn a_record_waits_for_the_database_of_its_own_configuration() {
    let other = "[runner]\ndatabase = sqlite:other.db\n[chain:a]\ntask_dir = tasks.d\nschedule = @yearly\n";
    let scene = Scene::new().tasks(["1-a.sh"]).config("[chain:b]\ntask_dir = tasks.d\nschedule = @yearly\n").file("other.cfg", other);
    scene.run(&[]).exits(0);
    let id = left(&scene)[0]["run_id"].as_str().unwrap().to_owned();
    scene.run(&["-c", "other.cfg", "tick"]).exits(0);
    assert_eq!(left(&scene).len(), 1, "it is another's");
    scene.run(&["-c", "other.cfg", "history"]).exits(0).never_prints(&id);
    scene.run(&["tick"]).exits(0);
    assert!(left(&scene).is_empty());
    scene.run(&["history"]).exits(0).prints(&id);
}

#[test]
fn a_run_whose_process_is_gone_has_crashed() {
    let scene = Scene::new();
    let here = Owner::look();
    let gone = Owner { pid: i32::MAX - 1, ..here.clone() };
    let of = |id: &str, owner: &Owner| {
        let (host, boot_id) = (owner.host.clone(), owner.boot_id.clone());
        RunRecord { host, boot_id, place: owner.place.clone(), pid: owner.pid, start_time: owner.start_time, ..begun(id, "main", 0) }
    };
    store(&scene).put_runs(&[of("lives", &here), of("gone", &gone), begun("elsewhere", "main", 0)]).unwrap();
    let runs = scene.run(&["history", "--json"]).json()["runs"].take();
    let outcome = |id: &str| runs.as_array().unwrap().iter().find(|run| run["run_id"] == id).unwrap()["outcome"].clone();
    assert_eq!((outcome("lives"), outcome("gone"), outcome("elsewhere")), (Value::Null, "crashed".into(), Value::Null));
    scene.run(&["history", "--failed"]).exits(0).prints("gone").never_prints("lives").never_prints("elsewhere");
    scene.run(&["show", "gone"]).exits(0).prints("crashed");
}

#[test]
fn an_id_has_to_mean_one_run() {
    let scene = Scene::new();
    store(&scene).put_runs(&[begun("ab-1", "main", 0), begun("ab-2", "main", 1), begun("ab-22", "main", 2)]).unwrap();
    scene.run(&["show", "ab"]).exits(64).says("several runs begin with `ab`: ab-1, ab-2, ab-22; type more of it");
    scene.run(&["show", "x"]).exits(64).says("no run is known by the id `x`");
    scene.run(&["show", "ab-2"]).exits(0).prints("ab-2");
    let error = scene.run(&["show", "x", "--json"]).exits(64).json();
    assert_eq!(error["error"]["code"], 64);
}

#[test]
fn what_a_task_wrote_steers_no_terminal() {
    let scene = Scene::new();
    let one = TryRecord {
        task: "1-\u{1b}]0;title\u{7}.sh".into(),
        try_num: 1,
        began: at(0),
        duration_ms: 1,
        verdict: "RETRY".into(),
        exit_code: Some(1),
        signal: None,
        timed_out: None,
        not_started: None,
        left_behind: 1,
        said: None,
        output_tail: "clear\u{1b}[2J\rover\n\u{202e}turned\n".into(),
    };
    let run = RunRecord { tries: vec![one], message: Some("two\nlines\u{1b}[0m".into()), ..ended(begun("r", "main", 0), "gave_up") };
    store(&scene).put_runs(&[run]).unwrap();
    for args in [&["history"][..], &["show", "r"], &["show", "r", "--json"]] {
        let outcome = scene.run(args).exits(0);
        assert!(!outcome.stdout.iter().any(|byte| *byte == 0x1b || *byte == b'\r'), "{outcome}");
    }
    scene.run(&["show", "r"]).prints("    clear\\u{1b}[2J\\rover\n    \\u{202e}turned\n").prints("left 1 process behind");
}

#[test]
fn a_state_that_cannot_be_read_is_74_and_an_address_that_is_wrong_78() {
    let scene = Scene::new().file("state.d/runner.db", "this is something else, and it is long enough".repeat(50));
    scene.run(&["history"]).exits(74).says("is no database of runner");
    let json = scene.run(&["history", "--json"]).exits(74).json();
    assert_eq!(json["error"]["code"], 74);
    let scene = Scene::new();
    scene.run(&["history", "-s", "runner.database=mysql://me:secret@x/y"]).exits(78).says("me:***@x").says("expected sqlite:PATH");
    scene.run(&["check", "-s", "runner.keep_runs=many"]).exits(78).prints("keep_runs = many");
    let closed = "runner.database=postgresql://me:secret@127.0.0.1:1/x?connect_timeout=2";
    if cfg!(feature = "postgres") {
        scene.run(&["history", "-s", closed]).exits(74).says("me:***@127.0.0.1:1").never_says("secret");
    }
}

#[test]
fn a_state_of_somebody_else_may_not_be_read() {
    if !is_root_or_skipped() {
        return;
    }
    let scene = Scene::new();
    drop(store(&scene));
    let scene = scene.under(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    scene.run(&["history"]).exits(74).says("may not be opened");
    // With the right to read, and to write nothing at all.
    let scene = scene.mode(STATE_DIR, 0o755).mode("state.d/runner.db", 0o644);
    scene.run(&["history"]).exits(0);
}

#[test]
fn the_place_of_a_user_is_the_systems_only_with_its_configuration() {
    let scene = Scene::new().config("[runner]\nkeep_runs = 7\n");
    let settings = runner::config::settings::StateSettings { config_file: None, database: None, keep_runs: 7, keep_days: 1 };
    let place = Place::new(&settings, |name| (name == "HOME").then(|| scene.root().into()), false);
    assert_eq!(place.url().unwrap().to_string(), format!("sqlite:{}/.local/state/runner/runner.db", scene.root().display()));
    assert!(Place::new(&settings, |_| None, false).url().unwrap_err().to_string().contains("HOME is not set"));
}
