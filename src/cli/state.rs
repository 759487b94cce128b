//! Where the state of this call is: the configuration, our variables and who we are, put together for the commands that
//! read or write it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;

#[cfg(feature = "schedule")]
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::exit::Failure;
use super::going;
use super::settings::Settings;
use super::variables::own_variable;
#[cfg(feature = "schedule")]
use crate::config::database::DatabaseUrl;
use crate::config::database::{FILE_NAME, SYSTEM_DIR};
use crate::config::load::DEFAULT_FILE;
use crate::config::settings::StateSettings;
use crate::config::{Config, Finding, Severity};
#[cfg(feature = "schedule")]
use crate::mark::Room;
use crate::status::Going;
#[cfg(feature = "schedule")]
use crate::store::WaitingSlot;
#[cfg(feature = "schedule")]
use crate::store::job::{JobRecord, QueueCount};
use crate::store::open::Place;
#[cfg(feature = "schedule")]
use crate::store::past;
use crate::store::past::as_it_is;
use crate::store::record::RunRecord;
use crate::store::spool::DIR_NAME;
use crate::store::{HistoryQuery, Owner, Store, StoreError, spool};

/// How many of the newest runs are looked through for one that began.
const LOOKED_AT: u32 = 20;
/// So many letters of the end of a run's id are taken for it.
pub const SHORTEST_END: usize = 6;

/// Our own state: what we write, and what a reader of our own configuration reads.
pub fn own_place(state: &StateSettings) -> Place {
    Place::new(state, own_variable, rustix::process::geteuid().is_root())
}

/// Where runs of those who use this state leave their marks.
#[cfg(feature = "schedule")]
pub fn marks_of(place: &Place) -> Option<Room> {
    place.state_dir.as_deref().map(|dir| Room::new(dir, place.database.as_ref()))
}

/// A state that cannot be used ends a command with 74, an address that is wrong is the configuration's fault.
pub fn failure(error: StoreError) -> Failure {
    match error {
        StoreError::Address { .. } => Failure::config(error.to_string()),
        error => Failure::State(error.to_string()),
    }
}

/// What there is to be read: the database, the records that the main chain has left beside it, or both.
pub struct Reading {
    store: Option<Box<dyn Store>>,
    spooled: Vec<RunRecord>,
    /// This process, and the machine it runs on.
    pub here: Owner,
    /// The configuration.
    pub config: Config,
    /// The state directory that is read.
    pub state_dir: Option<PathBuf>,
    /// The database, as it may be shown.
    pub database: Option<String>,
    /// Where runs leave their marks.
    #[cfg(feature = "schedule")]
    pub marks: Option<Room>,
    /// Other machines may read and write the same database.
    #[cfg(feature = "schedule")]
    pub is_shared: bool,
}

impl Reading {
    /// Opens the state in order to read it; changes nothing.
    ///
    /// # Errors
    /// What the configuration says of it is wrong; there is one that cannot or may not be read.
    pub fn open(settings: &Settings) -> Result<Self, Failure> {
        let config = settings.load()?.config;
        let mut findings: Vec<Finding> = Vec::new();
        let state = StateSettings::new(&config, &mut findings);
        findings.retain(|finding| finding.severity == Severity::Error);
        if !findings.is_empty() {
            return Err(Failure::Config(findings));
        }
        let place = reading_place(settings, &state);
        let store = match place.open_to_read() {
            Ok(store) => Some(store),
            Err(StoreError::Absent { .. }) => None,
            Err(error) => return Err(of_others(settings, &place, failure(error))),
        };
        let spooled = place.spool().map(|spool| spool.read_all()).transpose().map_err(failure)?.unwrap_or_default();
        if let (None, [], Ok(url)) = (&store, &spooled[..], place.url()) {
            // Whoever watches asks every second.
            static TOLD: Once = Once::new();
            TOLD.call_once(|| log::info!("{url}: no run has been recorded yet"));
        }
        Ok(Self {
            store,
            spooled,
            here: Owner::look(),
            config,
            #[cfg(feature = "schedule")]
            marks: marks_of(&place),
            #[cfg(feature = "schedule")]
            is_shared: matches!(place.url(), Ok(DatabaseUrl::Postgres(_))),
            database: place.url().ok().map(|url| url.to_string()),
            state_dir: place.state_dir,
        })
    }

    /// Opens the state in order to read it, and takes those runs in that go on and have no record yet; what they tell comes
    /// beside it. They are asked first, so that one that ends meanwhile is found in the state.
    ///
    /// # Errors
    /// As for [`Reading::open`].
    pub fn open_with_going(settings: &Settings, zone: &TimeZone) -> Result<(Self, Vec<Going>), Failure> {
        let told = going::look();
        let mut reading = Self::open(settings)?;
        let told = going::of_state(told, reading.state_dir.as_deref(), reading.database.as_deref(), zone);
        // The record of one whose hook or halt task runs is there, or on its way.
        let new = |going: &&Going| going.run.closing.is_none() && reading.spooled.iter().all(|record| record.run_id != going.run.id);
        let records: Vec<RunRecord> = told.iter().filter(new).map(|going| going::record(going, &reading.here)).collect();
        reading.spooled.extend(records);
        Ok((reading, told))
    }

    /// Runs of the past, the newest first.
    ///
    /// # Errors
    /// The database does not answer.
    pub fn history(&mut self, query: &HistoryQuery) -> Result<Vec<RunRecord>, Failure> {
        let Self { store, spooled, here, .. } = self;
        let (mut stored, mut spooled) = (Vec::new(), spooled.clone());
        if let Some(store) = store {
            stored = store.runs(query).map_err(failure)?;
            if query.failed {
                // A run whose process is gone has failed, although nobody has written that down yet.
                spooled.extend(store.open_runs(&here.host).map_err(failure)?);
            }
        }
        let mut seen = |record: RunRecord| as_it_is(record, here);
        let spooled = spooled.into_iter().map(&mut seen).collect();
        Ok(spool::merged(stored.into_iter().map(seen).collect(), spooled, query))
    }

    /// The runs of a chain, the newest first: not many more than `most` unless more slots than that were given up since one
    /// last began.
    ///
    /// # Errors
    /// The database does not answer.
    #[cfg(feature = "schedule")]
    pub fn of_chain(&mut self, chain: &str, most: u32) -> Result<Vec<RunRecord>, Failure> {
        past::newest(most, &mut |limit| self.history(&HistoryQuery { chain: Some(chain.to_owned()), failed: false, limit }))
    }

    /// Up to where the slots of each chain are decided, by this name of a machine; nothing where there is no database.
    ///
    /// # Errors
    /// The database does not answer.
    #[cfg(feature = "schedule")]
    pub fn watermarks(&mut self, machine: &str) -> Result<Vec<(String, Timestamp)>, Failure> {
        self.store.as_mut().map_or_else(|| Ok(Vec::new()), |store| store.watermarks(machine)).map_err(failure)
    }

    /// The slots that a process of this machine has claimed for runs that have not begun, as long as it lives.
    ///
    /// # Errors
    /// The database does not answer.
    #[cfg(feature = "schedule")]
    pub fn waiting_slots(&mut self) -> Result<Vec<WaitingSlot>, Failure> {
        let Self { store: Some(store), here, .. } = self else { return Ok(Vec::new()) };
        let waiting = store.waiting_slots(&here.host).map_err(failure)?;
        Ok(waiting.into_iter().filter(|slot| slot.owner.is_alive(here) == Some(true)).collect())
    }

    /// How many jobs there are by queue and state, and those that run; nothing where there is no database.
    ///
    /// # Errors
    /// The database does not answer.
    #[cfg(feature = "schedule")]
    pub fn jobs(&mut self, now: Timestamp) -> Result<(Vec<QueueCount>, Vec<JobRecord>), Failure> {
        let Some(store) = &mut self.store else { return Ok((Vec::new(), Vec::new())) };
        let counts = store.count_jobs(now).map_err(failure)?;
        Ok((counts, store.running_jobs().map_err(failure)?))
    }

    /// The newest time that this machine has noted.
    ///
    /// # Errors
    /// The database does not answer.
    #[cfg(feature = "schedule")]
    pub fn newest_time(&mut self) -> Result<Option<Timestamp>, Failure> {
        let here = &self.here;
        self.store.as_mut().map_or(Ok(None), |store| store.newest_time(here)).map_err(failure)
    }

    /// The ids of all runs that end like this: those of one boot begin alike.
    fn ending_with(&mut self, end: &str) -> Result<Vec<String>, Failure> {
        let all = self.history(&HistoryQuery { chain: None, failed: false, limit: u32::MAX })?;
        Ok(all.into_iter().map(|run| run.run_id).filter(|id| id.ends_with(end)).collect())
    }

    /// Whether any run of a chain is known.
    ///
    /// # Errors
    /// The database does not answer.
    pub fn knows(&mut self, chain: &str) -> Result<bool, Failure> {
        Ok(!self.history(&HistoryQuery { chain: Some(chain.to_owned()), failed: false, limit: 1 })?.is_empty())
    }

    /// The newest run of a chain that began, or of all chains.
    ///
    /// # Errors
    /// There is none; the database does not answer.
    pub fn last(mut self, chain: Option<&str>) -> Result<RunRecord, Failure> {
        let query = |limit| HistoryQuery { chain: chain.map(str::to_owned), failed: false, limit };
        let newest = |runs: Vec<RunRecord>| runs.into_iter().find(RunRecord::has_begun);
        let found = match newest(self.history(&query(LOOKED_AT))?) {
            Some(run) => Some(run),
            None => newest(self.history(&query(u32::MAX))?),
        };
        let of = chain.map(|chain| format!(" of the chain {chain}")).unwrap_or_default();
        let run = found.ok_or_else(|| Failure::Usage(format!("no run{of} is known that began")))?;
        let id = run.run_id.clone();
        self.find(&id)
    }

    /// The run that this id, or the beginning or the end of one, names.
    ///
    /// # Errors
    /// None does, or several do; the database does not answer.
    pub fn find(mut self, id: &str) -> Result<RunRecord, Failure> {
        const MOST_NAMED: u32 = 5;
        let mut ids = match &mut self.store {
            Some(store) => store.find_runs(id, MOST_NAMED + 1).map_err(failure)?,
            None => Vec::new(),
        };
        ids.extend(self.spooled.iter().map(|record| record.run_id.clone()).filter(|known| known.starts_with(id)));
        let mut place = "begin";
        if ids.is_empty() && id.len() >= SHORTEST_END {
            (ids, place) = (self.ending_with(id)?, "end");
        }
        ids.sort();
        ids.dedup();
        let named = match ids.as_slice() {
            [only] => only.clone(),
            all if all.iter().any(|known| known == id) => id.to_owned(),
            [] => return Err(Failure::Usage(format!("no run is known by the id `{id}`; `runner history` shows which there are"))),
            some => {
                let shown: Vec<&str> = some.iter().take(MOST_NAMED as usize).map(String::as_str).collect();
                let more = if some.len() > shown.len() { ", ..." } else { "" };
                return Err(Failure::Usage(format!(
                    "several runs {place} with `{id}`: {}{more}; type more of it, or of its end",
                    shown.join(", ")
                )));
            }
        };
        let stored = match &mut self.store {
            Some(store) => store.run(&named).map_err(failure)?,
            None => None,
        };
        let spooled = self.spooled.into_iter().find(|record| record.run_id == named);
        // Where the database has only its beginning, its end may wait beside it.
        let found = match (stored, spooled) {
            (Some(stored), Some(spooled)) if stored.outcome.is_none() => Some(spooled),
            (stored, spooled) => stored.or(spooled),
        };
        let gone = || Failure::Usage(format!("the run {named} was forgotten in this moment"));
        found.map(|record| as_it_is(record, &self.here)).ok_or_else(gone)
    }
}

/// Whoever asks without a configuration may have meant the runs of his own: where they are is said with what keeps him from the others'.
fn of_others(settings: &Settings, place: &Place, failure: Failure) -> Failure {
    let is_others = place.state_dir.as_deref() == Some(Path::new(SYSTEM_DIR)) && !rustix::process::geteuid().is_root();
    match failure {
        Failure::State(why) if is_others && settings.config_file.is_none() => {
            Failure::State(format!("{why}; your own runs without a configuration are shown with -c /dev/null"))
        }
        failure => failure,
    }
}

/// The system's state, where somebody who is not root asks by the system's configuration and there is one; else our own.
pub fn reading_place(settings: &Settings, state: &StateSettings) -> Place {
    let mut place = own_place(state);
    let of_system = settings.config_file.as_deref().is_none_or(|file| file == Path::new(DEFAULT_FILE));
    let given = own_variable("STATE_DIRECTORY").is_some();
    // What may not even be looked at is there: the reader is told so.
    let is_there = |name: &str| {
        let found = std::fs::metadata(Path::new(SYSTEM_DIR).join(name));
        found.map_or_else(|error| error.kind() != io::ErrorKind::NotFound, |_| true)
    };
    if of_system && !given && !rustix::process::geteuid().is_root() && (is_there(FILE_NAME) || is_there(DIR_NAME)) {
        place.state_dir = Some(SYSTEM_DIR.into());
    }
    place
}
