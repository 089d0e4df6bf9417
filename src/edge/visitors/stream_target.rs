//! Where a visitor's stream is opened. Data only.

use std::sync::Arc;

use crate::edge::places::Places;
use crate::session::Session;

/// Where a stream is opened.
#[derive(Clone)]
pub struct StreamTarget {
    /// The session of the agent.
    pub session: Session,
    /// The visitors' streams of the session.
    pub streams: Arc<Places>,
}
