//! The status screen on a terminal: what the agent does, at a glance.
//!
//! `screen` decides what stands where, `paint` which bytes that takes, `text` what of
//! a stranger's text may be shown; all three are without I/O. [`Console`] is the
//! thread that looks at the agent and writes. The terminal's own calls are in
//! [`crate::sys::terminal`].

mod paint;
mod screen;
mod text;
