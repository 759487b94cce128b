//! A storm over a queue: workers, enqueuers and the server are killed, at chance moments and at chance calls, again and
//! again, while others go on. Then somebody tidies up, and looks at the books. Short in the gate; as long as wanted by
//!
//! `QUEUE_KILLS=2000 cargo test --test integration -- --ignored --nocapture queue_soak`
//!
//! `QUEUE_SEED` repeats the choices of an earlier storm, though not its moments.
#![expect(clippy::print_stdout, reason = "whoever lets it run for hours wants to know what it did")]

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use crate::queue::{enqueue, jobs, scene};
use crate::queue_crash::{NOTED, all_is_well, killed_at, ran};
use crate::scene::{Running, STATE_DIR, Scene, spawn, until};

/// How many jobs a worker has at the same time.
const PLACES: usize = 2;
const WORKERS: usize = 3;
/// No more jobs than these wait while the storm goes on.
const MOST_WAITING: usize = 20;
/// The calls after which an enqueuer or a worker is killed.
const CALLS: [&str; 7] =
    ["fdatasync,fsync", "pwrite64", "write", "fcntl", "clone3,vfork,clone", "waitid", "eventfd2,futex,recvfrom,sendto"];

/// Choices that can be repeated.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    /// A moment of chance is what this is about; nothing is waited for.
    fn moment(&mut self, below_ms: u64) {
        std::thread::sleep(Duration::from_micros(self.below(below_ms * 1000)));
    }
}

/// How many of whom were killed.
#[derive(Debug, Default)]
struct Deaths {
    workers: usize,
    enqueuers: usize,
    servers: usize,
}

struct Storm<'a> {
    scene: &'a Scene,
    dice: Dice,
    workers: Vec<Running>,
    acknowledged: Vec<i64>,
    deaths: Deaths,
    /// Attempts that a death may have cost.
    reruns: usize,
}

fn ids(said: &str) -> impl Iterator<Item = i64> {
    // What was cut off in the middle of a line was not said.
    said.split_inclusive('\n').filter(|line| line.ends_with('\n')).filter_map(|line| line.trim().parse().ok())
}

impl<'a> Storm<'a> {
    fn over(scene: &'a Scene) -> Self {
        let seed = std::env::var("QUEUE_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos()));
        println!("QUEUE_SEED={seed}");
        let mut storm =
            Self { scene, dice: Dice(seed), workers: Vec::new(), acknowledged: Vec::new(), deaths: Deaths::default(), reruns: 0 };
        storm.acknowledged.extend(enqueue(scene, &["a.sh"]));
        storm.workers.extend((0..WORKERS).map(|_| work(scene)));
        storm
    }

    fn enqueuer_dies(&mut self) {
        let mut enqueuer = Command::new(crate::scene::runner_binary());
        enqueuer.arg("-c").arg(self.scene.config_file()).args(["enqueue", "a.sh"]).env("STATE_DIRECTORY", self.scene.path(STATE_DIR));
        let said = self.scene.path("said");
        enqueuer.stdout(fs::File::create(&said).unwrap()).stderr(Stdio::null());
        let mut enqueuer = spawn(&mut enqueuer).unwrap().0;
        self.dice.moment(30);
        let _ = enqueuer.kill();
        self.deaths.enqueuers += usize::from(!enqueuer.wait().unwrap().success());
        self.acknowledged.extend(ids(&fs::read_to_string(said).unwrap()));
    }

    fn enqueuer_dies_at_a_call(&mut self) {
        let call = CALLS[self.dice.below(4) as usize];
        let when = 1 + self.dice.below(if call == "fcntl" { 40 } else { 8 }) as u32;
        let (died, said) = killed_at(self.scene, call, when, &["enqueue", "a.sh"]);
        self.deaths.enqueuers += usize::from(died);
        self.acknowledged.extend(ids(&said));
    }

    fn worker_dies(&mut self) {
        // There is something to do, and sometimes it has time to do it.
        self.acknowledged.extend(enqueue(self.scene, &["a.sh"]));
        let patience = if self.dice.below(3) == 0 { 20 } else { 200 };
        self.dice.moment(patience);
        let mut worker = self.workers.remove(0);
        worker.signal(Signal::KILL);
        drop(worker);
        self.deaths.workers += 1;
        self.reruns += PLACES;
        self.workers.push(work(self.scene));
    }

    fn worker_dies_at_a_call(&mut self) {
        let call = CALLS[self.dice.below(7) as usize];
        let when = 1 + self.dice.below(30) as u32;
        let (died, _) = killed_at(self.scene, call, when, &["work", "--duration", "0.2", "--jobs", "2"]);
        self.deaths.workers += usize::from(died);
        self.reruns += if died { PLACES } else { 0 };
    }

    fn blow(&mut self) {
        match self.dice.below(12) {
            0..=4 => self.enqueuer_dies(),
            5..=6 => self.enqueuer_dies_at_a_call(),
            7..=10 => self.worker_dies(),
            _ => self.worker_dies_at_a_call(),
        }
    }

    fn kills(&self) -> usize {
        self.deaths.workers + self.deaths.enqueuers + self.deaths.servers
    }

    /// Nobody is killed any more: all that was acknowledged comes to its end.
    fn settles(mut self) {
        for mut worker in std::mem::take(&mut self.workers) {
            // One that has hardly begun does not hear it, and dies of it.
            worker.wait_for_message("worker of", "queue");
            worker.signal(Signal::TERM);
            worker.finish().exits(0).never_says("locked");
        }
        self.scene.run(&["work", "--drain", "--jobs", "8"]).exits(0).never_says("locked");
        all_is_well(self.scene, &self.acknowledged, 1 + self.deaths.workers as i64);
        let all = jobs(self.scene);
        let attempts: i64 = all.iter().map(|job| job["attempts"].as_i64().unwrap()).sum();
        let reruns = usize::try_from(attempts).unwrap() - all.len();
        assert!(reruns <= self.reruns, "{reruns} runs more than jobs, after {:?}", self.deaths);
        println!(
            "{} kills, {:?}: {} jobs, {} acknowledged, {reruns} begun again",
            self.kills(),
            self.deaths,
            all.len(),
            self.acknowledged.len()
        );
    }
}

fn work(scene: &Scene) -> Running {
    scene.start(&["work", "--sleep", "0.1", "--jobs", "2"])
}

fn wanted(otherwise: usize) -> usize {
    std::env::var("QUEUE_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(otherwise)
}

const CONFIG: &str = "max_attempts = 0\nretry_delay = 0\nkeep_done = infinity\n";

fn over_a_file(kills: usize) {
    let scene = scene().config(CONFIG).script("tasks.d/a.sh", NOTED);
    let mut storm = Storm::over(&scene);
    while storm.kills() < kills {
        storm.blow();
        let waiting = || storm.acknowledged.len().saturating_sub(ran(&scene).len());
        until("the jobs do not pile up", || waiting() < MOST_WAITING);
    }
    storm.settles();
}

#[cfg(feature = "postgres")]
fn over_a_server(kills: usize, calm: usize) {
    let Some(mut server) = crate::postgres::Server::start() else { return };
    let scene = scene().config(CONFIG).config(&format!("[runner]\ndatabase = {}\n", server.local())).script("tasks.d/a.sh", NOTED);
    let mut storm = Storm::over(&scene);
    let mut next = calm;
    while storm.kills() < kills {
        storm.blow();
        if storm.kills() >= next {
            next += calm;
            storm.dice.moment(20);
            server.kill();
            storm.deaths.servers += 1;
            server.start_again();
        }
        let waiting = || storm.acknowledged.len().saturating_sub(ran(&scene).len());
        until("the jobs do not pile up", || waiting() < MOST_WAITING);
    }
    storm.settles();
}

#[test]
fn a_short_storm_over_a_file() {
    over_a_file(20);
}

#[cfg(feature = "postgres")]
#[test]
fn a_short_storm_over_a_server() {
    over_a_server(16, 6);
}

#[test]
#[ignore = "takes as long as it is told to"]
fn soak_a_file() {
    over_a_file(wanted(2000));
}

#[cfg(feature = "postgres")]
#[test]
#[ignore = "takes as long as it is told to"]
fn soak_a_server() {
    over_a_server(wanted(2000), 25);
}
