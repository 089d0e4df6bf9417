//! Target `tls_records`: TLS 1.3 records that are encrypted, altered, truncated and decrypted.
//! A record can be decrypted exactly if it is the next one and unchanged.

use culvert::tls::records::{
    ContentType, HEADER, MAX_CONTENT_BYTES, MAX_RECORD_BYTES, Opener, Sealer, TRAILER,
};
use rustls::ConnectionTrafficSecrets;
use rustls::crypto::cipher::{AeadKey, Iv};

use crate::input::{Choices, Dice};

fn secrets(choice: u8) -> ConnectionTrafficSecrets {
    let iv = Iv::from([9; 12]);
    match choice % 2 {
        0 => ConnectionTrafficSecrets::Chacha20Poly1305 { key: AeadKey::from([7; 32]), iv },
        _ => ConnectionTrafficSecrets::Aes256Gcm { key: AeadKey::from([7; 32]), iv },
    }
}

/// Choices: the cipher, then records: their change, type and content.
pub fn check(data: &[u8]) {
    noise(data);
    let mut choices = Choices::new(data);
    let secrets = secrets(choices.byte());
    let mut sealer = Sealer::new(0, &secrets).expect("a cipher of TLS 1.3");
    let mut opener = Opener::new(0, &secrets).expect("a cipher of TLS 1.3");
    while !choices.is_empty() {
        let (action, kind, len) = (choices.byte(), choices.byte(), choices.byte());
        let kind =
            [ContentType::Data, ContentType::Handshake, ContentType::Alert][usize::from(kind) % 3];
        let content = choices.bytes(usize::from(len));
        let mut record = vec![0; HEADER + content.len() + TRAILER];
        record[HEADER..HEADER + content.len()].copy_from_slice(content);
        assert_eq!(sealer.seal(kind, &mut record, content.len()), Ok(record.len()));
        assert_eq!(Opener::record_len(&record), Ok(Some(record.len())));
        let intact = action & 3 != 0;
        match action & 12 {
            _ if intact => {}
            0 => {
                let at = choices.below(256) % record.len();
                record[at] ^= 1 << (action >> 5);
            }
            4 => record.truncate(record.len() - 1),
            8 => record.push(0),
            // The next one, before this one.
            _ => {
                let mut next = record.clone();
                assert_eq!(sealer.seal(kind, &mut next, content.len()), Ok(next.len()));
                record = next;
            }
        }
        let opened = opener.open(&mut record);
        if !intact {
            assert!(opened.is_err(), "an altered record was opened");
            return;
        }
        assert_eq!(opened, Ok((kind, content.len())));
        assert_eq!(&record[HEADER..HEADER + content.len()], content);
    }
}

/// Random bytes: never decrypted, and without a length beyond the limit.
fn noise(data: &[u8]) {
    if let Ok(Some(len)) = Opener::record_len(data) {
        assert!((HEADER + TRAILER..=MAX_RECORD_BYTES).contains(&len));
        let mut record = data.to_vec();
        record.resize(len, 0);
        let mut opener = Opener::new(0, &secrets(0)).expect("a cipher of TLS 1.3");
        assert!(opener.open(&mut record).is_err(), "a record without the key was opened");
    }
    let mut sealer = Sealer::new(0, &secrets(0)).expect("a cipher of TLS 1.3");
    let mut short = vec![0; data.len()];
    let sealed = sealer.seal(ContentType::Data, &mut short, data.len().min(MAX_CONTENT_BYTES));
    assert!(sealed.is_err(), "a record in too little room");
}

/// Returns records, usually intact.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    let mut out = vec![dice.pick(&[0, 1, 23])];
    for _ in 0..dice.below(6) {
        let content = dice.bytes(60);
        out.extend([dice.roll() as u8, dice.roll() as u8, content.len() as u8]);
        out.extend(content);
    }
    out
}
