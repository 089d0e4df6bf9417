//! Commands of `culvert-edge` that work with an edge on this machine. [`place`] finds the
//! state directory. Serving is not here: [`super::run`].

pub mod backup;
pub mod place;
