//! Schedules against `systemd-analyze calendar`, where the two languages say the same, and the page that describes them.

use std::process::{Command, Stdio};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use runner::schedule::Schedule;

use crate::scene::{skipped, spawn, succeeds};

const BASE: &str = "2026-05-20 11:22:33";
const SLOTS: usize = 25;

/// Ours, theirs, and the zone. In systemd a time that the clock skips is skipped; no change of the clock lies in these.
const SAME: &[(&str, &str, &str)] = &[
    ("30 4 * * *", "*-*-* 04:30", "UTC"),
    ("*/15 * * * *", "*:0/15", "UTC"),
    ("5-59/20 */6 * * *", "0/6:5/20", "UTC"),
    ("0 0 * feb,apr-jun *", "*-02,04..06-* 00:00", "UTC"),
    ("0 22-23,0-3 * * *", "00..03,22..23:00", "UTC"),
    ("0 10 1-7 * +mon", "Mon *-*-1..7 10:00", "UTC"),
    ("0 0 L * *", "*-*~1 00:00", "UTC"),
    ("0 0 * * friL", "Fri *-*~07/1 00:00", "UTC"),
    ("15 6 * * tue#2", "Tue *-*-8..14 06:15", "UTC"),
    ("0 0 29 2 *", "*-2-29 00:00", "UTC"),
    ("@hourly", "hourly", "UTC"),
    ("@daily", "daily", "UTC"),
    ("@monthly", "monthly", "UTC"),
    ("@yearly", "yearly", "UTC"),
    ("mon..fri 8:00", "Mon..Fri 08:00", "UTC"),
    ("sat,sun 9:30pm", "Sat,Sun 21:30", "UTC"),
    ("daily 12:30am", "00:30", "UTC"),
    ("mon..fri 8:00", "Mon..Fri 08:00", "Europe/Prague"),
    ("30 23 * * 0,3", "Sun,Wed 23:30", "America/New_York"),
    ("daily 0:15", "00:15", "Australia/Lord_Howe"),
];

fn systemd(expression: &str) -> Vec<Timestamp> {
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["calendar", expression, "--base-time", &format!("{BASE} UTC"), "--iterations", &SLOTS.to_string()]);
    analyze.env("TZ", "UTC").env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped());
    let output = spawn(&mut analyze).unwrap().0.wait_with_output().unwrap();
    assert!(output.status.success(), "systemd-analyze calendar '{expression}' ended with {}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(str::trim).filter(|line| line.starts_with("Next elapse:") || line.starts_with("Iter. #"));
    let moment = |line: &str| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let [.., date, time, "UTC"] = words[..] else { panic!("{line}") };
        format!("{date}T{time}Z").parse().unwrap()
    };
    lines.map(moment).collect()
}

#[test]
fn systemd_calendar_finds_the_same_slots() {
    if !succeeds(Command::new("systemd-analyze").args(["calendar", "daily"])) {
        return skipped("systemd-analyze is not installed");
    }
    let base: Timestamp = format!("{}Z", BASE.replace(' ', "T")).parse().unwrap();
    // Side by side: each is a process of its own.
    std::thread::scope(|scope| {
        for (ours, theirs, zone) in SAME {
            scope.spawn(move || {
                let schedule = Schedule::parse(ours, TimeZone::get(zone).unwrap()).unwrap();
                // 29 February leaves the calendar of systemd after a few.
                let expected = systemd(&format!("{theirs} {zone}"));
                assert!(expected.len() >= 3, "{theirs}: {expected:?}");
                let count = expected.len();
                assert_eq!(schedule.slots_after(base).take(count).collect::<Vec<_>>(), expected, "`{ours}` and `{theirs}` in {zone}");
            });
        }
    });
}

/// The page's blocks that are marked `ini`: what each says of itself in a comment holds.
#[test]
fn the_page_shows_schedules_that_are_read() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/schedules.md")).unwrap();
    let now: Timestamp = "2026-11-21T00:00:00Z".parse().unwrap();
    let rows: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | ")).collect();
    let mut read = 0;
    for (rule, meaning) in rows {
        let refused = meaning.starts_with("error");
        let parsed = Schedule::parse(rule, TimeZone::UTC);
        assert_eq!(parsed.is_err(), refused, "docs/schedules.md: `{rule}`: {parsed:?}");
        if let Some((_, time)) = meaning.split_once("next: ") {
            let expected: Timestamp = format!("{}:00Z", time.trim_end_matches(" |").replace(' ', "T")).parse().unwrap();
            assert_eq!(parsed.unwrap().next_after(now), Some(expected), "docs/schedules.md: `{rule}`");
        }
        read += 1;
    }
    assert!(read > 25, "{read} rows with a rule");
}
