//! How each kind of server is told of a run: which path, which words, how one logs in. Touches nothing but `http`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Value, json};
use ureq::http::Method;

use super::PushError;
use super::http::{Question, ask};
use super::report::{Liveness, Report};
use crate::client::secret;
use crate::config::endpoint::{Endpoint, Influx, Place};
use crate::config::push::CHAIN_WORD;
use crate::config::url::encode;

const JSON: &str = "application/json";

/// Writes points (InfluxDB 1: `/write`; 2: `/api/v2/write`).
///
/// # Errors
/// The server does not answer, or refuses.
pub fn write_points(influx: &Influx, report: &Report, limit: Duration) -> Result<(), PushError> {
    let server = &influx.server;
    let prefix = prefix(server);
    let (path, login) = match &influx.into {
        Place::Database { name, policy } => {
            let policy = policy.as_ref().map(|policy| format!("&rp={}", query(policy))).unwrap_or_default();
            (format!("{prefix}/write?db={}{policy}&precision=ms", query(name)), login(server, "Bearer")?)
        }
        Place::Bucket { organisation, name } => {
            let (organisation, name) = (query(organisation), query(name));
            (format!("{prefix}/api/v2/write?org={organisation}&bucket={name}&precision=ms"), login(server, "Token")?)
        }
    };
    let body = report.influx();
    let question = Question { method: Method::POST, path: &path, login, content_type: "text/plain; charset=utf-8", body: &body };
    ask(server, limit, &question).map(|_| ())
}

/// Pushes metrics into the group of this machine and chain or queue. POST takes the place of metrics of the same name and lets the
/// others stand: the last success of a chain outlives its failures.
///
/// # Errors
/// The server does not answer, or refuses.
pub fn push_metrics(server: &Endpoint, report: &Report, limit: Duration) -> Result<(), PushError> {
    let (label, name) = report.subject();
    let (instance, subject) = (grouping("instance", &report.host), grouping(label, name));
    let path = format!("{}/metrics/job/runner/{instance}/{subject}", prefix(server));
    let (login, body) = (login(server, "Bearer")?, report.prometheus());
    let question = Question { method: Method::POST, path: &path, login, content_type: "text/plain; version=0.0.4", body: &body };
    ask(server, limit, &question).map(|_| ())
}

/// Sets a key of Consul.
///
/// # Errors
/// The server does not answer, or refuses.
pub fn put_in_consul(server: &Endpoint, chain: &str, liveness: &Liveness, limit: Duration) -> Result<(), PushError> {
    let path = format!("/v1/kv/{}", encode(&key(server, chain)));
    let login = server.token_file.as_deref().map(secret).transpose()?.map(|token| ("X-Consul-Token", token));
    let question = Question { method: Method::PUT, path: &path, login, content_type: JSON, body: &liveness.json() };
    let answer = ask(server, limit, &question)?;
    if answer.trim() == "true" { Ok(()) } else { Err(senseless(server)) }
}

/// Sets a key of etcd, through its JSON gateway (API 3).
///
/// # Errors
/// The server does not answer, or refuses.
pub fn put_in_etcd(server: &Endpoint, chain: &str, liveness: &Liveness, limit: Duration) -> Result<(), PushError> {
    let login = etcd_login(server, limit)?;
    let body = json!({ "key": STANDARD.encode(key(server, chain)), "value": STANDARD.encode(liveness.json()) }).to_string();
    let question = Question { method: Method::POST, path: "/v3/kv/put", login, content_type: JSON, body: &body };
    let answer: Value = serde_json::from_str(&ask(server, limit, &question)?).unwrap_or(Value::Null);
    if answer["header"].is_object() { Ok(()) } else { Err(senseless(server)) }
}

fn etcd_login(server: &Endpoint, limit: Duration) -> Result<Option<(&'static str, String)>, PushError> {
    let (Some(user), Some(file)) = (&server.user, &server.password_file) else { return Ok(None) };
    let body = json!({ "name": user, "password": secret(file)? }).to_string();
    let question = Question { method: Method::POST, path: "/v3/auth/authenticate", login: None, content_type: JSON, body: &body };
    let answer: Value = serde_json::from_str(&ask(server, limit, &question)?).unwrap_or(Value::Null);
    let token = answer["token"].as_str().ok_or_else(|| senseless(server))?;
    Ok(Some(("Authorization", token.to_owned())))
}

/// User and password, or the token behind this word.
fn login(server: &Endpoint, word: &str) -> Result<Option<(&'static str, String)>, PushError> {
    let value = match (&server.user, &server.password_file, &server.token_file) {
        (Some(user), Some(file), _) => format!("Basic {}", STANDARD.encode(format!("{user}:{}", secret(file)?))),
        (_, _, Some(file)) => format!("{word} {}", secret(file)?),
        (_, _, None) => return Ok(None),
    };
    Ok(Some(("Authorization", value)))
}

/// The key of a chain.
fn key(server: &Endpoint, chain: &str) -> String {
    server.path.replace(CHAIN_WORD, chain)
}

fn prefix(server: &Endpoint) -> String {
    match server.path.trim_matches('/') {
        "" => String::new(),
        path => format!("/{}", encode(path)),
    }
}

fn query(text: &str) -> String {
    encode(text).replace('/', "%2F")
}

/// A label of a group, in base64 where it is no plain word (README of the Pushgateway, "URL").
fn grouping(name: &str, value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_plain = !value.is_empty() && value.chars().all(plain) && value != "." && value != "..";
    if is_plain { format!("{name}/{value}") } else { format!("{name}@base64/{}=", URL_SAFE.encode(value).trim_end_matches('=')) }
}

fn senseless(server: &Endpoint) -> PushError {
    PushError::Unreachable { server: server.shown.clone(), why: "it answers with something else than expected".to_owned() }
}
