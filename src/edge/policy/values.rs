//! Values of the variables of expressions, from a [`Scope`]. Each is made when an expression
//! reads it. Which names exist, and in which phase, is decided in [`super::expression`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ring::rand::{SecureRandom, SystemRandom};
use serde_json::Value as Json;

use super::expression::{Timestamp, Value, ValueMap, Variable, Variables};
use super::phases::{Scope, TlsDetails};
use super::response_cookie;
use crate::edge::actions::action::RequestInfo;
use crate::edge::actions::response::ResponseHead;
use crate::edge::agents::address::Protocol;
use crate::edge::token;
use crate::edge::x509_details;
use crate::http1::head::members;
use crate::http1::text::{host_of, percent_decoded};
use crate::proto::base64;

/// Value of `conn.server_region`, the region that agents see.
const SERVER_REGION: &str = "self";

/// Longest source of a variable whose parts are so few that they are not counted.
const SHORT_SOURCE_BYTES: usize = 512;

/// Parts of a cookie: its entry, and the map with its name and its value.
const COOKIE_PARTS: usize = 3;

/// Parts of a cookie of a response, beside its other attributes.
const RESPONSE_COOKIE_PARTS: usize = 12;

impl Variables for Scope<'_> {
    fn variable(&self, variable: Variable) -> Option<Value> {
        // That of the request is last: it makes the URL before it looks for a part.
        self.own(variable)
            .or_else(|| self.connection(variable))
            .or_else(|| self.response.and_then(|head| of_response(head, variable)))
            .or_else(|| self.endpoint(variable))
            .or_else(|| self.request.and_then(|request| self.of_request(request, variable)))
    }

    fn entry(&self, variable: Variable, key: &str) -> Option<Value> {
        match variable {
            Variable::ReqHeaders => header(self.request?.fields.values(key)),
            Variable::ResHeaders => header(self.response?.values(key)),
            Variable::Vars => self.vars.vars().get(key).cloned(),
            Variable::Actions => self.vars.results().get(key).map(Value::from),
            Variable::ReqUrlQueryParams => {
                let url = RequestUrl::of(self.request?);
                let named = parameter_pairs(url.query()).filter(|(name, _)| name == key);
                one(named.map(|(name, value)| (name, Value::text(decoded(value, true)))))
            }
            Variable::ReqCookies => {
                let named = request_cookies(self.request?).filter(|(name, _)| name == key);
                one(named.map(cookie))
            }
            _ => self.variable(variable)?.members()?.get_text(key).cloned(),
        }
    }

    fn source_bytes(&self, variable: Variable) -> usize {
        let Some(request) = self.request else { return 0 };
        let of_response = |name| self.response.map_or(0, |head| total(head.values(name)));
        match variable {
            Variable::ReqUrlQueryParams => request.target.len(),
            Variable::ReqCookies => total(request.fields.values("cookie")),
            Variable::ReqContentTypeParameters => total(request.fields.values("content-type")),
            Variable::ReqContentEncoding => total(request.fields.values("content-encoding")),
            Variable::ResCookies => of_response("set-cookie"),
            Variable::ResContentTypeParameters => of_response("content-type"),
            Variable::ResContentEncoding => of_response("content-encoding"),
            _ => 0,
        }
    }

    fn parts(&self, variable: Variable, key: Option<&str>) -> usize {
        let is_long = self.source_bytes(variable) > SHORT_SOURCE_BYTES;
        let Some(request) = self.request.filter(|_| is_long) else { return 0 };
        let of_response = |name, separator| {
            self.response.map_or(0, |head| separated(head.values(name), separator))
        };
        match (variable, key) {
            (Variable::ReqUrlQueryParams, Some(key)) => {
                let url = RequestUrl::of(request);
                parameter_pairs(url.query()).filter(|(name, _)| name == key).count()
            }
            (Variable::ReqUrlQueryParams, None) => separated(std::iter::once(request.target), b'&'),
            (Variable::ReqCookies, Some(key)) => {
                COOKIE_PARTS * request_cookies(request).filter(|(name, _)| name == key).count()
            }
            (Variable::ReqCookies, None) => {
                COOKIE_PARTS * separated(request.fields.values("cookie"), b';')
            }
            (Variable::ReqContentTypeParameters, _) => {
                separated(request.fields.values("content-type"), b';')
            }
            (Variable::ReqContentEncoding, _) => {
                separated(request.fields.values("content-encoding"), b',')
            }
            (Variable::ResCookies, _) => {
                let lines = self.response.map_or(0, |head| head.values("set-cookie").count());
                RESPONSE_COOKIE_PARTS * lines + of_response("set-cookie", b';')
            }
            (Variable::ResContentTypeParameters, _) => of_response("content-type", b';'),
            (Variable::ResContentEncoding, _) => of_response("content-encoding", b','),
            _ => 0,
        }
    }

    fn secret(&self, vault: &str, name: &str) -> Option<Arc<str>> {
        let services = self.input.services;
        let secret = services.secret(self.input.endpoint.account, vault, name)?;
        Some(secret.expose().into())
    }

    fn now(&self) -> Timestamp {
        self.time().unwrap_or(Timestamp::EPOCH)
    }

    fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        // A failure gives 0: `rand` is not for secrets.
        let _ = SystemRandom::new().fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

impl Scope<'_> {
    fn time(&self) -> Option<Timestamp> {
        Timestamp::new(i64::try_from(self.input.unix_seconds).ok()?, 0)
    }

    fn connection(&self, variable: Variable) -> Option<Value> {
        let connection = &self.input.connection;
        let (client, server) = (&connection.client, &connection.server);
        Some(match variable {
            Variable::ConnClientIp => self.client_ip(),
            Variable::ConnClientPort => Value::Int(client.port().into()),
            Variable::ConnServerIp => ip_text(server.ip().to_canonical()),
            Variable::ConnServerPort => Value::Int(server.port().into()),
            Variable::ConnServerRegion => SERVER_REGION.into(),
            Variable::ConnStart => Value::Timestamp(self.time()?),
            Variable::ConnTlsSni => connection.server_name?.into(),
            other => return of_handshake(connection.handshake?, other),
        })
    }

    fn endpoint(&self, variable: Variable) -> Option<Value> {
        let endpoint = &self.input.endpoint;
        let address = || EndpointAddress::of(endpoint.url);
        Some(match variable {
            Variable::EndpointAddr => format!("{}:{}", address().host, address().port).into(),
            Variable::EndpointHost => address().host.into(),
            Variable::EndpointId => token::id_with("ep", endpoint.tunnel_id).into(),
            Variable::EndpointPort => Value::Int(address().port),
            Variable::EndpointProtocol => match endpoint.protocol {
                Protocol::Http => address().scheme.into(),
                Protocol::Tls => "tls".into(),
                Protocol::Tcp => "tcp".into(),
            },
            Variable::EndpointUrl => endpoint.url.into(),
            _ => return None,
        })
    }

    /// Returns the address of the visitor as a text.
    pub fn client_ip(&self) -> Value {
        let make = || ip_text(self.input.connection.client.ip().to_canonical());
        self.made.client_ip.get_or_init(make).clone()
    }

    fn of_request(&self, request: &RequestInfo<'_>, variable: Variable) -> Option<Value> {
        if variable != Variable::ReqUrlPath {
            return of_request(request, variable);
        }
        let make = || Value::text(decoded(RequestUrl::of(request).raw_path(), false));
        Some(self.made.path.get_or_init(make).clone())
    }

    fn own(&self, variable: Variable) -> Option<Value> {
        Some(match variable {
            Variable::TimeNow => self.now().to_string().into(),
            Variable::ReqHeaderReceived | Variable::ReqBodyReceived => {
                Value::Timestamp(self.time()?)
            }
            Variable::Vars => {
                let entry =
                    |(name, value): (&Arc<str>, &Value)| (name.clone().into(), value.clone());
                object(self.vars.vars().iter().map(entry))
            }
            Variable::Actions => {
                let entry = |(name, value): (&&str, &Json)| ((*name).into(), value.into());
                object(self.vars.results().iter().map(entry))
            }
            _ => return None,
        })
    }
}

/// Parts of the URL of an endpoint.
struct EndpointAddress<'a> {
    scheme: &'a str,
    host: &'a str,
    port: i64,
}

impl<'a> EndpointAddress<'a> {
    fn of(url: &'a str) -> Self {
        let (scheme, address) = url.split_once("://").unwrap_or(("", url));
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().unwrap_or(0)),
            None => (address, if scheme == "http" { 80 } else { 443 }),
        };
        EndpointAddress { scheme, host, port }
    }
}

/// Returns an address as a text. Requests of most policies read the one of the visitor: an
/// address of IPv4 is written without the formatter.
fn ip_text(ip: IpAddr) -> Value {
    let IpAddr::V4(ip) = ip else { return ip.to_string().into() };
    let mut text = [0; "255.255.255.255".len()];
    let mut len = 0;
    for (n, octet) in ip.octets().into_iter().enumerate() {
        let digits = [octet / 100, octet / 10 % 10, octet % 10];
        let zeros = usize::from(octet < 100) + usize::from(octet < 10);
        let dot = (n > 0).then_some(b'.');
        for byte in dot.into_iter().chain(digits[zeros..].iter().map(|digit| b'0' + digit)) {
            text[len] = byte;
            len += 1;
        }
    }
    Value::text(std::str::from_utf8(&text[..len]).unwrap_or_default())
}

fn of_handshake(handshake: &TlsDetails, variable: Variable) -> Option<Value> {
    Some(match variable {
        Variable::ConnTlsVersion => handshake.version.into(),
        Variable::ConnTlsCipherSuite => handshake.cipher_suite.as_str().into(),
        Variable::ConnTlsAlpn => handshake.alpn.as_str().into(),
        Variable::ConnTlsResumed => handshake.resumed.into(),
        other => return of_certificate(handshake.certificate.as_ref()?, other),
    })
}

/// Returns a value of the certificate of a client. A text that is absent has no value.
fn of_certificate(der: &[u8], variable: Variable) -> Option<Value> {
    let part = match variable {
        Variable::ClientSubjectCommonName => 0,
        Variable::ClientSubjectOrganization => 1,
        Variable::ClientSubjectUnit => 2,
        Variable::ClientSubjectLocality => 3,
        Variable::ClientSubjectProvince => 4,
        Variable::ClientSubjectCountry => 5,
        Variable::ClientPem => return Some(pem(der).into()),
        Variable::ClientSerialNumber
        | Variable::ClientIssuerCommonName
        | Variable::ClientNotBefore
        | Variable::ClientNotAfter
        | Variable::ClientSanDnsNames
        | Variable::ClientSanAddresses => 6,
        _ => return None,
    };
    let found = x509_details::read(der)?;
    let named = |text: &str| (!text.is_empty()).then(|| Value::text(text));
    let time = |time: Option<SystemTime>| time.and_then(Timestamp::of).map(Value::Timestamp);
    match variable {
        Variable::ClientSerialNumber => named(&found.serial),
        Variable::ClientIssuerCommonName => named(&found.issuer),
        Variable::ClientNotBefore => time(found.not_before),
        Variable::ClientNotAfter => time(found.not_after),
        Variable::ClientSanDnsNames => Some(Value::list(found.dns_names.iter().map(Value::text))),
        Variable::ClientSanAddresses => {
            Some(Value::list(found.ips.iter().map(|ip| ip.to_string().into())))
        }
        Variable::ClientSubjectCommonName => named(found.subject.get(part)?),
        // A subject may have several organizations and the like, but one is read.
        _ => Some(Value::list(named(found.subject.get(part)?))),
    }
}

/// Returns a certificate as PEM.
fn pem(der: &[u8]) -> String {
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in base64::encode(der).as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

fn object(entries: impl Iterator<Item = (Value, Value)>) -> Value {
    Value::Map(Arc::new(ValueMap::new(entries.collect())))
}

/// Returns the text of bytes; what is not UTF-8 is replaced.
fn text(bytes: &[u8]) -> Value {
    Value::text(String::from_utf8_lossy(bytes))
}

/// Returns the values of a header; `None` if it is absent.
fn header<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<Value> {
    let values: Vec<Value> = values.map(text).collect();
    (!values.is_empty()).then(|| Value::list(values))
}

/// Returns the values of entries with the same key; `None` without one.
fn one<N>(entries: impl Iterator<Item = (N, Value)>) -> Option<Value> {
    let values: Vec<Value> = entries.map(|(_, value)| value).collect();
    (!values.is_empty()).then(|| Value::list(values))
}

/// Returns a map of entries whose values are lists.
fn lists(entries: impl Iterator<Item = (String, Value)>, any_case: bool) -> Value {
    // A visitor chooses the keys: a search through all of them would be slow.
    let mut lists: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (key, value) in entries {
        lists.entry(key).or_default().push(value);
    }
    let entries = lists.into_iter().map(|(key, list)| (key.into(), Value::list(list))).collect();
    Value::Map(Arc::new(match any_case {
        true => ValueMap::any_case(entries),
        false => ValueMap::new(entries),
    }))
}

fn headers<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Value {
    let lower = |name: &[u8]| String::from_utf8_lossy(&name.to_ascii_lowercase()).into_owned();
    lists(fields.map(|(name, value)| (lower(name), text(value))), true)
}

fn empty() -> Value {
    Value::Map(Arc::new(ValueMap::any_case(Vec::new())))
}

/// Returns the host of an authority, in lower case and without the port.
fn host(authority: &[u8]) -> String {
    host_of(authority).map_or_else(String::new, str::to_ascii_lowercase)
}

fn port(authority: &[u8], tls: bool) -> i64 {
    let text = std::str::from_utf8(authority).unwrap_or_default();
    let digits = text.rsplit_once(':').map(|(_, port)| port);
    digits.and_then(|port| port.parse().ok()).unwrap_or(if tls { 443 } else { 80 })
}

/// Parts of the URL of a request.
struct RequestUrl<'a> {
    scheme: &'static str,
    authority: &'a [u8],
    /// Path and query.
    uri: Cow<'a, str>,
}

impl<'a> RequestUrl<'a> {
    fn of(request: &RequestInfo<'a>) -> Self {
        let target = String::from_utf8_lossy(request.target);
        let uri = match target.starts_with('/') || target == "*" {
            true => target,
            false => format!("/{target}").into(),
        };
        let scheme = if request.tls { "https" } else { "http" };
        RequestUrl { scheme, authority: request.authority, uri }
    }

    fn raw_path(&self) -> &str {
        self.uri.split('?').next().unwrap_or_default()
    }

    fn query(&self) -> &str {
        self.uri.split_once('?').map_or("", |(_, query)| query)
    }

    fn whole(&self) -> String {
        format!("{}://{}{}", self.scheme, String::from_utf8_lossy(self.authority), self.uri)
    }

    fn value(&self, variable: Variable, tls: bool) -> Option<Value> {
        Some(match variable {
            Variable::ReqUrl | Variable::ReqUrlRaw => self.whole().into(),
            Variable::ReqUrlAuthority => text(self.authority),
            Variable::ReqUrlHost => host(self.authority).into(),
            Variable::ReqUrlPort => Value::Int(port(self.authority, tls)),
            Variable::ReqUrlRawPath => self.raw_path().into(),
            Variable::ReqUrlQuery => self.query().into(),
            Variable::ReqUrlQueryParams => lists(parameters(self.query()), false),
            Variable::ReqUrlScheme => self.scheme.into(),
            Variable::ReqUrlUri => (&*self.uri).into(),
            // A request has no such part: `Host` and targets with it are refused.
            Variable::ReqUrlUserPassword => "".into(),
            _ => return None,
        })
    }
}

/// Decodes percent-encoding. Each escape is decoded on its own: one that is not valid must not
/// hide the others from a rule. Bytes that are not UTF-8 are replaced.
fn decoded(text: &str, plus_is_blank: bool) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return text.into();
    }
    if let Some(decoded) = percent_decoded(text, plus_is_blank) {
        return decoded.into();
    }
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let source = text.as_bytes();
    let mut bytes = Vec::with_capacity(source.len());
    let mut at = 0;
    while let Some(byte) = source.get(at) {
        at += 1;
        match (byte, digit(source.get(at)), digit(source.get(at + 1))) {
            (b'%', Some(high), Some(low)) => {
                // Two digits are at most 255.
                bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 2;
            }
            (b'+', ..) if plus_is_blank => bytes.push(b' '),
            (byte, ..) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// Returns names of the parameters of a query, and their values before they are decoded.
fn parameter_pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name, true), value)
    })
}

/// Returns names and values of the parameters of a query.
fn parameters(query: &str) -> impl Iterator<Item = (String, Value)> {
    let pairs = parameter_pairs(query);
    pairs.map(|(name, value)| (name.into_owned(), Value::text(decoded(value, true))))
}

/// Returns the number of parts of values in which a separator divides them.
fn separated<'a>(values: impl Iterator<Item = &'a [u8]>, separator: u8) -> usize {
    values.map(|value| 1 + value.iter().filter(|byte| **byte == separator).count()).sum()
}

/// Returns the bytes of some values.
fn total<'a>(values: impl Iterator<Item = &'a [u8]>) -> usize {
    values.map(<[u8]>::len).sum()
}

fn map(entries: Vec<(&str, Value)>) -> Value {
    object(entries.into_iter().map(|(key, value)| (key.into(), value)))
}

/// Returns names and values of the cookies of a request.
fn request_cookies<'a>(
    request: &RequestInfo<'a>,
) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> + use<'a> {
    let pairs = request.fields.values("cookie").flat_map(|line| line.split(|b| *b == b';'));
    pairs.filter_map(|pair| {
        let at = pair.iter().position(|b| *b == b'=')?;
        let part = |bytes: &'a [u8]| String::from_utf8_lossy(bytes.trim_ascii());
        Some((part(&pair[..at]), part(&pair[at + 1..])))
    })
}

/// Returns a cookie with its name.
fn cookie((name, value): (Cow<'_, str>, Cow<'_, str>)) -> (String, Value) {
    let value = value.trim_matches('"');
    let cookie = map(vec![("name", (&*name).into()), ("value", value.into())]);
    (name.into_owned(), cookie)
}

/// Returns the cookies of a response by name.
fn response_cookies(head: &ResponseHead<'_>) -> Value {
    let lines = head.values("set-cookie").map(String::from_utf8_lossy);
    lists(lines.filter_map(|line| response_cookie::read(&line)), false)
}

/// Returns the parameters of a content type by name.
fn type_parameters(raw: &str) -> Value {
    let parameters = raw.split(';').skip(1).filter_map(|part| {
        let (name, value) = part.trim().split_once('=')?;
        Some((name.trim().to_ascii_lowercase(), value.trim().trim_matches('"')))
    });
    let entries = parameters.map(|(name, value)| (name.into(), value.into())).collect();
    Value::Map(Arc::new(ValueMap::any_case(entries)))
}

/// Fields of a message with a body, in the variables of requests and of responses.
enum BodyField {
    ContentType,
    ContentTypeRaw,
    ContentTypeParameters,
    ContentLength,
    ContentEncoding,
    Location,
}

/// Returns the value of a field. The text of a missing header is empty: a rule against all types
/// but one applies to a request without a type.
fn body_field<'a>(field: &BodyField, values: &dyn Fn(&'static str) -> Vec<&'a [u8]>) -> Value {
    let first = |name| {
        let values = values(name);
        values.first().map_or(Cow::Borrowed(""), |value| String::from_utf8_lossy(value))
    };
    match field {
        BodyField::ContentType => {
            let raw = first("content-type");
            raw.split(';').next().unwrap_or_default().trim().into()
        }
        BodyField::ContentTypeRaw => first("content-type").into_owned().into(),
        BodyField::ContentTypeParameters => type_parameters(&first("content-type")),
        BodyField::ContentLength => Value::Int(first("content-length").parse().unwrap_or(0)),
        BodyField::ContentEncoding => {
            Value::list(values("content-encoding").into_iter().flat_map(members).map(text))
        }
        BodyField::Location => first("location").into_owned().into(),
    }
}

fn of_request(request: &RequestInfo<'_>, variable: Variable) -> Option<Value> {
    let field = match variable {
        Variable::ReqContentEncoding => BodyField::ContentEncoding,
        Variable::ReqContentLength => BodyField::ContentLength,
        Variable::ReqContentType => BodyField::ContentType,
        Variable::ReqContentTypeRaw => BodyField::ContentTypeRaw,
        Variable::ReqContentTypeParameters => BodyField::ContentTypeParameters,
        Variable::ReqLocation => BodyField::Location,
        Variable::ReqCookies => return Some(lists(request_cookies(request).map(cookie), false)),
        Variable::ReqHeaders => return Some(headers(request.fields.iter())),
        Variable::ReqHost => return Some(host(request.authority).into()),
        Variable::ReqMethod => return Some(text(request.method)),
        Variable::ReqTrailers => return Some(empty()),
        Variable::ReqUserAgent => {
            return Some(text(request.fields.first("user-agent").unwrap_or_default()));
        }
        Variable::ReqVersion => {
            return Some(if request.is_http10 { "HTTP/1.0" } else { "HTTP/1.1" }.into());
        }
        other => return RequestUrl::of(request).value(other, request.tls),
    };
    Some(body_field(&field, &|name| request.fields.values(name).collect()))
}

fn of_response(head: &ResponseHead<'_>, variable: Variable) -> Option<Value> {
    let field = match variable {
        Variable::ResContentEncoding => BodyField::ContentEncoding,
        Variable::ResContentLength => BodyField::ContentLength,
        Variable::ResContentType => BodyField::ContentType,
        Variable::ResContentTypeRaw => BodyField::ContentTypeRaw,
        Variable::ResContentTypeParameters => BodyField::ContentTypeParameters,
        Variable::ResLocation => BodyField::Location,
        Variable::ResCookies => return Some(response_cookies(head)),
        Variable::ResHeaders => return Some(headers(head.iter())),
        Variable::ResStatusCode => return Some(Value::Int(head.status.into())),
        Variable::ResTrailers => return Some(empty()),
        _ => return None,
    };
    Some(body_field(&field, &|name| head.values(name).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_usual() {
        for text in ["0.0.0.0", "127.0.0.1", "10.20.30.40", "255.255.255.255", "2001:db8::1"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(ip_text(ip).as_text(), Some(text));
        }
    }
}
