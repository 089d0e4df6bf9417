//! `sse-find-replace`: replaces text in the fields of server-sent events, each as soon as it is
//! complete.

use std::sync::Arc;

use super::body_find_replace::replacements;
use crate::edge::actions::action::ActionError;
use crate::edge::actions::body_transform::{BodyTransform, TransformError};
use crate::edge::policy::action::{PolicyAction, PolicyFlow};
use crate::edge::policy::body_failures::BodyFailures;
use crate::edge::policy::event_stream::{
    EventField, EventReplacement, EventRewriter, change_event,
};
use crate::edge::policy::phases::{PhaseState, ResponsePhase, Scope};
use crate::edge::policy::reader::ConfigReader;
use crate::edge::policy::replacement_text::ReplacementText;
use crate::edge::policy::text::InterpolatedText;

/// Field of an event whose value is replaced, if the configuration names none.
const USUAL_FIELD: EventField = EventField::Data;

#[derive(Debug)]
struct SseFindReplace {
    replacements: Vec<(FieldText, ReplacementText)>,
    failures: BodyFailures,
}

#[derive(Debug)]
enum FieldText {
    Fixed(EventField),
    Interpolated(InterpolatedText),
}

pub(super) fn compile(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    config.known_keys(&["replacements"]);
    let entries = replacements(config)?;
    let replacements = entries.iter().map(read).collect::<Option<_>>()?;
    Some(Arc::new(SseFindReplace { replacements, failures: BodyFailures::default() }))
}

fn read(entry: &ConfigReader<'_>) -> Option<(FieldText, ReplacementText)> {
    entry.known_keys(&["field", "from", "to"]);
    let replacement = ReplacementText::read(entry);
    let field = match entry.has("field") {
        false => FieldText::Fixed(USUAL_FIELD),
        true => {
            let text = entry.template("field")?;
            match text.fixed().map(EventField::of_name) {
                None => FieldText::Interpolated(text),
                Some(Some(field)) => FieldText::Fixed(field),
                Some(None) => {
                    entry.fault("field", 2222, "must be data or retry.");
                    return None;
                }
            }
        }
    };
    Some((field, replacement?))
}

impl FieldText {
    fn resolve(&self, scope: &Scope<'_>) -> Result<EventField, ActionError> {
        match self {
            FieldText::Fixed(field) => Ok(*field),
            FieldText::Interpolated(text) => EventField::of_name(&text.render(scope)?)
                .ok_or(ActionError("sse-find-replace has another field than data and retry")),
        }
    }
}

/// Replacements in the events of one response.
#[derive(Debug)]
struct EventStream {
    /// `None` after the end.
    rewriter: Option<EventRewriter>,
    replacements: Vec<EventReplacement>,
}

impl BodyTransform for EventStream {
    fn write(&mut self, piece: &[u8], emit: &mut dyn FnMut(&[u8])) -> Result<(), TransformError> {
        let Some(rewriter) = &mut self.rewriter else { return Err(TransformError) };
        let mut change = |event: &[u8]| change_event(event, &self.replacements, &mut Vec::new());
        rewriter.feed(piece, &mut change, emit).map_err(|_| TransformError)
    }

    fn finish(&mut self, emit: &mut dyn FnMut(&[u8])) -> Result<(), TransformError> {
        let Some(rewriter) = self.rewriter.take() else { return Err(TransformError) };
        let mut change = |event: &[u8]| change_event(event, &self.replacements, &mut Vec::new());
        rewriter.finish(&mut change, emit).map_err(|_| TransformError)
    }
}

impl PolicyAction for SseFindReplace {
    fn response(&self, phase: &mut ResponsePhase<'_, '_>) -> Result<PolicyFlow, ActionError> {
        let scope = phase.scope();
        let resolve = |(field, text): &(FieldText, ReplacementText)| {
            let (field, replacement) = (field.resolve(&scope)?, text.resolve(&scope)?);
            Ok(EventReplacement { field, replacement })
        };
        let replacements = self.replacements.iter().map(resolve).collect::<Result<_, _>>()?;
        let rewriter = Some(EventRewriter::default());
        let change = self.failures.logged(EventStream { rewriter, replacements }, &scope);
        phase.head.change_body(change)?;
        Ok(PolicyFlow::Continue)
    }

    fn changes_bodies(&self) -> bool {
        true
    }
}
