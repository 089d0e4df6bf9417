//! Fuzz targets: each is a `check` that accepts any bytes and panics if a promise is broken.
//! Two drivers call them: the seeded one in [`driver`], which is an ordinary test, and
//! libFuzzer (`fuzz_targets/`) with a nightly compiler.

pub mod addr_url;
pub mod config;
pub mod connect_answer;
pub mod dns_reply;
pub mod driver;
pub mod edge_head;
pub mod frame;
pub mod grammar;
pub mod http1_chunked;
pub mod http1_request;
pub mod http1_response;
pub mod http_head;
pub mod input;
pub mod jwt;
pub mod messages;
pub mod policy_document;
pub mod policy_expression;
pub mod policy_replacement;
pub mod proxy_header;
pub mod proxy_protocol;
pub mod rest_filter;
pub mod rest_request;
pub mod rules;
pub mod session_hostile;
pub mod session_ops;
pub mod tls_records;
pub mod update_manifest;
pub mod web_request;

use input::Dice;

/// One target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its directory in `corpus/`.
    pub name: &'static str,
    /// Panics if a promise is broken.
    pub check: fn(&[u8]),
    /// Returns an input that passes the first checks.
    pub generate: fn(&mut Dice) -> Vec<u8>,
    /// Number of inputs of a short run: a few seconds in a debug build.
    pub runs: u32,
}

/// All targets.
pub const TARGETS: [Target; 24] = [
    Target { name: "frame", check: frame::check, generate: frame::generate, runs: 20_000 },
    Target {
        name: "session_ops",
        check: session_ops::check,
        generate: session_ops::generate,
        runs: 30_000,
    },
    Target {
        name: "session_hostile",
        check: session_hostile::check,
        generate: session_hostile::generate,
        runs: 15_000,
    },
    Target {
        name: "proxy_header",
        check: proxy_header::check,
        generate: proxy_header::generate,
        runs: 40_000,
    },
    Target {
        name: "proxy_protocol",
        check: proxy_protocol::check,
        generate: proxy_protocol::generate,
        runs: 40_000,
    },
    Target {
        name: "http_head",
        check: http_head::check,
        generate: http_head::generate,
        runs: 2_000,
    },
    Target {
        name: "dns_reply",
        check: dns_reply::check,
        generate: dns_reply::generate,
        runs: 40_000,
    },
    Target { name: "messages", check: messages::check, generate: messages::generate, runs: 20_000 },
    Target {
        name: "web_request",
        check: web_request::check,
        generate: web_request::generate,
        runs: 40_000,
    },
    Target { name: "config", check: config::check, generate: config::generate, runs: 1_000 },
    Target { name: "addr_url", check: addr_url::check, generate: addr_url::generate, runs: 40_000 },
    Target {
        name: "http1_request",
        check: http1_request::check,
        generate: http1_request::generate,
        runs: 20_000,
    },
    Target {
        name: "http1_response",
        check: http1_response::check,
        generate: http1_response::generate,
        runs: 20_000,
    },
    Target {
        name: "http1_chunked",
        check: http1_chunked::check,
        generate: http1_chunked::generate,
        runs: 20_000,
    },
    Target {
        name: "tls_records",
        check: tls_records::check,
        generate: tls_records::generate,
        runs: 10_000,
    },
    Target {
        name: "connect_answer",
        check: connect_answer::check,
        generate: connect_answer::generate,
        runs: 20_000,
    },
    Target {
        name: "edge_head",
        check: edge_head::check,
        generate: edge_head::generate,
        runs: 20_000,
    },
    Target {
        name: "update_manifest",
        check: update_manifest::check,
        generate: update_manifest::generate,
        runs: 20_000,
    },
    Target {
        name: "policy_document",
        check: policy_document::check,
        generate: policy_document::generate,
        runs: 3_000,
    },
    Target {
        name: "rest_filter",
        check: rest_filter::check,
        generate: rest_filter::generate,
        runs: 20_000,
    },
    Target {
        name: "rest_request",
        check: rest_request::check,
        generate: rest_request::generate,
        runs: 5_000,
    },
    Target {
        name: "policy_expression",
        check: policy_expression::check,
        generate: policy_expression::generate,
        runs: 3_000,
    },
    Target {
        name: "policy_replacement",
        check: policy_replacement::check,
        generate: policy_replacement::generate,
        runs: 60,
    },
    Target { name: "jwt", check: jwt::check, generate: jwt::generate, runs: 5_000 },
];
