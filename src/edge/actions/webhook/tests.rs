//! Signatures of all providers, and examples of their documentation. The deliveries are
//! written out here, so that a wrong row in the table fails.

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

use super::super::action::tests::with_body;
use super::*;
use crate::edge::token::hex;

const SECRET: &str = "it's a secret";
const BODY: &str = "{\"event\":\"push\"}";
const FORM: &str = "To=%2B1800&From=a+b";
const NOW: u64 = 1_700_000_000;
const MILLISECONDS: &str = "1700000000000";
const RFC3339: &str = "2023-11-14T22:13:20Z";

/// Text form and hash function of a MAC in [`DELIVERIES`].
#[derive(Clone, Copy)]
enum Form {
    Hex1,
    Hex256,
    Hex512,
    Base1,
    Base256,
}
use Form::{Base1, Base256, Hex1, Hex256, Hex512};

impl Form {
    fn sign(self, key: &[u8], text: &str) -> String {
        let algorithm = match self {
            Hex1 | Base1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Hex256 | Base256 => hmac::HMAC_SHA256,
            Hex512 => hmac::HMAC_SHA512,
        };
        let tag = hmac::sign(&hmac::Key::new(algorithm, key), text.as_bytes());
        match self {
            Hex1 | Hex256 | Hex512 => hex(tag.as_ref()),
            Base1 | Base256 => base64::encode(tag.as_ref()),
        }
    }
}

/// Provider, header lines, form of the MAC, and the signed text. `{mac}` stands for the MAC,
/// `{body}`, `{time}`, `{ms}` and `{iso}` for the body and the time.
const DELIVERIES: &[(&str, &str, Form, &str)] = &[
    ("aftership", "aftership-hmac-sha256: {mac}", Base256, "{body}"),
    ("airship", "X-UA-TIMESTAMP: {time}|X-UA-SIGNATURE: {mac}", Hex256, "{time}:{body}"),
    ("alchemy", "X-Alchemy-Signature: {mac}", Hex256, "{body}"),
    ("autodesk", "x-adsk-signature: sha1hash={mac}", Hex1, "{body}"),
    ("bitbucket", "X-Hub-Signature: sha256={mac}", Hex256, "{body}"),
    ("bolt", "X-Bolt-Hmac-Sha256: {mac}", Base256, "{body}"),
    ("box", "BOX-DELIVERY-TIMESTAMP: {iso}|BOX-SIGNATURE-PRIMARY: {mac}", Base256, "{body}{iso}"),
    ("box", "BOX-DELIVERY-TIMESTAMP: {iso}|BOX-SIGNATURE-SECONDARY: {mac}", Base256, "{body}{iso}"),
    (
        "brex",
        "webhook-id: m1|webhook-timestamp: {time}|webhook-signature: v1,AAAA v1,{mac}",
        Base256,
        "m1.{time}.{body}",
    ),
    ("calendly", "Calendly-Webhook-Signature: t={time},v1={mac}", Hex256, "{time}.{body}"),
    ("castle", "X-Castle-Signature: {mac}", Base256, "{body}"),
    ("chargify", "X-Chargify-Webhook-Signature-Hmac-Sha-256: {mac}", Hex256, "{body}"),
    ("circleci", "circleci-signature: v1=00,v1={mac}", Hex256, "{body}"),
    ("clearbit", "X-Request-Signature: sha1={mac}", Hex1, "{body}"),
    (
        "clerk",
        "svix-id: m1|svix-timestamp: {time}|svix-signature: v1,{mac}",
        Base256,
        "m1.{time}.{body}",
    ),
    ("coinbase", "X-CC-Webhook-Signature: {mac}", Hex256, "{body}"),
    (
        "contentful",
        "x-contentful-timestamp: {ms}|x-contentful-signed-headers: x-contentful-timestamp,\
         x-contentful-signed-headers,x-contentful-topic|x-contentful-topic: publish|\
         x-contentful-signature: {mac}",
        Hex256,
        "POST\n/hook?x%253D1\nx-contentful-signed-headers:x-contentful-timestamp,\
         x-contentful-signed-headers,x-contentful-topic;x-contentful-timestamp:{ms};\
         x-contentful-topic:publish\n{body}",
    ),
    ("docusign", "X-DocuSign-Signature-1: {mac}", Base256, "{body}"),
    ("dropbox", "X-Dropbox-Signature: {mac}", Hex256, "{body}"),
    ("facebook_graph_api", "X-Hub-Signature-256: sha256={mac}", Hex256, "{body}"),
    ("facebook_messenger", "X-Hub-Signature-256: sha256={mac}", Hex256, "{body}"),
    (
        "frameio",
        "X-Frameio-Request-Timestamp: {time}|X-Frameio-Signature: v0={mac}",
        Hex256,
        "v0:{time}:{body}",
    ),
    ("github", "X-Hub-Signature-256: sha256={mac}", Hex256, "{body}"),
    ("go1", "Go1-Signature: t={time},v1={mac}", Hex256, "{time}.{body}"),
    (
        "graphcms",
        "gcms-signature: sign={mac}, env=master, t={ms}",
        Base256,
        r#"{"Body":"{\"event\":\"push\"}","EnvironmentName":"master","TimeStamp":{ms}}"#,
    ),
    ("heroku", "Heroku-Webhook-Hmac-SHA256: {mac}", Base256, "{body}"),
    ("hostedhooks", "HostedHooks-Signature: t={time},s={mac}", Hex256, "{time}.{body}"),
    (
        "hubspot",
        "X-HubSpot-Request-Timestamp: {ms}|X-HubSpot-Signature-v3: {mac}",
        Base256,
        "POSThttp://hook.example/hook?x=1{body}{ms}",
    ),
    ("instagram", "X-Hub-Signature-256: sha256={mac}", Hex256, "{body}"),
    ("intercom", "X-Hub-Signature: sha1={mac}", Hex1, "{body}"),
    ("jira", "X-Hub-Signature: sha256={mac}", Hex256, "{body}"),
    ("launch_darkly", "X-LD-Signature: {mac}", Hex256, "{body}"),
    ("linear", "Linear-Signature: {mac}", Hex256, "{body}"),
    (
        "mailchimp",
        "Content-Type: application/x-www-form-urlencoded|X-Mandrill-Signature: {mac}",
        Base1,
        "http://hook.example/hook?x=1Froma bTo+1800",
    ),
    ("modern_treasury", "X-Signature: {mac}", Hex256, "{body}"),
    ("mongodb", "X-MMS-Signature: {mac}", Base1, "{body}"),
    ("mux", "Mux-Signature: t={time},v1={mac}", Hex256, "{time}.{body}"),
    ("orb", "X-Orb-Timestamp: {iso}|X-Orb-Signature: v1={mac}", Hex256, "v1:{iso}:{body}"),
    ("pagerduty", "X-PagerDuty-Signature: v1={mac}", Hex256, "{body}"),
    ("pinwheel", "X-Timestamp: {time}|X-Pinwheel-Signature: v2={mac}", Hex256, "v2:{time}:{body}"),
    (
        "plivo",
        "X-Plivo-Signature-V2-Nonce: n1|X-Plivo-Signature-V2: {mac}",
        Base256,
        "http://hook.example/hookn1",
    ),
    (
        "plivo",
        "Content-Type: application/x-www-form-urlencoded|X-Plivo-Signature-V3-Nonce: n1|\
         X-Plivo-Signature-V3: AAAA,{mac}",
        Base256,
        "http://hook.example/hook?x=1.Froma bTo+1800.n1",
    ),
    ("pusher", "X-Pusher-Signature: {mac}", Hex256, "{body}"),
    ("sentry", "Sentry-Hook-Signature: {mac}", Hex256, "{body}"),
    ("shopify", "X-Shopify-Hmac-Sha256: {mac}", Base256, "{body}"),
    (
        "slack",
        "X-Slack-Request-Timestamp: {time}|X-Slack-Signature: v0={mac}",
        Hex256,
        "v0:{time}:{body}",
    ),
    ("sonatype", "X-Nexus-Webhook-Signature: {mac}", Hex1, "{body}"),
    (
        "square",
        "x-square-hmacsha256-signature: {mac}",
        Base256,
        "http://hook.example/hook?x=1{body}",
    ),
    ("stripe", "Stripe-Signature: t={time},v1=00,v1={mac},v0={mac}", Hex256, "{time}.{body}"),
    (
        "svix",
        "svix-id: m1|svix-timestamp: {time}|svix-signature: v1,{mac}",
        Base256,
        "m1.{time}.{body}",
    ),
    ("terraform", "X-TFE-Notification-Signature: {mac}", Hex512, "{body}"),
    ("tiktok", "TikTok-Signature: t={time},s={mac}", Hex256, "{time}.{body}"),
    ("trendmicro_conformity", "X-Conformity-Signature: {mac}", Hex256, "{body}"),
    (
        "twilio",
        "Content-Type: application/x-www-form-urlencoded|X-Twilio-Signature: {mac}",
        Base1,
        "http://hook.example/hook?x=1Froma bTo+1800",
    ),
    ("twitter", "X-Twitter-Webhooks-Signature: sha256={mac}", Base256, "{body}"),
    ("typeform", "Typeform-Signature: sha256={mac}", Base256, "{body}"),
    ("webex", "X-Spark-Signature: {mac}", Hex1, "{body}"),
    ("whatsapp", "X-Hub-Signature-256: sha256={mac}", Hex256, "{body}"),
    ("worldline", "X-GCS-Signature: {mac}", Base256, "{body}"),
    ("xero", "x-xero-signature: {mac}", Base256, "{body}"),
    (
        "zendesk",
        "X-Zendesk-Webhook-Signature-Timestamp: {iso}|X-Zendesk-Webhook-Signature: {mac}",
        Base256,
        "{iso}{body}",
    ),
    ("zoom", "x-zm-request-timestamp: {time}|x-zm-signature: v0={mac}", Hex256, "v0:{time}:{body}"),
    // The secret of these is base64 of the key.
    ("microsoft_teams", "Authorization: HMAC {mac}", Base256, "{body}"),
];

/// Secrets in another form than the key.
const SECRETS: &[(&str, &str)] = &[
    ("brex", "whsec_aXQncyBhIHNlY3JldA=="),
    ("clerk", "whsec_aXQncyBhIHNlY3JldA=="),
    ("svix", "aXQncyBhIHNlY3JldA=="),
    ("microsoft_teams", "aXQncyBhIHNlY3JldA=="),
];

fn secret(provider: &str) -> &'static str {
    SECRETS.iter().find(|(name, _)| *name == provider).map_or(SECRET, |(_, secret)| secret)
}

fn action(provider: &str, secret: &str) -> WebhookVerification {
    WebhookVerification::new(providers::find(provider).unwrap(), secret).unwrap()
}

/// Runs an action on a request, whose header lines are separated by `|`.
fn run_at(action: &WebhookVerification, line: &str, lines: &str, body: &str, now: u64) -> Flow {
    let lines: String = lines.split_terminator('|').map(|line| format!("{line}\r\n")).collect();
    let head = format!("{line} HTTP/1.1\r\nHost: hook.example\r\n{lines}\r\n");
    with_body(&head, body.as_bytes(), |r| {
        let request = RequestInfo { unix_seconds: now, ..*r };
        action.run(&request, &mut HeaderEdits::default())
    })
    .unwrap()
}

fn passes_at(provider: &str, secret: &str, lines: &str, body: &str, now: u64) -> bool {
    match run_at(&action(provider, secret), "POST /hook?x=1", lines, body, now) {
        Flow::Continue => true,
        Flow::Respond(reply) => {
            let status = if provider == "xero" { 401 } else { 403 };
            assert_eq!((reply.status, reply.code), (status, 3204), "{provider}");
            assert!(!reply.text.contains(secret));
            false
        }
    }
}

fn passes(provider: &str, secret: &str, lines: &str, body: &str) -> bool {
    passes_at(provider, secret, lines, body, NOW)
}

fn fill(text: &str) -> String {
    text.replace("{body}", BODY)
        .replace("{time}", &NOW.to_string())
        .replace("{ms}", MILLISECONDS)
        .replace("{iso}", RFC3339)
}

#[test]
fn every_provider_accepts_its_signature_and_no_other() {
    for (provider, lines, form, signed) in DELIVERIES {
        let secret = secret(provider);
        let mac = form.sign(SECRET.as_bytes(), &fill(signed));
        let lines = format!("{}|", fill(lines).replace("{mac}", &mac));
        let is_form = lines.contains("form-urlencoded");
        let body = if is_form { FORM } else { BODY };
        assert!(passes(provider, secret, &lines, body), "{provider}: {lines}");
        assert!(!passes(provider, "YW5vdGhlcg==", &lines, body), "{provider}: another secret");
        assert!(!passes(provider, secret, "", body), "{provider}: no signature");
        if signed.contains("{body}") || is_form {
            let other = if is_form { "To=2" } else { "{}" };
            assert!(!passes(provider, secret, &lines, other), "{provider}: another body");
        }
        let doubled = lines.repeat(2);
        assert!(!passes(provider, secret, &doubled, body), "{provider}: two signatures");
        // A signed time must be recent.
        let has_time = ["{time}", "{ms}", "{iso}"].iter().any(|time| signed.contains(time));
        assert_eq!(
            passes_at(provider, secret, &lines, body, NOW + 301),
            !has_time,
            "{provider}: five minutes later"
        );
    }
}

#[test]
fn every_provider_of_the_table_has_a_delivery_here() {
    const OTHERS: [&str; 5] = ["buildkite", "gitlab", "mailgun", "sendgrid", "vmware"];
    for provider in providers::PROVIDERS {
        let listed = DELIVERIES.iter().any(|(name, ..)| *name == provider.name);
        assert!(listed || OTHERS.contains(&provider.name), "{}", provider.name);
    }
}

#[test]
fn tokens_and_basic_auth_are_compared_with_the_secret() {
    for (provider, secret, line) in [
        ("buildkite", "it's a secret", "X-Buildkite-Token: it's a secret|"),
        ("gitlab", "it's a secret", "X-Gitlab-Token: it's a secret|"),
        ("vmware", "u::pass:word", "Authorization: Basic dTpwYXNzOndvcmQ=|"),
        ("vmware_workspace", "u::pass:word", "Authorization: Basic dTpwYXNzOndvcmQ=|"),
    ] {
        assert!(passes(provider, secret, line, BODY), "{provider}");
        let other = if secret.contains("::") { "u::pass" } else { "it's" };
        assert!(!passes(provider, other, line, BODY), "{provider}: another secret");
        assert!(!passes(provider, secret, "", BODY), "{provider}: no token");
        assert!(!passes(provider, secret, &line.repeat(2), BODY), "{provider}: two tokens");
    }
}

#[test]
fn mailgun_signs_fields_of_the_body() {
    let mac = Hex256.sign(SECRET.as_bytes(), &format!("{NOW}token"));
    let body =
        format!(r#"{{"signature":{{"timestamp":"{NOW}","token":"token","signature":"{mac}"}}}}"#);
    assert!(passes("mailgun", SECRET, "", &body));
    assert!(!passes("mailgun", "another", "", &body));
    assert!(!passes("mailgun", SECRET, "", &body.replace("token\",", "other\",")));
    assert!(!passes("mailgun", SECRET, "", BODY));
    assert!(!passes_at("mailgun", SECRET, "", &body, NOW + 301));
}

#[test]
fn sendgrid_signs_with_a_private_key() {
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
    // The head of the key in the example of SendGrid's documentation.
    let head = base64::decode("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE").unwrap();
    let der = [&head[..26], pair.public_key().as_ref()].concat();
    let secret = base64::encode(&der);
    let signature = pair.sign(&random, format!("{NOW}{BODY}").as_bytes()).unwrap();
    let lines = format!(
        "X-Twilio-Email-Event-Webhook-Signature: {}|X-Twilio-Email-Event-Webhook-Timestamp: {NOW}|",
        base64::encode(signature.as_ref())
    );
    assert!(passes("sendgrid", &secret, &lines, BODY));
    assert!(!passes("sendgrid", &secret, &lines, "{}"));
    assert!(!passes("sendgrid", &secret, "", BODY));
    assert!(!passes_at("sendgrid", &secret, &lines, BODY, NOW + 301));
    for bad in ["a secret", "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE", ""] {
        let provider = providers::find("sendgrid").unwrap();
        assert!(WebhookVerification::new(provider, bad).is_err(), "{bad}");
    }
}

#[test]
fn the_example_of_githubs_documentation() {
    // https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
    let line = "X-Hub-Signature-256: sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17|";
    let secret = "It's a Secret to Everybody";
    assert!(passes("github", secret, line, "Hello, World!"));
    assert!(!passes("github", secret, line, "Hello, World?"));
    assert!(!passes("github", secret, &line.replace("sha256=", ""), "Hello, World!"));
}

#[test]
fn the_example_of_svixs_documentation() {
    // https://docs.svix.com/receiving/verifying-payloads/how-manual
    let lines = "svix-id: msg_p5jXN8AQM9LWM0D4loKWxJek|svix-timestamp: 1614265330|\
                 svix-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=|";
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    assert!(passes_at("svix", secret, lines, "{\"test\": 2432232314}", 1_614_265_330));
}

#[test]
fn the_challenge_of_zoom_is_answered_if_it_is_signed() {
    let body = r#"{"payload":{"plainToken":"abc"},"event":"endpoint.url_validation"}"#;
    let mac = Hex256.sign(SECRET.as_bytes(), &format!("v0:{NOW}:{body}"));
    let lines = format!("x-zm-request-timestamp: {NOW}|x-zm-signature: v0={mac}|");
    let answer = content(run_at(&action("zoom", SECRET), "POST /hook", &lines, body, NOW));
    let encrypted = Hex256.sign(SECRET.as_bytes(), "abc");
    assert_eq!(answer, format!(r#"{{"plainToken":"abc","encryptedToken":"{encrypted}"}}"#));
    assert!(!passes("zoom", SECRET, "", body));
}

#[test]
fn the_challenge_of_twitter_signs_no_text_of_a_stranger() {
    let twitter = action("twitter", SECRET);
    let query = "crc_token=abc&nonce=1";
    let line = format!("GET /hook?{query}");
    let lines =
        format!("X-Twitter-Webhooks-Signature: sha256={}|", Base256.sign(SECRET.as_bytes(), query));
    let answer = content(run_at(&twitter, &line, &lines, "", NOW));
    let token = Base256.sign(SECRET.as_bytes(), "abc");
    assert_eq!(answer, format!(r#"{{"response_token":"sha256={token}"}}"#));
    for (line, lines) in [(&*line, ""), ("GET /hook?crc_token=abd&nonce=1", &*lines)] {
        let Flow::Respond(reply) = run_at(&twitter, line, lines, "", NOW) else { panic!() };
        assert_eq!((reply.status, reply.content), (403, None), "{line} {lines}");
    }
}

#[test]
fn the_challenges_of_worldline_and_xero_are_answered() {
    let lines = "X-GCS-Webhooks-Endpoint-Verification: abc-123|";
    let worldline = action("worldline", SECRET);
    assert_eq!(content(run_at(&worldline, "GET /hook", lines, "", NOW)), "abc-123");
    assert!(!passes("worldline", SECRET, lines, BODY), "a webhook needs its signature");
    let body = r#"{"events":[],"entropy":"x"}"#;
    let lines = format!("x-xero-signature: {}|", Base256.sign(SECRET.as_bytes(), body));
    assert_eq!(content(run_at(&action("xero", SECRET), "POST /hook", &lines, body, NOW)), "");
    assert!(!passes("xero", "another", &lines, body));
}

/// Returns the body of an answer that is not a refusal.
fn content(flow: Flow) -> String {
    let Flow::Respond(reply) = flow else { panic!("passed on") };
    assert_eq!((reply.status, reply.code), (200, 0));
    reply.content.unwrap().body
}

#[test]
fn a_header_with_many_signatures_is_bounded() {
    let mac = Hex256.sign(SECRET.as_bytes(), BODY);
    let many = format!("X-LD-Signature: {}{mac}|", "00,".repeat(16));
    assert!(!passes("launch_darkly", SECRET, &many, BODY));
    let long = format!("X-LD-Signature: {mac}{}|", " ".repeat(5000) + ",0");
    assert!(!passes("launch_darkly", SECRET, &long, BODY));
}

#[test]
fn the_names_are_those_of_ngrok() {
    let mut names: Vec<&str> = providers::PROVIDERS.iter().map(|p| p.name).collect();
    names.extend(providers::UNSUPPORTED.iter().map(|(name, _)| name));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 69);
}

#[test]
fn a_secret_in_the_wrong_form_is_refused() {
    for (name, secret) in [("svix", "whsec_!"), ("microsoft_teams", "!"), ("vmware", "u:p")] {
        assert!(WebhookVerification::new(providers::find(name).unwrap(), secret).is_err());
    }
}
