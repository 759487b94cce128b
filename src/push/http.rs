//! One question and its answer over HTTP. Touches the network, through ureq. No secret comes into the words of an error.

use std::time::Duration;

use ureq::{Agent, http};

use super::PushError;
use crate::client::{self, Certificates};
use crate::config::endpoint::Endpoint;

/// The longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 1 << 16;

/// A question.
pub struct Question<'a> {
    /// POST or PUT.
    pub method: http::Method,
    /// What stands behind the host, encoded, with a `/` first.
    pub path: &'a str,
    /// A header with who we are.
    pub login: Option<(&'static str, String)>,
    /// The kind of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: &'a str,
}

/// Asks the hosts of `server` one after the other until one answers; `limit` is for each of them.
///
/// # Errors
/// None answers, or the answer is a refusal.
pub fn ask(server: &Endpoint, limit: Duration, question: &Question<'_>) -> Result<String, PushError> {
    let files = Certificates { ca_file: server.ca_file.as_deref(), identity: server.identity.as_ref() };
    let agent = client::agent(files, limit)?;
    let scheme = if server.tls { "https" } else { "http" };
    let mut last = Err(unreachable(server, "there is no host".to_owned()));
    for host in &server.hosts {
        last = send(&agent, server, &format!("{scheme}://{host}{}", question.path), question);
        if !matches!(last, Err(PushError::Unreachable { .. })) {
            break;
        }
    }
    last
}

fn send(agent: &Agent, server: &Endpoint, url: &str, question: &Question<'_>) -> Result<String, PushError> {
    let mut request = http::Request::builder().method(question.method.clone()).uri(url).header("content-type", question.content_type);
    if let Some((name, value)) = &question.login {
        request = request.header(*name, value);
    }
    let request = request.body(question.body.to_owned());
    let wrong = |_| unreachable(server, "the token or the address holds what no request can".to_owned());
    let mut response = agent.run(request.map_err(wrong)?).map_err(|error| unreachable(server, client::explain(&error)))?;
    let status = response.status().as_u16();
    let text = response.body_mut().with_config().limit(MAX_ANSWER).read_to_string();
    if !(200..300).contains(&status) {
        return Err(PushError::Refused { server: server.shown.clone(), status, why: client::quote(&text.unwrap_or_default()) });
    }
    text.map_err(|error| unreachable(server, error.to_string()))
}

fn unreachable(server: &Endpoint, why: String) -> PushError {
    PushError::Unreachable { server: server.shown.clone(), why }
}
