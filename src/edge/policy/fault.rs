//! Faults of a policy: the code, where the fault is, and the reason.

use std::cell::RefCell;
use std::fmt;

use crate::config::document::{Document, EntryPart, PathSegment, Position, show};
use crate::proto::codes::Refusal;

/// Code with which a Bind is refused for an invalid policy. Its text has the faults.
const INVALID_POLICY: u32 = 9026;

/// Most faults in one refusal.
const MAX_SHOWN: usize = 5;

/// Faults after which the search ends.
const MAX_FAULTS: usize = 20;

/// Longest line of a fault in a refusal.
const MAX_LINE_CHARS: usize = 400;

/// A fault of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFault {
    /// Number of the error code of the fault itself.
    pub code: u32,
    /// Path in the document, as `on_http_request[0].actions[1].type`; empty for the document.
    pub path: String,
    /// Where it is in the text.
    pub position: Option<Position>,
    /// What is wrong, and what to do.
    pub reason: String,
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = self.position {
            write!(f, "line {}: ", position.line)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        // Not in the form of a code on a line of its own: the refusal has another one.
        write!(f, "{} (error {})", self.reason, self.code)
    }
}

/// Collects the faults of a document.
#[derive(Debug)]
pub struct FaultList<'a> {
    document: &'a Document,
    faults: RefCell<Vec<PolicyFault>>,
}

impl<'a> FaultList<'a> {
    /// Returns a list without faults.
    pub fn new(document: &'a Document) -> Self {
        FaultList { document, faults: RefCell::default() }
    }

    /// Adds a fault of the entry at `path`. Faults after the first 20 are not kept.
    pub fn add(&self, code: u32, path: &[PathSegment], part: EntryPart, reason: impl Into<String>) {
        let mut faults = self.faults.borrow_mut();
        if faults.len() < MAX_FAULTS {
            // The position costs another reading of the text.
            let position = self.document.locate(path, part);
            let fault = PolicyFault { code, path: show(path), position, reason: reason.into() };
            // Two readers of a value find the same fault.
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
    }

    /// Returns the number of faults.
    pub fn count(&self) -> usize {
        self.faults.borrow().len()
    }

    /// Returns the faults.
    pub fn into_faults(self) -> Vec<PolicyFault> {
        self.faults.into_inner()
    }
}

/// Returns the refusal of a Bind with these faults of a document. A document of one line is most
/// often a part of the agent's configuration, which has other lines: its lines are not named.
pub fn refusal(document: &str, faults: Vec<PolicyFault>) -> Refusal {
    let has_lines = document.trim().contains('\n');
    let mut text = "The traffic policy is not valid.".to_owned();
    let further = faults.len().saturating_sub(MAX_SHOWN);
    let or_more = if faults.len() >= MAX_FAULTS { " or more" } else { "" };
    for mut fault in faults.into_iter().take(MAX_SHOWN) {
        fault.position = fault.position.filter(|_| has_lines);
        text.push('\n');
        text.push_str(&printable(&fault.to_string()));
    }
    if further > 0 {
        text.push_str(&format!("\nFurther faults: {further}{or_more}."));
    }
    Refusal::new(INVALID_POLICY, text)
}

/// Returns a line that is short and cannot be read as another code: parts of a document are in
/// it.
fn printable(line: &str) -> String {
    let plain = line.chars().map(|c| if c.is_control() { '?' } else { c });
    let short: String = plain.take(MAX_LINE_CHARS).collect();
    short.replace("ERR_NGROK_", "ERR NGROK ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "on_http_request:\n  - actions: []\n";

    fn fault(line: usize) -> PolicyFault {
        PolicyFault {
            code: 2201,
            path: "on_http_request[0]".into(),
            position: Some(Position { line, column: 1 }),
            reason: "a reason.".into(),
        }
    }

    #[test]
    fn a_refusal_has_code_line_path_and_reason() {
        let refusal = refusal(LINES, vec![fault(3)]);
        assert_eq!(refusal.code, Some(9026));
        let lines: Vec<&str> = refusal.message.lines().collect();
        assert_eq!(lines[1], "line 3: on_http_request[0]: a reason. (error 2201)");
        // The code survives the way to the agent.
        let read = Refusal::from_wire(&refusal.to_wire()).unwrap();
        assert_eq!((read.code, read.message), (Some(9026), refusal.message));
    }

    #[test]
    fn a_document_of_one_line_has_no_line_in_its_refusal() {
        let refusal = refusal("on_http_request: [{actions: []}]\n", vec![fault(1)]);
        let shown = refusal.message.lines().nth(1);
        assert_eq!(shown, Some("on_http_request[0]: a reason. (error 2201)"));
    }

    #[test]
    fn parts_of_the_document_are_no_code_and_no_line() {
        let path = format!("ERR_NGROK_105\n{}", "x".repeat(5000));
        let refusal = refusal(LINES, vec![PolicyFault { path, ..fault(1) }]);
        let read = Refusal::from_wire(&refusal.to_wire()).unwrap();
        assert_eq!(read.code, Some(9026));
        assert_eq!(read.message.lines().count(), 2);
        assert!(read.message.len() < 600);
    }

    #[test]
    fn many_faults_are_cut() {
        let faults: Vec<PolicyFault> = (1..8).map(fault).collect();
        let text = refusal(LINES, faults).message;
        assert_eq!(text.lines().count(), 7);
        assert!(text.ends_with("Further faults: 2."), "{text}");
        // The search ends at the 20th.
        let text = refusal(LINES, (1..=MAX_FAULTS).map(fault).collect()).message;
        assert!(text.ends_with("Further faults: 15 or more."), "{text}");
    }

    #[test]
    fn a_fault_that_is_found_twice_is_kept_once() {
        let document = Document::parse(LINES.to_owned()).unwrap();
        let faults = FaultList::new(&document);
        let path = [PathSegment::Key("on_http_request".into())];
        for reason in ["a reason.", "a reason.", "another one."] {
            faults.add(2201, &path, EntryPart::Value, reason);
        }
        assert_eq!(faults.count(), 2);
    }
}
