//! Wall clocks that are set an hour forwards and backwards under those who hold a lock, and under those who wait for it:
//! nobody loses anything, nobody waits longer or shorter, and no two are inside. The machine's own clock is never touched:
//! `clock_step.c` is preloaded, and each program is given a clock of its own. And clocks that cannot be set, but are others
//! in another time namespace.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use runner::lock::address::{LockSettings, LockTexts};
use runner::lock::engine;
use rustix::process::Signal;
use serde_json::Value;

use crate::alive::is_alive;
use crate::consul_double::Consul;
use crate::lock_command::{entered, lock_scene, send, stay_inside};
use crate::lock_servers::{Server, etcd, postgres, start_etcd, start_postgres_under};
use crate::lock_storm::{etcd_key, postgres_key};
use crate::running::{Running, until};
use crate::scene::{Scene, skipped, succeeds};

/// How far a clock is set, in seconds.
pub(crate) const HOUR: i64 = 3600;

/// What is preloaded; `None`, and told, where no C compiler is.
fn library() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let made = LIBRARY.get_or_init(|| {
        let here = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (made, own) = (here.join("clock_step.so"), here.join(format!("clock_step.{}", std::process::id())));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/clock_step.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&own).arg(source);
        // Another program of these tests may use the old one.
        succeeds(&mut compiler).then(|| fs::rename(&own, &made).map(|()| made).unwrap())
    });
    if made.is_none() {
        skipped("there is no C compiler");
    }
    made.as_deref()
}

/// The wall clock of one program.
pub(crate) struct WallClock {
    file: PathBuf,
}

impl WallClock {
    /// One that is right; `None`, and told, where that cannot be.
    pub(crate) fn new(home: &Scene, name: &str) -> Option<Self> {
        library()?;
        let clock = Self { file: home.path(name) };
        clock.set(0);
        Some(clock)
    }

    /// Sets it this many seconds beside the time.
    pub(crate) fn set(&self, seconds: i64) {
        let file = File::options().write(true).create(true).truncate(false).open(&self.file).unwrap();
        file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    /// A program with this clock, whose lock and log are those of `home`.
    pub(crate) fn scene(&self, home: &Scene) -> Scene {
        let library = library().unwrap();
        lock_scene()
            .env("SCENE", home.root())
            .env("STATE_DIRECTORY", home.path("state"))
            .env("LD_PRELOAD", library)
            .env("CLOCK_STEP", &self.file)
    }
}

/// The date at the beginning of the first line that has these words.
fn date_of(said: &str, words: &str) -> Timestamp {
    let line = said.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("nobody says `{words}`:\n{said}"));
    line.split(' ').next().unwrap().parse().unwrap()
}

/// Since when the lock is held, as whoever is refused is told, beside the time that it is.
#[track_caller]
fn since(home: &Scene, key: &str) -> SignedDuration {
    let refused = home.run(&["lock", key, "--", "true"]).exits(75).stderr_text();
    let date = refused.split(" since ").nth(1).unwrap().split(',').next().unwrap();
    Timestamp::now().duration_until(date.parse().unwrap())
}

#[track_caller]
fn is_about(span: SignedDuration, seconds: i64) {
    let off = (span - SignedDuration::from_secs(seconds)).abs();
    assert!(off < SignedDuration::from_mins(10), "{span:?} is not about {seconds} s");
}

/// How a store tells that a lease was renewed: a number, and by how much it grows then at least.
struct Renewals<'a>(&'a dyn Fn() -> u64, u64);

impl Renewals<'_> {
    #[track_caller]
    fn wait(&self) {
        let before = (self.0)();
        until("the lease is renewed", || (self.0)() >= before + self.1);
    }
}

/// The holder is renewing, others wait, and all their clocks are set; then the holder is killed.
fn keeps_its_lock(key: &str, ttl: &str, steps: &[i64], renewals: &Renewals<'_>) {
    let home = lock_scene();
    let options = ["--kill-after", "0", "--ttl", ttl, "--delay", "0", "--wait", "infinity"];
    let (Some(ours), Some(theirs)) = (WallClock::new(&home, "clock.1"), WallClock::new(&home, "clock.2")) else { return };
    let mut first = stay_inside(&ours.scene(&home), &options, key);
    until("the first is inside", || entered(&home).len() == 1);
    let mut second = stay_inside(&theirs.scene(&home), &options, key);
    second.wait_for_message("is held by pid", &first.pid().to_string());
    for step in steps {
        ours.set(*step);
        theirs.set(-step);
        renewals.wait();
    }
    let (_, holder, command) = entered(&home)[0];
    assert!(is_alive(command) && entered(&home).len() == 1, "the lock was lost: {}", first.said());
    assert!(!first.said().contains("in doubt"), "{}", first.said());
    // Whoever takes over does so at once, and by its own clock it is an hour later than when it began to wait.
    theirs.set(HOUR);
    send(holder, Signal::KILL);
    until("the second is inside", || entered(&home).len() == 2);
    let said = second.said();
    is_about(date_of(&said, "is held by pid").duration_until(date_of(&said, "has ended on this machine")), HOUR);
    is_about(since(&home, key), HOUR);
    // One whose clock is right comes after one whose clock is ahead: its token is greater all the same.
    let mut third = stay_inside(&home, &options, key);
    third.wait_for_message("is held by pid", &second.pid().to_string());
    send(i32::try_from(second.pid()).unwrap(), Signal::KILL);
    third.wait_for("the third is inside", |_| entered(&home).len() == 3);
    is_about(since(&home, key), 0);
    let tokens: Vec<u64> = entered(&home).iter().map(|entry| entry.0).collect();
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
    first.signal(Signal::KILL);
    third.signal(Signal::TERM);
    third.finish().dies_of(Signal::TERM);
}

#[test]
fn clocks_that_are_set_lose_nothing_in_postgresql() {
    let Some(server) = postgres() else { return };
    let key = postgres_key(server, "clock");
    let texts = LockTexts { lock: &key, ..LockTexts::default() };
    let settings = LockSettings::parse(texts, Duration::ZERO, Path::new("/")).unwrap();
    let begun = Instant::now();
    // When the row ends, by a clock of ours.
    let ends = || {
        let rest = engine(&settings).unwrap().look().unwrap().and_then(|holder| holder.rest).unwrap_or_default();
        u64::try_from((begun.elapsed() + rest).as_millis()).unwrap()
    };
    keeps_its_lock(&key, "6", &[HOUR, -HOUR, HOUR], &Renewals(&ends, 500));
}

#[test]
fn clocks_that_are_set_lose_nothing_in_etcd() {
    let Some(server) = etcd() else { return };
    let key = etcd_key(server, "clock");
    keeps_its_lock(&key, "6", &[HOUR, -HOUR, HOUR], &Renewals(&|| revision(server, "clock.owner"), 1));
}

#[test]
fn clocks_that_are_set_lose_nothing_in_the_double_of_consul() {
    let consul = Consul::start();
    let index = || consul.index();
    keeps_its_lock(&format!("consul://127.0.0.1:{}/k", consul.port), "10", &[HOUR, -HOUR], &Renewals(&index, 1));
}

/// The revision in which a key was written last.
fn revision(server: &Server, key: &str) -> u64 {
    let body = format!(r#"{{"key":"{}"}}"#, STANDARD.encode(key));
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    write!(stream, "POST /v3/kv/range HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let json: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    json["kvs"][0]["mod_revision"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Its records and tokens have dates, and nothing goes by them.
#[test]
fn clocks_that_are_set_change_nothing_about_a_file() {
    let home = lock_scene();
    let (Some(ours), Some(theirs)) = (WallClock::new(&home, "clock.1"), WallClock::new(&home, "clock.2")) else { return };
    ours.set(HOUR);
    let mut first = stay_inside(&ours.scene(&home), &[], "k");
    until("the first is inside", || entered(&home).len() == 1);
    is_about(since(&home, "k"), HOUR);
    let mut second = stay_inside(&theirs.scene(&home), &["--wait", "infinity"], "k");
    second.wait_for_message("is held by pid", &first.pid().to_string());
    ours.set(-HOUR);
    theirs.set(-HOUR);
    let at = entered(&home)[0].1;
    send(at, Signal::KILL);
    until("the second is inside", || entered(&home).len() == 2);
    is_about(since(&home, "k"), -HOUR);
    let tokens: Vec<u64> = entered(&home).iter().map(|entry| entry.0).collect();
    assert_eq!(tokens[1], tokens[0] + 1, "the clock that gave the first is two hours ahead");
    first.signal(Signal::KILL);
    second.signal(Signal::TERM);
    second.finish().dies_of(Signal::TERM);
}

/// A PostgreSQL whose own clock is set, which decides when its rows have expired.
fn postgres_with_clock(home: &Scene, clock: &WallClock) -> Option<Server> {
    // For a user without rights, who may not reach where it was made.
    let library = home.path("clock_step.so");
    fs::copy(self::library()?, &library).unwrap();
    let under = ["env".to_owned(), format!("LD_PRELOAD={}", library.display()), format!("CLOCK_STEP={}", clock.file.display())];
    let server = start_postgres_under(&under, "127.0.0.1");
    if server.is_none() {
        skipped("PostgreSQL is not installed");
    }
    server
}

/// By how much the server's clock is beside ours.
fn off(server: &Server) -> SignedDuration {
    let url = format!("postgresql://postgres@127.0.0.1:{}/postgres", server.port);
    let mut client = ::postgres::Client::connect(&url, ::postgres::NoTls).unwrap();
    let micros: i64 = client.query_one("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint", &[]).unwrap().get(0);
    Timestamp::now().duration_until(Timestamp::from_microsecond(micros).unwrap())
}

/// Whoever waits has seen how long the lease lasts, and goes by its own clock from there.
#[test]
fn a_server_whose_clock_is_set_forward_gives_no_lock_away_to_who_waits() {
    let home = lock_scene();
    let Some(clock) = WallClock::new(&home, "clock.server") else { return };
    let Some(server) = postgres_with_clock(&home, &clock) else { return };
    let key = postgres_key(&server, "k");
    let options = ["--kill-after", "0", "--ttl", "6", "--delay", "0", "--wait", "infinity"];
    let mut first = stay_inside(&home, &options, &key);
    first.wait_for("the first is inside", |_| entered(&home).len() == 1);
    let mut second = stay_inside(&home, &options, &key);
    second.wait_for_message("is held by pid", &first.pid().to_string());
    // The waiting one asks several times before the next renewal, and the row has expired each time.
    let texts = LockTexts { lock: &key, ..LockTexts::default() };
    let settings = LockSettings::parse(texts, Duration::ZERO, Path::new("/")).unwrap();
    for step in [HOUR, 2 * HOUR] {
        clock.set(step);
        is_about(off(&server), step);
        until("the lease is renewed", || engine(&settings).unwrap().look().unwrap().is_some());
    }
    assert_eq!(entered(&home).len(), 1, "the lock was given away");
    assert!(is_alive(entered(&home)[0].2) && !first.said().contains("lost"), "{}", first.said());
    for (number, holder) in [first, second].iter_mut().enumerate() {
        until("it is inside", || entered(&home).len() == number + 1);
        holder.signal(Signal::TERM);
    }
}

/// Else a dead holder of another machine would keep everybody waiting for an hour.
#[test]
fn a_server_whose_clock_is_set_back_keeps_nobody_waiting_after_a_dead_holder() {
    let home = lock_scene();
    let Some(clock) = WallClock::new(&home, "clock.server") else { return };
    if !succeeds(Command::new("unshare").args(["--time", "--boottime", "1000000", "--fork", "true"])) {
        return skipped("no time namespace can be made here");
    }
    let Some(server) = postgres_with_clock(&home, &clock) else { return };
    let key = postgres_key(&server, "k");
    let options = ["--kill-after", "0", "--ttl", "6", "--delay", "0", "--wait", "infinity"];
    let away = lock_scene().env("SCENE", home.root()).under(&["unshare", "--time", "--boottime", "1000000", "--fork", "--kill-child"]);
    let _first = stay_inside(&away, &options, &key);
    until("the first is inside", || entered(&home).len() == 1);
    let mut second = stay_inside(&home, &options, &key);
    second.wait_for_message("is held by pid", " on ");
    send(entered(&home)[0].1, Signal::KILL);
    clock.set(-HOUR);
    is_about(off(&server), -HOUR);
    second.wait_for("the second is inside", |_| entered(&home).len() == 2);
    second.signal(Signal::TERM);
    second.finish().dies_of(Signal::TERM);
}

/// One that waits for so long, and whose clock is set as soon as it does.
fn waits(home: &Scene, key: &str, clock: &WallClock, seconds: i64) -> Running {
    let mut waiting = clock.scene(home).start(&["lock", "--wait", "2", key, "--", "true"]);
    waiting.wait_for_message("is held by pid", " on ");
    clock.set(seconds);
    waiting
}

#[test]
fn who_waits_does_so_by_a_clock_that_nobody_sets() {
    let Some(server) = postgres() else { return };
    for key in ["k", &postgres_key(server, "patience")] {
        let home = lock_scene();
        let (Some(ahead), Some(back)) = (WallClock::new(&home, "clock.1"), WallClock::new(&home, "clock.2")) else { return };
        let mut holder = stay_inside(&home, &[], key);
        holder.wait_for("somebody is inside", |_| entered(&home).len() == 1);
        let [ahead, back] = [waits(&home, key, &ahead, HOUR), waits(&home, key, &back, -HOUR)];
        ahead.finish().exits(75).slower_than(2000);
        back.finish().exits(75).slower_than(2000);
        holder.signal(Signal::TERM);
        holder.finish().dies_of(Signal::TERM);
    }
}

/// A clock that goes back gives no more time to anybody.
#[test]
fn a_lock_that_is_lost_ends_its_command_in_time_whatever_the_clock_says() {
    let Some(server) = start_etcd() else { return skipped("etcd is not installed") };
    let home = lock_scene();
    let Some(clock) = WallClock::new(&home, "clock.1") else { return };
    let holder = stay_inside(&clock.scene(&home), &["--kill-after", "0", "--ttl", "6", "--delay", "0"], &etcd_key(&server, "k"));
    until("somebody is inside", || entered(&home).len() == 1);
    send(server.pid(), Signal::STOP);
    let begun = Instant::now();
    clock.set(-HOUR);
    let command = entered(&home)[0].2;
    until("the command is ended", || !is_alive(command));
    assert!(begun.elapsed() < Duration::from_secs(6), "its lease could be another's by then: {:?}", begun.elapsed());
    let outcome = holder.finish().exits(79);
    is_about(Timestamp::now().duration_until(date_of(&outcome.stderr_text(), "inside.sh is ended")), -HOUR);
    send(server.pid(), Signal::CONT);
}

/// A holder whose clock of leases is eleven days ahead of that of whoever waits: moments of the one mean nothing to the other,
/// and neither do start times of processes. Its guard lives by the same clock as it does.
fn in_another_time(signal: Signal, key: &str) {
    let namespace = ["unshare", "--time", "--boottime", "1000000", "--fork", "--kill-child"];
    if !succeeds(Command::new(namespace[0]).args(&namespace[1..]).arg("true")) {
        return skipped("no time namespace can be made here");
    }
    let home = lock_scene();
    let options = ["--kill-after", "0", "--ttl", "6", "--delay", "0", "--wait", "infinity"];
    let away = lock_scene().env("SCENE", home.root()).under(&namespace);
    let first = stay_inside(&away, &options, key);
    until("the first is inside", || entered(&home).len() == 1);
    let mut second = stay_inside(&home, &options, key);
    second.wait_for_message("is held by pid", " on ");
    let (_, holder, command) = entered(&home)[0];
    send(holder, signal);
    let begun = Instant::now();
    until("its guard ends the command", || !is_alive(command));
    assert_eq!(entered(&home).len(), 1, "the lease was not waited for");
    second.wait_for("the second is inside", |_| entered(&home).len() == 2);
    assert!(begun.elapsed() > Duration::from_secs(3), "the lease was not waited for: {:?}", begun.elapsed());
    send(i32::try_from(first.pid()).unwrap(), Signal::KILL);
    second.signal(Signal::TERM);
    second.finish().dies_of(Signal::TERM);
}

#[test]
fn a_holder_in_another_time_namespace_is_followed_when_its_lease_is_over() {
    let Some(server) = postgres() else { return };
    in_another_time(Signal::KILL, &postgres_key(server, "time-1"));
}

#[test]
fn a_frozen_holder_in_another_time_namespace_is_followed_when_its_lease_is_over() {
    let Some(server) = etcd() else { return };
    in_another_time(Signal::STOP, &etcd_key(server, "time-2"));
}

/// A success of a clock that was an hour ahead is no success of the next hour.
#[test]
fn a_sign_of_life_from_the_future_does_not_count() {
    let home = Scene::new();
    let Some(clock) = WallClock::new(&home, "clock.1") else { return };
    let with_clock = |scene: Scene| scene.env("LD_PRELOAD", library().unwrap()).env("CLOCK_STEP", &clock.file);
    let scene = with_clock(Scene::new().tasks(["1-a.sh"]).config("[liveness]\nfile = alive.json\n"));
    clock.set(HOUR);
    scene.run(&[]).exits(0);
    scene.run(&["status", "main", "--max-age", "10min"]).exits(0);
    clock.set(0);
    scene.run(&["status", "main", "--max-age", "10min"]).exits(1).prints("ahead of the clock");
    scene.run(&[]).exits(0);
    scene.run(&["status", "main", "--max-age", "10min"]).exits(0);
    clock.set(HOUR);
    scene.run(&["status", "main", "--max-age", "10min"]).exits(0);
}
