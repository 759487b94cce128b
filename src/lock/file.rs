//! A lock in a file: flock(2), which ends with its holder. Beside the file stand its token, which outlives a crash of the
//! machine, and the record of its owner, which need not. Touches these three files.
//!
//! The lock holds among the processes of one machine. Nobody may remove the file while it is used.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::evict::{here, is_alive};
use super::lease::Token;
use super::owner::Owner;
use super::{Attempt, Bid, Engine, Holder, LockError, Renewal};
use crate::plain::{self, LastLink};
use crate::trust::TrustCheck;

/// More than this is no token, and no record of an owner.
const LONGEST: u64 = 1024 * 1024;

/// How often a file that was exchanged under us is opened again before that is an error.
const REOPEN: usize = 10;

/// The engine of `file:PATH`.
#[derive(Debug)]
pub struct FileEngine {
    path: PathBuf,
    token_file: PathBuf,
    owner_file: PathBuf,
    held: Option<File>,
    /// The record is ours, and not yet that of a dead holder.
    recorded: bool,
}

impl FileEngine {
    /// A lock in this file. Whoever could write it, or exchange it, could keep root from running for ever, or name the processes
    /// that a dead owner is said to have left: root takes no such file, nor what stands beside it.
    ///
    /// # Errors
    /// It is not trusted.
    pub fn new(path: &Path) -> Result<Self, LockError> {
        let engine = Self::of(path);
        for path in [&engine.path, &engine.token_file, &engine.owner_file] {
            trust(path)?;
        }
        Ok(engine)
    }

    fn of(path: &Path) -> Self {
        let beside = |ending: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        Self { path: path.to_owned(), token_file: beside(".token"), owner_file: beside(".owner"), held: None, recorded: false }
    }

    fn wrong(path: &Path) -> impl FnOnce(io::Error) -> LockError + use<> {
        let path = path.to_owned();
        move |error| LockError::File { path, error }
    }

    /// Opens and locks the file that has the name now; `None` when somebody else holds it.
    fn try_lock(&self) -> Result<Option<File>, LockError> {
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir).map_err(Self::wrong(dir))?;
        }
        for _ in 0..REOPEN {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o644);
            let file = plain::open(&mut options, &self.path, LastLink::Refused).map_err(Self::wrong(&self.path))?;
            trust(&self.path)?;
            match file.try_lock() {
                Ok(()) if self.is_named(&file) => return Ok(Some(file)),
                // Removed or exchanged between open and lock: whoever opens the name now would lock another file.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(Self::wrong(&self.path)(error)),
            }
        }
        Err(Self::wrong(&self.path)(io::Error::other("it is exchanged again and again while it is opened")))
    }

    fn is_named(&self, file: &File) -> bool {
        let identity = |data: &fs::Metadata| (data.dev(), data.ino());
        match (file.metadata(), fs::metadata(&self.path)) {
            (Ok(open), Ok(named)) => identity(&open) == identity(&named),
            (Ok(_) | Err(_), Ok(_) | Err(_)) => false,
        }
    }

    fn token(&self) -> Option<Token> {
        plain::read_text(&self.token_file, LastLink::Refused, LONGEST).ok()?.trim().parse().ok().map(Token)
    }

    /// The last token, unless it is one that nobody can have been given: after it none could grow.
    fn sane_token(&self) -> Option<Token> {
        let token = self.token()?;
        if token.is_absurd() {
            log::warn!("{}: the token {token} is greater than any that runner gives, and not believed", self.token_file.display());
            return None;
        }
        Some(token)
    }

    fn owner(&self) -> Option<Owner> {
        Owner::from_json(&plain::read_text(&self.owner_file, LastLink::Refused, LONGEST).ok()?)
    }

    fn write_owner(&self, owner: &Owner) -> Result<(), LockError> {
        replace(&self.owner_file, &owner.to_json(), false).map_err(Self::wrong(&self.owner_file))
    }
}

/// Looks who could have written a file, and each directory above it. What is not there is nobody's.
fn trust(path: &Path) -> Result<(), LockError> {
    let wrong = TrustCheck::for_root().map(|mut check| check.check(path)).unwrap_or_default();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(LockError::File { path: path.to_owned(), error: io::Error::other(format!("not trusted: {}", wrong.join("; "))) })
}

/// Writes beside, and renames: nobody ever sees half a file. `durable` brings it to the disk before it is relied on.
fn replace(path: &Path, text: &str, durable: bool) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    // A left-over, or somebody's link: never written through.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&beside)?;
    file.write_all(text.as_bytes())?;
    if durable {
        file.sync_all()?;
    }
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(dir) if durable => File::open(dir)?.sync_all(),
        Some(_) | None => Ok(()),
    }
}

impl Engine for FileEngine {
    fn acquire(&mut self, bid: &Bid<'_>) -> Result<Attempt, LockError> {
        let Some(file) = self.try_lock()? else {
            return Ok(Attempt::Busy(Holder { owner: self.owner(), token: self.token(), rest: None }));
        };
        trust(&self.token_file)?;
        trust(&self.owner_file)?;
        let previous = self.owner();
        let token = Token::after(self.sane_token(), bid.wall_ms);
        replace(&self.token_file, &format!("{token}\n"), true).map_err(Self::wrong(&self.token_file))?;
        // What the dead holder left running stays in the record until it is ended: we may die before that.
        self.recorded = previous.is_none();
        if self.recorded {
            self.write_owner(bid.owner)?;
        }
        self.held = Some(file);
        Ok(Attempt::Won { token, previous })
    }

    fn renew(&mut self, owner: &Owner) -> Result<Renewal, LockError> {
        match &self.held {
            Some(file) if self.is_named(file) => {
                self.write_owner(owner)?;
                self.recorded = true;
                Ok(Renewal::Held)
            }
            Some(_) | None => Ok(Renewal::Gone),
        }
    }

    fn is_lost(&self) -> bool {
        // What cannot be looked at is not known to be lost.
        let looked = fs::metadata(&self.path);
        let is_there = looked.as_ref().map_or_else(|error| error.kind() != io::ErrorKind::NotFound, |_| true);
        self.held.as_ref().is_some_and(|file| !is_there || looked.is_ok() && !self.is_named(file))
    }

    fn release(&mut self) -> Result<(), LockError> {
        let Some(file) = self.held.take() else { return Ok(()) };
        // The record first: as soon as the lock is free it is the next owner's.
        if self.recorded && self.is_named(&file) {
            match fs::remove_file(&self.owner_file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Self::wrong(&self.owner_file)(error)),
                Ok(()) | Err(_) => {}
            }
        }
        file.unlock().map_err(Self::wrong(&self.path))
    }

    fn look(&mut self) -> Result<Option<Holder>, LockError> {
        // Never by trying the lock: whoever asks for it in that moment would be refused.
        let owner = self.owner().filter(|owner| !owner.place.is_same(&here()) || is_alive(owner));
        Ok(owner.map(|owner| Holder { owner: Some(owner), token: self.token(), rest: None }))
    }
}
