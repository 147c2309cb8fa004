//! Verifies a dialed node whose id is not known beforehand.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::names::{SEED_NAME, node_name, peer_node};

/// The usual verifier, except that [`SEED_NAME`] stands for whichever node the certificate names. The
/// chain, the dates and the signature are checked as ever; only the choice of the name is the peer's.
#[derive(Debug)]
pub(super) struct AnyNode(pub(super) Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyNode {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let dialed = server_name.to_str();
        if dialed != SEED_NAME {
            return self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        }
        let node = match peer_node(end_entity) {
            Ok(Some(node)) => node,
            Ok(None) => return Err(CertificateError::NotValidForName.into()),
            Err(_) => return Err(CertificateError::BadEncoding.into()),
        };
        let name = ServerName::try_from(node_name(node)).map_err(|_| Error::from(CertificateError::BadEncoding))?;
        self.0.verify_server_cert(end_entity, intermediates, &name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
