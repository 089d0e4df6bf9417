//! The log: one record on each line, with ngrok's field names, written by
//! [`event!`](crate::event).
//!
//! ```
//! # let (peer, url) = ("127.0.0.1:1", "http://a.localhost");
//! culvert::event!(info, obj = "tunnels.session", "client session established");
//! culvert::event!(warn, obj = "join", "visitor disconnected", l = peer, url = url);
//! ```
//!
//! Records pass the facade of the crate `log`, like those of libraries (`facade`). `format`
//! makes the line, `output` writes it, [`rate_limit`] limits repeated events. Only the macro
//! and the items for callers are here.
//!
//! The macro is not one of the facade's, because they have no level `crit`.

mod facade;
mod format;
mod output;
pub mod rate_limit;

pub use format::{Format, Level, MAX_LINE, line};
pub use output::{
    Destination, announce, enabled, fatal, is_off_the_terminal, leave_the_terminal, notice, print,
    reopen, start, use_own_error_pages, write,
};

/// Writes a record: level, component, message, then named fields that print themselves.
/// The fields are not evaluated for a level that is not written. The message is a fixed
/// phrase of at most six words that docs/reference/log.md lists; details are fields.
#[macro_export]
macro_rules! event {
    (level = $level:expr, obj = $obj:expr, $msg:expr $(, $key:ident = $value:expr)* $(,)?) => {{
        let level = $level;
        if $crate::logging::enabled(level) {
            $crate::logging::write(level, $obj, $msg, &[$((stringify!($key), &$value)),*]);
        }
    }};
    ($level:ident, $($record:tt)*) => {
        $crate::event!(level = $crate::event!(@ $level), $($record)*)
    };
    (@ debug) => { $crate::logging::Level::Debug };
    (@ info) => { $crate::logging::Level::Info };
    (@ warn) => { $crate::logging::Level::Warn };
    (@ error) => { $crate::logging::Level::Error };
    (@ crit) => { $crate::logging::Level::Crit };
}
