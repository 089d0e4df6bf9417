//! Target `messages`: modified JSON of every call. Decoding and encoding give the same message,
//! and its end does not depend on the pieces.

use std::sync::OnceLock;

use culvert::proto::DecodeError;
use culvert::proto::json::{MAX_DEPTH, Scanner};
use culvert::proto::messages::{
    AuthRequest, AuthResponse, BindRequest, BindResponse, CommandResponse, PatchRequest,
    SrvInfoResponse, StartTunnelWithLabelRequest, StartTunnelWithLabelResponse, StopTunnel,
    UnbindRequest, UpdateRequest,
};
use serde_json::{Map, Value};

use crate::driver;
use crate::input::Dice;

/// One kind of message: decodes and encodes it.
type RoundTrip = fn(&[u8]) -> Result<Vec<u8>, DecodeError>;

const KINDS: [RoundTrip; 12] = [
    |bytes| AuthRequest::decode(bytes).map(|m| m.encode()),
    |bytes| AuthResponse::decode(bytes).map(|m| m.encode()),
    |bytes| BindRequest::decode(bytes).map(|m| m.encode()),
    |bytes| BindResponse::decode(bytes).map(|m| m.encode()),
    |bytes| UnbindRequest::decode(bytes).map(|m| m.encode()),
    |bytes| StartTunnelWithLabelRequest::decode(bytes).map(|m| m.encode()),
    |bytes| StartTunnelWithLabelResponse::decode(bytes).map(|m| m.encode()),
    |bytes| SrvInfoResponse::decode(bytes).map(|m| m.encode()),
    |bytes| StopTunnel::decode(bytes).map(|m| m.encode()),
    |bytes| UpdateRequest::decode(bytes).map(|m| m.encode()),
    |bytes| PatchRequest::decode(bytes).map(|m| m.encode()),
    |bytes| CommandResponse::decode(bytes).map(|m| m.encode()),
];

/// Limit of the scanner: small, so that it is reached.
const LIMIT: usize = 20_000;

/// The first byte decides the pieces, the rest is read as every kind of message.
pub fn check(data: &[u8]) {
    let (cuts, bytes) = data.split_first().unwrap_or((&0, &[]));
    let whole = Scanner::new(LIMIT).feed(bytes);
    let mut scanner = Scanner::new(LIMIT);
    let mut dice = Dice::new(u64::from(*cuts));
    let (mut at, mut cut) = (0, Ok(None));
    while at < bytes.len() && cut == Ok(None) {
        let end = bytes.len().min(at + 1 + dice.below(usize::from(*cuts)));
        cut = scanner.feed(&bytes[at..end]).map(|found| found.map(|n| at + n));
        at = end;
    }
    assert_eq!(whole, cut, "the end depends on how the bytes are cut");
    if let Ok(Some(n)) = whole {
        assert!(n >= 2 && n <= bytes.len().min(LIMIT));
        assert_eq!(bytes[n - 1], b'}');
        assert_eq!(Scanner::new(LIMIT).feed(&bytes[..n]), Ok(Some(n)));
        assert_eq!(Scanner::new(LIMIT).feed(&bytes[..n - 1]), Ok(None));
    }
    let value = serde_json::from_slice::<Map<String, Value>>(bytes);
    for round_trip in KINDS {
        let Ok(encoded) = round_trip(bytes) else { continue };
        assert!(value.is_ok(), "a message that is no JSON");
        let again = round_trip(&encoded).expect("what we write we read");
        assert_eq!(again, encoded, "a message changes when it is read and written");
        assert_eq!(Scanner::new(1 << 30).feed(&encoded), Ok(Some(encoded.len())));
    }
}

/// Returns a modified message of the corpus.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    static CORPUS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let corpus = CORPUS.get_or_init(|| driver::corpus("messages"));
    let seed = &corpus[dice.below(corpus.len())];
    let mut input = vec![dice.roll() as u8];
    input.extend(twist(seed.get(1..).unwrap_or_default(), dice));
    input
}

/// Changes JSON so that its meaning is another one.
pub fn twist(json: &[u8], dice: &mut Dice) -> Vec<u8> {
    let Ok(mut value) = serde_json::from_slice::<Value>(json) else { return json.to_vec() };
    for _ in 0..1 + dice.below(3) {
        twist_value(&mut value, dice);
    }
    let mut text = value.to_string();
    match dice.below(12) {
        // Case of keys, a duplicate, blanks, a second value after it.
        0 => text = text.to_lowercase(),
        1 => text = text.replacen('{', "{\"Id\":\"first\",\"Error\":null,", 1),
        2 => text = text.replace(',', &format!("{}, ", " \n\t".repeat(dice.below(2_000)))),
        3 => text.push_str("{}"),
        4 => text = format!("\r\n {text}\n"),
        _ => {}
    }
    text.into_bytes()
}

fn twist_value(value: &mut Value, dice: &mut Dice) {
    let stay = dice.below(4) == 0;
    match value {
        Value::Object(map) if !stay && !map.is_empty() => {
            let at = dice.below(map.len());
            let key = map.keys().nth(at).cloned().expect("an index within");
            match dice.below(6) {
                0 => drop(map.remove(&key)),
                1 => {
                    let value = map[&key].clone();
                    map.insert(key.to_uppercase(), value);
                }
                _ => twist_value(&mut map[&key], dice),
            }
        }
        Value::Array(list) if !stay && !list.is_empty() => {
            let at = dice.below(list.len());
            twist_value(&mut list[at], dice);
        }
        _ => *value = odd(dice),
    }
}

/// Returns an unexpected value.
fn odd(dice: &mut Dice) -> Value {
    match dice.below(12) {
        0 => Value::Null,
        1 => Value::Bool(true),
        2 => 0.into(),
        3 => (-1).into(),
        4 => u64::MAX.into(),
        5 => serde_json::json!(1.5e300),
        6 => "".into(),
        7 => "ERR_NGROK_\n\nERR_NGROK_99999999999999999999\n".into(),
        8 => "x".repeat(dice.below(5_000)).into(),
        9 => Value::Array(vec![Value::Null, "a".into()]),
        10 => {
            let depth = dice.pick(&[2, 10, MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 40]);
            (0..depth).fold(Value::Null, |inner, n| match n % 2 {
                0 => Value::Array(vec![inner]),
                _ => serde_json::json!({ "x": inner }),
            })
        }
        _ => Value::Object(Map::new()),
    }
}
