//! From what is configured to an open database: which one it is, its spool, and who may say the password.

use std::ffi::OsString;
use std::path::{PathBuf, absolute};
use std::time::Duration;

use jiff::Timestamp;

use super::spool::{Source, Spool};
use super::sqlite::Sqlite;
use super::{Retention, Store, StoreError};
use crate::config::database::{DatabaseUrl, FILE_NAME, Secrets, state_dir};
use crate::config::settings::StateSettings;

/// How many old runs are forgotten when the database is opened; the daemon forgets the rest bit by bit.
const PRUNED_AT_OPEN: u32 = 500;

/// Where the state is, and what is needed to get there. Opens nothing by itself.
#[derive(Debug, Clone)]
pub struct Place {
    /// The state directory; none where the user has no home.
    pub state_dir: Option<PathBuf>,
    /// `database`, if somebody wrote it.
    pub database: Option<DatabaseUrl>,
    /// The configuration file that says so.
    pub config_file: Option<PathBuf>,
    /// `keep_runs` and `keep_days`.
    pub keep: Retention,
    /// Where passwords may stand.
    pub secrets: Secrets,
}

impl Place {
    /// From the settings and our own variables; `root` is whether the effective user is.
    pub fn new(settings: &StateSettings, variable: impl Fn(&str) -> Option<OsString>, root: bool) -> Self {
        let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let passfile = path("PGPASSFILE").or_else(|| path("HOME").map(|home| home.join(".pgpass")));
        Self {
            state_dir: state_dir(&variable, root),
            database: settings.database.clone(),
            config_file: settings.config_file.clone(),
            keep: Retention { runs: settings.keep_runs, age: Duration::from_secs(u64::from(settings.keep_days) * 86_400) },
            secrets: Secrets { passfile, credentials: path("CREDENTIALS_DIRECTORY") },
        }
    }

    /// The database.
    ///
    /// # Errors
    /// None is configured, and there is no state directory for one.
    pub fn url(&self) -> Result<DatabaseUrl, StoreError> {
        let default = || self.state_dir.as_ref().map(|dir| DatabaseUrl::Sqlite(dir.join(FILE_NAME)));
        let nowhere = || StoreError::Address {
            database: "database".to_owned(),
            why: "there is no state directory: HOME is not set; write `database = sqlite:PATH` into [runner]".to_owned(),
        };
        self.database.clone().or_else(default).ok_or_else(nowhere)
    }

    /// Where the main chain leaves its records.
    pub fn spool(&self) -> Option<Spool> {
        let source = || Source {
            config_file: self.config_file.as_ref().and_then(|file| absolute(file).ok()),
            database: self.url().ok().map(|url| url.to_string()),
        };
        self.state_dir.as_ref().map(|dir| Spool::new(dir, self.keep.runs).of(source()))
    }

    /// Opens the database to write to it. Makes it if it is not there, brings it up to date, takes in what the main chain has left, and
    /// forgets a little of what is too old.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(&self, now: Timestamp) -> Result<Box<dyn Store>, StoreError> {
        let mut store: Box<dyn Store> = match self.url()? {
            DatabaseUrl::Sqlite(path) => Box::new(Sqlite::open(&path)?),
            DatabaseUrl::Postgres(url) => self.open_server(&url, true)?,
        };
        if let Some(spool) = self.spool() {
            // What cannot be taken in stays where it is, and is no reason to do without a database.
            match spool.take_in(store.as_mut()) {
                Ok(0) => {}
                Ok(count) => log::debug!("{}: took in {count} records of the main chain", store.name()),
                Err(error) => log::warn!("the records of the main chain are not taken in: {error}"),
            }
        }
        store.prune_runs(self.keep, now, PRUNED_AT_OPEN)?;
        Ok(store)
    }

    /// Opens the database to write one thing to it: no housekeeping, which others do in time.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open_quickly(&self) -> Result<Box<dyn Store>, StoreError> {
        match self.url()? {
            DatabaseUrl::Sqlite(path) => Ok(Box::new(Sqlite::open_quickly(&path)?)),
            DatabaseUrl::Postgres(url) => self.open_server(&url, true),
        }
    }

    /// Opens the database to read from it. Changes nothing.
    ///
    /// # Errors
    /// It is not there or may not be read.
    pub fn open_to_read(&self) -> Result<Box<dyn Store>, StoreError> {
        match self.url()? {
            DatabaseUrl::Sqlite(path) => Ok(Box::new(Sqlite::open_to_read(&path)?)),
            DatabaseUrl::Postgres(url) => self.open_server(&url, false),
        }
    }

    /// Whether the database, which is not there, could be made. Changes nothing.
    ///
    /// # Errors
    /// Why not.
    pub fn could_be_made(&self) -> Result<(), StoreError> {
        match self.url()? {
            DatabaseUrl::Sqlite(path) => Sqlite::could_be_made(&path),
            // A server that answers makes tables for whoever may ask it to.
            DatabaseUrl::Postgres(_) => Ok(()),
        }
    }

    #[cfg(feature = "postgres")]
    fn open_server(&self, url: &str, to_write: bool) -> Result<Box<dyn Store>, StoreError> {
        let server = super::postgres::Server::new(url, &self.secrets)?;
        let store = if to_write { super::postgres::Postgres::open(server) } else { super::postgres::Postgres::open_to_read(server) };
        Ok(Box::new(store?))
    }

    #[cfg(not(feature = "postgres"))]
    #[expect(clippy::unused_self, reason = "the other one needs it")]
    fn open_server(&self, url: &str, _: bool) -> Result<Box<dyn Store>, StoreError> {
        Err(StoreError::NotBuilt { database: crate::config::value::mask_secrets(url) })
    }
}
