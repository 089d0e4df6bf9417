//! Tokens that must not be accepted, signed with keys made here. The RSA key is that of the
//! tests: `ring` makes none.

use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    self as ring_keys, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair,
};
use serde_json::{Value, json};

use super::algorithm::JwsAlgorithm;
use super::claims::ClaimRules;
use super::key_set::JwkSet;
use super::token::SignedToken;
use super::{JwtFault, base64url};
use crate::proto::base64;

const RSA_KEY: &str = include_str!("../../../tests/support/rsa_key.txt");

const ALL: [JwsAlgorithm; 9] = JwsAlgorithm::ALL;

/// A key that signs.
enum Signer {
    Rsa(RsaKeyPair),
    Ec(&'static str, EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    fn rsa() -> Self {
        let der = base64::decode(RSA_KEY.trim()).unwrap();
        Signer::Rsa(RsaKeyPair::from_pkcs8(&der).unwrap())
    }

    fn ec(curve: &'static str) -> Self {
        let kind = match curve {
            "P-256" => &ECDSA_P256_SHA256_FIXED_SIGNING,
            _ => &ECDSA_P384_SHA384_FIXED_SIGNING,
        };
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        Signer::Ec(curve, EcdsaKeyPair::from_pkcs8(kind, key.as_ref(), &random).unwrap())
    }

    fn ed() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Signer::Ed(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Signer::Rsa(key) => {
                let padding: &dyn ring_keys::RsaEncoding = match algorithm {
                    "RS256" => &ring_keys::RSA_PKCS1_SHA256,
                    "RS384" => &ring_keys::RSA_PKCS1_SHA384,
                    "RS512" => &ring_keys::RSA_PKCS1_SHA512,
                    "PS256" => &ring_keys::RSA_PSS_SHA256,
                    "PS384" => &ring_keys::RSA_PSS_SHA384,
                    _ => &ring_keys::RSA_PSS_SHA512,
                };
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            Signer::Ec(_, key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Signer::Ed(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    fn jwk(&self, extra: Value) -> Value {
        let text = base64url::encode;
        let mut jwk = match self {
            Signer::Rsa(key) => {
                let public: ring_keys::RsaPublicKeyComponents<Vec<u8>> = key.public().into();
                json!({"kty": "RSA", "n": text(&public.n), "e": text(&public.e)})
            }
            Signer::Ec(curve, key) => {
                let (x, y) =
                    key.public_key().as_ref()[1..].split_at(key.public_key().as_ref().len() / 2);
                json!({"kty": "EC", "crv": curve, "x": text(x), "y": text(y)})
            }
            Signer::Ed(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": text(key.public_key().as_ref())})
            }
        };
        jwk.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        jwk
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let algorithm = header["alg"].as_str().unwrap_or_default();
        let signed = unsigned(header, claims);
        let signature = self.sign(algorithm, signed.as_bytes());
        format!("{signed}.{}", base64url::encode(&signature))
    }
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| base64url::encode(value.to_string().as_bytes());
    format!("{}.{}", part(header), part(claims))
}

fn set(keys: &[Value]) -> JwkSet {
    JwkSet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn verify(set: &JwkSet, token: &str, allowed: &[JwsAlgorithm]) -> Result<(), JwtFault> {
    set.verify(&SignedToken::parse(token)?, allowed)
}

#[test]
fn every_algorithm_verifies_its_own_signatures_only() {
    for (signer, names) in [
        (Signer::rsa(), &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"][..]),
        (Signer::ec("P-256"), &["ES256"]),
        (Signer::ec("P-384"), &["ES384"]),
        (Signer::ed(), &["EdDSA"]),
    ] {
        let keys = set(&[signer.jwk(json!({"kid": "a"}))]);
        for name in names {
            let token = signer.token(&json!({"alg": name, "kid": "a"}), &json!({"sub": "x"}));
            assert_eq!(verify(&keys, &token, &ALL), Ok(()), "{name}");
            let (head, signature) = token.rsplit_once('.').unwrap();
            let mut bytes = base64url::decode(signature).unwrap();
            for at in [0, bytes.len() - 1] {
                bytes[at] ^= 1;
                let forged = format!("{head}.{}", base64url::encode(&bytes));
                assert_eq!(verify(&keys, &forged, &ALL), Err(JwtFault::Signature), "{name}");
                bytes[at] ^= 1;
            }
            for cut in ["", "AA"] {
                let forged = format!("{head}.{cut}");
                assert_eq!(verify(&keys, &forged, &ALL), Err(JwtFault::Signature), "{name}");
            }
            let header = json!({"alg": name, "kid": "a"});
            let forged = format!("{}.{signature}", unsigned(&header, &json!({"sub": "root"})));
            assert_eq!(verify(&keys, &forged, &ALL), Err(JwtFault::Signature), "{name}");
        }
    }
}

#[test]
fn the_header_does_not_choose_the_kind_of_the_key() {
    let signer = Signer::rsa();
    let jwk = signer.jwk(json!({"kid": "a"}));
    let keys = set(std::slice::from_ref(&jwk));
    // The public key as the secret of an HMAC.
    for secret in [jwk["n"].as_str().unwrap().to_owned(), jwk.to_string()] {
        let signed = unsigned(&json!({"alg": "HS256", "kid": "a"}), &json!({}));
        let tag =
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
        let token = format!("{signed}.{}", base64url::encode(tag.as_ref()));
        assert_eq!(verify(&keys, &token, &ALL), Err(JwtFault::Algorithm));
    }
    for name in ["none", "None", "", "HS256", "rs256", "RS256 ", "ES512", "RS1"] {
        let token = format!("{}.", unsigned(&json!({"alg": name}), &json!({})));
        assert_eq!(verify(&keys, &token, &ALL), Err(JwtFault::Algorithm), "{name}");
    }
    // An algorithm that is not allowed, and one of another kind than the key's.
    let token = signer.token(&json!({"alg": "RS256", "kid": "a"}), &json!({}));
    assert_eq!(verify(&keys, &token, &[JwsAlgorithm::Es256]), Err(JwtFault::Algorithm));
    let ec = Signer::ec("P-256");
    let token = ec.token(&json!({"alg": "ES256", "kid": "a"}), &json!({}));
    assert_eq!(verify(&keys, &token, &ALL), Err(JwtFault::Algorithm));
    // A key that is for one algorithm.
    let keys = set(&[signer.jwk(json!({"kid": "a", "alg": "PS256"}))]);
    let token = signer.token(&json!({"alg": "RS256", "kid": "a"}), &json!({}));
    assert_eq!(verify(&keys, &token, &ALL), Err(JwtFault::Algorithm));
    // A key that the token brings itself.
    let own = Signer::ed();
    let header = json!({"alg": "EdDSA", "jwk": own.jwk(json!({})), "jku": "https://evil.example"});
    let token = own.token(&header, &json!({}));
    assert_eq!(verify(&keys, &token, &ALL), Err(JwtFault::UnknownKey));
}

#[test]
fn the_key_is_selected_by_its_id() {
    let (one, two) = (Signer::ed(), Signer::ed());
    let token = |signer: &Signer, header: Value| signer.token(&header, &json!({}));
    let keys = set(&[one.jwk(json!({"kid": "1"})), two.jwk(json!({"kid": "2"}))]);
    assert_eq!(verify(&keys, &token(&two, json!({"alg": "EdDSA", "kid": "2"})), &ALL), Ok(()));
    let wrong = token(&two, json!({"alg": "EdDSA", "kid": "1"}));
    assert_eq!(verify(&keys, &wrong, &ALL), Err(JwtFault::Signature));
    let unknown = token(&two, json!({"alg": "EdDSA", "kid": "3"}));
    assert_eq!(verify(&keys, &unknown, &ALL), Err(JwtFault::UnknownKey));
    assert_eq!(verify(&keys, &token(&two, json!({"alg": "EdDSA"})), &ALL), Ok(()), "no id");
    let unnamed = set(&[one.jwk(json!({})), two.jwk(json!({}))]);
    assert_eq!(verify(&unnamed, &unknown, &ALL), Ok(()), "keys without ids");
    assert_eq!(verify(&set(&[]), &unknown, &ALL), Err(JwtFault::UnknownKey));
}

#[test]
fn keys_for_other_purposes_are_skipped() {
    let signer = Signer::ed();
    let token = signer.token(&json!({"alg": "EdDSA"}), &json!({}));
    for extra in
        [json!({"use": "enc"}), json!({"key_ops": ["sign"]}), json!({"kty": "oct", "k": "AA"})]
    {
        let keys = set(&[signer.jwk(extra.clone())]);
        assert_eq!(verify(&keys, &token, &ALL), Err(JwtFault::UnknownKey), "{extra}");
    }
    let good = signer.jwk(json!({"use": "sig", "key_ops": ["verify"]}));
    let odd = [
        json!(1),
        json!({}),
        json!({"kty": "RSA", "n": "AA"}),
        json!({"kty": "EC", "crv": "P-521"}),
        json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}),
        good,
    ];
    assert_eq!(verify(&set(&odd), &token, &ALL), Ok(()));
    // An RSA key that is too small to be safe verifies nothing.
    let small = json!({"kty": "RSA", "n": base64url::encode(&[0xff; 64]), "e": "AQAB"});
    let rsa = Signer::rsa().token(&json!({"alg": "RS256"}), &json!({}));
    assert_eq!(verify(&set(&[small]), &rsa, &ALL), Err(JwtFault::Signature));
    for bad in ["", "[]", "{}", "{\"keys\": {}}", "{\"keys\": 1}"] {
        assert!(JwkSet::parse(bad.as_bytes()).is_err(), "{bad}");
    }
    let many = vec![json!({}); 129];
    assert!(JwkSet::parse(json!({ "keys": many }).to_string().as_bytes()).is_err());
}

#[test]
fn malformed_tokens_are_refused() {
    let signer = Signer::ed();
    let header = json!({"alg": "EdDSA"});
    let good = signer.token(&header, &json!({"a": 1}));
    let keys = set(&[signer.jwk(json!({}))]);
    assert_eq!(verify(&keys, &good, &ALL), Ok(()));
    let parts: Vec<&str> = good.split('.').collect();
    let (head, claims, signature) = (parts[0], parts[1], parts[2]);
    for bad in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        format!("{head}.{claims}"),
        format!("{good}."),
        format!("{good}.x"),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{good}="),
        format!("{head}=.{claims}.{signature}"),
        format!("{head}.{claims}.{}", signature.replace(['-', '_'], "+") + "+"),
        format!("{}.{claims}.{signature}", base64url::encode(b"[]")),
        format!("{}.{claims}.{signature}", base64url::encode(b"{\"alg\": 1}")),
        format!("{}.{claims}.{signature}", base64url::encode(b"{}")),
        format!("{head}.{}.{signature}", base64url::encode(b"\"x\"")),
        format!("{head}.{}.{signature}", base64url::encode(b"{\xff}")),
        format!("{head}.{}.{signature}", base64url::encode("[".repeat(10_000).as_bytes())),
        signer.token(&json!({"alg": "EdDSA", "kid": 1}), &json!({})),
        signer.token(&json!({"alg": "EdDSA", "crit": ["b64"], "b64": false}), &json!({})),
        signer.token(&header, &json!({"a": "x".repeat(16 * 1024)})),
    ] {
        let fault = verify(&keys, &bad, &ALL).unwrap_err();
        assert!(matches!(fault, JwtFault::Malformed(_)), "{bad}: {fault}");
    }
}

#[test]
fn claims_are_checked() {
    let (issuers, audiences) = (["https://i.example/".to_owned()], ["api".to_owned()]);
    let rules =
        ClaimRules { issuers: &issuers, audiences: &audiences, needs_expiry: true, now: 1_000_000 };
    let check = |rules: &ClaimRules<'_>, change: Value| {
        let mut claims = json!({"iss": "https://i.example/", "aud": "api", "exp": 1_000_001});
        for (name, value) in change.as_object().unwrap() {
            match value {
                Value::Null => claims.as_object_mut().unwrap().remove(name),
                value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
            };
        }
        rules.check(claims.as_object().unwrap())
    };
    for good in [
        json!({}),
        json!({"aud": ["x", "api"]}),
        json!({"exp": 1_000_000 - 59}),
        json!({"exp": 1e300}),
        json!({"exp": 1_000_000.5}),
        json!({"nbf": 1_000_060}),
    ] {
        assert_eq!(check(&rules, good.clone()), Ok(()), "{good}");
    }
    for (bad, fault) in [
        (json!({"iss": "https://i.example"}), JwtFault::Issuer),
        (json!({"iss": "HTTPS://i.example/"}), JwtFault::Issuer),
        (json!({"iss": null}), JwtFault::Claim("iss")),
        (json!({"iss": ["https://i.example/"]}), JwtFault::Claim("iss")),
        (json!({"aud": "ap"}), JwtFault::Audience),
        (json!({"aud": []}), JwtFault::Audience),
        (json!({"aud": null}), JwtFault::Claim("aud")),
        (json!({"aud": ["api", 1]}), JwtFault::Claim("aud")),
        (json!({"exp": 1_000_000 - 60}), JwtFault::Expired),
        (json!({"exp": 0}), JwtFault::Expired),
        (json!({"exp": -1}), JwtFault::Claim("exp")),
        (json!({"exp": "1000001"}), JwtFault::Claim("exp")),
        (json!({"exp": null}), JwtFault::Claim("exp")),
        (json!({"nbf": 1_000_061}), JwtFault::NotYet),
        (json!({"nbf": "now"}), JwtFault::Claim("nbf")),
    ] {
        assert_eq!(check(&rules, bad.clone()), Err(fault), "{bad}");
    }
    let lenient = ClaimRules { audiences: &[], needs_expiry: false, ..rules };
    assert_eq!(check(&lenient, json!({"aud": null, "exp": null})), Ok(()));
}
