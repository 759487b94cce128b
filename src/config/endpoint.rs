//! Servers that are told of runs: the values of `influxdb`, `pushgateway`, `consul`, `etcd`. Decides only; opens nothing.
//!
//! ```text
//! http[s]://[USER@]HOST[:8086]?db=NAME[&rp=POLICY][&password_file=F]      InfluxDB 1
//! http[s]://HOST[:8086]?org=NAME&bucket=NAME&token_file=F                 InfluxDB 2
//! http[s]://[USER@]HOST[:9091][/PREFIX][?password_file=F | ?token_file=F] Pushgateway
//! consul://HOST[:8500]/KEY[?token_file=F][&tls=yes]
//! etcd://[USER@]HOST[:2379]/KEY[?password_file=F][&tls=yes]
//! ```
//! Each also takes `ca_file=F` and `cert_file=F&key_file=F`. Several hosts by comma: the next one is asked when one fails.

use std::path::{Path, PathBuf};

use super::url::{Url, encode};
use super::value::Parsed;

/// A server, and how one logs in there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether to use TLS.
    pub tls: bool,
    /// `host:port`, at least one.
    pub hosts: Vec<String>,
    /// What stands behind the first `/`: a key, or a prefix.
    pub path: String,
    /// Who logs in.
    pub user: Option<String>,
    /// The file with the password of `user`.
    pub password_file: Option<PathBuf>,
    /// The file with a token.
    pub token_file: Option<PathBuf>,
    /// Certificates that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// For people; nothing secret is in it.
    pub shown: String,
}

/// Where points go in InfluxDB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A database of version 1, and the retention policy in it.
    Database {
        /// `db`.
        name: String,
        /// `rp`.
        policy: Option<String>,
    },
    /// A bucket of version 2.
    Bucket {
        /// `org`.
        organisation: String,
        /// `bucket`.
        name: String,
    },
}

/// The value of `influxdb`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Influx {
    /// The server.
    pub server: Endpoint,
    /// The place in it.
    pub into: Place,
}

fn read<'a>(text: &'a str, expected: &str) -> Parsed<Url<'a>> {
    let url = Url::parse(text, expected)?;
    if url.password.is_some() {
        return Err("expected no password in the URL; put it into a file and write password_file=FILE".to_owned());
    }
    Ok(url)
}

fn endpoint(mut url: Url<'_>, port: u16, tls: bool, base: &Path) -> Parsed<Endpoint> {
    let (password_file, token_file) = (url.take_path("password_file", base)?, url.take_path("token_file", base)?);
    let (ca_file, identity) = (url.take_path("ca_file", base)?, url.take_identity(base)?);
    if let Some((name, _)) = url.rest().first() {
        return Err(format!("`{name}` is not known in this URL"));
    }
    if url.user.is_some() != password_file.is_some() {
        return Err("expected USER@ and password_file=FILE together, or neither".to_owned());
    }
    let hosts = url.hosts(port)?;
    let shown = format!("{}://{}/{}", url.scheme, hosts.join(","), encode(&url.path));
    let shown = shown.trim_end_matches('/').to_owned();
    Ok(Endpoint { tls, hosts, path: url.path, user: url.user, password_file, token_file, ca_file, identity, shown })
}

/// `http` or `https`.
fn is_encrypted(scheme: &str, expected: &str) -> Parsed<bool> {
    match scheme {
        "http" => Ok(false),
        "https" => Ok(true),
        _ => Err(expected.to_owned()),
    }
}

/// Reads the value of `influxdb`.
///
/// # Errors
/// What was expected.
pub fn influxdb(text: &str, base: &Path) -> Parsed<Influx> {
    const EXPECTED: &str = "expected http://HOST:8086?db=NAME, or http://HOST:8086?org=NAME&bucket=NAME&token_file=FILE";
    let mut url = read(text, EXPECTED)?;
    let tls = is_encrypted(url.scheme, EXPECTED)?;
    let (database, policy) = (url.take("db")?.filter(|name| !name.is_empty()), url.take("rp")?);
    let (organisation, bucket) = (url.take("org")?, url.take("bucket")?);
    let into = match (database, organisation, bucket) {
        (Some(name), None, None) => Place::Database { name, policy },
        (None, Some(organisation), Some(name)) => Place::Bucket { organisation, name },
        (_, _, _) => return Err(EXPECTED.to_owned()),
    };
    Ok(Influx { server: endpoint(url, 8086, tls, base)?, into })
}

/// Reads the value of `pushgateway`.
///
/// # Errors
/// What was expected.
pub fn pushgateway(text: &str, base: &Path) -> Parsed<Endpoint> {
    const EXPECTED: &str = "expected http://HOST:9091";
    let url = read(text, EXPECTED)?;
    let tls = is_encrypted(url.scheme, EXPECTED)?;
    endpoint(url, 9091, tls, base)
}

/// Reads the value of `consul`.
///
/// # Errors
/// What was expected.
pub fn consul(text: &str, base: &Path) -> Parsed<Endpoint> {
    store(text, "consul", 8500, base)
}

/// Reads the value of `etcd`.
///
/// # Errors
/// What was expected.
pub fn etcd(text: &str, base: &Path) -> Parsed<Endpoint> {
    store(text, "etcd", 2379, base)
}

fn store(text: &str, scheme: &str, port: u16, base: &Path) -> Parsed<Endpoint> {
    let expected = format!("expected {scheme}://HOST:{port}/KEY");
    let mut url = read(text, &expected)?;
    let tls = url.take_tls()?;
    if url.scheme != scheme || !url.has_key() {
        return Err(expected);
    }
    let mut endpoint = endpoint(url, port, false, base)?;
    endpoint.tls = tls.unwrap_or(endpoint.ca_file.is_some() || endpoint.identity.is_some());
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn base() -> &'static Path {
        Path::new("/etc/runner")
    }

    #[test]
    fn a_database_or_a_bucket() {
        let one = influxdb("http://me@a,b:1?db=ci%20jobs&rp=week&password_file=pw", base()).unwrap();
        assert_eq!(one.into, Place::Database { name: "ci jobs".into(), policy: Some("week".into()) });
        assert_eq!(
            (one.server.hosts.join(" "), one.server.tls, one.server.shown.as_str()),
            ("a:8086 b:1".into(), false, "http://a:8086,b:1")
        );
        assert_eq!((one.server.user.as_deref(), one.server.password_file), (Some("me"), Some("/etc/runner/pw".into())));
        let two = influxdb("https://h?org=o&bucket=b&token_file=/t&ca_file=ca", base()).unwrap();
        assert_eq!(two.into, Place::Bucket { organisation: "o".into(), name: "b".into() });
        assert!(two.server.tls && two.server.ca_file == Some("/etc/runner/ca".into()));
    }

    #[test]
    fn a_key_in_a_store() {
        let key = etcd("etcd://u@a,[::1]:9/jobs/{chain}?password_file=p&tls=yes", base()).unwrap();
        assert_eq!((key.path.as_str(), key.hosts.join(" "), key.tls), ("jobs/{chain}", "a:2379 [::1]:9".into(), true));
        let key = consul("consul://h/k?token_file=t", base()).unwrap();
        assert_eq!((key.shown.as_str(), key.tls, key.token_file), ("consul://h:8500/k", false, Some("/etc/runner/t".into())));
        assert_eq!(pushgateway("http://h/prom/", base()).unwrap().shown, "http://h:9091/prom");
    }

    #[rstest]
    #[case("http://h")]
    #[case("http://h?db=")]
    #[case("http://h?db=a&org=b&bucket=c")]
    #[case("influxdb://h?db=a")]
    #[case("http://h?db=a&colour=red")]
    #[case("http://u:secret@h?db=a")]
    #[case("http://u@h?db=a")]
    #[case("http://h x?db=a")]
    #[case("http://h?db=%2")]
    #[case("http://h:http?db=a")]
    #[case("http://?db=a")]
    #[case("http://h?db=a&cert_file=c")]
    fn no_influxdb(#[case] text: &str) {
        let error = influxdb(text, base()).unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }

    #[rstest]
    #[case("consul://h")]
    #[case("consul://h/")]
    #[case("http://h/k")]
    #[case("consul://h/k?tls=maybe")]
    fn no_key(#[case] text: &str) {
        assert!(consul(text, base()).is_err(), "{text}");
    }
}
