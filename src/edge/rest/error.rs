//! Errors of the REST API: HTTP status, ngrok's code and a sentence for a person. The clients
//! of ngrok need all fields of the body.

use serde_json::{Value, json};

use crate::edge::store::StoreError;

/// An error for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// Number of the code `ERR_NGROK_…`.
    pub code: u32,
    /// What failed, the cause, and what to do.
    pub message: String,
    /// Seconds until another attempt can succeed.
    pub retry_after: Option<u64>,
}

impl ApiError {
    /// Returns an error.
    pub fn new(status: u16, code: u32, message: impl Into<String>) -> Self {
        ApiError { status, code, message: message.into(), retry_after: None }
    }

    /// Returns the error for a failure of the edge itself.
    pub fn failed(error: std::io::Error) -> Self {
        ApiError::new(500, 500, format!("The edge failed: {error}."))
    }

    /// Returns the error for a value that is not valid.
    pub fn invalid(message: impl Into<String>) -> Self {
        ApiError::new(400, 215, message)
    }

    /// Returns the error for an object that does not exist.
    pub fn unknown_id(id: &str) -> Self {
        ApiError::new(404, 404, format!("The object '{id}' does not exist."))
    }

    /// Returns the error for an object of edge.yml.
    pub fn read_only(id: &str) -> Self {
        let text = format!(
            "The object '{id}' is in edge.yml and cannot be changed here. Change the file and \
             reload the edge (SIGHUP)."
        );
        ApiError::new(403, 403, text)
    }

    /// Returns the error for an object that others use.
    pub fn in_use(message: impl Into<String>) -> Self {
        ApiError::new(400, 223, message)
    }

    /// Returns the body of the response.
    pub fn body(&self, operation: &str) -> Value {
        json!({
            "error_code": format!("ERR_NGROK_{}", self.code),
            "status_code": self.status,
            "msg": self.message,
            "details": {"operation_id": operation},
        })
    }
}

impl From<StoreError> for ApiError {
    fn from(e: StoreError) -> Self {
        let text = e.to_string();
        match e {
            StoreError::Busy(_) => {
                ApiError { retry_after: Some(1), ..ApiError::new(503, 503, text) }
            }
            StoreError::Full(_) => ApiError::new(503, 503, text),
            StoreError::NameInUse => ApiError::new(409, 215, format!("Not created: {text}.")),
            StoreError::Missing(id) => ApiError::unknown_id(&id),
            StoreError::Unusable(_) => ApiError::new(500, 500, text),
        }
    }
}
