//! Log of bodies that an action could not change. The head is sent by then, so the response is
//! cut off without a page: only the log has the reason.

use std::sync::Arc;

use super::phases::Scope;
use crate::edge::actions::body_transform::{BodyTransform, TransformError};
use crate::event;
use crate::logging::rate_limit::LineQuota;
use crate::sys::sync::Mutex;
use crate::time::Instant;

/// Log lines of one action.
const LINES_PER_MINUTE: u32 = 1;

/// Failures of one action.
#[derive(Clone, Debug)]
pub struct BodyFailures(Arc<Mutex<LineQuota>>);

impl Default for BodyFailures {
    fn default() -> Self {
        BodyFailures(Arc::new(Mutex::new(LineQuota::per_minute(LINES_PER_MINUTE))))
    }
}

impl BodyFailures {
    /// Returns the change of a body with a log line for its failure.
    pub fn logged(
        &self,
        change: impl BodyTransform + 'static,
        scope: &Scope<'_>,
    ) -> Box<dyn BodyTransform> {
        let url = scope.input.endpoint.url.to_owned();
        let failures = self.clone();
        Box::new(LoggedChange { change, url, now: scope.input.now, failures })
    }
}

/// A change whose failure is logged.
#[derive(Debug)]
struct LoggedChange<T> {
    change: T,
    url: String,
    /// Time of the request.
    now: Instant,
    failures: BodyFailures,
}

impl<T: BodyTransform> LoggedChange<T> {
    fn log(&self, _: &TransformError) {
        if let Some(count) = self.failures.0.lock().record(self.now) {
            event!(warn, obj = "policy", "body cannot be changed", url = self.url, count = count);
        }
    }
}

impl<T: BodyTransform> BodyTransform for LoggedChange<T> {
    fn write(&mut self, piece: &[u8], emit: &mut dyn FnMut(&[u8])) -> Result<(), TransformError> {
        let written = self.change.write(piece, emit);
        written.inspect_err(|error| self.log(error))
    }

    fn finish(&mut self, emit: &mut dyn FnMut(&[u8])) -> Result<(), TransformError> {
        let finished = self.change.finish(emit);
        finished.inspect_err(|error| self.log(error))
    }
}
