//! Values that rules of one phase have read and that later rules may read again. How they are
//! made is not decided here.

use std::cell::{Cell, OnceCell};
use std::time::Duration;

use super::expression::Value;

/// Values of one phase. Both are small or a part of the request's head. Each reading is charged as
/// if the value were made.
#[derive(Debug, Default)]
pub struct MadeValues {
    /// Address of the visitor.
    pub client_ip: OnceCell<Value>,
    /// Decoded path of the request.
    pub path: OnceCell<Value>,
    /// Time that the phase's `http-request` actions have taken. The longest time of one bounds all
    /// of them: a visitor must not hold a thread for the sum.
    pub request_time: Cell<Duration>,
}
