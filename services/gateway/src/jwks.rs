//! Where an issuer's keys come from: a service of the mesh, or an OpenID provider outside.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use auth::access::{FetchError, JwksSource};
use berth_http::upstream::{Payload, Upstream};
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header, uri::PathAndQuery};
use http_body::Body;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use runtime::credentials::Credentials;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde::Deserialize;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

/// The largest document that is read.
const MAX_DOCUMENT: usize = 256 * 1024;
/// For fetching one document, from the look-up of the host on.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Further roots to reach an external issuer by.
const ROOTS: &str = "issuer-ca.pem";

type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Bytes, FetchError>> + Send + 'a>>;

/// The key set of a service of the mesh.
pub(crate) struct FromService {
    pub(crate) upstream: Upstream,
    pub(crate) path: PathAndQuery,
}

impl JwksSource for FromService {
    fn fetch(&self) -> Fetching<'_> {
        Box::pin(async {
            let request = Request::get(self.path.clone()).body(Payload::empty())?;
            let response = self.upstream.send(request, Instant::now() + TIMEOUT).await?;
            document(response.status(), response.into_body()).await
        })
    }
}

/// The key set of an OpenID provider, found through its discovery document (OpenID Connect Discovery 1.0, §4).
pub(crate) struct FromDiscovery {
    pub(crate) issuer: String,
    pub(crate) credentials: Credentials,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl JwksSource for FromDiscovery {
    fn fetch(&self) -> Fetching<'_> {
        Box::pin(async {
            // Read each time: rare enough, and a root that was just put there counts.
            let client = Https::new(&self.credentials)?;
            let discovery = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
            let discovery: Discovery = serde_json::from_slice(&client.get(&discovery).await?)?;
            if discovery.issuer != self.issuer {
                return Err(
                    format!("the discovery document is of {:?}, not of {:?}", discovery.issuer, self.issuer).into()
                );
            }
            client.get(&discovery.jwks_uri).await
        })
    }
}

/// As much of an HTTPS client as two documents need: no redirects, no cookies, no compression.
struct Https {
    connector: TlsConnector,
}

impl Https {
    fn new(credentials: &Credentials) -> Result<Self, FetchError> {
        let mut roots = RootCertStore::empty();
        // A system without roots, or with a broken one among them, still has those of the credential.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(further) = credentials.optional(ROOTS)? {
            for root in CertificateDer::pem_slice_iter(further.expose()) {
                let root = root.map_err(|error| format!("{ROOTS}: {error}"))?;
                roots.add(root).map_err(|error| format!("{ROOTS}: {error}"))?;
            }
        }
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }

    async fn get(&self, url: &str) -> Result<Bytes, FetchError> {
        let fetching = timeout(TIMEOUT, self.get_slowly(url)).await;
        let fetched = fetching.unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}").into()));
        fetched.map_err(|error| format!("GET {url}: {error}").into())
    }

    async fn get_slowly(&self, url: &str) -> Result<Bytes, FetchError> {
        let uri: Uri = url.parse()?;
        if uri.scheme_str() != Some("https") {
            return Err("only https is trusted".into());
        }
        let authority = uri.authority().ok_or("there is no host")?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(443))).await?;
        let stream = self.connector.connect(ServerName::try_from(host.to_owned())?, stream).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let path = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let request = Request::get(path)
            .header(header::HOST, authority.as_str())
            .header(header::ACCEPT, HeaderValue::from_static("application/json"))
            .body(Empty::<Bytes>::new())?;
        let answering = async {
            let response = sender.send_request(request).await?;
            document(response.status(), response.into_body()).await
        };
        tokio::select! {
            answer = answering => answer,
            // Its errors reach the request as well.
            Err(error) = connection => Err(error.into()),
        }
    }
}

async fn document<B>(status: StatusCode, body: B) -> Result<Bytes, FetchError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<FetchError>,
{
    if status != StatusCode::OK {
        return Err(format!("answered with {status}").into());
    }
    Ok(Limited::new(body, MAX_DOCUMENT).collect().await?.to_bytes())
}
