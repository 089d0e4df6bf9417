//! Frames and keys of RFC 6455, without a connection. Shared with the soak.

use std::io;

/// Key of a client's handshake.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// Response of a server to [`KEY`], from RFC 6455 1.3.
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Opcode of a frame that ends the connection.
pub const CLOSE: u8 = 8;

const MAX_FRAME_BYTES: u64 = 1 << 20;
const MASK: [u8; 4] = [0x11, 0x80, 0xfe, 0x07];

/// Returns the bytes of one frame. Clients must mask.
pub fn encode(opcode: u8, payload: &[u8], mask: bool) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    let bit = if mask { 0x80 } else { 0 };
    match payload.len() {
        n @ 0..126 => frame.push(bit | n as u8),
        n @ 126..65_536 => {
            frame.push(bit | 126);
            frame.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            frame.push(bit | 127);
            frame.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    let key = if mask { MASK } else { [0; 4] };
    if mask {
        frame.extend_from_slice(&key);
    }
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// Returns opcode and unmasked payload of the next frame. `fill` reads a whole buffer.
pub fn decode(fill: &mut dyn FnMut(&mut [u8]) -> io::Result<()>) -> io::Result<(u8, Vec<u8>)> {
    let (mut head, mut length, mut key) = ([0; 2], [0; 8], [0; 4]);
    fill(&mut head)?;
    match head[1] & 0x7f {
        126 => fill(&mut length[6..])?,
        127 => fill(&mut length)?,
        n => length[7] = n,
    }
    let length = u64::from_be_bytes(length);
    if length > MAX_FRAME_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame too long"));
    }
    if head[1] & 0x80 != 0 {
        fill(&mut key)?;
    }
    let mut payload = vec![0; length as usize];
    fill(&mut payload)?;
    payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    Ok((head[0] & 0x0f, payload))
}
