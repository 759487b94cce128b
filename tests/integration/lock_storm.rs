//! Locks in real stores while holders are killed, frozen and thawed and servers stop: never two inside at once, tokens
//! grow, whoever loses the lock ends its command in time.
//!
//! The storms are short here; `lock_hurricane.rs` has the long ones, which are run by hand.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::alive::is_alive;
use crate::consul_double::Consul;
use crate::lock_command::{entered, lock_scene, send, stay_inside};
use crate::lock_servers::{Server, etcd, postgres, start_etcd};
use crate::running::{Running, until};
use crate::scene::{Scene, skipped, succeeds};

/// The shortest lease there is.
const SHORT: [&str; 6] = ["--kill-after", "0", "--ttl", "6", "--delay", "0"];

pub(crate) fn postgres_key(server: &Server, key: &str) -> String {
    format!("postgresql://postgres@127.0.0.1:{}/postgres?key={key}", server.port)
}

pub(crate) fn etcd_key(server: &Server, key: &str) -> String {
    format!("etcd://127.0.0.1:{}/{key}", server.port)
}

/// What is done to the one that is inside.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Blow {
    /// The holder is told to stop.
    Term,
    /// The holder is killed.
    Kill,
    /// The command is killed.
    Command,
    /// The holder is frozen until another is inside, and then thawed.
    Freeze,
}

/// In each round somebody is inside, others wait, and the one inside is hit.
fn storm(key: &str, blows: impl Iterator<Item = Blow>) {
    const CONTENDERS: usize = 3;
    let scene = lock_scene();
    // Consul takes no session shorter than 10 s.
    let ttl = if key.starts_with("consul") { "10" } else { "6" };
    let options = ["--kill-after", "0", "--ttl", ttl, "--delay", "0", "--wait", "infinity"];
    let mut contenders: Vec<Running> = (0..CONTENDERS).map(|_| stay_inside(&scene, &options, key)).collect();
    for (number, blow) in blows.enumerate() {
        contenders[0].wait_for("somebody is inside", |_| entered(&scene).len() > number);
        let (_, holder, command) = entered(&scene)[number];
        let at = contenders.iter().position(|running| running.pid() == u32::try_from(holder).unwrap()).unwrap();
        let hit = contenders.swap_remove(at);
        contenders.push(stay_inside(&scene, &options, key));
        match blow {
            Blow::Term => send(holder, Signal::TERM),
            Blow::Kill => send(holder, Signal::KILL),
            Blow::Command => send(i32::try_from(command).unwrap(), Signal::KILL),
            Blow::Freeze => send(holder, Signal::STOP),
        }
        until("the next is inside", || entered(&scene).len() > number + 1);
        assert!(!is_alive(command), "{blow:?}: its command goes on");
        if blow == Blow::Freeze {
            send(holder, Signal::CONT);
        }
        // It may have begun long ago, and `finish` counts from there.
        until("it is gone", || !is_alive(hit.pid()));
        match blow {
            Blow::Term => drop(hit.finish().dies_of(Signal::TERM)),
            Blow::Kill => drop(hit.finish().dies_of(Signal::KILL)),
            Blow::Command => drop(hit.finish().exits(137)),
            Blow::Freeze => drop(hit.finish().exits(79).says("is lost")),
        }
    }
    for contender in &contenders {
        send(i32::try_from(contender.pid()).unwrap(), Signal::TERM);
    }
    for contender in contenders {
        until("it is gone", || !is_alive(contender.pid()));
        contender.finish().dies_of(Signal::TERM);
    }
    let tokens: Vec<u64> = entered(&scene).iter().map(|entry| entry.0).collect();
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
}

/// Every blow but the one that takes a whole lease.
fn quick(rounds: usize) -> impl Iterator<Item = Blow> {
    [Blow::Kill, Blow::Term, Blow::Command].into_iter().cycle().take(rounds)
}

#[test]
fn a_storm_over_a_file() {
    storm("k", quick(9));
}

#[test]
fn a_storm_over_postgresql() {
    let Some(server) = postgres() else { return };
    storm(&postgres_key(server, "storm"), quick(6));
}

#[test]
fn a_frozen_holder_is_followed_when_its_lease_is_over() {
    let Some(server) = postgres() else { return };
    storm(&postgres_key(server, "frozen"), [Blow::Freeze].into_iter());
}

#[test]
fn a_storm_over_etcd() {
    let Some(server) = etcd() else { return };
    storm(&etcd_key(server, "storm"), quick(6));
}

/// What the libraries tell of their talk with a server is not for our log, whatever its level: a password may be in it.
#[test]
fn the_log_is_ours_alone() {
    let (Some(postgres), Some(etcd)) = (postgres(), etcd()) else { return };
    let scene = lock_scene();
    for key in [postgres_key(postgres, "log"), etcd_key(etcd, "log")] {
        let outcome = scene.run(&["-vv", "--log-format", "json", "lock", &key, "--", "true"]).exits(0);
        let foreign: Vec<_> = outcome.messages().iter().map(ToString::to_string).filter(|text| !text.contains("is ours, token")).collect();
        assert!(foreign.is_empty(), "{foreign:#?}");
    }
}

/// A holder under an etcd of its own, and the process of its command.
fn holder_of_own_etcd() -> Option<(Server, Scene, Running, u32)> {
    let Some(server) = start_etcd() else {
        skipped("etcd is not installed");
        return None;
    };
    let scene = lock_scene();
    let mut holder = stay_inside(&scene, &SHORT, &etcd_key(&server, "k"));
    holder.wait_for("inside", |_| entered(&scene).len() == 1);
    let command = entered(&scene)[0].2;
    Some((server, scene, holder, command))
}

#[test]
fn a_server_that_is_silent_for_a_moment_costs_nothing() {
    let Some((server, _scene, mut holder, command)) = holder_of_own_etcd() else { return };
    send(server.pid(), Signal::STOP);
    holder.wait_for_message("is in doubt", "inside.sh");
    send(server.pid(), Signal::CONT);
    holder.wait_for_message("beyond doubt again", "etcd://");
    assert!(is_alive(command));
}

#[test]
fn a_server_that_stays_silent_ends_the_command_before_the_lease_is_over() {
    let Some((server, _scene, holder, command)) = holder_of_own_etcd() else { return };
    send(server.pid(), Signal::STOP);
    let begun = Instant::now();
    until("the command is ended", || !is_alive(command));
    assert!(begun.elapsed() < Duration::from_secs(6), "its lease could be another's by then: {:?}", begun.elapsed());
    holder.finish().exits(79).says("inside.sh is ended");
    send(server.pid(), Signal::CONT);
}

#[test]
fn a_lock_that_is_taken_away_ends_the_command() {
    let consul = Consul::start();
    let scene = lock_scene();
    let key = format!("consul://127.0.0.1:{}/k", consul.port);
    let mut holder = stay_inside(&scene, &["--kill-after", "0", "--ttl", "10"], &key);
    holder.wait_for("inside", |_| entered(&scene).len() == 1);
    let command = entered(&scene)[0].2;
    consul.advance(Duration::from_secs(30));
    holder.finish().exits(79).says("is not ours any more");
    assert!(!is_alive(command));
}

/// Whether or not anybody comes to take over.
#[test]
fn the_guard_ends_what_a_killed_or_frozen_holder_leaves() {
    let Some(server) = postgres() else { return };
    let scene = lock_scene();
    let mut killed = stay_inside(&scene, &[], &postgres_key(server, "guarded-1"));
    killed.wait_for("inside", |_| entered(&scene).len() == 1);
    let command = entered(&scene)[0].2;
    killed.signal(Signal::KILL);
    until("the command is ended", || !is_alive(command));
    killed.finish().dies_of(Signal::KILL);
    let scene = lock_scene();
    let mut frozen = stay_inside(&scene, &SHORT, &postgres_key(server, "guarded-2"));
    frozen.wait_for("inside", |_| entered(&scene).len() == 1);
    let (_, holder, command) = entered(&scene)[0];
    send(holder, Signal::STOP);
    until("the command is ended", || !is_alive(command));
    send(holder, Signal::CONT);
    frozen.finish().exits(79).nothing_alive();
}

/// Two PID namespaces are two machines: neither can look for the other's processes. The one inside is hit, and the other
/// one enters when the lease is over.
fn elsewhere(signal: Signal, key: &str) {
    let namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    if !succeeds(Command::new(namespace[0]).args(&namespace[1..]).arg("true")) {
        return skipped("no process namespace can be made here");
    }
    let home = lock_scene();
    // The first process of the namespace lives on: its end would be the end of all in it.
    let init = ["sh", "-c", "\"$@\" & wait; sleep 1000", "init"];
    let away = lock_scene().env("SCENE", home.root()).under(&[&namespace[..], &init].concat());
    let first = stay_inside(&away, &SHORT, key);
    until("the first is inside", || entered(&home).len() == 1);
    let options: Vec<&str> = SHORT.iter().copied().chain(["--wait", "infinity"]).collect();
    let mut second = stay_inside(&home, &options, key);
    second.wait_for_message("is held by pid", " on ");
    let holder = child_of(child_of(first.pid()));
    send(i32::try_from(holder).unwrap(), signal);
    let begun = Instant::now();
    second.wait_for("the second is inside", |_| entered(&home).len() == 2);
    assert!(begun.elapsed() > Duration::from_secs(3), "the lease was not waited for: {:?}", begun.elapsed());
    second.signal(Signal::TERM);
    second.finish().dies_of(Signal::TERM);
}

fn child_of(pid: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn elsewhere_a_killed_holder_is_followed_when_its_lease_is_over() {
    let Some(server) = postgres() else { return };
    elsewhere(Signal::KILL, &postgres_key(server, "elsewhere-1"));
}

#[test]
fn elsewhere_a_frozen_holder_is_followed_when_its_lease_is_over() {
    let Some(server) = etcd() else { return };
    elsewhere(Signal::STOP, &etcd_key(server, "elsewhere-2"));
}
