//! The database as its users need it: the contract on SQLite, many processes at once, a process that is killed, a file
//! that is something else. `store_server.rs` has the same for PostgreSQL.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use runner::config::database::DatabaseUrl;
use runner::config::settings::StateSettings;
use runner::queue::JobState;
use runner::store::job::JobQuery;
use runner::store::open::Place;
use runner::store::record::RunRecord;
use runner::store::sqlite::Sqlite;
use runner::store::{Owner, SlotClaim, Store, StoreError, VERSION, end_crashed, lost_slots};

use crate::contract::{at, begun, claim, ended, fulfils_the_contract, owner};
use crate::contract_jobs::new_job;
use crate::scene::{Scene, spawn};

/// How many processes use a database at the same time.
const CROWD: usize = 8;
/// How many slots they all want.
const SLOTS: i64 = 48;

/// Where `database` says, as the commands open it; no password is looked for anywhere.
pub(crate) fn place(database: &str) -> Place {
    let database = DatabaseUrl::parse(database, Path::new("/")).unwrap();
    Place::new(&StateSettings { config_file: None, database: Some(database), keep_runs: 1000, keep_days: 90 }, |_| None, false)
}

pub(crate) fn open(database: &str) -> Box<dyn Store> {
    place(database).open(at(0)).unwrap()
}

fn database(scene: &Scene) -> String {
    format!("sqlite:{}", scene.path("runner.db").display())
}

#[test]
fn sqlite_fulfils_the_contract() {
    let scene = Scene::new();
    fulfils_the_contract(open(&database(&scene)).as_mut());
}

#[test]
fn the_file_and_its_directory_are_for_their_owner_alone() {
    let scene = Scene::new();
    let file = scene.path("deep/down/runner.db");
    let _store = Sqlite::open(&file).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(&scene.path("deep")), mode(&scene.path("deep/down"))], [0o700, 0o700]);
    for name in ["deep/down/runner.db", "deep/down/runner.db-wal", "deep/down/runner.db-shm"] {
        assert_eq!(mode(&scene.path(name)), 0o600, "{name}");
    }
}

#[test]
fn what_was_acknowledged_is_synced() {
    let scene = Scene::new();
    let file = scene.path("runner.db");
    drop(Sqlite::open(&file).unwrap());
    let connection = rusqlite::Connection::open(&file).unwrap();
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    // Of our own connection: the sync of each commit is a system call of its own. See `a_commit_is_synced` with strace below.
    let mut child = crowd_member("sync", &database(&scene), 0);
    assert!(child.wait().unwrap().success());
    let trace = fs::read_to_string(scene.path("trace")).unwrap();
    let syncs = trace.lines().filter(|line| line.contains("sync(")).count();
    assert!(syncs >= 20, "{syncs} syncs for 20 commits");
}

// ---- many processes ----------------------------------------------------------------------------

/// One of a crowd: this test, in a process of its own, told by its environment what to do.
fn crowd_member(role: &str, database: &str, number: usize) -> Child {
    let own = std::env::current_exe().unwrap();
    let mut command = if role == "sync" {
        let trace = Path::new(database.strip_prefix("sqlite:").unwrap()).with_file_name("trace");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-e", "trace=fsync,fdatasync", "-o"]).arg(trace).arg(own);
        strace
    } else {
        Command::new(own)
    };
    command.args(["--exact", "store::one_of_a_crowd", "--nocapture", "--test-threads=1"]);
    command.env("CROWD_ROLE", role).env("CROWD_DATABASE", database).env("CROWD_NUMBER", number.to_string());
    spawn(command.stdout(Stdio::piped())).unwrap().0
}

/// Not a test by itself: what the members of a crowd do, when they are one.
#[test]
fn one_of_a_crowd() {
    let variable = |name: &str| std::env::var(name).ok();
    let (Some(role), Some(database), Some(number)) = (variable("CROWD_ROLE"), variable("CROWD_DATABASE"), variable("CROWD_NUMBER")) else {
        return;
    };
    let (me, mut store) = (owner("crowd"), open(&database));
    match role.as_str() {
        "claim" => {
            let mut won = 0;
            // Half of them one by one, half in batches, each beginning elsewhere.
            let size = if number.parse::<i64>().unwrap() % 2 == 0 { 1 } else { 8 };
            for first in (0..SLOTS).step_by(size) {
                let claims: Vec<SlotClaim> = (first..first + size as i64).map(|second| claim("crowd", "c", second, &number)).collect();
                won += store.claim_slots(&claims, &me, at(0)).unwrap().into_iter().filter(|ours| *ours).count();
                store.put_runs(&[ended(begun(&format!("{number}-{first}"), "crowd", first), "done")]).unwrap();
                store.runs(&runner::store::HistoryQuery { chain: None, failed: false, limit: 5 }).unwrap();
            }
            tell(&format!("won {won}"));
        }
        "sync" => (0..20).for_each(|second| store.put_runs(&[begun(&format!("r{second}"), "c", second)]).unwrap()),
        _ => {
            // Tells of each slot only when it is acknowledged, until it is killed.
            for second in 0.. {
                assert_eq!(store.claim_slots(&[claim("crowd", "c", second, "run")], &me, at(0)).unwrap(), [true]);
                tell(&format!("has {second}"));
            }
        }
    }
}

/// Tells the parent, on a line of its own: the test harness has begun one.
fn tell(line: &str) {
    std::io::stdout().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok)
}

/// Each slot goes to exactly one of the processes, and none of them is told that the database is locked.
pub(crate) fn a_crowd_shares_slots(database: &str) {
    let mut crowd: Vec<Child> = (0..CROWD).map(|number| crowd_member("claim", database, number)).collect();
    let mut won = 0;
    for child in &mut crowd {
        let said: Vec<String> = lines(child).collect();
        let count = said.iter().find_map(|line| line.strip_prefix("won ")?.parse::<i64>().ok());
        assert!(child.wait().unwrap().success(), "{said:?}");
        won += count.unwrap_or_else(|| panic!("{said:?}"));
    }
    assert_eq!(won, SLOTS);
}

/// Kills a process while it claims slot after slot: whatever it told of is there.
pub(crate) fn a_killed_process_loses_nothing(database: &str) {
    let mut child = crowd_member("claim for ever", database, 0);
    let told: Vec<i64> = lines(&mut child).filter_map(|line| line.strip_prefix("has ")?.parse().ok()).take(25).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let claims: Vec<_> = told.iter().map(|second| claim("crowd", "c", *second, "somebody else")).collect();
    let mut store = open(database);
    assert!(store.claim_slots(&claims, &owner("crowd"), at(1)).unwrap().iter().all(|ours| !ours));
    let waiting = store.waiting_slots(&owner("crowd").host).unwrap();
    // The next one may be there, although nobody was told.
    assert!((told.len()..).contains(&waiting.len()), "{}", waiting.len());
}

#[test]
fn many_processes_share_a_file() {
    // Nobody has made it yet: they all try.
    a_crowd_shares_slots(&database(&Scene::new()));
}

#[test]
fn a_killed_process_loses_nothing_in_a_file() {
    a_killed_process_loses_nothing(&database(&Scene::new()));
}

// ---- a process that is gone ----------------------------------------------------------------------

#[test]
fn what_a_dead_process_left_open_is_ended_and_its_slots_are_found() {
    let scene = Scene::new();
    let mut store = open(&database(&scene));
    let here = Owner::look();
    let dead = Owner { start_time: here.start_time + 1, ..here.clone() };
    let of = |id: &str, owner: &Owner| {
        let (host, boot_id) = (owner.host.clone(), owner.boot_id.clone());
        RunRecord { host, boot_id, place: owner.place.clone(), pid: owner.pid, start_time: owner.start_time, ..begun(id, "c", 0) }
    };
    store.put_runs(&[of("lives", &here), of("dead", &dead)]).unwrap();
    store.claim_slots(&[claim("m", "c", 0, "dead"), claim("m", "c", 1, "never began")], &dead, at(0)).unwrap();
    store.put_runs(&[of("dead", &dead)]).unwrap();
    store.claim_slots(&[claim("m", "c", 2, "begins at once")], &here, at(0)).unwrap();
    let crashed = end_crashed(store.as_mut(), &here, at(9), &|_| false, None).unwrap();
    assert_eq!(crashed.iter().map(|run| run.run_id.as_str()).collect::<Vec<_>>(), ["dead"]);
    assert_eq!(store.run("dead").unwrap().unwrap().outcome.as_deref(), Some("crashed"));
    assert_eq!(
        (end_crashed(store.as_mut(), &here, at(9), &|_| false, None).unwrap().len(), store.run("lives").unwrap().unwrap().outcome),
        (0, None)
    );
    let lost = lost_slots(store.as_mut(), &here).unwrap();
    assert_eq!(lost.into_iter().map(|slot| slot.claim.run_id).collect::<Vec<_>>(), ["never began"]);
}

// ---- versions ----------------------------------------------------------------------------------

/// What is in every old copy.
pub(crate) fn knows_the_old_copy(store: &mut dyn Store, version: i64) {
    let run = store.run("1f8e60d2-0-77804e1ae0716e17").unwrap().unwrap();
    assert_eq!((run.chain.as_str(), run.outcome.as_deref(), run.tries.len()), ("nightly", Some("gave_up"), 2));
    assert_eq!((run.tries[1].verdict.as_str(), run.tries[1].output_tail.as_str()), ("RETRY", "no space\n"));
    // What tasks say of themselves came with version 4.
    let said = (version > 3).then_some("warning");
    assert_eq!((run.said.as_deref(), run.tries[0].said.as_deref(), run.tries[1].said.as_deref()), (said, None, said));
    assert_eq!(store.watermarks("machine").unwrap(), [("nightly".to_owned(), at(0))]);
    assert_eq!(store.claim_slots(&[claim("machine", "nightly", 0, "new")], &owner("machine"), at(5)).unwrap(), [false]);
    assert_eq!(store.claim_slots(&[claim("machine", "nightly", -9_000_000, "new")], &owner("machine"), at(5)).unwrap(), [false]);
    assert_eq!(store.open_runs("host").unwrap().len(), 1);
    // Jobs came with version 2; what was made of an older copy takes them.
    let known = store.jobs(&JobQuery { queue: Some("mail".into()), state: None, limit: 9, now: at(0) }).unwrap();
    let id = store.enqueue(&[new_job("mail", "send.py")], at(0)).unwrap()[0];
    if let [failed, running, waiting] = &known[..] {
        assert_eq!([failed.id, running.id, waiting.id, id], [9, 8, 7, 10]);
        assert_eq!((failed.state(at(0)), failed.last_error.as_deref()), (JobState::Failed, Some("why")));
        assert_eq!((running.claim.as_deref(), running.lease_until), (Some("1f8e60d2-4-0000000000000002.8"), Some(at(60))));
        // The place came with version 3.
        let place = if version < 3 { "" } else { "id pid:[1] time:[2]" };
        assert_eq!((running.owner().unwrap().place.as_str(), run.place.as_str()), (place, place));
        assert_eq!((waiting.key.as_deref(), waiting.repeat_ms, waiting.planned()), (Some("k"), Some(60_000), at(100)));
    } else {
        assert_eq!((known.len(), id), (0, 1));
    }
}

#[test]
fn an_old_file_of_every_version_is_understood() {
    for version in 1..=VERSION {
        let scene = Scene::new();
        let copy = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/integration/data/state-{version}.sqlite.sql"));
        let connection = rusqlite::Connection::open(scene.path("runner.db")).unwrap();
        connection.execute_batch(&fs::read_to_string(copy).unwrap()).unwrap();
        connection.close().unwrap();
        knows_the_old_copy(open(&database(&scene)).as_mut(), version);
    }
}

#[test]
fn a_file_of_a_newer_version_or_of_something_else_is_refused() {
    let scene = Scene::new();
    let file = scene.path("runner.db");
    drop(Sqlite::open(&file).unwrap());
    rusqlite::Connection::open(&file).unwrap().pragma_update(None, "user_version", VERSION + 1).unwrap();
    for opened in [Sqlite::open(&file), Sqlite::open_to_read(&file)] {
        let error = opened.unwrap_err();
        assert!(matches!(error, StoreError::Newer { .. }), "{error}");
        assert!(error.to_string().contains("use the newer program"));
    }
    let others = scene.path("others.db");
    rusqlite::Connection::open(&others).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    let text = scene.path("text.db");
    fs::write(&text, "this is no database, and longer than the header of one would be".repeat(20)).unwrap();
    for file in [others, text] {
        let before = fs::read(&file).unwrap();
        for opened in [Sqlite::open(&file), Sqlite::open_to_read(&file)] {
            let error = opened.unwrap_err();
            assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
        }
        assert!(fs::read(&file).unwrap() == before, "{} was changed", file.display());
    }
    let error = Sqlite::open_to_read(&scene.path("nowhere.db")).unwrap_err();
    assert!(matches!(error, StoreError::Absent { .. }) && !scene.path("nowhere.db").exists());
}

// ---- the plan ----------------------------------------------------------------------------------

#[test]
fn no_question_walks_through_the_whole_history() {
    let scene = Scene::new();
    drop(open(&database(&scene)));
    let connection = rusqlite::Connection::open(scene.path("runner.db")).unwrap();
    let questions = [
        ("", "runs_by_time"),
        ("WHERE failed = 1", "runs_failed"),
        ("WHERE chain = 'c'", "runs_by_chain"),
        ("WHERE chain = 'c' AND failed = 1", "runs_failed_by_chain"),
    ];
    for (filter, index) in questions {
        let sql = format!("EXPLAIN QUERY PLAN SELECT run_id, message FROM runs {filter} ORDER BY began DESC, run_id DESC LIMIT 20");
        let plan: Vec<String> = connection.prepare(&sql).unwrap().query_map([], |row| row.get(3)).unwrap().map(Result::unwrap).collect();
        assert!(plan.len() == 1 && plan[0].contains(&format!("USING INDEX {index}")), "{filter}: {plan:?}");
    }
    for (sql, index) in [
        (
            "SELECT run_id FROM runs WHERE (began, run_id) <= (1, 'x') AND outcome IS NOT NULL ORDER BY began, run_id LIMIT 9",
            "runs_by_time",
        ),
        ("SELECT run_id FROM runs WHERE host = 'h' AND outcome IS NULL", "runs_open"),
        ("SELECT run_id FROM slots WHERE host = 'h' AND begun = 0", "slots_waiting"),
        ("UPDATE slots SET begun = 1 WHERE run_id = 'r' AND begun = 0", "slots_by_run"),
        (
            "SELECT machine, chain, slot, run_id FROM (VALUES ('m', 'c', 's'), ('m', 'c', 't')) AS wanted CROSS JOIN slots \
             WHERE machine = column1 AND chain = column2 AND slot = column3",
            "SEARCH slots",
        ),
        (
            "DELETE FROM slots WHERE (machine, chain, slot) IN (SELECT machine, chain, slot FROM slots WHERE slot < 'x' ORDER BY slot LIMIT 9)",
            "slots_by_slot",
        ),
    ] {
        let plan: Vec<String> = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap()
            .query_map([], |row| row.get(3))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let whole = plan.iter().any(|step| step.starts_with("SCAN slots") || step.starts_with("SCAN runs") && !step.contains(index));
        assert!(!whole && plan.iter().any(|step| step.contains(index)), "{sql}: {plan:?}");
    }
}
