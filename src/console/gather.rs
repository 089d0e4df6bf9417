//! Collects the content of the screen from the agent's status and metrics.

use std::net::SocketAddr;

use super::requests;
use super::screen::{Connections, Forwarding, SessionLine, Snapshot};
use super::update;
use crate::agent::{AgentState, EndpointState, EndpointView, Handle};
use crate::metrics::{EndpointMetrics, percentiles};
use crate::time::Instant;

/// Returns the state of the agent at `now`, with a request for each row.
pub fn snapshot(agent: &Handle, web: Option<SocketAddr>, rows: usize, now: Instant) -> Snapshot {
    let status = agent.status();
    let endpoints = agent.endpoints();
    let session = match status.state {
        AgentState::Online => SessionLine::Online,
        AgentState::Connecting if status.why.is_empty() => SessionLine::Connecting,
        state => SessionLine::Failing(state.name(), status.why),
    };
    let account = match status.plan.as_str() {
        "" => status.account,
        plan => format!("{} (Plan: {plan})", status.account).trim_start().to_owned(),
    };
    let mut banner = status.banner;
    if !status.deprecation.is_empty() {
        banner = format!("{banner}\n{}", status.deprecation).trim_start().to_owned();
    }
    let mut regions: Vec<String> = Vec::new();
    for leg in status.legs.iter().filter(|leg| !leg.region.is_empty()) {
        if !regions.contains(&leg.region) {
            regions.push(leg.region.clone());
        }
    }
    Snapshot {
        program: "culvert",
        banner,
        session,
        account,
        version: env!("CARGO_PKG_VERSION"),
        region: regions.join(", "),
        latency: status.legs.iter().find_map(|leg| leg.latency.filter(|_| leg.online)),
        web: web.map(|addr| format!("http://{addr}")).unwrap_or_default(),
        connections: connections(endpoints.iter().map(|view| &*view.metrics), now),
        forwarding: endpoints.into_iter().map(forwarding).collect(),
        requests: requests::newest(agent, rows),
        update: update::text(agent),
    }
}

fn forwarding(view: EndpointView) -> Forwarding {
    let trouble = match view.state {
        EndpointState::Up => String::new(),
        EndpointState::Waiting(why) if why.is_empty() => "waiting".to_owned(),
        EndpointState::Waiting(why) | EndpointState::Down(why) => why,
    };
    let url = match view.url.is_empty() {
        true if view.config.url.is_empty() => view.name,
        true => view.config.url.clone(),
        false => view.url,
    };
    Forwarding { url, upstream: view.config.upstream.to_string(), trouble }
}

/// Returns the connections of all endpoints together, with common percentiles.
fn connections<'a>(each: impl Iterator<Item = &'a EndpointMetrics>, now: Instant) -> Connections {
    let mut all = Connections::default();
    let mut durations = Vec::new();
    for metrics in each {
        let one = metrics.conns(now);
        all.total += one.count;
        all.open += u64::from(one.gauge);
        for (sum, rate) in all.rates.iter_mut().zip(one.rates) {
            *sum += rate;
        }
        metrics.durations(&mut durations);
    }
    let nanos = percentiles(&mut durations);
    for (seconds, nanos) in all.percentiles.iter_mut().zip(nanos) {
        *seconds = nanos as f64 / 1e9;
    }
    all
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn percentiles_are_of_all_connections() {
        let metrics = |count: u64, took: Duration| {
            let metrics = EndpointMetrics::default();
            for _ in 0..count {
                metrics.connection_began(Instant::ZERO);
                metrics.connection_ended(Instant::ZERO, Instant::ZERO + took);
            }
            metrics
        };
        // A slow endpoint with little use has little weight.
        let each = [metrics(98, Duration::from_millis(10)), metrics(2, Duration::from_secs(5))];
        let all = connections(each.iter(), Instant::ZERO);
        assert_eq!(all.total, 100);
        assert!(all.percentiles.iter().all(|s| (s - 0.01).abs() < 1e-6), "{:?}", all.percentiles);
    }
}
