//! What is right in a schedule but looks as if something else was meant. Decides only.

use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};

use super::Rule;
use super::cron::CronLine;
use super::local::{Change, LocalRule};

/// A rule of a schedule that `check` points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lint {
    /// The line within the value, counted from 0.
    pub line: usize,
    /// What is remarkable.
    pub remark: Remark,
}

impl fmt::Display for Lint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.remark.fmt(f)
    }
}

/// What is remarkable about a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remark {
    /// Both day fields are given: either is enough.
    EitherDay,
    /// Both day fields are restricted and one begins with `*`: both have to fit.
    BothDays,
    /// `* 2 * * *`.
    EveryMinute {
        /// How often a day.
        times: u32,
    },
    /// `every 1d` begins at midnight UTC.
    DaysOfUtc,
    /// A fixed time that the clock skips.
    Moved {
        /// The time that is skipped.
        wanted: DateTime,
        /// What the clock shows when it fires instead.
        fires: DateTime,
    },
    /// A fixed time that comes twice, and fires once.
    Once(DateTime),
    /// A time of a rule that follows the clock is skipped.
    Skipped(DateTime),
    /// A time of a rule that follows the clock comes twice, and fires twice.
    Twice(DateTime),
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = |time: &DateTime| time.strftime("%Y-%m-%d %H:%M").to_string();
        match self {
            Self::EitherDay => f.write_str(
                "day of month and weekday are both given: it fires on days that fit either; write `+` before the weekday to ask for both",
            ),
            Self::BothDays => f.write_str(
                "day of month and weekday are both restricted and one begins with `*`: it fires on days that fit both; \
                 write `+` before the weekday to say so",
            ),
            Self::EveryMinute { times } => {
                write!(f, "the minute is `*`: it fires {times} times a day; write 0 for once in each of its hours")
            }
            Self::DaysOfUtc => f.write_str("`every` counts from midnight UTC: write days and times, such as `daily 0:00`, for local ones"),
            Self::Moved { wanted, fires } => write!(f, "the clock skips {}: it fires at {} instead", clock(wanted), clock(fires)),
            Self::Once(time) => write!(f, "the clock shows {} twice: it fires the first time only", clock(time)),
            Self::Skipped(time) => {
                write!(f, "the clock skips {}: a rule with `*` in minute or hour follows it and does not fire", clock(time))
            }
            Self::Twice(time) => {
                write!(f, "the clock shows {} twice: a rule with `*` in minute or hour follows it and fires both times", clock(time))
            }
        }
    }
}

/// The remarks on all rules, in their order.
pub(super) fn lints(rules: &[(usize, Rule)], zone: &TimeZone, from: Timestamp) -> Vec<Lint> {
    let until = from.checked_add((366 * 24).hours()).unwrap_or(Timestamp::MAX);
    let changes: Vec<Change> = Change::all(from, until, zone).collect();
    let mut found = Vec::new();
    for (line, rule) in rules {
        let mut remark = |remark: Option<Remark>| found.extend(remark.map(|remark| Lint { line: *line, remark }));
        match rule {
            Rule::Boot => {}
            Rule::Every(every) => remark(every.is_days().then_some(Remark::DaysOfUtc)),
            Rule::Weekly(rule) => of_changes(rule, &changes).into_iter().for_each(|found| remark(Some(found))),
            Rule::Cron(cron) => {
                remark(of_days(cron));
                let times = cron.rule.times.count();
                remark((cron.every_minute && cron.fixed_hours).then_some(Remark::EveryMinute { times }));
                // Every so many hours on the clock is what it says; only one hour of the day is a surprise.
                if cron.fixed_hours {
                    of_changes(&cron.rule, &changes).into_iter().for_each(|found| remark(Some(found)));
                }
            }
        }
    }
    found
}

fn of_days(cron: &CronLine) -> Option<Remark> {
    cron.doubtful_days.then_some(if cron.rule.days.both { Remark::BothDays } else { Remark::EitherDay })
}

/// What the first gap and the first overlap that meet the rule do to it.
fn of_changes(rule: &LocalRule, changes: &[Change]) -> Vec<Remark> {
    let gap = changes.iter().find_map(|change| {
        let wanted = last_skipped(rule, *change)?;
        Some(if rule.follows_clock { Remark::Skipped(wanted) } else { Remark::Moved { wanted, fires: change.after } })
    });
    let overlap = changes.iter().find_map(|change| {
        let time = rule.next_civil(full_minute(change.after)).filter(|time| *time < change.before)?;
        Some(if rule.follows_clock { Remark::Twice(time) } else { Remark::Once(time) })
    });
    gap.into_iter().chain(overlap).collect()
}

/// The last time of the rule that the clock skips at this change.
pub(super) fn last_skipped(rule: &LocalRule, change: Change) -> Option<DateTime> {
    let next = |from: DateTime| rule.next_civil(full_minute(from)).filter(|time| *time < change.after);
    let minute = SignedDuration::from_secs(60);
    std::iter::successors(next(change.before), |time| next(time.checked_add(minute).ok()?)).last()
}

/// This minute of the clock, or the next if it has begun.
fn full_minute(time: DateTime) -> DateTime {
    let begun = i64::from(time.second()) + i64::from(time.subsec_nanosecond() > 0);
    let rest = if begun == 0 { 0 } else { 60 - i64::from(time.second()) };
    let ahead = time.checked_add(SignedDuration::from_secs(rest)).unwrap_or(time);
    ahead.date().at(ahead.hour(), ahead.minute(), 0, 0)
}
