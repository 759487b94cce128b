//! The HTTP client by which servers are asked: whom it trusts, who it is, and where it gives up. Reads the files of
//! certificates and secrets; whoever has the client touches the network.
//!
//! It goes to the server that is named, and nowhere else: no proxy of the environment, no redirect.

use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::plain::{self, LONGEST, LastLink};

/// A file of certificates, of a key or of a secret that cannot be used.
#[derive(Debug, Error)]
#[error("{}: {error}", path.display())]
pub struct BadFile {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub error: std::io::Error,
}

/// The files of an encrypted connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct Certificates<'a> {
    /// Who is trusted instead of those whom the machine trusts.
    pub ca_file: Option<&'a Path>,
    /// Our certificate, with those between it and its root, and its key.
    pub identity: Option<&'a (PathBuf, PathBuf)>,
}

/// A client whose questions take at most `limit` each, the connection included.
///
/// # Errors
/// A file cannot be read, or has not what it is named for.
pub fn agent(files: Certificates<'_>, limit: Duration) -> Result<Agent, BadFile> {
    let mut tls = TlsConfig::builder();
    if let Some(file) = files.ca_file {
        tls = tls.root_certs(RootCerts::new_with_certs(&certificates(file)?));
    }
    if let Some((certificate, key)) = files.identity {
        tls = tls.client_cert(Some(ClientCert::new_with_certs(&certificates(certificate)?, private_key(key)?)));
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

/// Why there was no answer, with the way out where the certificate of the server is not trusted.
pub fn explain(error: &ureq::Error) -> String {
    let text = error.to_string();
    let way_out = if text.contains("peer certificate") { "; name the certificate to trust with ca_file=FILE" } else { "" };
    format!("{text}{way_out}")
}

/// What of a refusal is fit for one line: no control character, 200 characters at most.
pub fn quote(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(200).collect()
}

/// What stands in a file of a password or token ([`plain::read_secret`]).
///
/// # Errors
/// It cannot be read.
pub fn secret(file: &Path) -> Result<String, BadFile> {
    plain::read_secret(file).map_err(|error| BadFile { path: file.to_owned(), error })
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>, BadFile> {
    let found: Vec<_> = pem_items(file)?
        .into_iter()
        .filter_map(|item| if let PemItem::Certificate(certificate) = item { Some(certificate) } else { None })
        .collect();
    if found.is_empty() { Err(without(file, "certificates")) } else { Ok(found) }
}

fn private_key(file: &Path) -> Result<PrivateKey<'static>, BadFile> {
    let key = pem_items(file)?.into_iter().find_map(|item| if let PemItem::PrivateKey(key) = item { Some(key) } else { None });
    key.ok_or_else(|| without(file, "a key"))
}

fn pem_items(file: &Path) -> Result<Vec<PemItem<'static>>, BadFile> {
    let bytes = plain::read(file, LastLink::Followed, LONGEST).map_err(|error| BadFile { path: file.to_owned(), error })?;
    parse_pem(&bytes).collect::<Result<_, _>>().map_err(|_| without(file, "certificates or a key"))
}

fn without(file: &Path, what: &str) -> BadFile {
    BadFile { path: file.to_owned(), error: std::io::Error::other(format!("expected {what} in PEM")) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const KEY: &str =
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n-----END PRIVATE KEY-----\n";
    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";

    fn why(files: Certificates<'_>) -> String {
        agent(files, Duration::from_secs(1)).unwrap_err().to_string()
    }

    #[test]
    fn a_file_has_to_hold_what_it_is_named_for() {
        let dir = tempfile::tempdir().unwrap();
        let [key, certificate, empty] = ["key", "certificate", "empty"].map(|name| dir.path().join(name));
        fs::write(&key, KEY).unwrap();
        fs::write(&certificate, CERTIFICATE).unwrap();
        fs::write(&empty, "").unwrap();
        for file in [&key, &empty] {
            let found = why(Certificates { ca_file: Some(file), identity: None });
            assert_eq!(found, format!("{}: expected certificates in PEM", file.display()));
            let found = why(Certificates { ca_file: None, identity: Some(&(file.clone(), key.clone())) });
            assert_eq!(found, format!("{}: expected certificates in PEM", file.display()));
        }
        let found = why(Certificates { ca_file: None, identity: Some(&(certificate.clone(), certificate.clone())) });
        assert_eq!(found, format!("{}: expected a key in PEM", certificate.display()));
        let nowhere = dir.path().join("nowhere");
        assert!(why(Certificates { ca_file: Some(&nowhere), identity: None }).starts_with(&format!("{}: No such file", nowhere.display())));
        agent(Certificates { ca_file: Some(&certificate), identity: Some(&(certificate.clone(), key)) }, Duration::from_secs(1)).unwrap();
    }

    #[test]
    fn a_secret_ends_before_its_line_does() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        fs::write(&file, " a b \r\n").unwrap();
        assert_eq!(secret(&file).unwrap(), " a b ");
        // Nobody is waited for who would write into it.
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        assert!(secret(&pipe).unwrap_err().to_string().ends_with("it is no regular file"));
        assert!(why(Certificates { ca_file: Some(&pipe), identity: None }).ends_with("it is no regular file"));
    }

    #[test]
    fn a_refusal_is_quoted_on_one_line() {
        assert_eq!(quote(" no\u{1b}[2J\nway "), "no[2Jway");
        assert_eq!(quote(&"x".repeat(300)).len(), 200);
    }
}
