//! Local API.
mod guard;
mod http;
mod json;
