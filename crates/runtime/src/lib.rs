//! The contract between a service and whatever runs it, which is systemd's: credentials are files in
//! `$CREDENTIALS_DIRECTORY`, readiness and the watchdog go to `$NOTIFY_SOCKET`, sockets come in `$LISTEN_FDS`, SIGTERM
//! means drain, SIGHUP means reload, logs go to stdout. systemd, the compose file and the local runner all provide the
//! same, so that a service has one code path and no "mode".
//!
//! Beside it live the few things every process needs before it speaks to anybody: [settings], the [clock], the
//! [trace context](trace), [telemetry] and [retry] delays. Nothing here knows HTTP, TLS, SQL or NATS.

pub mod clock;
pub mod credentials;
pub mod lifecycle;
mod notify;
pub mod retry;
pub mod settings;
pub mod sockets;
pub mod telemetry;
pub mod trace;
