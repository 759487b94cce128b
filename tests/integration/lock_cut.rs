//! The network between a machine and the store of its lock is cut while it is inside: two machines and a store, each a
//! network namespace with a host name of its own, and cables between them that can be pulled.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::alive::is_alive;
use crate::lock_command::{entered, lock_scene};
use crate::lock_servers::{Server, start_etcd_under, start_postgres_under};
use crate::running::{Running, until};
use crate::scene::{Scene, is_root_or_skipped, runner_binary, skipped, spawn, succeeds};
use rustix::process::Signal;

/// Where the store is, for all machines.
pub(crate) const STORE: &str = "10.9.0.1";

/// A network namespace, which ends with this value.
pub(crate) struct Host {
    process: Child,
}

impl Host {
    fn new(name: &str) -> Self {
        let script = "hostname \"$0\" && ip link set lo up && echo ready && read -r _";
        let mut command = Command::new("unshare");
        command.args(["--net", "--uts", "sh", "-c", script, name]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let (mut process, _) = spawn(&mut command).unwrap();
        let mut ready = [0; 6];
        process.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        Self { process }
    }

    /// The process whose namespaces these are.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The command that runs another one there.
    pub(crate) fn enter(&self) -> Vec<String> {
        ["nsenter", "--target", &self.process.id().to_string(), "--net", "--uts"].map(str::to_owned).to_vec()
    }

    #[track_caller]
    fn ip(&self, words: &str) {
        let enter = self.enter();
        let mut command = Command::new(&enter[0]);
        command.args(&enter[1..]).arg("ip").args(words.split(' '));
        assert!(succeeds(&mut command), "ip {words}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// Some machines, and the store that all of them reach.
pub(crate) struct Net {
    pub(crate) store: Host,
    pub(crate) machines: Vec<Host>,
}

impl Net {
    /// `None`, and told, where that cannot be.
    pub(crate) fn new(names: &[&str]) -> Option<Self> {
        if !is_root_or_skipped() {
            return None;
        }
        let probe = "ip link add probe type veth peer name other && ip link del probe";
        if !succeeds(Command::new("unshare").args(["--net", "--uts", "sh", "-c", probe])) {
            skipped("no network namespace can be made here");
            return None;
        }
        let net = Self { store: Host::new("store"), machines: names.iter().map(|name| Host::new(name)).collect() };
        net.store.ip(&format!("address add {STORE}/32 dev lo"));
        for (number, machine) in net.machines.iter().enumerate() {
            net.store.ip(&format!("link add cable{number} type veth peer name eth0 netns {}", machine.process.id()));
            net.store.ip(&format!("address add 10.{number}.0.1/24 dev cable{number}"));
            net.store.ip(&format!("link set cable{number} up"));
            machine.ip(&format!("address add 10.{number}.0.2/24 dev eth0"));
            machine.ip("link set eth0 up");
            machine.ip(&format!("route add default via 10.{number}.0.1"));
        }
        Some(net)
    }

    /// Pulls the cable of a machine, or plugs it in again.
    pub(crate) fn plug(&self, machine: usize, plugged: bool) {
        self.store.ip(&format!("link set cable{machine} {}", if plugged { "up" } else { "down" }));
    }

    /// What the store answers to a machine vanishes, or does not any more. What it is asked still arrives.
    fn answer(&self, machine: usize, answered: bool) {
        self.store.ip(&format!("route {} blackhole 10.{machine}.0.2/32", if answered { "del" } else { "add" }));
    }

    /// Its store is etcd.
    pub(crate) fn etcd(&self) -> Option<Server> {
        let enter = self.machines[0].enter();
        // From one of the machines: nobody else can reach it.
        let ready = |port: u16| {
            let key = format!("etcd://{STORE}:{port}/ready");
            let mut command = Command::new(&enter[0]);
            succeeds(command.args(&enter[1..]).arg(runner_binary()).args(["-q", "lock", &key, "--", "true"]).stderr(Stdio::null()))
        };
        let server = start_etcd_under(&self.store.enter(), STORE, ready);
        if server.is_none() {
            skipped("etcd is not installed");
        }
        server
    }

    /// Its store is PostgreSQL.
    pub(crate) fn postgres(&self) -> Option<Server> {
        let server = start_postgres_under(&self.store.enter(), STORE);
        if server.is_none() {
            skipped("PostgreSQL is not installed");
        }
        server
    }

    /// A daemon on a machine, whose chain is inside for long.
    fn daemon(&self, machine: usize, home: &Scene, lock: &str) -> Running {
        let tasks = home.path("a");
        let keys = "schedule = every 1s\nkill_after = 0\nmax_tries = 1\nlock_ttl = 6\nlock_delay = 0\nwait_lock = infinity";
        let enter = self.machines[machine].enter();
        let enter: Vec<&str> = enter.iter().map(String::as_str).collect();
        let scene = Scene::new().env("SCENE", home.root()).under(&enter);
        scene.raw_config(format!("[chain:a]\ntask_dir = {}\nlock = {lock}\n{keys}\n", tasks.display())).start(&["daemon"])
    }
}

/// The machine that is inside is cut off: its task is ended before its lease is over, and then the other one is inside.
fn cut(net: &Net, lock: &str, cut: impl Fn(usize, bool)) {
    let home = lock_scene().task_at("a/1-in.sh", "exec \"$SCENE/inside.sh\" sleep 1000");
    let mut daemons = [net.daemon(0, &home, lock), net.daemon(1, &home, lock)];
    until("one is inside", || entered(&home).len() == 1);
    let (_, holder, task) = entered(&home)[0];
    let (names, at) = (["left", "right"], daemons.iter().position(|daemon| daemon.pid() == u32::try_from(holder).unwrap()).unwrap());
    daemons.swap(0, at);
    let [mut first, mut second] = daemons;
    second.wait_for_message("is held by pid", &format!(" on {} since ", names[at]));
    cut(at, false);
    let begun = Instant::now();
    until("the task is ended", || !is_alive(task));
    assert!(begun.elapsed() < Duration::from_secs(6), "its lease could be another's by then: {:?}", begun.elapsed());
    assert_eq!(entered(&home).len(), 1, "the other one did not wait for the lease");
    first.wait_for_message("its lock was lost", "chain a");
    until("the other one is inside", || entered(&home).len() == 2);
    cut(at, true);
    let holders: Vec<u32> = entered(&home).iter().map(|entry| u32::try_from(entry.1).unwrap()).collect();
    assert_eq!(holders, [first.pid(), second.pid()]);
    // What was cut off asks again, and learns who has it.
    first.wait_for_message("is held by pid", &format!(" on {} since ", names[1 - at]));
    let tokens: Vec<u64> = entered(&home).iter().map(|entry| entry.0).collect();
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
    for mut daemon in [first, second] {
        daemon.signal(Signal::TERM);
        until("it is gone", || !is_alive(daemon.pid()));
        daemon.finish().exits(0);
    }
}

#[test]
fn a_machine_whose_cable_is_pulled_loses_its_lock_in_etcd() {
    let Some(net) = Net::new(&["left", "right"]) else { return };
    let Some(server) = net.etcd() else { return };
    cut(&net, &format!("etcd://{STORE}:{}/k", server.port), |machine, plugged| net.plug(machine, plugged));
}

#[test]
fn a_machine_that_gets_no_answers_loses_its_lock_in_postgresql() {
    let Some(net) = Net::new(&["left", "right"]) else { return };
    let Some(server) = net.postgres() else { return };
    cut(&net, &format!("postgresql://postgres@{STORE}:{}/postgres?key=k", server.port), |machine, answered| net.answer(machine, answered));
}
