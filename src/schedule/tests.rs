//! The schedules, as written down: grammar, errors, both changes of the clock in three zones, remarks, the command line.

mod agenda;
mod oracle;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rstest::rstest;

use super::{Dst, Schedule, when};

pub(super) fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

pub(super) fn at(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub(super) fn schedule(text: &str, zone_name: &str) -> Schedule {
    Schedule::parse(text, zone(zone_name)).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The next slots, as the clock of the zone shows them.
fn slots(text: &str, zone_name: &str, after: &str, count: usize) -> Vec<String> {
    let schedule = schedule(text, zone_name);
    let shown = |slot: Timestamp| slot.to_zoned(zone(zone_name)).strftime("%m-%d %H:%M%:z").to_string();
    schedule.slots_after(at(after)).take(count).map(shown).collect()
}

/// 2026-11-21 is a Saturday.
#[rstest]
#[case("30 4 * * *", "2026-11-21T04:30Z")]
#[case("*/20 * * * *", "2026-11-21T00:20Z")]
#[case("5-59/25 * * * *", "2026-11-21T00:05Z")]
#[case("0 22,2-3 * * *", "2026-11-21T02:00Z")]
#[case("0 0 * feb *", "2027-02-01T00:00Z")]
#[case("0 0 * JAN-mar/2 *", "2027-01-01T00:00Z")]
#[case("0 0 * * 0", "2026-11-22T00:00Z")]
#[case("0 0 * * 7", "2026-11-22T00:00Z")]
#[case("0 0 * * Sun", "2026-11-22T00:00Z")]
#[case("0 12 * * sat-sun", "2026-11-21T12:00Z")]
#[case("0 0 * * mon-fri", "2026-11-23T00:00Z")]
#[case("0 0 * * sun-sun", "2026-11-22T00:00Z")]
#[case("0 0 * * 1-5/2", "2026-11-23T00:00Z")]
#[case("0 0 L * *", "2026-11-30T00:00Z")]
#[case("0 0 l feb *", "2027-02-28T00:00Z")]
#[case("0 0 lw jan *", "2027-01-29T00:00Z")]
#[case("0 0 28W nov *", "2026-11-27T00:00Z")]
#[case("0 0 1W aug *", "2027-08-02T00:00Z")]
#[case("0 0 31w jan *", "2027-01-29T00:00Z")]
#[case("0 0 L,15W feb *", "2027-02-15T00:00Z")]
#[case("0 0 * * friL", "2026-11-27T00:00Z")]
#[case("0 0 * * mon#1,tue#2", "2026-12-07T00:00Z")]
#[case("0 0 * * sun#5", "2026-11-29T00:00Z")]
#[case("0 0 29 2 *", "2028-02-29T00:00Z")]
#[case("0 0 29 2 +mon", "2044-02-29T00:00Z")]
// Either one when both are given; both when one begins with `*`, or with a `+`.
#[case("0 0 13 * fri", "2026-11-27T00:00Z")]
#[case("0 0 13 * +fri", "2027-08-13T00:00Z")]
#[case("0 0 */2 * mon", "2026-11-23T00:00Z")]
#[case("0 0 */2 * tue", "2026-12-01T00:00Z")]
#[case("0 0 24 * */2", "2026-11-24T00:00Z")]
#[case("0 0 1-7 * +*", "2026-12-01T00:00Z")]
#[case("@hourly", "2026-11-21T01:00Z")]
#[case("@daily", "2026-11-22T00:00Z")]
#[case("@MIDNIGHT", "2026-11-22T00:00Z")]
#[case("@weekly", "2026-11-22T00:00Z")]
#[case("@monthly", "2026-12-01T00:00Z")]
#[case("@yearly", "2027-01-01T00:00Z")]
#[case("@annually", "2027-01-01T00:00Z")]
#[case("monday 0:45 12:45", "2026-11-23T00:45Z")]
#[case("Saturday 0:45 12:45", "2026-11-21T00:45Z")]
#[case("sat 12:45 0:00", "2026-11-21T12:45Z")]
#[case("mon..fri 9:00", "2026-11-23T09:00Z")]
#[case("fri..mon 9:00", "2026-11-21T09:00Z")]
#[case("sun,wed..thu 9:00", "2026-11-22T09:00Z")]
#[case("daily 12:30pm", "2026-11-21T12:30Z")]
#[case("Daily 12:30AM", "2026-11-21T00:30Z")]
#[case("daily 1:05 PM 11:59 pm", "2026-11-21T13:05Z")]
#[case("every 10min", "2026-11-21T00:10Z")]
#[case("every 90", "2026-11-21T00:01:30Z")]
#[case("every 7d", "2026-11-26T00:00Z")]
#[case("@boot\n\n  daily 9:00\n0 8 * * *", "2026-11-21T08:00Z")]
fn a_rule_and_its_next_slot(#[case] rule: &str, #[case] expected: &str) {
    assert_eq!(schedule(rule, "UTC").next_after(at("2026-11-21T00:00Z")), Some(at(expected)), "{rule}");
}

#[test]
fn boot_has_no_slots() {
    for word in ["@boot", "@reboot"] {
        let boot = schedule(word, "UTC");
        assert!(boot.at_boot() && boot.next_after(Timestamp::UNIX_EPOCH).is_none());
    }
    assert!(!schedule("@daily", "UTC").at_boot());
}

#[rstest]
#[case("", "0: expected a rule: `30 4 * * *`, a word such as `@daily`, days and times such as `mon..fri 9:00`, or `every 10min`")]
#[case("@daily\n# not yet", "1: `# not yet` stands inside the value: begin a comment in the first column of the file")]
#[case(
    "evry 5min",
    "0: `evry` begins no rule: expected five cron fields, a word such as `@daily`, a day such as `monday`, or `every`; did you mean `every`?"
)]
#[case(
    "mondy 9:00",
    "0: `mondy` begins no rule: expected five cron fields, a word such as `@daily`, a day such as `monday`, or `every`; did you mean `monday`?"
)]
#[case(
    "mon-fri 6:45",
    "0: `mon-fri` begins no rule: expected five cron fields, a word such as `@daily`, a day such as `monday`, or `every`; write `mon..fri 6:45`"
)]
#[case(
    "mon-wed,Saturday 6:45",
    "0: `mon-wed,Saturday` begins no rule: expected five cron fields, a word such as `@daily`, a day such as `monday`, or `every`; write `mon..wed,Saturday 6:45`"
)]
#[case("5 4 * *", "0: `5 4 * *` has 4 fields: expected five, minute, hour, day of month, month, weekday")]
#[case(
    "0 5 4 * * *",
    "0: `0 5 4 * * *` has 6 fields: expected five, minute, hour, day of month, month, weekday; there is none for seconds, years, users or commands"
)]
#[case("1,2,,4 * * * *", "0: minute `1,2,,4`: a place in the list is empty: take out the comma too much")]
#[case("@daily\n\n60 * * * *", "2: minute `60`: expected numbers from 0 to 59")]
#[case("0 24 * * *", "0: hour `24`: expected numbers from 0 to 23")]
#[case("0 0 0 * *", "0: day of month `0`: expected numbers from 1 to 31")]
#[case("0 0 * 13 *", "0: month `13`: expected numbers from 1 to 12")]
#[case("0 0 * * 8", "0: weekday `8`: expected numbers from 0 to 7")]
#[case("99999999999 0 * * *", "0: minute `99999999999`: expected numbers from 0 to 59")]
#[case("x * * * *", "0: `x` begins no rule: expected five cron fields, a word such as `@daily`, a day such as `monday`, or `every`")]
#[case("+5 * * * *", "0: minute `+5`: expected 0 to 59, `*`, a range `0-29`, a step `*/5`, or a list of these")]
#[case("0 L * * *", "0: hour `L`: expected 0 to 23, `*`, a range `8-17`, a step `*/2`, or a list of these")]
#[case("0 0 mon * *", "0: day of month `mon`: expected 1 to 31, `*`, a range `1-7`, a step `*/2`, `L`, `LW`, `15W`, or a list of these")]
#[case("0 0 * january *", "0: month `january`: expected 1 to 12, jan to dec, `*`, a range `apr-oct`, a step `*/3`, or a list of these")]
#[case(
    "0 0 * * 1-",
    "0: weekday `1-`: expected 0 to 7, sun to sat, `*`, a range `mon-fri`, a step `*/2`, `friL`, `fri#2`, or a list of these"
)]
#[case(
    "0 0 * * ++1",
    "0: weekday `+1`: expected 0 to 7, sun to sat, `*`, a range `mon-fri`, a step `*/2`, `friL`, `fri#2`, or a list of these"
)]
#[case("0 0 ? * *", "0: day of month `?`: write `*`")]
#[case("0 22-6 * * *", "0: hour `22-6`: the range runs backwards: write it as two, `22-23,0-6`")]
#[case("0 0 * * fri-mon", "0: weekday `fri-mon`: the range runs backwards: write it as two, `5-6,0-1`")]
#[case("5/10 * * * *", "0: minute `5/10`: a step needs a range: write `5-59/10`")]
#[case("*/0 * * * *", "0: minute `*/0`: expected a step from 1 to 59")]
#[case("*/90 * * * *", "0: minute `*/90`: expected a step from 1 to 59")]
#[case("*/ * * * *", "0: minute `*/`: expected a step from 1 to 59")]
#[case("0 0 * * mon#6", "0: weekday `mon#6`: expected # and a number from 1 to 5, the how-manieth in its month")]
#[case(
    "@dayly",
    "0: `@dayly` is no such word: expected @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually or @boot; did you mean `@daily`?"
)]
#[case("@daily 5:00", "0: `@daily 5:00`: nothing may stand behind an @ word; days and times are written `daily 5:00`")]
#[case(
    "mon,tuesdy 9:00",
    "0: `tuesdy` is no day: expected monday to sunday, mon to sun, a range `mon..fri`, a list `mon,thu`, or daily; did you mean `tuesday`?"
)]
#[case("monday", "0: `monday` names no time: write one or more behind it, such as `monday 9:00 17:30`")]
#[case("daily 13:00pm", "0: `13:00pm` is no time: expected 0:00 to 23:59, or 1:00 to 12:59 with am or pm behind it")]
#[case("daily 0:30am", "0: `0:30am` is no time: expected 0:00 to 23:59, or 1:00 to 12:59 with am or pm behind it")]
#[case(
    "9:00",
    "0: `9:00` has 1 field: expected five, minute, hour, day of month, month, weekday; a time stands behind its days, `daily 9:00`"
)]
#[case(
    "daily 1:30, 4:30",
    "0: `1:30,` is no time: expected 0:00 to 23:59, or 1:00 to 12:59 with am or pm behind it; blanks part times, such as `9:00 17:30`"
)]
#[case(
    "daily 9:00 # x",
    "0: `#` is no time: expected 0:00 to 23:59, or 1:00 to 12:59 with am or pm behind it; begin a comment with ` ;`, or give it a line of its own in the first column"
)]
#[case(
    "Hourly",
    "0: `Hourly` begins no rule: expected five cron fields, a word such as `@daily`, a day such as `monday`, or `every`; did you mean `@hourly`?"
)]
#[case("daily 24:00", "0: `24:00` is no time: expected 0:00 to 23:59, or 1:00 to 12:59 with am or pm behind it")]
#[case("daily 9:5", "0: `9:5` is no time: expected 0:00 to 23:59, or 1:00 to 12:59 with am or pm behind it")]
#[case("daily 9", "0: `9` is no time: expected 0:00 to 23:59, or 1:00 to 12:59 with am or pm behind it")]
#[case("daily pm", "0: `pm` is no time: expected 0:00 to 23:59, or 1:00 to 12:59 with am or pm behind it")]
#[case("every", "0: `every`: expected a duration behind `every`: seconds such as 90, `10min`, `1h30m`")]
#[case("every ten", "0: `every ten`: expected a duration behind `every`: seconds such as 90, `10min`, `1h30m`")]
#[case("every 0s", "0: `every 0s`: expected whole seconds, at least one")]
#[case("every 0.5", "0: `every 0.5`: expected whole seconds, at least one")]
#[case("every infinity", "0: `every infinity` never fires: leave the schedule out for a chain that only `runner now` starts")]
#[case("0 0 30 feb *", "0: `0 0 30 feb *` never fires: no such day is in the calendar; the last day of a month is L")]
#[case("0 0 31 4,6,9,11 *", "0: `0 0 31 4,6,9,11 *` never fires: no such day is in the calendar; the last day of a month is L")]
#[case("0 0 29 2 +mon#1", "0: `0 0 29 2 +mon#1` never fires: no such day is in the calendar; the last day of a month is L")]
fn every_error_names_its_line_the_field_and_the_way_out(#[case] text: &str, #[case] expected: &str) {
    let error = Schedule::parse(text, TimeZone::UTC).unwrap_err();
    assert_eq!(format!("{}: {error}", error.line), expected);
}

// ---- the clock is put forward and back ----------------------------------------------------------

const PRAGUE: &str = "Europe/Prague";
const NEW_YORK: &str = "America/New_York";
const LORD_HOWE: &str = "Australia/Lord_Howe";

#[rstest]
// 02:00 is 03:00.
#[case(PRAGUE, "2026-03-28T03:00+01:00", "30 2 * * *", &["03-29 03:00+02:00", "03-30 02:30+02:00"])]
#[case(PRAGUE, "2026-03-28T03:00+01:00", "daily 2:30", &["03-29 03:00+02:00", "03-30 02:30+02:00"])]
#[case(PRAGUE, "2026-03-28T03:00+01:00", "0,15,30 2-3 * * *", &["03-28 03:15+01:00", "03-28 03:30+01:00", "03-29 03:00+02:00", "03-29 03:15+02:00"])]
#[case(PRAGUE, "2026-03-29T00:00+01:00", "30 1-2 * * *", &["03-29 01:30+01:00", "03-29 03:00+02:00", "03-30 01:30+02:00"])]
#[case(PRAGUE, "2026-03-29T00:00+01:00", "30 * * * *", &["03-29 00:30+01:00", "03-29 01:30+01:00", "03-29 03:30+02:00"])]
#[case(PRAGUE, "2026-03-29T00:00+01:00", "15 */2 * * *", &["03-29 00:15+01:00", "03-29 04:15+02:00"])]
#[case(PRAGUE, "2026-03-28T03:00+01:00", "*/30 2 * * *", &["03-30 02:00+02:00", "03-30 02:30+02:00"])]
#[case(PRAGUE, "2026-03-29T00:00+01:00", "@hourly", &["03-29 01:00+01:00", "03-29 03:00+02:00"])]
#[case(PRAGUE, "2026-03-29T00:30:00Z", "every 30min", &["03-29 03:00+02:00", "03-29 03:30+02:00"])]
// 03:00 is 02:00.
#[case(PRAGUE, "2026-10-24T03:00+02:00", "30 2 * * *", &["10-25 02:30+02:00", "10-26 02:30+01:00"])]
#[case(PRAGUE, "2026-10-25T02:10+01:00", "30 2 * * *", &["10-26 02:30+01:00"])]
#[case(PRAGUE, "2026-10-25T01:00+02:00", "0 2,3 * * *", &["10-25 02:00+02:00", "10-25 03:00+01:00", "10-26 02:00+01:00"])]
#[case(PRAGUE, "2026-10-25T01:00+02:00", "30 * * * *", &["10-25 01:30+02:00", "10-25 02:30+02:00", "10-25 02:30+01:00", "10-25 03:30+01:00"])]
#[case(PRAGUE, "2026-10-25T01:00+02:00", "15 */2 * * *", &["10-25 02:15+02:00", "10-25 02:15+01:00", "10-25 04:15+01:00"])]
#[case(PRAGUE, "2026-10-25T01:00+02:00", "@daily", &["10-26 00:00+01:00"])]
// 02:00 is 03:00, and 02:00 is 01:00.
#[case(NEW_YORK, "2026-03-07T03:00-05:00", "30 2 * * *", &["03-08 03:00-04:00", "03-09 02:30-04:00"])]
#[case(NEW_YORK, "2026-03-08T00:00-05:00", "sun 2:00 2:59 3:00 3:01", &["03-08 03:00-04:00", "03-08 03:01-04:00", "03-15 02:00-04:00"])]
#[case(NEW_YORK, "2026-03-08T01:00-05:00", "45 * * * *", &["03-08 01:45-05:00", "03-08 03:45-04:00"])]
#[case(NEW_YORK, "2026-10-31T03:00-04:00", "30 1 * * *", &["11-01 01:30-04:00", "11-02 01:30-05:00"])]
#[case(NEW_YORK, "2026-11-01T00:00-04:00", "*/30 1 * * *", &["11-01 01:00-04:00", "11-01 01:30-04:00", "11-01 01:00-05:00", "11-01 01:30-05:00", "11-02 01:00-05:00"])]
#[case(NEW_YORK, "2026-11-01T00:00-04:00", "daily 1:00 1:59 2:00", &["11-01 01:00-04:00", "11-01 01:59-04:00", "11-01 02:00-05:00", "11-02 01:00-05:00"])]
// 02:00 is 02:30, and 02:00 is 01:30.
#[case(LORD_HOWE, "2026-10-03T03:00+10:30", "10 2 * * *", &["10-04 02:30+11:00", "10-05 02:10+11:00"])]
#[case(LORD_HOWE, "2026-10-03T03:00+10:30", "30 2 * * *", &["10-04 02:30+11:00", "10-05 02:30+11:00"])]
#[case(LORD_HOWE, "2026-10-04T01:00+10:30", "*/15 * * * *", &["10-04 01:15+10:30", "10-04 01:30+10:30", "10-04 01:45+10:30", "10-04 02:30+11:00", "10-04 02:45+11:00"])]
#[case(LORD_HOWE, "2026-10-04T01:00+10:30", "0 * * * *", &["10-04 03:00+11:00"])]
#[case(LORD_HOWE, "2026-04-04T03:00+11:00", "45 1 * * *", &["04-05 01:45+11:00", "04-06 01:45+10:30"])]
#[case(LORD_HOWE, "2026-04-05T01:00+11:00", "*/20 * * * *", &["04-05 01:20+11:00", "04-05 01:40+11:00", "04-05 01:40+10:30", "04-05 02:00+10:30"])]
#[case(LORD_HOWE, "2026-04-05T01:00+11:00", "daily 1:30 2:00", &["04-05 01:30+11:00", "04-05 02:00+10:30", "04-06 01:30+10:30"])]
// There was no 30 December 2011 in Samoa; it was a Friday.
#[case("Pacific/Apia", "2011-12-29T10:00-10:00", "daily 9:00", &["12-31 00:00+14:00", "12-31 09:00+14:00", "01-01 09:00+14:00"])]
#[case("Pacific/Apia", "2011-12-29T10:00-10:00", "0 0,9,18 * * fri", &["12-31 00:00+14:00", "01-06 00:00+14:00"])]
#[case("Pacific/Apia", "2011-12-29T22:00-10:00", "0 * * * *", &["12-29 23:00-10:00", "12-31 00:00+14:00"])]
#[case("Pacific/Apia", "2011-12-29T10:00-10:00", "every 12h", &["12-29 14:00-10:00", "12-31 02:00+14:00"])]
fn the_clock_is_put_forward_and_back(#[case] zone: &str, #[case] after: &str, #[case] rule: &str, #[case] expected: &[&str]) {
    assert_eq!(slots(rule, zone, after, expected.len()), expected, "{rule} in {zone}");
}

#[test]
fn a_slot_tells_what_the_clock_did_to_it() {
    let told = |rule: &str, slot: &str| schedule(rule, PRAGUE).dst_of(at(slot));
    let wanted = jiff::civil::date(2026, 3, 29).at(2, 45, 0, 0);
    assert_eq!(told("15,45 2 * * *", "2026-03-29T03:00+02:00"), Some(Dst::Moved { wanted }));
    assert_eq!(told("0 * * * *", "2026-03-29T03:00+02:00"), None);
    assert_eq!(told("30 2 * * *", "2026-10-25T02:30+02:00"), Some(Dst::FirstPass));
    assert_eq!(told("30 * * * *", "2026-10-25T02:30+01:00"), Some(Dst::SecondPass));
    assert_eq!(told("30 2 * * *", "2026-10-26T02:30+01:00"), None);
}

#[rstest]
#[case("0 0 13 * fri", &["day of month and weekday are both given: it fires on days that fit either; write `+` before the weekday to ask for both"])]
#[case("0 0 */2 * mon", &["day of month and weekday are both restricted and one begins with `*`: it fires on days that fit both; write `+` before the weekday to say so"])]
#[case("0 0 13 * +fri", &[])]
#[case("* 9-10 * * *", &["the minute is `*`: it fires 120 times a day; write 0 for once in each of its hours"])]
#[case("* * * * *", &[])]
#[case("every 2d", &["`every` counts from midnight UTC: write days and times, such as `daily 0:00`, for local ones"])]
#[case("30 2 * * *", &[
    "the clock skips 2026-03-29 02:30: it fires at 2026-03-29 03:00 instead",
    "the clock shows 2026-10-25 02:30 twice: it fires the first time only",
])]
#[case("@boot\ndaily 1:00 2:00 3:00", &[
    "the clock skips 2026-03-29 02:00: it fires at 2026-03-29 03:00 instead",
    "the clock shows 2026-10-25 02:00 twice: it fires the first time only",
])]
#[case("*/5 2 * * *", &[
    "the clock skips 2026-03-29 02:55: a rule with `*` in minute or hour follows it and does not fire",
    "the clock shows 2026-10-25 02:00 twice: a rule with `*` in minute or hour follows it and fires both times",
])]
#[case("30 2 * * mon", &[])]
#[case("*/5 * * * *", &[])]
#[case("0 4 * * *", &[])]
fn remarks(#[case] text: &str, #[case] expected: &[&str]) {
    let lints = schedule(text, PRAGUE).lints(at("2026-01-01T00:00Z"));
    assert_eq!(lints.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    assert!(lints.iter().all(|lint| lint.line == text.lines().count() - 1));
}

// ---- a time on the command line ------------------------------------------------------------------

#[rstest]
#[case("2026-03-29T02:30:00+01:00", "2026-03-29T01:30Z")]
#[case("2026-11-21T10:00:00.5Z", "2026-11-21T10:00:00.5Z")]
#[case("14:30", "2026-11-21T14:30+01:00")]
#[case("9:00", "2026-11-22T09:00+01:00")]
#[case("2:30pm", "2026-11-21T14:30+01:00")]
#[case("12:00", "2026-11-22T12:00+01:00")]
#[case("+90", "2026-11-21T11:01:30Z")]
#[case("+1h30m", "2026-11-21T12:30Z")]
#[case("+0", "2026-11-21T11:00Z")]
fn times_of_the_command_line(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(when(text, at("2026-11-21T12:00+01:00"), &zone(PRAGUE)), Ok(at(expected)));
}

#[rstest]
#[case(
    "tomorrow",
    "`tomorrow`: expected a time: 2026-03-29T02:30:00+01:00 (RFC 3339, with Z or an offset), 14:30 (the next such time), or +90min (from now)"
)]
#[case(
    "",
    "``: expected a time: 2026-03-29T02:30:00+01:00 (RFC 3339, with Z or an offset), 14:30 (the next such time), or +90min (from now)"
)]
#[case(
    "2026-03-29T02:30",
    "`2026-03-29T02:30`: expected a time: 2026-03-29T02:30:00+01:00 (RFC 3339, with Z or an offset), 14:30 (the next such time), or +90min (from now)"
)]
#[case("+soon", "`+soon`: expected a duration behind the +: seconds such as 90, `10min`, `1h30m`")]
#[case("+infinity", "`+infinity` lies beyond the calendar: expected a time before the year 9999")]
fn no_times_of_the_command_line(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(when(text, at("2026-11-21T12:00Z"), &TimeZone::UTC).unwrap_err().to_string(), expected);
}

#[test]
fn the_newest_slots_are_the_end_of_all_slots() {
    for text in ["*/7 * * * *", "@monthly", "every 17s", "0 0 29 2 *", "@boot"] {
        let schedule = schedule(text, PRAGUE);
        let (after, until) = (at("2026-03-20T00:00Z"), at("2026-03-20T05:00:34Z"));
        let all: Vec<_> = schedule.slots_after(after).take_while(|slot| *slot <= until).collect();
        for count in [1, 2, 100, 100_000] {
            assert_eq!(schedule.newest(after, until, count), all[all.len().saturating_sub(count)..], "{text}, {count}");
        }
    }
}

#[test]
fn the_calendar_has_two_ends() {
    for text in ["* * * * *", "0 0 29 2 *", "0 12 L * *", "daily 0:00 23:59", "every 7s", "every 9000d"] {
        for name in ["UTC", PRAGUE, LORD_HOWE, "Pacific/Apia"] {
            let schedule = schedule(text, name);
            assert_eq!(schedule.next_after(Timestamp::MAX), None, "{text} in {name}");
            assert!(schedule.next_after(Timestamp::MIN).is_some(), "{text} in {name}");
            assert_eq!(schedule.newest(Timestamp::MIN, Timestamp::MAX, 3).len(), 3, "{text} in {name}");
            assert!(schedule.lints(Timestamp::MAX).len() <= 1);
        }
    }
}
