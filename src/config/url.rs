//! The URLs of servers, as every key has them: `SCHEME://[USER[:PASSWORD]@]HOST[:PORT][,HOST..][/PATH][?NAME=VALUE&..]`,
//! with `%XX` in user, password, path and values. Decides only; what a scheme makes of the parts is its own.

use std::path::{Path, PathBuf};

use super::value::{self, Parsed};

/// A URL in its parts. It may hold a password, and is shown to nobody.
pub struct Url<'a> {
    /// What stands before `://`.
    pub scheme: &'a str,
    /// Who logs in, decoded.
    pub user: Option<String>,
    /// The password, decoded.
    pub password: Option<String>,
    /// What stands behind the first `/`, decoded.
    pub path: String,
    hosts: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Url<'a> {
    /// Takes a text apart; `expected` is said of one that is no URL at all.
    ///
    /// # Errors
    /// What was expected; no part of a password is in it.
    pub fn parse(text: &'a str, expected: &str) -> Parsed<Self> {
        let (scheme, rest) = text.split_once("://").ok_or(expected)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = authority.rsplit_once('@').map_or((None, authority), |(login, hosts)| (Some(login), hosts));
        let (user, password) = match login.map(|login| login.split_once(':').map_or((login, None), |(user, word)| (user, Some(word)))) {
            None => (None, None),
            Some((user, password)) => (Some(decode(user)?), password.map(decode).transpose()?),
        };
        let parameters = query.split('&').filter(|part| !part.is_empty()).map(|part| part.split_once('=').unwrap_or((part, ""))).collect();
        Ok(Self { scheme, user, password, path: decode(path)?, hosts, parameters })
    }

    /// Takes a parameter out, decoded.
    ///
    /// # Errors
    /// It stands there twice, or a `%` in it begins nothing.
    pub fn take(&mut self, name: &str) -> Parsed<Option<String>> {
        let mut found = self.parameters.extract_if(.., |(known, _)| *known == name);
        let (first, second) = (found.next(), found.next());
        match (first, second) {
            (None, _) => Ok(None),
            (Some((_, text)), None) => decode(text).map(Some),
            (Some(_), Some(_)) => Err(format!("`{name}` stands twice in the URL")),
        }
    }

    /// Takes a parameter out that names a file; a relative one starts from `base`.
    ///
    /// # Errors
    /// It is no path.
    pub fn take_path(&mut self, name: &str, base: &Path) -> Parsed<Option<PathBuf>> {
        self.take(name)?.map(|text| value::path(&text, base).map_err(|expected| format!("{name}: {expected}"))).transpose()
    }

    /// Takes `cert_file` and `key_file` out: our own certificate and its key.
    ///
    /// # Errors
    /// Only one of them is there.
    pub fn take_identity(&mut self, base: &Path) -> Parsed<Option<(PathBuf, PathBuf)>> {
        match (self.take_path("cert_file", base)?, self.take_path("key_file", base)?) {
            (None, None) => Ok(None),
            (Some(cert), Some(key)) => Ok(Some((cert, key))),
            (Some(_), None) | (None, Some(_)) => Err("expected both cert_file and key_file, or neither".to_owned()),
        }
    }

    /// Takes `tls` out.
    ///
    /// # Errors
    /// It is neither yes nor no.
    pub fn take_tls(&mut self) -> Parsed<Option<bool>> {
        self.take("tls")?.map(|text| value::boolean(&text).map_err(|expected| format!("tls={text}: {expected}"))).transpose()
    }

    /// The parameters that nobody has taken, as they stand there.
    pub fn rest(&self) -> &[(&'a str, &'a str)] {
        &self.parameters
    }

    /// `host:port` of each host, at least one; `port` where none is named.
    ///
    /// # Errors
    /// One of them is none.
    pub fn hosts(&self, port: u16) -> Parsed<Vec<String>> {
        let all: Option<Vec<String>> = self.hosts.split(',').map(|host| with_port(host, port)).collect();
        all.ok_or_else(|| "expected HOST or HOST:PORT".to_owned())
    }

    /// Whether the path can be the key of a store.
    pub fn has_key(&self) -> bool {
        is_key(&self.path)
    }
}

/// Whether a text can be the key of a store: up to 512 bytes without control characters.
pub fn is_key(text: &str) -> bool {
    !text.is_empty() && text.len() <= 512 && !text.chars().any(char::is_control)
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

    fn parse(text: &str) -> Parsed<Url<'_>> {
        Url::parse(text, "expected x://HOST")
    }

    #[test]
    fn each_part_is_what_stands_there() {
        let mut url = parse("x://m%40e:p%3Ass@a,b:1,[::1],[::1]:9/k%20/l?p=1%2F2&f=rel&tls=yes&other=%zz&flag").unwrap();
        assert_eq!((url.scheme, url.user.as_deref(), url.password.as_deref(), url.path.as_str()), ("x", Some("m@e"), Some("p:ss"), "k /l"));
        assert_eq!(url.hosts(7).unwrap(), ["a:7", "b:1", "[::1]:7", "[::1]:9"]);
        assert_eq!((url.take("p"), url.take("p"), url.take_tls()), (Ok(Some("1/2".into())), Ok(None), Ok(Some(true))));
        assert_eq!(url.take_path("f", Path::new("/etc")), Ok(Some("/etc/rel".into())));
        assert_eq!(url.take_identity(Path::new("/")), Ok(None));
        assert_eq!(url.rest(), [("other", "%zz"), ("flag", "")]);
        assert!(url.take("other").is_err() && url.has_key() && encode("a b/ä") == "a%20b/%C3%A4");
    }

    #[rstest]
    #[case("host")]
    #[case("x://h/%2")]
    #[case("x://h/%zz")]
    #[case("x://h/%ff")]
    #[case("x://u%:secret@h")]
    fn what_is_no_url(#[case] text: &str) {
        assert!(parse(text).is_err_and(|error| !error.contains("secret")), "{text}");
    }

    #[rstest]
    #[case("x://")]
    #[case("x://a,,b")]
    #[case("x://a:port")]
    #[case("x://a b")]
    #[case("x://a@b#")]
    fn what_are_no_hosts(#[case] text: &str) {
        assert!(parse(text).unwrap().hosts(1).is_err(), "{text}");
    }

    #[test]
    fn a_parameter_that_stands_twice_is_not_guessed() {
        assert_eq!(parse("x://h?a=1&a=2").unwrap().take("a"), Err("`a` stands twice in the URL".into()));
        let half = parse("x://h?cert_file=c").unwrap().take_identity(Path::new("/"));
        assert_eq!(half, Err("expected both cert_file and key_file, or neither".into()));
        assert!(!is_key("") && !is_key("a\n") && !is_key(&"x".repeat(513)) && is_key("a/b"));
    }
}
