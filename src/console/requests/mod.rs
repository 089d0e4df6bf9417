//! Captured requests for the screen.

use super::screen::RequestRow;
use crate::agent::Handle;
use crate::inspect::ListFilter;
use crate::sys::console::local_time_at;

/// Returns the newest captured requests; `None` if capture is disabled.
pub fn newest(agent: &Handle, rows: usize) -> Option<Vec<RequestRow>> {
    let filter = ListFilter { limit: Some(rows), tunnel_name: None };
    let list = agent.inspector()?.list(&filter).into_iter();
    let requests = list.map(|summary| RequestRow {
        time: local_time_at(summary.start.as_secs()),
        method: summary.method,
        path: summary.uri,
        status: summary.status,
    });
    Some(requests.collect())
}

/// Returns a number that changes with the captured requests.
pub fn sequence(agent: &Handle) -> u32 {
    agent.inspector().map_or(0, |inspector| inspector.since(0, 0).seq)
}
