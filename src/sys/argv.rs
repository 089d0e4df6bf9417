//! Arguments of this process, which other users can see in `ps`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

static ORIGINAL: OnceLock<Vec<OsString>> = OnceLock::new();

/// Returns the original arguments with the program's name first, also after [`hide`].
pub fn original() -> Vec<OsString> {
    ORIGINAL.get().cloned().unwrap_or_else(|| env::args_os().collect())
}

/// Returns the program's name for messages: `ngrok` when called by that name, for scripts and
/// users that expect it, else `culvert`.
pub fn program() -> &'static str {
    let name = original().into_iter().next().unwrap_or_default();
    match Path::new(&name).file_name() {
        Some(name) if name == "ngrok" => "ngrok",
        _ => "culvert",
    }
}

/// Overwrites every occurrence of `secret` in the arguments. Must be called while there is one
/// thread. Best effort: without `/proc` they stay as they are.
pub fn hide(secret: &str) {
    if secret.is_empty() {
        return;
    }
    ORIGINAL.get_or_init(|| env::args_os().collect());
    let Some((start, length)) = place() else { return };
    // SAFETY: the kernel reports the address of the arguments; the area is mapped and writable
    // for the life of the process. No other code has a reference to it: the standard
    // library copies arguments out, and there is one thread.
    let area = unsafe {
        std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut::<u8>(start), length)
    };
    let secret = secret.as_bytes();
    let mut at = 0;
    while at + secret.len() <= area.len() {
        if area[at..].starts_with(secret) {
            area[at..at + secret.len()].fill(b'*');
            at += secret.len();
        } else {
            at += 1;
        }
    }
}

/// Returns address and length of the arguments: fields 48 and 49 of `/proc/self/stat`.
fn place() -> Option<(usize, usize)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in brackets with any characters.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(48 - 3);
    let start: usize = fields.next()?.parse().ok()?;
    let end: usize = fields.next()?.parse().ok()?;
    let length = end.checked_sub(start)?;
    (start != 0).then_some((start, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_where_the_arguments_are() {
        let (start, length) = place().expect("a place");
        let arguments: usize = env::args_os().map(|argument| argument.len() + 1).sum();
        assert!(start != 0);
        assert_eq!(length, arguments);
    }
}
