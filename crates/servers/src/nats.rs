//! One NATS server with JetStream: its configuration and its command.
//!
//! JetStream writes every message to disk before it acknowledges it (`sync_interval: always`); with the default an
//! acknowledged message can be lost by a power cut. Users are known by public nkeys, so the file holds no secret.

use std::{fs, net::IpAddr, path::PathBuf};

use serde_json::{Value, json};

use crate::{Error, Launch, NatsProgram, TlsFiles};

/// What one server is to be.
#[derive(Debug, Clone)]
pub struct Nats {
    /// The program to run it with.
    pub program: NatsProgram,
    /// Folder for its store and its configuration file; made by [`prepare`](Nats::prepare).
    pub data: PathBuf,
    /// The server's name, as clients see it.
    pub name: String,
    /// Address to listen on.
    pub host: IpAddr,
    /// TCP port to listen on.
    pub port: u16,
    /// Certificates; without them the server speaks plain TCP (tests only).
    pub tls: Option<TlsFiles>,
    /// Who may connect; empty admits everybody (tests only).
    pub users: Vec<User>,
    /// Bytes JetStream may use on disk.
    pub max_store: u64,
}

/// A client of the server, and what it may do.
#[derive(Debug, Clone)]
pub struct User {
    /// Public part of its nkey (`U…`).
    pub public_key: String,
    /// Subjects it may publish to, wildcards included.
    pub publish: Vec<String>,
    /// Subjects it may subscribe to, wildcards included.
    pub subscribe: Vec<String>,
}

impl Nats {
    /// Makes the folders and writes the configuration. Repeating it changes nothing.
    ///
    /// # Errors
    /// A folder or file cannot be written.
    pub fn prepare(&self) -> Result<(), Error> {
        let store = self.store();
        fs::create_dir_all(&store).map_err(Error::io("cannot create", &store))?;
        let file = self.file();
        let next = file.with_extension("next");
        fs::write(&next, format!("{:#}\n", self.configuration())).map_err(Error::io("cannot write", &next))?;
        fs::rename(&next, &file).map_err(Error::io("cannot rename", &next))
    }

    /// The command that runs the server in the foreground. SIGTERM stops it cleanly, SIGHUP reads the configuration again.
    pub fn launch(&self) -> Launch {
        Launch {
            program: self.program.path().to_owned(),
            args: vec!["--config".into(), self.file().into()],
            account: None,
        }
    }

    fn file(&self) -> PathBuf {
        self.data.join("nats.conf")
    }

    fn store(&self) -> PathBuf {
        self.data.join("jetstream")
    }

    /// NATS reads JSON as a form of its own configuration format.
    fn configuration(&self) -> Value {
        let mut configuration = json!({
            "server_name": self.name,
            "listen": format!("{}:{}", self.host, self.port),
            "max_payload": 1024 * 1024,
            "max_connections": 1024,
            "write_deadline": "10s",
            "jetstream": {
                "store_dir": self.store(),
                "max_memory_store": 0,
                "max_file_store": self.max_store,
                "sync_interval": "always",
            },
        });
        let Some(settings) = configuration.as_object_mut() else {
            return configuration;
        };
        if let Some(tls) = &self.tls {
            settings.insert(
                "tls".into(),
                json!({ "cert_file": tls.cert, "key_file": tls.key, "ca_file": tls.ca, "verify": true, "timeout": 5 }),
            );
        }
        if !self.users.is_empty() {
            let users: Vec<Value> = self.users.iter().map(User::entry).collect();
            settings.insert("authorization".into(), json!({ "timeout": 5, "users": users }));
        }
        configuration
    }
}

impl User {
    fn entry(&self) -> Value {
        json!({
            "nkey": self.public_key,
            "permissions": { "publish": { "allow": self.publish }, "subscribe": { "allow": self.subscribe } },
        })
    }
}
