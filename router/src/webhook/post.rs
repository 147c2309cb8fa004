//! One delivery: a POST over a connection to an address that was checked.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, version::TLS13};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

use super::target::Target;

/// How long a connection may take, its name and TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the whole may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of an answer is read; who says more is not asked over that connection again.
const ANSWER_BYTES: usize = 4 << 10;
/// How many connections to a target are kept while nothing is sent, and for how long.
const IDLE: usize = 64;
const IDLE_LIFE: Duration = Duration::from_secs(20);
/// The most addresses of a name that are looked at.
const ADDRESSES: usize = 64;
/// Where systems keep the authorities that they trust.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The authorities that a target's certificate may be of.
#[derive(Clone)]
pub struct Roots(Arc<ClientConfig>);

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Roots")
    }
}

/// Why the authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be read as PEM.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// There is no file.
    #[error("no authorities: webhook_ca is not given, and this system keeps none where they are looked for")]
    None,
    /// No certificate of it can be used.
    #[error("{0} holds no certificate that can be used")]
    Empty(String),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

impl Roots {
    /// Those of a file in PEM form; without one, the system's.
    pub fn load(path: Option<&Path>) -> Result<Roots, RootsError> {
        let system = SYSTEM.iter().map(Path::new).find(|path| path.exists());
        let path = path.or(system).ok_or(RootsError::None)?;
        let name = || path.display().to_string();
        let read = |source| RootsError::Read { path: name(), source };
        let certificates: Vec<CertificateDer<'static>> =
            CertificateDer::pem_file_iter(path).map_err(read)?.collect::<Result<_, _>>().map_err(read)?;
        let mut roots = RootCertStore::empty();
        if roots.add_parsable_certificates(certificates).0 == 0 {
            return Err(RootsError::Empty(name()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Roots(Arc::new(config)))
    }
}

/// Why a delivery has failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// The name has no address.
    #[error("cannot resolve the target: {0}")]
    Resolve(String),
    /// Its name leads inside.
    #[error("the target resolves to {0}, which is not of the internet: see webhook_private_targets")]
    Inside(IpAddr),
    /// Nobody listens.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The target is not who it should be.
    #[error("TLS: {0}")]
    Tls(String),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// It took too long.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silent,
    /// It leads elsewhere.
    #[error("status {0}: redirects are not followed")]
    Redirect(u16),
    /// Any other status but 200 to 299.
    #[error("status {0}")]
    Status(u16),
}

/// What is said of a delivery beside its body.
#[derive(Clone, Debug)]
pub struct Headers {
    /// The webhook's id.
    pub webhook: String,
    /// The delivery's, the same in each attempt.
    pub delivery: String,
    /// From 1.
    pub attempt: u32,
    /// See [`sign`](super::sign()).
    pub signature: String,
}

/// Sends to one target, and keeps a few connections to it.
#[derive(Debug)]
pub struct Poster {
    target: Target,
    roots: Option<Roots>,
    idle: Mutex<Vec<(SendRequest<Full<Bytes>>, Instant)>>,
}

impl Poster {
    /// To a target that was checked. Without roots nothing is sent over https.
    pub fn new(target: Target, roots: Option<Roots>) -> Poster {
        Poster { target, roots, idle: Mutex::default() }
    }

    /// Sends one delivery. Only a status of 200 to 299 is success.
    pub async fn post(&self, headers: &Headers, body: Bytes) -> Result<(), PostError> {
        timeout(PATIENCE, self.exchange(headers, body)).await.unwrap_or(Err(PostError::Silent))
    }

    async fn exchange(&self, headers: &Headers, body: Bytes) -> Result<(), PostError> {
        // One that was kept may have been closed by the target as it was taken: a new one then says more.
        if let Some(kept) = self.kept()
            && let Ok(status) = self.send(kept, headers, body.clone()).await
        {
            return judge(status);
        }
        let sender = timeout(CONNECT, self.connect())
            .await
            .unwrap_or_else(|_| Err(PostError::Connect(format!("not within {} s", CONNECT.as_secs()))))?;
        judge(self.send(sender, headers, body).await?)
    }

    fn kept(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(sender, since)| sender.is_ready() && since.elapsed() < IDLE_LIFE);
        idle.pop().map(|(sender, _)| sender)
    }

    async fn send(
        &self,
        mut sender: SendRequest<Full<Bytes>>,
        headers: &Headers,
        body: Bytes,
    ) -> Result<StatusCode, PostError> {
        let broken = |error: &dyn fmt::Display| PostError::Broken(error.to_string());
        let request = Request::post(self.target.path().as_str())
            .header(header::HOST, self.target.authority())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("wardlock/", env!("CARGO_PKG_VERSION")))
            .header("wardlock-webhook", &headers.webhook)
            .header("wardlock-delivery", &headers.delivery)
            .header("wardlock-attempt", headers.attempt)
            .header("wardlock-signature", &headers.signature)
            .body(Full::new(body))
            .map_err(|error| broken(&error))?;
        sender.ready().await.map_err(|error| broken(&error))?;
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let status = response.status();
        // The status says all; the rest is read so that the connection can serve again.
        if Limited::new(response.into_body(), ANSWER_BYTES).collect().await.is_ok() && sender.ready().await.is_ok() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < IDLE {
                idle.push((sender, Instant::now()));
            }
        }
        Ok(status)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, PostError> {
        let mut last = PostError::Resolve("it has no address".into());
        for address in self.resolve().await? {
            match TcpStream::connect(address).await {
                Ok(stream) => return self.greet(stream).await,
                Err(error) => last = PostError::Connect(error.to_string()),
            }
        }
        Err(last)
    }

    /// The target's addresses, all of them such as it may have.
    async fn resolve(&self) -> Result<Vec<SocketAddr>, PostError> {
        let port = self.target.port();
        let addresses: Vec<SocketAddr> = match self.target.literal() {
            Some(address) => vec![SocketAddr::new(address, port)],
            None => tokio::net::lookup_host((self.target.host(), port))
                .await
                .map_err(|error| PostError::Resolve(error.to_string()))?
                .take(ADDRESSES)
                .collect(),
        };
        match addresses.iter().find(|address| !self.target.allows(address.ip())) {
            Some(inside) => Err(PostError::Inside(inside.ip())),
            None => Ok(addresses),
        }
    }

    async fn greet(&self, stream: TcpStream) -> Result<SendRequest<Full<Bytes>>, PostError> {
        // A delivery is one small write: waiting for more of it only delays it.
        let _ = stream.set_nodelay(true);
        if !self.target.is_https() {
            return handshake(stream).await;
        }
        let roots = self.roots.as_ref().ok_or_else(|| PostError::Tls(RootsError::None.to_string()))?;
        let name = ServerName::try_from(self.target.host().to_owned()).map_err(|e| PostError::Tls(e.to_string()))?;
        let connector = TlsConnector::from(Arc::clone(&roots.0));
        handshake(connector.connect(name, stream).await.map_err(|e| PostError::Tls(e.to_string()))?).await
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, PostError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let greeted = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = greeted.map_err(|error| PostError::Broken(error.to_string()))?;
    // It ends with its sender; what goes wrong with it shows there.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

fn judge(status: StatusCode) -> Result<(), PostError> {
    match status.as_u16() {
        200..=299 => Ok(()),
        code @ 300..=399 => Err(PostError::Redirect(code)),
        code => Err(PostError::Status(code)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::webhook::{Origin, Targets};

    fn headers() -> Headers {
        let text = |text: &str| text.to_owned();
        Headers { webhook: text("w"), delivery: text("1-7"), attempt: 3, signature: text("t=1,v1=00") }
    }

    /// A target that answers every request so, and counts connections.
    async fn target(answer: &'static str) -> (u16, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let mut request = vec![0; 4_096];
                    let mut seen = Vec::new();
                    while let Ok(some @ 1..) = stream.read(&mut request).await {
                        seen.extend_from_slice(&request[..some]);
                        if seen.ends_with(b"{}") {
                            seen.clear();
                            let _ = stream.write_all(answer.as_bytes()).await;
                        }
                    }
                });
            }
        });
        (port, connections)
    }

    fn poster(origin: &str, inside: bool) -> Poster {
        let allowed: Vec<Origin> = vec![origin.parse().expect("an origin")];
        let targets = if inside { Targets::new([], allowed) } else { Targets::new(allowed, []) };
        Poster::new(targets.check(&format!("{origin}/hook")).expect("it is allowed"), None)
    }

    async fn post(poster: &Poster) -> Result<(), PostError> {
        poster.post(&headers(), Bytes::from_static(b"{}")).await
    }

    #[tokio::test]
    async fn only_success_is_success_and_a_connection_serves_again() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Ok(())),
            ("HTTP/1.1 204 No Content\r\n\r\n", Ok(())),
            ("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", Err(PostError::Status(500))),
            ("HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", Err(PostError::Status(410))),
            (
                "HTTP/1.1 307 Elsewhere\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
                Err(PostError::Redirect(307)),
            ),
        ] {
            let (port, connections) = target(answer).await;
            let poster = poster(&format!("http://127.0.0.1:{port}"), false);
            for _ in 0..3 {
                assert_eq!(post(&poster).await, expected, "{answer}");
            }
            assert_eq!(connections.load(Ordering::Relaxed), 1, "{answer}");
        }
    }

    #[tokio::test]
    async fn an_answer_without_end_is_not_read_to_its_end() {
        let (port, connections) = target("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").await;
        let poster = poster(&format!("http://127.0.0.1:{port}"), false);
        // More of it never comes: the patience is the bound.
        tokio::time::pause();
        assert_eq!(post(&poster).await, Err(PostError::Silent));
        assert_eq!(connections.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_refused_unless_that_is_allowed_of_it() {
        let (port, connections) = target("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        let origin = format!("http://localhost:{port}");
        assert!(matches!(post(&poster(&origin, false)).await, Err(PostError::Inside(_))));
        assert_eq!(connections.load(Ordering::Relaxed), 0, "nothing was even connected");
        assert_eq!(post(&poster(&origin, true)).await, Ok(()));
    }

    #[tokio::test]
    async fn nothing_listens_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let refused = post(&poster(&format!("http://127.0.0.1:{port}"), false)).await;
        assert!(matches!(refused, Err(PostError::Connect(_))), "{refused:?}");
        let https = post(&poster("https://127.0.0.1:1", false)).await;
        assert!(matches!(https, Err(PostError::Connect(_))), "{https:?}");
    }
}
