//! Signatures of all providers, and examples of their documentation.

use super::super::action::tests::with_body;
use super::*;
use crate::edge::token::hex;

const SECRET: &str = "it's a secret";
const BODY: &[u8] = b"{\"event\":\"push\"}";
const NOW: u64 = 1_700_000_000;

fn passes(provider: &str, secret: &str, lines: &str, body: &[u8]) -> bool {
    let action = WebhookVerification::new(providers::find(provider).unwrap(), secret).unwrap();
    let head = format!("POST /hook?x=1 HTTP/1.1\r\nHost: hook.example\r\n{lines}\r\n");
    let flow = with_body(&head, body, |r| action.run(r, &mut HeaderEdits::default())).unwrap();
    match flow {
        Flow::Continue => true,
        Flow::Respond(reply) => {
            assert_eq!((reply.status, reply.code), (403, 3204));
            assert!(!reply.text.contains(secret));
            false
        }
    }
}

fn tag(provider: &str, secret: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let algorithm = providers::find(provider).unwrap().scheme.algorithm();
    hmac::sign(&hmac::Key::new(algorithm, secret), &parts.concat()).as_ref().to_vec()
}

#[test]
fn the_example_of_githubs_documentation() {
    // https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
    let line = "X-Hub-Signature-256: sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17\r\n";
    assert!(passes("github", "It's a Secret to Everybody", line, b"Hello, World!"));
    assert!(!passes("github", "It's a Secret to Everybody", line, b"Hello, World?"));
    assert!(!passes("github", "It's another", line, b"Hello, World!"));
    assert!(!passes(
        "github",
        "It's a Secret to Everybody",
        &line.replace("sha256=", ""),
        b"Hello, World!"
    ));
    assert!(!passes("github", "It's a Secret to Everybody", "", b"Hello, World!"));
    assert!(!passes("github", "It's a Secret to Everybody", &line.repeat(2), b"Hello, World!"));
}

#[test]
fn the_example_of_twilios_documentation() {
    // https://www.twilio.com/docs/usage/security: the URL there is https.
    let body = b"CallSid=CA1234567890ABCDE&Caller=%2B14158675310&Digits=1234&From=%2B14158675310&To=%2B18005551212";
    let signed = [
        &b"http://hook.example/hook?x=1"[..],
        b"CallSidCA1234567890ABCDECaller+14158675310Digits1234From+14158675310To+18005551212",
    ];
    let signature = base64::encode(&tag("twilio", b"12345", &signed));
    let line = format!(
        "Content-Type: application/x-www-form-urlencoded\r\nX-Twilio-Signature: {signature}\r\n"
    );
    assert!(passes("twilio", "12345", &line, body));
    assert!(!passes("twilio", "12345", &line, b"CallSid=other"));
}

#[test]
fn every_provider_accepts_its_signature_and_no_other() {
    for provider in providers::PROVIDERS {
        check_provider(provider);
    }
}

/// A delivery of a provider: header lines and body.
fn delivery(provider: &Provider, key: &[u8]) -> (String, Vec<u8>) {
    let time = NOW.to_string();
    let sign = |parts: &[&[u8]]| tag(provider.name, key, parts);
    match &provider.scheme {
        Scheme::Body { header, prefix, encoding, .. } => {
            let mac = sign(&[BODY]);
            let text = match encoding {
                Encoding::Hex => hex(&mac),
                Encoding::Base64 => base64::encode(&mac),
            };
            (format!("{header}: {prefix}{text}\r\n"), BODY.to_vec())
        }
        Scheme::TimeAndBody { header, time: t, signature } => {
            let mac = hex(&sign(&[time.as_bytes(), b".", BODY]));
            (format!("{header}: {t}={time},{signature}=00,{signature}={mac}\r\n"), BODY.to_vec())
        }
        Scheme::VersionTimeBody { header, time: t, version } => {
            let mac = hex(&sign(&[version.as_bytes(), b":", time.as_bytes(), b":", BODY]));
            (format!("{header}: {version}={mac}\r\n{t}: {time}\r\n"), BODY.to_vec())
        }
        Scheme::Svix { prefix } => {
            let mac = base64::encode(&sign(&[b"msg_1.", time.as_bytes(), b".", BODY]));
            let lines = format!(
                "{prefix}-id: msg_1\r\n{prefix}-timestamp: {time}\r\n\
                     {prefix}-signature: v1,AAAA v1,{mac}\r\n"
            );
            (lines, BODY.to_vec())
        }
        Scheme::TimeThenBody { header, time: t } => {
            let mac = base64::encode(&sign(&[time.as_bytes(), BODY]));
            (format!("{header}: {mac}\r\n{t}: {time}\r\n"), BODY.to_vec())
        }
        Scheme::Token { header } => (format!("{header}: {SECRET}\r\n"), BODY.to_vec()),
        Scheme::UrlAndForm { header } => {
            let mac = base64::encode(&sign(&[b"http://hook.example/hook?x=1"]));
            (format!("{header}: {mac}\r\n"), BODY.to_vec())
        }
        Scheme::JsonFields => {
            let mac = hex(&sign(&[time.as_bytes(), b"token"]));
            let body = format!(
                "{{\"signature\":{{\"timestamp\":\"{time}\",\"token\":\"token\",\
                     \"signature\":\"{mac}\"}}}}"
            );
            (String::new(), body.into_bytes())
        }
    }
}

fn check_provider(provider: &Provider) {
    let time = NOW.to_string();
    {
        let name = provider.name;
        let (secret, key) = match provider.scheme {
            Scheme::Svix { .. } => ("whsec_c2VjcmV0", b"secret".to_vec()),
            _ => (SECRET, SECRET.as_bytes().to_vec()),
        };
        let (lines, body) = delivery(provider, &key);
        assert!(passes(name, secret, &lines, &body), "{name}");
        let other = if secret == SECRET { "another" } else { "whsec_b3RoZXI=" };
        assert!(!passes(name, other, &lines, &body), "{name}: another secret");
        assert!(!passes(name, secret, "", b""), "{name}: no signature");
        if !matches!(
            provider.scheme,
            Scheme::Token { .. } | Scheme::UrlAndForm { .. } | Scheme::JsonFields
        ) {
            assert!(!passes(name, secret, &lines, b"{}"), "{name}: another body");
        }
        let old = lines.replace(&time, &(NOW - 301).to_string());
        if old != lines {
            assert!(!passes(name, secret, &old, &body), "{name}: old");
        }
    }
}

#[test]
fn an_old_signature_is_refused_although_it_is_valid() {
    let time = (NOW - 301).to_string();
    let mac = hex(&tag("stripe", SECRET.as_bytes(), &[time.as_bytes(), b".", BODY]));
    assert!(!passes("stripe", SECRET, &format!("Stripe-Signature: t={time},v1={mac}\r\n"), BODY));
}

#[test]
fn the_names_are_those_of_ngrok() {
    let mut names: Vec<&str> = providers::PROVIDERS.iter().map(|p| p.name).collect();
    names.extend(providers::UNSUPPORTED);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 69);
}

#[test]
fn a_secret_that_is_not_base64_is_refused() {
    assert!(WebhookVerification::new(providers::find("svix").unwrap(), "whsec_!").is_err());
}
