//! Repairs harmless mistakes in the head of a response. Folded lines are joined (RFC 9112 5.2),
//! a blank in front of a colon is removed (5.1), lines that are not fields are dropped, control
//! characters become blanks (RFC 9110 5.5). A line that another reader could interpret as
//! Content-Length or Transfer-Encoding stays an error.

use super::error::HttpError;
use super::line::{LenientFields, LenientLine, is_control, split_line};

/// Returns whether a head with this error can be repaired.
pub(super) fn can_mend(error: HttpError) -> bool {
    matches!(
        error,
        HttpError::FoldedField
            | HttpError::MissingColon
            | HttpError::BlankBeforeColon
            | HttpError::FieldName
            | HttpError::ControlCharacter
    )
}

/// Appends the repaired head to `out`. Every line ends with CR LF.
#[cold]
pub(super) fn response(head: &[u8], out: &mut Vec<u8>) -> Result<(), HttpError> {
    let (first, mut rest) = split_line(head);
    push(out, first);
    out.extend_from_slice(b"\r\n");
    let mut reader = LenientFields::default();
    loop {
        let (line, after) = split_line(rest);
        rest = after;
        if line.is_empty() {
            break;
        }
        match reader.line(line)? {
            LenientLine::Field(name, value) => {
                out.extend_from_slice(name);
                out.extend_from_slice(b": ");
                push(out, value);
            }
            LenientLine::Continuation(text) => {
                out.truncate(out.len() - 2);
                out.push(b' ');
                push(out, text);
            }
            LenientLine::Ignored => continue,
        }
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

fn push(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(text.iter().map(|b| if is_control(*b) { b' ' } else { *b }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mended(head: &str) -> Result<String, HttpError> {
        let mut out = Vec::new();
        response(head.as_bytes(), &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    #[test]
    fn harmless_mistakes_are_mended() {
        for (head, expected) in [
            (
                "HTTP/1.1 200 OK\r\nA: b\r\n  c\r\n\td\r\n\r\n",
                "HTTP/1.1 200 OK\r\nA: b c d\r\n\r\n",
            ),
            ("HTTP/1.1 200 OK\r\nno colon\r\nA:b\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n\r\n"),
            ("HTTP/1.1 200 OK\r\nServer : x\r\n\r\n", "HTTP/1.1 200 OK\r\nServer: x\r\n\r\n"),
            ("HTTP/1.1 200 OK\nA b: c\n d\nE: f\n\n", "HTTP/1.1 200 OK\r\nE: f\r\n\r\n"),
            ("HTTP/1.1 200 O\0K\r\nA: \rb\r\r\n\r\n", "HTTP/1.1 200 O K\r\nA:  b \r\n\r\n"),
            ("HTTP/1.1 200 OK\r\n first\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"),
        ] {
            assert_eq!(mended(head).as_deref(), Ok(expected), "{head:?}");
        }
    }

    #[test]
    fn hidden_framing_is_not_mended() {
        for line in ["Content-Length : 5", "Transfer-Encoding\0: chunked", "content-length"] {
            let head = format!("HTTP/1.1 200 OK\r\nbad line\r\n{line}\r\n\r\n");
            assert_eq!(mended(&head), Err(HttpError::HiddenFraming), "{line:?}");
        }
    }
}
