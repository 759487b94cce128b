//! Where the state is kept: the value of `database`, and the directory that stands in for it. Decides only.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::value::{self, Parsed};

/// The state directory of the system.
pub const SYSTEM_DIR: &str = "/var/lib/runner";
/// The database in a state directory, where `database` names no other.
pub const FILE_NAME: &str = "runner.db";

/// A database, as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A file of SQLite.
    Sqlite(PathBuf),
    /// A connection URI of PostgreSQL (libpq, "Connection URIs").
    Postgres(String),
}

impl DatabaseUrl {
    /// Reads `sqlite:PATH` (relative to `base`) or `postgresql://...`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str, base: &Path) -> Parsed<Self> {
        const EXPECTED: &str = "expected sqlite:PATH or postgresql://[USER@]HOST[:PORT]/NAME";
        if text.starts_with("postgresql://") || text.starts_with("postgres://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        let path = text.strip_prefix("sqlite:").ok_or_else(|| EXPECTED.to_owned())?;
        let path = if path.starts_with("///") { &path[2..] } else { path };
        value::path(path, base).map(Self::Sqlite).map_err(|_| EXPECTED.to_owned())
    }
}

/// As it may be shown: without a password.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => f.write_str(&value::mask_secrets(url)),
        }
    }
}

/// Files in which the password of a database may stand.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// `$PGPASSFILE`, else `~/.pgpass` (libpq, "The Password File").
    pub passfile: Option<PathBuf>,
    /// `$CREDENTIALS_DIRECTORY` (systemd.exec(5), LoadCredential=).
    pub credentials: Option<PathBuf>,
}

/// The state directory: `$STATE_DIRECTORY` (the first, systemd.exec(5) may name several), else that of the system for
/// root, else `runner` in `$XDG_STATE_HOME` or `~/.local/state` (XDG base directories). Relative ones count for nothing.
pub fn state_dir(variable: impl Fn(&str) -> Option<OsString>, root: bool) -> Option<PathBuf> {
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    let first = |value: OsString| std::env::split_paths(&value).next();
    let given = variable("STATE_DIRECTORY").and_then(first).and_then(absolute);
    let of_user = || {
        let xdg = variable("XDG_STATE_HOME").map(PathBuf::from).and_then(absolute);
        let home = || variable("HOME").map(PathBuf::from).and_then(absolute).map(|home| home.join(".local/state"));
        xdg.or_else(home).map(|dir| dir.join("runner"))
    };
    given.or_else(|| if root { Some(SYSTEM_DIR.into()) } else { of_user() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_a_file_or_a_server() {
        let read = |text| DatabaseUrl::parse(text, Path::new("/etc/runner"));
        assert_eq!(read("sqlite:state.db"), Ok(DatabaseUrl::Sqlite("/etc/runner/state.db".into())));
        assert_eq!(read("sqlite:/srv/x.db"), Ok(DatabaseUrl::Sqlite("/srv/x.db".into())));
        assert_eq!(read("sqlite:///srv/x.db"), Ok(DatabaseUrl::Sqlite("/srv/x.db".into())));
        assert_eq!(read("postgresql://me:secret@db/runner").unwrap().to_string(), "postgresql://me:***@db/runner");
        for wrong in ["", "runner.db", "sqlite:", "mysql://db/x"] {
            assert!(read(wrong).unwrap_err().contains("expected sqlite:PATH"), "{wrong}");
        }
    }

    #[test]
    fn the_state_directory_is_the_first_that_is_named() {
        let with = |pairs: &'static [(&str, &str)], root| {
            let find = move |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into());
            state_dir(find, root).map(|dir| dir.display().to_string()).unwrap_or_default()
        };
        assert_eq!(with(&[("STATE_DIRECTORY", "/a:/b"), ("HOME", "/root")], true), "/a");
        assert_eq!(with(&[("XDG_STATE_HOME", "/x")], true), SYSTEM_DIR);
        assert_eq!(with(&[("XDG_STATE_HOME", "/x"), ("HOME", "/h")], false), "/x/runner");
        assert_eq!(with(&[("XDG_STATE_HOME", "rel"), ("HOME", "/h")], false), "/h/.local/state/runner");
        assert_eq!(with(&[], false), "");
    }
}
