//! The address of a server: what of a connection URI is ours, what the library reads, and where the password stands.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postgres::Config;
use postgres::config::{Host, SslMode};

use super::tls::Check;
use crate::config::database::Secrets;
use crate::config::value::mask_secrets;
use crate::plain::{self, LONGEST, LastLink};
use crate::store::StoreError;

/// The time for a connection to be made, unless the address says another (`connect_timeout`).
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// The time for one statement, unless the address says another (`statement_timeout`).
const STATEMENT_TIME: Duration = Duration::from_secs(30);
/// The file in `$CREDENTIALS_DIRECTORY` that holds the password.
const CREDENTIAL: &str = "database_password";

/// A server and how to get in. Holds a password only if the address has one.
#[derive(Clone)]
pub struct Server {
    /// The address as it may be shown.
    pub name: String,
    /// How the server proves who it is.
    pub check: Check,
    /// The time for a connection to be made and let in.
    pub connect_time: Duration,
    /// The time for one statement.
    pub statement_time: Duration,
    config: Config,
    password_file: Option<PathBuf>,
    secrets: Secrets,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Server {
    /// Reads a connection URI (libpq, "Connection URIs"). `sslmode`, `sslrootcert`, `passfile`, and our own `password_file` and
    /// `statement_timeout` (in seconds) are read here.
    ///
    /// # Errors
    /// It cannot be read; what is wrong with it.
    pub fn new(url: &str, secrets: &Secrets) -> Result<Self, StoreError> {
        let name = mask_secrets(url);
        let wrong = |why: String| StoreError::Address { database: name.clone(), why };
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut root, mut password_file, mut secrets) = ("prefer".to_owned(), None, None, secrets.clone());
        let (mut statement_time, mut rest) = (STATEMENT_TIME, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| wrong(format!("`{pair}` is no key=value")))?;
            match key {
                "sslmode" => mode = decoded(value),
                "sslrootcert" => root = Some(decoded(value)),
                "password_file" => password_file = Some(PathBuf::from(decoded(value))),
                "passfile" => secrets.passfile = Some(PathBuf::from(decoded(value))),
                "statement_timeout" => {
                    let seconds = value.parse().ok().filter(|seconds| (1..=3600).contains(seconds));
                    statement_time =
                        Duration::from_secs(seconds.ok_or_else(|| wrong("statement_timeout: expected seconds, 1 to 3600".to_owned()))?);
                }
                _ => rest.push(pair),
            }
        }
        let base = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
        let mut config: Config = base.parse().map_err(|error| wrong(in_words(&error)))?;
        let (ssl_mode, check) = Check::of_mode(&mode, root.as_deref()).map_err(wrong)?;
        let local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        config.ssl_mode(if local { SslMode::Disable } else { ssl_mode });
        if config.get_application_name().is_none() {
            config.application_name("runner");
        }
        let connect_time = config.get_connect_timeout().copied().unwrap_or(CONNECT_TIME);
        config.connect_timeout(connect_time).tcp_user_timeout(statement_time).keepalives_idle(Duration::from_secs(60));
        Ok(Self { name, check, connect_time, statement_time, config, password_file, secrets })
    }

    /// What to connect with. The password is read anew each time: it may have been changed.
    ///
    /// # Errors
    /// The file that is to hold the password cannot be read.
    pub fn config(&self) -> Result<Config, String> {
        let mut config = self.config.clone();
        if config.get_password().is_none()
            && let Some(password) = self.password()?
        {
            config.password(password);
        }
        Ok(config)
    }

    fn password(&self) -> Result<Option<String>, String> {
        let first_line = |path: &Path| {
            let text = plain::read_secret(path).map_err(|error| format!("the password file {}: {error}", path.display()))?;
            Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
        };
        if let Some(file) = &self.password_file {
            return first_line(file);
        }
        if let Some(file) = self.secrets.credentials.as_ref().map(|dir| dir.join(CREDENTIAL)).filter(|file| file.exists()) {
            return first_line(&file);
        }
        Ok(self.secrets.passfile.as_deref().and_then(|file| self.passfile_entry(file)))
    }

    /// As libpq does: a file that others may read is left alone, the first line that fits counts.
    fn passfile_entry(&self, file: &Path) -> Option<String> {
        let mode = fs::metadata(file).ok()?.permissions().mode();
        if mode & 0o077 != 0 {
            log::warn!("the password file {} is not used: others may read it (mode {:o}); chmod 600", file.display(), mode & 0o777);
            return None;
        }
        let text = plain::read_text(file, LastLink::Followed, LONGEST);
        let text = text.map_err(|error| log::warn!("the password file {}: {error}", file.display())).ok()?;
        let (host, port) = match self.config.get_hosts().first() {
            Some(Host::Tcp(host)) => (host.clone(), self.port()),
            Some(Host::Unix(_)) | None => ("localhost".to_owned(), self.port()),
        };
        let user = self.config.get_user().unwrap_or_default();
        let wanted = [host, port, self.config.get_dbname().unwrap_or(user).to_owned(), user.to_owned()];
        text.lines().filter(|line| !line.starts_with('#')).find_map(|line| password_of(line, &wanted))
    }

    fn port(&self) -> String {
        self.config.get_ports().first().copied().unwrap_or(5432).to_string()
    }
}

/// The password of a line `host:port:database:user:password`, if it fits. `\` takes the meaning of `:` and `\`.
fn password_of(line: &str, wanted: &[String; 4]) -> Option<String> {
    let mut fields = vec![String::new()];
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => fields.last_mut()?.push(letters.next().unwrap_or('\\')),
            ':' if fields.len() < 5 => fields.push(String::new()),
            letter => fields.last_mut()?.push(letter),
        }
    }
    let password = (fields.len() == 5).then(|| fields.pop()).flatten()?;
    fields.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted).then_some(password)
}

/// `%41` is `A` (RFC 3986).
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut plain, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let hex = (*byte == b'%').then(|| text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok())).flatten();
        plain.push(hex.unwrap_or(*byte));
        at += if hex.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// An error and its causes on one line: the library keeps what happened in the causes.
pub fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.contains(&text) {
            words.push_str(": ");
            words.push_str(&text);
        }
        cause = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_password_file_fits_or_not() {
        let wanted = ["db", "5432", "runner", "me"].map(str::to_owned);
        let found = |line| password_of(line, &wanted);
        assert_eq!(found("db:5432:runner:me:a\\:b\\\\c:d").as_deref(), Some("a:b\\c:d"));
        assert_eq!(found("*:*:*:*:x").as_deref(), Some("x"));
        assert_eq!(found("db:5433:runner:me:x"), None);
        assert_eq!(found("db:5432:runner:me"), None);
    }

    #[test]
    fn what_is_ours_is_taken_out_of_the_address_and_nothing_shows_the_password() {
        let url = "postgresql://me:secret@db:1/x?sslmode=verify-full&connect_timeout=3&statement_timeout=2&password_file=%2Fp%20w";
        let server = Server::new(url, &Secrets::default()).unwrap();
        assert_eq!((server.connect_time, server.statement_time), (Duration::from_secs(3), Duration::from_secs(2)));
        assert_eq!(server.password_file, Some("/p w".into()));
        assert!(!format!("{server:?}").contains("secret") && server.name.contains("me:***@db"));
        for (wrong, why) in [
            ("postgresql://db/x?sslmode=maybe", "sslmode"),
            ("postgresql://db/x?statement_timeout=0", "statement_timeout"),
            ("postgresql://me:secret@db/x?colour=red", "colour"),
            ("postgresql://db:port/x", "port"),
        ] {
            let error = Server::new(wrong, &Secrets::default()).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{error}");
        }
    }
}
