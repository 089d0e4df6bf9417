//! Error codes of RST and GOAWAY frames (protocol 2.8).

use std::fmt;

/// Error code. Any 32-bit number is valid; the known ones have names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u32);

macro_rules! codes {
    ($($number:literal $konst:ident $name:literal: $doc:literal)*) => {
        impl Code {
            $(
                #[doc = $doc]
                pub const $konst: Code = Code($number);
            )*

            /// Returns the name of a known code.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($name),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    0x00 NO_ERROR "NoError": "GOAWAY of an orderly end."
    0x01 PROTOCOL_ERROR "ProtocolError": "An invalid frame."
    0x02 INTERNAL_ERROR "InternalError": "A fault of the sender."
    0x03 FLOW_CONTROL_ERROR "FlowControlError": "More data than the window allowed."
    0x04 STREAM_CLOSED "StreamClosed": "Data for a stream that has ended."
    0x05 STREAM_REFUSED "StreamRefused": "The stream is not served."
    0x06 STREAM_CANCELLED "StreamCancelled": "The visitor or upstream of the stream has disconnected."
    0x07 STREAM_RESET "StreamReset": "Local: the stream was reset."
    0x08 FRAME_SIZE_ERROR "FrameSizeError": "A frame of an invalid length."
    0x09 ACCEPT_QUEUE_FULL "AcceptQueueFull": "No room for another stream."
    0x0A ENHANCE_YOUR_CALM "EnhanceYourCalm": "The peer has exhausted a budget."
    0x0B REMOTE_GONE_AWAY "RemoteGoneAway": "Local: the peer has sent GOAWAY."
    0x0C STREAMS_EXHAUSTED "StreamsExhausted": "Local: the stream ids are used up."
    0x0D WRITE_TIMEOUT "WriteTimeout": "Local: the link accepted no bytes for too long."
    0x0E SESSION_CLOSED "SessionClosed": "Local: the session has ended."
    0x0F PEER_EOF "PeerEOF": "The connection ended."
    0xFFFF_FFFF UNKNOWN "ErrorUnknown": "Any other error, in another implementation."
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name().unwrap_or("unknown code"), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_codes_have_names_and_others_keep_their_number() {
        assert_eq!(Code::STREAM_CLOSED.to_string(), "StreamClosed (4)");
        assert_eq!(Code(9).to_string(), "AcceptQueueFull (9)");
        assert_eq!(Code(0xFF).to_string(), "unknown code (255)");
        assert_eq!(Code(0xFFFF_FFFF).name(), Some("ErrorUnknown"));
    }
}
