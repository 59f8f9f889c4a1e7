//! TLS with Consul: whom we believe, and who we are.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::access::Tls;

/// The settings of one connection, from the files as they are now.
///
/// # Errors
/// A file that cannot be read or used, by its name.
pub fn config(tls: &Tls) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be used: {error}"))?;
    let builder = match tls.trusts_anybody {
        true => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        false => builder.with_root_certificates(roots(tls)?),
    };
    match &tls.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
            builder.with_client_auth_cert(chain, private).map_err(|error| unusable(certificate, &error))
        }
    }
}

fn roots(tls: &Tls) -> Result<RootCertStore, String> {
    let mut files: Vec<_> = tls.ca_file.iter().cloned().collect();
    if let Some(folder) = &tls.ca_path {
        let entries = std::fs::read_dir(folder).map_err(|error| unusable(folder, &error))?;
        files.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()));
    }
    let mut roots = RootCertStore::empty();
    if tls.ca_file.is_none() && tls.ca_path.is_none() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    for file in files {
        for certificate in certificates(&file)? {
            roots.add(certificate).map_err(|error| unusable(&file, &error))?;
        }
    }
    match roots.is_empty() {
        true => Err("no authority is known that could vouch for Consul: set CONSUL_CACERT".into()),
        false => Ok(roots),
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_file_iter(file).map_err(|error| unusable(file, &error))?;
    let chain: Result<Vec<_>, _> = chain.collect();
    let chain = chain.map_err(|error| unusable(file, &error))?;
    if chain.is_empty() { Err(format!("{} has no certificate in it", file.display())) } else { Ok(chain) }
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{} cannot be used: {error}", path.display())
}

/// Believes everybody who has the key of the certificate that he shows: `CONSUL_HTTP_SSL_VERIFY=false`.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        let missing = folder.path().join("missing");
        let table = [
            Tls { ca_file: Some(missing.clone()), ..Tls::default() },
            Tls { ca_path: Some(missing), ..Tls::default() },
            Tls { ca_file: Some(empty.clone()), ..Tls::default() },
            Tls { trusts_anybody: true, identity: Some((empty.clone(), empty)), ..Tls::default() },
        ];
        for tls in table {
            let why = config(&tls).unwrap_err();
            assert!(why.contains(folder.path().to_str().unwrap()), "{why}");
        }
        let nobody = Tls { ca_path: Some(tempfile::tempdir().unwrap().path().to_owned()), ..Tls::default() };
        assert!(config(&nobody).is_err());
        config(&Tls { trusts_anybody: true, ..Tls::default() }).unwrap();
    }
}
