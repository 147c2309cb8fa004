//! Deliveries over https: to whoever shows a certificate of an authority that is trusted, for the name that was asked
//! for, and to nobody else.

mod authority;

use std::{path::Path, sync::Arc, time::Duration};

use authority::Authority;
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use wardlock_router::webhook::{Headers, Origin, PostError, Poster, Roots, Targets};

const PATIENCE: Duration = Duration::from_secs(10);

/// A target of this name; tells of each connection what was sent to it, or why there was none.
struct Target {
    port: u16,
    sent: mpsc::UnboundedReceiver<std::io::Result<String>>,
}

impl Target {
    async fn start(authority: &Authority, name: &str) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(authority.server(name)));
        let (tell, sent) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tell.send(take(&acceptor, stream).await).unwrap();
            }
        });
        Target { port, sent }
    }

    async fn sent(&mut self) -> std::io::Result<String> {
        timeout(PATIENCE, self.sent.recv()).await.expect("in time").expect("it serves")
    }
}

async fn take(acceptor: &TlsAcceptor, stream: TcpStream) -> std::io::Result<String> {
    let mut stream = acceptor.accept(stream).await?;
    let mut sent = Vec::new();
    while !sent.ends_with(b"{}") {
        if stream.read_buf(&mut sent).await? == 0 {
            break;
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await?;
    Ok(String::from_utf8_lossy(&sent).into_owned())
}

/// Those of a file with this authority alone.
fn roots(authority: &Authority) -> Roots {
    let name = format!("{:x}.pem", wardlock_router::random::any::<u64>());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, authority.pem()).unwrap();
    let roots = Roots::load(Some(&path)).unwrap();
    std::fs::remove_file(&path).unwrap();
    roots
}

async fn post(host: &str, port: u16, roots: Option<Roots>) -> Result<(), PostError> {
    let origin = format!("https://{host}:{port}");
    let allowed: Origin = origin.parse().unwrap();
    let target = Targets::new([], [allowed]).check(&format!("{origin}/hook")).unwrap();
    let text = |text: &str| text.to_owned();
    let headers = Headers { webhook: text("w"), delivery: text("1-7"), attempt: 1, signature: text("t=1,v1=00") };
    Poster::new(target, roots).post(&headers, Bytes::from_static(b"{}")).await
}

/// What the poster says where it refuses a target, to which nothing was sent.
async fn refused(target: &mut Target, host: &str, roots: Option<Roots>) -> String {
    let said = match post(host, target.port, roots).await {
        Err(PostError::Tls(said)) => said,
        other => panic!("{other:?}"),
    };
    let sent = target.sent().await;
    assert!(sent.is_err(), "sent although it is refused: {sent:?}");
    said
}

#[tokio::test]
async fn it_goes_to_a_target_of_an_authority_that_is_trusted() {
    let authority = Authority::new();
    let mut target = Target::start(&authority, "localhost").await;
    assert_eq!(post("localhost", target.port, Some(roots(&authority))).await, Ok(()));
    let sent = target.sent().await.unwrap();
    assert!(sent.starts_with("POST /hook HTTP/1.1\r\n"), "{sent}");
    assert!(sent.contains("wardlock-delivery: 1-7\r\n") && sent.ends_with("{}"), "{sent}");
}

#[tokio::test]
async fn nothing_goes_to_a_target_of_another_authority() {
    let trusted = Authority::new();
    // The second only calls itself so.
    for (other, why) in [(Authority::called("another"), "UnknownIssuer"), (Authority::new(), "BadSignature")] {
        let mut target = Target::start(&other, "localhost").await;
        let said = refused(&mut target, "localhost", Some(roots(&trusted))).await;
        assert!(said.contains("invalid peer certificate") && said.contains(why), "{said}");
    }
}

#[tokio::test]
async fn nothing_goes_to_a_target_of_another_name() {
    let authority = Authority::new();
    let mut target = Target::start(&authority, "hooks.example.com").await;
    for host in ["localhost", "127.0.0.1"] {
        let said = refused(&mut target, host, Some(roots(&authority))).await;
        assert!(said.contains("not valid for name") && said.contains("hooks.example.com"), "{said}");
    }
}

#[tokio::test]
async fn nothing_goes_over_https_where_nobody_is_trusted() {
    let mut target = Target::start(&Authority::new(), "localhost").await;
    let said = refused(&mut target, "localhost", None).await;
    assert!(said.contains("no authorities"), "{said}");
}
