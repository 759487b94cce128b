//! SQLite: one file, any number of processes on one machine. WAL, synced at every commit, so that what was acknowledged
//! survives a power cut; every transaction that writes takes its place in the queue of writers before it begins.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, ToSql, TransactionBehavior, params_from_iter};
use rustix::fs::Access;

use super::Owner;
use super::alive;
use super::engine::{Cell, Engine, Row, Statements, Work};
use super::error::{EngineError, EngineFault, StoreError};
use super::schema::{self, Dialect};

/// How long is waited for other writers, in waits of [`BUSY_WAIT`]: about a minute. Nobody holds a transaction open for longer than a
/// few milliseconds; a minute is for a disk that is busy.
const BUSY_WAITS: i32 = 30_000;
/// How long one such wait is. SQLite's own handler waits for up to 100 ms, and the unlucky one for ever longer.
const BUSY_WAIT: Duration = Duration::from_millis(2);
/// The mark in the file's header that it is ours: "runr".
const APPLICATION_ID: i64 = 0x72_75_6e_72;
/// A journal of so many bytes is carried over into the file by the last who closes it: some thirty jobs, added one by one.
const LONG_JOURNAL: u64 = 512 * 1024;
/// A journal of so many pages is carried over into the file when a transaction ends: it never grows much longer.
const JOURNAL_PAGES: i64 = 256;
/// Where the disk is small it is carried over sooner, but not with every other transaction.
const LEAST_JOURNAL_PAGES: i64 = 16;
/// How many bytes a page has.
const PAGE: u64 = 4096;
/// In these file systems nobody makes a file, although root may do everything: proc, sysfs (linux/magic.h).
const OF_KERNEL: [i128; 2] = [0x9fa0, 0x6265_6572];
/// How many statements are kept ready.
const STATEMENTS: usize = 128;

const DIALECT: Dialect = Dialect {
    text: "TEXT",
    int: "INTEGER",
    end: "STRICT, WITHOUT ROWID",
    end_rows: " STRICT",
    serial: "INTEGER PRIMARY KEY AUTOINCREMENT",
    // Whoever adds a job may have an old library, which does not know unixepoch('subsec').
    now: "(CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))",
    wake: "",
};

/// A connection to a file.
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
    name: String,
    path: PathBuf,
    /// The file, its journal and its index, as they were when they were opened.
    files: [Option<Inode>; 3],
}

/// Device and number.
type Inode = (u64, u64);
/// What the names of the file, of its journal and of its index end in.
const FILES: [&str; 3] = ["", "-wal", "-shm"];

impl Sqlite {
    /// Opens the file to write to it. Makes it, with its directory, when it is not there; brings an old one up to date.
    ///
    /// # Errors
    /// It cannot be opened or made, is of a newer version, is no database.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        make_private(path).and_then(|()| look_beside(path)).map_err(|error| cannot_open(path, &error))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut sqlite = Self::connect(path, flags)?;
        // Before anything is changed: the file of something else is left as it is.
        let found = sqlite.patiently("open it", Self::version)?;
        sqlite.refuse_newer(found)?;
        sqlite.patiently("open it", Self::prepare_to_write)?;
        if found < schema::VERSION {
            sqlite.migrate()?;
        }
        sqlite.files = FILES.map(|ending| inode(&beside(path, ending)).ok());
        Ok(sqlite)
    }

    /// As [`Sqlite::open`], for one thing to be written: what stands in the journal stays there. The last to close a file
    /// would else carry it over with several more syncs, each time. Only one that has grown long is carried over: whoever
    /// is the first to open the file reads all of it.
    ///
    /// # Errors
    /// As for [`Sqlite::open`].
    pub fn open_quickly(path: &Path) -> Result<Self, StoreError> {
        let sqlite = Self::open(path)?;
        if fs::metadata(beside(path, "-wal")).is_ok_and(|journal| journal.len() > LONG_JOURNAL) {
            return Ok(sqlite);
        }
        let set = sqlite.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        set.map_err(|error| fault(&error).on(&sqlite.name, "open it"))?;
        Ok(sqlite)
    }

    /// Opens the file to read from it. Changes nothing.
    ///
    /// # Errors
    /// It is not there, may not be read, is of another version, is no database.
    pub fn open_to_read(path: &Path) -> Result<Self, StoreError> {
        let name = shown(path);
        // What SQLite says of a file that it cannot open is the same whatever the reason is.
        if let Err(error) = look_at(path, Access::READ_OK).and_then(|()| look_beside(path)) {
            return Err(if error.kind() == io::ErrorKind::NotFound {
                StoreError::Absent { database: name }
            } else {
                cannot_open(path, &error)
            });
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut sqlite = Self::connect(path, flags)?;
        let found = match sqlite.version() {
            // A reader that may write neither the file nor its directory needs the files beside it, which are only
            // there while somebody writes. Without them the file alone is the whole truth.
            Err(error) if error.kind != EngineFault::Foreign && !beside(path, "-wal").exists() => {
                let uri = format!("file:{}?immutable=1", encoded(path));
                sqlite = Self::connect(Path::new(&uri), flags | OpenFlags::SQLITE_OPEN_URI)?;
                (sqlite.name, sqlite.path) = (name.clone(), path.to_owned());
                sqlite.version()
            }
            found => found,
        };
        let found = found.map_err(|error| error.on(&name, "open it"))?;
        sqlite.refuse_newer(found)?;
        match found {
            // Somebody wanted to begin one, and was killed or found the disk full.
            0 => Err(StoreError::Absent { database: name }),
            found if found < schema::VERSION => Err(StoreError::Older { database: name, found }),
            _ => Ok(sqlite),
        }
    }

    /// Whether the file, which is not there, could be made, as far as can be told without changing anything.
    ///
    /// # Errors
    /// Why not.
    pub fn could_be_made(path: &Path) -> Result<(), StoreError> {
        look_for_room(path).map_err(|error| cannot_open(path, &error))
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Self, StoreError> {
        let name = shown(path);
        let mut connection = Connection::open_with_flags(path, flags).map_err(|error| fault(&error).on(&name, "open it"))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        connection.busy_handler(Some(wait_for_others)).map_err(|error| fault(&error).on(&name, "open it"))?;
        Ok(Self { connection, name, path: path.to_owned(), files: [None; 3] })
    }

    fn prepare_to_write(&mut self) -> Result<(), EngineError> {
        let mode = self.connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
        let mode = mode.map_err(|error| fault(&error))?;
        if mode != "wal" {
            return Err(EngineError::new(EngineFault::Rejected, format!("it stays in the journal mode {mode}")));
        }
        let set = |key, value: i64| self.connection.pragma_update(None, key, value).map_err(|error| fault(&error));
        set("wal_autocheckpoint", self.journal_pages())?;
        self.connection.pragma_update(None, "synchronous", "FULL").map_err(|error| fault(&error))
    }

    /// How long the journal may grow on this disk.
    fn journal_pages(&self) -> i64 {
        let journal = fs::metadata(beside(&self.path, "-wal")).map_or(0, |journal| journal.len());
        match rustix::fs::statvfs(&self.path) {
            // Some that are not on this machine say nothing of their size.
            Ok(disk) if disk.f_blocks > 0 => pages_for(disk.f_bavail.saturating_mul(disk.f_frsize).saturating_add(journal)),
            Ok(_) | Err(_) => JOURNAL_PAGES,
        }
    }

    /// Carries the journal over into the file and makes it empty: it may be larger than all that is in the file. Each of its
    /// pages that the file does not have yet needs room of its own meanwhile: see [`pages_for`].
    fn make_room(&mut self) -> bool {
        let busy = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        busy.is_ok_and(|busy| busy == 0)
    }

    /// The version of its tables; zero while there are none. All is read at one moment: somebody else may just make them.
    fn version(&mut self) -> Result<i64, EngineError> {
        let read = self.connection.transaction().and_then(|moment| {
            let application = moment.pragma_query_value(None, "application_id", |row| row.get::<_, i64>(0))?;
            let version = moment.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
            let tables = moment.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
            Ok((application, version, tables))
        });
        let (application, version, tables) = read.map_err(|error| fault(&error))?;
        if application != APPLICATION_ID && (application, version, tables) != (0, 0, 0) {
            return Err(EngineError::new(EngineFault::Foreign, "it has tables of something else"));
        }
        Ok(version)
    }

    fn refuse_newer(&self, found: i64) -> Result<(), StoreError> {
        let known = schema::VERSION;
        if found > known { Err(StoreError::Newer { database: self.name.clone(), found, known }) } else { Ok(()) }
    }

    /// Does something again and again while others are in the way: whoever turns a file into WAL, or brings it back
    /// after a crash, wants it for itself, and then the others are told so without the handler being asked.
    fn patiently<T>(&mut self, doing: &'static str, mut deed: impl FnMut(&mut Self) -> Result<T, EngineError>) -> Result<T, StoreError> {
        let mut waits = 0;
        loop {
            match deed(self) {
                Err(EngineError { kind: EngineFault::Conflict, .. }) if wait_for_others(waits) => waits += 1,
                result => return result.map_err(|error| error.on(&self.name, doing)),
            }
        }
    }

    fn migrate(&mut self) -> Result<(), StoreError> {
        let found = self.patiently("open it", Self::version)?;
        self.refuse_newer(found)?;
        if found == schema::VERSION {
            return Ok(());
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let migrated = transaction.and_then(|transaction| {
            // Somebody else may have been quicker.
            let found = transaction.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
            for (version, step) in schema::steps(found, DIALECT) {
                transaction.execute_batch(&step)?;
                transaction.pragma_update(None, "user_version", version)?;
            }
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.commit()
        });
        migrated.map_err(|error| fault(&error).on(&self.name, "bring its tables up to date"))
    }
}

fn transact_once(connection: &mut Connection, behavior: TransactionBehavior, work: Work<'_>) -> Result<(), EngineError> {
    let transaction = connection.transaction_with_behavior(behavior).map_err(|error| fault(&error))?;
    work(&mut Inside(&transaction))?;
    transaction.commit().map_err(|error| fault(&error))
}

impl Engine for Sqlite {
    fn shown(&self) -> &str {
        &self.name
    }

    fn write(&mut self, doing: &'static str, work: Work<'_>) -> Result<(), StoreError> {
        let mut deed = |sqlite: &mut Self| transact_once(&mut sqlite.connection, TransactionBehavior::Immediate, work);
        match self.patiently(doing, &mut deed) {
            Err(StoreError::Full { .. }) if self.make_room() => self.patiently(doing, &mut deed),
            done => done,
        }
    }

    fn read(&mut self, doing: &'static str, work: Work<'_>) -> Result<(), StoreError> {
        self.patiently(doing, |sqlite| transact_once(&mut sqlite.connection, TransactionBehavior::Deferred, work))
    }

    /// A file that was moved away takes all with it that was acknowledged. What is left of it under the old name is removed: a
    /// new file would take the journal for its own (sqlite.org/howtocorrupt.html, 2.4).
    fn is_gone(&mut self) -> bool {
        let gone = match inode(&self.path) {
            Ok(there) => self.files[0].is_some_and(|ours| ours != there),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if gone {
            let _ = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
            for (ending, ours) in FILES.iter().zip(self.files).skip(1) {
                let path = beside(&self.path, ending);
                if ours.is_some() && inode(&path).ok() == ours {
                    let _ = fs::remove_file(path);
                }
            }
        }
        gone
    }

    fn sees_life(&self, owner: &Owner) -> bool {
        alive::is_seen(&alive::dir_of(&self.path), owner)
    }
}

/// The statements of one transaction.
struct Inside<'a>(&'a Connection);

impl Statements for Inside<'_> {
    fn run(&mut self, sql: &str, values: &[Cell]) -> Result<u64, EngineError> {
        let done = self.0.prepare_cached(sql).and_then(|mut statement| statement.execute(params_from_iter(values)));
        done.map(|rows| rows as u64).map_err(|error| fault(&error))
    }

    /// A statement that answers with what it has written keeps a copy of each page that it changes, to be taken back alone.
    fn add(&mut self, sql: &str, values: &[Cell]) -> Result<i64, EngineError> {
        self.run(sql, values).map(|_| self.0.last_insert_rowid())
    }

    fn rows(&mut self, sql: &str, values: &[Cell]) -> Result<Vec<Row>, EngineError> {
        let asked = || -> rusqlite::Result<Vec<Row>> {
            let mut statement = self.0.prepare_cached(sql)?;
            let columns = statement.column_count();
            let mut rows = statement.query(params_from_iter(values))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push((0..columns).map(|column| row.get_ref(column).map(cell)).collect::<Result<_, _>>()?);
            }
            Ok(found)
        };
        asked().map_err(|error| fault(&error))
    }
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// How many pages the journal may have, with so many bytes of room for it and for the file to grow. Half of the room would do:
/// a journal that is carried over may be nothing but pages that are new to the file. A quarter leaves something to a large
/// transaction, and to whoever reads meanwhile and holds it up.
fn pages_for(room: u64) -> i64 {
    i64::try_from(room / PAGE / 4).unwrap_or(i64::MAX).clamp(LEAST_JOURNAL_PAGES, JOURNAL_PAGES)
}

fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Null | ValueRef::Real(_) => Cell::Null,
        ValueRef::Integer(number) => Cell::Int(number),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Cell::Text(String::from_utf8_lossy(bytes).into_owned()),
    }
}

/// Another writer is at work: waits for a moment, unless there were enough of them.
#[expect(clippy::disallowed_methods, reason = "SQLite has no other way to tell that a lock is free")]
fn wait_for_others(waits: i32) -> bool {
    if waits >= BUSY_WAITS {
        return false;
    }
    // Not all at the same time: the pids of processes that were started together differ.
    std::thread::sleep(BUSY_WAIT / 2 + BUSY_WAIT * (std::process::id() % 8) / 8);
    true
}

/// The file, 0600, in a directory that is 0700 if we make it. Its companions get the mode of the file.
fn make_private(path: &Path) -> io::Result<()> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty() && !dir.exists()) {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    match look_at(path, Access::READ_OK | Access::WRITE_OK) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_file(path),
        looked => looked,
    }
}

/// Makes the file. Journals of one that had its name before are no part of it, and are taken away before there is a file:
/// nobody opens what is not there, so that nobody has made new ones. Whoever else makes it waits for the lock. What was
/// acknowledged last may stand in the old journal alone ([`Sqlite::open_quickly`]), so that it is kept under another name.
fn make_file(path: &Path) -> io::Result<()> {
    let place = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = fs::File::open(place)?;
    dir.lock()?;
    if path.try_exists()? {
        return Ok(());
    }
    let [_, journal, index] = FILES.map(|ending| beside(path, ending));
    put_aside(&journal)?;
    match fs::remove_file(index) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(_) | Err(_) => sync_above(place),
    }
}

/// Gives a journal whose file is gone the first name that is free, `-wal.1` and so on. The lock on the directory is ours.
fn put_aside(journal: &Path) -> io::Result<()> {
    let kept = (1..).map(|number: u32| beside(journal, &format!(".{number}"))).find(|kept| !kept.exists());
    let Some(kept) = kept.filter(|_| fs::metadata(journal).is_ok_and(|found| found.len() > 0)) else {
        return match fs::remove_file(journal) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
    };
    fs::rename(journal, &kept)?;
    let (journal, kept) = (journal.display(), kept.display());
    log::warn!(
        "{journal} is there without its file, and is kept as {kept}: what was written last may be in it alone; if the file was moved away, put it beside that, with -wal behind its name"
    );
    Ok(())
}

/// SQLite syncs the directory of its files; that this one has a name, and those above it, is ours to see to, whoever made them.
fn sync_above(dir: &Path) -> io::Result<()> {
    for above in fs::canonicalize(dir)?.ancestors().skip(1) {
        match fs::File::open(above).and_then(|dir| dir.sync_all()) {
            // Not made by us then, nor with us. Some systems of files cannot sync a directory.
            Err(error) if !matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput) => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Whether it is a file, with which we may do that. It is not opened: to close it would let go of all locks that this process
/// has on it (fcntl(2), sqlite.org/howtocorrupt.html, 2.2), and others would take it for one that nobody uses.
fn look_at(path: &Path, how: Access) -> io::Result<()> {
    if !fs::metadata(path)?.is_file() {
        return Err(strange(path));
    }
    Ok(rustix::fs::accessat(rustix::fs::CWD, path, how, rustix::fs::AtFlags::EACCESS)?)
}

/// Whether there is a directory in which it could be made, with those above it that are missing, too.
fn look_for_room(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    for dir in path.ancestors().skip(1) {
        match fs::metadata(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(found) if !found.is_dir() => return Err(rustix::io::Errno::NOTDIR.into()),
            Ok(_) => {
                let may = rustix::fs::accessat(rustix::fs::CWD, dir, Access::WRITE_OK | Access::EXEC_OK, rustix::fs::AtFlags::EACCESS);
                let of_kernel = rustix::fs::statfs(dir).is_ok_and(|found| OF_KERNEL.contains(&i128::from(found.f_type)));
                let may = if of_kernel { Err(rustix::io::Errno::ROFS) } else { may };
                let why = |error: rustix::io::Errno| format!("it is not there, and {} takes no new file: {error}", dir.display());
                return may.map_err(|error| io::Error::new(error.kind(), why(error)));
            }
        }
    }
    Ok(())
}

/// SQLite would wait for the other end of a pipe that stands where it looks for its companions.
fn look_beside(path: &Path) -> io::Result<()> {
    let companions = ["-wal", "-shm", "-journal"].map(|ending| beside(path, ending));
    match companions.iter().find(|path| fs::symlink_metadata(path).is_ok_and(|file| !file.is_file())) {
        Some(found) => Err(strange(found)),
        None => Ok(()),
    }
}

fn strange(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no regular file", path.display()))
}

fn inode(path: &Path) -> io::Result<Inode> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

fn cannot_open(path: &Path, error: &io::Error) -> StoreError {
    let (database, why) = (shown(path), error.to_string());
    match error.kind() {
        io::ErrorKind::PermissionDenied => StoreError::Denied { database, why },
        io::ErrorKind::ReadOnlyFilesystem => {
            let why = format!("{why}; mount it writable, or name another place with `database` or STATE_DIRECTORY");
            StoreError::Away { database, doing: "open it", why }
        }
        io::ErrorKind::InvalidInput => StoreError::Foreign { database, why },
        io::ErrorKind::StorageFull => StoreError::Full { database, doing: "make it", why },
        _ => StoreError::Away { database, doing: "open it", why },
    }
}

fn shown(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// A path inside a `file:` URI (sqlite.org/uri.html).
fn encoded(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}

fn fault(error: &rusqlite::Error) -> EngineError {
    use EngineFault::{Away, Conflict, Damaged, Denied, Foreign, Full, Rejected};
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Conflict,
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => Denied,
        Some(ErrorCode::DiskFull) => Full,
        Some(ErrorCode::DatabaseCorrupt) => Damaged,
        Some(ErrorCode::NotADatabase) => Foreign,
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::FileLockingProtocolFailed | ErrorCode::OutOfMemory) => Away,
        Some(_) | None => Rejected,
    };
    EngineError::new(kind, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_a_quarter_of_what_room_there_is() {
        for (room, pages) in
            [(0, 16), (64 * PAGE, 16), (256 * PAGE, 64), (1 << 20, 64), (1 << 40, JOURNAL_PAGES), (u64::MAX, JOURNAL_PAGES)]
        {
            assert_eq!(pages_for(room), pages, "{room}");
        }
    }
}
