//! What `runner check` finds wrong or remarkable in the schedules of chains, with the line of the rule, and in `[daemon]`. Reads
//! the configuration, the token that `[daemon]` names, and, if it can, how long the last runs took.

use jiff::{SignedDuration, Timestamp};

use super::crowded;
use super::outside::{book_of, judge_daemon, judge_daemon_files};
use super::settings::Settings;
use super::table;
use crate::clock::{Clock, SystemClock};
use crate::config::chains::NamedChain;
use crate::config::database::DatabaseUrl;
use crate::config::keys::{self, KeyInfo, SlotScope};
use crate::config::sections::Sections;
use crate::config::settings::StateSettings;
use crate::config::{Config, Finding, Origin, Severity, queues};
use crate::daemon::book::{Booked, line_of};
use crate::names::counted;
use crate::schedule::room::Gaps;
use crate::schedule::{Remark, Schedule};

/// How many slots of a rule are looked at.
const LOOKED_AT: usize = 50;

/// The chains that have a name, their schedules judged.
pub fn named_chains(settings: &Settings, config: &Config, state: &StateSettings, findings: &mut Vec<Finding>) -> Vec<NamedChain> {
    let now = SystemClock::new().wall();
    let booked = book_of(config, findings);
    for chain in &booked {
        judge(config, state, chain, now, findings);
    }
    of_daemon(config, findings);
    // Only where all else is right: what is wrong may be which database it is, or whose configuration.
    if findings.iter().all(|finding| finding.severity != Severity::Error) && booked.iter().any(|chain| chain.schedule.is_some()) {
        findings.extend(of_history(settings, config, state, &booked, now));
    }
    booked.into_iter().map(|chain| chain.named).collect()
}

/// What a daemon would refuse or complain of, and which queues it works.
fn of_daemon(config: &Config, findings: &mut Vec<Finding>) {
    let settings = judge_daemon(config, findings);
    // Whoever checks need not be the user of the daemon; root may read everything.
    let unreadable = if rustix::process::geteuid().is_root() { Severity::Error } else { Severity::Warning };
    judge_daemon_files(&settings, unreadable, findings);
    let queues = queues::of_daemon(config, &mut Vec::new());
    if !queues.is_empty() {
        let place = Sections::for_daemon(config).of_chain().explain(&keys::QUEUES.info).1;
        let names: Vec<String> = queues.iter().map(|queue| format!("{} ({})", queue.name, counted(queue.jobs, "job"))).collect();
        let message = format!("runner daemon works {}: {} side by side", counted(names.len(), "queue"), names.join(", "));
        findings.push(Finding::new(Severity::Note, &place, message));
    }
}

/// Chains whose slots always find them running.
fn of_history(settings: &Settings, config: &Config, state: &StateSettings, booked: &[Booked], now: Timestamp) -> Vec<Finding> {
    let runs = crowded::newest_runs(settings, config, state);
    let crowded = |chain: &Booked| {
        let remark = crowded::remark(chain, runs.get(chain.name())?, now)?;
        let (_, origin) = chain.named.schedule.as_ref()?;
        Some(Finding::new(Severity::Warning, origin, format!("schedule: {remark}")))
    };
    booked.iter().filter_map(crowded).collect()
}

fn judge(config: &Config, state: &StateSettings, chain: &Booked, now: Timestamp, findings: &mut Vec<Finding>) {
    let sections = Sections::for_chain(config, chain.name());
    let place = |key: &KeyInfo| sections.of_chain().explain(key).1;
    if let (Some(schedule), Some((_, origin))) = (&chain.schedule, &chain.named.schedule) {
        findings.extend(of_rules(schedule, origin, now));
        let gap = Gaps::after(schedule, now).map(|gaps| gaps.shortest);
        if let Some(gap) = gap.filter(|gap| *gap <= chain.named.random_delay) {
            let about = |length| table::about(SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX));
            let (delay, gap) = (about(chain.named.random_delay), about(gap));
            let message = format!(
                "random_delay is {delay}, and two slots are only {gap} apart: one may fire after the next has come; make it shorter"
            );
            findings.push(Finding::new(Severity::Warning, &place(&keys::RANDOM_DELAY.info), message));
        }
    }
    if chain.named.idle && chain.named.window.is_zero() {
        let message = "window = 0 leaves an idle chain no time: it never runs on its schedule";
        findings.push(Finding::new(Severity::Suspect, &place(&keys::WINDOW.info), message));
    }
    if chain.named.scope == SlotScope::Cluster && !matches!(state.database, Some(DatabaseUrl::Postgres(_))) {
        let message = "scope = cluster needs a database that the machines share: write database = postgresql://... into [runner]; SQLite is for one machine";
        findings.push(Finding::new(Severity::Suspect, &place(&keys::SCOPE.info), message));
    }
}

fn of_rules(schedule: &Schedule, origin: &Origin, now: Timestamp) -> Vec<Finding> {
    let lints = schedule
        .lints(now)
        .into_iter()
        .map(|lint| Finding::new(severity(&lint.remark), &line_of(origin, lint.line), format!("schedule: {lint}")));
    lints.chain(said_twice(schedule, origin, now)).collect()
}

/// What the changes of the clock do is good to know; the rest looks as if something else was meant.
fn severity(remark: &Remark) -> Severity {
    match remark {
        Remark::EitherDay | Remark::BothDays | Remark::EveryMinute { .. } | Remark::DaysOfUtc => Severity::Warning,
        Remark::Moved { .. } | Remark::Once(_) | Remark::Skipped(_) | Remark::Twice(_) => Severity::Note,
    }
}

/// Rules that name the moments of a rule above them: each moment is used once, so they add nothing.
fn said_twice(schedule: &Schedule, origin: &Origin, now: Timestamp) -> Vec<Finding> {
    let mut seen: Vec<(usize, Vec<Timestamp>)> = Vec::new();
    let mut found = Vec::new();
    for (line, rule) in schedule.text().lines().enumerate() {
        let Ok(alone) = Schedule::parse(rule, schedule.zone().clone()) else { continue };
        let slots: Vec<Timestamp> = alone.slots_after(now).take(LOOKED_AT).collect();
        match seen.iter().find(|(_, known)| *known == slots && !slots.is_empty()) {
            Some((first, _)) => {
                let message =
                    format!("schedule: this rule names the same moments as the one in {}; a moment is used once", line_of(origin, *first));
                found.push(Finding::new(Severity::Warning, &line_of(origin, line), message));
            }
            None => seen.push((line, slots)),
        }
    }
    found
}
