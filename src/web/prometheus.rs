//! `GET /metrics`: text in the format of Prometheus.

use std::fmt::{Display, Write};
use std::fs;

use super::objects::VERSION;
use super::requests;
use crate::agent::{AgentState, EndpointState, EndpointView, Handle, PoolNumbers, Status};
use crate::time::Instant;

/// Its `Content-Type`.
pub const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

const GAUGE: &str = "gauge";
const COUNTER: &str = "counter";

/// Metric families, in the order in which they are written.
struct Text(String);

impl Text {
    /// Begins a family.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (key, label)) in labels.iter().enumerate() {
            self.0.push_str(if at == 0 { "{" } else { "," });
            let _ = write!(self.0, "{key}=\"");
            for c in label.chars() {
                match c {
                    '\n' => self.0.push_str("\\n"),
                    '"' | '\\' => self.0.extend(['\\', c]),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// Writes a family with one value.
    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}

/// Returns all metrics. `up`: start of the program.
pub fn text(handle: &Handle, up: Instant, now: Instant) -> String {
    let mut t = Text(String::with_capacity(4096));
    t.family("culvert_build_info", GAUGE, "Version of this program.");
    t.sample("culvert_build_info", &[("version", VERSION)], 1);
    let uptime = now.since(up).as_secs_f32();
    t.single("culvert_uptime_seconds", GAUGE, "Time since the program started.", uptime);
    sessions(&mut t, &handle.status());
    endpoints(&mut t, &handle.endpoints(), now);
    pool(&mut t, handle.pool());
    if let Some((taken, most)) = requests::bytes(handle) {
        t.single("culvert_inspect_bytes", GAUGE, "Memory of captured requests.", taken);
        t.single("culvert_inspect_max_bytes", GAUGE, "Limit of that memory.", most);
    }
    process(&mut t);
    t.0
}

fn sessions(t: &mut Text, status: &Status) {
    let online = u8::from(status.state == AgentState::Online);
    t.single("culvert_session_up", GAUGE, "Whether a session with the edge is up.", online);
    t.single("culvert_sessions_total", COUNTER, "Sessions set up.", status.sessions);
    let again =
        usize::try_from(status.sessions).unwrap_or(0).saturating_sub(status.legs.len().max(1));
    t.single("culvert_reconnects_total", COUNTER, "Sessions set up after one was lost.", again);
    let name = "culvert_heartbeat_latency_seconds";
    t.family(name, GAUGE, "Round trip of the last heartbeat.");
    for leg in &status.legs {
        if let Some(latency) = leg.latency.filter(|_| leg.online) {
            let labels = [("address", &*leg.address), ("region", &leg.region)];
            t.sample(name, &labels, latency.as_secs_f32());
        }
    }
}

fn endpoints(t: &mut Text, endpoints: &[EndpointView], now: Instant) {
    let name = "culvert_endpoint_up";
    t.family(name, GAUGE, "Whether the edge sends visitors to an endpoint.");
    for e in endpoints {
        let up = u8::from(e.state == EndpointState::Up);
        t.sample(name, &[("endpoint", &e.name), ("proto", &e.proto), ("url", &e.url)], up);
    }
    let mut each = |name, kind, help, value: &dyn Fn(&crate::metrics::EndpointMetrics) -> u64| {
        t.family(name, kind, help);
        for e in endpoints {
            t.sample(name, &[("endpoint", &e.name)], value(&e.metrics));
        }
    };
    each("culvert_connections_total", COUNTER, "Connections of visitors.", &|m| m.conns(now).count);
    each("culvert_connections_open", GAUGE, "Connections of visitors that are open.", &|m| {
        m.conns(now).gauge.into()
    });
    each("culvert_http_requests_total", COUNTER, "HTTP requests seen by the inspector.", &|m| {
        m.http(now).count
    });
    each("culvert_received_bytes_total", COUNTER, "Bytes from visitors.", &|m| m.bytes().0);
    each("culvert_sent_bytes_total", COUNTER, "Bytes to visitors.", &|m| m.bytes().1);
}

fn pool(t: &mut Text, pool: PoolNumbers) {
    t.single("culvert_workers", GAUGE, "Threads that serve connections.", pool.workers);
    t.single("culvert_workers_busy", GAUGE, "Threads that serve one now.", pool.busy);
    t.single("culvert_workers_max", GAUGE, "Highest number of such threads.", pool.max_workers);
    let help = "Connections that wait for a thread.";
    t.single("culvert_connections_queued", GAUGE, help, pool.queued);
    t.single(
        "culvert_connections_parked",
        GAUGE,
        "Connections that use no thread now.",
        pool.parked,
    );
    let help = "Connections refused because all threads and places were taken.";
    t.single("culvert_connections_refused_total", COUNTER, help, pool.refused);
}

fn process(t: &mut Text) {
    if let Some(kib) = resident() {
        let help = "Resident memory of the process.";
        t.single("process_resident_memory_bytes", GAUGE, help, kib * 1024);
    }
    // The directory itself uses a descriptor.
    if let Ok(fds) = fs::read_dir("/proc/self/fd") {
        let help = "Open file descriptors of the process.";
        t.single("process_open_fds", GAUGE, help, fds.count().saturating_sub(1));
    }
}

/// Returns the resident memory in KiB.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut t = Text(String::new());
        t.family("a", "gauge", "A.");
        t.sample("a", &[("x", "q\"\\\n"), ("y", "é")], 1.5);
        assert_eq!(t.0, "# HELP a A.\n# TYPE a gauge\na{x=\"q\\\"\\\\\\n\",y=\"é\"} 1.5\n");
    }

    #[test]
    fn the_kernel_tells_of_memory() {
        assert!(resident().unwrap() > 100);
    }
}
