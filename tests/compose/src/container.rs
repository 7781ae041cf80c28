//! One container, as the engine describes it.

use std::fmt;

use serde_json::Value;

/// What `docker inspect` says.
#[derive(Debug, Clone)]
pub struct Container(Value);

impl Container {
    pub(crate) fn new(inspected: Value) -> Self {
        Self(inspected)
    }

    /// A value of the description, by JSON pointer.
    pub fn value(&self, pointer: &str) -> &Value {
        self.0.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// A text of the description, by JSON pointer; empty when there is none.
    pub fn text(&self, pointer: &str) -> &str {
        self.value(pointer).as_str().unwrap_or_default()
    }

    /// A whole number of the description, by JSON pointer.
    pub fn number(&self, pointer: &str) -> i64 {
        self.value(pointer).as_i64().unwrap_or_else(|| panic!("no number at {pointer}: {:#}", self.0))
    }

    /// Its identity.
    pub fn id(&self) -> &str {
        self.text("/Id")
    }

    /// The service of the compose file that it is a copy of.
    pub fn service(&self) -> &str {
        self.text("/Config/Labels/com.docker.compose.service")
    }

    /// Its process, by the number that the host knows it by; 0 when it does not run.
    pub fn pid(&self) -> i64 {
        self.number("/State/Pid")
    }

    /// How often the engine started it again.
    pub fn restarts(&self) -> i64 {
        self.number("/RestartCount")
    }

    /// Whether its health check passes.
    pub fn is_healthy(&self) -> bool {
        self.text("/State/Status") == "running" && self.text("/State/Health/Status") == "healthy"
    }

    /// Its address in a network of the compose file.
    pub fn address(&self, network: &str) -> &str {
        let networks = self.value("/NetworkSettings/Networks").as_object().expect("a container has networks");
        let (_, joined) = networks
            .iter()
            .find(|(name, _)| name.ends_with(&format!("_{network}")))
            .unwrap_or_else(|| panic!("{} is not in {network}: {networks:?}", self.service()));
        joined.pointer("/IPAddress").and_then(Value::as_str).unwrap_or_default()
    }

    /// Ports that it publishes on the host.
    pub fn published(&self) -> Vec<String> {
        let ports = self.value("/NetworkSettings/Ports").as_object();
        let bindings = ports.into_iter().flatten().filter_map(|(_, hosts)| hosts.as_array()).flatten();
        let mut ports: Vec<String> =
            bindings.filter_map(|host| Some(host.pointer("/HostPort")?.as_str()?.to_owned())).collect();
        // One binding for IPv4, one for IPv6.
        ports.sort();
        ports.dedup();
        ports
    }
}

impl fmt::Display for Container {
    /// Everything that the engine shows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
