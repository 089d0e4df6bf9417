//! What the router needs of a resource. The resources themselves are in `rest::resources`.

use serde_json::Value;

use super::context::ApiContext;
use super::error::ApiError;

/// Result of a request that did not fail.
#[derive(Clone, Debug, PartialEq)]
pub enum RestReply {
    /// 200 with an object or a list.
    Found(Value),
    /// 201 with the new object.
    Created(Value),
    /// 204.
    Done,
}

/// A kind of object below one path.
pub trait Resource: Sync {
    /// First part of its paths.
    fn path(&self) -> &'static str;

    /// Prefix of its ids.
    fn prefix(&self) -> &'static str;

    /// Returns a page of its objects.
    fn list(&self, context: &ApiContext<'_>) -> Result<Value, ApiError>;

    /// Returns one object.
    fn get(&self, context: &ApiContext<'_>, id: &str) -> Result<Value, ApiError>;

    /// Creates an object.
    fn create(&self, _context: &ApiContext<'_>) -> Result<Value, ApiError> {
        Err(wrong_method("POST"))
    }

    /// Changes an object.
    fn update(&self, _context: &ApiContext<'_>, _id: &str) -> Result<Value, ApiError> {
        Err(wrong_method("PATCH"))
    }

    /// Removes an object.
    fn delete(&self, _context: &ApiContext<'_>, _id: &str) -> Result<(), ApiError> {
        Err(wrong_method("DELETE"))
    }

    /// Handles a path below an object.
    fn action(
        &self,
        _context: &ApiContext<'_>,
        _id: &str,
        _method: &str,
        _action: &str,
    ) -> Result<RestReply, ApiError> {
        Err(unknown_route())
    }
}

/// Returns the error for a method that a path does not have.
pub fn wrong_method(method: &str) -> ApiError {
    let shown: String = method.chars().take(20).collect();
    ApiError::new(405, 405, format!("The method {shown} is not supported here."))
}

/// Returns the error for a path that does not exist.
pub fn unknown_route() -> ApiError {
    ApiError::new(404, 404, "This edge does not have this route. '/' lists its resources.")
}
