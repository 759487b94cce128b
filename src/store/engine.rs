//! What every engine can do: statements inside a transaction. What runner keeps is written once, in `slots` and `runs`,
//! over this; the engines differ in how they connect, lock and fail.

use jiff::Timestamp;

use super::Owner;
use super::error::{EngineError, StoreError};

/// A value that goes to a database or comes from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// None.
    Null,
    /// A whole number; every number column is a BIGINT.
    Int(i64),
    /// Text; every other column is one.
    Text(String),
}

/// One row of an answer.
pub type Row = Vec<Cell>;

/// The statements of one transaction. Parameters are `$1`, `$2`, .. and first stand in the text in that order.
pub trait Statements {
    /// Does something; tells how many rows it touched.
    ///
    /// # Errors
    /// The engine does not do it; the transaction is lost.
    fn run(&mut self, sql: &str, values: &[Cell]) -> Result<u64, EngineError>;

    /// Asks for rows.
    ///
    /// # Errors
    /// As for [`Statements::run`].
    fn rows(&mut self, sql: &str, values: &[Cell]) -> Result<Vec<Row>, EngineError>;

    /// What stands behind a question for rows that nobody else is to take meanwhile; those that somebody takes in this
    /// moment are left out. Nothing where writers come one after the other.
    fn taking(&self) -> &'static str {
        ""
    }

    /// Nobody else does what has this name until the transaction ends. Nothing where writers come one after the other.
    ///
    /// # Errors
    /// As for [`Statements::run`].
    fn alone_with(&mut self, _name: &str) -> Result<(), EngineError> {
        Ok(())
    }

    /// Tells all workers this word when the transaction is done, where the engine can do that.
    ///
    /// # Errors
    /// As for [`Statements::run`].
    fn tell_workers(&mut self, _word: &str) -> Result<(), EngineError> {
        Ok(())
    }

    /// Adds one row to a table whose rows are numbered; its number.
    ///
    /// # Errors
    /// As for [`Statements::rows`].
    fn add(&mut self, sql: &str, values: &[Cell]) -> Result<i64, EngineError> {
        let rows = self.rows(&format!("{sql} RETURNING id"), values)?;
        Ok(rows.into_iter().next().map_or(0, |row| Columns::of(row).int()))
    }
}

/// What is done in one transaction. It may be called again from the start when another one was in the way.
pub type Work<'a> = &'a mut dyn FnMut(&mut dyn Statements) -> Result<(), EngineError>;

/// A connection to a database.
pub trait Engine: Send {
    /// The database as it may be shown.
    fn shown(&self) -> &str;

    /// Does `work` in one transaction that writes: all of it is there for ever when this returns, or none of it is.
    ///
    /// # Errors
    /// It could not be done. When the connection was lost in the last moment it may have been done all the same:
    /// every deed of the store can be repeated.
    fn write(&mut self, doing: &'static str, work: Work<'_>) -> Result<(), StoreError>;

    /// Does `work` in one transaction that only reads and sees one state of everything.
    ///
    /// # Errors
    /// It could not be done.
    fn read(&mut self, doing: &'static str, work: Work<'_>) -> Result<(), StoreError>;

    /// The time by the clock that all users of the database share; `ours` where that is the machine's.
    ///
    /// # Errors
    /// It could not be asked.
    fn clock(&mut self, ours: Timestamp) -> Result<Timestamp, StoreError> {
        Ok(ours)
    }

    /// Statements each of which is a transaction of its own, where that saves journeys to a server. None while there is no
    /// connection. Whoever is told of a failure does not know whether it was done.
    fn alone(&mut self) -> Option<&mut dyn Statements> {
        None
    }

    /// Whether what was opened is not what has its name any more; it is not to be used then.
    fn is_gone(&mut self) -> bool {
        false
    }

    /// Whether there is a sign that this process lives, although nobody here can see it.
    fn sees_life(&self, _owner: &Owner) -> bool {
        false
    }
}

/// `$from, $from+1, ..`: the places of `count` values.
pub fn places(from: usize, count: usize) -> String {
    (from..from + count).map(|place| format!("${place}")).collect::<Vec<_>>().join(", ")
}

/// The places of several rows of `columns` values each: `($1, $2), ($3, $4)`.
pub fn rows_of_places(rows: usize, columns: usize) -> String {
    (0..rows).map(|row| format!("({})", places(row * columns + 1, columns))).collect::<Vec<_>>().join(", ")
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Takes the values of a row one after the other. A column that is not of its type reads as if it were empty: the tables
/// are ours, and a reader of the past must not fail for one row that somebody has changed by hand.
#[derive(Debug)]
pub struct Columns(std::vec::IntoIter<Cell>);

impl Columns {
    /// The values of this row.
    pub fn of(row: Row) -> Self {
        Self(row.into_iter())
    }

    /// The next value, a number that may be absent.
    pub fn optional_int(&mut self) -> Option<i64> {
        match self.0.next() {
            Some(Cell::Int(number)) => Some(number),
            Some(Cell::Null | Cell::Text(_)) | None => None,
        }
    }

    /// The next value, a number.
    pub fn int(&mut self) -> i64 {
        self.optional_int().unwrap_or(0)
    }

    /// The next value, a number of a smaller type; one that does not fit is absent.
    pub fn optional<T: TryFrom<i64>>(&mut self) -> Option<T> {
        self.optional_int().and_then(|number| T::try_from(number).ok())
    }

    /// The next value, a text that may be absent.
    pub fn optional_text(&mut self) -> Option<String> {
        match self.0.next() {
            Some(Cell::Text(text)) => Some(text),
            Some(Cell::Null | Cell::Int(_)) | None => None,
        }
    }

    /// The next value, a text.
    pub fn text(&mut self) -> String {
        self.optional_text().unwrap_or_default()
    }
}
