//! What could not be done on which database, and the way out.

use std::io;

/// Why something that has to do with the state could not be done.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or does not answer. It may later.
    #[error("{database}: cannot {doing}: {why}")]
    Away {
        /// The database, without its password.
        database: String,
        /// What was to be done.
        doing: &'static str,
        /// Why not.
        why: String,
    },
    /// Somebody else has to do it, or has to let us.
    #[error("{database}: may not be opened: {why}; ask as its owner, or be given the right")]
    Denied {
        /// The database.
        database: String,
        /// What the system or the server says.
        why: String,
    },
    /// It is not there, and was only to be read.
    #[error("{database}: there is no database; the first run of a chain, daemon or worker makes one")]
    Absent {
        /// The database.
        database: String,
    },
    /// A newer program made it.
    #[error("{database}: is of version {found}, and this program knows version {known}: use the newer program")]
    Newer {
        /// The database.
        database: String,
        /// Its version.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// An older program made it, and it was only to be read.
    #[error("{database}: is of the old version {found}: start the daemon, or another command that writes to it, once")]
    Older {
        /// The database.
        database: String,
        /// Its version.
        found: i64,
    },
    /// It is something else.
    #[error("{database}: is no database of runner: {why}; name another one with `database`")]
    Foreign {
        /// The database.
        database: String,
        /// What it is.
        why: String,
    },
    /// There is no space.
    #[error("{database}: cannot {doing}: {why}; make space, nothing that was acknowledged is lost")]
    Full {
        /// The database.
        database: String,
        /// What was to be done.
        doing: &'static str,
        /// What the system says.
        why: String,
    },
    /// It was damaged.
    #[error("{database}: cannot {doing}: {why}; bring back a copy, or move it away to begin anew")]
    Damaged {
        /// The database.
        database: String,
        /// What was to be done.
        doing: &'static str,
        /// What the engine says.
        why: String,
    },
    /// The engine does not take what we said: a fault of this program, or of somebody who has changed the tables.
    #[error("{database}: cannot {doing}: {why}")]
    Rejected {
        /// The database.
        database: String,
        /// What was to be done.
        doing: &'static str,
        /// What the engine says.
        why: String,
    },
    /// The address cannot be used as it is.
    #[error("{database}: {why}")]
    Address {
        /// The database.
        database: String,
        /// What is wrong with it, and what is expected.
        why: String,
    },
    /// The program was built without what the address asks for.
    #[error("{database}: this program was built without PostgreSQL; use one with the feature `postgres`, or sqlite:PATH")]
    NotBuilt {
        /// The database.
        database: String,
    },
    /// A file or directory of the state cannot be used.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        error: io::Error,
    },
}

impl StoreError {
    /// Whether the same may work later without anybody changing the configuration.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Away { .. } | Self::Full { .. } | Self::File { .. } | Self::Absent { .. } | Self::Denied { .. } => true,
            Self::Newer { .. }
            | Self::Older { .. }
            | Self::Foreign { .. }
            | Self::Damaged { .. }
            | Self::Rejected { .. }
            | Self::Address { .. }
            | Self::NotBuilt { .. } => false,
        }
    }
}

/// What an engine says of one statement; with the database and the deed it becomes a [`StoreError`].
#[derive(Debug)]
pub struct EngineError {
    /// What kind of failure.
    pub kind: EngineFault,
    /// In the words of the engine.
    pub why: String,
}

/// The kinds of failures of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineFault {
    /// No connection, no answer.
    Away,
    /// Another transaction was in the way, and the same again may work at once.
    Conflict,
    /// No right.
    Denied,
    /// No space.
    Full,
    /// The file is no database.
    Foreign,
    /// The file is damaged.
    Damaged,
    /// Anything else.
    Rejected,
}

impl EngineError {
    /// A failure of this kind.
    pub fn new(kind: EngineFault, why: impl Into<String>) -> Self {
        Self { kind, why: why.into() }
    }

    /// With the database and what was to be done.
    pub fn on(self, database: &str, doing: &'static str) -> StoreError {
        let (database, why) = (database.to_owned(), self.why);
        match self.kind {
            EngineFault::Away | EngineFault::Conflict => StoreError::Away { database, doing, why },
            EngineFault::Denied => StoreError::Denied { database, why },
            EngineFault::Full => StoreError::Full { database, doing, why },
            EngineFault::Foreign => StoreError::Foreign { database, why },
            EngineFault::Damaged => StoreError::Damaged { database, doing, why },
            EngineFault::Rejected => StoreError::Rejected { database, doing, why },
        }
    }
}
