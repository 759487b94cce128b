//! One question and its answer over HTTP, for the engines that are spoken to so. Touches the network, through ureq.
//!
//! Secrets stand in files and go into headers or bodies; no error text has them.

use std::time::Duration;

use serde_json::Value;
use ureq::{Agent, http};

use super::LockError;
use super::address::HttpAddress;
use crate::client::{self, Certificates};

/// The longest answer that is read: a record of an owner is far shorter.
const MAX_ANSWER: u64 = 1 << 20;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body, if it is JSON.
    pub json: Value,
    /// The body.
    pub text: String,
}

/// A client of one store.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    address: HttpAddress,
    /// Which of the hosts answered last.
    current: usize,
}

impl Client {
    /// A client whose questions take at most `limit` each.
    ///
    /// # Errors
    /// A certificate cannot be read.
    pub fn new(address: &HttpAddress, limit: Duration) -> Result<Self, LockError> {
        let files = Certificates { ca_file: address.ca_file.as_deref(), identity: address.identity.as_ref() };
        Ok(Self { agent: client::agent(files, limit)?, address: address.clone(), current: 0 })
    }

    /// Asks. `path` begins with a `/` and is encoded. When a host cannot be reached, the next one is asked the next time:
    /// nobody knows whether the first has heard us.
    ///
    /// # Errors
    /// There was no answer.
    pub fn ask(&mut self, method: http::Method, path: &str, header: Option<(&str, &str)>, body: &str) -> Result<Answer, LockError> {
        let scheme = if self.address.tls { "https" } else { "http" };
        let url = format!("{scheme}://{}{path}", self.address.hosts[self.current % self.address.hosts.len()]);
        let answer = self.send(method, &url, header, body);
        if answer.is_err() {
            self.current = self.current.wrapping_add(1);
        }
        answer
    }

    fn send(&self, method: http::Method, url: &str, header: Option<(&str, &str)>, body: &str) -> Result<Answer, LockError> {
        let unreachable = |why: String| LockError::Unreachable { address: self.address.shown.clone(), why };
        let mut request = http::Request::builder().method(method.clone()).uri(url);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        // A header that holds a secret must not come into the words of an error.
        let wrong = |_| LockError::Refused {
            address: self.address.shown.clone(),
            why: "the token or the address holds what no request can".to_owned(),
        };
        let sent = if method == http::Method::GET {
            self.agent.run(request.body(()).map_err(wrong)?)
        } else {
            self.agent.run(request.header("content-type", "application/json").body(body.to_owned()).map_err(wrong)?)
        };
        let mut response = sent.map_err(|error| unreachable(client::explain(&error)))?;
        let status = response.status().as_u16();
        let text = response.body_mut().with_config().limit(MAX_ANSWER).read_to_string().map_err(|error| unreachable(error.to_string()))?;
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status, json, text })
    }

    /// An answer that should not have been.
    pub fn refused(&self, what: &str, answer: &Answer) -> LockError {
        let message = answer.json["message"].as_str().or(answer.json["error"].as_str()).unwrap_or(answer.text.trim());
        let why = format!("{what}: {} {}", answer.status, client::quote(message));
        LockError::Refused { address: self.address.shown.clone(), why }
    }

    /// The same without an answer to quote.
    pub fn senseless(&self, what: &str) -> LockError {
        LockError::Refused { address: self.address.shown.clone(), why: format!("{what} answers with something else than expected") }
    }

    /// The password or token: from its file, which is read each time so that it may be exchanged, or from the URL.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn secret(&self) -> Result<Option<String>, LockError> {
        match (&self.address.secret_file, &self.address.password) {
            (Some(file), _) => Ok(Some(client::secret(file)?)),
            (None, Some(password)) => Ok(Some(password.0.clone())),
            (None, None) => Ok(None),
        }
    }
}

/// A number that may stand in quotes, as etcd writes those of 64 bits.
pub fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// The token and the owner's record, as both stores keep them.
pub fn to_record(token: Option<super::lease::Token>, owner: Option<&super::owner::Owner>) -> String {
    serde_json::json!({ "token": token.map(|token| token.0), "owner": owner }).to_string()
}

/// Reads them.
pub fn from_record(text: &str) -> (Option<super::lease::Token>, Option<super::owner::Owner>) {
    let value: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    let owner = serde_json::from_value(value["owner"].clone()).ok();
    (number(&value["token"]).map(super::lease::Token), owner)
}
