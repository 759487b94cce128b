//! PostgreSQL: one database for many machines, everything in the schema `runner`. The connection lives in a thread of
//! its own, so that a server that does not answer costs its time limit and no more.

mod address;
mod line;
mod tls;

pub use address::Server;
use line::{Line, Order, Reply};

use super::engine::{Cell, Columns, Engine, Row, Statements, Work};
use super::error::{EngineError, EngineFault, StoreError};
use super::schema::{self, Dialect};

/// How often a transaction is tried again that was in another one's way.
const MOST_CONFLICTS: u32 = 20;

const DIALECT: Dialect = Dialect { text: "TEXT COLLATE \"C\"", int: "BIGINT", end: "" };

/// A connection to a server, which is made anew when it was lost.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    line: Line,
    to_write: bool,
}

impl Postgres {
    /// Connects in order to write. Makes the tables when they are not there; brings old ones up to date.
    ///
    /// # Errors
    /// The server cannot be reached, lets us not in, or its tables are of a newer version.
    pub fn open(server: Server) -> Result<Self, StoreError> {
        Self::begin(server, true)
    }

    /// Connects in order to read. Changes nothing.
    ///
    /// # Errors
    /// As for [`Postgres::open`]; or there are no tables.
    pub fn open_to_read(server: Server) -> Result<Self, StoreError> {
        Self::begin(server, false)
    }

    fn begin(server: Server, to_write: bool) -> Result<Self, StoreError> {
        let mut postgres = Self { line: Line::new(server.clone()), server, to_write };
        postgres.connect()?;
        Ok(postgres)
    }

    fn connect(&mut self) -> Result<(), StoreError> {
        let name = self.server.name.clone();
        let failed = |error: EngineError| error.on(&name, "connect");
        if self.line.is_open() {
            return Ok(());
        }
        self.line.open().map_err(failed)?;
        let limit = self.server.statement_time.as_millis();
        // What a commit acknowledges has to be on disk, whatever the server does by default.
        let session = format!(
            "SET search_path TO runner; SET statement_timeout TO {limit}; SET lock_timeout TO {limit}; \
             SET idle_in_transaction_session_timeout TO {}; SET default_transaction_read_only TO {}; \
             SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')",
            limit * 2,
            if self.to_write { "off" } else { "on" },
        );
        let found = self.line.batch(&session).and_then(|()| version(&mut self.line));
        let found = found.inspect_err(|_| self.line.close()).map_err(failed)?;
        let known = schema::VERSION;
        let refused = match found {
            Some(found) if found > known => StoreError::Newer { database: name.clone(), found, known },
            Some(found) if found == known => return Ok(()),
            Some(_) | None if self.to_write => return self.migrate(),
            Some(found) => StoreError::Older { database: name.clone(), found },
            None => StoreError::Absent { database: name.clone() },
        };
        self.line.close();
        Err(refused)
    }

    fn migrate(&mut self) -> Result<(), StoreError> {
        let migrated = migrate(&mut self.line);
        if migrated.is_err() {
            self.line.close();
        }
        migrated.map_err(|error| error.on(&self.server.name, "bring its tables up to date"))
    }

    fn transact(&mut self, doing: &'static str, begin: &str, work: Work<'_>) -> Result<(), StoreError> {
        let (mut conflicts, mut fresh) = (0, !self.line.is_open());
        loop {
            self.connect()?;
            match transact_once(&mut self.line, begin, work) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind == EngineFault::Conflict && conflicts < MOST_CONFLICTS => conflicts += 1,
                // A connection that was good once may have ended long ago: the server was started anew.
                Err(error) if error.kind == EngineFault::Away && !fresh && !self.line.is_open() && !self.line.hangs() => fresh = true,
                Err(error) => return Err(error.on(&self.server.name, doing)),
            }
        }
    }
}

fn transact_once(line: &mut Line, begin: &str, work: Work<'_>) -> Result<(), EngineError> {
    let done = line.batch(begin).and_then(|()| work(line)).and_then(|()| line.batch("COMMIT"));
    if done.is_err() && line.is_open() && line.batch("ROLLBACK").is_err() {
        line.close();
    }
    done
}

/// The version of the tables; `None` where there are none.
fn version(line: &mut Line) -> Result<Option<i64>, EngineError> {
    let there = line.rows("SELECT count(*) FROM pg_catalog.pg_tables WHERE schemaname = 'runner' AND tablename = 'version'", &[])?;
    if there.into_iter().next().map(|row| Columns::of(row).int()) != Some(1) {
        return Ok(None);
    }
    let rows = line.rows("SELECT version FROM runner.version", &[])?;
    Ok(rows.into_iter().next().map(|row| Columns::of(row).int()))
}

fn migrate(line: &mut Line) -> Result<(), EngineError> {
    line.batch("BEGIN")?;
    // One at a time: two machines may start together. The number is "runr".
    line.batch("SELECT pg_advisory_xact_lock(1920298610)")?;
    let found = version(line)?;
    let schemas = line.rows("SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname = 'runner'", &[])?;
    // Whoever may not make a schema may be given one.
    if schemas.into_iter().next().map(|row| Columns::of(row).int()) == Some(0) {
        line.batch("CREATE SCHEMA runner")?;
    }
    if found.is_none() {
        line.batch("CREATE TABLE runner.version (version BIGINT NOT NULL); INSERT INTO runner.version VALUES (0)")?;
    }
    for (version, step) in schema::steps(found.unwrap_or(0), DIALECT) {
        line.batch(&step)?;
        line.run("UPDATE runner.version SET version = $1", &[version.into()])?;
    }
    line.batch("COMMIT")
}

impl Engine for Postgres {
    fn shown(&self) -> &str {
        &self.server.name
    }

    fn write(&mut self, doing: &'static str, work: Work<'_>) -> Result<(), StoreError> {
        self.transact(doing, "BEGIN ISOLATION LEVEL READ COMMITTED", work)
    }

    fn read(&mut self, doing: &'static str, work: Work<'_>) -> Result<(), StoreError> {
        self.transact(doing, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", work)
    }
}

impl Statements for Line {
    fn run(&mut self, sql: &str, values: &[Cell]) -> Result<u64, EngineError> {
        match self.call(Order::Run(sql.to_owned(), values.to_vec()))? {
            Reply::Done(rows) => Ok(rows),
            Reply::Rows(rows) => Ok(rows.len() as u64),
        }
    }

    fn rows(&mut self, sql: &str, values: &[Cell]) -> Result<Vec<Row>, EngineError> {
        match self.call(Order::Rows(sql.to_owned(), values.to_vec()))? {
            Reply::Rows(rows) => Ok(rows),
            Reply::Done(_) => Ok(Vec::new()),
        }
    }
}
