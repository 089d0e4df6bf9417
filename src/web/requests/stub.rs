//! Captured requests in the API of a build that captures none.

use super::http::ApiReply;
use crate::agent::Handle;

/// An empty list.
pub fn list(_: &Handle, _: &str) -> Result<ApiReply, String> {
    Ok(ApiReply::json(200, br#"{"requests":[],"uri":"/api/requests/http"}"#.to_vec()))
}

/// There is none.
pub fn get(_: &Handle, _: &str) -> Option<ApiReply> {
    None
}

/// There is nothing to delete: all of it is gone, no single one was there.
pub fn delete(_: &Handle, id: Option<&str>) -> bool {
    id.is_none()
}

/// There is none to send again.
pub fn replay(_: &Handle, _: &str) -> Result<String, (u16, String)> {
    Err((404, "this build captures no requests".into()))
}

/// Nothing happens.
pub fn news(_: &Handle, _: &mut Option<u32>) -> Vec<u8> {
    Vec::new()
}

/// No memory is taken.
pub fn bytes(_: &Handle) -> Option<(usize, usize)> {
    None
}
