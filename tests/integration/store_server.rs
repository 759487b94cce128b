//! PostgreSQL as the database: the contract, many processes, a server that goes away or does not answer, passwords and
//! certificates. Real servers, started by the tests.

use std::fs;
use std::path::Path;
use std::time::Duration;

use runner::store::desk::{Desk, Health};
use runner::store::{HistoryQuery, StoreError, VERSION};

use crate::contract::{at, begun, claim, fulfils_the_contract, owner};
use crate::postgres::{PASSWORD, Server};
use crate::scene::{Scene, set_mode};
use crate::store::{a_crowd_shares_slots, a_killed_process_loses_nothing, knows_the_old_copy, open, place};

const ANY: HistoryQuery = HistoryQuery { chain: None, failed: false, limit: 1 };

fn sql(server: &Server, text: &str) -> Vec<String> {
    let mut client = postgres::Client::connect(&server.local(), postgres::NoTls).unwrap();
    let messages = client.simple_query(text).unwrap();
    let row = |message| match message {
        postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

#[test]
fn postgresql_fulfils_the_contract() {
    let Some(server) = Server::start() else { return };
    assert!(matches!(place(&server.local()).open_to_read(), Err(StoreError::Absent { .. })));
    fulfils_the_contract(open(&server.local()).as_mut());
    // A second look, with tables that are there, may not write.
    let mut reader = place(&server.local()).open_to_read().unwrap();
    assert!(!reader.runs(&ANY).unwrap().is_empty());
    assert!(reader.put_runs(&[begun("x", "c", 0)]).is_err());
    history_has_its_indexes(&server);
    // A newer program was here.
    sql(&server, &format!("UPDATE runner.version SET version = {}", VERSION + 1));
    for opened in [place(&server.local()).open(at(0)), place(&server.local()).open_to_read()] {
        assert!(matches!(opened.map(|_| ()), Err(StoreError::Newer { .. })));
    }
    sql(&server, "DROP SCHEMA runner CASCADE");
    for version in 1..=VERSION {
        let copy = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/integration/data/state-{version}.postgres.sql"));
        sql(&server, &fs::read_to_string(copy).unwrap());
        knows_the_old_copy(open(&server.local()).as_mut(), version);
        sql(&server, "DROP SCHEMA runner CASCADE");
    }
}

fn history_has_its_indexes(server: &Server) {
    let rows = "INSERT INTO runner.runs (run_id, chain, run_trigger, host, boot_id, pid, start_time, began, ended, outcome, failed) \
                SELECT n, n % 10, 'now', 'h', 'b', 1, 1, n, n, 'done', (n % 3 = 0)::int FROM generate_series(1, 20000) n; \
                ANALYZE runner.runs";
    sql(server, rows);
    for filter in ["", "WHERE failed = 1", "WHERE chain = '3'", "WHERE chain = '0' AND failed = 1"] {
        let question = format!("EXPLAIN SELECT run_id, message FROM runner.runs {filter} ORDER BY began DESC, run_id DESC LIMIT 20");
        let plan = sql(server, &question).join("\n");
        assert!(plan.contains("Index Scan Backward") && !plan.contains("Sort"), "{filter}:\n{plan}");
    }
}

#[test]
fn many_processes_share_a_server_and_a_killed_one_loses_nothing() {
    let Some(server) = Server::start() else { return };
    // Nobody has made the tables yet: they all try.
    a_crowd_shares_slots(&server.local());
    sql(&server, "DROP SCHEMA runner CASCADE");
    a_killed_process_loses_nothing(&server.local());
}

/// `now` needs no database; what it says before a second copy runs beside what was left stands only there.
#[cfg(feature = "schedule")]
#[test]
fn what_a_killed_tick_left_running_is_named_by_now_as_well() {
    use rustix::process::Signal;

    let Some(mut server) = Server::start() else { return };
    let task = "[ -e \"$SCENE/begun\" ] && exit 0; play pid-file pid touch begun wait-file go";
    let chains = format!("[runner]\ndatabase = {}\n[chain:a]\ntask_dir = a\nschedule = every 1s\n", server.local());
    let scene = Scene::new().raw_config(chains).task_at("a/1-a.sh", task);
    let mut first = scene.start(&["tick"]);
    first.wait_for_file("begun");
    first.insist(Signal::KILL);
    let pid = fs::read_to_string(first.path("pid")).unwrap();
    first.finish().dies_of(Signal::KILL);
    let next = scene.run(&["now", "a"]).exits(0).says("the process that ran it is gone; process").stderr_text();
    assert!(next.contains(&format!("kill {pid}")), "{next}");
    server.stop();
    scene.run(&["now", "a"]).exits(0).never_says("the process that ran it is gone");
    fs::write(scene.path("go"), "").unwrap();
}

#[test]
fn a_server_that_goes_away_is_found_again() {
    let Some(mut server) = Server::start() else { return };
    let mut store = open(&server.local());
    server.stop();
    let error = store.runs(&ANY).unwrap_err();
    assert!(matches!(error, StoreError::Away { .. }), "{error}");
    server.start_again();
    assert!(store.runs(&ANY).unwrap().is_empty(), "by a new connection, and nobody had to ask for it");
    server.stop();
    server.start_again();
    store.put_runs(&[begun("r", "c", 0)]).unwrap();
}

#[test]
fn a_server_that_hangs_costs_its_limit_and_no_more() {
    let Some(server) = Server::start() else { return };
    open(&server.local()).put_runs(&[begun("r", "c", 0)]).unwrap();
    let impatient = format!("{}&connect_timeout=1&statement_timeout=1", server.local());
    let mut store = open(&impatient);
    server.freeze();
    let error = store.runs(&ANY).unwrap_err();
    assert!(matches!(&error, StoreError::Away { why, .. } if why.contains("has not answered")), "{error}");
    let Err(error) = place(&impatient).open(at(0)) else { panic!("a frozen server let us in") };
    assert!(matches!(&error, StoreError::Away { why, .. } if why.contains("has not answered")), "{error}");
    server.thaw();
    assert_eq!(store.runs(&ANY).unwrap().len(), 1);
}

#[test]
fn the_desk_waits_for_a_server_and_its_caller_does_not() {
    let Some(mut server) = Server::start() else { return };
    server.stop();
    let there = place(&server.local());
    let mut desk: Desk<bool> = Desk::new(move || there.open(at(0))).unwrap();
    let claims = [claim("desk", "c", 0, "run")];
    desk.ask(move |store| Ok(store.claim_slots(&claims, &owner("desk"), at(0))?[0]));
    assert!(desk.answers().is_empty());
    server.start_again();
    let answers = desk.settle(Duration::from_secs(20));
    assert!(matches!(answers[..], [(_, Ok(true))]), "{answers:?}");
    assert_eq!(desk.health(), Health::Good);
}

#[test]
fn passwords_come_from_files() {
    let Some(server) = Server::start() else { return };
    let scene = Scene::new().file("secret/database_password", format!("{PASSWORD}\n"));
    let file = scene.path("secret/database_password");
    let passfile = scene.path("pgpass");
    let line = PASSWORD.replace('\\', "\\\\").replace(':', "\\:");
    fs::write(&passfile, format!("# mine\nelsewhere:*:*:*:wrong\nlocalhost:{}:postgres:me:{line}\n", server.port())).unwrap();
    set_mode(&passfile, 0o600);
    let remote = |host: &str, rest: String| place(&format!("{}?connect_timeout=5{rest}", server.remote("me", host)));
    let enters = |place: runner::store::open::Place| place.open(at(0)).map(|_| ()).map_err(|error| error.to_string());

    let mut with_credential = remote("localhost", String::new());
    with_credential.secrets.credentials = Some(scene.path("secret"));
    enters(with_credential).unwrap();
    let mut with_passfile = remote("localhost", String::new());
    with_passfile.secrets.passfile = Some(passfile.clone());
    enters(with_passfile.clone()).unwrap();
    set_mode(&passfile, 0o644);
    enters(with_passfile).unwrap_err();
    let Err(error) = remote("localhost", String::new()).open(at(0)) else { panic!("without a password") };
    assert!(error.to_string().contains("password"), "{error}");
    let wrong = format!("postgresql://me:opensesame@localhost:{}/postgres", server.port());
    let Err(error) = place(&wrong).open(at(0)) else { panic!("with a wrong password") };
    assert!(matches!(error, StoreError::Denied { .. }) && !error.to_string().contains("opensesame"), "{error}");

    let with_file = remote("localhost", format!("&password_file={}", file.display()));
    enters(with_file).unwrap();
}

#[test]
fn certificates_are_checked_as_asked() {
    let Some(server) = Server::start() else { return };
    open(&server.local());
    let root = server.root_certificate();
    let with = |host: &str, rest: &str| {
        let place = place(&format!("{}?connect_timeout=5{rest}", server.remote("keyless", host)));
        place.open_to_read().map(|_| ()).map_err(|error| error.to_string())
    };
    let rooted = format!("&sslrootcert={}", root.display());
    with("localhost", "&sslmode=disable").unwrap();
    with("localhost", "&sslmode=require").unwrap();
    with("localhost", &format!("&sslmode=verify-full{rooted}")).unwrap();
    with("127.0.0.1", &format!("&sslmode=verify-ca{rooted}")).unwrap();
    with("127.0.0.1", &format!("&sslmode=require{rooted}")).unwrap();
    let name = with("127.0.0.1", &format!("&sslmode=verify-full{rooted}")).unwrap_err();
    assert!(name.contains("not valid for name"), "{name}");
    let stranger = with("localhost", "&sslmode=verify-full&sslrootcert=system").unwrap_err();
    assert!(stranger.contains("certificate"), "{stranger}");
    let missing = with("localhost", "&sslmode=verify-full&sslrootcert=/nowhere.crt").unwrap_err();
    assert!(missing.contains("/nowhere.crt"), "{missing}");
}
