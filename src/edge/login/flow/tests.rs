//! Messages of a login, and ID tokens that must not be accepted.

use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;

use super::*;
use crate::edge::login::endpoints::IdentitySource;

fn endpoints() -> LoginEndpoints {
    LoginEndpoints {
        authorization: "https://i.example/auth?tenant=1".into(),
        token: "https://i.example/token".into(),
        userinfo: None,
        basic_auth: true,
        pkce: true,
        identity: IdentitySource::IdToken {
            issuer: "https://i.example".into(),
            jwks: "https://i.example/jwks".into(),
        },
    }
}

#[test]
fn the_url_of_a_login_has_all_parameters_once() {
    let extra = [("hd".to_owned(), "a&b".to_owned()), ("state".to_owned(), "evil".to_owned())];
    let request = AuthorizationRequest {
        client_id: "c d",
        redirect_uri: "https://a.example/ngrok/callback",
        scopes: "openid email",
        state: "s",
        nonce: Some("n"),
        verifier: "v",
        force: true,
        extra: &extra,
    };
    let url = authorization_url(&endpoints(), &request);
    let (start, query) = url.split_once("?tenant=1&").unwrap();
    assert_eq!(start, "https://i.example/auth");
    // SHA-256 of "v".
    let challenge = base64url::encode(digest(&SHA256, b"v").as_ref());
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "c d"),
        ("redirect_uri", "https://a.example/ngrok/callback"),
        ("scope", "openid email"),
        ("state", "s"),
        ("nonce", "n"),
        ("code_challenge", challenge.as_str()),
        ("code_challenge_method", "S256"),
        ("prompt", "login"),
        ("hd", "a&b"),
    ] {
        assert_eq!(parameter(query, name).as_deref(), Some(value), "{name} in {url}");
    }
    let plain = AuthorizationRequest { nonce: None, extra: &[], ..request };
    let oauth = LoginEndpoints { pkce: false, ..endpoints() };
    let url = authorization_url(&oauth, &plain);
    assert!(!url.contains("code_challenge") && !url.contains("nonce") && !url.contains("prompt"));
}

#[test]
fn the_challenge_is_that_of_rfc_7636() {
    let request = AuthorizationRequest {
        client_id: "c",
        redirect_uri: "r",
        scopes: "s",
        state: "t",
        nonce: None,
        verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        force: false,
        extra: &[],
    };
    let url = authorization_url(&endpoints(), &request);
    assert!(url.contains("code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&"), "{url}");
}

#[test]
fn the_secret_of_a_client_is_in_one_place() {
    let secret = Secret::new("s:/");
    let client = LoginClient { id: "c d", secret: &secret };
    let basic = token_request(&endpoints(), client, "code", "r", "v");
    let authorization = base64::encode(b"c%20d:s%3A%2F");
    assert_eq!(basic.authorization, Some(format!("Basic {authorization}")));
    assert!(!basic.body.contains("s%3A%2F") && parameter(&basic.body, "client_id").is_none());
    assert_eq!(parameter(&basic.body, "code_verifier").as_deref(), Some("v"));
    let post = LoginEndpoints { basic_auth: false, ..endpoints() };
    let posted = token_request(&post, client, "code", "r", "v");
    assert_eq!(posted.authorization, None);
    assert_eq!(parameter(&posted.body, "client_secret").as_deref(), Some("s:/"));
    let public = LoginClient { secret: &Secret::default(), ..client };
    let request = token_request(&endpoints(), public, "code", "r", "v");
    assert_eq!(request.authorization, None);
    assert_eq!(parameter(&request.body, "client_id").as_deref(), Some("c d"));
}

#[test]
fn a_parameter_that_appears_twice_is_not_one() {
    assert_eq!(parameter("a=1&b=%20+x", "b").as_deref(), Some("  x"));
    assert_eq!(parameter("a=1&a=2", "a"), None);
    assert_eq!(parameter("%61=1", "a").as_deref(), Some("1"));
    assert_eq!(parameter("a=%ff", "a"), None);
    assert_eq!(parameter("", "a"), None);
    assert_eq!(parameter("a", "a").as_deref(), Some(""));
}

#[test]
fn a_response_without_a_token_is_an_error() {
    let good =
        tokens(200, br#"{"id_token": "i", "access_token": "a", "token_type": "x"}"#).unwrap();
    assert_eq!((good.identity.as_str(), good.access.as_str()), ("i", "a"));
    for (status, body) in [
        (400, r#"{"error": "invalid_grant"}"#),
        (200, r#"{"error": "bad_verification_code"}"#),
        (500, r#"{"access_token": "a"}"#),
        (200, "{}"),
        (200, "access_token=a"),
        (200, ""),
    ] {
        assert!(tokens(status, body.as_bytes()).is_err(), "{status} {body}");
    }
}

#[test]
fn an_id_token_is_for_this_login_alone() {
    let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let key = Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap();
    let x = base64url::encode(key.public_key().as_ref());
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]}).to_string();
    let set = JwkSet::parse(set.as_bytes()).unwrap();
    let rules = IdTokenRules {
        issuer: "https://i.example",
        client_id: "client",
        nonce: "nonce",
        now: 1_000_000,
    };
    let check = |change: Value| {
        let mut claims = json!({"iss": "https://i.example", "aud": "client", "exp": 1_000_300,
            "nonce": "nonce", "sub": "1", "email": "a@a.example"});
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let part = |value: &Value| base64url::encode(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(&json!({"alg": "EdDSA"})), part(&claims));
        let signature = base64url::encode(key.sign(signed.as_bytes()).as_ref());
        let token = format!("{signed}.{signature}");
        check_id_token(&set, &SignedToken::parse(&token).unwrap(), &rules)
    };
    let identity = check(json!({})).unwrap();
    assert_eq!((identity.id.as_str(), identity.email.as_str()), ("1", "a@a.example"));
    assert!(check(json!({"aud": ["client", "x"], "azp": "client"})).is_ok());
    for (bad, fault) in [
        (json!({"nonce": "other"}), JwtFault::Claim("nonce")),
        (json!({"nonce": null}), JwtFault::Claim("nonce")),
        (json!({"iss": "https://evil.example"}), JwtFault::Issuer),
        (json!({"aud": "other"}), JwtFault::Audience),
        (json!({"aud": ["client", "x"]}), JwtFault::Claim("azp")),
        (json!({"azp": "other"}), JwtFault::Claim("azp")),
        (json!({"exp": 999_000}), JwtFault::Expired),
        (json!({"exp": null}), JwtFault::Claim("exp")),
        (json!({"sub": ""}), JwtFault::Claim("sub")),
        (json!({"sub": 7}), JwtFault::Claim("sub")),
        (json!({"sub": "x".repeat(256)}), JwtFault::Claim("sub")),
    ] {
        assert_eq!(check(bad.clone()), Err(fault), "{bad}");
    }
}

#[test]
fn allowed_accounts_are_compared_by_the_verified_address() {
    let of = |email: &str| LoginIdentity { id: "1".into(), email: email.into(), name: "".into() };
    let domains = ["a.example".to_owned(), "@B.example".to_owned()];
    let emails = ["x@c.example".to_owned()];
    for good in ["me@a.example", "me@A.Example", "me@b.example", "X@c.example"] {
        assert!(is_allowed(&of(good), &domains, &emails), "{good}");
    }
    for bad in ["", "a.example", "me@x.a.example", "me@a.example.evil", "y@c.example", "@c.example"]
    {
        assert!(!is_allowed(&of(bad), &domains, &emails), "{bad}");
    }
    assert!(is_allowed(&of(""), &[], &[]));
}
