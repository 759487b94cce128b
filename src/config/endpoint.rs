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

use super::value::{self, Parsed};

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

/// The scheme, the parts of a URL behind it, and the parameters, decoded.
struct Url<'a> {
    scheme: &'a str,
    user: Option<String>,
    hosts: &'a str,
    path: String,
    parameters: Vec<(&'a str, String)>,
}

impl<'a> Url<'a> {
    fn parse(text: &'a str, expected: &str) -> Parsed<Self> {
        let (scheme, rest) = text.split_once("://").ok_or(expected)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').map_or((None, authority), |(user, hosts)| (Some(user), hosts));
        if user.is_some_and(|user| user.contains(':')) {
            return Err("expected no password in the URL; put it into a file and write password_file=FILE".to_owned());
        }
        let parts = query.split('&').filter(|part| !part.is_empty()).map(|part| part.split_once('=').unwrap_or((part, "")));
        let parameters = parts.map(|(name, text)| Ok((name, decode(text)?))).collect::<Parsed<_>>()?;
        Ok(Self { scheme, user: user.map(decode).transpose()?, hosts, path: decode(path)?, parameters })
    }

    /// Takes a parameter out.
    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.parameters.iter().position(|(known, _)| *known == name)?;
        Some(self.parameters.remove(at).1)
    }

    fn take_path(&mut self, name: &str, base: &Path) -> Parsed<Option<PathBuf>> {
        self.take(name).map(|text| value::path(&text, base).map_err(|expected| format!("{name}: {expected}"))).transpose()
    }

    fn endpoint(mut self, port: u16, tls: bool, base: &Path) -> Parsed<Endpoint> {
        let (password_file, token_file) = (self.take_path("password_file", base)?, self.take_path("token_file", base)?);
        let ca_file = self.take_path("ca_file", base)?;
        let identity = match (self.take_path("cert_file", base)?, self.take_path("key_file", base)?) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some((cert, key)),
            (Some(_), None) | (None, Some(_)) => return Err("expected both cert_file and key_file, or neither".to_owned()),
        };
        if let Some((name, _)) = self.parameters.first() {
            return Err(format!("`{name}` is not known in this URL"));
        }
        if self.user.is_some() != password_file.is_some() {
            return Err("expected USER@ and password_file=FILE together, or neither".to_owned());
        }
        let hosts: Vec<String> =
            self.hosts.split(',').map(|host| with_port(host, port)).collect::<Option<_>>().ok_or("expected HOST or HOST:PORT")?;
        let shown = format!("{}://{}/{}", self.scheme, hosts.join(","), encode(&self.path));
        let shown = shown.trim_end_matches('/').to_owned();
        Ok(Endpoint { tls, hosts, path: self.path, user: self.user, password_file, token_file, ca_file, identity, shown })
    }
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
    let mut url = Url::parse(text, EXPECTED)?;
    let tls = is_encrypted(url.scheme, EXPECTED)?;
    let (database, policy) = (url.take("db").filter(|name| !name.is_empty()), url.take("rp"));
    let (organisation, bucket) = (url.take("org"), url.take("bucket"));
    let into = match (database, organisation, bucket) {
        (Some(name), None, None) => Place::Database { name, policy },
        (None, Some(organisation), Some(name)) => Place::Bucket { organisation, name },
        (_, _, _) => return Err(EXPECTED.to_owned()),
    };
    Ok(Influx { server: url.endpoint(8086, tls, base)?, into })
}

/// Reads the value of `pushgateway`.
///
/// # Errors
/// What was expected.
pub fn pushgateway(text: &str, base: &Path) -> Parsed<Endpoint> {
    const EXPECTED: &str = "expected http://HOST:9091";
    let url = Url::parse(text, EXPECTED)?;
    let tls = is_encrypted(url.scheme, EXPECTED)?;
    url.endpoint(9091, tls, base)
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
    let mut url = Url::parse(text, &expected)?;
    let tls = url.take("tls").map(|text| value::boolean(&text).map_err(|expected| format!("tls={text}: {expected}"))).transpose()?;
    let good = !url.path.is_empty() && url.path.len() <= 512 && !url.path.chars().any(char::is_control);
    if url.scheme != scheme || !good {
        return Err(expected);
    }
    let mut endpoint = url.endpoint(port, false, base)?;
    endpoint.tls = tls.unwrap_or(endpoint.ca_file.is_some() || endpoint.identity.is_some());
    Ok(endpoint)
}

fn with_port(host: &str, port: u16) -> Option<String> {
    let (name, given) = match host.rsplit_once(':') {
        // A colon inside brackets belongs to an IPv6 address.
        Some((name, given)) if !given.contains(']') => (name, given.parse().ok()?),
        Some(_) | None => (host, port),
    };
    let good = !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control() || "/?#@".contains(c));
    good.then(|| format!("{name}:{given}"))
}

fn decode(text: &str) -> Parsed<String> {
    let wrong = || "expected %XX where a % stands in the URL".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = more.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(wrong)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        rest = &more[2..];
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// A text as it may stand in the path or in a parameter of a URL; a `/` stays one.
pub fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
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
