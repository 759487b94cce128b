//! `runner status`: how chains stand, as a table, as JSON, as an exit code, and again when something changes.

use jiff::{SignedDuration, Timestamp};
use runner::store::record::RunRecord;
use runner::store::sqlite::Sqlite;
use runner::store::{Owner, Store};
use rustix::process::Signal;
use serde_json::Value;

use crate::contract::{begun, ended};
use crate::scene::{STATE_DIR, Scene};
use crate::terminal::Terminal;

fn scene() -> Scene {
    let chains =
        "[chain:a]\ntask_dir = a\nschedule = every 1h\n[chain:b]\ntask_dir = a\nschedule = @daily\nenabled = no\n[chain:c]\ntask_dir = a\n";
    Scene::new().tasks_at("a", ["1-a.sh"]).raw_config(chains)
}

pub(crate) fn store(scene: &Scene) -> Sqlite {
    Sqlite::open(&scene.path(STATE_DIR).join("runner.db")).unwrap()
}

/// A run that ended so long ago.
pub(crate) fn run(id: &str, chain: &str, outcome: &str, seconds_ago: i64) -> RunRecord {
    let at = Timestamp::now().checked_sub(SignedDuration::from_secs(seconds_ago)).unwrap();
    RunRecord { began: at, ended: Some(at), ..ended(begun(id, chain, 0), outcome) }
}

fn chain<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["chains"].as_array().unwrap().iter().find(|chain| chain["name"] == name).unwrap()
}

#[test]
fn the_document_is_that_of_the_daemon() {
    let scene = scene();
    let gave_up = RunRecord { failed_task: Some("1-a.sh".into()), message: Some("exit 7".into()), ..run("r2", "a", "gave_up", 60) };
    store(&scene).put_runs(&[run("r1", "a", "done", 7200), gave_up, run("r3", "c", "skipped", 5)]).unwrap();
    let outcome = scene.run(&["status", "--json"]).exits(0);
    let status = outcome.json();
    let read: runner::status::Status = serde_json::from_slice(&outcome.stdout).unwrap();
    assert_eq!((read.version, read.chains.len()), (runner::status::VERSION, 3));
    let a = chain(&status, "a");
    assert_eq!(
        (&a["runs"][0]["id"], &a["runs"][0]["outcome"], &a["runs"][0]["why"]),
        (&"r2".into(), &"gave_up".into(), &"1-a.sh, exit 7".into())
    );
    assert_eq!((a["next"].as_array().unwrap().len(), a["runs"].as_array().unwrap().len()), (3, 2));
    assert!(a["last_success"].is_string() && chain(&status, "c")["last_success"].is_null(), "{outcome}");
    let b = chain(&status, "b");
    assert_eq!((&b["enabled"], &b["waits_because"], b["next"].as_array().unwrap().len()), (&false.into(), &"not enabled".into(), 0));
    assert_eq!(chain(&status, "c")["runs"][0]["outcome"], "not_started");
}

#[test]
fn a_run_is_shown_with_the_try_in_which_it_was_done() {
    let scene = Scene::new().config("[runner]\nmax_tries = 3\n[chain:a]\ntask_dir = tasks.d\nschedule = * * * * *\n");
    let scene = scene.task("1-a.sh", "[ \"$RUNNER_TRY\" = 2 ]");
    let tries = |scene: &Scene, name: &str| chain(&scene.run(&["status", "--json"]).exits(0).json(), name)["runs"][0]["try_num"].clone();
    scene.run(&[]).exits(0);
    assert_eq!(tries(&scene, "main"), 2, "as it was left");
    scene.run(&["tick"]).exits(0);
    assert_eq!((tries(&scene, "main"), tries(&scene, "a")), (2.into(), 2.into()), "from the database");
}

#[test]
fn a_table_says_it_in_a_line_each() {
    let scene = scene();
    store(&scene).put_runs(&[run("r1", "a", "done", 7300), run("r2", "a", "gave_up", 3700)]).unwrap();
    let text = scene.run(&["status"]).exits(0).stdout_text();
    let words = |chain: &str| text.lines().find(|line| line.starts_with(chain)).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words("a ").starts_with("a failed 1 h 1 min ago 2 h 1 min ago (in"), "{text}");
    assert!(words("a ").ends_with("gave up"), "{text}");
    assert_eq!((words("b "), words("c ")), ("b not enabled - - - -".to_owned(), "c never ran - - - -".to_owned()));
    let only = scene.run(&["status", "c"]).exits(0).stdout_text();
    assert_eq!(only.lines().count(), 2, "{only}");
}

#[test]
fn a_run_that_is_done_and_has_doubts_stands_so() {
    let scene = scene();
    let doubtful = RunRecord { said: Some("warning".into()), message: Some("1-a.sh says warning".into()), ..run("r1", "a", "done", 60) };
    let well = RunRecord { said: Some("success".into()), ..run("r2", "c", "done", 60) };
    store(&scene).put_runs(&[doubtful, well]).unwrap();
    let text = scene.run(&["status"]).exits(0).stdout_text();
    let line = |chain: &str| text.lines().find(|line| line.starts_with(chain)).unwrap();
    assert!(line("a ").contains(" ok (warning) ") && line("a ").ends_with("done: 1-a.sh says warning"), "{text}");
    assert!(line("c ").contains(" ok  ") && line("c ").ends_with("done"), "{text}");
    let status = scene.run(&["status", "--json"]).exits(0).json();
    assert_eq!((&chain(&status, "a")["runs"][0]["said"], &chain(&status, "c")["runs"][0]["said"]), (&"warning".into(), &"success".into()));
    scene.run(&["history", "a"]).exits(0).prints("done, 1-a.sh says warning\n");
    // It ended well.
    scene.run(&["status", "a", "--max-age", "1h"]).exits(0);
}

#[test]
fn what_runs_is_told_whoever_began_it() {
    let scene = scene().task_at("a/1-a.sh", "play touch begun wait-file go");
    let mut running = scene.start(&["now", "a"]);
    running.wait_for_file("begun");
    let status = scene.run(&["status", "--json"]).exits(0).json();
    let run = &chain(&status, "a")["running"][0];
    assert_eq!((&run["trigger"], &run["outcome"]), (&"now".into(), &Value::Null));
    scene.run(&["status", "a"]).exits(0).prints("runs ");
    std::fs::write(running.path("go"), "").unwrap();
    running.finish().exits(0);
    let status = scene.run(&["status", "--json"]).exits(0).json();
    let a = chain(&status, "a");
    assert_eq!((a["running"].as_array().unwrap().len(), &a["runs"][0]["id"], &a["runs"][0]["outcome"]), (0, &run["id"], &"done".into()));
}

#[test]
fn a_run_whose_process_is_gone_does_not_go_on() {
    let scene = scene();
    let here = Owner::look();
    let of = |id: &str, chain: &str, pid: i32| {
        let (host, boot_id, start_time) = (here.host.clone(), here.boot_id.clone(), here.start_time);
        RunRecord { host, boot_id, place: here.place.clone(), pid, start_time, ..begun(id, chain, 0) }
    };
    store(&scene).put_runs(&[of("lives", "a", here.pid), of("gone", "c", i32::MAX - 1)]).unwrap();
    let status = scene.run(&["status", "--json"]).exits(0).json();
    assert_eq!(chain(&status, "a")["running"][0]["id"], "lives");
    assert_eq!((&chain(&status, "c")["running"], &chain(&status, "c")["runs"][0]["outcome"]), (&Value::Array(vec![]), &"lost".into()));
}

#[test]
fn the_main_chain_is_there_when_it_is_used() {
    let scene = Scene::new().tasks(["1-a.sh"]);
    scene.run(&[]).exits(0);
    let status = scene.run(&["status", "--json"]).exits(0).json();
    assert_eq!(chain(&status, "main")["runs"][0]["trigger"], "boot");
    scene.run(&["status", "--max-age", "1h"]).exits(0);
    scene.run(&["status", "main", "--max-age", "0"]).exits(1);
}

#[test]
fn an_age_is_an_exit_code() {
    let scene = scene();
    store(&scene).put_runs(&[run("r1", "a", "done", 7200), run("r2", "a", "gave_up", 60), run("r3", "c", "gave_up", 1)]).unwrap();
    scene.run(&["status", "a", "--max-age", "3h"]).exits(0).never_prints("a");
    scene.run(&["status", "a", "--max-age", "1h"]).exits(1).prints("a: its last success is 2 h old (");
    // Whoever is not enabled is only asked for by name.
    let run = scene.run(&["status", "--max-age", "3h"]).exits(1);
    assert_eq!(run.stdout_text(), "c: no success of it is known\n");
    scene.run(&["status", "b", "--max-age", "3h"]).exits(1).prints("b: no success");
    let json = scene.run(&["status", "--max-age", "3h", "--json"]).exits(1).json();
    let fresh: Vec<_> = json["chains"].as_array().unwrap().iter().map(|chain| chain["fresh"].as_bool().unwrap()).collect();
    assert_eq!((&json["version"], &json["fresh"], fresh), (&1.into(), &false.into(), vec![true, false]));
    scene.run(&["status", "--max-age", "soon"]).exits(64).says("--max-age soon: expected a duration");
    scene.run(&["status", "aa"]).exits(64).says("no chain is called `aa`; did you mean");
}

#[test]
fn a_sign_of_life_counts_where_the_history_knows_of_none() {
    let scene = Scene::new().tasks(["1-a.sh"]).config("[liveness]\nfile = alive-{chain}.json\n");
    let record = |chain: &str, seconds_ago: i64| {
        let at = Timestamp::now().as_second() - seconds_ago;
        format!(r#"{{"fqdn":"h","timestamp":{at},"time_utc":"","time_local":""{chain}}}"#)
    };
    scene.run(&["status", "main", "--max-age", "1h"]).exits(1);
    // One of jobslib names no chain.
    const OLD: i64 = 20 * 86_400 + 3600;
    let scene = scene.file("alive-main.json", record("", OLD));
    scene.run(&["status", "main", "--max-age", "30d"]).exits(0);
    scene.run(&["status", "main", "--max-age", "30"]).exits(1).prints("its last success is 20 d old");
    let scene = scene.file("alive-main.json", record(r#","chain":"another""#, 60));
    scene.run(&["status", "main", "--max-age", "1h"]).exits(1);
    let scene = scene.file("alive-main.json", "junk");
    scene.run(&["status", "main", "--max-age", "1h"]).exits(1).prints("no success of it is known");
    scene.run(&[]).exits(0);
    scene.run(&["status", "main", "--max-age", "1h"]).exits(0);
}

#[test]
fn a_success_before_many_failures_is_found() {
    let scene = scene();
    let failures = (0..30).map(|at| run(&format!("f{at}"), "a", "gave_up", at));
    store(&scene).put_runs(&failures.chain([run("r", "a", "done", 100)]).collect::<Vec<_>>()).unwrap();
    scene.run(&["status", "a", "--max-age", "1h"]).exits(0);
}

#[test]
fn a_configuration_that_is_wrong_is_told_and_the_rest_is_shown() {
    let scene = scene();
    let broken =
        format!("{}[chain:d]\ntask_dir = a\nschedule = 61 * * * *\n", std::fs::read_to_string(scene.config_file()).unwrap_or_default());
    let chains = "[chain:a]\ntask_dir = a\nschedule = every 1h\n";
    let scene = scene.raw_config(format!("{chains}{broken}"));
    let run = scene.run(&["status", "--json"]).exits(0);
    assert_eq!((&run.json()["configuration"]["refused"]["line"], &run.json()["version"]), (&6.into(), &1.into()), "{run}");
    scene.run(&["status"]).exits(0).says("a daemon would not take it over").prints("a ");
}

#[test]
fn watching_shows_what_changes_until_a_signal() {
    let scene = scene();
    drop(store(&scene));
    let mut running = scene.start(&["status", "a", "--watch", "--json"]);
    let lines = |path: &std::path::Path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect::<Vec<_>>()
    };
    let out = running.path("stdout.1");
    running.wait_for("a first document", |_| lines(&out).len() == 1);
    store(&scene).put_runs(&[run("r1", "a", "done", 5)]).unwrap();
    running.wait_for("a second document", |_| lines(&out).len() == 2);
    running.signal(Signal::TERM);
    running.finish().dies_of(Signal::TERM);
    assert_eq!(lines(&out)[1]["chains"][0]["runs"][0]["id"], "r1");
    // Where nobody watches it is shown once.
    scene.run(&["status", "--watch"]).exits(0).prints("CHAIN");
}

#[test]
fn on_a_terminal_it_is_drawn_in_place_and_fits() {
    let terminal = Terminal::new(60, 24);
    let long = RunRecord { message: Some("why ".repeat(50)), ..run("r1", "a", "gave_up", 5) };
    let scene = scene();
    store(&scene).put_runs(&[long]).unwrap();
    let mut running = scene.stdout_to(terminal.path()).start(&["status", "--watch"]);
    crate::scene::until("a table", || terminal.text().contains("never ran"));
    running.signal(Signal::INT);
    running.finish().dies_of(Signal::INT);
    assert!(terminal.lines()[0].starts_with("CHAIN"), "{}", terminal.text());
    assert_eq!(terminal.wrapped(), None);
}

/// A chain with a long name that failed with a long message, one in order, and one that is not enabled.
fn wide_scene() -> Scene {
    let scene = Scene::new().tasks_at("a", ["1-a.sh"]).raw_config(
        "[chain:nightly-backup-of-everything]\ntask_dir = a\nschedule = every 1h\n[chain:import]\ntask_dir = a\n[chain:off]\ntask_dir = a\nenabled = no\n",
    );
    let failed = RunRecord {
        failed_task: Some("10-backup-the-databases.sh".into()),
        message: Some("the tries are used up".into()),
        ..run("4062abca-0-0ae64b46f0d06c0d", "nightly-backup-of-everything", "gave_up", 5)
    };
    store(&scene).put_runs(&[failed, run("4062abca-0-0ae64b46f0d06c0e", "import", "done", 5)]).unwrap();
    scene
}

#[rstest::rstest]
#[case(60)]
#[case(80)]
#[case(120)]
fn each_table_fits_and_what_matters_is_there(#[case] columns: u16) {
    let scene = wide_scene();
    for command in ["status", "history", "schedule", "why nightly-backup-of-everything"] {
        let terminal = Terminal::new(columns, 40);
        let args: Vec<&str> = command.split(' ').collect();
        let scene = wide_scene().stdout_to(terminal.path());
        scene.run(&args).exits(0);
        assert_eq!(terminal.wrapped(), None, "{command}");
        let text = terminal.text();
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        match command {
            "status" => assert!(words.contains("gave up: 10-backup"), "{text}"),
            "history" => {
                assert!(words.contains("4062abca-0-0ae64b46f0d06c0d") && words.contains("gave up") && words.contains("done"), "{text}")
            }
            "schedule" => assert!(words.contains("in: ") || words.contains(" IN "), "{text}"),
            _ => assert!(words.contains("the tries are used up (run 4062abca-0-0ae64b46f0d06c0d)"), "{text}"),
        }
    }
    drop(scene);
}

#[test]
fn what_is_watched_stays_where_it_is_and_never_runs_out_of_the_screen() {
    let terminal = Terminal::new(80, 4);
    let scene = wide_scene();
    let mut running = scene.stdout_to(terminal.path()).start(&["status", "--watch"]);
    crate::scene::until("a table", || terminal.text().contains("more; name the chains"));
    let first = terminal.lines();
    assert!(first.len() == 3 && first[0].starts_with("CHAIN") && first[2].starts_with("… "), "{first:#?}");
    // Five seconds ago becomes six: it was drawn again, over the old one.
    crate::scene::until("a second one", || terminal.lines() != first);
    let again = terminal.lines();
    assert!(again.len() == 3 && again[0].starts_with("CHAIN") && terminal.wrapped().is_none(), "{again:#?}");
    assert!(!terminal.all().trim_start().contains("\n\n"), "nothing was scrolled away: {}", terminal.all());
    running.signal(Signal::INT);
    running.finish().dies_of(Signal::INT);
}
