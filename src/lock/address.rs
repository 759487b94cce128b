//! What the texts of `lock`, `lock_ttl`, `lock_delay` and `wait_lock` mean. Decides only; opens nothing.
//!
//! ```text
//! file:PATH
//! postgresql://USER@HOST[:PORT]/DATABASE?key=K[&passfile=F][&password_file=F][&sslmode=..][&sslrootcert=F]
//! etcd://[USER@]HOST[:2379][,HOST..]/KEY[?password_file=F][&tls=yes][&ca_file=F][&cert_file=F&key_file=F]
//! consul://HOST[:8500][,HOST..]/KEY[?token_file=F][&tls=yes][&ca_file=F][&cert_file=F&key_file=F]
//! ```

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::lease::Terms;
use crate::config::url::{Url, encode, is_key};
use crate::config::value;

/// `lock_ttl` where nothing is said.
pub const DEFAULT_TTL: Duration = Duration::from_secs(60);
/// `lock_delay` where nothing is said.
pub const DEFAULT_DELAY: Duration = Duration::from_secs(1);

/// A setting of a lock that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{key} = {value}: {expected}")]
pub struct SettingError {
    /// The key it is about.
    pub key: &'static str,
    /// Its value, passwords masked.
    pub value: String,
    /// What was expected.
    pub expected: String,
}

/// A text that is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a lock is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A file of this machine, locked with flock(2).
    File(PathBuf),
    /// A row of a table in PostgreSQL.
    Postgres(PostgresAddress),
    /// A key in etcd.
    Etcd(HttpAddress),
    /// A key in Consul.
    Consul(HttpAddress),
}

/// A database and the key of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresAddress {
    /// The URL without the parameters that are ours.
    pub url: Secret,
    /// The same for people.
    pub shown: String,
    /// The lock's name in the table.
    pub key: String,
    /// A file of passwords as libpq has them (`host:port:database:user:password`).
    pub passfile: Option<PathBuf>,
    /// A file that holds the password and nothing else.
    pub password_file: Option<PathBuf>,
    /// Certificates that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether the connection must be encrypted, may be, or must not be.
    pub tls: TlsMode,
}

/// `sslmode` of a PostgreSQL URL. Where there is TLS the certificate is always verified, the name included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// `disable`.
    Off,
    /// `prefer`, the default: with TLS where the server offers it.
    Prefer,
    /// `require`, `verify-ca`, `verify-full`.
    Require,
}

/// A key-value store that is spoken to over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAddress {
    /// `host:port`, at least one; the next is asked when one cannot be reached.
    pub hosts: Vec<String>,
    /// The key.
    pub key: String,
    /// Who logs in.
    pub user: Option<String>,
    /// A password that stands in the URL.
    pub password: Option<Secret>,
    /// A file that holds the password, or the token, and nothing else.
    pub secret_file: Option<PathBuf>,
    /// Whether to use TLS.
    pub tls: bool,
    /// Certificates that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// `etcd://host:port/key`, for people.
    pub shown: String,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Postgres(address) => f.write_str(&address.shown),
            Self::Etcd(address) | Self::Consul(address) => f.write_str(&address.shown),
        }
    }
}

impl Address {
    /// Reads the value of `lock`. Relative paths start from `base`.
    ///
    /// # Errors
    /// What was expected; no part of a password is in it.
    pub fn parse(text: &str, base: &Path) -> Result<Self, String> {
        const EXPECTED: &str = "expected file:PATH, postgresql://.../DATABASE?key=K, etcd://HOST:2379/KEY or consul://HOST:8500/KEY";
        if let Some(path) = text.strip_prefix("file:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return value::path(path, base).map(Self::File);
        }
        let url = Url::parse(text, EXPECTED)?;
        match url.scheme {
            "postgresql" | "postgres" => PostgresAddress::parse(text, url, base).map(Self::Postgres),
            "etcd" => HttpAddress::parse(2379, "password_file", url, base).map(Self::Etcd),
            "consul" => HttpAddress::parse(8500, "token_file", url, base).map(Self::Consul),
            _ => Err(EXPECTED.to_owned()),
        }
    }

    /// The engine, in the word that `lock` begins with.
    pub fn engine(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Postgres(_) => "postgresql",
            Self::Etcd(_) => "etcd",
            Self::Consul(_) => "consul",
        }
    }

    /// The key in it; of a file its path.
    pub fn key(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Postgres(address) => address.key.clone(),
            Self::Etcd(address) | Self::Consul(address) => address.key.clone(),
        }
    }

    /// Whether the lock is a lease that runs out.
    pub fn is_leased(&self) -> bool {
        match self {
            Self::File(_) => false,
            Self::Postgres(_) | Self::Etcd(_) | Self::Consul(_) => true,
        }
    }
}

fn check_key(key: &str) -> Result<(), String> {
    if is_key(key) { Ok(()) } else { Err("expected a key, up to 512 bytes without control characters".to_owned()) }
}

impl PostgresAddress {
    fn parse(text: &str, mut url: Url<'_>, base: &Path) -> Result<Self, String> {
        let key = url.take("key")?.ok_or("expected a parameter key=NAME behind the database, such as ?key=nightly")?;
        check_key(&key)?;
        let (passfile, password_file) = (url.take_path("passfile", base)?, url.take_path("password_file", base)?);
        // The name that libpq has for it, and the one that the other engines have.
        let (ca_file, other) = (url.take_path("sslrootcert", base)?, url.take_path("ca_file", base)?);
        let tls = url.take("sslmode")?.map_or(Ok(TlsMode::Prefer), |text| tls_mode(&text))?;
        let kept: Vec<String> = url.rest().iter().map(|(name, text)| format!("{name}={text}")).collect();
        let head = text.split('?').next().unwrap_or(text);
        let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
        let shown = format!("{}?key={}", value::mask_secrets(head), encode(&key));
        Ok(Self { url: Secret(format!("{head}{query}")), shown, key, passfile, password_file, ca_file: ca_file.or(other), tls })
    }
}

fn tls_mode(text: &str) -> Result<TlsMode, String> {
    value::choice(
        text,
        &[
            ("disable", TlsMode::Off),
            ("prefer", TlsMode::Prefer),
            ("require", TlsMode::Require),
            ("verify-ca", TlsMode::Require),
            ("verify-full", TlsMode::Require),
        ],
    )
    .map_err(|expected| format!("sslmode={text}: {expected}"))
}

impl HttpAddress {
    fn parse(port: u16, secret: &str, mut url: Url<'_>, base: &Path) -> Result<Self, String> {
        let (secret_file, ca_file) = (url.take_path(secret, base)?, url.take_path("ca_file", base)?);
        let (identity, tls) = (url.take_identity(base)?, url.take_tls()?);
        if let Some((name, _)) = url.rest().first() {
            return Err(format!("`{name}` is not known; expected {secret}, tls, ca_file, cert_file or key_file"));
        }
        let hosts = url.hosts(port)?;
        check_key(&url.path)?;
        let tls = tls.unwrap_or(ca_file.is_some() || identity.is_some());
        let shown = format!("{}://{}/{}", url.scheme, hosts.join(","), encode(&url.path));
        let password = url.password.map(Secret);
        Ok(Self { hosts, key: url.path, user: url.user, password, secret_file, tls, ca_file, identity, shown })
    }
}

/// The values of the four keys as they were written; `None` where they were not.
#[derive(Debug, Clone, Copy, Default)]
pub struct LockTexts<'a> {
    /// `lock`.
    pub lock: &'a str,
    /// `lock_ttl`.
    pub ttl: Option<&'a str>,
    /// `lock_delay`.
    pub delay: Option<&'a str>,
    /// `wait_lock`.
    pub wait: Option<&'a str>,
}

/// What is to be locked, and with which times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockSettings {
    /// Where.
    pub address: Address,
    /// For how long it is ours without a renewal, and what the tasks need to end.
    pub terms: Terms,
    /// The TTL by itself.
    pub ttl: Duration,
    /// How much longer the engine keeps it from others than we trust in it.
    pub delay: Duration,
    /// How long to wait for it; `None` for ever.
    pub wait: Option<Duration>,
}

impl LockSettings {
    /// Reads the four keys. Relative paths start from `base`; `kill_after` is the longest of what runs under the lock.
    ///
    /// # Errors
    /// The key that is wrong, and what was expected.
    pub fn parse(texts: LockTexts<'_>, kill_after: Duration, base: &Path) -> Result<Self, SettingError> {
        let wrong = |key, text: &str, expected| SettingError { key, value: mask(text), expected };
        let address = Address::parse(texts.lock, base).map_err(|expected| wrong("lock", texts.lock, expected))?;
        // As the table of keys reads them: what is wrong is told in the same words, and so only once.
        let read = |key, text: &str, read: fn(&str) -> Result<Duration, String>| read(text).map_err(|expected| wrong(key, text, expected));
        let ttl = texts.ttl.map_or(Ok(DEFAULT_TTL), |text| read("lock_ttl", text, value::finite))?;
        let delay = texts.delay.map_or(Ok(DEFAULT_DELAY), |text| read("lock_delay", text, value::finite))?;
        let wait = texts.wait.map_or(Ok(Duration::ZERO), |text| read("wait_lock", text, value::duration))?;
        let ttl_text = texts.ttl.unwrap_or("60");
        if delay > Duration::from_secs(60) {
            return Err(wrong("lock_delay", texts.delay.unwrap_or_default(), "expected 0 to 60 s".to_owned()));
        }
        let terms = if address.is_leased() {
            if ttl > Duration::from_secs(86_400) {
                return Err(wrong("lock_ttl", ttl_text, "expected at most a day".to_owned()));
            }
            Terms::new(ttl, kill_after).map_err(|short| wrong("lock_ttl", ttl_text, short.to_string()))?
        } else {
            Terms::endless(kill_after)
        };
        if matches!(address, Address::Consul(_)) && ttl < Duration::from_secs(10) {
            return Err(wrong("lock_ttl", ttl_text, "expected at least 10 s, Consul takes no shorter session".to_owned()));
        }
        let wait = (wait != Duration::MAX).then_some(wait);
        Ok(Self { address, terms, ttl, delay, wait })
    }
}

/// The text for a message: passwords masked, also where the URL is too broken to be parsed.
fn mask(text: &str) -> String {
    value::mask_secrets(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn parse(text: &str) -> Result<Address, String> {
        Address::parse(text, Path::new("/etc/runner"))
    }

    #[test]
    fn urls_of_every_engine() {
        assert_eq!(parse("file:a.lock"), Ok(Address::File("/etc/runner/a.lock".into())));
        assert_eq!(parse("file:///var/a"), Ok(Address::File("/var/a".into())));
        let Ok(Address::Postgres(postgres)) =
            parse("postgresql://me:p%40ss@db/x?key=a%20b&sslmode=require&connect_timeout=3&password_file=pw")
        else {
            panic!("no postgresql address")
        };
        assert_eq!((postgres.key.as_str(), postgres.url.0.as_str()), ("a b", "postgresql://me:p%40ss@db/x?connect_timeout=3"));
        assert_eq!((postgres.password_file, postgres.tls), (Some("/etc/runner/pw".into()), TlsMode::Require));
        assert_eq!(postgres.shown, "postgresql://me:***@db/x?key=a%20b");
        let Ok(Address::Etcd(etcd)) = parse("etcd://u@a,b:1,[::1]/jobs/x?password_file=/pw&ca_file=ca.pem") else {
            panic!("no etcd address")
        };
        assert_eq!(etcd.hosts, ["a:2379", "b:1", "[::1]:2379"]);
        assert_eq!((etcd.key.as_str(), etcd.tls, etcd.user.as_deref()), ("jobs/x", true, Some("u")));
        let Ok(Address::Consul(consul)) = parse("consul://h/k?token_file=t") else { panic!("no consul address") };
        assert_eq!((consul.hosts[0].as_str(), consul.shown.as_str(), consul.tls), ("h:8500", "consul://h:8500/k", false));
    }

    #[rstest]
    #[case("nightly")]
    #[case("redis://h/k")]
    #[case("file:")]
    #[case("postgresql://h/d")]
    #[case("postgresql://h/d?key=k&sslmode=maybe")]
    #[case("etcd://h/")]
    #[case("etcd:///k")]
    #[case("etcd://h:x/k")]
    #[case("consul://h/k?password_file=p")]
    #[case("consul://h/k?cert_file=c")]
    #[case("etcd://h/k%2")]
    fn what_is_no_lock(#[case] text: &str) {
        assert!(parse(text).is_err(), "{text}: {:?}", parse(text));
    }

    fn settings(lock: &str, ttl: &str, kill_after: u64) -> Result<LockSettings, String> {
        let texts = LockTexts { lock, ttl: Some(ttl), delay: None, wait: Some("infinity") };
        LockSettings::parse(texts, Duration::from_secs(kill_after), Path::new("/")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_ttl_has_room_for_stopping() {
        assert_eq!(settings("etcd://h/k", "35", 10).unwrap_err(), "lock_ttl = 35: expected at least 36 s, three times (kill_after + 2 s)");
        let taken = settings("etcd://h/k", "36", 10).unwrap();
        assert_eq!((taken.wait, taken.delay, taken.ttl), (None, Duration::from_secs(1), Duration::from_secs(36)));
        assert!(settings("consul://h/k", "9", 0).unwrap_err().contains("at least 10 s"));
        assert!(settings("etcd://h/k", "2d", 0).unwrap_err().contains("at most a day"));
        assert!(settings("file:x", "1", 10).is_ok(), "a file's lock has no TTL");
        let masked = settings("etcd://u:secret@h:port/k", "60", 0).unwrap_err();
        assert!(!masked.contains("secret"), "{masked}");
    }

    #[test]
    fn no_password_is_shown() {
        let all = format!("{:?} {:?}", parse("postgresql://me:hunter2@db/x?key=k"), parse("etcd://me:hunter2@db/x"));
        assert!(!all.contains("hunter2"), "{all}");
    }
}
