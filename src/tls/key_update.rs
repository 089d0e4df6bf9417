//! The keys after the current ones of a TLS 1.3 connection, and the tickets for the next
//! one. Records themselves are sealed and opened in [`super::records`].

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;

use super::records::{Opener, Sealer};

/// What rustls keeps for the life of a connection: the next keys, and tickets.
pub enum KeySchedule {
    /// The agent's.
    Client(KernelConnection<ClientConnectionData>),
    /// The edge's.
    Server(KernelConnection<ServerConnectionData>),
}

impl KeySchedule {
    /// The key for sending after the current one.
    pub fn next_sealer(&mut self) -> Result<Sealer, rustls::Error> {
        let (sequence, secrets) = match self {
            KeySchedule::Client(k) => k.update_tx_secret()?,
            KeySchedule::Server(k) => k.update_tx_secret()?,
        };
        Sealer::new(sequence, &secrets).ok_or(rustls::Error::EncryptError)
    }

    /// The key for receiving after the current one.
    pub fn next_opener(&mut self) -> Result<Opener, rustls::Error> {
        let (sequence, secrets) = match self {
            KeySchedule::Client(k) => k.update_rx_secret()?,
            KeySchedule::Server(k) => k.update_rx_secret()?,
        };
        Opener::new(sequence, &secrets).ok_or(rustls::Error::DecryptError)
    }

    /// Takes a ticket for a quicker handshake next time.
    pub fn ticket(&mut self, body: &[u8]) -> Result<(), rustls::Error> {
        match self {
            KeySchedule::Client(k) => k.handle_new_session_ticket(body),
            KeySchedule::Server(_) => Err(rustls::Error::General("a ticket from a client".into())),
        }
    }
}
