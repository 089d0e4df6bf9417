//! REST API of `culvert-edge`: certificates, CAs, vaults and secrets. What is secret is never
//! shown, and not readable in the store.

use serde_json::{Value, json};

use crate::support::certs::presented;
use crate::support::edge::Edge;
use crate::support::process::plant_secret;
use crate::support::serve::Serve;

fn id(object: &Value) -> String {
    object["id"].as_str().unwrap_or_else(|| panic!("{object}")).to_owned()
}

/// Returns a certificate and its key as PEM.
fn certificate(name: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "uploaded");
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn a_domain_shows_the_certificate_that_was_uploaded_for_it() {
    let edge = Serve::start("");
    let rest = edge.rest();
    let (pem, key) = certificate("app.other.test");
    let body = json!({"certificate_pem": pem, "private_key_pem": key, "description": "own"});
    let made = rest.create("/tls_certificates", &body);
    assert_eq!(made["subject_common_name"], "uploaded");
    assert_eq!(made["subject_alternative_names"]["dns_names"], json!(["app.other.test"]));
    assert_eq!(
        (&made["private_key_type"], &made["certificate_pem"]),
        (&json!("ecdsa"), &json!(pem))
    );
    assert!(!made.to_string().contains("PRIVATE KEY"), "{made}");
    let domain = rest.create(
        "/reserved_domains",
        &json!({"domain": "app.other.test", "certificate_id": made["id"]}),
    );
    assert_eq!(domain["certificate"]["id"], made["id"]);
    let shows = || {
        let der = presented(edge.address("https_addr"), "app.other.test");
        der.windows(8).any(|w| w == b"uploaded")
    };
    assert!(shows());
    let path = format!("/tls_certificates/{}", id(&made));
    assert_eq!(rest.refused("DELETE", &path, &Value::Null), (400, 223));
    let domain = format!("/reserved_domains/{}", id(&domain));
    rest.remove(&format!("{domain}/certificate"));
    assert!(!shows());
    assert_eq!(rest.get(&domain)["certificate"], Value::Null);
    let unknown = json!({"certificate_id": "cert_000000000000000000000000000"});
    assert_eq!(rest.refused("PATCH", &domain, &unknown), (400, 223));
    rest.remove(&path);
}

#[test]
fn certificates_that_cannot_be_used() {
    let edge = Edge::start();
    let rest = edge.rest();
    let (pem, key) = certificate("a.test");
    let (_, other) = certificate("a.test");
    for body in [
        json!({"certificate_pem": pem}),
        json!({"certificate_pem": "x", "private_key_pem": key}),
        json!({"certificate_pem": pem, "private_key_pem": other}),
        json!({"certificate_pem": pem, "private_key_pem": "x"}),
        json!({"certificate_pem": key, "private_key_pem": key}),
        json!({"certificate_pem": "x".repeat(70_000), "private_key_pem": key}),
    ] {
        let (status, answer) = rest.call("POST", "/tls_certificates", &body);
        assert_eq!((status, &answer["error_code"]), (400, &json!("ERR_NGROK_215")), "{answer}");
        assert!(!answer.to_string().contains("PRIVATE"), "{answer}");
    }
    let refused = rest.refused("POST", "/certificate_authorities", &json!({"ca_pem": pem}));
    assert_eq!(refused, (400, 215), "it is not of a CA");
    let ca = std::fs::read_to_string(edge.dir().join("edge/ca.pem")).unwrap();
    let made = rest.create("/certificate_authorities", &json!({"ca_pem": ca}));
    assert_eq!(made["key_usages"], json!(["cert sign", "crl sign"]));
    assert_eq!(made["subject_common_name"], "culvert-edge local CA");
}

#[test]
fn secrets_are_listed_and_never_shown() {
    let edge = Edge::start();
    let rest = edge.rest();
    let value = "planted-vault-value-0123456789";
    plant_secret(value);
    let vault = rest.create("/vaults", &json!({"name": "prod", "description": "d"}));
    let made = rest.create(
        "/vault_secrets",
        &json!({"name": "token", "value": value, "vault_id": vault["id"]}),
    );
    assert_eq!((&made["vault"]["id"], &made["vault_name"]), (&vault["id"], &json!("prod")));
    assert!(!made.to_string().contains(value));
    let by_name = json!({"name": "other", "value": value, "vault_name": "prod"});
    let other = rest.create("/vault_secrets", &by_name);
    assert_eq!(rest.refused("POST", "/vault_secrets", &by_name), (409, 215));
    let list = rest.get(&format!("/vaults/{}/secrets", id(&vault)));
    assert_eq!(list["secrets"].as_array().unwrap().len(), 2);
    let path = format!("/vault_secrets/{}", id(&made));
    assert_eq!(rest.change(&path, &json!({"value": "planted-other-value"}))["name"], "token");
    let vault = format!("/vaults/{}", id(&vault));
    assert_eq!(rest.refused("DELETE", &vault, &Value::Null), (400, 223));
    rest.remove(&path);
    rest.remove(&format!("/vault_secrets/{}", id(&other)));
    assert_eq!(rest.change(&vault, &json!({"name": "staging"}))["name"], "staging");
    for entry in std::fs::read_dir(edge.dir().join("edge")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(value.len()).any(|w| w == value.as_bytes()));
    }
    rest.remove(&vault);
    for body in [
        json!({"name": "x", "value": "y"}),
        json!({"name": "x", "vault_id": "vault_1", "value": "y"}),
    ] {
        assert_eq!(rest.refused("POST", "/vault_secrets", &body), (400, 223));
    }
    assert_eq!(rest.refused("POST", "/vaults", &json!({})), (400, 215));
}
