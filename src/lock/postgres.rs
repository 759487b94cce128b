//! A lock in PostgreSQL: one row for each key, which expires by the server's clock. Touches one connection.
//!
//! Each question is one statement in one round trip, and so atomic. The row is never removed: its token only grows.
//! Where the server does not answer, the keepalives and the user time-out of TCP end the wait, not a clock of ours: the
//! loop beside us has its own timer.

use std::path::Path;
use std::time::Duration;

use postgres::config::SslMode;
use postgres::error::SqlState;
use postgres::types::{ToSql, Type};
use postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::{LockSettings, PostgresAddress, TlsMode};
use super::lease::Token;
use super::owner::Owner;
use super::{Attempt, Bid, Engine, Holder, LockError, Renewal};
use crate::clock::BootTime;
use crate::plain::{self, LONGEST, LastLink};

/// `token` grows and never goes back; `owner` is empty after the lock was let go.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS runner_lock (
    key text PRIMARY KEY,
    token bigint NOT NULL CHECK (token > 0),
    owner text NOT NULL,
    expires timestamptz NOT NULL
)";

/// The server's own clock decides when a row has expired; now() would be the clock at the beginning of a transaction,
/// and a wait for the row's lock would not count. What was there before is read from the statement's snapshot.
/// That clock may be set: whoever has watched a lease goes by its own, see [`Watched`]. $5 is a token that is not to be taken
/// yet, and $6 with $7 one that was not renewed since.
const ACQUIRE: &str = "WITH won AS (
    INSERT INTO runner_lock AS l (key, token, owner, expires)
    VALUES ($1, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint, $2, clock_timestamp() + $3 * interval '1 ms')
    ON CONFLICT (key) DO UPDATE SET
        token = greatest(l.token + 1, excluded.token), owner = excluded.owner, expires = clock_timestamp() + $3 * interval '1 ms'
    WHERE l.expires <= clock_timestamp() AND (l.owner = '' OR l.token IS DISTINCT FROM $5) OR l.token = $4
        OR l.token = $6 AND floor(extract(epoch FROM l.expires) * 1000000)::bigint = $7
    RETURNING token)
SELECT (SELECT token FROM won), l.token, l.owner, (extract(epoch FROM l.expires - clock_timestamp()) * 1000)::float8,
    floor(extract(epoch FROM l.expires) * 1000000)::bigint
FROM (SELECT 1) AS one LEFT JOIN runner_lock l ON l.key = $1";

/// Also when the row has expired meanwhile: with this token in it nobody was in between.
const RENEW: &str = "UPDATE runner_lock SET expires = clock_timestamp() + $3 * interval '1 ms', owner = $4 WHERE key = $1 AND token = $2";

const RELEASE: &str = "UPDATE runner_lock SET expires = 'epoch', owner = '' WHERE key = $1 AND token = $2";

const LOOK: &str = "SELECT token, owner, (extract(epoch FROM expires - clock_timestamp()) * 1000)::float8
FROM runner_lock WHERE key = $1 AND expires > clock_timestamp()";

/// The engine of `postgresql://`.
pub struct PostgresEngine {
    address: PostgresAddress,
    limit: Duration,
    /// How long the server keeps the row for us, in milliseconds.
    lease_ms: f64,
    client: Option<Client>,
    token: Option<Token>,
    watched: Option<Watched>,
}

/// The lease of somebody else, as we saw it first. A renewal would have changed its end. Until then it is not over,
/// and after it it is, by a clock that nobody sets; what the server's says by then is of no account.
#[derive(Debug, Clone, Copy)]
struct Watched {
    token: i64,
    /// The end by the server's clock, in microseconds since 1970.
    expires: i64,
    /// The end by ours.
    until: BootTime,
}

impl PostgresEngine {
    /// A lock in this row; nothing is connected yet.
    ///
    /// # Errors
    /// The URL is none, or a file of a password or of certificates cannot be used.
    pub fn new(address: &PostgresAddress, settings: &LockSettings) -> Result<Self, LockError> {
        let lease = settings.ttl + settings.delay;
        let engine = Self {
            address: address.clone(),
            limit: settings.terms.call_limit(),
            lease_ms: lease.as_secs_f64() * 1000.0,
            client: None,
            token: None,
            watched: None,
        };
        engine.config()?;
        if engine.address.ca_file.is_some() {
            engine.tls()?;
        }
        Ok(engine)
    }

    fn parse_url(&self) -> Result<Config, LockError> {
        // The parser's own words may hold a part of the URL.
        let why = "its URL is not understood, expected postgresql://USER@HOST:PORT/DATABASE?key=K".to_owned();
        self.address.url.0.parse().map_err(|_| LockError::Refused { address: self.address.shown.clone(), why })
    }

    fn config(&self) -> Result<Config, LockError> {
        let mut config = self.parse_url()?;
        let limit = self.limit.max(Duration::from_secs(1));
        if config.get_connect_timeout().is_none_or(|given| *given > limit) {
            config.connect_timeout(limit);
        }
        // The kernel counts these in whole seconds and takes no zero.
        let interval = (limit / 3).max(Duration::from_secs(1));
        config.tcp_user_timeout(limit).keepalives_idle(limit).keepalives_interval(interval).keepalives_retries(2);
        if config.get_application_name().is_none() {
            config.application_name("runner lock");
        }
        config.ssl_mode(match self.address.tls {
            TlsMode::Off => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require => SslMode::Require,
        });
        if let Some(file) = &self.address.password_file {
            config.password(plain::read_secret(file).map_err(unreadable(file))?);
        } else if let Some(file) = self.address.passfile.as_ref().filter(|_| config.get_password().is_none()) {
            let text = plain::read_text(file, LastLink::Followed, LONGEST).map_err(unreadable(file))?;
            if let Some(password) = find_password(&text, &config) {
                config.password(password);
            }
        }
        Ok(config)
    }

    fn connect(&self) -> Result<Client, LockError> {
        let config = self.config()?;
        let unreachable = |error: postgres::Error| LockError::Unreachable { address: self.address.shown.clone(), why: explain(&error) };
        let local = config.get_hosts().iter().all(|host| matches!(host, postgres::config::Host::Unix(_)));
        let mut client = if self.address.tls == TlsMode::Off || local {
            config.connect(NoTls).map_err(unreachable)?
        } else {
            config.connect(MakeRustlsConnect::new(self.tls()?)).map_err(unreachable)?
        };
        // A statement that waits for the row longer than we would is of no use to anybody.
        let limit = self.limit.as_millis().max(100);
        client.batch_execute(&format!("SET statement_timeout = {limit}; SET lock_timeout = {limit}")).map_err(unreachable)?;
        Ok(client)
    }

    fn tls(&self) -> Result<rustls::ClientConfig, LockError> {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject;
        let mut roots = rustls::RootCertStore::empty();
        match &self.address.ca_file {
            Some(file) => {
                let wrong = || LockError::File { path: file.clone(), error: std::io::Error::other("expected certificates in PEM") };
                let bytes = plain::read(file, LastLink::Followed, LONGEST).map_err(unreadable(file))?;
                for certificate in CertificateDer::pem_slice_iter(&bytes) {
                    roots.add(certificate.map_err(|_| wrong())?).map_err(|_| wrong())?;
                }
            }
            None => {
                // One broken certificate among the system's is no reason to trust none of them.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let refused = |error: rustls::Error| LockError::Refused { address: self.address.shown.clone(), why: error.to_string() };
        Ok(builder.map_err(refused)?.with_root_certificates(roots).with_no_client_auth())
    }

    /// Keeps in mind how long somebody's lease lasts; tells how much is left of it.
    fn watch(&mut self, token: Option<i64>, expires: Option<i64>, rest: Option<Duration>) -> Option<Duration> {
        let now = BootTime::now();
        let known = |watched: &Watched| (Some(watched.token), Some(watched.expires)) == (token, expires);
        if !self.watched.as_ref().is_some_and(known) {
            // Renewed since we looked last, and over by a clock that was set meanwhile: as long as one of ours then.
            let rest = rest.or_else(|| to_rest(Some(self.lease_ms))).unwrap_or_default();
            self.watched = token.zip(expires).map(|(token, expires)| Watched { token, expires, until: now + rest });
        }
        self.watched.map(|watched| watched.until.since(now))
    }

    /// Asks over the connection there is, or a new one. After an error the connection is not used again.
    fn ask<T>(&mut self, question: impl Fn(&mut Client) -> Result<T, postgres::Error>) -> Result<T, LockError> {
        let mut client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.connect()?,
        };
        let mut answer = question(&mut client);
        if answer.as_ref().err().and_then(postgres::Error::code) == Some(&SqlState::UNDEFINED_TABLE) {
            // Two that create it at once: one of them is told that a type of that name exists, and the table is there.
            let _ = client.batch_execute(CREATE);
            answer = question(&mut client);
        }
        match answer {
            Ok(value) => {
                self.client = Some(client);
                Ok(value)
            }
            Err(error) => Err(LockError::Unreachable { address: self.address.shown.clone(), why: explain(&error) }),
        }
    }
}

/// The server's own words, without what we sent it.
fn explain(error: &postgres::Error) -> String {
    let text = match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(database), _) => database.message().to_owned(),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    };
    if text.contains("peer certificate") {
        return format!("{text}; name the certificate to trust with sslrootcert=FILE, or do without TLS: sslmode=disable");
    }
    text
}

fn unreadable(file: &Path) -> impl FnOnce(std::io::Error) -> LockError + use<> {
    let path = file.to_owned();
    move |error| LockError::File { path, error }
}

/// The first line of a password file that fits (PostgreSQL documentation, "The Password File").
fn find_password(text: &str, config: &Config) -> Option<String> {
    let host = match config.get_hosts().first() {
        Some(postgres::config::Host::Tcp(host)) => host.clone(),
        Some(postgres::config::Host::Unix(_)) | None => "localhost".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432).to_string();
    let user = config.get_user().unwrap_or_default();
    let wanted = [host.as_str(), &port, config.get_dbname().unwrap_or(user), user];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = split_escaped(line);
        let fits = fields.len() == 5 && fields.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted);
        fits.then(|| fields[4].clone())
    })
}

/// Fields by colon; `\:` and `\\` stand for themselves.
fn split_escaped(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, fields.last_mut()) {
            (':', _) => fields.push(String::new()),
            ('\\', Some(field)) => field.extend(chars.next()),
            (c, Some(field)) => field.push(c),
            (_, None) => {}
        }
    }
    fields
}

fn to_token(number: i64) -> Token {
    Token(u64::try_from(number).unwrap_or(0))
}

fn to_number(token: Token) -> i64 {
    i64::try_from(token.0).unwrap_or(i64::MAX)
}

fn to_rest(milliseconds: Option<f64>) -> Option<Duration> {
    milliseconds.and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok())
}

impl Engine for PostgresEngine {
    fn acquire(&mut self, bid: &Bid<'_>) -> Result<Attempt, LockError> {
        let (key, owner, lease) = (self.address.key.clone(), bid.owner.to_json(), self.lease_ms);
        let over = bid.over.map(to_number);
        let is_over = |watched: &Watched| BootTime::now() >= watched.until;
        let going = self.watched.filter(|watched| !is_over(watched)).map(|watched| watched.token);
        let ended = self.watched.filter(is_over);
        let (ended, expires) = (ended.map(|watched| watched.token), ended.map(|watched| watched.expires));
        let row = self.ask(|client| {
            let lease = [(&key as &(dyn ToSql + Sync), Type::TEXT), (&owner, Type::TEXT), (&lease, Type::FLOAT8)];
            let tokens = [(&over as &(dyn ToSql + Sync), Type::INT8), (&going, Type::INT8), (&ended, Type::INT8), (&expires, Type::INT8)];
            client.query_typed_one(ACQUIRE, &[&lease[..], &tokens].concat())
        })?;
        let (won, before): (Option<i64>, Option<i64>) = (row.get(0), row.get(1));
        let owner = row.get::<_, Option<String>>(2).and_then(|text| Owner::from_json(&text));
        self.token = won.map(to_token);
        Ok(match self.token {
            // What the dead holder left running was ended before its lock was taken.
            Some(token) => Attempt::Won { token, previous: owner.filter(|_| bid.over.is_none()) },
            None => Attempt::Busy(Holder { owner, token: before.map(to_token), rest: self.watch(before, row.get(4), to_rest(row.get(3))) }),
        })
    }

    fn renew(&mut self, owner: &Owner) -> Result<Renewal, LockError> {
        let Some(token) = self.token.map(to_number) else { return Ok(Renewal::Gone) };
        let (key, owner, lease) = (self.address.key.clone(), owner.to_json(), self.lease_ms);
        let rows = self.ask(|client| {
            client.execute_typed(RENEW, &[(&key, Type::TEXT), (&token, Type::INT8), (&lease, Type::FLOAT8), (&owner, Type::TEXT)])
        })?;
        Ok(if rows == 1 { Renewal::Held } else { Renewal::Gone })
    }

    fn release(&mut self) -> Result<(), LockError> {
        let Some(token) = self.token.take().map(to_number) else { return Ok(()) };
        let key = self.address.key.clone();
        self.ask(|client| client.execute_typed(RELEASE, &[(&key, Type::TEXT), (&token, Type::INT8)])).map(drop)
    }

    fn look(&mut self) -> Result<Option<Holder>, LockError> {
        let key = self.address.key.clone();
        let row = self.ask(|client| client.query_typed_opt(LOOK, &[(&key, Type::TEXT)]))?;
        Ok(row.map(|row| Holder { owner: Owner::from_json(row.get(1)), token: Some(to_token(row.get(0))), rest: to_rest(row.get(2)) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_files_are_those_of_libpq() {
        let mut config = Config::new();
        config.host("db").port(5433).user("me").dbname("x");
        let file = "# comment\nother:*:*:*:no\ndb:5433:x:me:a\\:b\\\\c\n*:*:*:*:late\n";
        assert_eq!(find_password(file, &config).as_deref(), Some("a:b\\c"));
        assert_eq!(find_password("*:*:*:me:any", &config).as_deref(), Some("any"));
        assert_eq!(find_password("db:5433:x:me", &config), None);
    }
}
