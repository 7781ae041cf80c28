//! Who gets through a handshake with whom: real rustls connections over memory.
#![allow(clippy::unwrap_used)]

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use runtime::credentials::Credentials;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection, version};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tempfile::TempDir;
use tls::{
    Identity, PublicCertificate, SpiffeId, TlsError,
    authority::{Authority, Leaf},
    peer_id,
};

const DOMAIN: &str = "eshop.internal";

/// A credentials folder of one workload.
struct Folder(TempDir);

impl Folder {
    fn new(leaf: &Leaf, authorities: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.put("tls-cert.pem", &leaf.cert_pem);
        folder.put("tls-key.pem", &leaf.key_pem);
        folder.put("mesh-ca.pem", authorities);
        folder
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn load(&self) -> Result<Arc<Identity>, TlsError> {
        Identity::load(&Credentials::at(self.path()), DOMAIN)
    }
}

fn identity(authority: &Authority, name: &str) -> Arc<Identity> {
    Folder::new(&authority.issue(name).unwrap(), authority.ca_pem()).load().unwrap()
}

fn id(name: &str) -> SpiffeId {
    SpiffeId::new(DOMAIN, name).unwrap()
}

/// Carries bytes to and fro until both sides are through, or one of them refuses.
fn handshake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let mut client = ClientConnection::new(client, "localhost".try_into().unwrap())?;
    let mut server = ServerConnection::new(server)?;
    let mut wire = Vec::new();
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        client.write_tls(&mut wire).unwrap();
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
        wire.clear();
    }
    Ok((client, server))
}

fn connect(from: &Identity, to: &Identity) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    handshake(from.client_config(to.id().clone(), &[b"h2"]), to.server_config(&[b"h2", b"http/1.1"]))
}

#[test]
fn two_workloads_of_one_mesh_know_each_other() {
    let authority = Authority::create(DOMAIN).unwrap();
    let (gateway, items) = (identity(&authority, "gateway"), identity(&authority, "item-management"));
    for _ in 0..2 {
        let (client, server) = connect(&gateway, &items).unwrap();
        assert_eq!(peer_id(server.peer_certificates().unwrap()).unwrap(), id("gateway"));
        assert_eq!(peer_id(client.peer_certificates().unwrap()).unwrap(), id("item-management"));
        assert_eq!(server.alpn_protocol(), Some(&b"h2"[..]));
        assert_eq!(server.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full), "a session was resumed");
    }
}

#[test]
fn an_authority_loaded_again_goes_on_issuing() {
    let first = Authority::create(DOMAIN).unwrap();
    let again = Authority::load(first.ca_pem(), first.key_pem()).unwrap();
    assert_eq!(again.domain(), DOMAIN);
    connect(&identity(&first, "gateway"), &identity(&again, "identity")).unwrap();

    let other = Authority::create(DOMAIN).unwrap();
    let error = Authority::load(first.ca_pem(), other.key_pem()).unwrap_err();
    assert!(matches!(error, TlsError::KeyMismatch { .. }), "{error}");
}

#[test]
fn a_server_that_is_somebody_else_is_refused() {
    let authority = Authority::create(DOMAIN).unwrap();
    let (gateway, identity, items) =
        (identity(&authority, "gateway"), identity(&authority, "identity"), identity(&authority, "item-management"));
    let error = handshake(gateway.client_config(items.id().clone(), &[]), identity.server_config(&[])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unexpected error: the server is spiffe://eshop.internal/identity, not spiffe://eshop.internal/item-management"
    );
}

#[test]
fn another_authority_of_the_same_name_is_refused_on_both_sides() {
    let (ours, theirs) = (Authority::create(DOMAIN).unwrap(), Authority::create(DOMAIN).unwrap());
    let (gateway, items) = (identity(&ours, "gateway"), identity(&theirs, "item-management"));
    assert!(connect(&gateway, &items).is_err(), "a foreign server got through");

    // A client that trusts us is still not trusted by us.
    let both = format!("{}{}", ours.ca_pem(), theirs.ca_pem());
    let trusting = Folder::new(&theirs.issue("item-management").unwrap(), &both).load().unwrap();
    assert!(connect(&trusting, &gateway).is_err(), "a foreign client got through");
}

#[test]
fn a_client_needs_a_certificate_of_this_mesh() {
    let authority = Authority::create(DOMAIN).unwrap();
    let items = identity(&authority, "item-management");
    let server = items.server_config(&[]);

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.ca_pem().as_bytes()).unwrap()).unwrap();
    let verified = items.client_config(items.id().clone(), &[]);

    let none = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    assert!(handshake(Arc::new(none), Arc::clone(&server)).is_err(), "a client without a certificate got through");

    // The mesh's authority signed it, but it is the public listener's and names no workload.
    let public = authority.issue_public(&["localhost"], &[]).unwrap();
    let mut config = (*verified).clone();
    let single = ClientConfig::builder()
        .with_root_certificates(RootCertStore::empty())
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(public.cert_pem.as_bytes()).unwrap()],
            rustls_pki_types::PrivateKeyDer::from_pem_slice(public.key_pem.as_bytes()).unwrap(),
        )
        .unwrap();
    config.client_auth_cert_resolver = single.client_auth_cert_resolver;
    assert!(handshake(Arc::new(config), server).is_err(), "the public certificate opened the mesh");
}

#[test]
fn a_mistake_in_the_files_shows_at_the_start_and_names_the_file() {
    let (authority, other) = (Authority::create(DOMAIN).unwrap(), Authority::create(DOMAIN).unwrap());
    let (leaf, another) = (authority.issue("gateway").unwrap(), authority.issue("gateway").unwrap());
    let foreign = Authority::create("other.internal").unwrap();
    let expired = Authority::create(DOMAIN).unwrap().with_leaf_validity(Duration::from_secs(60));
    let public = authority.issue_public(&["localhost"], &[IpAddr::from([127, 0, 0, 1])]).unwrap();

    let cases: [(&str, Folder); 8] = [
        ("tls-key.pem does not fit tls-cert.pem", {
            let folder = Folder::new(&leaf, authority.ca_pem());
            folder.put("tls-key.pem", &another.key_pem);
            folder
        }),
        ("tls-cert.pem would be refused by every peer", Folder::new(&leaf, other.ca_pem())),
        ("expired", Folder::new(&expired.issue("gateway").unwrap(), expired.ca_pem())),
        ("this mesh is eshop.internal", Folder::new(&foreign.issue("gateway").unwrap(), foreign.ca_pem())),
        ("no usable SPIFFE ID", Folder::new(&public, authority.ca_pem())),
        ("mesh-ca.pem: no usable certificate", Folder::new(&leaf, "")),
        ("tls-cert.pem: no usable certificate", {
            let folder = Folder::new(&leaf, authority.ca_pem());
            folder.put("tls-cert.pem", "nonsense");
            folder
        }),
        ("tls-key.pem", {
            let folder = Folder::new(&leaf, authority.ca_pem());
            std::fs::remove_file(folder.path().join("tls-key.pem")).unwrap();
            folder
        }),
    ];
    for (expected, folder) in cases {
        let error = folder.load().unwrap_err().to_string();
        assert!(error.to_lowercase().contains(&expected.to_lowercase()), "{error:?} does not say {expected:?}");
        assert!(!error.contains("PRIVATE KEY"), "a key stands in {error:?}");
    }
}

#[test]
fn an_authority_is_replaced_without_restarting_anybody() {
    let (old, new) = (Authority::create(DOMAIN).unwrap(), Authority::create(DOMAIN).unwrap());
    let server_files = Folder::new(&old.issue("item-management").unwrap(), old.ca_pem());
    let client_files = Folder::new(&old.issue("gateway").unwrap(), old.ca_pem());
    let (server, client) = (server_files.load().unwrap(), client_files.load().unwrap());
    // Made once: what is handed out must follow the files.
    let server_config = server.server_config(&[]);
    let client_config = client.client_config(server.id().clone(), &[]);
    let meet = || handshake(Arc::clone(&client_config), Arc::clone(&server_config));
    meet().unwrap();

    let both = format!("{}{}", old.ca_pem(), new.ca_pem());
    server_files.put("mesh-ca.pem", &both);
    client_files.put("mesh-ca.pem", &both);
    server.reload().unwrap();
    client.reload().unwrap();
    meet().unwrap();

    let leaf = new.issue("item-management").unwrap();
    server_files.put("tls-cert.pem", &leaf.cert_pem);
    server_files.put("tls-key.pem", &leaf.key_pem);
    server.reload().unwrap();
    meet().unwrap();

    server_files.put("mesh-ca.pem", new.ca_pem());
    server.reload().unwrap();
    assert!(meet().is_err(), "the old authority is gone, and its client still got through");
}

#[test]
fn a_broken_reload_keeps_the_old_files() {
    let authority = Authority::create(DOMAIN).unwrap();
    let folder = Folder::new(&authority.issue("gateway").unwrap(), authority.ca_pem());
    let (gateway, items) = (folder.load().unwrap(), identity(&authority, "item-management"));

    folder.put("tls-cert.pem", "half a file");
    gateway.reload().unwrap_err();
    connect(&gateway, &items).unwrap();

    let other = authority.issue("identity").unwrap();
    folder.put("tls-cert.pem", &other.cert_pem);
    folder.put("tls-key.pem", &other.key_pem);
    assert!(matches!(gateway.reload(), Err(TlsError::Changed { .. })));
    let (_, server) = connect(&gateway, &items).unwrap();
    assert_eq!(peer_id(server.peer_certificates().unwrap()).unwrap(), id("gateway"));
}

#[test]
fn the_public_listener_speaks_both_versions_and_follows_its_files() {
    let authority = Authority::create(DOMAIN).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let put = |leaf: &Leaf| {
        std::fs::write(folder.path().join("public-cert.pem"), &leaf.cert_pem).unwrap();
        std::fs::write(folder.path().join("public-key.pem"), &*leaf.key_pem).unwrap();
    };
    put(&authority.issue_public(&["localhost"], &[]).unwrap());
    let certificate = PublicCertificate::load(&Credentials::at(folder.path())).unwrap();
    let server = certificate.server_config(&[b"h2", b"http/1.1"]).unwrap();

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.ca_pem().as_bytes()).unwrap()).unwrap();
    let client = |versions: &[&'static rustls::SupportedProtocolVersion], alpn: &[u8]| {
        let mut config = ClientConfig::builder_with_protocol_versions(versions)
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        Arc::new(config)
    };

    let (connected, _) = handshake(client(&[&version::TLS13], b"h2"), Arc::clone(&server)).unwrap();
    assert_eq!(connected.alpn_protocol(), Some(&b"h2"[..]));
    let (connected, _) = handshake(client(&[&version::TLS12], b"http/1.1"), Arc::clone(&server)).unwrap();
    assert_eq!(connected.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    assert!(handshake(client(&[&version::TLS13], b"ftp"), Arc::clone(&server)).is_err());

    let again = client(&[&version::TLS13], b"h2");
    handshake(Arc::clone(&again), Arc::clone(&server)).unwrap();
    let (resumed, _) = handshake(again, Arc::clone(&server)).unwrap();
    assert_eq!(resumed.handshake_kind(), Some(HandshakeKind::Resumed));

    let presented = |connection: &ClientConnection| connection.peer_certificates().unwrap().to_vec();
    let before = presented(&connected);
    std::fs::write(folder.path().join("public-key.pem"), "broken").unwrap();
    certificate.reload().unwrap_err();
    let (connected, _) = handshake(client(&[&version::TLS13], b"h2"), Arc::clone(&server)).unwrap();
    assert_eq!(presented(&connected), before);

    put(&authority.issue_public(&["localhost"], &[]).unwrap());
    certificate.reload().unwrap();
    let (connected, _) = handshake(client(&[&version::TLS13], b"h2"), server).unwrap();
    assert_ne!(presented(&connected), before);
}
