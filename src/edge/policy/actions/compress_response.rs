//! `compress-response`: compresses responses as the option `compression` does, with the codings
//! of the configuration.

use std::sync::Arc;

use serde_json::json;

use crate::edge::actions::accept_encoding;
use crate::edge::actions::action::ActionError;
use crate::edge::actions::body_encoder::Coding;
use crate::edge::actions::compression;
use crate::edge::policy::action::{PolicyAction, PolicyFlow};
use crate::edge::policy::phases::{PhaseState, ResponsePhase};
use crate::edge::policy::reader::ConfigReader;
use crate::http1::text::shortened;

/// A coding that clients do not support any more. It is accepted and never used.
const UNUSED: &str = "compress";

#[derive(Debug)]
struct CompressResponse {
    codings: Vec<Coding>,
}

pub(super) fn compile(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    const KEY: &str = "algorithms";
    config.known_keys(&[KEY]);
    if !config.has(KEY) {
        return Some(Arc::new(CompressResponse { codings: Coding::ALL.to_vec() }));
    }
    let names = config.texts(KEY, 4);
    let mut codings = Vec::new();
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            config.fault(KEY, 2231, format!("has {name} twice."));
        }
        match Coding::ALL.into_iter().find(|coding| coding.name() == name) {
            Some(coding) => codings.push(coding),
            None if name == UNUSED => {}
            None => {
                let shown = shortened(name);
                let reason = format!("has {shown:?}; use gzip, br, deflate or compress.");
                config.fault(KEY, 2214, reason);
            }
        }
    }
    if names.iter().all(|name| name == UNUSED) {
        config.fault(KEY, 2214, "needs gzip, br or deflate: this edge has no other coding.");
    }
    if codings.is_empty() {
        return None;
    }
    Some(Arc::new(CompressResponse { codings }))
}

impl PolicyAction for CompressResponse {
    fn response(&self, phase: &mut ResponsePhase<'_, '_>) -> Result<PolicyFlow, ActionError> {
        let accepted = phase.request.fields.values("accept-encoding");
        let coding = accept_encoding::negotiate(accepted, &self.codings);
        let already = phase.head.values("content-encoding").next().is_some();
        let used = compression::compress(phase.head, coding);
        let result = json!({
            "already_compressed": already,
            "negotiated_algorithm": used.map_or("", Coding::name),
        });
        phase.vars_mut().set_result("compress", result);
        Ok(PolicyFlow::Continue)
    }
}
