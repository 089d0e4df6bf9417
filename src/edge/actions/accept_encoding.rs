//! Choice of a coding by `Accept-Encoding` (RFC 9110 12.5.3).

use super::body_encoder::Coding;
use crate::http1::head::members;

/// Returns the coding with the highest weight among `offered`; of equal ones the better.
pub fn negotiate<'a>(values: impl Iterator<Item = &'a [u8]>, offered: &[Coding]) -> Option<Coding> {
    let mut weights = [None::<u16>; Coding::ALL.len()];
    let mut any = None;
    for member in values.flat_map(members) {
        let mut parts = member.split(|b| *b == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(weight).unwrap_or(1000);
        if name == b"*" {
            any = Some(weight);
        }
        for (coding, slot) in Coding::ALL.iter().zip(&mut weights) {
            if name.eq_ignore_ascii_case(coding.name().as_bytes())
                || (*coding == Coding::Gzip && name.eq_ignore_ascii_case(b"x-gzip"))
            {
                *slot = Some(weight);
            }
        }
    }
    let weighted = Coding::ALL.iter().zip(weights).map(|(c, w)| (*c, w.or(any).unwrap_or(0)));
    let weighted = weighted.filter(|(coding, _)| offered.contains(coding));
    // The first of equal ones: `max_by_key` takes the last.
    let best = weighted.rev().max_by_key(|(_, weight)| *weight)?;
    (best.1 > 0).then_some(best.0)
}

/// Reads `q=0.5` as thousandths.
fn weight(parameter: &[u8]) -> Option<u16> {
    let value = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="))?;
    let value = std::str::from_utf8(value).ok()?;
    let weight: f32 = value.trim().parse().ok()?;
    // From 0 to 1000: no truncation.
    Some((weight.clamp(0.0, 1.0) * 1000.0) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(accept: &str) -> Option<&'static str> {
        negotiate(std::iter::once(accept.as_bytes()), &Coding::ALL).map(Coding::name)
    }

    #[test]
    fn the_highest_weight_wins_then_the_better_coding() {
        assert_eq!(best("br, deflate, gzip"), Some("gzip"));
        assert_eq!(best("br, deflate"), Some("br"));
        assert_eq!(best("gzip, deflate"), Some("gzip"));
        assert_eq!(best("deflate"), Some("deflate"));
        assert_eq!(best("br;q=0.5, gzip;q=0.8"), Some("gzip"));
        assert_eq!(best("gzip;q=0, *"), Some("br"));
        assert_eq!(best("*"), Some("gzip"));
        assert_eq!(best("identity"), None);
        assert_eq!(best("gzip;q=0"), None);
        assert_eq!(best("*;q=0"), None);
        assert_eq!(best(""), None);
        assert_eq!(best("GZIP ; Q=1.0"), Some("gzip"));
        assert_eq!(best("zstd, x-gzip"), Some("gzip"));
        assert_eq!(best("gzip;q=NaN"), None);
    }
}
