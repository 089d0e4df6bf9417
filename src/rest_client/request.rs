//! Requests of actions: path, query and JSON body, from arguments and flags.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::actions::{ApiAction, ApiFlag, FlagKind, FlagPlace};
use crate::http1::text::percent_encoded;
use crate::net::http_client::Method;

/// A request without the address of the API.
#[derive(Debug, PartialEq, Eq)]
pub struct ApiRequest {
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// A JSON object, if the method has a body.
    pub body: Option<String>,
}

/// A flag with its value on the command line.
#[derive(Clone, Debug)]
pub struct GivenApiFlag {
    /// The flag.
    pub flag: ApiFlag,
    /// Its value.
    pub value: String,
}

impl GivenApiFlag {
    /// Returns the name of the field in JSON. Dots separate the names of nested objects.
    pub fn field(&self) -> String {
        let name = self.flag.name.as_str();
        let name = match self.flag.kind {
            FlagKind::File => name.strip_suffix("-file"),
            FlagKind::Url => name.strip_suffix("-url"),
            _ => None,
        }
        .unwrap_or(name);
        name.replace('-', "_")
    }
}

/// Returns the request of an action. The values of files and URLs are their texts. The error
/// names the flag and not its value.
pub fn build(
    action: &ApiAction,
    arguments: &[String],
    flags: &[GivenApiFlag],
) -> Result<ApiRequest, String> {
    let mut target = path(action, arguments, flags)?;
    let mut fields = Map::new();
    for given in flags.iter().filter(|given| given.flag.place != FlagPlace::Path) {
        insert(&mut fields, &given.field(), given)?;
    }
    let body = match action.method {
        Method::Get => {
            append_query(&mut target, &fields);
            None
        }
        Method::Delete | Method::Options => None,
        Method::Post | Method::Put | Method::Patch => Some(Value::Object(fields).to_string()),
    };
    Ok(ApiRequest { method: action.method, target, body })
}

/// Returns the path with its parameters, from flags or from arguments in their order.
fn path(
    action: &ApiAction,
    arguments: &[String],
    flags: &[GivenApiFlag],
) -> Result<String, String> {
    let mut arguments = arguments.iter();
    let mut path = action.path.clone();
    for name in action.parameters() {
        let of_path = |given: &&GivenApiFlag| {
            given.flag.place == FlagPlace::Path && given.flag.name == name.replace('_', "-")
        };
        let value = match flags.iter().rev().find(of_path) {
            Some(given) => Some(&given.value),
            None => arguments.next(),
        };
        let value = value.filter(|value| !value.is_empty());
        let value = value.ok_or_else(|| format!("{} is missing", name.replace('_', "-")))?;
        path = path.replace(&format!("{{{name}}}"), &percent_encoded(value.as_bytes()));
    }
    Ok(path)
}

fn append_query(target: &mut String, fields: &Map<String, Value>) {
    for (n, (name, value)) in fields.iter().enumerate() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        // Writing to a String cannot fail.
        let _ = write!(
            target,
            "{}{name}={}",
            if n == 0 { '?' } else { '&' },
            percent_encoded(text.as_bytes())
        );
    }
}

/// Sets a field, or adds to it if it is a list or a map.
fn insert(fields: &mut Map<String, Value>, name: &str, given: &GivenApiFlag) -> Result<(), String> {
    if let Some((outer, name)) = name.split_once('.') {
        let inner = fields.entry(outer).or_insert_with(|| Value::Object(Map::new()));
        return match inner.as_object_mut() {
            Some(inner) => insert(inner, name, given),
            None => Ok(()),
        };
    }
    let value = given.value.as_str();
    let slot = fields.entry(name).or_insert(Value::Null);
    let wrong = |what: &str| format!("--{} must be {what}", given.flag.name);
    *slot = match given.flag.kind {
        FlagKind::Text | FlagKind::File | FlagKind::Url => value.into(),
        FlagKind::Switch => (value == "true").into(),
        FlagKind::Integer => {
            value.parse::<i64>().map_err(|_| wrong("an integer, as in 10"))?.into()
        }
        FlagKind::Number => {
            let number = value.parse::<f64>().ok().filter(|number| number.is_finite());
            number.ok_or_else(|| wrong("a number, as in 0.5"))?.into()
        }
        FlagKind::Json => serde_json::from_slice(value.as_bytes())
            .map_err(|error| wrong(&format!("JSON: {error}")))?,
        FlagKind::List => {
            let mut list = slot.as_array_mut().map(std::mem::take).unwrap_or_default();
            let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
            list.extend(parts.map(Value::from));
            list.into()
        }
        FlagKind::Map | FlagKind::IntegerMap => {
            let mut map = slot.as_object_mut().map(std::mem::take).unwrap_or_default();
            // ngrok's own help writes the second form.
            let pair = value.split_once('=').or_else(|| value.split_once("->"));
            if let Some((key, text)) = pair {
                let number = text.parse::<i64>();
                let entry = match (given.flag.kind, number) {
                    (FlagKind::Map, _) => text.into(),
                    (_, Ok(number)) => number.into(),
                    (_, Err(_)) => return Err(wrong("KEY=N, with an integer")),
                };
                map.insert(key.to_owned(), entry);
            } else if !value.is_empty() {
                return Err(wrong("KEY=VALUE"));
            }
            map.into()
        }
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::actions::{self, resource};
    use super::*;

    /// Returns method, target and body of a line: resource, action, arguments, `NAME=VALUE`
    /// flags after `--`.
    fn built(resource_name: &str, line: &str) -> Result<String, String> {
        let mut words = line.split(' ');
        let resource = resource(resource_name).expect("a resource");
        let action = resource.action(words.next().unwrap()).expect("an action");
        let (mut arguments, mut flags) = (Vec::new(), Vec::new());
        for word in words {
            match word.strip_prefix("--") {
                None => arguments.push(word.to_owned()),
                Some(word) => {
                    let (name, value) = word.split_once('=').unwrap();
                    let flag = action.flag(name).expect("a flag").clone();
                    flags.push(GivenApiFlag { flag, value: value.to_owned() });
                }
            }
        }
        let request = build(&action, &arguments, &flags)?;
        let body = request.body.map(|body| format!(" {body}")).unwrap_or_default();
        Ok(format!("{:?} {}{body}", request.method, request.target))
    }

    #[test]
    fn flags_become_fields_queries_and_paths() {
        for (resource, line, expected) in [
            ("endpoints", "list", "Get /endpoints"),
            (
                "endpoints",
                "list --limit=5 --before-id=ep_1 --filter=obj.id=='x'",
                "Get /endpoints?limit=5&before_id=ep_1&filter=obj.id%3D%3D%27x%27",
            ),
            ("endpoints", "get a/b?c", "Get /endpoints/a%2Fb%3Fc"),
            ("endpoints", "delete ep_1", "Delete /endpoints/ep_1"),
            ("tunnel-sessions", "stop ts_1", "Post /tunnel_sessions/ts_1/stop {}"),
            (
                "credentials",
                "create --acl=bind:a,bind:b --acl=bind:c --description=x",
                r#"Post /credentials {"acl":["bind:a","bind:b","bind:c"],"description":"x"}"#,
            ),
            ("credentials", "update cr_1 --acl=", r#"Patch /credentials/cr_1 {"acl":[]}"#),
            (
                "edge-modules https-edge-route-circuit-breaker",
                "replace e r --module.enabled=true --module.error-threshold-percentage=0.5 \
                 --module.num-buckets=10",
                r#"Put /edges/https/e/routes/r/circuit_breaker {"module":{"enabled":true,"error_threshold_percentage":0.5,"num_buckets":10}}"#,
            ),
            (
                "edges https-routes",
                "create e --oauth.provider.github.teams=a,b --oauth.enabled=false --match=/",
                r#"Post /edges/https/e/routes {"oauth":{"provider":{"github":{"teams":["a","b"]}},"enabled":false},"match":"/"}"#,
            ),
            (
                "backends weighted",
                "create --backends=bkd_1=3 --backends=bkd_2->1",
                r#"Post /backends/weighted {"backends":{"bkd_1":3,"bkd_2":1}}"#,
            ),
            (
                "event-sources",
                "get --subscription-id=es_1 --type=ip_policy_created.v0",
                "Get /event_subscriptions/es_1/sources/ip_policy_created.v0",
            ),
            (
                "event-sources",
                "create --subscription-id=es_1 --type=x",
                r#"Post /event_subscriptions/es_1/sources {"type":"x"}"#,
            ),
            ("event-sources", "list es_1", "Get /event_subscriptions/es_1/sources"),
            (
                "reserved-domains",
                r#"create --domain=a.example --resolves-to=[{"value":"eu"}]"#,
                r#"Post /reserved_domains {"domain":"a.example","resolves_to":[{"value":"eu"}]}"#,
            ),
            (
                "secrets",
                "create --name=n --value-file=text",
                r#"Post /vault_secrets {"name":"n","value":"text"}"#,
            ),
            ("root", "get", "Get /"),
            ("root", "self", "Get /self"),
        ] {
            assert_eq!(built(resource, line).as_deref(), Ok(expected), "{resource} {line}");
        }
    }

    #[test]
    fn invalid_values_are_reported_without_the_value() {
        for (resource, line, expected) in [
            ("endpoints", "list --limit=hush", "--limit must be an integer, as in 10"),
            ("endpoints", "get ", "id is missing"),
            ("backends weighted", "create --backends=hush", "--backends must be KEY=VALUE"),
            ("backends weighted", "create --backends=a=hush", "--backends must be KEY=N"),
            ("backends http-response", "create --headers=hush", "--headers must be KEY=VALUE"),
            ("reserved-domains", "create --resolves-to=hush", "--resolves-to must be JSON"),
            (
                "pointcfg-module circuit-breaker",
                "replace x --module.error-threshold-percentage=inf",
                "--module.error-threshold-percentage must be a number",
            ),
            ("event-sources", "get --type=x", "subscription-id is missing"),
        ] {
            let error = built(resource, line).expect_err(line);
            assert!(error.starts_with(expected) && !error.contains("hush"), "{line}: {error}");
        }
    }

    #[test]
    fn every_action_makes_a_request() {
        let mut count = 0;
        for resource in actions::resources() {
            for action in resource.actions() {
                let arguments = vec!["x1".to_owned(); action.arguments().len()];
                let given = |flag: &ApiFlag| {
                    let value = match flag.kind {
                        FlagKind::Integer | FlagKind::Number => "1",
                        FlagKind::Map | FlagKind::IntegerMap => "a=1",
                        FlagKind::Json => "[]",
                        FlagKind::Switch => "true",
                        _ => "x1",
                    };
                    GivenApiFlag { flag: flag.clone(), value: value.to_owned() }
                };
                let flags: Vec<GivenApiFlag> = action.flags.iter().map(given).collect();
                let request = build(&action, &arguments, &flags).expect("a request");
                let name = format!("{} {}", resource.name, action.name);
                assert!(request.target.starts_with('/'), "{name}");
                assert!(!request.target.contains(['{', '}']), "{name}: {}", request.target);
                assert!(!action.about.is_empty(), "{name}");
                count += 1;
            }
        }
        assert_eq!(count, 313);
    }
}
