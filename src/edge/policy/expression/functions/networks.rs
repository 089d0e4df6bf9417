//! Addresses and networks. Networks that are known when the policy binds do not come here.

use std::net::{IpAddr, Ipv4Addr};

use super::super::call::{Call, FunctionSpec};
use super::super::error::EvalError;
use super::super::value::Value;
use super::{costly, global, member};
use crate::cidr::Cidr;

type Evaluated = Result<Value, EvalError>;

pub(super) static FUNCTIONS: &[FunctionSpec] = &[
    costly(2, global("inCidrRange", (2, 2), in_range)),
    costly(2, global("inCidrRanges", (2, 2), in_ranges)),
    costly(2, member("isPrivateIp", (1, 1), is_private)),
];

fn in_range(call: &mut Call<'_>) -> Evaluated {
    let (address, network) = (call.text(0)?.parse::<IpAddr>(), call.text(1)?);
    Ok(Value::Bool(address.is_ok_and(|ip| contains(network, ip))))
}

fn in_ranges(call: &mut Call<'_>) -> Evaluated {
    let (address, networks) = (call.text(0)?.parse::<IpAddr>(), call.list(1)?);
    let inside = |ip: IpAddr| networks.iter().any(|n| n.as_text().is_some_and(|n| contains(n, ip)));
    Ok(Value::Bool(address.is_ok_and(inside)))
}

/// Returns whether a network contains an address. A network that is not valid contains none.
fn contains(network: &str, address: IpAddr) -> bool {
    Cidr::parse(network).is_some_and(|network| network.contains(address))
}

fn is_private(call: &mut Call<'_>) -> Evaluated {
    let address = call.text(0)?.parse::<Ipv4Addr>();
    Ok(Value::Bool(address.is_ok_and(|ip| ip.is_private())))
}
