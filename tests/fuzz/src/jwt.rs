//! Target `jwt`: what a visitor or a provider sends to a login. Nothing without a valid
//! signature is accepted, each token has one spelling, and no path leads to another host.

use culvert::edge::jwt::algorithm::JwsAlgorithm;
use culvert::edge::jwt::base64url;
use culvert::edge::jwt::claims::ClaimRules;
use culvert::edge::jwt::key_set::JwkSet;
use culvert::edge::jwt::token::{MAX_TOKEN_BYTES, SignedToken};
use culvert::edge::login::endpoints::parse_discovery;
use culvert::edge::login::seal::SealKey;
use culvert::edge::login::session::{LoginSession, SessionLimits};
use culvert::edge::login::state::PendingLogin;
use culvert::edge::login::{cookie, flow, return_path};

use crate::input::Dice;

const NOW: u64 = 1_800_000_000;

/// Keys that made none of the signatures here.
const KEYS: &str = r#"{"keys": [
    {"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
    {"kty": "EC", "crv": "P-256", "kid": "2", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
     "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(bytes) = base64url::decode(&text) {
        assert_eq!(base64url::encode(&bytes), text);
    }
    let keys = JwkSet::parse(KEYS.as_bytes()).expect("a key set");
    if let Ok(token) = SignedToken::parse(&text) {
        assert!(data.len() <= MAX_TOKEN_BYTES);
        let signed = std::str::from_utf8(token.signed).expect("a text");
        assert_eq!(format!("{signed}.{}", token.signature_text), text);
        assert!(keys.verify(&token, &JwsAlgorithm::ALL).is_err(), "accepted without a signature");
        let (issuers, audiences) = (["a".to_owned()], ["b".to_owned()]);
        let rules =
            ClaimRules { issuers: &issuers, audiences: &audiences, needs_expiry: true, now: NOW };
        if rules.check(&token.claims).is_ok() {
            assert_eq!(token.claims["iss"], "a");
            assert!(token.claims["exp"].as_f64().is_some_and(|exp| exp > 1.7e9));
        }
    }
    // A key set of an issuer, and a discovery document.
    let _ = JwkSet::parse(data);
    if let Ok(endpoints) = parse_discovery(data) {
        let url = endpoints.authorization.to_ascii_lowercase();
        assert!(url.starts_with("http://") || url.starts_with("https://"));
    }
    let path = return_path::safe(&text);
    assert!(path.starts_with('/') && !path.starts_with("//") && !path.starts_with("/\\"));
    assert!(path.bytes().all(|b| b.is_ascii_graphic()));
    let _ = flow::parameter(&text, "state");
    let _ = flow::tokens(200, data);
    let key = SealKey::new(&[7; 32]).expect("a key");
    assert!(PendingLogin::open(&key, &text, [&*text].into_iter(), NOW).is_err());
    let values = cookie::values([data].into_iter(), "ngrok.session");
    let limits = SessionLimits { total: u64::MAX, idle: u64::MAX };
    assert!(LoginSession::open(&key, values, limits, NOW).is_none());
}

/// Returns a token with parts that pass the first checks, or a document of a provider.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    let json = |dice: &mut Dice, members: &[(&str, &[&str])]| {
        let mut parts = Vec::new();
        for (name, values) in members {
            if dice.below(8) != 0 {
                parts.push(format!("\"{name}\": {}", dice.pick(values)));
            }
        }
        format!("{{{}}}", parts.join(", "))
    };
    if dice.below(4) == 0 {
        let url = &["\"https://a/b\"", "\"javascript:x\"", "\"http://a\"", "1", "\"\""][..];
        let members = [
            ("issuer", url),
            ("authorization_endpoint", url),
            ("token_endpoint", url),
            ("jwks_uri", url),
            ("keys", &["[]", "[{\"kty\": \"RSA\", \"n\": \"AQAB\", \"e\": \"AQAB\"}]"]),
        ];
        return json(dice, &members).into_bytes();
    }
    let algorithms =
        &["\"EdDSA\"", "\"ES256\"", "\"RS256\"", "\"none\"", "\"HS256\"", "\"\"", "1"][..];
    let header = json(
        dice,
        &[("alg", algorithms), ("kid", &["\"1\"", "\"2\"", "\"\"", "1"]), ("typ", &["\"JWT\""])],
    );
    let times = &["1800000000", "1799999999.5", "0", "-1", "1e300", "\"1\"", "null"][..];
    let claims = json(
        dice,
        &[
            ("iss", &["\"a\"", "\"A\"", "1"]),
            ("aud", &["\"b\"", "[\"b\", \"c\"]", "[]", "[1]", "{}"]),
            ("exp", times),
            ("nbf", times),
        ],
    );
    let signature: Vec<u8> =
        (0..dice.pick(&[0, 1, 32, 64, 96, 256])).map(|_| dice.roll() as u8).collect();
    let parts = [header.as_bytes(), claims.as_bytes(), &signature].map(base64url::encode);
    let mut bytes = parts.join(".").into_bytes();
    if dice.below(4) == 0 {
        let at = dice.below(bytes.len());
        bytes[at] = dice.pick(b"=+/._-A \n");
    }
    if dice.below(8) == 0 {
        bytes.truncate(dice.below(bytes.len() + 1));
    }
    bytes
}
