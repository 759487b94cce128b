//! From the bytes of a request's head to what it asks. Decides only: it sees no socket and no clock.

use std::str;

use super::response::{Code, Response};

/// How long a head may be, in bytes.
pub const MAX_HEAD: usize = 8 * 1024;
/// How many header lines it may have.
pub const MAX_HEADERS: usize = 64;
/// How long a body may be, in bytes. It is read and thrown away: nothing here needs one.
pub const MAX_BODY: u64 = 8 * 1024;

/// What a request wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Show it.
    Get,
    /// Show its head.
    Head,
    /// Do it.
    Post,
    /// Anything else; nothing here knows it.
    Other,
}

/// A request whose head is whole and well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is to be done.
    pub method: Method,
    /// The path as it was sent, without the query; nothing in it is decoded.
    pub path: String,
    /// What stands behind the `?`, if there is one.
    pub query: Option<String>,
    /// The host that is asked, with its port: of the target if that is a whole address, else of the header.
    pub host: Option<String>,
    headers: Vec<(String, Vec<u8>)>,
}

impl Request {
    /// The value of the first header of this name, which is in small letters.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_slice())
    }

    /// The value of a parameter of the query, as it was sent.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let pairs = self.query.as_deref()?.split('&');
        pairs.filter_map(|pair| pair.split_once('=')).find(|(own, _)| *own == name).map(|(_, value)| value)
    }
}

/// What the bytes that have come so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// The beginning of a head.
    Partial,
    /// A request.
    Complete(Request),
    /// Nothing that will become one.
    Wrong(Wrong),
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// It is not HTTP; what is wrong with it.
    Malformed(&'static str),
    /// It is a version of HTTP that is not spoken here.
    Version,
    /// The head is longer than [`MAX_HEAD`].
    HeadTooLong,
    /// It has more than [`MAX_HEADERS`] header lines.
    TooManyHeaders,
    /// The body is longer than [`MAX_BODY`].
    BodyTooLong,
    /// The body comes in pieces, and nobody knows how many.
    LengthUnknown,
}

impl Wrong {
    /// What whoever asked is told (RFC 9110 section 15, RFC 6585 section 5).
    pub fn response(self) -> Response {
        let (code, text) = match self {
            Self::Malformed(what) => (Code::BadRequest, what),
            Self::Version => (Code::VersionNotSupported, "HTTP/1.1 and HTTP/1.0 are spoken here"),
            Self::HeadTooLong => (Code::HeadTooLarge, "the head of a request may have 8192 bytes"),
            Self::TooManyHeaders => (Code::HeadTooLarge, "a request may have 64 header lines"),
            Self::BodyTooLong => (Code::BodyTooLarge, "a body may have 8192 bytes, and none is needed"),
            Self::LengthUnknown => (Code::LengthRequired, "a body needs a Content-Length, and none is needed"),
        };
        Response::text(code, text)
    }
}

/// Reads the head of a request. What stands behind it is not looked at: one connection is one request.
pub fn parse(bytes: &[u8]) -> Head {
    let mut space = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut raw = httparse::Request::new(&mut space);
    match raw.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => match request(&raw) {
            Ok(request) => Head::Complete(request),
            Err(wrong) => Head::Wrong(wrong),
        },
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => Head::Partial,
        Ok(httparse::Status::Complete(_) | httparse::Status::Partial) => Head::Wrong(Wrong::HeadTooLong),
        Err(httparse::Error::TooManyHeaders) => Head::Wrong(Wrong::TooManyHeaders),
        Err(httparse::Error::Version) if other_version(bytes) => Head::Wrong(Wrong::Version),
        Err(error) => Head::Wrong(Wrong::Malformed(words(error))),
    }
}

fn words(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "a header's name has a byte it may not have",
        httparse::Error::HeaderValue => "a header's value has a byte it may not have",
        httparse::Error::NewLine => "a line does not end as it should",
        httparse::Error::Token | httparse::Error::Status | httparse::Error::TooManyHeaders | httparse::Error::Version => {
            "this is not a request of HTTP"
        }
    }
}

/// Whether the request line ends with a version that is well-formed, just not ours.
fn other_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
    let version = line.trim_ascii().rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    version.strip_prefix(b"HTTP/").is_some_and(|number| number.first().is_some_and(u8::is_ascii_digit))
}

fn request(raw: &httparse::Request<'_, '_>) -> Result<Request, Wrong> {
    let headers: Vec<(String, Vec<u8>)> =
        raw.headers.iter().map(|header| (header.name.to_ascii_lowercase(), header.value.to_vec())).collect();
    check_body(&headers)?;
    let method = match raw.method.unwrap_or_default() {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        _ => Method::Other,
    };
    let (authority, target) = target(raw.path.unwrap_or_default())?;
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    // HTTP/1.1 asks for one Host, and more than one is how requests are smuggled (RFC 9112 section 3.2).
    let mut hosts = headers.iter().filter(|(name, _)| name == "host").map(|(_, value)| value);
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() || (first.is_none() && raw.version == Some(1)) {
        return Err(Wrong::Malformed("a request of HTTP/1.1 has one Host"));
    }
    // The second one would be what another program before us has looked at, or the first one.
    if headers.iter().filter(|(name, _)| name == "authorization").count() > 1 {
        return Err(Wrong::Malformed("a request has one Authorization"));
    }
    let header = first.map(|value| str::from_utf8(value).map_err(|_| Wrong::Malformed("the Host is no text"))).transpose()?;
    // Whoever names the host in the target means that one (RFC 9112 section 3.2.2).
    let host = authority.or(header).map(str::to_owned);
    Ok(Request { method, path: path.to_owned(), query, host, headers })
}

/// The authority, if the target names one, and the path with its query.
fn target(target: &str) -> Result<(Option<&str>, &str), Wrong> {
    if target.starts_with('/') || target == "*" {
        return Ok((None, target));
    }
    let whole = ["http://", "https://"]
        .iter()
        .find_map(|scheme| target.get(..scheme.len()).filter(|begin| begin.eq_ignore_ascii_case(scheme)).and(target.get(scheme.len()..)));
    let rest = whole.ok_or(Wrong::Malformed("a path begins with /"))?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let path = if rest[end..].starts_with('/') { &rest[end..] } else { "/" };
    Ok((Some(&rest[..end]), path))
}

fn check_body(headers: &[(String, Vec<u8>)]) -> Result<(), Wrong> {
    let lengths: Vec<_> = headers.iter().filter(|(name, _)| name == "content-length").map(|(_, value)| value).collect();
    if headers.iter().any(|(name, _)| name == "transfer-encoding") {
        let both = "a request has a Content-Length or a Transfer-Encoding, not both";
        return Err(if lengths.is_empty() { Wrong::LengthUnknown } else { Wrong::Malformed(both) });
    }
    let Some(first) = lengths.first() else { return Ok(()) };
    if first.is_empty() || !first.iter().all(u8::is_ascii_digit) || lengths.iter().any(|other| other != first) {
        return Err(Wrong::Malformed("the Content-Length is one number"));
    }
    // More digits than fit are too long as well.
    let length = str::from_utf8(first).ok().and_then(|digits| digits.parse::<u64>().ok()).unwrap_or(u64::MAX);
    if length > MAX_BODY { Err(Wrong::BodyTooLong) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn complete(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Head::Complete(request) => request,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn a_request_is_its_method_path_query_and_host() {
        let request = complete("POST /cron?a=1&b=2 HTTP/1.1\r\nHost: localhost:7780\r\nAuthorization: Bearer x\r\n\r\n");
        assert_eq!((request.method, request.path.as_str()), (Method::Post, "/cron"));
        assert_eq!((request.parameter("b"), request.parameter("c")), (Some("2"), None));
        assert_eq!((request.host.as_deref(), request.header("authorization")), (Some("localhost:7780"), Some(&b"Bearer x"[..])));
        assert_eq!(complete("GET / HTTP/1.0\r\n\r\n").host, None);
    }

    #[test]
    fn a_whole_address_says_which_host_is_meant() {
        let request = complete("GET http://evil.example:1/x?y HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!((request.host.as_deref(), request.path.as_str()), (Some("evil.example:1"), "/x"));
        assert_eq!(complete("GET HTTP://a HTTP/1.1\r\nHost: b\r\n\r\n").path, "/");
    }

    #[test]
    fn what_is_wrong_has_its_own_code() {
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS));
        let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(MAX_HEAD));
        let with = |header: &str| format!("POST /cron HTTP/1.1\r\nHost: a\r\n{header}\r\n\r\n");
        let table = [
            ("GET / HTTP/2.0\r\n\r\n".to_owned(), 505),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505),
            ("GET /\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".to_owned(), 400),
            ("GET x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
            (with("Authorization: Bearer a\r\nauthorization: Bearer b"), 400),
            ("\u{16}\u{3}\u{1}\0".to_owned(), 400),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n".to_owned(), 400),
            (many, 431),
            (long, 431),
            ("x".repeat(MAX_HEAD), 431),
            (with("Content-Length: 8193"), 413),
            (with("Content-Length: 99999999999999999999999"), 413),
            (with("Content-Length: -1"), 400),
            (with("Content-Length: 1, 1"), 400),
            (with("Content-Length: 1\r\nContent-Length: 2"), 400),
            (with("Transfer-Encoding: chunked"), 411),
            (with("Transfer-Encoding: chunked\r\nContent-Length: 1"), 400),
        ];
        for (text, code) in table {
            match parse(text.as_bytes()) {
                Head::Wrong(wrong) => assert_eq!(wrong.response().code.number(), code, "{text:?}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..9000)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_head_is_partial_until_its_last_byte(path in "/[a-z?=&%]{0,40}", value in "[ -~]{0,40}") {
            let text = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX-A: {value}\r\n\r\n");
            for cut in 0..text.len() {
                prop_assert_eq!(parse(&text.as_bytes()[..cut]), Head::Partial);
            }
            prop_assert!(matches!(parse(text.as_bytes()), Head::Complete(_)));
        }

        #[test]
        fn a_head_with_any_bytes_in_it_never_panics(line in "[ -~]{0,30}", junk in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut bytes = format!("GET {line} HTTP/1.1\r\nHost: ").into_bytes();
            bytes.extend(junk);
            bytes.extend(b"\r\n\r\n");
            let _ = parse(&bytes);
        }
    }
}
