//! Who one is on the network: a certificate, its key, and the authority that both sides trust.
//!
//! One authority signs every certificate of a cluster. A certificate says by its subject alternative
//! names who its holder is: `node-7.wardlock` is node 7, and nothing else makes a node; whoever has no
//! such name is a client (by custom `client.wardlock`).
//!
//! # Promises
//! 1. TLS 1.3 only; both sides show a certificate of the authority, or there is no connection.
//! 2. No early data and no resumption: each connection verifies both certificates anew.
//! 3. One cryptography provider, named here, never the process's default.
//! 4. No `Debug` of these types shows a key.

mod names;
mod verify;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::{Resumption, WebPkiServerVerifier},
    crypto::CryptoProvider,
    server::WebPkiClientVerifier,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

pub use names::{CLIENT_NAME, NameError, SEED_NAME, node_name, peer_node};
use verify::AnyNode;

/// What both sides of the link speak, as TLS negotiates it.
pub const ALPN: &[u8] = b"wardlock/1";

/// Why there is no identity, or no configuration from it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The text is not PEM of what it should be.
    #[error("{what} is not valid PEM: {source}")]
    Pem {
        /// What it should be.
        what: &'static str,
        /// Why it is not.
        source: rustls_pki_types::pem::Error,
    },
    /// The text has no certificate.
    #[error("{0} holds no certificate")]
    Empty(&'static str),
    /// A certificate is not what it should be.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The certificates and the key do not make a configuration.
    #[error("the certificates cannot be used: {0}")]
    Unusable(String),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> TlsError {
        TlsError::Unusable(error.to_string())
    }
}

/// A certificate chain, its private key, and the authority of the cluster.
pub struct Identity {
    authorities: Vec<CertificateDer<'static>>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.node())
    }
}

impl Clone for Identity {
    fn clone(&self) -> Identity {
        Identity { authorities: self.authorities.clone(), chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Identity {
    /// From DER. The chain begins with the holder's own certificate.
    pub fn from_der(
        authorities: Vec<CertificateDer<'static>>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Identity, TlsError> {
        if authorities.is_empty() {
            return Err(TlsError::Empty("the authority's file"));
        }
        let own = chain.first().ok_or(TlsError::Empty("the certificate's file"))?;
        peer_node(own)?;
        Ok(Identity { authorities, chain, key })
    }

    /// From the texts of PEM files.
    pub fn from_pem(authorities: &[u8], chain: &[u8], key: &[u8]) -> Result<Identity, TlsError> {
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|source| TlsError::Pem { what: "the private key", source })?;
        Identity::from_der(
            certificates("the authority's certificate", authorities)?,
            certificates("the certificate", chain)?,
            key,
        )
    }

    /// From PEM files.
    pub fn from_files(authorities: &Path, chain: &Path, key: &Path) -> Result<Identity, TlsError> {
        Identity::from_pem(&read(authorities)?, &read(chain)?, &read(key)?)
    }

    /// From a directory with `ca.pem`, `<name>.pem` and `<name>.key`.
    pub fn from_dir(dir: &Path, name: &str) -> Result<Identity, TlsError> {
        Identity::from_files(&dir.join("ca.pem"), &dir.join(format!("{name}.pem")), &dir.join(format!("{name}.key")))
    }

    /// The node that this is; `None` for a client.
    pub fn node(&self) -> Option<wardlock_placement::NodeId> {
        self.chain.first().and_then(|own| peer_node(own).ok().flatten())
    }

    /// When the first of these certificates expires, in seconds since the Unix epoch.
    pub fn expires(&self) -> Result<i64, TlsError> {
        let mut earliest = i64::MAX;
        for certificate in self.chain.iter().chain(&self.authorities) {
            earliest = earliest.min(names::expiry(certificate)?);
        }
        Ok(earliest)
    }

    /// What an accepting side needs: clients must show a certificate of the authority.
    pub fn server_config(&self, alpn: &[&[u8]]) -> Result<ServerConfig, TlsError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider())
            .build()
            .map_err(|error| TlsError::Unusable(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.max_early_data_size = 0;
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// What a dialing side needs. Dialed as [`node_name`], the other side must be that node; dialed as
    /// [`SEED_NAME`], it may be any node.
    pub fn client_config(&self, alpn: &[&[u8]]) -> Result<ClientConfig, TlsError> {
        let verifier = WebPkiServerVerifier::builder_with_provider(self.roots()?, provider())
            .build()
            .map_err(|error| TlsError::Unusable(error.to_string()))?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyNode(verifier)))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.enable_early_data = false;
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// A secret of this identity for `purpose`: the same after each start, and of no use for finding the
    /// private key.
    pub(crate) fn derived_secret(&self, purpose: &[u8]) -> Option<[u8; 32]> {
        let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13()?;
        let mut secret = [0; 32];
        let expander = suite.hkdf_provider.extract_from_secret(None, self.key.secret_der());
        expander.expand_slice(&[purpose], &mut secret).ok()?;
        Some(secret)
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in &self.authorities {
            roots.add(authority.clone())?;
        }
        Ok(Arc::new(roots))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|source| TlsError::Pem { what, source })
}
