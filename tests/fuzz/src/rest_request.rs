//! Target `rest_request`: bytes of a client of the edge's REST API, split at any position. The
//! result does not depend on the pieces, a request is within its limits, and a body that a
//! resource accepts has fields of the resource only, each within its length.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use culvert::edge::rest::body::{self, BodyUse, FieldType, FieldUse};
use culvert::edge::rest::error::ApiError;
use culvert::edge::rest::http::{self, ApiHttpRequest, ReadOutcome};
use culvert::edge::rest::query::RequestTarget;
use culvert::edge::rest::resources::addresses::RESERVED_ADDRS;
use culvert::edge::rest::resources::api_keys::API_KEYS;
use culvert::edge::rest::resources::certificates::{CERTIFICATE_AUTHORITIES, TLS_CERTIFICATES};
use culvert::edge::rest::resources::ip_policies::{IP_POLICIES, IP_POLICY_RULES, IP_RESTRICTIONS};
use culvert::edge::rest::resources::vaults::VAULT_SECRETS;
use culvert::edge::rest::stored::StoredResource;
use serde_json::Value;

use crate::input::Dice;

/// Most bytes of the body of a request.
const MAX_BODY_BYTES: usize = 1024 * 1024;

const RESOURCES: [StoredResource; 8] = [
    API_KEYS,
    RESERVED_ADDRS,
    IP_POLICIES,
    IP_POLICY_RULES,
    IP_RESTRICTIONS,
    TLS_CERTIFICATES,
    CERTIFICATE_AUTHORITIES,
    VAULT_SECRETS,
];

/// The first byte decides the pieces.
pub fn check(data: &[u8]) {
    let (cuts, bytes) = data.split_first().unwrap_or((&0, &[]));
    let whole = requests(bytes, |_| usize::MAX);
    let mut dice = Dice::new(u64::from(*cuts));
    let cut = requests(bytes, |_| 1 + dice.below(usize::from(*cuts)));
    assert_eq!(whole, cut, "other requests when cut");
    for request in &whole.0 {
        assert!(request.body.len() <= MAX_BODY_BYTES);
        let target = RequestTarget::parse(&request.target);
        target.as_ref().map(|_| ()).unwrap_or_else(judge);
        match body::parse(request) {
            Ok(fields) => judge_fields(&fields),
            Err(error) => judge(&error),
        }
    }
}

/// Returns the requests of a connection, and the status of the refusal that ends it.
fn requests(bytes: &[u8], size: impl FnMut(usize) -> usize) -> (Vec<ApiHttpRequest>, Option<u16>) {
    let mut client = Client { input: bytes.iter().copied().collect(), size };
    let (mut buffer, mut found) = (Vec::new(), Vec::new());
    let mut reader = http::RequestReader::default();
    loop {
        match reader.read(&mut client, &mut buffer, |_| Ok(())).expect("the client has no errors") {
            ReadOutcome::Request(request) => found.push(request),
            ReadOutcome::Closed => return (found, None),
            ReadOutcome::Invalid(error) => {
                judge(&error);
                return (found, Some(error.status));
            }
        }
    }
}

/// A client that sends pieces of these sizes.
struct Client<F> {
    input: VecDeque<u8>,
    size: F,
}

impl<F: FnMut(usize) -> usize> Read for Client<F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = (self.size)(self.input.len()).min(buf.len());
        self.input.read(&mut buf[..n])
    }
}

impl<F> Write for Client<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert_eq!(bytes, b"HTTP/1.1 100 Continue\r\n\r\n");
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An error is the client's: the edge itself did not fail.
fn judge(error: &ApiError) {
    let is_client = (400..500).contains(&error.status) || matches!(error.status, 501 | 505);
    assert!(is_client && error.code > 0 && error.message.ends_with('.'), "{error:?}");
}

fn judge_fields(fields: &serde_json::Map<String, Value>) {
    for resource in &RESOURCES {
        for purpose in [BodyUse::Create, BodyUse::Update] {
            let accepted = match body::read(resource.rules, fields, purpose) {
                Ok(accepted) => accepted,
                Err(error) => {
                    judge(&error);
                    continue;
                }
            };
            for (name, value) in &accepted {
                let rule = resource.rules.iter().find(|rule| rule.name == name).expect("a rule");
                assert!(purpose == BodyUse::Create || rule.allowed == FieldUse::Both, "{name}");
                match rule.kind {
                    FieldType::Text(max) => {
                        let text = value.as_str().expect("a text");
                        assert!(text.len() <= max && !text.contains('\0'), "{name}");
                    }
                    FieldType::Flag => assert!(value.is_boolean(), "{name}"),
                    FieldType::Texts => {
                        let list = value.as_array().expect("a list");
                        assert!(list.len() <= 1_000 && list.iter().all(Value::is_string));
                    }
                    FieldType::Unsupported => panic!("{name} was accepted"),
                }
            }
            let required = resource.rules.iter().filter(|rule| rule.allowed == FieldUse::Required);
            for rule in required {
                assert!(purpose == BodyUse::Update || accepted.contains_key(rule.name));
            }
        }
    }
}

const FIELDS: &[&str] = &[
    "description",
    "metadata",
    "id",
    "owner_id",
    "owner_email",
    "region",
    "cidr",
    "action",
    "ip_policy_id",
    "ip_policy_ids",
    "enforced",
    "type",
    "private_key_pem",
    "certificate_pem",
    "ca_pem",
    "vault_id",
    "name",
    "value",
    "DROP TABLE objects",
];

const VALUES: &[&str] = &[
    "null",
    "true",
    "false",
    "\"\"",
    "\"x\"",
    "\"a\\u0000b\"",
    "\"'); DROP TABLE objects; --\"",
    "[]",
    "[\"ipp_1\"]",
    "[5]",
    "{}",
    "{\"a\": \"\"}",
    "{\"a\": 1}",
    "5",
    "1e999",
    "[[[[",
];

/// Returns one or two requests that are almost valid.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = vec![dice.roll() as u8];
    for _ in 0..1 + dice.below(2) {
        let body = body_of(dice);
        let method = dice.pick(&["GET", "POST", "PATCH", "DELETE", "PO ST"]);
        let target = dice.pick(&[
            "/",
            "/api_keys",
            "/ip_policies/ipp_1?x=%2",
            "//a%2Fb/?limit=1&limit=2",
            "/credentials?filter=obj.id+%3D%3D+1#a",
        ]);
        let kind =
            dice.pick(&["application/json", "Application/JSON; charset=utf-8", "text/plain", ""]);
        bytes.extend(format!("{method} {target} HTTP/1.1\r\nHost: h\r\n").bytes());
        bytes.extend(format!("Content-Type: {kind}\r\nNgrok-Version: 2\r\n").bytes());
        if dice.below(4) == 0 {
            bytes.extend_from_slice(b"Expect: 100-continue\r\n");
        }
        if dice.below(3) == 0 {
            let end = dice.pick(&["0\r\n\r\n", "0\r\n", "5\r\n"]);
            let chunk = format!("{:x}\r\n{body}\r\n{end}", body.len());
            bytes.extend(format!("Transfer-Encoding: chunked\r\n\r\n{chunk}").bytes());
        } else {
            let length = body.len() + dice.pick(&[0, 0, 0, 1, 20_000_000]);
            bytes.extend(format!("Content-Length: {length}\r\n\r\n{body}").bytes());
        }
    }
    bytes
}

fn body_of(dice: &mut Dice) -> String {
    let fields: Vec<String> = (0..dice.below(6))
        .map(|_| match dice.below(16) {
            0 => format!("\"{}\": \"{}\"", dice.pick(FIELDS), "x".repeat(dice.below(5_000))),
            _ => format!("\"{}\": {}", dice.pick(FIELDS), dice.pick(VALUES)),
        })
        .collect();
    format!("{{{}}}", fields.join(", "))
}
