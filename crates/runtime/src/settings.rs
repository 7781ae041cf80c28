//! What a service is told about its place in the mesh: the `BERTH_*` variables. None of them is secret.

use std::{collections::BTreeMap, env, fmt, net::SocketAddr};

use nix::unistd::gethostname;

/// The settings every service gets from whatever runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `BERTH_SERVICE`: the service's name in the mesh, `item-management`.
    pub service: String,
    /// `BERTH_INSTANCE`: the name of this running copy, `item-management-1`. Where it is not set, as in containers, whose copies all
    /// have one environment, it is `BERTH_SERVICE` and the host name: `item-management-4f2a9c01d7be`.
    pub instance: String,
    /// `BERTH_DOMAIN`: the mesh's domain, which is also its SPIFFE trust domain.
    pub domain: String,
    /// `BERTH_LISTEN`: the address of the mesh listener.
    pub listen: SocketAddr,
    /// `BERTH_PUBLIC_URL`: the gateway's public base URL, without a slash at its end.
    pub public_url: Option<String>,
    /// `BERTH_DATABASE_URL`: `postgresql://role@host:port/database`; the password is a credential.
    pub database_url: Option<String>,
    /// `BERTH_DATABASE_SERVER`: the SPIFFE name of the database's server.
    pub database_server: Option<String>,
    /// `BERTH_EVENTS_URL`: `tls://host:port` of the event server.
    pub events_url: Option<String>,
    /// `BERTH_CONSUMES`: what it consumes of which stream, `items=items.item.*,items.reservation.* documents=documents.>`.
    pub consumes: BTreeMap<String, Vec<String>>,
    /// `BERTH_AUDIENCE`: the audience of access tokens.
    pub audience: Option<String>,
    /// `BERTH_PEER_<SERVICE>`: the `host:port` of all instances of each service this one calls, by service name.
    pub peers: BTreeMap<String, Vec<String>>,
}

impl Settings {
    /// Reads the process environment.
    ///
    /// # Errors
    /// Lists every variable that is missing or malformed.
    pub fn from_env() -> Result<Self, SettingError> {
        let mut faults = Vec::new();
        let vars = env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with("BERTH_"))?;
            match value.into_string() {
                Ok(value) => Some((name, value)),
                Err(_) => {
                    faults.push(Fault::new(&name, "is not UTF-8", "set it to plain text"));
                    None
                }
            }
        });
        let mut vars: BTreeMap<String, String> = vars.collect();
        if !faults.is_empty() {
            return Err(SettingError { faults });
        }
        // The kernel's name of the host, since Podman gives a health check no `HOSTNAME`.
        let host = gethostname().ok().and_then(|host| host.into_string().ok());
        if let (None, Some(service), Some(host)) = (vars.get("BERTH_INSTANCE"), vars.get("BERTH_SERVICE"), host) {
            vars.insert("BERTH_INSTANCE".to_owned(), format!("{service}-{}", host.to_ascii_lowercase()));
        }
        Self::from_vars(vars)
    }

    /// Reads the given variables; those that do not start with `BERTH_` are ignored.
    ///
    /// # Errors
    /// Lists every variable that is missing or malformed.
    pub fn from_vars<K: Into<String>, V: Into<String>>(
        vars: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, SettingError> {
        let mut reader = Reader {
            vars: vars.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            faults: Vec::new(),
        };
        let service = reader.required("BERTH_SERVICE", name);
        let instance = reader.required("BERTH_INSTANCE", name);
        let domain = reader.required("BERTH_DOMAIN", domain);
        let listen = reader.required("BERTH_LISTEN", address);
        let public_url = reader.optional("BERTH_PUBLIC_URL", public_url);
        let database_url = reader.optional("BERTH_DATABASE_URL", database_url);
        let database_server = reader.optional("BERTH_DATABASE_SERVER", name);
        let events_url = reader.optional("BERTH_EVENTS_URL", events_url);
        let consumes = reader.optional("BERTH_CONSUMES", consumes).unwrap_or_default();
        let audience = reader.optional("BERTH_AUDIENCE", not_empty);
        let peers = reader.peers();
        match (service, instance, domain, listen, reader.faults) {
            (Some(service), Some(instance), Some(domain), Some(listen), faults) if faults.is_empty() => Ok(Self {
                service,
                instance,
                domain,
                listen,
                public_url,
                database_url,
                database_server,
                events_url,
                consumes,
                audience,
                peers,
            }),
            (.., faults) => Err(SettingError { faults }),
        }
    }
}

/// Collects every fault, so that a person mends them in one go.
struct Reader {
    vars: BTreeMap<String, String>,
    faults: Vec<Fault>,
}

/// What a well-formed value looks like, for whoever has to mend it.
type Mend = &'static str;

impl Reader {
    fn required<T>(&mut self, variable: &str, parse: fn(&str) -> Result<T, Mend>) -> Option<T> {
        if !self.vars.contains_key(variable) {
            self.faults.push(Fault::new(
                variable,
                "is not set",
                "the service manager must set it; `berth up` and the generated units do",
            ));
        }
        self.optional(variable, parse)
    }

    fn optional<T>(&mut self, variable: &str, parse: fn(&str) -> Result<T, Mend>) -> Option<T> {
        let value = self.vars.get(variable)?;
        parse(value).map_err(|mend| self.faults.push(Fault::new(variable, "is malformed", mend))).ok()
    }

    /// Service names have no underscore, so that the way back from `BERTH_PEER_ITEM_MANAGEMENT` is unambiguous.
    fn peers(&mut self) -> BTreeMap<String, Vec<String>> {
        let variables: Vec<String> = self.vars.keys().filter(|name| name.starts_with(PEER)).cloned().collect();
        let mut peers = BTreeMap::new();
        for variable in variables {
            let service = variable.trim_start_matches(PEER).to_ascii_lowercase().replace('_', "-");
            if let Some(addresses) = self.optional(&variable, addresses) {
                peers.insert(service, addresses);
            }
        }
        peers
    }
}

const PEER: &str = "BERTH_PEER_";

fn name(value: &str) -> Result<String, Mend> {
    let valid = value.starts_with(|first: char| first.is_ascii_lowercase())
        && !value.ends_with('-')
        && value.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if valid {
        Ok(value.to_owned())
    } else {
        Err("use lower-case letters, digits and hyphens, starting with a letter, like `item-management`")
    }
}

fn domain(value: &str) -> Result<String, Mend> {
    let valid = !value.is_empty()
        && value.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        });
    if valid { Ok(value.to_owned()) } else { Err("use a lower-case domain name like `eshop.internal`") }
}

fn address(value: &str) -> Result<SocketAddr, Mend> {
    value.parse().map_err(|_| "use IP:PORT, like `127.0.0.1:8200` or `[::1]:8200`")
}

fn consumes(value: &str) -> Result<BTreeMap<String, Vec<String>>, Mend> {
    let of_stream = |word: &str| {
        let (stream, subjects) = word.split_once('=')?;
        let subjects: Vec<String> = subjects.split(',').map(str::to_owned).collect();
        (name(stream).is_ok() && subjects.iter().all(|subject| !subject.is_empty()))
            .then(|| (stream.to_owned(), subjects))
    };
    value.split_ascii_whitespace().map(of_stream).collect::<Option<_>>().ok_or(
        "use STREAM=SUBJECT,SUBJECT with a space between streams, like `items=items.item.* documents=documents.>`",
    )
}

fn addresses(value: &str) -> Result<Vec<String>, Mend> {
    let valid = |address: &str| {
        address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0))
    };
    let addresses: Vec<String> = value.split(',').map(|address| address.trim().to_owned()).collect();
    if addresses.iter().all(|address| valid(address)) {
        Ok(addresses)
    } else {
        Err("use host:port, several separated by commas")
    }
}

fn public_url(value: &str) -> Result<String, Mend> {
    let host = value.strip_prefix("https://").or_else(|| value.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && !value.ends_with('/') => Ok(value.to_owned()),
        _ => Err("use the gateway's base URL without a slash at its end, like `https://localhost:8443`"),
    }
}

fn database_url(value: &str) -> Result<String, Mend> {
    let rest = value.strip_prefix("postgresql://").or_else(|| value.strip_prefix("postgres://"));
    let authority = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((role, _)) if role.contains(':') => {
            Err("remove the password from the URL: it belongs into the credential `database-password`")
        }
        Some((role, host)) if !role.is_empty() && !host.is_empty() => Ok(value.to_owned()),
        _ => Err("use postgresql://ROLE@HOST:PORT/DATABASE"),
    }
}

fn events_url(value: &str) -> Result<String, Mend> {
    let authority = value.strip_prefix("tls://").or_else(|| value.strip_prefix("nats://"));
    match authority {
        Some(authority) if authority.contains('@') => {
            Err("remove the user from the URL: it is the credential `nats-seed`")
        }
        Some(authority) if !authority.is_empty() => Ok(value.to_owned()),
        _ => Err("use tls://HOST:PORT"),
    }
}

fn not_empty(value: &str) -> Result<String, Mend> {
    if value.is_empty() { Err("give it a value, or do not set it at all") } else { Ok(value.to_owned()) }
}

/// The variables that are missing or malformed, and how to mend each. Values are not repeated: a malformed one may hold
/// what should have been a credential.
#[derive(Debug, thiserror::Error)]
pub struct SettingError {
    faults: Vec<Fault>,
}

#[derive(Debug)]
struct Fault {
    variable: String,
    what: &'static str,
    mend: Mend,
}

impl Fault {
    fn new(variable: &str, what: &'static str, mend: Mend) -> Self {
        Self { variable: variable.to_owned(), what, mend }
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Fault { variable, what, mend }) in self.faults.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(formatter, "{separator}{variable} {what}: {mend}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> BTreeMap<&'static str, &'static str> {
        BTreeMap::from([
            ("BERTH_SERVICE", "eshop-documents"),
            ("BERTH_INSTANCE", "eshop-documents-2"),
            ("BERTH_DOMAIN", "eshop.internal"),
            ("BERTH_LISTEN", "127.0.0.1:8300"),
            ("BERTH_PUBLIC_URL", "https://localhost:8443"),
            ("BERTH_DATABASE_URL", "postgresql://eshop-documents@127.81.0.9:5432/eshop-documents"),
            ("BERTH_DATABASE_SERVER", "eshop-documents-db"),
            ("BERTH_EVENTS_URL", "tls://127.81.0.10:4222"),
            ("BERTH_CONSUMES", "items=items.item.*,items.reservation.* documents=documents.>"),
            ("BERTH_AUDIENCE", "https://eshop.internal"),
            ("BERTH_PEER_ITEM_MANAGEMENT", "127.81.0.4:8200,127.81.0.5:8200"),
        ])
    }

    #[test]
    fn all_of_it_is_read() {
        let settings = Settings::from_vars(complete()).unwrap();
        assert_eq!(settings.service, "eshop-documents");
        assert_eq!(settings.instance, "eshop-documents-2");
        assert_eq!(settings.listen.port(), 8300);
        let consumed = |subjects: &[&str]| subjects.iter().map(ToString::to_string).collect();
        assert_eq!(
            settings.consumes,
            BTreeMap::from([
                ("documents".to_owned(), consumed(&["documents.>"])),
                ("items".to_owned(), consumed(&["items.item.*", "items.reservation.*"])),
            ])
        );
        assert_eq!(
            settings.peers,
            BTreeMap::from([("item-management".into(), vec!["127.81.0.4:8200".into(), "127.81.0.5:8200".into()])])
        );
    }

    #[test]
    fn what_a_service_does_not_need_may_be_absent() {
        let vars = complete()
            .into_iter()
            .filter(|(name, _)| matches!(*name, "BERTH_SERVICE" | "BERTH_INSTANCE" | "BERTH_DOMAIN" | "BERTH_LISTEN"));
        let settings = Settings::from_vars(vars).unwrap();
        assert_eq!((settings.database_url, settings.peers.len()), (None, 0));
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let error = Settings::from_vars([("BERTH_LISTEN", "8300")]).unwrap_err().to_string();
        for variable in [
            "BERTH_SERVICE is not set",
            "BERTH_INSTANCE is not set",
            "BERTH_DOMAIN is not set",
            "BERTH_LISTEN is malformed",
        ] {
            assert!(error.contains(variable), "{error}");
        }
    }

    #[test]
    fn each_malformed_value_is_named_with_its_mend() {
        for (variable, value, mend) in [
            ("BERTH_SERVICE", "Item_Management", "lower-case"),
            ("BERTH_SERVICE", "items-", "lower-case"),
            ("BERTH_DOMAIN", "eshop..internal", "domain name"),
            ("BERTH_LISTEN", "localhost:8300", "IP:PORT"),
            ("BERTH_PUBLIC_URL", "https://localhost:8443/", "without a slash"),
            ("BERTH_PUBLIC_URL", "localhost:8443", "base URL"),
            ("BERTH_DATABASE_URL", "postgresql://role:hunter2@host:5432/db", "database-password"),
            ("BERTH_DATABASE_URL", "mysql://role@host/db", "postgresql://ROLE@HOST"),
            ("BERTH_EVENTS_URL", "tls://user@host:4222", "nats-seed"),
            ("BERTH_EVENTS_URL", "host:4222", "tls://HOST:PORT"),
            ("BERTH_CONSUMES", "items", "STREAM=SUBJECT"),
            ("BERTH_CONSUMES", "items=items.item.*,", "STREAM=SUBJECT"),
            ("BERTH_AUDIENCE", "", "value"),
            ("BERTH_PEER_ITEM_MANAGEMENT", "host:8200,", "host:port"),
            ("BERTH_PEER_ITEM_MANAGEMENT", "host:0", "host:port"),
        ] {
            let mut vars = complete();
            vars.insert(variable, value);
            let error = Settings::from_vars(vars).unwrap_err().to_string();
            assert!(error.starts_with(variable) && error.contains(mend) && !error.contains("hunter2"), "{error}");
        }
    }
}
