//! Where the main chain leaves the record of a run without a database: one JSON file in `runs` of the state directory,
//! written beside, synced, renamed. The store takes the files in when it is next opened.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::{Keeper, RunRecord, VERSION};
use super::{Store, StoreError};
use crate::plain::{self, LastLink};

/// The directory below the state directory.
pub const DIR_NAME: &str = "runs";
/// How long a run waits for its record, whatever the disk does.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many files are taken away at once where there are too many.
const BITE: usize = 32;
/// What stands in the name of a record that has no end yet.
const BEGUN: &str = ".begun";
/// How many records go into one transaction.
const BATCH: usize = 100;
/// How much of a record is written at once, in bytes.
const PIECE: usize = 8 * 1024;
/// A record is at most this long, in bytes: longer is no record.
const LONGEST: u64 = 16 * 1024 * 1024;

/// The spool of a state directory.
#[derive(Debug, Clone)]
pub struct Spool {
    dir: PathBuf,
    keep: usize,
    source: Source,
}

/// Whose a record is: several configurations may share a state directory and name different databases. Stands in the file of a
/// record; those that older programs left have none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The configuration file.
    #[serde(default, rename = "config", skip_serializing_if = "Option::is_none")]
    pub config_file: Option<PathBuf>,
    /// The database that it names, as it may be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
}

impl Source {
    /// Whether a record that was left by `left` is to be taken in here: where it says nothing, where it names our database, and
    /// where our own configuration named another one then.
    fn takes(&self, left: &Self) -> bool {
        let same = |one: &Option<String>, other: &Option<String>| one.is_some() && one == other;
        let nameless = |source: &Self| *source == Self::default();
        let same_file = self.config_file.is_some() && self.config_file == left.config_file;
        nameless(self) || nameless(left) || same(&self.database, &left.database) || same_file
    }
}

/// A record and whose it is, as the file has them.
#[derive(Serialize)]
struct Left<'a> {
    #[serde(flatten)]
    record: &'a RunRecord,
    #[serde(flatten)]
    source: &'a Source,
}

/// Leaves each record in the spool.
#[derive(Debug)]
pub struct SpoolKeeper {
    spool: Spool,
    /// Whether it is left, too, that a run has begun.
    notes_begun: bool,
    /// A record that the disk has not taken in time; as long as it hangs there is no use in another.
    hanging: Option<mpsc::Receiver<io::Result<()>>>,
}

/// How much of a record has to be on the disk before the run goes on: a sync is dearer than the start of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Durable {
    /// Nothing: no task was started, and nobody misses it.
    Nothing,
    /// What it says, before it has its name. The name follows within seconds: never is half a record there.
    Text,
    /// Its name, too: the halt task may be next, and take the machine away.
    Name,
}

impl Durable {
    fn of(record: &RunRecord) -> Self {
        match record.outcome.as_deref() {
            Some("done") if record.tries.is_empty() => Self::Nothing,
            // That a run has begun is of use only as long as the machine is up.
            Some("done") | None => Self::Text,
            Some(_) => Self::Name,
        }
    }
}

impl Spool {
    /// The spool of this state directory. More than `keep` records are never there for long.
    pub fn new(state_dir: &Path, keep: u32) -> Self {
        Self { dir: state_dir.join(DIR_NAME), keep: keep as usize, source: Source::default() }
    }

    /// The same, of which only the records of this source are seen; what is left here says that it is its.
    #[must_use]
    pub fn of(self, source: Source) -> Self {
        Self { source, ..self }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Leaves a record, as durably as it has to be.
    fn leave(&self, record: &RunRecord) -> io::Result<()> {
        if !self.dir.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        }
        let name = name_of(record);
        let beside = self.dir.join(format!(".{name}"));
        let durable = Durable::of(record);
        let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside).and_then(|file| {
            // Of thousands of tries all of it at once would be as much memory as all the rest.
            let mut to = BufWriter::with_capacity(PIECE, file);
            serde_json::to_writer(&mut to, &Left { record, source: &self.source })?;
            let file = to.into_inner()?;
            if durable >= Durable::Text {
                file.sync_all()?;
            }
            fs::rename(&beside, self.dir.join(&name))?;
            if durable >= Durable::Name { File::open(&self.dir)?.sync_all() } else { Ok(()) }
        });
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written?;
        self.make_room()
    }

    /// Where nobody ever takes the records in, the oldest go.
    fn make_room(&self) -> io::Result<()> {
        let mut names = self.names()?;
        let over = names.len().saturating_sub(self.keep);
        if over > 0 {
            names.sort_unstable();
            for name in names.iter().take(over.min(BITE)) {
                fs::remove_file(self.dir.join(name))?;
            }
        }
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let is_record = |name: &String| name.ends_with(".json") && !name.starts_with('.');
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).filter(is_record).collect())
    }

    /// The records that wait here and are ours. What is broken is left out.
    ///
    /// # Errors
    /// The directory may not be read.
    pub fn read_all(&self) -> Result<Vec<RunRecord>, StoreError> {
        let names = self.names().map_err(|error| file_error(&self.dir, error))?;
        let mut records: Vec<RunRecord> = names.iter().filter_map(|name| self.read_ours(&self.dir.join(name)).ok()).collect();
        // One that was killed between the two has left both.
        let ended: HashSet<String> = records.iter().filter(|record| record.outcome.is_some()).map(|record| record.run_id.clone()).collect();
        records.retain(|record| record.outcome.is_some() || !ended.contains(&record.run_id));
        Ok(records)
    }

    fn read_ours(&self, path: &Path) -> Result<RunRecord, Broken> {
        let (record, source) = read(path)?;
        if self.source.takes(&source) { Ok(record) } else { Err(Broken::Others) }
    }

    /// Hands all records that are ours over to the store and takes the files away. A file that is no record is set aside and told; one
    /// of a newer program stays. Tells how many were taken in.
    ///
    /// # Errors
    /// The directory may not be read, or the store does not take them; the files stay.
    pub fn take_in(&self, store: &mut dyn Store) -> Result<usize, StoreError> {
        let mut names = self.names().map_err(|error| file_error(&self.dir, error))?;
        names.sort_unstable();
        let mut taken = 0;
        for part in names.chunks(BATCH) {
            let (mut records, mut files) = (Vec::new(), Vec::new());
            for path in part.iter().map(|name| self.dir.join(name)) {
                match self.read_ours(&path) {
                    Ok(record) => {
                        records.push(record);
                        files.push(path);
                    }
                    Err(Broken::Newer(version)) => log::warn!(
                        "{}: a record of version {version}, this program knows {VERSION}: it stays until a newer one takes it in",
                        path.display()
                    ),
                    Err(Broken::Gone | Broken::Others) => {}
                    // The power went before the file of a run without tasks was written.
                    Err(Broken::Empty) => {
                        let _ = fs::remove_file(&path);
                    }
                    Err(Broken::Unreadable(why)) => set_aside(&path, &why),
                }
            }
            if records.is_empty() {
                continue;
            }
            store.put_runs(&records)?;
            taken += records.len();
            for path in files {
                // Another process may have taken it in at the same time.
                if let Err(error) = fs::remove_file(&path).or_else(unless_gone) {
                    return Err(file_error(&path, error));
                }
            }
        }
        Ok(taken)
    }
}

enum Broken {
    Gone,
    /// It has its name, and nothing was ever written.
    Empty,
    /// It is a record, and waits for another configuration's database.
    Others,
    Newer(u64),
    Unreadable(String),
}

fn read(path: &Path) -> Result<(RunRecord, Source), Broken> {
    let mut bytes = Vec::new();
    let read =
        plain::open(OpenOptions::new().read(true), path, LastLink::Followed).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Broken::Gone),
        Err(error) => return Err(Broken::Unreadable(error.to_string())),
        Ok(0) => return Err(Broken::Empty),
        Ok(_) => {}
    }
    let version = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).ok()?.get("version")?.as_u64();
    match serde_json::from_slice::<RunRecord>(&bytes) {
        Ok(record) if record.version == VERSION => Ok((record, serde_json::from_slice(&bytes).unwrap_or_default())),
        Ok(record) if record.version > VERSION => Err(Broken::Newer(record.version.into())),
        Ok(record) => Err(Broken::Unreadable(format!("there is no version {}", record.version))),
        Err(error) => match version(&bytes) {
            Some(version) if version > u64::from(VERSION) => Err(Broken::Newer(version)),
            Some(_) | None => Err(Broken::Unreadable(error.to_string())),
        },
    }
}

fn set_aside(path: &Path, why: &str) {
    let aside = path.with_extension("broken");
    match fs::rename(path, &aside) {
        Ok(()) => log::warn!("{}: is no record of a run: {why}; set aside as {}", path.display(), aside.display()),
        Err(error) => log::warn!("{}: is no record of a run: {why}; it cannot be set aside: {error}", path.display()),
    }
}

fn unless_gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn file_error(path: &Path, error: io::Error) -> StoreError {
    StoreError::File { path: path.display().to_string(), error }
}

/// The name of a record's file: in the order of time, as far as the clock is one; the id makes it unique. That a run has begun is a
/// file of its own, before that of its end: whoever takes the one in does not take the other away.
fn name_of(record: &RunRecord) -> String {
    let begun = if record.outcome.is_none() { BEGUN } else { "" };
    format!("{:015}-{}{begun}.json", record.began.as_millisecond().max(0), record.run_id)
}

/// Records of the spool and of the database as one history, the newest first, each once: with its end, where one has it.
pub fn merged(mut stored: Vec<RunRecord>, spooled: Vec<RunRecord>, query: &super::HistoryQuery) -> Vec<RunRecord> {
    let ended: HashSet<&str> = spooled.iter().filter(|record| record.ended.is_some()).map(|record| record.run_id.as_str()).collect();
    stored.retain(|record| record.ended.is_some() || !ended.contains(record.run_id.as_str()));
    let known: HashSet<String> = stored.iter().map(|record| record.run_id.clone()).collect();
    let asked = |record: &RunRecord| {
        let of_chain = query.chain.as_ref().is_none_or(|chain| *chain == record.chain);
        of_chain && (!query.failed || record.has_failed()) && !known.contains(&record.run_id)
    };
    let mut all: Vec<RunRecord> = spooled.into_iter().filter(asked).collect();
    all.extend(stored);
    all.sort_by(|one, two| (two.began, &two.run_id).cmp(&(one.began, &one.run_id)));
    all.truncate(query.limit as usize);
    all
}

impl SpoolKeeper {
    /// Leaves records there.
    pub fn new(spool: Spool) -> Self {
        Self { spool, notes_begun: false, hanging: None }
    }

    /// Leaves them also when a run begins: whoever comes after a crash sees that it has.
    #[must_use]
    pub fn noting_begun(self) -> Self {
        Self { notes_begun: true, ..self }
    }

    /// A thread of its own for each record: nothing else can end a wait for a disk that does not answer.
    #[expect(clippy::disallowed_methods, reason = "no task runs, and a disk that hangs must not keep the next one, nor the halt task")]
    fn leave_in_time(&mut self, record: RunRecord) -> Result<(), String> {
        if let Some(hanging) = self.hanging.take()
            && let Err(mpsc::TryRecvError::Empty) = hanging.try_recv()
        {
            self.hanging = Some(hanging);
            return Err("the one before still waits for the disk".to_owned());
        }
        let (tell, told) = mpsc::channel();
        let spool = self.spool.clone();
        let before = (self.notes_begun && record.outcome.is_some()).then(|| name_of(&RunRecord { outcome: None, ..record.clone() }));
        let leave = move || {
            let left = spool.leave(&record);
            if let (Ok(()), Some(before)) = (&left, before) {
                // Whoever has opened the database since has taken it in.
                let _ = fs::remove_file(spool.dir.join(before));
            }
            // Nobody listens any more when it took too long.
            let _ = tell.send(left);
        };
        std::thread::Builder::new().name("record".to_owned()).spawn(leave).map_err(|error| error.to_string())?;
        match told.recv_timeout(PATIENCE) {
            Ok(Ok(())) => Ok(()),
            // Where nobody may write nothing is expected: a root that is mounted read-only, a user without a home.
            Ok(Err(error)) if is_closed(&error) => {
                log::debug!("no record of the run is left in {}: {error}", self.spool.dir.display());
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(RecvTimeoutError::Timeout) => {
                self.hanging = Some(told);
                Err(format!("the disk has not taken it within {} s", PATIENCE.as_secs()))
            }
            Err(RecvTimeoutError::Disconnected) => Err("its writer is gone".to_owned()),
        }
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | NotFound)
}

impl Keeper for SpoolKeeper {
    fn begun(&mut self, record: &RunRecord) {
        if self.notes_begun
            && let Err(why) = self.leave_in_time(record.clone())
        {
            log::warn!("that run {} has begun is not kept in {}: {why}", record.run_id, self.spool.dir.display());
        }
    }

    fn ended(&mut self, record: RunRecord) {
        let run_id = record.run_id.clone();
        if let Err(why) = self.leave_in_time(record) {
            log::warn!("the record of run {run_id} is not kept in {}: {why}", self.spool.dir.display());
        }
    }
}

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;
