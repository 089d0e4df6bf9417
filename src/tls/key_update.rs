//! Next keys of a TLS 1.3 connection, and the tickets for the next connection. Records are
//! encrypted and decrypted in [`super::records`].

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;

use super::records::{Opener, Sealer};

/// State of rustls during a connection: the next keys, and tickets.
pub enum KeySchedule {
    /// Of the agent.
    Client(KernelConnection<ClientConnectionData>),
    /// Of the edge.
    Server(KernelConnection<ServerConnectionData>),
}

impl KeySchedule {
    /// Returns the next key for sending.
    pub fn next_sealer(&mut self) -> Result<Sealer, rustls::Error> {
        let (sequence, secrets) = match self {
            KeySchedule::Client(k) => k.update_tx_secret()?,
            KeySchedule::Server(k) => k.update_tx_secret()?,
        };
        Sealer::new(sequence, &secrets).ok_or(rustls::Error::EncryptError)
    }

    /// Returns the next key for receiving.
    pub fn next_opener(&mut self) -> Result<Opener, rustls::Error> {
        let (sequence, secrets) = match self {
            KeySchedule::Client(k) => k.update_rx_secret()?,
            KeySchedule::Server(k) => k.update_rx_secret()?,
        };
        Opener::new(sequence, &secrets).ok_or(rustls::Error::DecryptError)
    }

    /// Stores a ticket for a faster handshake next time.
    pub fn ticket(&mut self, body: &[u8]) -> Result<(), rustls::Error> {
        match self {
            KeySchedule::Client(k) => k.handle_new_session_ticket(body),
            KeySchedule::Server(_) => Err(rustls::Error::General("a ticket from a client".into())),
        }
    }
}
