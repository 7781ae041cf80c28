//! What a process says about itself: JSON log lines on stdout and metrics in the OpenMetrics text format.

mod lines;
mod metrics;

use std::{any::Any, io, panic};

use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use self::lines::JsonLines;
pub use self::metrics::Metrics;
use crate::settings::Settings;

/// Turns on logging for the process: one JSON object a line on stdout with `timestamp`, `level`, `service`, `instance`,
/// `target`, `message`, the fields of the surrounding spans and those of the event, `trace_id` among them.
///
/// `RUST_LOG` chooses what is logged (default `info`). Panics become `error` lines. A second call changes nothing.
pub fn init(settings: &Settings) {
    let filter = EnvFilter::builder().with_default_directive(tracing::Level::INFO.into()).from_env_lossy();
    let lines = JsonLines::new(&settings.service, &settings.instance, io::stdout);
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        panic::set_hook(Box::new(|panic| {
            let location = panic.location().map(ToString::to_string);
            tracing::error!(location, "panic: {}", panic_message(panic.payload()));
        }));
    }
}

/// The text a panic was raised with.
pub fn panic_message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
