//! One question and its answer over HTTP. Touches the network, through ureq. No secret comes into the words of an error.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, http};

use super::PushError;
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
    let agent = agent(server, limit)?;
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

fn agent(server: &Endpoint, limit: Duration) -> Result<Agent, PushError> {
    let mut tls = TlsConfig::builder();
    if let Some(file) = &server.ca_file {
        let certificates: Vec<Certificate<'static>> = pem_items(file)?.into_iter().filter_map(certificate).collect();
        tls = tls.root_certs(RootCerts::new_with_certs(&certificates));
    }
    if let Some((cert_file, key_file)) = &server.identity {
        let chain: Vec<Certificate<'static>> = pem_items(cert_file)?.into_iter().filter_map(certificate).collect();
        let key = pem_items(key_file)?.into_iter().find_map(private_key).ok_or_else(|| not_pem(key_file))?;
        tls = tls.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
    }
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(limit))
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .tls_config(tls.build())
        .build();
    Ok(config.new_agent())
}

fn send(agent: &Agent, server: &Endpoint, url: &str, question: &Question<'_>) -> Result<String, PushError> {
    let mut request = http::Request::builder().method(question.method.clone()).uri(url).header("content-type", question.content_type);
    if let Some((name, value)) = &question.login {
        request = request.header(*name, value);
    }
    let request = request.body(question.body.to_owned());
    let wrong = |_| unreachable(server, "the token or the address holds what no request can".to_owned());
    let mut response = agent.run(request.map_err(wrong)?).map_err(|error| {
        let text = error.to_string();
        let way_out = if text.contains("peer certificate") { "; name the certificate to trust with ca_file=FILE" } else { "" };
        unreachable(server, format!("{text}{way_out}"))
    })?;
    let status = response.status().as_u16();
    let text = response.body_mut().with_config().limit(MAX_ANSWER).read_to_string();
    if !(200..300).contains(&status) {
        let why: String = text.unwrap_or_default().trim().chars().filter(|c| !c.is_control()).take(200).collect();
        return Err(PushError::Refused { server: server.shown.clone(), status, why });
    }
    text.map_err(|error| unreachable(server, error.to_string()))
}

fn unreachable(server: &Endpoint, why: String) -> PushError {
    PushError::Unreachable { server: server.shown.clone(), why }
}

/// What stands in a file of a password or token. It is read each time, so that it may be exchanged.
///
/// # Errors
/// It cannot be read.
pub fn secret(file: &Path) -> Result<String, PushError> {
    let text = fs::read_to_string(file).map_err(|error| PushError::File { path: file.to_owned(), error })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn pem_items(file: &Path) -> Result<Vec<PemItem<'static>>, PushError> {
    let bytes = fs::read(file).map_err(|error| PushError::File { path: file.to_owned(), error })?;
    let items: Vec<_> = parse_pem(&bytes).collect::<Result<_, _>>().map_err(|_| not_pem(file))?;
    if items.is_empty() { Err(not_pem(file)) } else { Ok(items) }
}

fn not_pem(file: &Path) -> PushError {
    PushError::File { path: file.to_owned(), error: std::io::Error::other("expected certificates or a key in PEM") }
}

fn certificate(item: PemItem<'static>) -> Option<Certificate<'static>> {
    if let PemItem::Certificate(certificate) = item { Some(certificate) } else { None }
}

fn private_key(item: PemItem<'static>) -> Option<PrivateKey<'static>> {
    if let PemItem::PrivateKey(key) = item { Some(key) } else { None }
}
