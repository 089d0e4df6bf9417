//! `RequestHeaders` and `ResponseHeaders`: header lines that are removed and added, in this
//! order. The names and values were checked by [`super::compile`].

use std::sync::Arc;

use super::action::{ActionError, Flow, RequestAction, RequestInfo};
use super::edits::{HeaderEdits, HeaderLine};
use super::response::{ResponseAction, ResponseHead, ResponsePlan};

/// Changes that are the same for each message.
#[derive(Debug, Default)]
pub struct HeaderChanges {
    /// Names of the lines to remove.
    pub remove: Vec<Arc<str>>,
    /// Lines to add.
    pub add: Vec<HeaderLine>,
    /// New value of `Host`, in requests.
    pub host: Option<Arc<str>>,
}

impl RequestAction for HeaderChanges {
    fn run(&self, _: &RequestInfo<'_>, edits: &mut HeaderEdits) -> Result<Flow, ActionError> {
        self.remove.iter().for_each(|name| edits.remove(name));
        self.add.iter().for_each(|line| edits.add(line));
        if let Some(host) = &self.host {
            edits.set_host(host);
        }
        Ok(Flow::Continue)
    }
}

impl ResponseAction for HeaderChanges {
    fn run(&self, head: &mut ResponseHead<'_>, _: &ResponsePlan) -> Result<(), ActionError> {
        self.remove.iter().for_each(|name| head.remove(name));
        self.add.iter().for_each(|line| head.add(&line.name, line.value.as_bytes().to_vec()));
        Ok(())
    }
}
