//! Encryption towards a server, by `sslmode` as libpq has it ("SSL Mode Descriptions").

use std::path::{Path, PathBuf};
use std::sync::Arc;

use postgres::config::SslMode;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::plain::{self, LONGEST, LastLink};

/// How a server proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Not at all: what is sent is encrypted, but who reads it is unknown (`prefer`, `require`).
    Nothing,
    /// By a certificate that leads to one of these roots (`verify-ca`).
    Chain(Roots),
    /// By a certificate with its name, too (`verify-full`).
    Name(Roots),
}

/// Whose word is taken for a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// The machine's.
    System,
    /// Those in this file (`sslrootcert`).
    File(PathBuf),
}

impl Check {
    /// What `sslmode` and `sslrootcert` ask for.
    ///
    /// # Errors
    /// There is no such mode.
    pub fn of_mode(mode: &str, root: Option<&str>) -> Result<(SslMode, Self), String> {
        let roots = || match root {
            None | Some("system") => Roots::System,
            Some(file) => Roots::File(file.into()),
        };
        match (mode, root) {
            ("disable", _) => Ok((SslMode::Disable, Self::Nothing)),
            ("allow" | "prefer", _) => Ok((SslMode::Prefer, Self::Nothing)),
            // As libpq: whoever names a root wants it to be asked, and `system` asks for the name, too.
            ("require", None) => Ok((SslMode::Require, Self::Nothing)),
            ("require", Some("system")) | ("verify-full", _) => Ok((SslMode::Require, Self::Name(roots()))),
            ("require" | "verify-ca", _) => Ok((SslMode::Require, Self::Chain(roots()))),
            _ => Err(format!("sslmode={mode}: expected one of disable, allow, prefer, require, verify-ca, verify-full")),
        }
    }

    /// What the connection is made with.
    ///
    /// # Errors
    /// There are no roots to check with.
    pub fn connector(&self) -> Result<MakeRustlsConnect, String> {
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match self {
            Self::Nothing => Arc::new(Unverified(provider.clone())),
            Self::Chain(roots) => Arc::new(ChainOnly(verifier(roots, &provider)?)),
            Self::Name(roots) => verifier(roots, &provider)?,
        };
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| error.to_string())?.dangerous().with_custom_certificate_verifier(verifier);
        Ok(MakeRustlsConnect::new(config.with_no_client_auth()))
    }
}

fn verifier(roots: &Roots, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, String> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::System => {
            let found = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(found.certs);
        }
        Roots::File(file) => read_roots(file, &mut store)?,
    }
    if store.is_empty() {
        return Err("there is no root certificate on this machine to check the server with; name a file with sslrootcert=".to_owned());
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone()).build().map_err(|error| error.to_string())
}

fn read_roots(file: &Path, store: &mut RootCertStore) -> Result<(), String> {
    let wrong = |error: &dyn std::fmt::Display| format!("sslrootcert={}: {error}", file.display());
    let bytes = plain::read(file, LastLink::Followed, LONGEST).map_err(|error| wrong(&error))?;
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        store.add(certificate).map_err(|error| wrong(&error))?;
    }
    if store.is_empty() { Err(wrong(&"there is no certificate in it")) } else { Ok(()) }
}

/// Takes every certificate, but checks that the server has its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes a certificate of another name, if its chain is good.
#[derive(Debug)]
struct ChainOnly(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The name is looked at last, when the chain was found good.
        match self.0.verify_server_cert(certificate, between, name, ocsp, now) {
            Err(Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
