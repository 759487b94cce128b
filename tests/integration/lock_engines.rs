//! The contract of a lock's engine, and the one suite that all of them pass: a file, PostgreSQL and etcd for real,
//! Consul against a double that says so.

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use runner::lock::address::{Address, LockSettings};
use runner::lock::lease::{Terms, Token};
use runner::lock::owner::{Owner, Place, TaskGroup};
use runner::lock::{Attempt, Bid, Engine, Holder, LockError, Renewal, engine, here};
use rustix::process::Signal;

use crate::alive::is_alive;
use crate::consul_double::Consul;
use crate::lock_command::send;
use crate::lock_servers::{PASSWORD, Server, etcd, postgres, start_etcd, start_postgres};
use crate::running::{DEADLINE, pause_briefly, until};
use crate::scene::{Scene, skipped};

/// One engine under the suite.
struct Case<'a> {
    /// The URL of a lock, with `KEY` for its key.
    url: String,
    ttl: Duration,
    delay: Duration,
    /// Lets this much time pass for the engine, where that can be done; else the suite waits.
    advance: Option<&'a (dyn Fn(Duration) + Sync)>,
}

impl Case<'_> {
    fn settings(&self, key: &str) -> LockSettings {
        settings(&self.url.replace("KEY", key), self.ttl, self.delay)
    }

    fn engine(&self, key: &str) -> Box<dyn Engine> {
        engine(&self.settings(key)).unwrap()
    }
}

fn settings(url: &str, ttl: Duration, delay: Duration) -> LockSettings {
    let address = Address::parse(url, Path::new("/")).unwrap();
    let terms = Terms::new(Duration::from_secs(30), Duration::ZERO).unwrap();
    LockSettings { address, terms, ttl, delay, wait: None }
}

fn owner(name: &str) -> Owner {
    let place = Place { host: name.to_owned(), ..here() };
    Owner { place, pid: 1, run_id: format!("run-{name}"), time: "2026-11-21T07:00:00Z".into(), ..Owner::default() }
}

fn bid(engine: &mut dyn Engine, name: &str, over: Option<Token>) -> Result<Attempt, LockError> {
    // A clock that has stopped: tokens grow all the same.
    engine.acquire(&Bid { owner: &owner(name), over, wall_ms: 1 })
}

#[track_caller]
fn wins(engine: &mut dyn Engine, name: &str, over: Option<Token>) -> (Token, Option<String>) {
    match bid(engine, name, over).unwrap() {
        Attempt::Won { token, previous } => (token, previous.map(|owner| owner.place.host)),
        Attempt::Busy(holder) => panic!("{name} is refused: {holder:?}"),
    }
}

fn wins_soon(engine: &mut dyn Engine, name: &str) -> (Token, Option<String>) {
    let begun = Instant::now();
    loop {
        match bid(engine, name, None).unwrap() {
            Attempt::Won { token, previous } => return (token, previous.map(|owner| owner.place.host)),
            Attempt::Busy(holder) => assert!(begun.elapsed() < DEADLINE, "{name} is refused: {holder:?}"),
        }
        pause_briefly();
    }
}

#[track_caller]
fn is_refused(engine: &mut dyn Engine, name: &str, over: Option<Token>) -> Holder {
    match bid(engine, name, over).unwrap() {
        Attempt::Busy(holder) => holder,
        Attempt::Won { .. } => panic!("{name} has it, too"),
    }
}

fn name_of(holder: Holder) -> String {
    holder.owner.unwrap().place.host
}

fn keeps_the_contract(case: &Case<'_>) {
    one_at_a_time(case);
    a_dead_one_is_replaced(case);
    a_crash_ends_by_itself(case);
    a_race_has_one_winner(case);
}

fn one_at_a_time(case: &Case<'_>) {
    let (mut first, mut second) = (case.engine("one"), case.engine("one"));
    assert_eq!(second.look().unwrap(), None, "nobody yet");
    let (token, previous) = wins(&mut *first, "first", None);
    assert_eq!(previous, None);
    let holder = is_refused(&mut *second, "second", None);
    assert_eq!((name_of(holder.clone()), holder.token), ("first".to_owned(), Some(token)));
    let group = TaskGroup { pid: 7, start_time: 8, task: "a.sh".into(), try_num: 1 };
    let busy = Owner { groups: vec![group], ..owner("first") };
    assert_eq!(first.renew(&busy).unwrap(), Renewal::Held);
    assert_eq!(is_refused(&mut *second, "second", None).owner, Some(busy), "a renewal writes the record");
    // The file's engine looks whether its owner lives; this one is made up.
    if !matches!(case.settings("one").address, Address::File(_)) {
        assert_eq!(second.look().unwrap().map(name_of).as_deref(), Some("first"));
    }
    assert_eq!(second.renew(&owner("second")).unwrap(), Renewal::Gone, "who has nothing renews nothing");
    second.release().unwrap();
    assert_eq!(first.renew(&owner("first")).unwrap(), Renewal::Held, "who has nothing releases nothing");
    first.release().unwrap();
    assert_eq!(second.look().unwrap(), None);
    let (next, previous) = wins(&mut *second, "second", None);
    assert!(next > token && previous.is_none(), "free at once, {next} after {token}, {previous:?}");
    second.release().unwrap();
}

fn a_dead_one_is_replaced(case: &Case<'_>) {
    let (mut first, mut second, mut third) = (case.engine("over"), case.engine("over"), case.engine("over"));
    let (token, _) = wins(&mut *first, "first", None);
    is_refused(&mut *second, "second", Some(Token(token.0 - 1)));
    if let Address::File(_) = case.settings("over").address {
        // The kernel has let go for who is dead; who lives is not replaced.
        is_refused(&mut *second, "second", Some(token));
        drop(first);
        // A test beside this one that starts a process has our descriptors for a moment, too (fork(2)).
        let (next, previous) = wins_soon(&mut *second, "second");
        assert_eq!((next > token, previous.as_deref()), (true, Some("first")));
        return;
    }
    let (next, previous) = wins(&mut *second, "second", Some(token));
    assert!(next > token && previous.is_none(), "{next} after {token}");
    is_refused(&mut *third, "third", Some(token));
    assert_eq!(first.renew(&owner("first")).unwrap(), Renewal::Gone);
    first.release().unwrap();
    assert_eq!(second.renew(&owner("second")).unwrap(), Renewal::Held, "the one before has let go of nothing");
    second.release().unwrap();
}

fn a_crash_ends_by_itself(case: &Case<'_>) {
    let (mut first, mut second) = (case.engine("crash"), case.engine("crash"));
    let (token, _) = wins(&mut *first, "first", None);
    let begun = Instant::now();
    assert_eq!(first.renew(&owner("first")).unwrap(), Renewal::Held);
    drop(first);
    let leased = case.settings("crash").address.is_leased();
    let mut passed = Duration::ZERO;
    let (next, previous) = loop {
        match bid(&mut *second, "second", None).unwrap() {
            Attempt::Won { token, previous } => break (token, previous.map(|owner| owner.place.host)),
            Attempt::Busy(holder) => {
                assert!(begun.elapsed() < DEADLINE, "never free: {holder:?}");
                match case.advance {
                    Some(advance) => {
                        advance(Duration::from_secs(1));
                        passed += Duration::from_secs(1);
                    }
                    None => pause_briefly(),
                }
            }
        }
    };
    assert!(!leased || passed + begun.elapsed() >= case.ttl, "taken {:?} after its last renewal", passed + begun.elapsed());
    assert_eq!((next > token, previous.as_deref()), (true, Some("first")), "who did not let go is known");
    second.release().unwrap();
}

/// Many contend, each with a connection of its own: one at a time is inside, and the tokens grow in the order of entry.
fn a_race_has_one_winner(case: &Case<'_>) {
    const THREADS: usize = 4;
    const ROUNDS: usize = 5;
    let inside = Mutex::new(());
    let entered = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for number in 0..THREADS {
            let (inside, entered) = (&inside, &entered);
            scope.spawn(move || {
                let (mut engine, begun, name) = (case.engine("race"), Instant::now(), format!("racer-{number}"));
                let mut won = 0;
                while won < ROUNDS {
                    assert!(begun.elapsed() < DEADLINE, "{name} got it {won} times");
                    match bid(&mut *engine, &name, None) {
                        Ok(Attempt::Won { token, .. }) => {
                            let alone = inside.try_lock().expect("two inside at once");
                            entered.lock().unwrap().push(token);
                            won += 1;
                            drop(alone);
                            engine.release().unwrap();
                        }
                        Ok(Attempt::Busy(_)) => std::thread::yield_now(),
                        // Two statements of one row at the same time may be too much for a short limit.
                        Err(error) => assert!(matches!(error, LockError::Unreachable { .. }), "{error}"),
                    }
                }
            });
        }
    });
    let entered = entered.into_inner().unwrap();
    assert_eq!(entered.len(), THREADS * ROUNDS);
    assert!(entered.is_sorted_by(|a, b| a < b), "{entered:?}");
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_file_keeps_the_contract() {
    let scene = Scene::new();
    let url = format!("file:{}/locks/KEY", scene.root().display());
    keeps_the_contract(&Case { url, ttl: SECOND, delay: Duration::ZERO, advance: None });
}

#[test]
fn postgresql_keeps_the_contract() {
    let Some(server) = postgres() else { return };
    let url = format!("postgresql://postgres@127.0.0.1:{}/postgres?key=contract-KEY", server.port);
    keeps_the_contract(&Case { url, ttl: SECOND, delay: Duration::from_millis(100), advance: None });
}

#[test]
fn etcd_keeps_the_contract() {
    let Some(server) = etcd() else { return };
    let url = format!("etcd://127.0.0.1:{}/contract/KEY", server.port);
    keeps_the_contract(&Case { url, ttl: 2 * SECOND, delay: Duration::ZERO, advance: None });
}

#[test]
fn the_double_of_consul_keeps_the_contract() {
    let consul = Consul::start();
    let url = format!("consul://127.0.0.1:{}/contract/KEY", consul.port);
    keeps_the_contract(&Case { url, ttl: 10 * SECOND, delay: SECOND, advance: Some(&|time| consul.advance(time)) });
    assert_eq!(consul.sessions(), 0, "no session is left on the server");
}

// ---- what differs ------------------------------------------------------------------------------

#[test]
fn a_file_that_is_removed_is_lost() {
    let scene = Scene::new();
    let mut engine = engine(&settings(&format!("file:{}/x", scene.root().display()), SECOND, SECOND)).unwrap();
    let (token, _) = wins(&mut *engine, "first", None);
    std::fs::remove_file(scene.path("x")).unwrap();
    assert_eq!(engine.renew(&owner("first")).unwrap(), Renewal::Gone);
    let (next, _) = wins(&mut *engine, "first", None);
    assert!(next > token, "the counter stands beside the file");
}

#[test]
fn consul_keeps_a_key_back_for_the_delay() {
    let consul = Consul::start();
    let url = format!("consul://127.0.0.1:{}/delay", consul.port);
    let (mut first, mut second) =
        (engine(&settings(&url, 10 * SECOND, 5 * SECOND)).unwrap(), engine(&settings(&url, 10 * SECOND, SECOND)).unwrap());
    wins(&mut *first, "first", None);
    consul.advance(12 * SECOND);
    assert_eq!(name_of(is_refused(&mut *second, "second", None)), "first");
    assert_eq!(first.renew(&owner("first")).unwrap(), Renewal::Gone);
    consul.advance(4 * SECOND);
    wins(&mut *second, "second", None);
}

#[test]
fn a_key_that_an_operator_removes_is_lost() {
    let consul = Consul::start();
    let url = format!("consul://127.0.0.1:{}/gone", consul.port);
    let mut engine = engine(&settings(&url, 10 * SECOND, SECOND)).unwrap();
    wins(&mut *engine, "first", None);
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", consul.port)).unwrap();
    std::io::Write::write_all(&mut stream, b"DELETE /v1/kv/gone HTTP/1.1\r\n\r\n").unwrap();
    std::io::Read::read_exact(&mut stream, &mut [0; 12]).unwrap();
    assert_eq!(engine.renew(&owner("first")).unwrap(), Renewal::Gone);
}

#[test]
fn passwords_come_from_files_and_are_in_no_error() {
    let Some(server) = postgres() else { return };
    let scene = Scene::new()
        .file("pw", format!("{PASSWORD}\n"))
        .file("wrong", "hunter2\n")
        .file("pgpass", format!("localhost:*:*:*:no\n127.0.0.1:{}:postgres:locked:{PASSWORD}\n", server.port));
    let url = |more: &str| format!("postgresql://locked@127.0.0.1:{}/postgres?key=secret&{more}", server.port);
    let at = |name: &str| scene.path(name).display().to_string();
    for good in [format!("password_file={}", at("pw")), format!("passfile={}", at("pgpass"))] {
        let mut engine = engine(&settings(&url(&good), SECOND, SECOND)).unwrap();
        wins(&mut *engine, "first", None);
        engine.release().unwrap();
    }
    let mut wrong = engine(&settings(&url(&format!("password_file={}", at("wrong"))), SECOND, SECOND)).unwrap();
    let error = wrong.look().unwrap_err();
    assert!(error.to_string().contains("password authentication failed"), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    let consul = Consul::start();
    consul.need_token("wide-open");
    let scene = scene.file("token", "wide-open\n");
    let url = |file: &str| format!("consul://127.0.0.1:{}/k?token_file={}", consul.port, scene.path(file).display());
    wins(&mut *engine(&settings(&url("token"), 10 * SECOND, SECOND)).unwrap(), "first", None);
    let error = engine(&settings(&url("wrong"), 10 * SECOND, SECOND)).unwrap().look().unwrap_err();
    assert!(error.to_string().contains("403") && !format!("{error:?}").contains("hunter2"), "{error:?}");
}

#[test]
fn nobody_there_is_an_error_that_says_so() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for url in [
        format!("etcd://127.0.0.1:{port}/k"),
        format!("consul://127.0.0.1:{port}/k"),
        format!("postgresql://a:hunter2@127.0.0.1:{port}/d?key=k"),
    ] {
        let error = engine(&settings(&url, 10 * SECOND, SECOND)).unwrap().look().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("cannot be reached") && text.contains(&port.to_string()) && !text.contains("hunter2"), "{text}");
    }
}

/// What lives goes on when its server comes back within the TTL, and tokens go on growing.
fn survives_a_restart(case: &Case<'_>, server: &Server, blow: Signal) {
    let (mut first, mut second) = (case.engine("restart"), case.engine("restart"));
    let (token, _) = wins(&mut *first, "first", None);
    let pid = server.pid();
    send(pid, blow);
    until("the server is gone", || !is_alive(u32::try_from(pid).unwrap()));
    let begun = Instant::now();
    loop {
        match first.renew(&owner("first")) {
            Ok(renewal) => break assert_eq!(renewal, Renewal::Held),
            Err(error) => assert!(begun.elapsed() < DEADLINE, "{error}"),
        }
        pause_briefly();
    }
    assert_eq!(name_of(is_refused(&mut *second, "second", None)), "first");
    first.release().unwrap();
    assert!(wins(&mut *second, "second", None).0 > token);
}

#[test]
fn a_restart_of_postgresql_takes_nothing_away() {
    let Some(server) = start_postgres() else { return skipped("PostgreSQL is not installed") };
    let url = format!("postgresql://postgres@127.0.0.1:{}/postgres?key=KEY", server.port);
    let case = Case { url, ttl: 20 * SECOND, delay: SECOND, advance: None };
    survives_a_restart(&case, &server, Signal::INT);
}

#[test]
fn a_restart_of_etcd_takes_nothing_away() {
    let Some(server) = start_etcd() else { return skipped("etcd is not installed") };
    let case = Case { url: format!("etcd://127.0.0.1:{}/KEY", server.port), ttl: 20 * SECOND, delay: SECOND, advance: None };
    survives_a_restart(&case, &server, Signal::KILL);
}

/// jobslib is a program that was written against Consul itself. Its own class takes, shows and gives back a lock of the
/// double, is refused while we hold the key, and refuses us while it does.
const JOBSLIB: &str = r#"
import sys, time
from types import SimpleNamespace
from jobslib.oneinstance.consul import ConsulLock as OneInstanceLock
context = SimpleNamespace(fqdn="python.example")
options = OneInstanceLock.OptionsConfig({"host": "127.0.0.1", "port": int(sys.argv[1]), "key": "shared", "ttl": 10, "lock_delay": 0}, None)
lock = OneInstanceLock(context, options)
taken = lock.acquire()
print("taken", taken, flush=True)
if taken:
    info = lock.get_lock_owner_info()
    assert info["fqdn"] == "python.example", info
    sys.stdin.readline()
    print("released", lock.release(), flush=True)
"#;

#[test]
#[ignore = "needs jobslib from PyPI: JOBSLIB_PYTHON=/path/to/python"]
fn jobslib_knows_the_double_for_consul() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    let python = std::env::var("JOBSLIB_PYTHON").unwrap();
    let consul = Consul::start();
    let start = || {
        let mut command = Command::new(&python);
        command.args(["-c", JOBSLIB, &consul.port.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = crate::scene::spawn(&mut command).unwrap().0;
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()).lines());
        (child, input, output)
    };
    let url = format!("consul://127.0.0.1:{}/shared", consul.port);
    let mut ours = engine(&settings(&url, 10 * SECOND, Duration::ZERO)).unwrap();
    let (mut child, mut input, mut lines) = start();
    assert_eq!(lines.next().unwrap().unwrap(), "taken True");
    assert_eq!(is_refused(&mut *ours, "ours", None).owner, None, "its record is not ours");
    input.write_all(b"\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "released True");
    assert!(child.wait().unwrap().success());
    wins(&mut *ours, "ours", None);
    let (mut child, _input, mut lines) = start();
    assert_eq!(lines.next().unwrap().unwrap(), "taken False");
    assert!(child.wait().unwrap().success());
    ours.release().unwrap();
    let (mut child, mut input, mut lines) = start();
    assert_eq!(lines.next().unwrap().unwrap(), "taken True");
    input.write_all(b"\n").unwrap();
    child.wait().unwrap();
}
