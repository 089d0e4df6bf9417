//! Target `config`: any text as a configuration file, as a body of the local API, and as a
//! policy. Nothing panics. A change of the file changes one value and keeps the comments. An
//! upgrade keeps the meaning.

use std::sync::OnceLock;

use culvert::config::edit::{Setting, edited};
use culvert::config::file;
use culvert::config::upgrade::upgraded;
use culvert::config::{Agent, endpoint_from_json, policy, tunnel_from_json};
use culvert::proto::secret::Secret;

use crate::driver;
use crate::input::Dice;

/// A token that no text contains by chance.
const TOKEN: &str = "2tok_en";

/// Checks all of it.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let agent = Agent::default();
    for error in [
        tunnel_from_json(text, &agent).err(),
        endpoint_from_json(text, &agent).err(),
        file::parse(text).err(),
    ] {
        let said = error.map(|error| error.to_string());
        assert!(said.is_none_or(|said| !said.trim().is_empty()), "a refusal without a word");
    }
    let _ = policy::check(text);
    editing(text);
    upgrading(text);
}

fn editing(text: &str) {
    for setting in [Setting::Authtoken, Setting::ConnectUrl] {
        let value = match setting {
            Setting::ConnectUrl => Secret::new("e.example:4443"),
            _ => Secret::new(TOKEN),
        };
        let Ok(new) = edited(text, setting, &value) else { continue };
        assert!(new.contains(value.expose()), "the value is not there");
        assert_eq!(edited(&new, setting, &value).as_ref(), Ok(&new), "twice is not once");
        // In quotes a line may look like a comment.
        if !text.contains(['"', '\'']) {
            for line in text.split(['\n', '\r']).filter(|line| line.trim_start().starts_with('#')) {
                assert!(new.contains(line), "the comment {line:?} is gone");
            }
        }
        let (Ok(before), Ok(after)) = (file::parse(text), file::parse(&new)) else {
            assert!(file::parse(text).is_err(), "a good file is faulty now:\n{new}");
            continue;
        };
        match setting {
            Setting::ConnectUrl => assert_eq!(after.agent.connect_url, "e.example:4443"),
            // The valid URLs depend on the edge, but never on the token.
            _ => {
                assert_eq!(after.agent.authtoken.expose(), TOKEN);
                assert_eq!(before.agent.endpoints, after.agent.endpoints);
                assert_eq!(before.agent.connect_url, after.agent.connect_url);
            }
        }
    }
}

fn upgrading(text: &str) {
    for to in ["2", "3"] {
        let Ok((from, _, Some(new), remarks)) = upgraded(text, to) else { continue };
        let again = upgraded(&new, to).expect("an upgraded file can be read");
        assert_eq!(again.2, None, "an upgraded file is up to date");
        if let Ok(before) = file::parse(text) {
            let after = file::parse(&new);
            let after = after.unwrap_or_else(|e| panic!("a good file is faulty now: {e}\n{new}"));
            assert_eq!(before.agent.endpoints, after.agent.endpoints, "other endpoints");
            assert_eq!(before.agent.authtoken, after.agent.authtoken);
            assert_eq!(before.agent.connect_url, after.agent.connect_url);
            assert_eq!(before.log, after.log);
        }
        if from == 2 && !remarks.iter().any(|remark| remark.contains("comments are lost")) {
            for line in text.lines() {
                let comment = line.find('#').map_or("", |at| line[at..].trim());
                assert!(new.contains(comment), "the comment {comment:?} is gone\n{new}");
            }
        }
    }
}

/// Texts with a meaning in YAML or for the reader.
const PIECES: &[&str] = &[
    "\n",
    "\r\n",
    "\t",
    "  ",
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
    " # c\n",
    "&a ",
    "*a",
    "<<: *a",
    "!t ",
    "|\n  ",
    ">-\n  ",
    "~",
    "true",
    "3",
    "\"2\"",
    "version: 2\n",
    "version: 3\n",
    "agent:\n",
    "authtoken: x\n",
    "authtoken",
    "server_addr: e.example\n",
    "root_cas: host\n",
    "region: eu\n",
    "log: stdout\n",
    "metadata: m\n",
    "tunnels:\n",
    "endpoints:\n",
    "proto: tcp\n",
    "addr: 22\n",
    "schemes: [http, https]\n",
    "bind_tls: both\n",
    "auth: u:password\n",
    "upstream: 80\n",
    "url: tcp://\n",
    "name: a\n",
    "\u{e9}",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "? ",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "1e999",
    ".inf",
    "0x1f",
    "labels: [a=b]\n",
    "traffic_policy: {a: b}\n",
    "10s",
    "\\",
];

/// Returns a stored file, with pieces inserted and removed.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    static CORPUS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let corpus = CORPUS.get_or_init(|| driver::corpus("config"));
    let mut text = corpus[dice.below(corpus.len())].clone();
    for _ in 0..dice.below(4) {
        let at = dice.below(text.len() + 1);
        let piece = dice.pick(PIECES).bytes();
        match dice.below(4) {
            0 => {
                // Whole lines are moved.
                let end =
                    text[at..].iter().position(|b| *b == b'\n').map_or(text.len(), |n| at + n + 1);
                let row: Vec<u8> = text.drain(at..end).collect();
                let to = dice.below(text.len() + 1);
                drop(text.splice(to..to, row));
            }
            1 => {
                let to = (at + dice.below(12)).min(text.len());
                drop(text.splice(at..to, piece));
            }
            _ => {
                // Usually at the start of a line.
                let line = text[..at].iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
                let at = if dice.below(3) == 0 { at } else { line };
                drop(text.splice(at..at, piece));
            }
        }
    }
    text
}
