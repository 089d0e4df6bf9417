//! Stub of `requests` for a build that captures none.

use super::http::ApiReply;
use crate::agent::Handle;

/// Returns an empty list.
pub fn list(_: &Handle, _: &str) -> Result<ApiReply, String> {
    Ok(ApiReply::json(200, br#"{"requests":[],"uri":"/api/requests/http"}"#.to_vec()))
}

/// Returns `None`.
pub fn get(_: &Handle, _: &str) -> Option<ApiReply> {
    None
}

/// Returns whether all were deleted: an empty store has no single request.
pub fn delete(_: &Handle, id: Option<&str>) -> bool {
    id.is_none()
}

/// Returns an error.
pub fn replay(_: &Handle, _: &str) -> Result<String, (u16, String)> {
    Err((404, "built without feature `inspect`".into()))
}

/// Returns no events.
pub fn news(_: &Handle, _: &mut Option<u32>) -> Vec<u8> {
    Vec::new()
}

/// Returns `None`.
pub fn bytes(_: &Handle) -> Option<(usize, usize)> {
    None
}
