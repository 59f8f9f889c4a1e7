//! An authority that lasts as long as a relay, and a certificate of it for the loopback address and a name.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

/// What a relay may be called besides its address.
pub const NAME: &str = "api.soloist.test";

/// An authority with one certificate.
pub struct Authority {
    certificate: Certificate,
    tls: TlsAcceptor,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one.
    pub fn new() -> Result<Self> {
        let mut own = CertificateParams::new(Vec::new())?;
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own_key = KeyPair::generate()?;
        let certificate = own.self_signed(&own_key)?;
        let issuer = rcgen::Issuer::new(own, own_key);
        let key = KeyPair::generate()?;
        let server = CertificateParams::new(vec!["127.0.0.1".to_owned(), NAME.to_owned()])?.signed_by(&key, &issuer)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).ok().context("no key")?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![server.der().clone()], key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { certificate, tls: TlsAcceptor::from(Arc::new(config)) })
    }

    /// The authority's own certificate, as a kubeconfig names it.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// The server's side of TLS.
    pub fn tls(&self) -> TlsAcceptor {
        self.tls.clone()
    }
}
