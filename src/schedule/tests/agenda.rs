//! What is due: skip, last and all, windows, delays, jumps of the clock, first sight, many chains, windows of idle ones.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rstest::rstest;

use super::super::agenda::{Agenda, Entry, NoClock, Policy, believe, decide, stable_delay, tick};
use super::super::window::{minute_of, time_left};
use super::{PRAGUE, at, schedule};
use crate::config::keys::Missed;

const HOUR: u64 = 3600;

fn policy(missed: Missed) -> Policy {
    Policy { missed, window: Duration::from_secs(24 * HOUR), delay: Duration::ZERO }
}

/// What is run, as `HH:MM` (`+` behind it: late), what is given up, and when it wakes.
fn told(text: &str, policy: &Policy, watermark: Option<&str>, now: &str) -> (Vec<String>, Vec<String>, String) {
    let decision = decide(&schedule(text, "UTC"), policy, watermark.map(at), at(now));
    show(&decision)
}

fn clock(moment: Timestamp) -> String {
    moment.strftime("%d %H:%M").to_string()
}

fn show(decision: &super::super::agenda::Decision) -> (Vec<String>, Vec<String>, String) {
    let run = decision.run.iter().map(|slot| clock(slot.at) + if slot.late { "+" } else { "" }).collect();
    let given_up =
        decision.given_up.iter().map(|part| format!("{}..{} {} {:?}", clock(part.first), clock(part.last), part.count, part.why));
    (run, given_up.collect(), decision.wake.map(clock).unwrap_or_default())
}

#[rstest]
// Nothing has come.
#[case(Missed::Last, "20T09:00Z", "20T09:59:59Z", &[], &[], "20 10:00")]
// On time, to the last moment of its minute.
#[case(Missed::Skip, "20T09:00Z", "20T10:00Z", &["20 10:00"], &[], "20 11:00")]
#[case(Missed::Skip, "20T09:00Z", "20T10:01Z", &["20 10:00"], &[], "20 11:00")]
#[case(Missed::Last, "20T09:00Z", "20T10:01:00.1Z", &["20 10:00+"], &[], "20 11:00")]
// Late.
#[case(Missed::Skip, "20T09:00Z", "20T10:01:00.1Z", &[], &["20 10:00..20 10:00 1 Skipped"], "20 11:00")]
#[case(Missed::Skip, "20T09:00Z", "20T13:30Z", &[], &["20 10:00..20 13:00 4 Skipped"], "20 14:00")]
#[case(Missed::Skip, "20T09:00Z", "20T13:00:05Z", &["20 13:00"], &["20 10:00..20 12:00 3 Overtaken"], "20 14:00")]
#[case(Missed::Last, "20T09:00Z", "20T13:30Z", &["20 13:00+"], &["20 10:00..20 12:00 3 Overtaken"], "20 14:00")]
#[case(Missed::Last, "20T09:00Z", "20T13:00:05Z", &["20 13:00"], &["20 10:00..20 12:00 3 Overtaken"], "20 14:00")]
#[case(Missed::All, "20T09:00Z", "20T13:00:05Z", &["20 10:00+", "20 11:00+", "20 12:00+", "20 13:00"], &[], "20 14:00")]
// Longer ago than the window.
#[case(Missed::Last, "18T09:00Z", "20T13:30Z", &["20 13:00+"], &["18 10:00..19 13:00 28 TooOld", "19 14:00..20 12:00 23 Overtaken"], "20 14:00")]
fn what_becomes_of_hourly_slots(
    #[case] missed: Missed,
    #[case] watermark: &str,
    #[case] now: &str,
    #[case] run: &[&str],
    #[case] given_up: &[&str],
    #[case] wake: &str,
) {
    let day = |rest: &str| format!("2026-11-{rest}");
    let told = told("@hourly", &policy(missed), Some(&day(watermark)), &day(now));
    assert_eq!((told.0, told.1, told.2.as_str()), (strings(run), strings(given_up), wake));
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn all_is_a_hundred_and_the_window_counts_from_when_it_should_have_fired() {
    let (run, given_up, _) = told("* * * * *", &policy(Missed::All), Some("2026-11-20T00:00Z"), "2026-11-20T03:20:30Z");
    assert_eq!((run.len(), run[0].as_str(), run[99].as_str()), (100, "20 01:41+", "20 03:20"));
    assert_eq!(given_up, ["20 00:01..20 01:40 100 TooMany"]);

    let hour = Policy { missed: Missed::Last, window: Duration::from_secs(HOUR), delay: Duration::from_secs(600) };
    let daily = |now: &str| told("daily 9:00", &hour, Some("2026-11-19T12:00Z"), now);
    assert_eq!(daily("2026-11-20T10:10Z"), (strings(&["20 09:00+"]), vec![], "21 09:10".to_owned()));
    assert_eq!(daily("2026-11-20T10:10:01Z"), (vec![], strings(&["20 09:00..20 09:00 1 TooOld"]), "21 09:10".to_owned()));

    // A window of nothing still takes what is on time.
    let now = Policy { window: Duration::ZERO, ..policy(Missed::All) };
    assert_eq!(told("@hourly", &now, Some("2026-11-20T08:30Z"), "2026-11-20T10:00:30Z").0, ["20 10:00"]);
}

#[test]
fn a_year_of_seconds_is_decided_at_once() {
    let endless = Policy { missed: Missed::All, window: Duration::MAX, delay: Duration::ZERO };
    let (run, given_up, _) = told("every 1s", &endless, Some("2025-11-20T00:00Z"), "2026-11-20T00:00Z");
    assert_eq!((run.len(), given_up), (100, strings(&["20 00:00..19 23:58 100 TooMany"])));
}

#[test]
fn a_chain_seen_for_the_first_time_catches_nothing_up() {
    for missed in [Missed::Skip, Missed::Last, Missed::All] {
        let first = decide(&schedule("@hourly", "UTC"), &policy(missed), None, at("2026-11-20T10:00:02Z"));
        assert_eq!((first.run.len(), first.given_up.len(), first.wake), (0, 0, Some(at("2026-11-20T11:00Z"))));
        assert_eq!(first.watermark, at("2026-11-20T10:00:02Z"));
    }
}

#[test]
fn a_delay_moves_the_moment_and_not_the_name() {
    let delayed = Policy { delay: Duration::from_secs(17 * 60), ..policy(Missed::Skip) };
    let hourly = |now: &str| told("@hourly", &delayed, Some("2026-11-20T09:00Z"), now);
    assert_eq!(hourly("2026-11-20T10:16:59Z"), (vec![], vec![], "20 10:17".to_owned()));
    assert_eq!(hourly("2026-11-20T10:17:00Z"), (strings(&["20 10:00"]), vec![], "20 11:17".to_owned()));
    assert_eq!(hourly("2026-11-20T10:18:01Z").1, ["20 10:00..20 10:00 1 Skipped"]);
}

#[test]
fn the_delay_is_the_same_in_every_version_and_spread_over_all_of_it() {
    let most = Duration::from_secs(1800);
    let delays: Vec<_> = (0..1000).map(|host| stable_delay(&format!("host{host}"), "backup", most).as_secs()).collect();
    assert!(delays.iter().all(|delay| *delay <= 1800));
    assert!((0..10).all(|tenth| delays.iter().filter(|delay| **delay / 180 == tenth).count() > 60));
    let pinned =
        [("4f1c2a9b", "backup"), ("4f1c2a9b", "mail"), ("", "")].map(|(machine, chain)| stable_delay(machine, chain, most).as_secs());
    assert_eq!(pinned, PINNED);
    assert_eq!(stable_delay("a", "bc", Duration::ZERO), Duration::ZERO);
    assert_ne!(stable_delay("a", "bc", Duration::from_secs(1 << 40)), stable_delay("ab", "c", Duration::from_secs(1 << 40)));
    assert!(stable_delay("a", "b", Duration::MAX) <= Duration::MAX);
}
const PINNED: [u64; 3] = [139, 1304, 267];

#[test]
fn a_tick_fires_what_is_due_in_its_minute() {
    let told = |text: &str, delay: u64, missed: Missed, watermark: Option<&str>, now: &str| {
        let policy = Policy { delay: Duration::from_secs(delay), ..policy(missed) };
        show(&tick(&schedule(text, "UTC"), &policy, watermark.map(at), at(now)))
    };
    // The first tick ever, late in its minute; and once more in it.
    assert_eq!(told("@hourly", 0, Missed::Skip, None, "2026-11-20T10:00:59Z").0, ["20 10:00"]);
    assert!(told("@hourly", 0, Missed::Skip, None, "2026-11-20T10:01:00Z").0.is_empty());
    assert!(told("@hourly", 0, Missed::Skip, None, "2026-11-20T09:59:59Z").0.is_empty());
    let first = tick(&schedule("@hourly", "UTC"), &policy(Missed::Skip), None, at("2026-11-20T10:00:59Z"));
    assert!(tick(&schedule("@hourly", "UTC"), &policy(Missed::Skip), Some(first.watermark), at("2026-11-20T10:00:59.5Z")).run.is_empty());
    // A delay that ends later in this minute.
    assert_eq!(told("@hourly", 90, Missed::Skip, Some("2026-11-20T09:30Z"), "2026-11-20T10:01:02Z").0, ["20 10:00"]);
    // What is decided ahead stays decided; nothing else of the future is.
    let delayed = Policy { delay: Duration::from_secs(90), ..policy(Missed::Last) };
    let ahead = tick(&schedule("*/10 * * * *", "UTC"), &delayed, Some(at("2026-11-20T09:30Z")), at("2026-11-20T10:01:02Z"));
    assert_eq!((ahead.watermark, ahead.run[0].at), (at("2026-11-20T10:00Z"), at("2026-11-20T10:00Z")));
    assert_eq!(first.watermark, at("2026-11-20T10:00:59Z"));
    // A tick that was left out is made up for.
    assert_eq!(told("@hourly", 0, Missed::Last, Some("2026-11-20T09:58Z"), "2026-11-20T10:03Z").0, ["20 10:00+"]);
}

#[rstest]
// The first tick of a chain, and one a minute after another.
#[case("every 20s", None, "10:00:01", &["10:00:00"], &[], "10:00:01")]
#[case("every 20s", Some("10:00:01"), "10:01:01", &["10:01:00"], &["10:00:20..10:00:40"], "10:01:01")]
#[case("every 5s", Some("09:59:59"), "10:00:01", &["10:00:00"], &[], "10:00:01")]
// The second slot of this minute is its only one, and the first was half a minute before it.
#[case("every 45s", Some("10:00:01"), "10:01:01", &["10:00:45"], &[], "10:01:01")]
#[case("* * * * *\nevery 90s", Some("10:00:01"), "10:01:01", &["10:01:00"], &[], "10:01:01")]
// A minute apart: nobody asks again in this one.
#[case("every 90s", Some("10:00:01"), "10:01:01", &["10:01:30"], &[], "10:01:30")]
fn a_tick_never_gives_up_nor_hurries_what_is_less_than_a_minute_apart(
    #[case] text: &str,
    #[case] watermark: Option<&str>,
    #[case] now: &str,
    #[case] run: &[&str],
    #[case] given_up: &[&str],
    #[case] decided: &str,
) {
    let time = |clock: &str| at(&format!("2026-11-20T{clock}Z"));
    let clock = |moment: Timestamp| moment.strftime("%H:%M:%S").to_string();
    let decision = tick(&schedule(text, "UTC"), &policy(Missed::Last), watermark.map(time), time(now));
    let begun: Vec<_> = decision.run.iter().map(|slot| clock(slot.at)).collect();
    let left: Vec<_> = decision.given_up.iter().map(|part| format!("{}..{}", clock(part.first), clock(part.last))).collect();
    assert_eq!((begun, left, clock(decision.watermark).as_str()), (strings(run), strings(given_up), decided));
}

#[test]
fn a_clock_before_the_build_or_the_newest_stored_time_is_none() {
    let (built, newest) = (at("2026-01-01T00:00Z"), at("2026-11-20T00:00Z"));
    assert_eq!(believe(newest, Some(newest), built), Ok(()));
    assert_eq!(believe(built, None, built), Ok(()));
    let early = at("1970-01-01T00:01Z");
    assert_eq!(believe(early, None, built), Err(NoClock::BeforeBuild { now: early, built }));
    let behind = at("2026-11-19T23:00Z");
    assert_eq!(believe(behind, Some(newest), built), Err(NoClock::BeforeStored { now: behind, newest }));
    let text = NoClock::BeforeStored { now: behind, newest }.to_string();
    assert_eq!(
        text,
        "the clock shows 2026-11-19T23:00:00Z, before the newest stored time (2026-11-20T00:00:00Z): only @boot fires until then"
    );
}

// ---- many chains -------------------------------------------------------------------------------

fn agenda(chains: &[(&str, Missed)], now: &str) -> Agenda {
    let entry = |(text, missed): &(&str, Missed)| Entry { schedule: schedule(text, PRAGUE), policy: policy(*missed), watermark: None };
    Agenda::new(chains.iter().map(entry).collect(), at(now))
}

fn due(agenda: &mut Agenda, now: &str) -> Vec<(usize, Vec<String>)> {
    agenda.take_due(at(now)).iter().map(|(chain, decision)| (*chain, show(decision).0)).collect()
}

#[test]
fn an_agenda_wakes_only_when_something_is_due() {
    let mut agenda = agenda(&[("@hourly", Missed::Last), ("@boot", Missed::Last), ("30 * * * *", Missed::Skip)], "2026-11-20T09:10Z");
    assert_eq!(agenda.at_boot().collect::<Vec<_>>(), [1]);
    assert_eq!(agenda.next_deadline(), Some(at("2026-11-20T09:30Z")));
    assert_eq!(due(&mut agenda, "2026-11-20T09:29:59.999Z"), []);
    assert_eq!(due(&mut agenda, "2026-11-20T09:30Z"), [(2, strings(&["20 09:30"]))]);
    assert_eq!(due(&mut agenda, "2026-11-20T09:30Z"), []);
    assert_eq!(agenda.next_deadline(), Some(at("2026-11-20T10:00Z")));
}

#[test]
fn a_clock_set_forward_finds_missed_slots_and_one_set_back_finds_them_used() {
    let mut agenda = agenda(&[("@hourly", Missed::Last), ("30 * * * *", Missed::Skip), ("0 * * * *", Missed::All)], "2026-11-20T09:10Z");
    // An hour forward, or a machine that slept that long.
    let first = due(&mut agenda, "2026-11-20T11:10Z");
    assert_eq!(first, [(1, vec![]), (0, strings(&["20 11:00+"])), (2, strings(&["20 10:00+", "20 11:00+"]))]);
    // Back again: nothing until the clock has passed where it was.
    for now in ["2026-11-20T09:30Z", "2026-11-20T10:00Z", "2026-11-20T11:00Z"] {
        assert_eq!(due(&mut agenda, now), []);
    }
    assert_eq!(agenda.next_deadline(), Some(at("2026-11-20T11:30Z")));
    assert_eq!(due(&mut agenda, "2026-11-20T11:30Z"), [(1, strings(&["20 11:30"]))]);
    let watermarks: Vec<_> = agenda.entries().iter().map(|entry| entry.watermark).collect();
    assert_eq!(watermarks, [Some(at("2026-11-20T11:10Z")), Some(at("2026-11-20T11:30Z")), Some(at("2026-11-20T11:10Z"))]);
}

#[test]
fn ten_thousand_chains_are_each_due_when_they_would_be_alone() {
    let now = at("2026-10-24T22:00Z");
    let text = |chain: usize| format!("{} {} * * *", chain % 60, chain / 60 % 24);
    let entry = |chain: usize| Entry { schedule: schedule(&text(chain), PRAGUE), policy: policy(Missed::Last), watermark: Some(now) };
    let mut agenda = Agenda::new((0..10_000).map(entry).collect(), now);
    let (mut runs, mut last) = (vec![0; 10_000], now);
    while let Some(deadline) = agenda.next_deadline().filter(|deadline| *deadline <= now + SignedDuration::from_hours(25)) {
        assert!(deadline > last);
        last = deadline;
        let due = agenda.take_due(deadline);
        assert!(due.iter().all(|(_, decision)| decision.run.len() == 1 && decision.run[0].at == deadline && !decision.run[0].late));
        due.iter().for_each(|(chain, _)| runs[*chain] += 1);
    }
    // It is the day with 25 hours: every time of it comes once.
    assert!(runs.iter().all(|runs| *runs == 1));
}

// ---- the window of an idle chain ---------------------------------------------------------------------

#[test]
fn a_window_counts_from_its_minute_and_may_have_no_end() {
    let minute = minute_of(at("2026-11-20T10:00:07Z"));
    let left = |window, now| time_left(minute, window, at(now));
    let seconds = SignedDuration::from_secs;
    assert_eq!(left(Duration::from_secs(60), "2026-11-20T10:00:50Z"), seconds(10));
    assert_eq!(left(Duration::from_secs(60), "2026-11-20T10:01:00Z"), seconds(0));
    assert_eq!(left(Duration::from_secs(60), "2026-11-20T10:03:00Z"), seconds(-120));
    assert!(left(Duration::MAX, "2026-11-20T10:03:00Z").is_positive());
}
