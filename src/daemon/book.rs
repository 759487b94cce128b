//! The chains that have a name, each with its schedule and how far it has been decided. Reads nothing: the configuration,
//! the zone and the stored watermarks are handed in.

use std::collections::HashMap;
use std::rc::Rc;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::config::chains::NamedChain;
use crate::config::keys::SlotScope;
use crate::config::{Finding, Origin};
use crate::schedule::agenda::{Agenda, Decision, Entry, Policy, decide, stable_delay, tick};
use crate::schedule::{Schedule, ScheduleError};
use crate::store::CLUSTER;

/// A chain and its schedule.
#[derive(Debug, Clone)]
pub struct Booked {
    /// What its section says.
    pub named: NamedChain,
    /// When it runs; `None` when only `now` runs it.
    pub schedule: Option<Schedule>,
}

/// All of them, and what is due.
#[derive(Debug, Default)]
pub struct Book {
    /// Shared with whoever acts on one: a chain has dozens of settings, and fifty may be due in one moment.
    chains: Vec<Rc<Booked>>,
    agenda: Agenda,
    by_name: HashMap<String, usize>,
    /// For each entry of the agenda its place in `chains`.
    places: Vec<usize>,
    /// For each entry of the agenda the watermark that was stored.
    stored: Vec<Option<Timestamp>>,
}

/// Reads the schedules of chains. Whatever is wrong goes to `findings`, with the line of the rule that is.
pub fn read_schedules(chains: Vec<NamedChain>, local: &TimeZone, findings: &mut Vec<Finding>) -> Vec<Booked> {
    let read = |named: NamedChain, findings: &mut Vec<Finding>| {
        let zone = match named.timezone.as_deref() {
            Some("UTC") => TimeZone::UTC,
            Some(name) => TimeZone::get(name).unwrap_or(TimeZone::UTC),
            None => local.clone(),
        };
        let schedule = named.schedule.as_ref().and_then(|(text, origin)| match Schedule::parse(text, zone) {
            Ok(schedule) => Some(schedule),
            Err(_) => {
                let error = |error: ScheduleError| Finding::error(&line_of(origin, error.line), format!("schedule: {error}"));
                findings.extend(Schedule::errors(text).into_iter().map(error));
                None
            }
        });
        Booked { named, schedule }
    };
    chains.into_iter().map(|named| read(named, findings)).collect()
}

/// The place of a line of a value that begins at `origin`.
pub fn line_of(origin: &Origin, line: usize) -> Origin {
    match origin {
        Origin::File { file, line: first } => {
            Origin::File { file: file.clone(), line: first.saturating_add(u32::try_from(line).unwrap_or(u32::MAX)) }
        }
        Origin::Default | Origin::CommandLine => origin.clone(),
    }
}

impl Booked {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.named.chain.name
    }

    /// Whose slots it takes: those of `machine`, or of all that share the database.
    pub fn slots_of<'a>(&self, machine: &'a str) -> &'a str {
        match self.named.scope {
            SlotScope::Machine => machine,
            SlotScope::Cluster => CLUSTER,
        }
    }

    /// Whether both ask for the same moments, by what is written and by the zone it means.
    fn has_schedule_of(&self, other: &Self) -> bool {
        let written = |chain: &Self| chain.named.schedule.as_ref().map(|(text, _)| text.clone());
        let zone = |chain: &Self| chain.schedule.as_ref().map(|schedule| schedule.zone().clone());
        written(self) == written(other) && zone(self) == zone(other)
    }

    /// Which slots it takes. One delay in a cluster would be another on each machine: the nearest wins.
    pub fn policy(&self, machine: &str) -> Policy {
        let delay = stable_delay(machine, self.name(), self.named.random_delay);
        Policy { missed: self.named.missed, window: self.named.missed_window, delay }
    }
}

impl Book {
    /// A book of these chains. `marks` are the stored watermarks by chain; what is not among them is seen for the first
    /// time, and nothing of it is caught up.
    pub fn new(chains: Vec<Booked>, marks: &HashMap<String, Timestamp>, machine: &str, now: Timestamp) -> Self {
        let (mut entries, mut places) = (Vec::new(), Vec::new());
        for (place, chain) in chains.iter().enumerate().filter(|(_, chain)| chain.named.enabled) {
            let Some(schedule) = chain.schedule.clone() else { continue };
            entries.push(Entry { schedule, policy: chain.policy(machine), watermark: marks.get(chain.name()).copied() });
            places.push(place);
        }
        let stored = entries.iter().map(|entry: &Entry| entry.watermark).collect();
        let by_name = chains.iter().enumerate().map(|(place, chain)| (chain.name().to_owned(), place)).collect();
        let chains = chains.into_iter().map(Rc::new).collect();
        Self { agenda: Agenda::new(entries, now), chains, by_name, places, stored }
    }

    /// The book after the configuration was read again. A chain whose schedule is as it was goes on where it stood; a new or
    /// changed one begins now.
    pub fn renewed(&self, chains: Vec<Booked>, machine: &str, now: Timestamp) -> Self {
        let stood = self.marks();
        let mark = |chain: &Booked| match self.chain(chain.name()) {
            Some(old) if old.has_schedule_of(chain) => stood.get(chain.name()).copied().unwrap_or(now),
            Some(_) | None => now,
        };
        let marks = chains.iter().map(|chain| (chain.name().to_owned(), mark(chain))).collect();
        Self::new(chains, &marks, machine, now)
    }

    /// The chains, in the order of the configuration.
    pub fn chains(&self) -> &[Rc<Booked>] {
        &self.chains
    }

    /// The chain of this name.
    pub fn chain(&self, name: &str) -> Option<&Rc<Booked>> {
        self.by_name.get(name).map(|place| &self.chains[*place])
    }

    /// When something is due next.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.agenda.next_deadline()
    }

    /// What is due by now, by chain.
    pub fn take_due(&mut self, now: Timestamp) -> Vec<(Rc<Booked>, Decision)> {
        let (places, chains) = (&self.places, &self.chains);
        self.agenda.take_due(now).into_iter().map(|(entry, decision)| (chains[places[entry]].clone(), decision)).collect()
    }

    /// What is due in the minute of `now`, for a tick: by the stored watermarks, which it leaves as they are.
    pub fn due_in_minute(&self, now: Timestamp) -> Vec<(Rc<Booked>, Decision)> {
        let due = self.agenda.entries().iter().zip(&self.places).zip(&self.stored);
        due.map(|((entry, place), stored)| (self.chains[*place].clone(), tick(&entry.schedule, &entry.policy, *stored, now))).collect()
    }

    /// What has come by `now`, for somebody who asks while the book is open; what was decided stays so.
    pub fn due_for_tick(&self, now: Timestamp) -> Vec<(Rc<Booked>, Decision)> {
        let due = self.agenda.entries().iter().zip(&self.places);
        due.map(|(entry, place)| (self.chains[*place].clone(), decide(&entry.schedule, &entry.policy, entry.watermark, now))).collect()
    }

    /// The enabled chains that want a run at each start of the machine.
    pub fn at_boot(&self) -> impl Iterator<Item = &Rc<Booked>> {
        self.agenda.at_boot().map(|entry| &self.chains[self.places[entry]])
    }

    /// How far each scheduled chain has been decided.
    pub fn marks(&self) -> HashMap<String, Timestamp> {
        let marks = self.agenda.entries().iter().zip(&self.places);
        marks.filter_map(|(entry, place)| Some((self.chains[*place].name().to_owned(), entry.watermark?))).collect()
    }

    /// The next moment of each scheduled chain after `now`, as it fires.
    pub fn next_of(&self, chain: &Booked, now: Timestamp, machine: &str) -> Option<Timestamp> {
        let delay = jiff::SignedDuration::try_from(chain.policy(machine).delay).ok()?;
        chain.schedule.as_ref()?.next_after(now.checked_sub(delay).ok()?)?.checked_add(delay).ok()
    }
}
