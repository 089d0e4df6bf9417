//! What the shapes of one file share: an edge with IP policies, a CA and secrets, an agent with
//! all endpoints, upstreams, a provider of logins. Requests are not sent here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::DnType;
use serde_json::{Map, Value, json};

use super::shape::{Reply, Shape};
use crate::support::agent::{Agent, agent};
use crate::support::certs::{self, Authority};
use crate::support::edge::Edge;
use crate::support::provider::Provider;
use crate::support::upstream::Upstream;
use crate::support::wire::{Message, Wire};

/// Client whose certificate the CA of the policies has not signed.
const STRANGER: &str = "stranger";

/// Vault of the secrets, and the secrets.
const VAULT: &str = "shapes";
const SECRETS: [(&str, &str); 3] =
    [("password", "quiet-harbour"), ("webhook", "hook-secret-1"), ("token", "t0ken-of-partner")];

/// A running edge with the endpoints of a file.
pub struct World {
    pub edge: Edge,
    pub provider: Provider,
    /// URL of the endpoint of each shape.
    pub urls: Vec<String>,
    /// What the upstreams respond with next.
    pub reply: Arc<Mutex<Option<Reply>>>,
    /// Roots of the edge and of `<ca>`, for visitors.
    pub roots: PathBuf,
    places: BTreeMap<&'static str, String>,
    known: Authority,
    other: Authority,
    _agent: Agent,
    _upstreams: Vec<Upstream>,
}

impl World {
    /// Binds all endpoints of the shapes.
    pub fn start(shapes: &[Shape]) -> Self {
        let (edge, provider) = (Edge::start(), Provider::start());
        let (known, other) = (Authority::new(), Authority::new());
        let server = Upstream::http(describe);
        let mut places = rest_objects(&edge, &known);
        let (chain, key) = known.pair(&["own.localhost"]);
        places.insert("server-certificate", chain);
        places.insert("server-key", key);
        places.insert("issuer", provider.issuer());
        places.insert("server", format!("http://{}", server.addr));
        places.insert("http-port", edge.http.port().to_string());
        places.insert("long", "one line of a long text\n".repeat(100));
        let roots = edge.dir().join("roots.pem");
        let edge_root = std::fs::read_to_string(&edge.ca).unwrap();
        std::fs::write(&roots, edge_root + known.pem()).unwrap();

        let mut endpoints =
            Endpoints { reply: Arc::default(), upstreams: vec![server], list: Vec::new() };
        for (number, shape) in shapes.iter().enumerate() {
            let url = shape.url.clone().unwrap_or_else(|| format!("http://s{number}.localhost"));
            endpoints.add("app", &url, filled(&shape.policy, &places));
            for (url, policy) in &shape.internal {
                let host = url.split_once("://").unwrap().1;
                let name = host.split_once(".internal").expect("an internal URL").0;
                endpoints.add(name, url, filled(policy, &places));
            }
        }
        let Endpoints { reply, upstreams, list } = endpoints;
        let values: Vec<&Value> = list.iter().map(|(_, value)| value).collect();
        let config = edge.config_with(&format!("endpoints: {}\n", json!(values)));
        let agent = agent(&config, ["start", "--all"]).expect(list.len()).start();
        // Ports of TCP endpoints are chosen by the edge.
        let bound = |upstream: &String| {
            let is_its =
                |(_, of): &&(String, String)| of.rsplit("://").next() == Some(upstream.as_str());
            agent.endpoints.iter().find(is_its).expect("a start line").0.clone()
        };
        let public = list.iter().filter(|(_, value)| is_public(value));
        let urls = public.map(|(upstream, _)| bound(upstream)).collect();
        World {
            edge,
            provider,
            urls,
            reply,
            roots,
            places,
            known,
            other,
            _agent: agent,
            _upstreams: upstreams,
        }
    }

    /// Replaces `<NAME>` in a text.
    pub fn fill(&self, text: &str) -> String {
        fill(text, &self.places)
    }

    /// Returns the certificate and the key of a client.
    pub fn certificate(&self, client: &str) -> (String, String) {
        let mut params = certs::params(&[&format!("{client}.example")]);
        params.distinguished_name.push(DnType::CommonName, client);
        params.distinguished_name.push(DnType::OrganizationName, "Harbour");
        params.distinguished_name.push(DnType::OrganizationalUnitName, "Cranes");
        params.distinguished_name.push(DnType::CountryName, "DE");
        let authority = if client == STRANGER { &self.other } else { &self.known };
        authority.pair_of(params)
    }
}

/// Endpoints for the configuration of the agent, each with the address of its upstream.
struct Endpoints {
    reply: Arc<Mutex<Option<Reply>>>,
    upstreams: Vec<Upstream>,
    list: Vec<(String, Value)>,
}

impl Endpoints {
    /// Adds an endpoint. Shapes share an internal endpoint with the same policy.
    fn add(&mut self, name: &str, url: &str, policy: Value) {
        let known = self.list.iter().find(|(_, value)| value["url"] == url);
        if let Some((_, known)) = known.filter(|_| url.contains(".internal")) {
            assert_eq!(known["traffic_policy"], policy, "{url} has two policies");
            return;
        }
        let (reply, name) = (Arc::clone(&self.reply), name.to_owned());
        let upstream = match url.starts_with("http") {
            true => Upstream::http(move |request, wire| respond(&name, &reply, request, wire)),
            false => Upstream::tcp(move |wire| respond_to_line(&name, wire)),
        };
        let address = upstream.addr.to_string();
        let mut value = json!({ "name": format!("e{}", self.list.len()), "url": url,
            "upstream": { "url": &address } });
        if !policy.is_null() {
            value["traffic_policy"] = policy;
        }
        self.list.push((address, value));
        self.upstreams.push(upstream);
    }
}

/// Creates what policies refer to by name. Returns the ids.
fn rest_objects(edge: &Edge, known: &Authority) -> BTreeMap<&'static str, String> {
    let rest = edge.rest();
    let vault = rest.create("/vaults", &json!({ "name": VAULT }));
    for (name, value) in SECRETS {
        let secret = json!({ "name": name, "value": value, "vault_id": vault["id"] });
        rest.create("/vault_secrets", &secret);
    }
    let id = |value: &Value| value["id"].as_str().unwrap().to_owned();
    let ip_policy = |cidr: &str, action: &str| {
        let policy = id(&rest.create("/ip_policies", &json!({})));
        let rule = json!({ "ip_policy_id": policy, "cidr": cidr, "action": action });
        rest.create("/ip_policy_rules", &rule);
        policy
    };
    let ca = rest.create("/certificate_authorities", &json!({ "ca_pem": known.pem() }));
    BTreeMap::from([
        ("ca", known.pem().to_owned()),
        ("ca-id", id(&ca)),
        ("ip-policy-here", ip_policy("127.0.0.0/8", "allow")),
        ("ip-policy-elsewhere", ip_policy("198.51.100.0/24", "allow")),
        ("ip-policy-not-here", ip_policy("127.0.0.0/8", "deny")),
    ])
}

/// Replaces each `<NAME>`. Other texts between these brackets stay.
fn fill(text: &str, places: &BTreeMap<&'static str, String>) -> String {
    let replace = |text: String, (name, value): (&&'static str, &String)| {
        text.replace(&format!("<{name}>"), value)
    };
    places.iter().fold(text.to_owned(), replace)
}

/// Replaces `<NAME>` in all texts of a value.
fn filled(value: &Value, places: &BTreeMap<&'static str, String>) -> Value {
    match value {
        Value::String(text) => fill(text, places).into(),
        Value::Array(items) => items.iter().map(|item| filled(item, places)).collect(),
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| (key.clone(), filled(value, places));
            Value::Object(map.iter().map(entry).collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

/// Responds as upstream `name`: as the check wants, or with the request as it came.
fn respond(
    name: &str,
    reply: &Mutex<Option<Reply>>,
    request: &Message,
    wire: &mut Wire,
) -> std::io::Result<()> {
    let reply = reply.lock().unwrap().clone();
    let (status, headers, body) = match reply {
        Some(reply) => (reply.status, reply.headers, reply.body),
        None => (200, BTreeMap::new(), None),
    };
    let mut lines = format!("Served-By: {name}\r\n");
    if !headers.keys().any(|name| name.eq_ignore_ascii_case("content-type")) {
        lines.push_str("Content-Type: text/plain\r\n");
    }
    for (name, values) in &headers {
        values.0.iter().for_each(|value| lines.push_str(&format!("{name}: {value}\r\n")));
    }
    let body = body.unwrap_or_else(|| as_received(request));
    wire.respond(&format!("{status} Reply"), &lines, body.as_bytes())
}

/// Returns the request line, header lines with names in lower case, and the body.
fn as_received(request: &Message) -> String {
    let line =
        |(name, value): &(String, String)| format!("\n{}: {value}", name.to_ascii_lowercase());
    let fields: String = request.fields.iter().map(line).collect();
    format!("{}{fields}\n\n{}", request.first, request.text())
}

/// Responds with the name of the upstream and the line.
fn respond_to_line(name: &str, mut wire: Wire) {
    if let Ok(line) = wire.read_line() {
        let _ = wire.write(format!("{name} {line}\n"));
    }
}

/// Describes a request of the edge in JSON. The status is that of a path `/status/N`.
fn describe(request: &Message, wire: &mut Wire) -> std::io::Result<()> {
    let status = request.target().strip_prefix("/status/").unwrap_or("200");
    let body = json!({ "method": request.method(), "target": request.target(),
        "key": request.field("x-key"), "body": request.text(), "tier": "gold" });
    let kind = "Content-Type: application/json\r\nX-Server: outside\r\n";
    wire.respond(&format!("{status} Reply"), kind, body.to_string().as_bytes())
}

/// Returns whether visitors reach an endpoint.
fn is_public(endpoint: &Value) -> bool {
    !endpoint["url"].as_str().unwrap().contains(".internal")
}

/// Returns the seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
