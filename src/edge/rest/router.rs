//! From a request to its response: key, limits, version and body, then the resource of the
//! path.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use super::auth::{self, LOCAL_KEY};
use super::body;
use super::context::ApiContext;
use super::error::ApiError;
use super::http::{ApiHttpRequest, ApiResponse};
use super::query::RequestTarget;
use super::resource::{Resource, RestReply, unknown_route, wrong_method};
use super::resources;
use crate::edge::accounts::wall_clock;
use crate::edge::store::ObjectKind;
use crate::edge::{Edge, token};
use crate::http1::text::shortened;
use crate::sys;

/// Version of the API that clients name.
const VERSION: &str = "2";

/// Begin of the field User-Agent of ngrok's package for Python.
const PYTHON_CLIENT: &str = "ngrok-api-python/";

/// Returns the response to a request. Its key, limits and form are checked first.
pub fn respond(edge: &Edge, peer: SocketAddr, request: &ApiHttpRequest) -> ApiResponse {
    match handle(edge, peer, request) {
        Ok(RestReply::Found(value)) => with_body(200, &value),
        Ok(RestReply::Created(value)) => with_body(201, &value),
        Ok(RestReply::Done) => ApiResponse { status: 204, ..ApiResponse::default() },
        Err(error) => refusal(&error),
    }
}

/// Returns the response for an error.
pub fn refusal(error: &ApiError) -> ApiResponse {
    let operation = token::ksuid("op", wall_clock()).unwrap_or_default();
    let mut response = with_body(error.status, &error.body(&operation));
    if let Some(seconds) = error.retry_after {
        response.fields = format!("Retry-After: {seconds}\r\n");
    }
    response
}

fn with_body(status: u16, value: &Value) -> ApiResponse {
    ApiResponse { status, body: value.to_string().into_bytes(), fields: String::new() }
}

fn handle(edge: &Edge, peer: SocketAddr, request: &ApiHttpRequest) -> Result<RestReply, ApiError> {
    let key = auth::authenticate(edge, peer, request)?;
    let limit = edge.config().limits.api_requests;
    edge.api.count_request(&key, limit, sys::clock()).map_err(|seconds| {
        let text = format!(
            "This API key has sent {limit} requests in a minute. Try again in {seconds} seconds."
        );
        ApiError { retry_after: Some(seconds), ..ApiError::new(429, 226, text) }
    })?;
    check_version(request.version.as_deref())?;
    let context = ApiContext {
        edge,
        target: RequestTarget::parse(&request.target)?,
        body: body::parse(request)?,
        base: base(edge, &request.host),
        key,
        is_python_client: request.user_agent.starts_with(PYTHON_CLIENT),
    };
    route(&context, &request.method)
}

fn check_version(version: Option<&str>) -> Result<(), ApiError> {
    match version.map(str::trim) {
        Some(VERSION) => Ok(()),
        None | Some("") => {
            let text = "The field 'Ngrok-Version' is missing. Send 'Ngrok-Version: 2'.";
            Err(ApiError::new(400, 218, text))
        }
        Some(other) => {
            let shown: String = other.chars().take(20).collect();
            let text = format!("The API version '{shown}' is unknown. Send 'Ngrok-Version: 2'.");
            Err(ApiError::new(400, 217, text))
        }
    }
}

/// Returns the URL of the API as the client sees it. A client that sends no host gets the
/// address of the listener.
fn base(edge: &Edge, host: &str) -> String {
    let good = |b: u8| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b);
    match !host.is_empty() && host.len() <= 255 && host.bytes().all(good) {
        true => format!("{}://{host}", edge.api.scheme()),
        false => edge.api.url(),
    }
}

fn route(context: &ApiContext<'_>, method: &str) -> Result<RestReply, ApiError> {
    let path: Vec<&str> = context.target.path.iter().map(String::as_str).collect();
    let Some((name, rest)) = path.split_first() else {
        return only_get(method).map(|()| RestReply::Found(index(context)));
    };
    if *name == "self" && rest.is_empty() {
        return only_get(method).map(|()| RestReply::Found(own_key(context)));
    }
    let resource = resources::all().iter().find(|r| r.path() == *name);
    let resource = *resource.ok_or_else(|| unknown_resource(name))?;
    match (method, rest) {
        ("GET", []) => resource.list(context).map(RestReply::Found),
        ("POST", []) => resource.create(context).map(RestReply::Created),
        ("GET", [id]) => resource.get(context, known(resource, id)?).map(RestReply::Found),
        ("PATCH", [id]) => resource.update(context, known(resource, id)?).map(RestReply::Found),
        ("DELETE", [id]) => {
            resource.delete(context, known(resource, id)?).map(|()| RestReply::Done)
        }
        (_, [] | [_]) => Err(wrong_method(method)),
        (_, [id, action]) => resource.action(context, known(resource, id)?, method, action),
        _ => Err(unknown_route()),
    }
}

/// Returns an id with the prefix of the resource.
fn known<'a>(resource: &dyn Resource, id: &'a str) -> Result<&'a str, ApiError> {
    if token::is_ksuid(resource.prefix(), id) {
        return Ok(id);
    }
    let prefix = resource.prefix();
    let shown = shortened(id);
    match id.starts_with(&format!("{prefix}_")) {
        true => Err(ApiError::unknown_id(&shown)),
        false => {
            let text = format!(
                "The id '{shown}' is not of this resource: its ids begin with '{prefix}_'."
            );
            Err(ApiError::new(404, 227, text))
        }
    }
}

fn only_get(method: &str) -> Result<(), ApiError> {
    if method == "GET" { Ok(()) } else { Err(wrong_method(method)) }
}

fn unknown_resource(name: &str) -> ApiError {
    let shown = shortened(name);
    let text = format!(
        "This edge does not have the resource '{shown}'. '/' lists the resources that it has."
    );
    ApiError::new(404, 404, text)
}

/// Returns the resources and their URLs.
fn index(context: &ApiContext<'_>) -> Value {
    let mut map = Map::new();
    map.insert("uri".into(), format!("{}/", context.base).into());
    for resource in resources::all() {
        let path = resource.path();
        map.insert(format!("{path}_uri"), format!("{}/{path}", context.base).into());
    }
    Value::Object(map)
}

/// Returns what the edge knows about the request's key.
fn own_key(context: &ApiContext<'_>) -> Value {
    let config = context.edge.config();
    let table = context.edge.accounts.table();
    let key = table.find(ObjectKind::ApiKey, &context.key);
    let described = match key {
        Some(key) => json!({
            "id": key.id,
            "uri": context.uri("api_keys", &key.id),
            "description": key.text("description"),
            "metadata": key.text("metadata"),
        }),
        None => json!({
            "id": LOCAL_KEY,
            "uri": null,
            "description": "key in the state directory of the edge",
            "metadata": "",
        }),
    };
    json!({
        "uri": format!("{}/self", context.base),
        "api_key": described,
        "domain": config.domain,
        "edge_version": env!("CARGO_PKG_VERSION"),
        "requests_per_minute": config.limits.api_requests,
    })
}
