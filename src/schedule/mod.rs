//! When a chain is to run: schedules, and what of them is due. Decides only: the zone and the time are arguments.
//!
//! A schedule is one or more rules: a cron line, an `@` word, days and times, or `every D`. Its slots are the
//! moments of all of them, each once, in whole seconds. `cron`, `weekly` and `every` read the rules, `days` and `local`
//! find the next moment of one, `agenda` says what is due, `room` whether runs take longer than the time
//! between slots, `when` reads a time of the command line.
//! docs/schedules.md has the grammar.

pub mod agenda;
mod cron;
mod days;
mod error;
mod every;
mod lint;
mod local;
pub mod room;
#[cfg(test)]
mod tests;
mod weekly;
mod when;
pub mod window;

use std::collections::VecDeque;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use crate::names::suggestion;
use cron::CronLine;
use every::Every;
use local::{Change, LocalRule};

pub use error::{Field, Problem, ScheduleError};
pub use lint::{Lint, Remark};
pub use when::{WhenError, when, when_after};

/// The words, and the cron lines they stand for.
const WORDS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];
/// Once for each start of the machine; cron's own word for it is the second.
const BOOT: [&str; 2] = ["@boot", "@reboot"];

/// The rules of one chain, in its zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    rules: Vec<(usize, Rule)>,
    zone: TimeZone,
}

#[derive(Debug, Clone)]
enum Rule {
    Cron(CronLine),
    Weekly(LocalRule),
    Every(Every),
    Boot,
}

impl Rule {
    fn local(&self) -> Option<&LocalRule> {
        match self {
            Self::Cron(line) => Some(&line.rule),
            Self::Weekly(rule) => Some(rule),
            Self::Every(_) | Self::Boot => None,
        }
    }
}

/// What a change of the clock does to a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dst {
    /// The clock skips the time that was meant; this is the first moment after the gap.
    Moved {
        /// The time that was meant. The latest, if several were skipped.
        wanted: DateTime,
    },
    /// The clock shows this time twice, and this is the first of both.
    FirstPass,
    /// The second of both: the rule follows the clock.
    SecondPass,
}

/// Two schedules are equal when they were written alike and their clocks are.
impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.zone == other.zone
    }
}

impl Eq for Schedule {}

impl Schedule {
    /// Reads one rule per line of `text`, for the clocks of `zone`. Blank lines mean nothing.
    ///
    /// # Errors
    /// The first rule that is wrong, with its line in `text`; a rule that never fires is one.
    pub fn parse(text: &str, zone: TimeZone) -> Result<Self, ScheduleError> {
        let rules = parse_rules(text).collect::<Result<Vec<_>, _>>()?;
        if rules.is_empty() {
            return Err(ScheduleError { line: 0, problem: Problem::Empty });
        }
        Ok(Self { text: text.to_owned(), rules, zone })
    }

    /// Everything that is wrong in `text`, where [`Self::parse`] stops at the first.
    pub fn errors(text: &str) -> Vec<ScheduleError> {
        let none = text.lines().all(|rule| rule.trim().is_empty());
        let empty = none.then_some(ScheduleError { line: 0, problem: Problem::Empty });
        parse_rules(text).filter_map(Result::err).chain(empty).collect()
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The zone of its clocks.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// Whether it asks for a run at each start of the machine.
    pub fn at_boot(&self) -> bool {
        self.rules.iter().any(|(_, rule)| matches!(rule, Rule::Boot))
    }

    /// The first slot after `t`, never `t` itself. `None` when there is only `@boot`, or beyond the year 9999.
    pub fn next_after(&self, t: Timestamp) -> Option<Timestamp> {
        let next = |(_, rule): &(usize, Rule)| match rule {
            Rule::Cron(line) => line.rule.next_after(t, &self.zone),
            Rule::Weekly(rule) => rule.next_after(t, &self.zone),
            Rule::Every(every) => every.next_after(t),
            Rule::Boot => None,
        };
        self.rules.iter().filter_map(next).min()
    }

    /// The slots after `t`, in order.
    pub fn slots_after(&self, t: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        std::iter::successors(self.next_after(t), |slot| self.next_after(*slot))
    }

    /// The newest `count` slots after `after` and not after `until`, in order.
    ///
    /// It looks back from `until` in growing steps: what it costs depends on `count`, hardly on how long the time is.
    pub fn newest(&self, after: Timestamp, until: Timestamp, count: usize) -> Vec<Timestamp> {
        let mut span = SignedDuration::from_secs(60);
        loop {
            let from = until.checked_sub(span).unwrap_or(Timestamp::MIN).max(after);
            let mut newest = VecDeque::with_capacity(count.min(128));
            for slot in self.slots_after(from).take_while(|slot| *slot <= until) {
                if newest.len() == count {
                    newest.pop_front();
                }
                newest.push_back(slot);
            }
            if newest.len() >= count || from <= after {
                return newest.into();
            }
            span = span.checked_mul(8).unwrap_or(SignedDuration::MAX);
        }
    }

    /// What a change of the clock does to one of its slots; `None` for most.
    pub fn dst_of(&self, slot: Timestamp) -> Option<Dst> {
        if let Some(change) = Change::at(slot, &self.zone) {
            let fixed = self.rules.iter().filter_map(|(_, rule)| rule.local()).filter(|rule| !rule.follows_clock);
            if let Some(wanted) = fixed.filter_map(|rule| lint::last_skipped(rule, change)).max() {
                return Some(Dst::Moved { wanted });
            }
        }
        let offset = self.zone.to_offset(slot);
        match self.zone.to_ambiguous_timestamp(offset.to_datetime(slot)).offset() {
            AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Gap { .. } => None,
            AmbiguousOffset::Fold { before, .. } => Some(if before == offset { Dst::FirstPass } else { Dst::SecondPass }),
        }
    }

    /// What is right but looks as if something else was meant, and what the changes of the clock in the year after
    /// `from` do to it.
    pub fn lints(&self, from: Timestamp) -> Vec<Lint> {
        lint::lints(&self.rules, &self.zone, from)
    }
}

/// The rules of `text`, one per line, each with its line.
fn parse_rules(text: &str) -> impl Iterator<Item = Result<(usize, Rule), ScheduleError>> + '_ {
    let rules = text.lines().map(str::trim).enumerate().filter(|(_, rule)| !rule.is_empty());
    rules.map(|(line, rule)| parse_rule(rule).map(|read| (line, read)).map_err(|problem| ScheduleError { line, problem }))
}

fn parse_rule(rule: &str) -> Result<Rule, Problem> {
    let first = rule.split_ascii_whitespace().next().unwrap_or_default();
    let cron = |text: &str| {
        let line = cron::parse(text)?;
        // The calendar repeats every 400 years, so any day to begin with does.
        let fires = line.rule.days.next_from(jiff::civil::date(2000, 1, 1)).is_some();
        if fires { Ok(Rule::Cron(line)) } else { Err(Problem::Never(text.to_owned())) }
    };
    if first.starts_with('@') {
        return match WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(first)) {
            _ if first.len() < rule.len() => Err(Problem::BehindWord(rule.to_owned())),
            Some((_, line)) => cron(line),
            None if BOOT.iter().any(|word| word.eq_ignore_ascii_case(first)) => Ok(Rule::Boot),
            None => {
                let known = WORDS.iter().map(|(word, _)| *word).chain(BOOT);
                Err(Problem::UnknownWord { word: first.to_owned(), near: suggestion(first, known) })
            }
        };
    }
    if first.starts_with(['#', ';']) {
        return Err(Problem::Comment(rule.to_owned()));
    }
    if first.eq_ignore_ascii_case("every") {
        return every::parse(rule).map(Rule::Every);
    }
    if let Some(days) = weekly::dotted(first) {
        let near = format!("; write `{days}{}`", &rule[first.len()..]);
        return Err(Problem::UnknownRule { word: first.to_owned(), near });
    }
    if weekly::begins_with(first) {
        return weekly::parse(rule).map(Rule::Weekly);
    }
    // No minute begins with a letter.
    if first.starts_with(char::is_alphabetic) {
        let word = |word: &&str| word.strip_prefix('@').is_some_and(|bare| bare.eq_ignore_ascii_case(first));
        if let Some(word) = WORDS.iter().map(|(word, _)| *word).chain(BOOT).find(word) {
            return Err(Problem::UnknownRule { word: first.to_owned(), near: format!("; did you mean `{word}`?") });
        }
        let known = weekly::words().chain(["every"]);
        return Err(Problem::UnknownRule { word: first.to_owned(), near: suggestion(first, known) });
    }
    cron(rule)
}
