//! Metrics: the process's one registry, and what the kernel knows about the process.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use procfs::process::{LimitValue, Process};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

/// The process's metrics. Clones share one registry.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Metrics {
    /// A registry that already tells `process_cpu_seconds_total`, `process_resident_memory_bytes` and the other basics.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ProcessCollector));
        Self(Arc::new(Mutex::new(registry)))
    }

    /// Adds metrics. Keep labels bounded: a matched route, never a path; a status, never a message.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything as OpenMetrics text, to be served as [`CONTENT_TYPE`](Self::CONTENT_TYPE).
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail; a collector that does leaves its own metrics out.
        let _ = text::encode(&mut text, &self.0.lock().unwrap_or_else(PoisonError::into_inner));
        text
    }

    /// The media type of [`encode`](Self::encode)'s text.
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The basics that Prometheus' client libraries agree on
/// (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>).
#[derive(Debug)]
struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Ok(process) = Process::myself() else {
            return Ok(());
        };
        if let Ok(stat) = process.stat() {
            #[expect(clippy::cast_precision_loss, reason = "ticks since the start stay far below 2⁵²")]
            let cpu = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
            counter(&mut encoder, "process_cpu_seconds", "CPU time used, user and system", cpu)?;
            gauge(
                &mut encoder,
                "process_resident_memory_bytes",
                "Memory in RAM",
                stat.rss.saturating_mul(procfs::page_size()),
            )?;
            gauge(&mut encoder, "process_virtual_memory_bytes", "Memory mapped", stat.vsize)?;
            gauge(&mut encoder, "process_threads", "Threads", u64::try_from(stat.num_threads).unwrap_or(0))?;
            if let Ok(booted) = procfs::boot_time_secs() {
                let started = booted + stat.starttime / procfs::ticks_per_second();
                gauge(&mut encoder, "process_start_time_seconds", "When the process started, Unix time", started)?;
            }
        }
        if let Ok(open) = process.fd_count() {
            gauge(&mut encoder, "process_open_fds", "Open file descriptors", open as u64)?;
        }
        if let Ok(limits) = process.limits()
            && let LimitValue::Value(most) = limits.max_open_files.soft_limit
        {
            gauge(&mut encoder, "process_max_fds", "Most file descriptors that may be open", most)?;
        }
        Ok(())
    }
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    let metric = ConstCounter::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    fn value(text: &str, name: &str) -> f64 {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))
            .unwrap_or_else(|| panic!("no {name} in\n{text}"));
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn clones_share_one_registry() {
        let metrics = Metrics::new();
        let orders: Counter = metrics.clone().register(|registry| {
            let orders = Counter::default();
            registry.register("orders", "Orders placed", orders.clone());
            orders
        });
        orders.inc_by(3);
        let text = metrics.encode();
        assert!((value(&text, "orders_total") - 3.0).abs() < f64::EPSILON);
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn the_process_tells_its_basics() {
        let text = Metrics::new().encode();
        assert!(value(&text, "process_resident_memory_bytes") > 100_000.0);
        assert!(value(&text, "process_virtual_memory_bytes") >= value(&text, "process_resident_memory_bytes"));
        assert!(value(&text, "process_open_fds") >= 3.0);
        assert!(value(&text, "process_threads") >= 1.0);
        assert!(value(&text, "process_cpu_seconds_total") >= 0.0);
        assert!(value(&text, "process_start_time_seconds") > 1.7e9);
    }
}
