//! A policy from its text: the document, its expressions, and the configurations of its
//! actions. Everything that can be wrong in a policy is found here.

use std::sync::Arc;

use super::action::PolicyAction;
use super::actions;
use super::catalog::PolicyPhase;
use super::document::{ActionEntry, Located, PolicyDocument, RuleEntry};
use super::expression::Expression;
use super::fault::{FaultList, PolicyFault};
use super::reader::{CompileRecord, ConfigReader, PolicyEnvironment};
use super::rule::{CompiledPolicy, CompiledRule};
use crate::config::document::EntryPart;
use crate::edge::agents::address::Protocol;

/// Compiles the policy of an endpoint.
pub fn compile(
    text: &str,
    environment: PolicyEnvironment<'_>,
) -> Result<CompiledPolicy, Vec<PolicyFault>> {
    let (policy, document) = PolicyDocument::parse(text, environment.protocol)?;
    let record = CompileRecord::new(FaultList::new(&document));
    let compiler = PolicyCompiler { environment, record: &record };
    let phases = PolicyPhase::ALL
        .map(|phase| policy.rules(phase).iter().map(|rule| compiler.rule(phase, rule)).collect());
    let connects = !policy.rules(PolicyPhase::TcpConnect).is_empty();
    if environment.is_internal && environment.protocol == Protocol::Http && connects {
        let reason = "internal HTTP endpoints have no on_tcp_connect; use on_http_request.";
        record.faults.add(2262, &[], EntryPart::Value, reason);
    }
    let reads_results = record.reads_results();
    let faults = record.faults.into_faults();
    let services = Arc::clone(environment.services);
    match faults.is_empty() {
        true => Ok(CompiledPolicy { phases, services, reads_results }),
        false => Err(faults),
    }
}

struct PolicyCompiler<'a> {
    environment: PolicyEnvironment<'a>,
    record: &'a CompileRecord<'a>,
}

impl PolicyCompiler<'_> {
    /// Compiles a rule. It is incomplete if it has faults.
    fn rule(&self, phase: PolicyPhase, rule: &RuleEntry) -> CompiledRule {
        let mut conditions = Vec::with_capacity(rule.expressions.len());
        for Located { value, path } in &rule.expressions {
            if self.record.is_full() {
                break;
            }
            match Expression::compile(value, phase) {
                Ok(expression) => {
                    // Such a condition would never match.
                    if let Some(value) = expression.constant().filter(|v| v.as_bool().is_none()) {
                        let reason =
                            format!("the condition is a {}, not a bool.", value.type_name());
                        self.record.faults.add(2200, path, EntryPart::Value, reason);
                    }
                    self.record.add_expression(&expression, path);
                    conditions.push(expression);
                }
                Err(fault) => {
                    self.record.faults.add(2200, path, EntryPart::Value, fault.to_string())
                }
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
            self.record,
        );
        reader.is_conditional = is_conditional;
        let before = self.record.faults.count();
        let compiled = actions::compile_action(action.spec.name, &reader);
        let has_fault = self.record.faults.count() > before || self.record.is_full();
        if compiled.is_none() && !has_fault {
            reader.fault_here(2204, "is not valid.");
        }
        compiled
    }
}
