//! A request to a web server and its response: values only, the same in every build.

use crate::time::Deadline;

/// Method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads a resource. Only for this method redirects are followed.
    Get,
    /// Creates a resource.
    Post,
    /// Replaces a resource.
    Put,
    /// Changes a resource.
    Patch,
    /// Deletes a resource.
    Delete,
    /// Requests the options of a resource.
    Options,
}

impl Method {
    /// Returns the method of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "GET" => Some(Method::Get),
            "POST" => Some(Method::Post),
            "PUT" => Some(Method::Put),
            "PATCH" => Some(Method::Patch),
            "DELETE" => Some(Method::Delete),
            _ => None,
        }
    }
}

/// A request to a web server.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Method of the request.
    pub method: Method,
    /// Starts with `http://` or `https://`.
    pub url: &'a str,
    /// Names and values. Not sent to another origin after a redirect.
    pub headers: &'a [(&'a str, &'a str)],
    /// Bytes to send; `None`: the request has no body.
    pub body: Option<&'a [u8]>,
    /// Most bytes of the response's body.
    pub limit: usize,
    /// End of the whole exchange, redirects included.
    pub deadline: Deadline,
}

/// Response to one request. Redirects were not followed.
#[derive(Debug, Default)]
pub struct SingleResponse {
    /// Status code.
    pub status: u16,
    /// Value of `Location`; empty without it.
    pub location: String,
    /// Value of `Via`; empty without it.
    pub via: String,
    /// Value of `Date`; empty without it.
    pub date: String,
    /// The body of status 200; empty for others.
    pub body: Vec<u8>,
}

/// Whole response to one request. Redirects were not followed.
#[derive(Debug, Default)]
pub struct WebResponse {
    /// Status code.
    pub status: u16,
    /// Names in lower case, and values, in their order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}
