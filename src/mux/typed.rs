//! Typed streams: the first four bytes in the opener's direction name the purpose of a stream
//! (protocol 3).

use std::fmt;

/// Purpose of a stream. Any 32-bit number is valid; the known ones have names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamType(pub u32);

macro_rules! types {
    ($($number:literal $konst:ident $name:literal: $doc:literal)*) => {
        impl StreamType {
            $(
                #[doc = $doc]
                pub const $konst: StreamType = StreamType($number);
            )*

            /// Returns the name of a known type.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($name),)*
                    _ => None,
                }
            }
        }
    };
}

types! {
    0 AUTH "Auth": "Agent: the first call of a session."
    1 BIND "Bind": "Agent: creates an endpoint."
    2 UNBIND "Unbind": "Agent: removes an endpoint."
    3 PROXY "Proxy": "Edge: a visitor's connection."
    4 RESTART "Restart": "Edge: requests a restart of the agent."
    5 STOP "Stop": "Edge: requests the end of the agent."
    6 UPDATE "Update": "Edge: requests an update of the agent."
    7 START_TUNNEL_WITH_LABEL "StartTunnelWithLabel": "Agent: creates a labelled endpoint."
    8 SRV_INFO "SrvInfo": "Agent: requests data of the service; allowed without Auth."
    9 STOP_TUNNEL "StopTunnel": "Edge: reports the end of an endpoint. It has no response."
    10 PATCH_TUNNEL_STATE "PatchTunnelState": "Agent: changes an endpoint in place."
    0xFFFF_FFFF HEARTBEAT "Heartbeat": "Either side: four bytes, which the peer returns."
}

impl fmt::Display for StreamType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "unknown type {:#x}", self.0),
        }
    }
}

/// A big-endian number of four bytes that may arrive in pieces: a type, a heartbeat, an echo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartialU32 {
    value: u32,
    got: u8,
}

impl PartialU32 {
    /// Reads bytes from the front of `bytes`. Returns how many were read and, after four of
    /// them, their big-endian value. Then it starts over.
    pub(super) fn take(&mut self, bytes: &[u8]) -> (usize, Option<u32>) {
        let mut taken = 0;
        for &byte in bytes {
            self.value = (self.value << 8) | u32::from(byte);
            self.got += 1;
            taken += 1;
            if self.got == 4 {
                let value = self.value;
                *self = PartialU32::default();
                return (taken, Some(value));
            }
        }
        (taken, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_bytes_in_any_pieces_are_one_number() {
        let mut four = PartialU32::default();
        assert_eq!(four.take(&[]), (0, None));
        assert_eq!(four.take(&[0xFF, 0x01]), (2, None));
        assert_eq!(four.take(&[0x02, 0x03, 0x04]), (2, Some(0xFF01_0203)));
        assert_eq!(four.take(&[0, 0, 0, 3, 9]), (4, Some(3)));
        assert_eq!(four, PartialU32::default());
    }

    #[test]
    fn types_print_their_name_or_their_number() {
        assert_eq!(StreamType::PROXY.to_string(), "Proxy");
        assert_eq!(StreamType(77).to_string(), "unknown type 0x4d");
        assert_eq!(StreamType(u32::MAX), StreamType::HEARTBEAT);
    }
}
