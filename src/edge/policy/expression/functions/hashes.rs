//! Checksums and digests of texts, in hexadecimal or in base64.

use ring::digest;

use super::super::call::{Call, FunctionSpec};
use super::super::error::EvalError;
use super::super::value::Value;
use super::{costly, global, md5, member, xxhash};
use crate::proto::{base64, hex};

type Evaluated = Result<Value, EvalError>;

/// Steps of a digest, before the text is read.
const DIGEST_STEPS: usize = 4;

pub(super) static FUNCTIONS: &[FunctionSpec] = &[
    costly(DIGEST_STEPS, global("hash.sha1", (1, 2), sha1)),
    costly(DIGEST_STEPS, global("hash.sha256", (1, 2), sha256)),
    costly(DIGEST_STEPS, global("hash.sha512", (1, 2), sha512)),
    costly(DIGEST_STEPS, global("hash.crc32", (1, 2), crc32)),
    costly(DIGEST_STEPS, global("hash.crc64", (1, 2), crc64)),
    costly(DIGEST_STEPS, global("hash.md5", (1, 2), md5)),
    costly(DIGEST_STEPS, global("hash.xxhash64", (1, 2), xxhash64)),
    costly(DIGEST_STEPS, member("md5", (1, 2), md5)),
    costly(DIGEST_STEPS, member("xxhash64", (1, 2), xxhash64)),
    costly(DIGEST_STEPS, member("sha1", (1, 2), sha1)),
    costly(DIGEST_STEPS, member("sha256", (1, 2), sha256)),
    costly(DIGEST_STEPS, member("sha512", (1, 2), sha512)),
    costly(DIGEST_STEPS, member("crc32", (1, 2), crc32)),
    costly(DIGEST_STEPS, member("crc64", (1, 2), crc64)),
];

fn sha1(call: &mut Call<'_>) -> Evaluated {
    digested(call, &digest::SHA1_FOR_LEGACY_USE_ONLY)
}

fn sha256(call: &mut Call<'_>) -> Evaluated {
    digested(call, &digest::SHA256)
}

fn sha512(call: &mut Call<'_>) -> Evaluated {
    digested(call, &digest::SHA512)
}

fn digested(call: &mut Call<'_>, algorithm: &'static digest::Algorithm) -> Evaluated {
    let text = call.text(0)?;
    shown(call, digest::digest(algorithm, text.as_bytes()).as_ref())
}

fn crc32(call: &mut Call<'_>) -> Evaluated {
    let sum = checksum(call.text(0)?, 0xedb8_8320);
    // The sum is of 32 bits.
    let sum = !(sum as u32);
    shown(call, &sum.to_be_bytes())
}

fn crc64(call: &mut Call<'_>) -> Evaluated {
    let sum = !checksum(call.text(0)?, 0xd800_0000_0000_0000);
    shown(call, &sum.to_be_bytes())
}

fn md5(call: &mut Call<'_>) -> Evaluated {
    let text = call.text(0)?;
    shown(call, &md5::digest(text.as_bytes()))
}

fn xxhash64(call: &mut Call<'_>) -> Evaluated {
    let text = call.text(0)?;
    shown(call, &xxhash::xxhash64(text.as_bytes()).to_be_bytes())
}

/// Returns the register of a cyclic redundancy check over a text, bit by bit. The polynomial is
/// reversed: 32 or 64 bits.
fn checksum(text: &str, polynomial: u64) -> u64 {
    let mut register = if polynomial >> 32 == 0 { u64::from(u32::MAX) } else { u64::MAX };
    for byte in text.bytes() {
        register ^= u64::from(byte);
        for _ in 0..8 {
            register = (register >> 1) ^ (polynomial * (register & 1));
        }
    }
    register
}

fn shown(call: &mut Call<'_>, bytes: &[u8]) -> Evaluated {
    let format = if call.has(1) { call.text(1)? } else { "hex" };
    let text = match format {
        "hex" => hex::hex(bytes),
        "base64" => base64::encode(bytes),
        _ => return Err(EvalError::argument("the format of a hash is hex or base64")),
    };
    call.new_text(text)
}
