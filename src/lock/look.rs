//! Who holds a lock, for those who only want to know. Touches engines, each in a thread of its own: one that does not
//! answer keeps nobody, and is asked once at a time.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::address::{Address, LockSettings};
use super::lease::Terms;
use super::{Holder, LockError, engine};
use crate::clock::BootTime;

/// How long an answer is waited for.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// What an engine said: who holds the lock, or why nobody knows.
pub type Seen = Result<Option<Holder>, String>;

/// Looks at locks. Its clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Looker(Arc<Mutex<Vec<Asked>>>);

#[derive(Debug)]
struct Asked {
    address: Address,
    /// `None` while the engine has not answered.
    seen: Option<Seen>,
    /// Those who wait for it.
    waiting: Vec<Sender<()>>,
}

impl Looker {
    /// Looks at all of them at once, for [`PATIENCE`] at most.
    pub fn look(&self, locks: &[LockSettings]) -> Vec<Seen> {
        let (sender, answers) = channel();
        for lock in locks {
            self.ask(lock, &sender);
        }
        let until = BootTime::now() + PATIENCE;
        // Each answer is told once, and a lock may be asked for twice.
        for _ in locks {
            if answers.recv_timeout(until.since(BootTime::now())).is_err() {
                break;
            }
        }
        let asked = self.asked();
        let seen = |lock: &LockSettings| asked.iter().find(|one| one.address == lock.address).and_then(|one| one.seen.clone());
        locks.iter().map(|lock| seen(lock).unwrap_or_else(|| Err(format!("{} gives no answer", lock.address)))).collect()
    }

    /// The same in the background: `then` is called with what was seen.
    ///
    /// # Errors
    /// There is no thread to be had; nobody is called then.
    #[expect(clippy::disallowed_methods, reason = "whoever waits for an engine must not be the loop")]
    pub fn look_aside(&self, locks: Vec<LockSettings>, then: impl FnOnce(Vec<Seen>) + Send + 'static) -> Result<(), LockError> {
        let looker = self.clone();
        std::thread::Builder::new().name("lock-look".to_owned()).spawn(move || then(looker.look(&locks)))?;
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "an engine may never answer")]
    fn ask(&self, lock: &LockSettings, waits: &Sender<()>) {
        {
            let mut asked = self.asked();
            let known = asked.iter_mut().find(|one| one.address == lock.address);
            if let Some(one) = known {
                one.waiting.push(waits.clone());
                if one.seen.is_none() {
                    return;
                }
                one.seen = None;
            } else {
                asked.push(Asked { address: lock.address.clone(), seen: None, waiting: vec![waits.clone()] });
            }
        }
        let (looker, lock) = (self.clone(), lock.clone());
        let address = lock.address.clone();
        let started = std::thread::Builder::new().name("lock-look".to_owned()).spawn(move || {
            let seen = look(&lock).map_err(|error| error.to_string());
            looker.answered(&lock.address, seen);
        });
        if let Err(error) = started {
            self.answered(&address, Err(error.to_string()));
        }
    }

    fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self, address: &Address, seen: Seen) {
        if let Some(one) = self.asked().iter_mut().find(|one| one.address == *address) {
            one.seen = Some(seen);
            // Whoever waits no more does not hear it.
            for waiting in one.waiting.drain(..) {
                let _ = waiting.send(());
            }
        }
    }
}

/// Asks the engine, which is given as long as a short lease would give it.
fn look(settings: &LockSettings) -> Result<Option<Holder>, LockError> {
    let terms = Terms::new(PATIENCE * 6, Duration::ZERO).unwrap_or(settings.terms);
    engine(&LockSettings { terms, ..settings.clone() })?.look()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc;

    use super::*;
    use crate::lock::address::LockTexts;

    fn settings(lock: &str) -> LockSettings {
        LockSettings::parse(LockTexts { lock, ..LockTexts::default() }, Duration::ZERO, Path::new("/")).unwrap()
    }

    #[test]
    fn a_free_lock_and_one_that_cannot_be_read_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let free = settings(&format!("file:{}", dir.path().join("k").display()));
        let looker = Looker::default();
        assert_eq!(looker.look(&[free.clone(), free.clone()]), [Ok(None), Ok(None)]);
        assert!(!dir.path().join("k").exists(), "whoever looks makes nothing");
        let (sender, seen) = mpsc::channel();
        looker.look_aside(vec![free], move |seen| sender.send(seen).unwrap()).unwrap();
        assert_eq!(seen.recv().unwrap(), [Ok(None)]);
    }

    /// A listener that never accepts is a server that stands still.
    #[cfg(feature = "net")]
    #[test]
    fn an_engine_that_is_silent_is_asked_once_and_keeps_no_other() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = settings(&format!("etcd://{}/k", silent.local_addr().unwrap()));
        let looker = Looker::default();
        let seen = looker.look(&[silent, settings("file:/nowhere/k")]);
        assert!(seen[0].is_err() && seen[1] == Ok(None), "{seen:?}");
    }
}
