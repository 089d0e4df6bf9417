//! Objects of the local API with the fields of ngrok's (agent 10.4). Own fields are last in
//! each.

use std::time::Duration;

use super::http::percent_encoded;
use super::json::Json;
use crate::agent::{EndpointState, EndpointView, Status};
use crate::config::{EndpointKind, UpstreamScheme};
use crate::metrics::Summary;
use crate::time::Instant;

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Returns the value of `uri`.
pub fn uri(collection: &str, name: &str) -> String {
    ["/api/", collection, "/", &percent_encoded(name)].concat()
}

/// Writes a Tunnel.
pub fn tunnel(json: &mut Json, view: &EndpointView, now: Instant) {
    json.braces(|j| {
        j.key("name").text(&view.name);
        j.key("ID").text(&view.id);
        j.key("uri").text(&uri("tunnels", &view.name));
        j.key("public_url").text(&view.url);
        j.key("proto").text(&view.proto);
        j.key("config").braces(|j| {
            j.key("addr").text(&view.config.upstream.to_string());
            j.key("inspect").plain(view.config.inspect);
        });
        metrics(j, view, now);
        if !view.config.labels.is_empty() {
            j.key("labels").brackets(|j| {
                view.config.labels.iter().for_each(|(k, v)| j.text(&[k, "=", v].concat()));
            });
        }
        state(j, view);
    });
}

/// Writes an Endpoint. It has metrics if it is requested alone.
pub fn endpoint(json: &mut Json, view: &EndpointView, with_metrics: Option<Instant>) {
    let config = &view.config;
    json.braces(|j| {
        j.key("name").text(&view.name);
        j.key("uri").text(&uri("endpoints", &view.name));
        j.key("url").text(if view.url.is_empty() { &config.url } else { &view.url });
        j.key("upstream").braces(|j| {
            j.key("url").text(&config.upstream.to_string());
            let protocol = match config.upstream_protocol.as_str() {
                "" if config.kind == EndpointKind::Http
                    && config.upstream.scheme != UpstreamScheme::File =>
                {
                    "http1"
                }
                named => named,
            };
            if !protocol.is_empty() {
                j.key("protocol").text(protocol);
            }
            if config.proxy_protocol > 0 {
                j.key("proxy_protocol").text(&config.proxy_protocol.to_string());
            }
        });
        j.key("inspect").plain(config.inspect);
        j.key("pooling_enabled").plain(config.pooling);
        let texts = [
            ("traffic_policy", &config.traffic_policy),
            ("description", &config.description),
            ("metadata", &config.metadata),
        ];
        for (key, text) in texts {
            if key == "traffic_policy" || !text.is_empty() {
                j.key(key).text(text);
            }
        }
        if !config.bindings.is_empty() {
            j.key("bindings").brackets(|j| config.bindings.iter().for_each(|b| j.text(b)));
        }
        if let Some(now) = with_metrics {
            metrics(j, view, now);
        }
    });
}

/// Writes whether visitors are served, only if they are not.
fn state(json: &mut Json, view: &EndpointView) {
    let (state, why) = match &view.state {
        EndpointState::Up => return,
        EndpointState::Waiting(why) => ("waiting", why),
        EndpointState::Down(why) => ("down", why),
    };
    json.key("status").text(state);
    json.key("err").text(why);
}

fn metrics(json: &mut Json, view: &EndpointView, now: Instant) {
    json.key("metrics").braces(|j| {
        j.key("conns").braces(|j| {
            let conns = view.metrics.conns(now);
            j.key("count").plain(conns.count);
            j.key("gauge").plain(conns.gauge);
            rates(j, &conns);
        });
        j.key("http").braces(|j| {
            let http = view.metrics.http(now);
            j.key("count").plain(http.count);
            rates(j, &http);
        });
    });
}

fn rates(json: &mut Json, summary: &Summary) {
    for (key, rate) in ["rate1", "rate5", "rate15"].iter().zip(summary.rates) {
        json.key(key).plain(rate as f32);
    }
    for (key, nanos) in ["p50", "p90", "p95", "p99"].iter().zip(summary.percentiles) {
        json.key(key).plain(nanos);
    }
}

/// Returns the Status.
pub fn status(status: &Status, now: Instant) -> Json {
    Json::object(|j| {
        j.key("status").text(status.state.name());
        j.key("agent_version").text(VERSION);
        j.key("session").braces(|j| {
            j.key("legs").brackets(|j| {
                for leg in status.legs.iter().filter(|leg| leg.online) {
                    j.braces(|j| {
                        j.key("region").text(&leg.region);
                        j.key("latency").text(&leg.latency.map(milliseconds).unwrap_or_default());
                        j.key("address").text(&leg.address);
                    });
                }
            });
        });
        j.key("uri").text("/api/status");
        j.key("status_seconds").plain(now.since(status.since).as_secs());
        let texts = [
            ("err", &status.why),
            ("account", &status.account),
            ("plan", &status.plan),
            ("banner", &status.banner),
            ("deprecation", &status.deprecation),
        ];
        for (key, text) in texts {
            if !text.is_empty() {
                j.key(key).text(text);
            }
        }
        j.key("sessions").plain(status.sessions);
        if let Some(at) = status.next_try {
            j.key("next_try_seconds").plain(at.since(now).as_secs());
        }
    })
}

/// Returns a latency for display: `87ms`.
fn milliseconds(latency: Duration) -> String {
    let us = latency.as_micros();
    match us {
        0..10_000 => format!("{}.{}ms", us / 1_000, us / 100 % 10),
        _ => format!("{}ms", us / 1_000),
    }
}

/// Returns an Error: clients compare `msg`, people read `err`.
pub fn error(code: u16, status: u16, msg: &str, err: &str) -> Vec<u8> {
    let json = Json::object(|j| {
        j.key("error_code").plain(code);
        j.key("status_code").plain(status);
        j.key("msg").text(msg);
        j.key("details").braces(|j| j.key("err").text(err));
    });
    json.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_short() {
        let text = |us| milliseconds(Duration::from_micros(us));
        assert_eq!([0, 449, 9_999, 87_400].map(text), ["0.0ms", "0.4ms", "9.9ms", "87ms"]);
    }

    #[test]
    fn an_error_is_what_the_wrappers_look_for() {
        let bytes = error(103, 502, "failed to start tunnel", "taken\n\nERR_NGROK_334\n");
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["error_code"], 103);
        assert_eq!(value["status_code"], 502);
        assert_eq!(value["msg"], "failed to start tunnel");
        assert!(value["details"]["err"].as_str().unwrap().trim_end().ends_with("ERR_NGROK_334"));
    }
}
