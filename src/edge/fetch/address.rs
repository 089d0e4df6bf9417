//! Which addresses are on the public internet. Sans-IO.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 networks that are not public (RFC 6890 and its registry), as network and bits.
const V4_SPECIAL: &[([u8; 4], u32)] = &[
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    // Link-local, with the metadata service of most clouds.
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    // Multicast, reserved, broadcast.
    ([224, 0, 0, 0], 3),
    // Agent of Azure's machines: a public address that only they reach.
    ([168, 63, 129, 16], 32),
];

/// Networks inside of `2000::/3` that are not public: protocols with Teredo, documentation,
/// 6to4, which contains an IPv4 address.
const V6_SPECIAL: &[([u16; 2], u32)] =
    &[([0x2001, 0], 23), ([0x2001, 0xdb8], 32), ([0x2002, 0], 16), ([0x3fff, 0], 20)];

/// Prefix of addresses that a translator maps to IPv4 (RFC 6052).
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// Returns whether an address is on the public internet. An IPv6 address that stands for an
/// IPv4 address is as public as that.
pub fn is_public(ip: IpAddr) -> bool {
    match embedded(ip) {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

/// Returns the IPv4 address that an address stands for, else the address itself.
pub fn embedded(ip: IpAddr) -> IpAddr {
    let canonical = ip.to_canonical();
    let IpAddr::V6(v6) = canonical else { return canonical };
    match v6.segments().split_last_chunk::<2>() {
        Some((prefix, [high, low])) if *prefix == NAT64 => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Ipv4Addr::new(a, b, c, d).into()
        }
        _ => canonical,
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let is_in = |(network, bits): &([u8; 4], u32)| {
        (u32::from(ip) ^ u32::from_be_bytes(*network)) >> (32 - bits) == 0
    };
    !V4_SPECIAL.iter().any(is_in)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    let start = u32::from(a) << 16 | u32::from(b);
    let is_in = |([high, low], bits): &([u16; 2], u32)| {
        (start ^ (u32::from(*high) << 16 | u32::from(*low))) >> (32 - bits) == 0
    };
    // Only this network has global unicast addresses.
    a >> 13 == 1 && !V6_SPECIAL.iter().any(is_in)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        let public = "8.8.8.8 1.1.1.1 100.63.255.255 100.128.0.0 172.15.0.1 172.32.0.1 169.253.0.1 \
             223.255.255.255 168.63.129.17 192.0.1.1 2606:4700::1111 2a00:1450::1 \
             2001:4860:4860::8888 64:ff9b::808:808 ::ffff:8.8.8.8";
        for public in public.split(' ') {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        let special = "0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 \
             169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.192 192.0.2.1 192.168.1.1 \
             198.19.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1 \
             255.255.255.255 168.63.129.16 192.88.99.1 :: ::1 ::7f00:1 ::ffff:127.0.0.1 \
             ::ffff:10.0.0.1 fe80::1 fec0::1 fc00::1 fd00:ec2::254 ff02::1 64:ff9b::7f00:1 \
             64:ff9b::a9fe:a9fe 64:ff9b:1::808:808 2001::1 2001:db8::1 2002:7f00:1:: 3fff::1 \
             100::1 4000::1 1fff::1";
        for other in special.split(' ') {
            assert!(!is_public(other.parse().unwrap()), "{other}");
        }
    }
}
