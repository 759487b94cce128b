//! What is answered, and its bytes on the wire. Every answer forbids what a browser could be talked into.

use jiff::Timestamp;
use serde::Serialize;

/// The codes that are answered (RFC 9110 section 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Here it is.
    Ok,
    /// That is no request.
    BadRequest,
    /// Not for you; why is in the text.
    Forbidden,
    /// There is no such path.
    NotFound,
    /// That cannot be done to this path.
    MethodNotAllowed,
    /// The request took too long to come.
    Timeout,
    /// A body without its length.
    LengthRequired,
    /// A body that is too long.
    BodyTooLarge,
    /// A head that is too long.
    HeadTooLarge,
    /// A fault of ours.
    Internal,
    /// The daemon does not answer just now.
    Unavailable,
    /// Another version of HTTP.
    VersionNotSupported,
}

impl Code {
    /// The number.
    pub fn number(self) -> u16 {
        self.line().0
    }

    fn line(self) -> (u16, &'static str) {
        match self {
            Self::Ok => (200, "OK"),
            Self::BadRequest => (400, "Bad Request"),
            Self::Forbidden => (403, "Forbidden"),
            Self::NotFound => (404, "Not Found"),
            Self::MethodNotAllowed => (405, "Method Not Allowed"),
            Self::Timeout => (408, "Request Timeout"),
            Self::LengthRequired => (411, "Length Required"),
            Self::BodyTooLarge => (413, "Content Too Large"),
            Self::HeadTooLarge => (431, "Request Header Fields Too Large"),
            Self::Internal => (500, "Internal Server Error"),
            Self::Unavailable => (503, "Service Unavailable"),
            Self::VersionNotSupported => (505, "HTTP Version Not Supported"),
        }
    }
}

/// What the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Words for people.
    Text,
    /// A page.
    Html,
    /// The style of the page.
    Css,
    /// A document for programs.
    Json,
    /// Prometheus' text format, version 0.0.4.
    Metrics,
}

impl Kind {
    fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Html => "text/html; charset=utf-8",
            Self::Css => "text/css; charset=utf-8",
            Self::Json => "application/json",
            Self::Metrics => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The page takes its one style from here and nothing else from anywhere; what is no page takes nothing.
    fn policy(self) -> &'static str {
        match self {
            Self::Html => "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            Self::Text | Self::Css | Self::Json | Self::Metrics => "default-src 'none'; frame-ancestors 'none'",
        }
    }
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Its code.
    pub code: Code,
    /// What the body is.
    pub kind: Kind,
    /// The methods that the path takes, where the one that was sent is not among them.
    pub allow: Option<&'static str>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// An answer with a body of this kind.
    pub fn new(code: Code, kind: Kind, body: impl Into<Vec<u8>>) -> Self {
        Self { code, kind, allow: None, body: body.into() }
    }

    /// A line of text; a line feed is added.
    pub fn text(code: Code, line: &str) -> Self {
        Self::new(code, Kind::Text, format!("{line}\n"))
    }

    /// A value as JSON.
    pub fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec_pretty(value) {
            Ok(mut body) => {
                body.push(b'\n');
                Self::new(Code::Ok, Kind::Json, body)
            }
            Err(error) => Self::text(Code::Internal, &format!("cannot be written as JSON: {error}")),
        }
    }

    /// The bytes on the wire; without the body for HEAD. `now` is the date of the answer.
    pub fn encode(&self, head_only: bool, now: Timestamp) -> Vec<u8> {
        let (number, reason) = self.code.line();
        let allow = self.allow.map(|methods| format!("Allow: {methods}\r\n")).unwrap_or_default();
        let mut bytes = format!(
            "HTTP/1.1 {number} {reason}\r\nDate: {date}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}\
             Connection: close\r\nCache-Control: no-store\r\nContent-Security-Policy: {policy}\r\n\
             X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\n\r\n",
            date = now.strftime("%a, %d %b %Y %H:%M:%S GMT"),
            kind = self.kind.content_type(),
            length = self.body.len(),
            policy = self.kind.policy(),
        )
        .into_bytes();
        if !head_only {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_head_and_a_body_and_for_head_the_head_alone() {
        let response = Response { allow: Some("GET, POST"), ..Response::text(Code::MethodNotAllowed, "no") };
        let text = String::from_utf8(response.encode(false, Timestamp::UNIX_EPOCH)).unwrap();
        let head = String::from_utf8(response.encode(true, Timestamp::UNIX_EPOCH)).unwrap();
        assert_eq!(text, format!("{head}no\n"));
        assert!(head.starts_with("HTTP/1.1 405 Method Not Allowed\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"), "{head}");
        for line in
            ["Content-Length: 3", "Allow: GET, POST", "Connection: close", "Cache-Control: no-store", "X-Content-Type-Options: nosniff"]
        {
            assert!(head.contains(&format!("\r\n{line}\r\n")), "{head}");
        }
        assert!(head.ends_with("\r\n\r\n") && head.contains("Content-Security-Policy: default-src 'none'"), "{head}");
    }
}
