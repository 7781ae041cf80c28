//! The compose file's own vocabulary: what `docker-compose` 1.29, `docker compose` 2 and podman-compose all read.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

#[derive(Serialize)]
pub(super) struct File {
    pub(super) services: Entries<Container>,
    pub(super) networks: Entries<Network>,
    pub(super) volumes: Entries<Volume>,
}

/// A map in an order of its own.
pub(super) struct Entries<T>(pub(super) Vec<(String, T)>);

impl<T: Serialize> Serialize for Entries<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// One compose service; absent fields are left out of the file.
#[derive(Serialize, Default)]
pub(super) struct Container {
    pub(super) image: String,
    pub(super) build: Build,
    /// Started only where one of these is asked for, or by its name; always, without any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) profiles: Vec<&'static str>,
    /// The engine's own first process, which passes signals on and buries what the program leaves.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) init: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) entrypoint: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) command: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) working_dir: Option<&'static str>,
    pub(super) user: String,
    pub(super) read_only: bool,
    pub(super) cap_drop: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) cap_add: Vec<&'static str>,
    pub(super) security_opt: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) network_mode: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scale: Option<u16>,
    pub(super) mem_limit: u64,
    /// Memory and swap together: no swap.
    pub(super) memswap_limit: u64,
    pub(super) cpus: f64,
    pub(super) pids_limit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shm_size: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) restart: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stop_signal: Option<&'static str>,
    // docker-compose 1.29 passes on whole seconds alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stop_grace_period: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", serialize_with = "assignments")]
    pub(super) environment: BTreeMap<String, String>,
    pub(super) volumes: Vec<String>,
    pub(super) tmpfs: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) ports: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) networks: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) healthcheck: Option<HealthCheck>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) depends_on: BTreeMap<String, Condition>,
    pub(super) logging: Logging,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// As `NAME=value`: as a map, a reader of YAML 1.1 would take the value `on` for a truth value.
fn assignments<S: Serializer>(environment: &BTreeMap<String, String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(environment.iter().map(|(name, value)| format!("{name}={value}")))
}

#[derive(Serialize, Default)]
pub(super) struct Build {
    pub(super) context: &'static str,
    pub(super) dockerfile: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<&'static str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) args: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
pub(super) struct HealthCheck {
    pub(super) test: Vec<String>,
    pub(super) interval: &'static str,
    pub(super) timeout: &'static str,
    pub(super) retries: u8,
    pub(super) start_period: &'static str,
}

#[derive(Serialize)]
pub(super) struct Condition {
    pub(super) condition: &'static str,
}

/// A container's log is bounded.
#[derive(Serialize)]
pub(super) struct Logging {
    pub(super) driver: &'static str,
    pub(super) options: BTreeMap<&'static str, &'static str>,
}

impl Default for Logging {
    fn default() -> Self {
        Self { driver: "json-file", options: BTreeMap::from([("max-file", "4"), ("max-size", "8m")]) }
    }
}

#[derive(Serialize)]
pub(super) struct Network {
    pub(super) internal: bool,
}

#[derive(Serialize)]
pub(super) struct Volume {}
