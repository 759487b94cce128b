//! Days and times: `monday 0:45 12:45`, `mon..fri 9:00`, `daily 12:30pm`. Decides only.

use crate::names::suggestion;

use super::days::Days;
use super::error::Problem;
use super::local::{LocalRule, Times};

const DAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const EVERY_DAY: u8 = 0x7f;

/// Every word that may begin such a rule.
pub(crate) fn words() -> impl Iterator<Item = &'static str> {
    DAYS.into_iter().chain(["daily"])
}

/// Whether a rule that begins with `word` is one of days and times.
pub(crate) fn begins_with(word: &str) -> bool {
    word.split([',', '.']).any(|part| part.eq_ignore_ascii_case("daily") || day(part).is_some())
}

/// The days as this kind of rule has them, if `word` says them as the weekday field of cron would: `mon-fri`.
pub(crate) fn dotted(word: &str) -> Option<String> {
    let dotted = word.replace('-', "..");
    (dotted != word && days_of(&dotted).is_ok()).then_some(dotted)
}

/// Reads days and the times behind them.
///
/// # Errors
/// A day that is none, no time at all, a time that is none.
pub(crate) fn parse(rule: &str) -> Result<LocalRule, Problem> {
    let mut words = rule.split_ascii_whitespace();
    let days = words.next().unwrap_or_default();
    let weekdays = days_of(days)?;
    let mut written: Vec<String> = Vec::new();
    for word in words {
        match written.last_mut() {
            // `9:00 pm`
            Some(time) if word.eq_ignore_ascii_case("am") || word.eq_ignore_ascii_case("pm") => time.push_str(word),
            Some(_) | None => written.push(word.to_owned()),
        }
    }
    let mut times: Vec<u16> = written.iter().map(|text| time_of_day(text)).collect::<Result<_, _>>()?;
    times.sort_unstable();
    times.dedup();
    if times.is_empty() {
        return Err(Problem::NoTime(days.to_owned()));
    }
    Ok(LocalRule { days: Days::of_week(weekdays), times: Times::List(times.into()), follows_clock: false })
}

/// `mon`, `Monday`; the number counts from Sunday.
fn day(text: &str) -> Option<u8> {
    let known = |name: &&str| text.eq_ignore_ascii_case(name) || text.eq_ignore_ascii_case(&name[..3]);
    DAYS.iter().position(known).map(|place| place as u8)
}

fn days_of(text: &str) -> Result<u8, Problem> {
    let day_or_error = |word: &str| day(word).ok_or_else(|| Problem::Day { word: word.to_owned(), near: suggestion(word, words()) });
    let mut days = 0;
    for part in text.split(',') {
        days |= match part.split_once("..") {
            None if part.eq_ignore_ascii_case("daily") => EVERY_DAY,
            None => 1 << day_or_error(part)?,
            Some((first, last)) => {
                let (first, last) = (day_or_error(first)?, day_or_error(last)?);
                // fri..mon goes on over the end of the week.
                (0..=(last + 7 - first) % 7).fold(0, |days, more| days | 1 << ((first + more) % 7))
            }
        };
    }
    Ok(days)
}

/// `9:05`, `09:05`, `9:05pm`, in minutes since midnight.
///
/// # Errors
/// What is none: with am or pm the hours are 1 to 12, else 0 to 23; minutes have two digits.
pub(crate) fn time_of_day(text: &str) -> Result<u16, Problem> {
    let wrong = || Problem::Time(text.to_owned());
    let lower = text.to_ascii_lowercase();
    let (clock, half) = match (lower.strip_suffix("am"), lower.strip_suffix("pm")) {
        (Some(clock), _) => (clock, Some(0)),
        (None, Some(clock)) => (clock, Some(12)),
        (None, None) => (lower.as_str(), None),
    };
    let (hour, minute) = clock.split_once(':').ok_or_else(wrong)?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !(digits(hour) && digits(minute) && matches!(hour.len(), 1..=2) && minute.len() == 2) {
        return Err(wrong());
    }
    let (hour, minute): (u16, u16) = (hour.parse().map_err(|_| wrong())?, minute.parse().map_err(|_| wrong())?);
    let hour = match half {
        None => (hour < 24).then_some(hour),
        Some(half) => (1..=12).contains(&hour).then_some(hour % 12 + half),
    };
    let hour = hour.filter(|_| minute < 60).ok_or_else(wrong)?;
    Ok(hour * 60 + minute)
}
