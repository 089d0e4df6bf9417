//! Encoders for bodies that the edge changes, as a stream of chunks (RFC 9112 7.1), or without
//! chunks for HTTP/1.0. Each piece that comes is flushed, so that a response that pauses does not
//! keep bytes back.

use std::fmt;
use std::io::{self, Write};

use brotli::CompressorWriter;
use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Window of gzip and deflate as a power of two: the encoder keeps 251 KiB. With 12 it would
/// keep 259 KiB, and the bound of a response is 256 KiB.
const DEFLATE_WINDOW_BITS: u8 = 11;
const DEFLATE_LEVEL: u32 = 6;
const DEFLATE_OUTPUT_BYTES: usize = 4 * 1024;

/// Quality of brotli: 188 KiB. With 2 the encoder would keep 560 KiB.
const BROTLI_QUALITY: u32 = 1;
const BROTLI_WINDOW_BITS: u32 = 15;
const BROTLI_BUFFER_BYTES: usize = 4 * 1024;

/// Checksum and length at the end of a gzip file.
const GZIP_TRAILER_BYTES: usize = 8;

/// First bytes of a gzip file without a name and a time (RFC 1952 2.3).
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Coding of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 7932.
    Brotli,
    /// zlib format, RFC 1950.
    Deflate,
}

impl Coding {
    /// All, the best first: with these windows gzip is a little smaller than brotli.
    pub const ALL: [Coding; 3] = [Coding::Gzip, Coding::Brotli, Coding::Deflate];

    /// Returns the name in `Content-Encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Brotli => "br",
            Coding::Deflate => "deflate",
        }
    }
}

/// Encoder of one body.
pub struct BodyEncoder {
    encoder: Encoder,
    chunked: bool,
}

enum Encoder {
    /// No content coding.
    Identity,
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Deflate(Box<Deflate>),
}

/// Gzip or zlib.
struct Deflate {
    state: Compress,
    out: Vec<u8>,
    /// Of gzip.
    checksum: Option<Crc>,
}

impl fmt::Debug for BodyEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyEncoder").finish_non_exhaustive()
    }
}

impl BodyEncoder {
    /// Starts a body with chunks.
    pub fn new(coding: Option<Coding>) -> Self {
        let encoder = match coding {
            None => Encoder::Identity,
            Some(Coding::Brotli) => Encoder::Brotli(Box::new(CompressorWriter::new(
                Vec::new(),
                BROTLI_BUFFER_BYTES,
                BROTLI_QUALITY,
                BROTLI_WINDOW_BITS,
            ))),
            Some(Coding::Gzip) => Encoder::Deflate(Box::new(Deflate::new(true))),
            Some(Coding::Deflate) => Encoder::Deflate(Box::new(Deflate::new(false))),
        };
        BodyEncoder { encoder, chunked: true }
    }

    /// Starts a body without a coding and without chunks. It ends with its connection.
    pub fn until_close() -> Self {
        BodyEncoder { encoder: Encoder::Identity, chunked: false }
    }

    /// Returns whether it writes chunks.
    pub fn is_chunked(&self) -> bool {
        self.chunked
    }

    /// Encodes a piece, and emits what is complete.
    pub fn write(&mut self, piece: &[u8], emit: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        match &mut self.encoder {
            Encoder::Identity if self.chunked => chunk(&mut piece.to_vec(), emit),
            Encoder::Identity => emit(piece),
            Encoder::Brotli(encoder) => {
                // In small parts: the output of a large one would wait in memory.
                for part in piece.chunks(BROTLI_BUFFER_BYTES) {
                    encoder.write_all(part)?;
                    chunk(encoder.get_mut(), emit);
                }
            }
            Encoder::Deflate(deflate) => deflate.run(piece, FlushCompress::None, emit)?,
        }
        Ok(())
    }

    /// Emits everything that was written.
    pub fn flush(&mut self, emit: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        match &mut self.encoder {
            Encoder::Identity => {}
            Encoder::Brotli(encoder) => {
                encoder.flush()?;
                chunk(encoder.get_mut(), emit);
            }
            Encoder::Deflate(deflate) => deflate.run(&[], FlushCompress::Sync, emit)?,
        }
        Ok(())
    }

    /// Emits the rest and the last chunk.
    pub fn finish(self, emit: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        match self.encoder {
            Encoder::Identity => {}
            Encoder::Brotli(encoder) => chunk(&mut encoder.into_inner(), emit),
            Encoder::Deflate(mut deflate) => deflate.run(&[], FlushCompress::Finish, emit)?,
        }
        if self.chunked {
            emit(b"0\r\n\r\n");
        }
        Ok(())
    }
}

impl Deflate {
    fn new(gzip: bool) -> Self {
        let level = Compression::new(DEFLATE_LEVEL);
        Deflate {
            state: Compress::new_with_window_bits(level, !gzip, DEFLATE_WINDOW_BITS),
            out: if gzip { GZIP_HEADER.to_vec() } else { Vec::new() },
            checksum: gzip.then(Crc::new),
        }
    }

    fn run(
        &mut self,
        piece: &[u8],
        flush: FlushCompress,
        emit: &mut dyn FnMut(&[u8]),
    ) -> io::Result<()> {
        if let Some(checksum) = &mut self.checksum {
            checksum.update(piece);
        }
        let mut taken = 0;
        loop {
            if self.out.len() >= DEFLATE_OUTPUT_BYTES {
                chunk(&mut self.out, emit);
            }
            // Exactly: it would grow to a multiple, which counts in the bound of a response.
            self.out.reserve_exact(DEFLATE_OUTPUT_BYTES - self.out.len());
            let before = (self.state.total_in(), self.out.len());
            let status = self.state.compress_vec(&piece[taken..], &mut self.out, flush);
            // At most the length of the piece.
            taken += usize::try_from(self.state.total_in() - before.0).unwrap_or(0);
            let is_full = self.out.len() == self.out.capacity();
            match status.map_err(io::Error::other)? {
                Status::StreamEnd => break,
                _ if taken == piece.len() && !is_full && flush != FlushCompress::Finish => break,
                Status::BufError if self.out.len() == before.1 && !is_full => break,
                Status::Ok | Status::BufError => {}
            }
            if is_full {
                chunk(&mut self.out, emit);
            }
        }
        if let (FlushCompress::Finish, Some(checksum)) = (flush, &self.checksum) {
            self.out.reserve_exact(GZIP_TRAILER_BYTES);
            self.out.extend(checksum.sum().to_le_bytes());
            self.out.extend(checksum.amount().to_le_bytes());
        }
        if flush != FlushCompress::None {
            chunk(&mut self.out, emit);
        }
        Ok(())
    }
}

/// Emits `bytes` as a chunk, and clears them.
fn chunk(bytes: &mut Vec<u8>, emit: &mut dyn FnMut(&[u8])) {
    if !bytes.is_empty() {
        emit(format!("{:x}\r\n", bytes.len()).as_bytes());
        emit(bytes);
        emit(b"\r\n");
        bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::http1::chunked::ChunkedDecoder;
    use crate::http1::line::Strictness;

    /// Undoes the chunks, then the coding.
    fn decode(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut decoder = ChunkedDecoder::new(Strictness::Strict);
        let mut encoded = Vec::new();
        decoder.feed(bytes, &mut |data| encoded.extend_from_slice(data)).unwrap();
        let mut out = Vec::new();
        match coding {
            Coding::Brotli => brotli::Decompressor::new(&*encoded, 4096).read_to_end(&mut out),
            Coding::Gzip => flate2::read::GzDecoder::new(&*encoded).read_to_end(&mut out),
            Coding::Deflate => flate2::read::ZlibDecoder::new(&*encoded).read_to_end(&mut out),
        }
        .unwrap();
        out
    }

    #[test]
    fn a_body_in_pieces_comes_back_whole() {
        let text: String = (0..5000).map(|n| format!("line {n} of the body\n")).collect();
        for coding in Coding::ALL {
            let mut encoder = BodyEncoder::new(Some(coding));
            let mut out = Vec::new();
            for piece in text.as_bytes().chunks(7001) {
                encoder.write(piece, &mut |b| out.extend_from_slice(b)).unwrap();
                encoder.flush(&mut |b| out.extend_from_slice(b)).unwrap();
            }
            let pieces = out.len();
            assert!(pieces > 0 && pieces < text.len() / 2, "{coding:?}: {pieces}");
            encoder.finish(&mut |b| out.extend_from_slice(b)).unwrap();
            assert_eq!(decode(coding, &out), text.as_bytes(), "{coding:?}");
        }
    }

    #[test]
    fn a_piece_can_be_read_before_the_next_one_comes() {
        let mut encoder = BodyEncoder::new(Some(Coding::Gzip));
        let mut out = Vec::new();
        encoder.write(b"first", &mut |b| out.extend_from_slice(b)).unwrap();
        encoder.flush(&mut |b| out.extend_from_slice(b)).unwrap();
        let mut decoder = ChunkedDecoder::new(Strictness::Strict);
        let mut encoded = Vec::new();
        decoder.feed(&out, &mut |data| encoded.extend_from_slice(data)).unwrap();
        let mut text = [0; 5];
        flate2::read::GzDecoder::new(&*encoded).read_exact(&mut text).unwrap();
        assert_eq!(&text, b"first");
    }
}
