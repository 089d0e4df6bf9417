//! Changes of a body on its way to the visitor. The head is sent before the body is complete, so
//! a change can only fail by cutting the response off.

use std::fmt;

/// A change of one body. Its bytes come in pieces of any size.
pub trait BodyTransform: fmt::Debug + Send {
    /// Takes a piece, and emits what is complete.
    fn write(&mut self, piece: &[u8], emit: &mut dyn FnMut(&[u8])) -> Result<(), TransformError>;

    /// Emits the rest.
    fn finish(&mut self, emit: &mut dyn FnMut(&[u8])) -> Result<(), TransformError>;
}

/// The body could not be changed. Its rest must not be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransformError;

/// Writes a piece through several changes, one after the other.
pub fn write_through(
    transforms: &mut [Box<dyn BodyTransform>],
    piece: &[u8],
    emit: &mut dyn FnMut(&[u8]),
) -> Result<(), TransformError> {
    let Some((first, rest)) = transforms.split_first_mut() else {
        emit(piece);
        return Ok(());
    };
    let mut later = Ok(());
    first.write(piece, &mut |bytes| {
        if later.is_ok() {
            later = write_through(rest, bytes, emit);
        }
    })?;
    later
}

/// Ends a body that went through several changes.
pub fn finish_through(
    transforms: &mut [Box<dyn BodyTransform>],
    emit: &mut dyn FnMut(&[u8]),
) -> Result<(), TransformError> {
    let Some((first, rest)) = transforms.split_first_mut() else { return Ok(()) };
    let mut later = Ok(());
    first.finish(&mut |bytes| {
        if later.is_ok() {
            later = write_through(rest, bytes, emit);
        }
    })?;
    later?;
    finish_through(rest, emit)
}
