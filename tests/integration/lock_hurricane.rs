//! Long storms over a lock, run by hand as root: `cargo test --release --test integration lock_hurricane -- --ignored --nocapture`.
//! 200 rounds for each store, or `STORM_ROUNDS`, and a line for each kind of blow that tells what came of it.
//!
//! Four contend, each in a network namespace with a cable that can be pulled and with a wall clock of its own, which is set
//! an hour forwards or backwards in every round. One of them has another host name, so that neither can look for the
//! other's processes. In each round somebody is inside, and is hit. Never may two be inside at once (the kernel tells: they
//! hold a file), tokens grow strictly, and whoever loses the lock has ended its command before its lease was over.

use std::fs;
use std::net::TcpListener;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::alive::is_alive;
use crate::consul_double::Consul;
use crate::lock_clock::{HOUR, WallClock};
use crate::lock_command::{entered, lock_scene, send, stay_inside};
use crate::lock_cut::{Net, STORE};
use crate::lock_servers::Server;
use crate::running::{Running, until};
use crate::scene::Scene;

/// What is done to the one that is inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Blow {
    /// The holder is told to stop.
    Term,
    /// The holder is killed.
    Kill,
    /// The command is killed.
    Command,
    /// The holder is frozen until another is inside, and then thawed.
    Freeze,
    /// Its cable is pulled until its lock is lost.
    Cut,
    /// Its cable is pulled until it says that its lock is in doubt. Then the holder is killed.
    CutBriefly,
    /// The server is frozen until the lock is lost.
    Silence,
    /// The server is ended and starts again, within the lease. Then the holder is killed.
    Restart,
}

const OF_LEASES: [Blow; 12] = [
    Blow::Kill,
    Blow::Term,
    Blow::Command,
    Blow::Cut,
    Blow::Kill,
    Blow::Freeze,
    Blow::CutBriefly,
    Blow::Kill,
    Blow::Term,
    Blow::Silence,
    Blow::Restart,
    Blow::Command,
];

/// A lock in a file does not run out: whoever is frozen keeps it, and no network is asked.
const OF_FILES: [Blow; 3] = [Blow::Kill, Blow::Term, Blow::Command];

/// The store of a lock, as far as it can be hit.
enum Store {
    None,
    Server(Server),
    Consul(Consul),
}

impl Store {
    /// Keeps it from answering until `done`.
    fn silence(&self, done: impl FnOnce()) {
        match self {
            Self::None => {}
            Self::Server(server) => {
                server.freeze(true);
                done();
                server.freeze(false);
            }
            Self::Consul(consul) => {
                let frozen = consul.freeze();
                done();
                drop(frozen);
            }
        }
    }

    /// Ends it; it is started again at once. The double forgets nothing, and is only silent for a moment.
    fn restart(&self, holder: &mut Running) {
        match self {
            Self::None => {}
            Self::Server(server) => {
                let old = server.pid();
                send(old, Signal::QUIT);
                until("the server is started again", || server.pid() != old);
            }
            Self::Consul(_) => self.silence(|| {
                holder.wait_for_message("is in doubt", "inside.sh");
            }),
        }
    }
}

/// One who contends: where it is, what time it thinks it is.
struct Contender {
    machine: usize,
    clock: WallClock,
    running: Running,
}

/// What came of one round.
struct Round {
    blow: Blow,
    /// From the blow to the next inside.
    took: Duration,
    /// From the end of the command to the begin of the next one, in milliseconds.
    margin: f64,
    /// From the blow to the end of the command.
    ended: Duration,
    /// The lock was lost although it need not have been.
    lost: bool,
}

struct Storm {
    home: Scene,
    net: Net,
    store: Store,
    key: String,
    ttl: u64,
    contenders: Vec<Contender>,
}

/// Tells when a process has ended: a moment after the end itself, while times of files are up to a tick of the kernel too early.
/// So what comes next at once may seem to have come some milliseconds before.
fn end_of(pid: u32) -> Receiver<SystemTime> {
    let (sender, end) = mpsc::channel();
    let pidfd = pidfd_open(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), PidfdFlags::empty()).unwrap();
    std::thread::spawn(move || {
        // Before everybody else: what it waits for the processor is not measured with it.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), -20);
        while poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).is_err() {}
        let _ = sender.send(SystemTime::now());
    });
    end
}

impl Storm {
    fn start(&mut self, machine: usize, clock: WallClock) {
        let host = self.net.machines[machine].pid().to_string();
        let mut enter = vec!["nsenter", "--target", &host, "--net"];
        // The first is another machine to the others.
        enter.extend((machine == 0).then_some("--uts"));
        let scene = clock.scene(&self.home).under(&enter);
        let ttl = self.ttl.to_string();
        let options = ["--kill-after", "0", "--ttl", &ttl, "--delay", "0", "--wait", "infinity"];
        let running = stay_inside(&scene, &options, &self.key);
        self.contenders.push(Contender { machine, clock, running });
    }

    fn set_clocks(&self, number: usize) {
        const STEPS: [i64; 3] = [HOUR, -HOUR, 0];
        for contender in &self.contenders {
            contender.clock.set(STEPS[(number + contender.machine) % STEPS.len()]);
        }
    }

    /// Hits whoever is inside, and waits until another is.
    fn round(&mut self, number: usize, blow: Blow) -> Round {
        until("somebody is inside", || entered(&self.home).len() > number);
        let (_, holder, command) = entered(&self.home)[number];
        let at = self.contenders.iter().position(|one| one.running.pid() == u32::try_from(holder).unwrap()).unwrap();
        let mut hit = self.contenders.swap_remove(at);
        self.set_clocks(number);
        let end = end_of(command);
        let lost = matches!(blow, Blow::CutBriefly | Blow::Restart) && self.disturb(blow, &mut hit);
        let begun = Instant::now();
        match blow {
            Blow::Term => send(holder, Signal::TERM),
            Blow::Kill => send(holder, Signal::KILL),
            Blow::Command => send(i32::try_from(command).unwrap(), Signal::KILL),
            Blow::Freeze => send(holder, Signal::STOP),
            Blow::Cut => self.net.plug(hit.machine, false),
            Blow::Silence => self.store.silence(|| until("the command is ended", || !is_alive(command))),
            Blow::CutBriefly | Blow::Restart if lost => {}
            Blow::CutBriefly | Blow::Restart => send(holder, Signal::KILL),
        }
        until("the next is inside", || entered(&self.home).len() > number + 1);
        let took = begun.elapsed();
        let ended = end.recv().unwrap();
        let token = entered(&self.home)[number + 1].0;
        let inside = fs::metadata(self.home.path(format!("at.{token}"))).unwrap().modified().unwrap();
        let margin = inside.duration_since(ended).map_or_else(|error| -error.duration().as_secs_f64(), |span| span.as_secs_f64());
        self.recover(blow, hit, lost);
        let ended = took.saturating_sub(Duration::try_from_secs_f64(margin).unwrap_or_default());
        Round { blow, took, margin: margin * 1000.0, ended, lost }
    }

    /// Takes the store away for a moment, in which nobody needs to lose its lock; tells whether it was lost.
    fn disturb(&self, blow: Blow, hit: &mut Contender) -> bool {
        let begun = Instant::now();
        if blow == Blow::Restart {
            self.store.restart(&mut hit.running);
        } else {
            self.net.plug(hit.machine, false);
            hit.running.wait_for_message("is in doubt", "inside.sh");
            self.net.plug(hit.machine, true);
        }
        let says = |word: &str| hit.running.said().contains(word);
        // A server that was started again before the next renewal is not even missed.
        let sure = || !says("is in doubt") && begun.elapsed() > Duration::from_secs(self.ttl) / 2;
        until("it is sure, or has lost", || sure() || says("beyond doubt again") || says("is lost"));
        says("is lost")
    }

    /// The one that was hit ends as it should, and another comes in its place.
    fn recover(&mut self, blow: Blow, hit: Contender, lost: bool) {
        match blow {
            Blow::Freeze => send(i32::try_from(hit.running.pid()).unwrap(), Signal::CONT),
            Blow::Cut => self.net.plug(hit.machine, true),
            Blow::Term | Blow::Kill | Blow::Command | Blow::CutBriefly | Blow::Silence | Blow::Restart => {}
        }
        until("it is gone", || !is_alive(hit.running.pid()));
        let outcome = hit.running.finish();
        match blow {
            Blow::Term => drop(outcome.dies_of(Signal::TERM)),
            Blow::Command => drop(outcome.exits(137)),
            Blow::Freeze | Blow::Cut | Blow::Silence => drop(outcome.exits(79).says("is lost")),
            Blow::CutBriefly | Blow::Restart if lost => drop(outcome.exits(79).says("is lost")),
            Blow::Kill | Blow::CutBriefly | Blow::Restart => drop(outcome.dies_of(Signal::KILL)),
        }
        self.start(hit.machine, hit.clock);
    }

    fn end(mut self) {
        for contender in &mut self.contenders {
            contender.running.signal(Signal::TERM);
        }
        for contender in self.contenders.drain(..) {
            until("it is gone", || !is_alive(contender.running.pid()));
            contender.running.finish().dies_of(Signal::TERM);
        }
        let tokens: Vec<u64> = entered(&self.home).iter().map(|entry| entry.0).collect();
        assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
    }
}

fn tell(line: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

/// Tells of all blows of one kind.
fn tell_of(name: &str, blow: Blow, rounds: &[Round]) {
    let of_kind: Vec<&Round> = rounds.iter().filter(|round| round.blow == blow).collect();
    let mut times: Vec<Duration> = of_kind.iter().map(|round| round.took).collect();
    times.sort();
    let (Some(least), Some(most)) = (times.first(), times.last()) else { return };
    let margin = of_kind.iter().map(|round| round.margin).fold(f64::INFINITY, f64::min);
    let ended = of_kind.iter().map(|round| round.ended).max().unwrap_or_default();
    let lost = of_kind.iter().filter(|round| round.lost).count();
    tell(&format!(
        "{name}: {blow:?}, {} rounds: next inside after {:.3} to {:.3} s, median {:.3} s; command ended after {:.3} s at most, {margin:.0} ms before the next; {lost} lost in vain\n",
        times.len(),
        least.as_secs_f64(),
        most.as_secs_f64(),
        times[times.len() / 2].as_secs_f64(),
        ended.as_secs_f64(),
    ));
}

fn rage(name: &str, ttl: u64, blows: &[Blow], store: impl FnOnce(&Net, &Scene) -> Option<(Store, String)>) {
    let Some(net) = Net::new(&["away", "m1", "m2", "m3"]) else { return };
    let home = lock_scene();
    let Some((store, key)) = store(&net, &home) else { return };
    let mut storm = Storm { home, net, store, key, ttl, contenders: Vec::new() };
    for machine in 0..4 {
        let Some(clock) = WallClock::new(&storm.home, &format!("clock.{machine}")) else { return };
        // Processes of another host name cannot be looked for, and a lock in a file is one machine's.
        if machine > 0 || storm.key.contains("://") {
            storm.start(machine, clock);
        }
    }
    let count = std::env::var("STORM_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let mut rounds = Vec::new();
    for (number, blow) in blows.iter().cycle().take(count).enumerate() {
        let round = storm.round(number, *blow);
        // Whoever loses its lock ends its command within the lease.
        assert!(round.ended < Duration::from_secs(ttl), "{blow:?} in round {number}: the command ended after {:?}", round.ended);
        rounds.push(round);
    }
    storm.end();
    let mut kinds: Vec<Blow> = blows.to_vec();
    kinds.sort();
    kinds.dedup();
    for blow in kinds {
        tell_of(name, blow, &rounds);
    }
    let least = rounds.iter().map(|round| round.margin).fold(f64::INFINITY, f64::min);
    tell(&format!("{name}: {} take-overs, no two inside, shortest margin {least:.0} ms, tokens grew strictly\n", rounds.len()));
}

#[test]
#[ignore = "takes minutes; run by hand"]
fn over_a_file() {
    rage("file", 60, &OF_FILES, |_, _| Some((Store::None, "k".to_owned())));
}

#[test]
#[ignore = "takes minutes; run by hand"]
fn over_postgresql() {
    rage("postgresql", 9, &OF_LEASES, |net, _| {
        let server = net.postgres()?;
        let key = format!("postgresql://postgres@{STORE}:{}/postgres?key=k", server.port);
        Some((Store::Server(server), key))
    });
}

#[test]
#[ignore = "takes minutes; run by hand"]
fn over_etcd() {
    rage("etcd", 9, &OF_LEASES, |net, _| {
        let server = net.etcd()?;
        let key = format!("etcd://{STORE}:{}/k", server.port);
        Some((Store::Server(server), key))
    });
}

#[test]
#[ignore = "takes minutes; run by hand"]
fn over_the_double_of_consul() {
    rage("consul, a double", 10, &OF_LEASES, |net, _| {
        let namespace = fs::File::open(format!("/proc/{}/ns/net", net.store.pid())).unwrap();
        // A socket stays in the namespace of the thread that made it.
        let bind = move || {
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network)).unwrap();
            TcpListener::bind((STORE, 0)).unwrap()
        };
        let consul = Consul::serve_on(std::thread::spawn(bind).join().unwrap());
        let key = format!("consul://{STORE}:{}/k", consul.port);
        Some((Store::Consul(consul), key))
    });
}
