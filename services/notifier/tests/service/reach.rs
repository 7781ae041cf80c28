//! Where messages go, and where they must not.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use notifier::{
    reach::{Blocked, Reach},
    sender::{Failure, Message, Sender},
    signature::Secret,
};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use testkit::Receiver;
use tls::authority::Authority;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::world::loopback;

const LIMIT: Duration = Duration::from_secs(5);

async fn post(sender: &Sender, url: &str) -> Result<u16, Failure> {
    let (url, secret) = (url.parse().unwrap(), Secret::generate().unwrap());
    let message = Message { url: &url, id: "msg_1", body: "{}".into(), secret: &secret };
    sender.post(message).await.map(|status| status.as_u16())
}

/// A name that leads inside is found out when it is resolved: nothing connects.
#[tokio::test]
async fn a_name_that_leads_inside_is_not_followed() {
    tls::install_provider();
    let receiver = Receiver::start().await;
    let (port, sender) = (receiver.address().port(), Sender::trusting(RootCertStore::empty(), Reach::default(), LIMIT));
    for url in [
        format!("https://localhost:{port}/"),
        format!("https://127.0.0.1:{port}/"),
        format!("https://[::ffff:127.0.0.1]:{port}/"),
    ] {
        assert_eq!(post(&sender, &url).await, Err(Failure::Blocked(Blocked::NotPublic)), "{url}");
    }
    let in_the_clear = post(&sender, &format!("http://localhost:{port}/")).await;
    assert_eq!(in_the_clear, Err(Failure::Blocked(Blocked::InTheClear)));
    let nowhere = post(&sender, "https://nowhere.invalid/").await;
    assert!(matches!(nowhere, Err(Failure::Unresolved | Failure::Timeout(_))), "{nowhere:?}");
    assert!(receiver.received().is_empty());

    let sender = Sender::trusting(RootCertStore::empty(), loopback(), LIMIT);
    assert_eq!(post(&sender, &format!("http://localhost:{port}/")).await, Ok(204), "unless the mesh allows it");
}

/// Whatever answers: a bounded time, a bounded size, no redirect.
#[tokio::test]
async fn answers_are_bounded() {
    tls::install_provider();
    let sender = Sender::trusting(RootCertStore::empty(), loopback(), Duration::from_secs(1));
    let answering = async |answer: &'static [u8], repeat: usize| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            for _ in 0..repeat {
                if stream.write_all(answer).await.is_err() {
                    return;
                }
            }
            let _ = stream.read(&mut request).await;
        });
        let outcome = post(&sender, &url).await;
        served.abort();
        outcome
    };
    assert_eq!(answering(b"", 1).await, Err(Failure::Timeout(Duration::from_secs(1))));
    assert!(matches!(answering(b"SSH-2.0-OpenSSH_9.2\r\n", 1).await, Err(Failure::Http(_))));
    assert!(matches!(answering(b"X: y\r\n", 100_000).await, Err(Failure::Http(_))));
    assert_eq!(
        answering(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000000\r\n\r\n0123456789", 1).await,
        Err(Failure::Timeout(Duration::from_secs(1)))
    );
    let redirect =
        answering(b"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n", 1)
            .await;
    assert_eq!(redirect.unwrap_err().status(), Some(307));
    let later =
        answering(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 120\r\ncontent-length: 0\r\n\r\n", 1).await;
    assert_eq!(later.unwrap_err().retry_after(), Some(Duration::from_secs(120)));
}

#[tokio::test]
async fn over_tls_the_certificate_counts() {
    tls::install_provider();
    let authority = Authority::create("test.internal").unwrap();
    let leaf = authority.issue_public(&["localhost"], &[Ipv4Addr::LOCALHOST.into()]).unwrap();
    let chain = CertificateDer::pem_slice_iter(leaf.cert_pem.as_bytes()).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 2048];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
            let _ = stream.shutdown().await;
        }
    });
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.ca_pem().as_bytes()).unwrap()).unwrap();
    let sender = Sender::trusting(roots, loopback(), LIMIT);
    assert_eq!(post(&sender, &format!("https://localhost:{port}/")).await, Ok(202));
    let stranger = Sender::trusting(RootCertStore::empty(), loopback(), LIMIT);
    assert!(matches!(post(&stranger, &format!("https://localhost:{port}/")).await, Err(Failure::Tls(_))));
    serving.abort();
}
