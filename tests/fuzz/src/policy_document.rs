//! Target `policy_document`: any text as a traffic policy. Nothing panics, a policy that is
//! accepted keeps the bounds, and a refusal has a reason and the code of a Bind.

use std::sync::OnceLock;

use culvert::config::document::EntryPart;
use culvert::edge::agents::address::Protocol;
use culvert::edge::policy::catalog::PolicyPhase;
use culvert::edge::policy::document::PolicyDocument;
use culvert::edge::policy::fault;
use culvert::proto::codes::Refusal;

use crate::driver;
use crate::input::Dice;

/// Checks all of it.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for protocol in [Protocol::Http, Protocol::Tcp] {
        match PolicyDocument::parse(text, protocol) {
            Ok((policy, document)) => {
                for phase in PolicyPhase::ALL {
                    let rules = policy.rules(phase);
                    assert!(rules.len() <= 100, "{} rules", rules.len());
                    assert!(
                        phase == PolicyPhase::TcpConnect
                            || protocol == Protocol::Http
                            || rules.is_empty()
                    );
                    for rule in rules {
                        assert!((1..=20).contains(&rule.actions.len()), "{rule:?}");
                        for action in &rule.actions {
                            assert!(action.spec.phases.contains(&phase), "{action:?}");
                        }
                        for expression in &rule.expressions {
                            assert!(!expression.value.trim().is_empty());
                            let merged = text.contains("<<");
                            let found = document.locate(&expression.path, EntryPart::Value);
                            // An alias has the position of its anchor.
                            assert!(
                                found.is_some() || merged || text.contains('*'),
                                "{expression:?}"
                            );
                        }
                    }
                }
            }
            Err(faults) => {
                assert!((1..=20).contains(&faults.len()), "{} faults", faults.len());
                assert!(faults.iter().all(|fault| !fault.reason.is_empty() && fault.code >= 2200));
                let wire = fault::refusal(text, faults).to_wire();
                let read = Refusal::from_wire(&wire).expect("a refusal");
                assert_eq!(read.code, Some(9026), "{wire}");
            }
        }
    }
}

const PIECES: &[&str] = &[
    "\n",
    "  ",
    "- ",
    ": ",
    "[",
    "]",
    "{",
    "}",
    "'",
    "\"",
    "*a",
    "&a ",
    "<<: *a",
    "~",
    "true",
    "5",
    "type: deny",
    "type: log",
    "type: oauth",
    "config: ",
    "actions:\n",
    "expressions: [",
    "on_http_request:\n",
    "on_tcp_connect: []\n",
    "inbound: ",
    "ERR_NGROK_1",
    "\u{e9}",
];

/// Returns a stored document, with pieces inserted and removed.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    static CORPUS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let corpus = CORPUS.get_or_init(|| driver::corpus("policy_document"));
    let mut text = corpus[dice.below(corpus.len())].clone();
    for _ in 0..dice.below(4) {
        let at = dice.below(text.len() + 1);
        let to = (at + dice.below(8)).min(text.len());
        drop(text.splice(at..to, dice.pick(PIECES).bytes()));
    }
    text
}
