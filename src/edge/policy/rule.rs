//! Compiled rules of a policy, and the run of a phase over them. What an action does is not
//! decided here.

use std::fmt;
use std::sync::Arc;

use super::action::{PolicyAction, PolicyFlow};
use super::catalog::PolicyPhase;
use super::expression::{EvalBudget, EvalError, Expression};
use super::phases::{ConnectPhase, PhaseState, PolicyServices, RequestPhase, ResponsePhase, Scope};
use super::vars::PolicyVars;
use crate::edge::actions::action::ActionError;
use crate::edge::actions::tls::TlsOptions;
use crate::event;
use crate::logging::rate_limit::LineQuota;
use crate::sys::sync::Mutex;

/// Log lines of one phrase about one rule.
const LINES_PER_MINUTE: u32 = 1;

/// Error of a condition that exceeds its limits, or needs a secret that the edge does not have.
const NOT_EVALUATED: ActionError =
    ActionError("a condition of the traffic policy was not evaluated");

/// A rule. Its actions run in order, if all of its conditions are true.
#[derive(Debug)]
pub struct CompiledRule {
    /// Name for the log; may be empty.
    name: String,
    conditions: Vec<Expression>,
    actions: Vec<Arc<dyn PolicyAction>>,
    errors: Mutex<LineQuota>,
    failures: Mutex<LineQuota>,
}

impl CompiledRule {
    /// Returns a rule.
    pub fn new(
        name: String,
        conditions: Vec<Expression>,
        actions: Vec<Arc<dyn PolicyAction>>,
    ) -> Self {
        let quota = || Mutex::new(LineQuota::per_minute(LINES_PER_MINUTE));
        CompiledRule { name, conditions, actions, errors: quota(), failures: quota() }
    }

    /// Returns whether all conditions are true. One with an error is not. One that exceeds its
    /// limits ends the phase, because a visitor could cause that to get past a rule; so does one
    /// with a secret that the edge does not have.
    fn matches(&self, scope: &Scope<'_>) -> Result<bool, ActionError> {
        for condition in &self.conditions {
            match condition.is_true(scope, &mut EvalBudget::new()) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) if error.is_fatal() => {
                    self.log_error(scope, &error);
                    return Err(NOT_EVALUATED);
                }
                Err(error) => {
                    self.log_error(scope, &error);
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Runs the actions if the conditions are true. Keeps the place up to date.
    fn run(
        &self,
        state: &mut dyn RunningPhase,
        place: &mut RulePlace,
    ) -> Result<PolicyFlow, ActionError> {
        if !self.matches(&state.scope())? {
            return Ok(PolicyFlow::Continue);
        }
        for (number, action) in self.actions.iter().enumerate() {
            place.action = Some(number);
            // Not moved: a response is large.
            let end = state.run(&**action);
            if !matches!(end, Ok(PolicyFlow::Continue)) {
                return end;
            }
            if state.scope().vars.is_incomplete() {
                return Err(ActionError("the variables of the policy are too large"));
            }
        }
        Ok(PolicyFlow::Continue)
    }

    fn log_error(&self, scope: &Scope<'_>, error: &EvalError) {
        if let Some(count) = self.errors.lock().record(scope.input.now) {
            let (url, name) = (scope.input.endpoint.url, &self.name);
            event!(
                warn,
                obj = "policy",
                "rule does not match",
                url = url,
                name = name,
                err = error,
                count = count
            );
        }
    }

    /// Logs where the policy ended a visit with an error. The response does not contain the place.
    fn log_failure(&self, scope: &Scope<'_>, place: &RulePlace, error: &ActionError) {
        if let Some(count) = self.failures.lock().record(scope.input.now) {
            let (url, name) = (scope.input.endpoint.url, &self.name);
            event!(
                warn,
                obj = "policy",
                "rule cannot decide",
                url = url,
                name = name,
                path = place,
                err = error,
                count = count
            );
        }
    }
}

/// Place of a part of a rule in the document of its policy, as in the faults of a document.
struct RulePlace {
    phase: PolicyPhase,
    rule: usize,
    /// Number of the action; else the conditions.
    action: Option<usize>,
}

impl fmt::Display for RulePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}].", self.phase.key(), self.rule)?;
        match self.action {
            Some(action) => write!(f, "actions[{action}]"),
            None => f.write_str("expressions"),
        }
    }
}

/// Compiled policy of an endpoint.
#[derive(Debug)]
pub struct CompiledPolicy {
    /// Rules of the phases in [`PolicyPhase::ALL`].
    pub phases: [Vec<CompiledRule>; PolicyPhase::ALL.len()],
    /// What actions use of the edge.
    pub services: Arc<dyn PolicyServices>,
    /// Whether an expression reads results of actions.
    pub reads_results: bool,
}

/// A phase that is under way.
trait RunningPhase: PhaseState {
    /// Runs an action.
    fn run(&mut self, action: &dyn PolicyAction) -> Result<PolicyFlow, ActionError>;
}

impl RunningPhase for ConnectPhase<'_> {
    fn run(&mut self, action: &dyn PolicyAction) -> Result<PolicyFlow, ActionError> {
        action.connect(self)
    }
}

impl RunningPhase for RequestPhase<'_> {
    fn run(&mut self, action: &dyn PolicyAction) -> Result<PolicyFlow, ActionError> {
        action.request(self)
    }
}

impl RunningPhase for ResponsePhase<'_, '_> {
    fn run(&mut self, action: &dyn PolicyAction) -> Result<PolicyFlow, ActionError> {
        action.response(self)
    }
}

impl CompiledPolicy {
    /// Returns whether a phase has a rule.
    pub fn has(&self, phase: PolicyPhase) -> bool {
        !self.rules(phase).is_empty()
    }

    fn rules(&self, phase: PolicyPhase) -> &[CompiledRule] {
        let at = PolicyPhase::ALL.iter().position(|p| *p == phase);
        at.map_or(&[], |at| &self.phases[at])
    }

    /// Returns what the policy changes in the TLS handshakes of visitors.
    pub fn tls(&self) -> Option<&Arc<TlsOptions>> {
        let rules = self.rules(PolicyPhase::TcpConnect);
        rules.iter().flat_map(|rule| &rule.actions).find_map(|action| action.tls())
    }

    /// Runs the rules for a connection.
    pub fn connect(&self, phase: &mut ConnectPhase<'_>) -> Result<PolicyFlow, ActionError> {
        self.run(PolicyPhase::TcpConnect, phase)
    }

    /// Runs the rules for a request.
    pub fn request(&self, phase: &mut RequestPhase<'_>) -> Result<PolicyFlow, ActionError> {
        self.run(PolicyPhase::HttpRequest, phase)
    }

    /// Returns whether responses meet rules.
    pub fn has_response_rules(&self) -> bool {
        self.has(PolicyPhase::HttpResponse) || self.has(PolicyPhase::EventStreamMessage)
    }

    /// Returns whether an action may change the bodies of responses.
    pub fn changes_bodies(&self) -> bool {
        let rules = self.rules(PolicyPhase::HttpResponse);
        let events = self.rules(PolicyPhase::EventStreamMessage);
        rules.iter().chain(events).flat_map(|rule| &rule.actions).any(|a| a.changes_bodies())
    }

    /// Returns whether the rules for a response may block the thread that runs them.
    pub fn response_may_block(&self) -> bool {
        let rules = self.rules(PolicyPhase::HttpResponse);
        rules.iter().flat_map(|rule| &rule.actions).any(|action| action.may_block())
    }

    /// Runs the rules for a response, then those for its events.
    pub fn response(&self, phase: &mut ResponsePhase<'_, '_>) -> Result<PolicyFlow, ActionError> {
        match self.run(PolicyPhase::HttpResponse, phase)? {
            PolicyFlow::Continue => {}
            end => return Ok(end),
        }
        if !self.has(PolicyPhase::EventStreamMessage) || !phase.head.is_event_stream() {
            return Ok(PolicyFlow::Continue);
        }
        self.run(PolicyPhase::EventStreamMessage, phase)
    }

    /// Runs the rules of a phase until an action ends it. The phase begins without variables.
    fn run(
        &self,
        phase: PolicyPhase,
        state: &mut dyn RunningPhase,
    ) -> Result<PolicyFlow, ActionError> {
        *state.vars_mut() = PolicyVars::new(self.reads_results);
        for (number, rule) in self.rules(phase).iter().enumerate() {
            let mut place = RulePlace { phase, rule: number, action: None };
            let end = rule.run(state, &mut place);
            if let Err(error) = &end {
                rule.log_failure(&state.scope(), &place, error);
            }
            if !matches!(end, Ok(PolicyFlow::Continue)) {
                return end;
            }
        }
        Ok(PolicyFlow::Continue)
    }
}
