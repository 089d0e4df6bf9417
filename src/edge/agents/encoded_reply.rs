//! A response to a call, ready to be sent. Data only.

use super::unsent_binds::UnsentBind;

/// An encoded response.
pub struct EncodedReply {
    /// JSON.
    pub bytes: Vec<u8>,
    /// The endpoint that it announces to the agent. Dropped when the response is sent.
    pub bind: Option<UnsentBind>,
}

impl From<Vec<u8>> for EncodedReply {
    fn from(bytes: Vec<u8>) -> Self {
        EncodedReply { bytes, bind: None }
    }
}
