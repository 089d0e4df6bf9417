//! Sends the requests of a shape and compares the responses. Returns what differs.

use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;

use flate2::read::{GzDecoder, ZlibDecoder};
use ring::hmac;
use serde_json::{Value, json};

use super::shape::{Check, Mac, Texts};
use super::world::{World, now};
use crate::support::certs;
use crate::support::wire::{Message, Wire};

/// Most requests until all upstreams of a check have responded.
const MAX_REPEATS: usize = 500;

/// Visitor of the endpoint of a shape.
pub struct Visit<'a> {
    world: &'a World,
    url: &'a str,
    /// `http`, `https`, `tcp` or `tls`.
    scheme: &'a str,
    /// Host of the URL without its port, and the port.
    host: &'a str,
    port: u16,
    /// Field with the cookie of a login.
    cookie: String,
}

impl<'a> Visit<'a> {
    /// Returns a visitor of a URL.
    pub fn new(world: &'a World, url: &'a str) -> Self {
        let (scheme, authority) = url.split_once("://").unwrap();
        let host = authority.split(':').next().unwrap();
        let port = world.edge.address_of(url).port();
        Visit { world, url, scheme, host, port, cookie: String::new() }
    }

    /// Sends the request of a check. Returns what is not as expected.
    pub fn check(&mut self, check: &Check) -> Result<(), String> {
        *self.world.reply.lock().unwrap() = check.reply.clone().map(|mut reply| {
            reply.body = reply.body.map(|body| self.world.fill(&body));
            reply
        });
        if let Some(claims) = &check.login {
            self.world.provider.claims(Value::Object(claims.clone()));
            self.log_in(check)?;
        }
        let mut missing = check.by.0.clone();
        for _ in 0..MAX_REPEATS {
            let response = self.send(check);
            if check.closed {
                return match response {
                    Err(error) if is_closed(&error) => Ok(()),
                    Err(error) => Err(format!("it is not closed: {error}")),
                    Ok(response) => Err(format!("it is not closed: {}", shown(&response))),
                };
            }
            let response = response.map_err(|error| error.to_string())?;
            self.compare(check, &response)
                .map_err(|fault| format!("{fault}\n{}", shown(&response)))?;
            let by = response.field("served-by").unwrap_or_default();
            missing.retain(|name| name != by);
            if missing.is_empty() {
                break;
            }
        }
        if !missing.is_empty() {
            return Err(format!("never served by {missing:?}"));
        }
        if let Some(text) = &check.logs {
            self.world.edge.output().wait_stderr(text);
        }
        Ok(())
    }

    fn send(&self, check: &Check) -> io::Result<Message> {
        let mut wire = self.connect(check)?;
        if let Some(line) = &check.line {
            wire.write(format!("{line}\n"))?;
            let text = wire.read_until(b"\n")?;
            let text = String::from_utf8_lossy(&text).into_owned();
            let (by, rest) = text.split_once(' ').unwrap_or(("", &text));
            let fields = vec![("served-by".to_owned(), by.to_owned())];
            let first = "line 200".to_owned();
            return Ok(Message { first, fields, body: rest.trim_end().into() });
        }
        let (method, target) = check.send.split_once(' ').expect("METHOD TARGET");
        wire.write(self.request(check, method, target))?;
        wire.read_response(method)
    }

    fn connect(&self, check: &Check) -> io::Result<Wire> {
        let to = self.world.edge.address_of(self.url);
        if self.scheme == "http" || self.scheme == "tcp" {
            return Wire::connect(to);
        }
        let config = match &check.client {
            _ if check.old_tls => certs::old_client(&self.world.roots),
            None => certs::client(&self.world.roots),
            Some(client) => {
                certs::client_as(&self.world.roots, Some(&self.world.certificate(client)))
            }
        };
        let host = check.host.as_deref().unwrap_or(self.host);
        Ok(certs::connect_with(to, host, config))
    }

    fn request(&self, check: &Check, method: &str, target: &str) -> String {
        let host = check.host.as_deref().unwrap_or(self.host);
        let token = check.token.clone().map_or_else(String::new, |claims| {
            let header = json!({"alg": "EdDSA", "kid": "1"});
            self.world.provider.token(&header, &Value::Object(claims))
        });
        let fill = |text: &str| {
            let text = text.replace("<token>", &token).replace("<now>", &now().to_string());
            self.world.fill(&text)
        };
        let body = fill(&check.body);
        let mac = match &check.mac {
            Some(mac) => sign(mac, &fill(mac.over.as_deref().unwrap_or(&body))),
            None => String::new(),
        };
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {host}:{}\r\n", self.port);
        for (name, Texts(values)) in &check.headers {
            for value in values {
                head.push_str(&format!("{name}: {}\r\n", fill(value).replace("<mac>", &mac)));
            }
        }
        if !body.is_empty() || !["GET", "HEAD", "OPTIONS"].contains(&method) {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        format!("{head}{}\r\n{body}", self.cookie)
    }

    /// Logs in at the provider, and keeps the cookie of the session.
    fn log_in(&mut self, check: &Check) -> Result<(), String> {
        let ask = |to: SocketAddr, host: &str, target: &str, fields: &str| {
            let mut wire = Wire::connect(to).unwrap();
            wire.write(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).unwrap();
            wire.read_response("GET").unwrap()
        };
        let here = self.world.edge.address_of(self.url);
        let host = format!("{}:{}", self.host, self.port);
        let target = check.send.split_once(' ').unwrap().1;
        let first = ask(here, &host, target, "");
        let issuer = self.world.provider.issuer();
        let location = first.field("location").unwrap_or_default();
        let at_provider = location
            .strip_prefix(&issuer)
            .ok_or_else(|| format!("it does not lead to the provider\n{}", shown(&first)))?;
        let back = ask(issuer[7..].parse().unwrap(), &issuer[7..], at_provider, "");
        let callback = back.field("location").unwrap().strip_prefix(self.url).unwrap();
        let done = ask(here, &host, callback, &cookie_of(&first));
        if done.status() != 302 {
            return Err(format!("the login fails\n{}", shown(&done)));
        }
        self.cookie = cookie_of(&done);
        Ok(())
    }

    fn compare(&self, check: &Check, response: &Message) -> Result<(), String> {
        let by = response.field("served-by");
        let is_by = match by {
            Some(by) => check.by.0.iter().any(|name| name == by),
            None => check.by.0.is_empty(),
        };
        if !is_by {
            return Err(format!("it is from {}", by.unwrap_or("the edge")));
        }
        if response.status() != check.status {
            return Err(format!("the status is {}", response.status()));
        }
        for (name, expected) in &check.fields {
            let mut values = response.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
            let is_expected = match expected {
                None => values.next().is_none(),
                Some(pattern) => {
                    let pattern = self.world.fill(pattern);
                    values.any(|(_, value)| matches(&pattern, value))
                }
            };
            if !is_expected {
                return Err(format!("{name} is not {expected:?}"));
            }
        }
        let text = decoded(response);
        for has in &check.has.0 {
            if !text.contains(&self.world.fill(has)) {
                return Err(format!("{has:?} is not in it"));
            }
        }
        match check.lacks.0.iter().find(|lacks| text.contains(lacks.as_str())) {
            Some(lacks) => Err(format!("{lacks:?} is in it")),
            None => Ok(()),
        }
    }
}

/// Returns the field for the cookie that a response sets.
fn cookie_of(response: &Message) -> String {
    let set = response.field("set-cookie").unwrap_or_default();
    format!("Cookie: {}\r\n", set.split(';').next().unwrap_or_default())
}

/// Returns whether the edge has closed the connection, or refused its handshake.
fn is_closed(error: &io::Error) -> bool {
    !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Returns whether a text is as a pattern, in which `*` is any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        last = Some(part);
        rest = &rest[at + part.len()..];
    }
    match last {
        None => rest.is_empty(),
        Some(part) => text.ends_with(part),
    }
}

fn sign(mac: &Mac, text: &str) -> String {
    let algorithm = match mac.hash.as_str() {
        "sha1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        "sha256" => hmac::HMAC_SHA256,
        "sha512" => hmac::HMAC_SHA512,
        other => panic!("the hash {other:?} is not known"),
    };
    let tag = hmac::sign(&hmac::Key::new(algorithm, mac.key.as_bytes()), text.as_bytes());
    match mac.base64 {
        true => culvert::proto::base64::encode(tag.as_ref()),
        false => tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// Returns the body without its content coding.
fn decoded(response: &Message) -> String {
    let mut text = String::new();
    let mut body = response.body.as_slice();
    let read = match response.field("content-encoding") {
        Some("gzip") => GzDecoder::new(body).read_to_string(&mut text),
        Some("deflate") => ZlibDecoder::new(body).read_to_string(&mut text),
        Some("br") => brotli::Decompressor::new(body, 4096).read_to_string(&mut text),
        _ => body.read_to_string(&mut text),
    };
    read.unwrap_or_else(|e| panic!("{:?}: {e}", response.fields));
    text
}

/// Returns a response for the message of a failure.
fn shown(response: &Message) -> String {
    let line = |(name, value): &(String, String)| format!("\n  {name}: {value}");
    let fields: String = response.fields.iter().map(line).collect();
    let text: String = decoded(response).chars().take(1000).collect();
    format!("  {}{fields}\n\n  {}", response.first, text.replace('\n', "\n  "))
}
