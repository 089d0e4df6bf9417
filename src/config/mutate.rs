//! Tests with configuration files that are almost valid: reading and editing them must return
//! for any content.

use super::address::parse_edge;
use super::loaded::Loaded;
use super::public_url::{PortPolicy, check_url};
use super::read::merge::parse_all;
use super::{EndpointKind, Upstream, duration, edit};
use crate::proto::secret::Secret;

/// xorshift64*: the same numbers in every run.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
    }

    pub(crate) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// Texts with a meaning in YAML or for the reader.
const PIECES: &[&str] = &[
    "\n",
    "\r",
    "\r\n",
    "\t",
    " ",
    "  ",
    ":",
    ": ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    ",",
    "\"",
    "'",
    "#",
    " #",
    "&a ",
    "*a",
    "<<: *a",
    "!t ",
    "|",
    ">",
    "~",
    "null",
    "true",
    "3",
    "version",
    "agent",
    "authtoken",
    "authtoken: x",
    "endpoints",
    "upstream",
    "url",
    "é",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "\u{0}",
    "\\",
    "?",
    "? ",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "0x1f",
    "1e999",
    ".inf",
    "agent:\n",
    "  ",
    "http://",
    "tcp://",
    "::1",
    "[::1]",
    ":80",
    "@",
    "%",
    "/",
    "10s",
    "*.",
];

const SEEDS: &[&str] = &[
    include_str!("../../tests/cli/configs/good/whole.yml"),
    include_str!("../../tests/cli/configs/good/harmless.yml"),
    include_str!("../../tests/cli/configs/good/json.yml"),
    include_str!("../../tests/cli/configs/good/anchors.yml"),
    include_str!("../../tests/cli/configs/good/crlf.yml"),
    "version: 3\nagent: {authtoken: old}\n",
    "{version: 3, agent: {log: x}}",
    "",
];

/// Returns the start of a character in `text`, or its end.
fn place(rng: &mut Rng, text: &str) -> usize {
    let at = rng.below(text.len() + 1);
    (at..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len())
}

fn mutated(rng: &mut Rng, text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..=rng.below(4) {
        let from = place(rng, &text);
        let piece = rng.of(PIECES);
        match rng.below(3) {
            0 => text.insert_str(from, piece),
            1 => {
                let to = place(rng, &text);
                text.replace_range(from.min(to)..from.max(to), piece);
            }
            _ => text.truncate(from),
        }
    }
    text
}

#[test]
fn files_that_are_almost_right() {
    let mut rng = Rng(0xc0f1);
    let token = Secret::new("tok_1");
    let (mut good, mut edited) = (0, 0);
    for round in 0..2_000 {
        let seed = SEEDS[round % SEEDS.len()];
        let text = mutated(&mut rng, seed);
        let mut loaded = Loaded::default();
        let faults = parse_all(vec![text.clone()], &mut loaded).concat();
        good += usize::from(faults.is_empty());
        for fault in &faults {
            assert!(!fault.message.is_empty(), "{text:?}");
        }
        if let Ok(new) = edit::edited(&text, edit::Setting::Authtoken, &token) {
            edited += 1;
            assert!(new.contains("tok_1"), "{text:?}");
            let again = edit::edited(&new, edit::Setting::Authtoken, &token);
            assert_eq!(again.as_ref(), Ok(&new), "{text:?}");
        }
    }
    // Enough of the mutated files must be valid.
    assert!(good > 50 && edited > 250, "{good} good, {edited} edited");
}

#[test]
fn words_that_are_almost_right() {
    let mut rng = Rng(0xadd2);
    let seeds = ["8080", "http://localhost:80", "[::1]:80", "tls://h:1", "file:///x", "1h2m3.5s"];
    for round in 0..20_000 {
        let text = mutated(&mut rng, seeds[round % seeds.len()]);
        let _ = parse_edge(&text);
        for kind in [EndpointKind::Http, EndpointKind::Tcp, EndpointKind::Tls] {
            if let Ok(upstream) = Upstream::parse(kind, &text) {
                let shown = upstream.to_string();
                assert_eq!(Upstream::parse(kind, &shown), Ok(upstream), "{text:?}");
            }
            let _ = check_url(kind, &text, &[], PortPolicy::Vendor);
        }
        if let Ok(time) = duration::parse(&text) {
            assert_eq!(duration::parse(&duration::show(time)), Ok(time), "{text:?}");
        }
    }
}
