//! Temporary.
use crate::config::{Agent, Endpoint, Kind, Scheme, Upstream};
fn one(text: &str) -> Result<Endpoint, String> {
    let v: serde_json::Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let addr = v["addr"].as_str().or(v["upstream"]["url"].as_str()).ok_or("no addr")?;
    let port = addr.rsplit(':').next().and_then(|p| p.parse().ok()).ok_or("no port")?;
    let tcp = v["proto"] == "tcp";
    let (kind, scheme) = if tcp { (Kind::Tcp, Scheme::Tcp) } else { (Kind::Http, Scheme::Http) };
    Ok(Endpoint::new(
        v["name"].as_str().unwrap_or(""),
        kind,
        Upstream { scheme, host: "127.0.0.1".into(), port, dir: Default::default() },
    ))
}
pub fn tunnel_from_json(text: &str, _: &Agent) -> Result<Vec<Endpoint>, String> {
    one(text).map(|e| vec![e])
}
pub fn endpoint_from_json(text: &str, _: &Agent) -> Result<Endpoint, String> {
    one(text)
}
