//! A policy from its text: the document, its expressions, and the configurations of its
//! actions. Everything that can be wrong in a policy is found here.

use std::sync::Arc;

use super::action::PolicyAction;
use super::actions;
use super::catalog::PolicyPhase;
use super::document::{ActionEntry, Located, PolicyDocument, RuleEntry};
use super::expression::Expression;
use super::fault::{FaultList, PolicyFault};
use super::reader::{ConfigReader, PolicyEnvironment};
use super::rule::{CompiledPolicy, CompiledRule};
use crate::config::document::EntryPart;
use crate::edge::agents::address::Protocol;

/// Compiles the policy of an endpoint.
pub fn compile(
    text: &str,
    environment: PolicyEnvironment<'_>,
) -> Result<CompiledPolicy, Vec<PolicyFault>> {
    let (policy, document) = PolicyDocument::parse(text, environment.protocol)?;
    let faults = FaultList::new(&document);
    let compiler = PolicyCompiler { environment, faults: &faults };
    let phases = PolicyPhase::ALL
        .map(|phase| policy.rules(phase).iter().map(|rule| compiler.rule(phase, rule)).collect());
    let connects = !policy.rules(PolicyPhase::TcpConnect).is_empty();
    if environment.is_internal && environment.protocol == Protocol::Http && connects {
        let reason = "internal HTTP endpoints have no on_tcp_connect; use on_http_request.";
        faults.add(2262, &[], EntryPart::Value, reason);
    }
    let faults = faults.into_faults();
    let services = Arc::clone(environment.services);
    if faults.is_empty() { Ok(CompiledPolicy { phases, services }) } else { Err(faults) }
}

struct PolicyCompiler<'a> {
    environment: PolicyEnvironment<'a>,
    faults: &'a FaultList<'a>,
}

impl PolicyCompiler<'_> {
    /// Compiles a rule. It is incomplete if it has faults.
    fn rule(&self, phase: PolicyPhase, rule: &RuleEntry) -> CompiledRule {
        let mut conditions = Vec::with_capacity(rule.expressions.len());
        for Located { value, path } in &rule.expressions {
            match Expression::compile(value, phase) {
                Ok(expression) => conditions.push(expression),
                Err(fault) => self.faults.add(2200, path, EntryPart::Value, fault.to_string()),
            }
        }
        let is_conditional = !rule.expressions.is_empty();
        let actions =
            rule.actions.iter().filter_map(|action| self.action(phase, is_conditional, action));
        CompiledRule::new(rule.name.clone(), conditions, actions.collect())
    }

    fn action(
        &self,
        phase: PolicyPhase,
        is_conditional: bool,
        action: &ActionEntry,
    ) -> Option<Arc<dyn PolicyAction>> {
        let config = &action.config;
        let mut reader = ConfigReader::new(
            phase,
            self.environment,
            &config.value,
            config.path.clone(),
            self.faults,
        );
        reader.is_conditional = is_conditional;
        let before = self.faults.count();
        let compiled = actions::compile_action(action.spec.name, &reader);
        if compiled.is_none() && self.faults.count() == before {
            reader.fault_here(2204, "is not valid.");
        }
        compiled
    }
}
