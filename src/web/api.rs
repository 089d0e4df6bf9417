//! The local API: routes, and the response to each (agent 10.3).

use std::net::SocketAddr;
use std::time::Duration;

use super::app::{ApiAnswer, App, EventCursor};
use super::guard::{Guard, GuardError};
use super::http::{self, ApiReply, ReplyBody};
use super::json::Json;
use super::{objects, page, prometheus, requests};
use crate::agent::{AgentState, EndpointView, Handle, StartError};
use crate::config::json::{endpoint_from_json, tunnel_from_json};
use crate::http1::receiver::RequestReceiver;
use crate::http1::text::percent_decoded;
use crate::time::Instant;

/// ngrok's numbers for the API's errors (agent 10.4).
const FAULT: u16 = 100;
const INVALID: u16 = 102;
const FAILED: u16 = 103;
const NOT_READY: u16 = 104;
const NO_REQUEST: u16 = 106;

/// Interval of keep-alive comments on the stream of events.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// The application behind the server.
pub struct Api {
    handle: Handle,
    guard: Guard,
    started: Instant,
}

/// Resource of a path. Names are as in the configuration.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    Page,
    Health,
    Prometheus,
    Root,
    Status,
    Events,
    Tunnels,
    Tunnel(String),
    Endpoints,
    Endpoint(String),
    Requests,
    Request(String),
}

impl Route {
    fn of(path: &str) -> Option<Route> {
        let name = |encoded| percent_decoded(encoded, false);
        Some(match path {
            "/" | "/inspect" | "/inspect/http" | "/status" => Route::Page,
            "/healthz" => Route::Health,
            "/metrics" => Route::Prometheus,
            "/api" | "/api/" => Route::Root,
            "/api/status" => Route::Status,
            "/api/events" => Route::Events,
            "/api/tunnels" => Route::Tunnels,
            "/api/endpoints" => Route::Endpoints,
            "/api/requests/http" | "/api/requests/http/" => Route::Requests,
            _ => match path.split_once("/api/")? {
                ("", rest) => match rest.split_once('/')? {
                    // An empty name is a name too.
                    ("tunnels", rest) => Route::Tunnel(name(rest)?),
                    ("endpoints", rest) => Route::Endpoint(name(rest)?),
                    ("requests", rest) => Route::Request(name(rest.strip_prefix("http/")?)?),
                    _ => return None,
                },
                _ => return None,
            },
        })
    }

    /// Returns the supported methods.
    fn methods(&self) -> &'static str {
        match self {
            Route::Tunnels | Route::Endpoints => "GET, HEAD, POST",
            Route::Tunnel(_) => "GET, HEAD, DELETE",
            Route::Endpoint(_) => "GET, HEAD, PUT, DELETE",
            Route::Requests => "GET, HEAD, POST, DELETE",
            Route::Request(_) => "GET, HEAD, DELETE",
            _ => "GET, HEAD",
        }
    }
}

impl Api {
    /// Returns the API of an agent, for a listener at `bound`.
    pub fn new(handle: Handle, bound: SocketAddr, now: Instant) -> Self {
        let guard = Guard::new(&handle.config().web_allow_hosts, bound.ip());
        Api { handle, guard, started: now }
    }

    fn find(&self, name: &str) -> Option<EndpointView> {
        self.handle.endpoints().into_iter().find(|view| view.name == name)
    }

    /// Returns the response to a GET. `packed`: the client decodes gzip.
    fn get(&self, route: Route, path: &str, query: &str, packed: bool, now: Instant) -> ApiReply {
        match route {
            Route::Page => page(packed)
                .with("Vary", "Accept-Encoding")
                .with("Content-Security-Policy", page::CSP)
                .with("Referrer-Policy", "no-referrer")
                .with("X-Frame-Options", "DENY"),
            Route::Health => self.health(now),
            Route::Prometheus => {
                let text = prometheus::text(&self.handle, self.started, now);
                ApiReply { kind: prometheus::KIND, ..ApiReply::text(200, text) }
            }
            Route::Root => ApiReply::json(200, root()),
            Route::Status => {
                ApiReply::json(200, objects::status(&self.handle.status(), now).into_bytes())
            }
            Route::Events => ApiReply::new("text/event-stream", ReplyBody::Events),
            Route::Tunnels => {
                let each = |j: &mut Json, view: &_| objects::tunnel(j, view, now);
                let json = Json::object(|j| {
                    let list = self.handle.endpoints();
                    j.key("tunnels").brackets(|j| list.iter().for_each(|view| each(j, view)));
                    j.key("uri").text("/api/tunnels");
                });
                ApiReply::json(200, json.into_bytes())
            }
            Route::Endpoints => {
                let each = |j: &mut Json, view: &_| objects::endpoint(j, view, None);
                let json = Json::object(|j| {
                    let list = self.handle.endpoints();
                    j.key("endpoints").brackets(|j| list.iter().for_each(|view| each(j, view)));
                });
                ApiReply::json(200, json.into_bytes())
            }
            Route::Tunnel(name) => match self.find(&name) {
                Some(view) => ApiReply::json(200, tunnel(&view, now)),
                None => not_found(path),
            },
            Route::Endpoint(name) => match self.find(&name) {
                Some(view) => ApiReply::json(200, endpoint(&view, now)),
                None => not_found(path),
            },
            Route::Requests => requests::list(&self.handle, query)
                .unwrap_or_else(|err| fault(400, "the request is invalid", &err)),
            Route::Request(id) => {
                requests::get(&self.handle, &id).unwrap_or_else(|| no_request(&nothing_at(path)))
            }
        }
    }

    fn change(
        &self,
        method: &str,
        route: Route,
        path: &str,
        request: &RequestReceiver,
        now: Instant,
    ) -> ApiAnswer {
        let handle = self.handle.clone();
        let path = path.to_owned();
        if method == "DELETE" {
            return match route {
                Route::Tunnel(name) | Route::Endpoint(name) => {
                    ApiAnswer::Later(Box::new(move || match handle.stop(&name) {
                        Ok(()) => ApiReply::empty(),
                        Err(StartError::Unknown) => not_found(&path),
                        Err(_) => fault(503, "failed to stop tunnel", "no answer in time"),
                    }))
                }
                Route::Request(id) if !requests::delete(&handle, Some(&id)) => {
                    ApiAnswer::Now(no_request(&nothing_at(&path)))
                }
                Route::Requests => {
                    requests::delete(&handle, None);
                    ApiAnswer::Now(ApiReply::empty())
                }
                _ => ApiAnswer::Now(ApiReply::empty()),
            };
        }
        let is_json = request.head().is_some_and(|head| {
            let kind = head.text("content-type").unwrap_or_default();
            let kind = kind.split(';').next().unwrap_or_default();
            kind.trim().eq_ignore_ascii_case(http::JSON)
        });
        if !is_json {
            let err = "the body must have Content-Type: application/json";
            return ApiAnswer::Now(fault(415, "unsupported media type", err));
        }
        let Ok(text) = String::from_utf8(request.body().to_vec()) else {
            return ApiAnswer::Now(fault(400, "the request body is invalid", "it is not UTF-8"));
        };
        ApiAnswer::Later(match (method, route) {
            ("POST", Route::Tunnels) => Box::new(move || start_tunnels(&handle, &text, &path, now)),
            ("POST", Route::Endpoints) => {
                Box::new(move || start_endpoint(&handle, &text, &path, now))
            }
            ("PUT", Route::Endpoint(name)) => {
                Box::new(move || put_endpoint(&handle, &name, &text, &path, now))
            }
            ("POST", Route::Requests) => Box::new(move || replay(&handle, &text)),
            _ => return ApiAnswer::Now(not_found(&path)),
        })
    }

    /// Returns the health in one line and as the status, for monitors and for `wget -q -O-` in
    /// a shell.
    fn health(&self, now: Instant) -> ApiReply {
        let status = self.handle.status();
        let seconds = now.since(status.since).as_secs();
        let state = status.state.name();
        match status.state {
            AgentState::Online => ApiReply::text(200, format!("{state} for {seconds}s\n")),
            _ if status.why.is_empty() => ApiReply::text(503, format!("{state} for {seconds}s\n")),
            _ => ApiReply::text(503, format!("{state} for {seconds}s: {}\n", status.why)),
        }
    }
}

impl App for Api {
    fn answer(&mut self, request: &RequestReceiver, now: Instant) -> ApiAnswer {
        let Some(head) = request.head() else { return ApiAnswer::Now(self.refusal(400, "")) };
        if let Err(why) = self.guard.judge(&head) {
            let (status, why) = match why {
                GuardError::BadHost => (400, "the request must have one Host"),
                GuardError::Host => {
                    (403, "this Host is not allowed here; web_allow_hosts lists those that are")
                }
                GuardError::Origin => (403, "requests from pages of other sites are not allowed"),
            };
            return ApiAnswer::Now(self.refusal(status, why));
        }
        let target = head.path().split('#').next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let Some(route) = Route::of(path) else { return ApiAnswer::Now(not_found(path)) };
        let method = head.method();
        if !route.methods().split(", ").any(|known| known == method) {
            let err = ["this path allows ", route.methods()].concat();
            let reply = fault(405, "method not allowed", &err).with("Allow", route.methods());
            return ApiAnswer::Now(reply);
        }
        match method {
            "GET" | "HEAD" => {
                let accepted = head.text("accept-encoding").unwrap_or_default();
                ApiAnswer::Now(self.get(route, path, query, accepts_gzip(accepted), now))
            }
            _ => self.change(method, route, path, request, now),
        }
    }

    fn refusal(&self, status: u16, why: &str) -> ApiReply {
        let msg = crate::http1::status::reason(status).to_ascii_lowercase();
        let why = match (why, status) {
            ("", 413) => "the body may have 1 MiB at most",
            ("", 431) => "the head of a request may have 8 KiB at most",
            ("", 408) => "the request did not come in time",
            ("", _) => "the request is not HTTP/1.1",
            _ => why,
        };
        fault(status, &msg, why)
    }

    fn news(&mut self, cursor: &mut EventCursor, now: Instant) -> Vec<u8> {
        let mut news = Vec::new();
        let state = self.handle.changed();
        if cursor.state.replace(state) != Some(state) {
            news.extend_from_slice(b"event: status\ndata: ");
            news.extend(objects::status(&self.handle.status(), now).into_bytes());
            news.extend_from_slice(b"\n\n");
        }
        news.extend(requests::news(&self.handle, &mut cursor.requests));
        if news.is_empty()
            && cursor.last_sent.is_none_or(|last_sent| now.since(last_sent) >= KEEPALIVE_INTERVAL)
        {
            news.extend_from_slice(b":\n\n");
        }
        if !news.is_empty() {
            cursor.last_sent = Some(now);
        }
        news
    }
}

/// The page, in the coding that the client decodes.
fn page(packed: bool) -> ApiReply {
    const HTML: &str = "text/html; charset=utf-8";
    match packed {
        true => ApiReply::new(HTML, ReplyBody::Fixed(page::PAGE)).with("Content-Encoding", "gzip"),
        false => ApiReply::new(HTML, ReplyBody::Fixed(page::unpacked())),
    }
}

/// Returns whether an `Accept-Encoding` lists gzip (RFC 9110 12.5.3). A script that sends none
/// decodes none.
fn accepts_gzip(accepted: &str) -> bool {
    accepted.split(',').any(|item| {
        let (coding, weight) = item.split_once(';').unwrap_or((item, ""));
        let coding = coding.trim();
        let known = coding.eq_ignore_ascii_case("gzip") || coding == "*";
        let weight = weight.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok());
        known && weight.unwrap_or(1.0) > 0.0
    })
}

fn root() -> Vec<u8> {
    let json = Json::object(|j| {
        j.key("uri").text("/api");
        for name in ["status", "tunnels", "endpoints"] {
            j.key(&[name, "_uri"].concat()).text(&["/api/", name].concat());
        }
        j.key("requests_uri").text("/api/requests/http");
        j.key("events_uri").text("/api/events");
    });
    json.into_bytes()
}

fn tunnel(view: &EndpointView, now: Instant) -> Vec<u8> {
    let mut json = Json::default();
    objects::tunnel(&mut json, view, now);
    json.into_bytes()
}

fn endpoint(view: &EndpointView, now: Instant) -> Vec<u8> {
    let mut json = Json::default();
    objects::endpoint(&mut json, view, Some(now));
    json.into_bytes()
}

/// Starts the endpoints of a tunnel's body: two if it has two schemes. If one fails, none
/// stays.
fn start_tunnels(handle: &Handle, text: &str, path: &str, now: Instant) -> ApiReply {
    let endpoints = match tunnel_from_json(text, handle.config()) {
        Ok(endpoints) => endpoints,
        Err(e) => return invalid(&e.to_string()),
    };
    let mut started: Vec<EndpointView> = Vec::new();
    for endpoint in endpoints {
        let name = endpoint.name.clone();
        match handle.start(endpoint) {
            Ok(view) => started.push(view),
            Err(error) => {
                for view in &started {
                    // A failed stop cannot be handled further: the endpoint was up a moment
                    // ago.
                    let _ = handle.stop(&view.name);
                }
                return refused(&name, path, error);
            }
        }
    }
    match started.first() {
        Some(view) => ApiReply::json(201, tunnel(view, now)),
        None => invalid("the tunnel is missing"),
    }
}

fn start_endpoint(handle: &Handle, text: &str, path: &str, now: Instant) -> ApiReply {
    match endpoint_from_json(text, handle.config()) {
        Err(e) => invalid(&e.to_string()),
        Ok(wanted) => {
            let name = wanted.name.clone();
            match handle.start(wanted) {
                Ok(view) => ApiReply::json(201, endpoint(&view, now)),
                Err(error) => refused(&name, path, error),
            }
        }
    }
}

fn put_endpoint(handle: &Handle, name: &str, text: &str, path: &str, now: Instant) -> ApiReply {
    match endpoint_from_json(text, handle.config()) {
        Err(e) => invalid(&e.to_string()),
        Ok(wanted) if wanted.name != name => {
            invalid(&["name must be that of the path, ", name].concat())
        }
        Ok(wanted) => match handle.put(wanted) {
            Ok((view, created)) => {
                ApiReply::json(if created { 201 } else { 200 }, endpoint(&view, now))
            }
            Err(error) => refused(name, path, error),
        },
    }
}

fn replay(handle: &Handle, text: &str) -> ApiReply {
    match requests::replay(handle, text) {
        // The response of ngrok's agent is empty too.
        Ok(id) => ApiReply::empty().with("X-Culvert-Request-Id", &id),
        Err((404, err)) => no_request(&err),
        Err((status, err)) => fault(status, "the request cannot be replayed", &err),
    }
}

/// Returns the error that clients of ngrok's API compare, for each failure.
fn refused(name: &str, path: &str, error: StartError) -> ApiReply {
    // The code is at the end, on a line of its own, with a line end.
    let wire = |refusal: crate::proto::codes::Refusal| match refusal.code {
        Some(_) => refusal.to_wire() + "\n",
        None => refusal.to_wire(),
    };
    let failed =
        |err: &str| ApiReply::json(502, objects::error(FAILED, 502, "failed to start tunnel", err));
    match error {
        StartError::NameTaken => invalid(&["tunnel \"", name, "\" already exists"].concat()),
        StartError::Unknown => not_found(path),
        StartError::NotReady => {
            let msg = "ngrok is not yet ready to start tunnels";
            let err = "a successful ngrok tunnel session has not yet been established";
            ApiReply::json(503, objects::error(NOT_READY, 503, msg, err))
        }
        StartError::Invalid(refusal) => invalid(&wire(refusal)),
        StartError::Refused(refusal) => failed(&wire(refusal)),
        StartError::Late => failed("the edge did not respond in time"),
    }
}

fn invalid(err: &str) -> ApiReply {
    ApiReply::json(400, objects::error(INVALID, 400, "invalid tunnel configuration", err))
}

fn fault(status: u16, msg: &str, err: &str) -> ApiReply {
    ApiReply::json(status, objects::error(FAULT, status, msg, err))
}

fn no_request(err: &str) -> ApiReply {
    ApiReply::json(404, objects::error(NO_REQUEST, 404, "resource not found", err))
}

fn not_found(path: &str) -> ApiReply {
    fault(404, "resource not found", &nothing_at(path))
}

fn nothing_at(path: &str) -> String {
    // A long path is known to its client.
    let path: String = path.chars().take(200).collect();
    ["unknown path ", &path].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_names() {
        assert_eq!(Route::of("/api/"), Some(Route::Root));
        assert_eq!(Route::of("/api/tunnels"), Some(Route::Tunnels));
        assert_eq!(Route::of("/api/tunnels/"), Some(Route::Tunnel(String::new())));
        let name = "command_line (http)".to_owned();
        assert_eq!(Route::of("/api/tunnels/command_line%20(http)"), Some(Route::Tunnel(name)));
        assert_eq!(Route::of("/api/endpoints/a%2Fb/c"), Some(Route::Endpoint("a/b/c".into())));
        for none in
            ["", "api", "/api/nothing", "/x/api/tunnels/a", "/api/tunnels/%ff", "/api/tunnels/%"]
        {
            assert_eq!(Route::of(none), None, "{none}");
        }
    }
}
