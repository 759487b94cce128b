//! Any text given to the reader of schedules: no panic, true line numbers, slots in order, and no end without a reason.
//! The same properties as in `src/schedule/tests/oracle.rs`, by a search that sees the code.
#![no_main]

use jiff::Timestamp;
use jiff::tz::TimeZone;
use libfuzzer_sys::fuzz_target;
use runner::schedule::Schedule;

fuzz_target!(|text: &str| {
    // A zone of two changes a year that needs no file.
    let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a rule of POSIX");
    let lines = text.lines().count().max(1);
    match Schedule::parse(text, zone) {
        Ok(schedule) => {
            let begin: Timestamp = "2026-03-28T00:00:00Z".parse().expect("a time");
            let slots: Vec<_> = schedule.slots_after(begin).take(20).collect();
            assert!(slots.is_sorted() && slots.first().is_none_or(|first| *first > begin));
            assert!(slots.windows(2).all(|pair| pair[0] < pair[1]));
            assert!(schedule.at_boot() || !slots.is_empty());
            if let Some(last) = slots.last() {
                assert_eq!(schedule.newest(begin, *last, 20), slots);
            }
            for lint in schedule.lints(begin) {
                assert!(lint.line < lines);
            }
        }
        Err(error) => {
            assert!(error.line < lines, "line {} of {lines}", error.line);
        }
    }
});
