//! `runner schedule`: the next slots of each chain, in its zone, and what the changes of the clock do to them. Reads the
//! configuration only.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::daemon::BUILT;
use super::exit::{Exit, Failure};
use super::outside::book_of;
use super::prepare::refuse_errors;
use super::print;
use super::run::tell_findings;
use super::settings::{Loaded, Settings};
use super::table::{self, Table};
use super::variables::local_zone;
use crate::clock::{Clock, SystemClock};
use crate::daemon::book::Booked;
use crate::names::{MAIN_CHAIN, typed_suggestion};
use crate::schedule::agenda::believe;
use crate::schedule::{Dst, Schedule, when, when_after};
use crate::status::Date;
use crate::store::Owner;

/// How many slots of each chain are shown when nobody says.
const COUNT: usize = 5;
/// A table of more chains shows the next slot of each, when nobody says.
const FEW: usize = 4;
/// How many at most when only `--before` ends them.
const MOST: usize = 1000;

/// What was typed.
#[derive(Debug, Default)]
pub struct Question {
    /// The chains; all of them when none is named.
    pub chains: Vec<String>,
    /// `--count`.
    pub count: Option<usize>,
    /// `--after`.
    pub after: Option<String>,
    /// `--before`.
    pub before: Option<String>,
}

/// A slot as it is shown.
struct Shown {
    at: Timestamp,
    fires: Timestamp,
    dst: Option<Dst>,
}

/// Prints the slots that come next.
///
/// # Errors
/// A chain is not known; a time is none; the configuration is wrong; the result cannot be written.
pub fn schedule(settings: &Settings, question: &Question) -> Result<Exit, Failure> {
    let Loaded { config, mut findings, .. } = settings.load()?;
    let all = book_of(&config, &mut findings);
    let told = refuse_errors(settings, findings)?;
    let chains = choose(&all, &question.chains)?;
    tell_findings(&told);
    let (now, local) = (SystemClock::new().wall(), local_zone());
    if let Some(why) = BUILT.parse().ok().and_then(|built| believe(now, None, built).err()).filter(|_| question.after.is_none()) {
        log::warn!("{why}");
    }
    let usage = |option| move |error| Failure::Usage(format!("{option} {error}"));
    let after = question.after.as_ref().map_or(Ok(now), |text| when(text, now, &local)).map_err(usage("--after"))?;
    let before = question.before.as_ref().map(|text| when_after(text, after, now, &local)).transpose().map_err(usage("--before"))?;
    if before.is_some_and(|before| before <= after) {
        return Err(Failure::Usage("--before names no time after the first one (--after, else now)".to_owned()));
    }
    let by_time = question.chains.is_empty();
    let of_each = if by_time && !settings.json && chains.len() > FEW { 1 } else { COUNT };
    let most = question.count.unwrap_or(if before.is_some() { MOST } else { of_each });
    let machine = Owner::look().machine;
    let slots: Vec<(&Booked, Vec<Shown>)> =
        chains.into_iter().map(|chain| (chain, slots_of(chain, &machine, after..before.unwrap_or(Timestamp::MAX), most))).collect();
    if settings.json {
        let chains: Vec<Value> = slots.iter().map(|(chain, slots)| as_json(chain, slots, &machine)).collect();
        print::json(&json!({ "version": 1, "after": Date::new(after, &local).to_string(), "chains": chains }))?;
    } else if slots.is_empty() {
        log::warn!("there is no [chain:NAME] in the configuration");
    } else {
        print::text(&as_text(&slots, now, &machine, by_time))?;
    }
    Ok(Exit::Done)
}

/// The chains that are named, in the order of the configuration; all of them when none is.
///
/// # Errors
/// A chain is not known, and what might have been meant.
pub fn choose<'a>(all: &'a [Booked], words: &[String]) -> Result<Vec<&'a Booked>, Failure> {
    if let Some(word) = words.iter().find(|word| all.iter().all(|chain| chain.name() != word.as_str())) {
        let why = if word == MAIN_CHAIN {
            "; the chain of [runner] has no schedule: it runs when runner is called".to_owned()
        } else {
            typed_suggestion(word, all.iter().map(Booked::name))
        };
        return Err(Failure::Usage(format!("no chain with a schedule is called `{word}`{why}")));
    }
    Ok(all.iter().filter(|chain| words.is_empty() || words.iter().any(|word| word == chain.name())).collect())
}

fn slots_of(chain: &Booked, machine: &str, times: std::ops::Range<Timestamp>, most: usize) -> Vec<Shown> {
    let Some(schedule) = &chain.schedule else { return Vec::new() };
    let delay = SignedDuration::try_from(delay_of(chain, machine)).unwrap_or_default();
    let slots = schedule.slots_after(times.start).take_while(|slot| *slot < times.end).take(most);
    slots.map(|at| Shown { at, fires: at.checked_add(delay).unwrap_or(at), dst: schedule.dst_of(at) }).collect()
}

/// How much later than its slot the chain fires on this machine.
fn delay_of(chain: &Booked, machine: &str) -> Duration {
    chain.policy(machine).delay
}

/// The name of a zone; the machine's has none.
fn zone_name(chain: &Booked) -> String {
    chain.named.timezone.clone().unwrap_or_else(|| "local".to_owned())
}

/// A slot to the second, as its own clock shows it.
pub fn slot_text(at: Timestamp, zone: &TimeZone) -> String {
    Date::new(at, zone).show("%Y-%m-%dT%H:%M:%S%:z")
}

/// Chain by chain, or by the time at which each slot fires; then what has no time comes last.
fn as_text(slots: &[(&Booked, Vec<Shown>)], now: Timestamp, machine: &str, by_time: bool) -> String {
    let mut rows: Vec<(Timestamp, Vec<String>)> = Vec::new();
    let mut add = |fires: Option<Timestamp>, row| rows.push((fires.unwrap_or(Timestamp::MAX), row));
    for (chain, slots) in slots {
        let name = chain.name().to_owned();
        let off = if chain.named.enabled { None } else { Some("not enabled".to_owned()) };
        let remark = |more: Vec<Option<String>>| off.iter().cloned().chain(more.into_iter().flatten()).collect::<Vec<_>>().join("; ");
        let Some(schedule) = &chain.schedule else {
            add(None, vec![name, "-".into(), String::new(), String::new(), remark(vec![Some("no schedule: runner now runs it".into())])]);
            continue;
        };
        if schedule.at_boot() {
            let text = remark(vec![Some("once for each start of the machine".into())]);
            add(None, vec![name.clone(), "@boot".into(), String::new(), String::new(), text]);
        } else if slots.is_empty() {
            add(None, vec![name.clone(), "-".into(), String::new(), zone_name(chain), remark(vec![Some("none in this time".into())])]);
        }
        for slot in slots {
            let at = slot_text(slot.at, schedule.zone());
            let text = remark(vec![later(chain, slot, schedule, machine), slot.dst.map(dst_words)]);
            add(Some(slot.fires), vec![name.clone(), at, until(slot.fires, now), zone_name(chain), text]);
        }
    }
    if by_time {
        rows.sort_by_key(|(fires, _)| *fires);
    }
    let mut table = Table::new(&["CHAIN", "SLOT", "IN", "ZONE", "REMARKS"]);
    rows.into_iter().for_each(|(_, row)| table.add(row));
    table.text(table::width())
}

fn later(chain: &Booked, slot: &Shown, schedule: &Schedule, machine: &str) -> Option<String> {
    let delay = delay_of(chain, machine);
    let fires = || format!("fires at {} here (random_delay)", Date::new(slot.fires, schedule.zone()).show("%H:%M:%S"));
    (!delay.is_zero()).then(fires)
}

fn dst_words(dst: Dst) -> String {
    match dst {
        Dst::Moved { wanted } => format!("the clock skips {}", wanted.strftime("%H:%M")),
        Dst::FirstPass => "the clock shows it twice; the first".to_owned(),
        Dst::SecondPass => "the clock shows it twice; the second".to_owned(),
    }
}

/// How long from now, in the two greatest units.
fn until(then: Timestamp, now: Timestamp) -> String {
    let length = now.duration_until(then);
    if length.is_negative() { format!("{} ago", table::about(length.abs())) } else { table::about(length) }
}

fn as_json(chain: &Booked, slots: &[Shown], machine: &str) -> Value {
    let zone = chain.schedule.as_ref().map_or(TimeZone::UTC, |schedule| schedule.zone().clone());
    let slots = slots.iter().map(|slot| {
        let (dst, wanted) = match slot.dst {
            None => (None, None),
            Some(Dst::Moved { wanted }) => (Some("moved"), Some(wanted.strftime("%Y-%m-%dT%H:%M:%S").to_string())),
            Some(Dst::FirstPass) => (Some("first_pass"), None),
            Some(Dst::SecondPass) => (Some("second_pass"), None),
        };
        json!({ "at": Date::new(slot.at, &zone).to_string(), "fires_at": Date::new(slot.fires, &zone).to_string(), "dst": dst, "wanted": wanted })
    });
    json!({
        "name": chain.name(),
        "enabled": chain.named.enabled,
        "schedule": chain.schedule.as_ref().map(|schedule| rules(schedule.text())).unwrap_or_default(),
        "timezone": chain.named.timezone,
        "at_boot": chain.schedule.as_ref().is_some_and(Schedule::at_boot),
        "delay_s": delay_of(chain, machine).as_secs(),
        "slots": slots.collect::<Vec<_>>(),
    })
}

/// The rules of a schedule, each as it was written.
pub fn rules(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|rule| !rule.is_empty()).map(str::to_owned).collect()
}
