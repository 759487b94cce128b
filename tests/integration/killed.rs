//! Daemons that are killed at any moment, again and again: no slot is used twice, and none is lost without a word.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use runner::store::sqlite::Sqlite;
use runner::store::{HistoryQuery, Store};
use rustix::process::Signal;

use crate::scene::{Running, Scene};

const CHAINS: [&str; 4] = ["a", "b", "c", "d"];

/// Moments that nobody chose.
struct Moments(u64);

impl Moments {
    fn next(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    /// Any moment of the next second; every other one is around the slots, where there is most to break: from the moment before, in
    /// which they are claimed, to the first in which their tasks run.
    fn pass(&mut self, round: u32) {
        let into_second = u64::try_from(Timestamp::now().subsec_millisecond()).unwrap();
        let wait = if round.is_multiple_of(2) { self.next(1000) } else { 1000 - into_second.min(940) + self.next(100) - 60 };
        // Not a wait for something: the moment is what is tried.
        std::thread::sleep(Duration::from_millis(wait));
    }
}

/// The slots that each chain said, in seconds; none twice.
fn said(scene: &Scene) -> BTreeMap<String, BTreeSet<i64>> {
    let log = std::fs::read_to_string(scene.path("log")).unwrap_or_default();
    let mut said: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
    for line in log.lines().filter_map(|line| line.strip_prefix("- ")) {
        let (chain, slot) = line.split_once(' ').unwrap();
        let second = slot.parse::<Timestamp>().unwrap().as_second();
        assert!(said.entry(chain.to_owned()).or_default().insert(second), "chain {chain} ran twice for {slot}");
    }
    said
}

/// The slots of a chain in the history that did not run to their end, and what it says of them.
fn told(store: &mut Sqlite, chain: &str) -> BTreeMap<i64, String> {
    let runs = store.runs(&HistoryQuery { chain: Some(chain.into()), failed: false, limit: 100_000 }).unwrap();
    let told = runs.into_iter().filter_map(|run| Some((run.scheduled_at?.as_second(), run.outcome?, run.message.unwrap_or_default())));
    told.filter(|(_, outcome, _)| outcome != "done").map(|(second, outcome, why)| (second, format!("{outcome}: {why}"))).collect()
}

fn caught_up(scene: &Scene, until: i64) -> bool {
    CHAINS.iter().all(|chain| said(scene).get(*chain).and_then(BTreeSet::last).is_some_and(|last| *last >= until))
}

/// Kills daemons, ticks and pairs of daemons so often. Tells how many slots there were, and how many of them only the history knows.
fn kill(rounds: u32) -> (usize, Vec<String>) {
    let mut scene = Scene::new().config("[runner]\nkeep_runs = 1000000\n");
    let state = scene.path("state");
    scene = scene.env("STATE_DIRECTORY", &state);
    for chain in CHAINS {
        scene = scene
            .dir(chain)
            .task_at(format!("{chain}/1-a.sh"), "say \"$RUNNER_CHAIN $RUNNER_SCHEDULED_AT\"")
            .config(&format!("[chain:{chain}]\ntask_dir = {chain}\nschedule = every 1s\ntimezone = UTC\nmissed = all\noverlap = queue\n"));
    }
    // The first sight of a chain is known from here on.
    let mut first = scene.start(&["daemon"]);
    first.wait_for("slots", |_| caught_up(&scene, 0));
    first.insist(Signal::KILL);
    first.finish().dies_of(Signal::KILL);
    let seed = u64::from(std::process::id()) ^ Timestamp::now().as_nanosecond() as u64;
    let mut moments = Moments(seed);
    for round in 1..=rounds {
        let mut all: Vec<Running> = vec![scene.start(&["daemon"])];
        if round.is_multiple_of(3) {
            all.push(scene.start(&["daemon"]));
        }
        if round.is_multiple_of(4) {
            all.push(scene.start(&["tick"]));
        }
        moments.pass(round);
        for running in &mut all {
            running.insist(Signal::KILL);
        }
        for running in all {
            drop(running.finish());
        }
    }
    let mut last = scene.start(&["daemon"]);
    let end = (Timestamp::now() + SignedDuration::from_secs(1)).as_second();
    let store = std::cell::RefCell::new(Sqlite::open(&state.join("runner.db")).unwrap());
    // A tick may have taken slots that were still to come: the newest is not the last to run. Whoever is lost is waited for in vain.
    last.wait_for("every slot, run or told", |_| caught_up(&scene, end) && accounts(&scene, &mut store.borrow_mut(), end).is_some());
    last.insist(Signal::KILL);
    last.finish().dies_of(Signal::KILL);
    let mut store = store.into_inner();
    accounts(&scene, &mut store, end).unwrap_or_else(|| panic!("seed {seed}: a slot is lost"))
}

/// How many slots there were up to `end`, and those that only the history knows; `None` when somebody knows nothing of one.
fn accounts(scene: &Scene, store: &mut Sqlite, end: i64) -> Option<(usize, Vec<String>)> {
    let (mut count, mut only_told) = (0, Vec::new());
    for (chain, said) in said(scene) {
        let told = told(store, &chain);
        for second in *said.first()?..=end {
            count += 1;
            if !said.contains(&second) {
                only_told.push(format!("{chain} {second} {}", told.get(&second)?));
            }
        }
    }
    Some((count, only_told))
}

#[test]
fn no_slot_is_used_twice_and_none_is_lost_without_a_word() {
    let (count, only_told) = kill(4);
    // Two daemons do not run a chain beside itself, and nobody waits for the other. Whoever is killed between its mark and its
    // first task has begun for all that anybody knows: that moment is short, and is hit by few of these kills.
    let (crashed, others): (Vec<_>, Vec<_>) = only_told.iter().partition(|told| told.contains("crashed: "));
    assert!(others.iter().all(|told| told.contains("skipped: the chain still runs")), "of {count}: {only_told:?}");
    assert!(crashed.len() <= 3, "of {count}: {only_told:?}");
}

/// `cargo test --release --test integration -- --ignored --nocapture killed::two_hundred_times` takes a few minutes.
#[test]
#[ignore = "takes minutes: for whoever has changed the daemon or the store"]
fn two_hundred_times() {
    let (count, only_told) = kill(200);
    #[expect(clippy::print_stdout, reason = "what came of it is for whoever let it run")]
    let () = println!("{count} slots, {} of them did not run and are in the history: {only_told:#?}", only_told.len());
    assert!(only_told.iter().filter(|told| told.contains("crashed")).count() * 50 <= count);
}
