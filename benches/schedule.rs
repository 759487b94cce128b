//! What 10,000 schedules cost: to read them, to find the next slot of all, to take what is due of a busy minute.
//!
//! `cargo bench --bench schedule`. Beside each figure stands what it is to be; a figure that misses its aim fails nothing.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what cannot be measured is a surprise for whoever measures")]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use runner::config::keys::Missed;
use runner::schedule::Schedule;
use runner::schedule::agenda::{Agenda, Entry, Policy};

const CHAINS: usize = 10_000;
const ROUNDS: usize = 15;

/// What people write, by and large, and some that are rare.
fn text(chain: usize) -> String {
    let (minute, hour) = (chain % 60, chain / 60 % 24);
    match chain % 12 {
        0 | 1 => format!("{minute} {hour} * * *"),
        2 => format!("*/{} * * * *", 5 + chain % 10),
        3 => format!("{minute} * * * *"),
        4 => format!("{minute} {hour} * * mon-fri"),
        5 => format!("{minute} {hour} 1 * *"),
        6 => format!("mon..fri {hour}:{minute:02}"),
        7 => "@daily".to_owned(),
        8 => format!("every {}min", 1 + chain % 60),
        9 => format!("{minute} */2 * * *"),
        10 => format!("{minute} {hour} L * *"),
        _ => format!("{minute} {hour} 29 2 *"),
    }
}

/// The fastest and the middle of some rounds.
fn measure(what: &str, aim: &str, mut round: impl FnMut()) {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            round();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    println!("{what:<52} {:8.2} ms, fastest {:8.2} ms   {aim}", millis(times[ROUNDS / 2]), millis(times[0]));
}

fn main() -> ExitCode {
    // Cargo says --bench when it is asked to measure, and nothing when it runs all targets as tests.
    if !std::env::args().any(|word| word == "--bench") {
        println!("measures only under cargo bench");
        return ExitCode::SUCCESS;
    }
    let texts: Vec<String> = (0..CHAINS).map(text).collect();
    let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
    println!("{CHAINS} schedules, the middle of {ROUNDS} rounds");
    for name in ["UTC", "Europe/Prague", "Australia/Lord_Howe"] {
        let zone = TimeZone::get(name).unwrap();
        let read = || texts.iter().map(|text| Schedule::parse(text, zone.clone()).unwrap()).collect::<Vec<_>>();
        measure(&format!("read all, {name}"), "", || drop(black_box(read())));
        let schedules = read();
        measure(&format!("the next slot of all, {name}"), "aim: under 50 ms", || {
            for schedule in &schedules {
                black_box(schedule.next_after(now));
            }
        });
        let policy = Policy { missed: Missed::Last, window: Duration::from_secs(86_400), delay: Duration::ZERO };
        let entries = || schedules.iter().map(|schedule| Entry { schedule: schedule.clone(), policy, watermark: Some(now) }).collect();
        let agenda = Agenda::new(entries(), now);
        measure(&format!("an agenda of all, {name}"), "", || drop(black_box(Agenda::new(entries(), now))));
        measure(&format!("an hour of it, minute by minute, {name}"), "", || {
            let mut agenda = agenda.clone();
            for minute in 1..=60 {
                black_box(agenda.take_due(now + Duration::from_secs(60 * minute)));
            }
        });
        measure(&format!("a week later all at once, {name}"), "", || {
            black_box(agenda.clone().take_due(now + Duration::from_secs(7 * 86_400)));
        });
    }
    ExitCode::SUCCESS
}
