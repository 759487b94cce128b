//! The locks of the configuration as those see them who look: which chains need them, and who holds them.

#[cfg(feature = "http")]
use std::sync::Arc;
use std::time::Duration;

use super::guarded;
#[cfg(feature = "http")]
use crate::config::Config;
use crate::config::settings::ChainSettings;
#[cfg(feature = "http")]
use crate::http::server::Reply;
#[cfg(feature = "http")]
use crate::http::site::View;
use crate::lock::address::LockSettings;
use crate::lock::here;
use crate::lock::look::{Looker, Seen};
use crate::lock::owner::{Owner, Place};
#[cfg(feature = "http")]
use crate::names::MAIN_CHAIN;
#[cfg(feature = "http")]
use crate::status::Status;
use crate::status::{Date, Holder, Lock};

/// A lock, and the chains that need it.
#[derive(Debug, Clone)]
pub struct Needed {
    /// Where it is.
    pub settings: LockSettings,
    /// The names of the chains.
    pub chains: Vec<String>,
}

/// The locks that these chains need, each once; one whose keys are wrong is told by `check`.
pub fn needed<'a>(chains: impl IntoIterator<Item = &'a ChainSettings>) -> Vec<Needed> {
    let mut all: Vec<Needed> = Vec::new();
    for chain in chains {
        // Only the place matters to those who look.
        let Some(settings) = chain.lock.as_ref().and_then(|keys| guarded::read(keys, Duration::ZERO).ok()) else { continue };
        match all.iter_mut().find(|known| known.settings.address == settings.address) {
            Some(known) => known.chains.push(chain.name.clone()),
            None => all.push(Needed { settings, chains: vec![chain.name.clone()] }),
        }
    }
    all
}

/// Looks at them now, and waits for that as long as it takes, two seconds at most.
pub fn look(needed: &[Needed], now: Date) -> Vec<Lock> {
    let locks: Vec<LockSettings> = needed.iter().map(|lock| lock.settings.clone()).collect();
    locks_of(needed, Looker::default().look(&locks), now)
}

/// The locks of the main chain and of these.
#[cfg(feature = "http")]
pub fn of_all<'a>(config: &Config, named: impl Iterator<Item = &'a ChainSettings>) -> Vec<Needed> {
    let main = ChainSettings::of_chain(config, MAIN_CHAIN, &mut Vec::new());
    let mut all = needed([&main]);
    for lock in needed(named) {
        match all.iter_mut().find(|known| known.settings.address == lock.settings.address) {
            Some(known) => known.chains.extend(lock.chains),
            None => all.push(lock),
        }
    }
    all
}

/// Answers those who want to look, with the locks as their engines see them. These may take their time: nobody waits for
/// them here.
#[cfg(feature = "http")]
pub fn show(status: Status, locks: Vec<Needed>, looker: &Looker, views: Vec<(View, Reply)>) {
    let answer = |status: Status, views: Vec<(View, Reply)>| {
        let status = Arc::new(status);
        views.into_iter().for_each(|(view, reply)| reply.show(view, status.clone()));
    };
    if locks.is_empty() {
        return answer(status, views);
    }
    let places = locks.iter().map(|lock| lock.settings.clone()).collect();
    let asked = looker.look_aside(places, move |seen| {
        let locks = locks_of(&locks, seen, status.time);
        answer(Status { locks, ..status }, views);
    });
    if let Err(error) = asked {
        log::warn!("nobody can look at the locks: {error}");
    }
}

/// What was seen of them.
pub fn locks_of(needed: &[Needed], seen: Vec<Seen>, now: Date) -> Vec<Lock> {
    let place = here();
    let lock = |(needed, seen): (&Needed, Seen)| {
        let (holder, unknown) = match seen {
            Ok(holder) => (holder, None),
            Err(why) => (None, Some(why)),
        };
        let address = &needed.settings.address;
        let owner = holder.as_ref().and_then(|holder| holder.owner.as_ref());
        Lock {
            name: address.to_string(),
            engine: address.engine().to_owned(),
            key: address.key(),
            chains: needed.chains.clone(),
            held_here: owner.is_some_and(|owner| owner.place.is_same(&place)),
            token: holder.as_ref().and_then(|holder| holder.token).map(|token| token.0),
            holder: holder.as_ref().map(|_| Holder {
                // Somebody else's program may hold it, who leaves no record.
                host: owner.map_or_else(|| "unknown".to_owned(), |owner| owner.place.host.clone()),
                pid: owner.map_or(0, |owner| owner.pid),
                run_id: owner.map(|owner| owner.run_id.clone()).filter(|run| !run.is_empty()),
                command: owner.filter(|owner| owner.whole_run).map(|owner| command(owner, &place)),
                since: owner.and_then(|owner| owner.time.parse().ok()).unwrap_or(now),
            }),
            unknown,
        }
    };
    needed.iter().zip(seen).map(lock).collect()
}

/// Whether a run that has begun does not go on yet: it is not the one that holds the lock.
pub fn waits_for(lock: &Lock, run: &str) -> bool {
    lock.unknown.is_none() && lock.holder.as_ref().and_then(|holder| holder.run_id.as_deref()) != Some(run)
}

/// Who holds a lock, as the end of a sentence; `None` where nobody does.
pub fn holder_in_words(lock: &Lock) -> Option<String> {
    let holder = lock.holder.as_ref()?;
    let command = holder.command.as_ref().map(|command| format!("`{command}` on ")).unwrap_or_default();
    Some(format!("held by {command}{} pid {} since {}", holder.host, holder.pid, holder.since.show("%Y-%m-%dT%H:%M:%S%:z")))
}

/// What `runner lock` runs: the whole command where it can be seen, else its name.
fn command(owner: &Owner, here: &Place) -> String {
    let Some(group) = owner.groups.first() else { return "runner lock".to_owned() };
    let read = || std::fs::read(format!("/proc/{}/cmdline", group.pid)).ok();
    let line = Some(()).filter(|()| owner.place.is_same(here)).and_then(|()| read()).unwrap_or_default();
    let words: Vec<_> = line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(String::from_utf8_lossy).collect();
    if words.is_empty() { group.task.clone() } else { words.join(" ") }
}
