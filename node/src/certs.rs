//! Makes certificates: an authority, and what it signs for nodes and clients.
//!
//! For trying things out and for clusters that have no authority of their own. A certificate says by its
//! subject alternative names who its holder is ([`wardlock_router::tls`]); keys are ECDSA on P-256, files
//! are PEM.
//!
//! # Promises
//! 1. A key file can be read by its owner only, from the moment it exists.
//! 2. An existing file is never replaced unless the caller says so: a lost authority key is lost for good.
//! 3. No `Debug` shows a key.

use std::{
    fmt, fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use wardlock_placement::NodeId;
use wardlock_router::tls::{CLIENT_NAME, node_name};

/// Certificates hold from a little before they are made, for clocks that are behind.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(3_600);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate cannot be made, or the authority cannot be read.
    #[error("cannot make the certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The file is there already.
    #[error("{0} exists already; it is replaced only on request")]
    Exists(PathBuf),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Whom a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A node.
    Node(NodeId),
    /// A client or a router.
    Client,
}

impl Holder {
    /// The name of its files, without an ending: `node-7` or `client`.
    pub fn file_name(self) -> String {
        match self {
            Holder::Node(node) => format!("node-{node}"),
            Holder::Client => "client".to_owned(),
        }
    }

    fn alternative_name(self) -> String {
        match self {
            Holder::Node(node) => node_name(node),
            Holder::Client => CLIENT_NAME.to_owned(),
        }
    }
}

/// A certificate and its private key, as PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    key: String,
}

impl Issued {
    /// The private key.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issued(..)")
    }
}

/// An authority: what signs every certificate of a cluster.
pub struct Authority {
    issued: Issued,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority(..)")
    }
}

/// Makes a new authority.
pub fn make_ca(common_name: &str, validity: Duration) -> Result<Authority, Error> {
    let mut params = params(common_name, Vec::new(), validity)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let issued = Issued { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() };
    Ok(Authority { issued, issuer: Issuer::new(params, key) })
}

impl Authority {
    /// An authority made before.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Authority, Error> {
        let issued = Issued { certificate: certificate.to_owned(), key: key.to_owned() };
        let issuer = Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key)?)?;
        Ok(Authority { issued, issuer })
    }

    /// The authority in a directory: `ca.pem` and `ca.key`.
    pub fn from_dir(dir: &Path) -> Result<Authority, Error> {
        Authority::from_pem(&read(&dir.join("ca.pem"))?, &read(&dir.join("ca.key"))?)
    }

    /// Its own certificate and key.
    pub fn issued(&self) -> &Issued {
        &self.issued
    }

    /// Signs a new certificate. `names` are the host names and IP addresses that its holder also goes by,
    /// for those who check them, such as browsers.
    pub fn issue(&self, holder: Holder, validity: Duration, names: &[String]) -> Result<Issued, Error> {
        let mut all = vec![holder.alternative_name()];
        all.extend_from_slice(names);
        let mut params = params(&holder.file_name(), all, validity)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match holder {
            Holder::Node(_) => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            // A router listens for HTTP with the same certificate.
            Holder::Client if !names.is_empty() => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Holder::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }
}

fn params(common_name: &str, names: Vec<String>, validity: Duration) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_TOLERANCE).into();
    params.not_after = (now + validity).into();
    Ok(params)
}

/// Writes `<name>.pem` and `<name>.key` into the directory, which is made if need be. Without `replace`
/// neither file may exist.
pub fn write_dir(dir: &Path, name: &str, issued: &Issued, replace: bool) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(|source| Error::File { path: dir.to_owned(), source })?;
    let (certificate, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
    if !replace && let Some(there) = [&certificate, &key].into_iter().find(|path| path.exists()) {
        return Err(Error::Exists(there.clone()));
    }
    write(&key, issued.key(), 0o600, replace)?;
    write(&certificate, &issued.certificate, 0o644, replace)
}

fn write(path: &Path, text: &str, mode: u32, replace: bool) -> Result<(), Error> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists(path.to_owned()),
        _ => Error::File { path: path.to_owned(), source },
    };
    if replace && path.exists() {
        // A new file has the new mode; an old one would keep its own.
        fs::remove_file(path).map_err(failed)?;
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use wardlock_router::tls::Identity;

    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    #[test]
    fn what_is_written_is_an_identity() {
        let dir = tempfile::tempdir().unwrap();
        let authority = make_ca("Wardlock test", YEAR).unwrap();
        write_dir(dir.path(), "ca", authority.issued(), false).unwrap();
        // Signed by the authority as it is read back, as a later run of the command would.
        let authority = Authority::from_dir(dir.path()).unwrap();
        let node = Holder::Node(NodeId(3));
        let issued = authority.issue(node, YEAR / 2, &["localhost".into(), "127.0.0.1".into()]).unwrap();
        write_dir(dir.path(), &node.file_name(), &issued, false).unwrap();

        let identity = Identity::from_dir(dir.path(), "node-3").unwrap();
        assert_eq!(identity.node(), Some(NodeId(3)));
        identity.server_config(&[]).unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
        let left = identity.expires().unwrap() - now;
        assert!((180 * 86_400..184 * 86_400).contains(&left), "{left} s");

        for name in ["ca.key", "node-3.key"] {
            let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn nothing_is_replaced_unless_asked() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (make_ca("first", YEAR).unwrap(), make_ca("second", YEAR).unwrap());
        write_dir(dir.path(), "ca", first.issued(), false).unwrap();
        assert!(matches!(write_dir(dir.path(), "ca", second.issued(), false), Err(Error::Exists(_))));
        assert_eq!(read(&dir.path().join("ca.key")).unwrap(), first.issued().key());
        write_dir(dir.path(), "ca", second.issued(), true).unwrap();
        assert_eq!(read(&dir.path().join("ca.key")).unwrap(), second.issued().key());
    }

    #[test]
    fn debug_shows_no_key() {
        let authority = make_ca("Wardlock test", YEAR).unwrap();
        let issued = authority.issue(Holder::Client, YEAR, &[]).unwrap();
        assert!(!format!("{authority:?} {issued:?}").contains("PRIVATE"));
    }
}
