//! Whether anybody fires slots and works queues: from the daemons and workers that are there, and from what the state knows of
//! slots that were looked at. Changes nothing.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

use super::daemon::BUILT;
use super::exit::Failure;
use super::settings::Settings;
use super::state::Reading;
use crate::config::keys::SlotScope;
use crate::config::{Config, queues};
use crate::daemon::book::Booked;
use crate::names::counted;
use crate::presence::{self, Presence, Work};
use crate::schedule::agenda::{NoClock, believe};
use crate::status::{Date, Queue, Remark};
use crate::store::HistoryQuery;

/// A slot that should have fired so long ago was overlooked: a tick comes once a minute.
pub const OVERLOOKED: SignedDuration = SignedDuration::from_secs(120);

/// How many of the newest runs are asked who began them.
const LOOKED_AT: u32 = 200;

/// Those who are there.
pub struct Watchers {
    /// A daemon with our configuration runs on this machine, or nobody may see whether one does.
    pub daemon: bool,
    /// A tick with our configuration runs now.
    pub ticking: bool,
    /// The same, or the newest run that a schedule began was one of a tick.
    pub ticks: bool,
    /// The queues that somebody works on this machine; none where nobody may see that.
    queues: Option<Vec<String>>,
    /// Other machines may do the same with the same database.
    pub shared: bool,
}

impl Watchers {
    /// Looks who is there, and who was for these chains.
    ///
    /// # Errors
    /// The database does not answer.
    pub fn look(settings: &Settings, config: &Config, booked: &[Booked], reading: &mut Reading) -> Result<Self, Failure> {
        let recent = reading.history(&HistoryQuery { chain: None, failed: false, limit: LOOKED_AT })?;
        let ours = recent.iter().filter(|run| booked.iter().any(|chain| chain.name() == run.chain));
        let ticked = are_ticks(ours.map(|run| (run.began, run.trigger.as_str())));
        let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let ours: Option<PathBuf> = settings.config_file.as_deref().map(real);
        let all: Vec<Presence> = match reading.state_dir.as_deref().map(presence::look) {
            Some(Ok(all)) => all,
            None => Vec::new(),
            Some(Err(error)) => {
                log::debug!("nobody can see whether a daemon is there: {error}");
                return Ok(Self { daemon: true, ticking: false, ticks: ticked, queues: None, shared: reading.is_shared });
            }
        };
        let is_there = |work: Work| all.iter().any(|one| one.work == work && one.config.as_deref().map(real) == ours);
        let (daemon, ticking) = (is_there(Work::Daemon), is_there(Work::Tick));
        let mut works: Vec<String> = all.into_iter().filter(|one| one.work == Work::Worker).flat_map(|one| one.queues).collect();
        if daemon {
            works.extend(queues::of_daemon(config, &mut Vec::new()).into_iter().map(|queue| queue.name));
        }
        Ok(Self { daemon, ticking, ticks: ticking || ticked, queues: Some(works), shared: reading.is_shared })
    }

    /// What is to be said of these chains and queues.
    ///
    /// # Errors
    /// The database does not answer.
    pub fn remarks(&self, booked: &[&Booked], queues: &[Queue], reading: &mut Reading, now: Date) -> Result<Vec<Remark>, Failure> {
        let firing: Vec<&&Booked> = booked.iter().filter(|chain| chain.named.enabled && chain.schedule.is_some()).collect();
        let mut remarks: Vec<Remark> = Vec::new();
        if !self.daemon && !firing.is_empty() {
            let mut looked: Option<Timestamp> = None;
            let mut overlooked = false;
            for chain in firing {
                let mark = self.mark(chain, reading)?;
                looked = looked.max(mark);
                overlooked |= mark.and_then(|mark| overdue(chain, mark, &reading.here.machine, now.at)).is_some();
            }
            if !self.ticks || overlooked {
                let since = looked.map(|at| Date { at, ..now });
                remarks.push(Remark { kind: "nobody_fires".to_owned(), since, queue: None, text: self.nobody_fires(since.is_some()) });
            }
        }
        let unworked = |queue: &&Queue| self.queues.as_ref().is_some_and(|worked| !worked.contains(&queue.name)) && queue.running == 0;
        let alone = queues.iter().filter(unworked);
        remarks.extend(alone.filter(|queue| queue.ready + queue.scheduled > 0).map(|queue| Remark {
            kind: "nobody_works".to_owned(),
            since: None,
            queue: Some(queue.name.clone()),
            text: format!(
                "no worker for the queue {} runs on this machine: {} (runner work, or [daemon] queues and a daemon)",
                queue.name,
                waits(queue)
            ),
        }));
        Ok(remarks)
    }

    /// That no daemon is there, and what that means. `looked`: a time follows.
    fn nobody_fires(&self, looked: bool) -> String {
        let others = if self.shared { ", or another machine with the same database does it" } else { "" };
        let what = if self.ticks && !self.ticking {
            "no daemon runs on this machine, and no tick comes"
        } else {
            "no daemon runs on this machine"
        };
        let means = format!("nothing will fire unless `runner tick` is called each minute{others}");
        let looked = if looked { "; no schedule was looked at" } else { "; no schedule was ever looked at" };
        format!("{what}: {means}{looked}")
    }

    /// Up to where the slots of a chain are decided.
    ///
    /// # Errors
    /// The database does not answer.
    pub fn mark(&self, chain: &Booked, reading: &mut Reading) -> Result<Option<Timestamp>, Failure> {
        let machine = reading.here.machine.clone();
        let marks = reading.watermarks(chain.slots_of(&machine))?;
        Ok(marks.into_iter().find(|(name, _)| name == chain.name()).map(|(_, mark)| mark))
    }

    /// Whether another machine may fire the slots of this chain.
    pub fn may_be_elsewhere(&self, chain: &Booked) -> bool {
        self.shared && chain.named.scope == SlotScope::Cluster
    }
}

fn waits(queue: &Queue) -> String {
    let number = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    match queue.ready {
        0 => format!("its {} due later", counted(number(queue.scheduled), "job")),
        ready => format!("its {} that {} ready", counted(number(ready), "job"), if ready == 1 { "is" } else { "are" }),
    }
}

/// Why the clock of this machine is not believed, by the rule of those who fire.
///
/// # Errors
/// The database does not answer.
pub fn no_clock(now: Timestamp, reading: &mut Reading) -> Result<Option<NoClock>, Failure> {
    let Ok(built) = BUILT.parse::<Timestamp>() else { return Ok(None) };
    Ok(believe(now, reading.newest_time()?, built).err())
}

/// Whether the newest run that was not begun by hand was begun by a tick.
fn are_ticks<'a>(runs: impl Iterator<Item = (Timestamp, &'a str)>) -> bool {
    let scheduled = runs.filter(|(_, trigger)| ["schedule", "tick"].contains(trigger));
    scheduled.max_by_key(|(at, _)| *at).is_some_and(|(_, trigger)| trigger == "tick")
}

/// The slot of a chain that has passed although nobody has looked at it.
pub fn overdue(chain: &Booked, mark: Timestamp, machine: &str, now: Timestamp) -> Option<Timestamp> {
    let schedule = chain.schedule.as_ref()?;
    let delay = SignedDuration::try_from(chain.policy(machine).delay).unwrap_or_default();
    schedule.next_after(mark).filter(|slot| slot.checked_add(delay).is_ok_and(|at| at.duration_until(now) > OVERLOOKED))
}
