//! Record layer of an established TLS 1.3 connection: encrypts and decrypts records in buffers
//! of the caller.
//!
//! rustls makes the handshake, verifies the certificate and derives every key. Its own record
//! layer would allocate a buffer for each record. All bulk passes through here, so records are
//! made in place with the same AEAD (ring), without allocation and with one copy. Formats: RFC
//! 8446 section 5. Sockets and frames do not belong here.

use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;

/// Most content bytes of one record (RFC 8446 section 5.1).
pub const MAX_CONTENT_BYTES: usize = 16_384;
/// Bytes of a record's header.
pub const HEADER: usize = 5;
/// Bytes after the content: its type and the AEAD's tag.
pub const TRAILER: usize = 1 + 16;
/// Maximum size of a received record: padding may add up to 256 bytes (RFC 8446 section 5.2).
pub const MAX_RECORD_BYTES: usize = HEADER + MAX_CONTENT_BYTES + 256;

/// Number of records after which a key is renewed. AES-GCM allows 2^24.5 (RFC 8446 section
/// 5.5).
const KEY_UPDATE_AFTER_RECORDS: u64 = 1 << 23;
/// Maximum number of records that one key encrypts. A peer's key has no such limit, because
/// decryption is not restricted, and Go's TLS never renews keys.
const MAX_RECORDS_PER_KEY: u64 = 1 << 24;

/// Content type of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// Application data.
    Data,
    /// A handshake message: a ticket or a key update.
    Handshake,
    /// An alert.
    Alert,
}

impl ContentType {
    const fn byte(self) -> u8 {
        match self {
            ContentType::Alert => 21,
            ContentType::Handshake => 22,
            ContentType::Data => 23,
        }
    }
}

/// Reason why a record could not be encrypted or decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// The header is not of a protected record.
    BadHeader,
    /// Longer than a record may be.
    TooLarge,
    /// The tag is wrong: altered data, or another key.
    BadTag,
    /// The content type is missing.
    Empty,
    /// The key has reached its limit.
    KeyExhausted,
    /// Memory for the record is missing.
    NoMemory,
}

impl std::fmt::Display for RecordError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RecordError::BadHeader => "not a TLS 1.3 record",
            RecordError::TooLarge => "TLS record too large",
            RecordError::BadTag => "TLS record was altered",
            RecordError::Empty => "TLS record without a content type",
            RecordError::KeyExhausted => "TLS key used up",
            RecordError::NoMemory => "out of memory for data to send",
        })
    }
}

impl std::error::Error for RecordError {}

struct RecordKey {
    aead: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl RecordKey {
    fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Option<Self> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (&aead::CHACHA20_POLY1305, key, iv)
            }
            _ => return None,
        };
        let aead = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).ok()?);
        Some(RecordKey { aead, iv: iv.as_ref().try_into().ok()?, sequence })
    }

    /// Returns the nonce of the next record: the IV combined with the sequence number (RFC 8446
    /// section 5.3).
    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        if let Some(end) = nonce.last_chunk_mut::<8>() {
            *end = (u64::from_be_bytes(*end) ^ self.sequence).to_be_bytes();
        }
        // Reason: 2^64 records do not occur; the sealer stops at KEY_LIMIT.
        self.sequence = self.sequence.wrapping_add(1);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Encrypts records of one direction.
pub struct Sealer(RecordKey);

impl Sealer {
    /// Creates it from extracted secrets. `None` for a cipher that TLS 1.3 does not have.
    pub fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Option<Self> {
        RecordKey::new(sequence, secrets).map(Sealer)
    }

    /// Returns whether the key should be renewed before the next record.
    pub fn needs_key_update(&self) -> bool {
        self.0.sequence >= KEY_UPDATE_AFTER_RECORDS
    }

    /// Makes a record of `record[HEADER..HEADER + len]` in place. Returns its total length.
    /// `record` must have [`HEADER`] + `len` + [`TRAILER`] bytes.
    pub fn seal(
        &mut self,
        content: ContentType,
        record: &mut [u8],
        len: usize,
    ) -> Result<usize, RecordError> {
        let end = HEADER + len + TRAILER;
        if len > MAX_CONTENT_BYTES || record.len() < end {
            return Err(RecordError::TooLarge);
        }
        let (header, body) = record[..end].split_at_mut(HEADER);
        let size = (len + TRAILER) as u16;
        header.copy_from_slice(&[ContentType::Data.byte(), 3, 3, (size >> 8) as u8, size as u8]);
        let (inner, tag) = body.split_at_mut(len + 1);
        inner[len] = content.byte();
        if self.0.sequence >= MAX_RECORDS_PER_KEY {
            return Err(RecordError::KeyExhausted);
        }
        let nonce = self.0.nonce();
        let sealed = self
            .0
            .aead
            .seal_in_place_separate_tag(nonce, Aad::from(&*header), inner)
            .map_err(|_| RecordError::TooLarge)?;
        tag.copy_from_slice(sealed.as_ref());
        Ok(end)
    }
}

/// Decrypts records of one direction.
pub struct Opener(RecordKey);

impl Opener {
    /// Creates it from extracted secrets. `None` for a cipher that TLS 1.3 does not have.
    pub fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Option<Self> {
        RecordKey::new(sequence, secrets).map(Opener)
    }

    /// Returns the total length of the record at the start of `bytes`; `None` while the header
    /// is incomplete.
    pub fn record_len(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
        let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
        if header[0] != ContentType::Data.byte() || header[1] != 3 {
            return Err(RecordError::BadHeader);
        }
        let len = HEADER + usize::from(u16::from_be_bytes([header[3], header[4]]));
        if len > MAX_RECORD_BYTES {
            return Err(RecordError::TooLarge);
        }
        if len < HEADER + TRAILER {
            return Err(RecordError::BadHeader);
        }
        Ok(Some(len))
    }

    /// Decrypts one whole record in place. Its content is `record[HEADER..HEADER + n]`.
    pub fn open(&mut self, record: &mut [u8]) -> Result<(ContentType, usize), RecordError> {
        let (header, body) = record.split_at_mut_checked(HEADER).ok_or(RecordError::BadHeader)?;
        let nonce = self.0.nonce();
        let plain = self
            .0
            .aead
            .open_in_place(nonce, Aad::from(&*header), body)
            .map_err(|_| RecordError::BadTag)?;
        // The type is the last byte that is not padding.
        let end = plain.iter().rposition(|b| *b != 0).ok_or(RecordError::Empty)?;
        if end > MAX_CONTENT_BYTES {
            return Err(RecordError::TooLarge);
        }
        let content = match plain[end] {
            23 => ContentType::Data,
            22 => ContentType::Handshake,
            21 => ContentType::Alert,
            _ => return Err(RecordError::BadHeader),
        };
        Ok((content, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::crypto::cipher::{AeadKey, Iv};

    fn secrets() -> ConnectionTrafficSecrets {
        ConnectionTrafficSecrets::Chacha20Poly1305 {
            key: AeadKey::from([7u8; 32]),
            iv: Iv::from([9u8; 12]),
        }
    }

    fn sealed(sealer: &mut Sealer, text: &[u8]) -> Vec<u8> {
        let mut record = vec![0; HEADER + text.len() + TRAILER];
        record[HEADER..HEADER + text.len()].copy_from_slice(text);
        let n = sealer.seal(ContentType::Data, &mut record, text.len()).unwrap();
        assert_eq!(n, record.len());
        record
    }

    #[test]
    fn nonces_are_the_iv_with_the_number_of_the_record() {
        let mut key = RecordKey::new(0, &secrets()).unwrap();
        key.iv = [0xa0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0x0a, 0x0b];
        key.sequence = 0x0102_0304_0506_07ff;
        let first = key.nonce();
        assert_eq!(first.as_ref(), &[0xa0, 1, 2, 3, 5, 7, 5, 3, 0x0d, 0x0f, 0x0d, 0xf4]);
        assert_eq!(key.nonce().as_ref(), &[0xa0, 1, 2, 3, 5, 7, 5, 3, 0x0d, 0x0f, 2, 0x0b]);
    }

    #[test]
    fn what_is_sealed_opens_in_order() {
        let mut sealer = Sealer::new(3, &secrets()).unwrap();
        let mut opener = Opener::new(3, &secrets()).unwrap();
        for text in [&b"first"[..], b"", &[0u8; MAX_CONTENT_BYTES]] {
            let mut record = sealed(&mut sealer, text);
            assert_eq!(Opener::record_len(&record), Ok(Some(record.len())));
            assert_eq!(opener.open(&mut record), Ok((ContentType::Data, text.len())));
            assert_eq!(&record[HEADER..HEADER + text.len()], text);
        }
    }

    #[test]
    fn each_altered_byte_is_refused() {
        let good = sealed(&mut Sealer::new(0, &secrets()).unwrap(), b"payload");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let opened = Opener::new(0, &secrets()).unwrap().open(&mut bad);
            assert_eq!(opened, Err(RecordError::BadTag), "byte {at}");
        }
    }

    #[test]
    fn a_replayed_record_is_refused() {
        let good = sealed(&mut Sealer::new(0, &secrets()).unwrap(), b"once");
        let mut opener = Opener::new(0, &secrets()).unwrap();
        assert!(opener.open(&mut good.clone()).is_ok());
        assert_eq!(opener.open(&mut good.clone()), Err(RecordError::BadTag));
    }

    #[test]
    fn illegal_headers_are_refused() {
        assert_eq!(Opener::record_len(b"HTTP/"), Err(RecordError::BadHeader));
        assert_eq!(Opener::record_len(&[23, 3, 3, 0xff, 0xff]), Err(RecordError::TooLarge));
        assert_eq!(Opener::record_len(&[23, 3, 3, 0, 16]), Err(RecordError::BadHeader));
        assert_eq!(Opener::record_len(&[23, 3, 3]), Ok(None));
    }

    #[test]
    fn a_key_is_not_used_for_ever() {
        let mut sealer = Sealer::new(MAX_RECORDS_PER_KEY - 1, &secrets()).unwrap();
        assert!(sealer.needs_key_update());
        let mut record = [0; HEADER + TRAILER];
        assert!(sealer.seal(ContentType::Data, &mut record, 0).is_ok());
        let last = sealer.seal(ContentType::Data, &mut record, 0);
        assert_eq!(last, Err(RecordError::KeyExhausted));
    }
}
