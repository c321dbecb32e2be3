//! One content coding undone, a little at a time: neither what a step reads nor what it gives is large, whatever a peer
//! sends.

use brotli::{BrotliDecompressStream, BrotliResult, BrotliState, HeapAlloc, HuffmanCode};
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{self, DParameter, Operation};

use super::request::RequestCoding;

/// The most that one step reads. Codings have headers and tables that cost time and give nothing.
const READ: usize = 4 * 1024;
/// The largest window of zstd, as a power of two: 8 MiB, as RFC 9659 has it for HTTP. The library would take 128.
const ZSTD_WINDOW: u32 = 23;

/// Bytes cannot be decoded.
#[derive(Debug)]
pub(super) struct Damaged;

/// What one step did.
#[derive(Debug)]
pub(super) struct Stepped {
    pub(super) read: usize,
    pub(super) written: usize,
}

/// One that writes into memory that it is given.
pub(super) struct Decoder {
    codec: Codec,
    /// The last step had no room for more, so that another one may give something without reading.
    full: bool,
    /// What was read so far is whole.
    whole: bool,
}

/// The state of a brotli decoder, with its memory from the heap.
type Brotli = BrotliState<HeapAlloc<u8>, HeapAlloc<u32>, HeapAlloc<HuffmanCode>>;

enum Codec {
    Zstd(raw::Decoder<'static>),
    Brotli(Box<Brotli>),
    Gzip(Decompress),
    Deflate(Decompress),
}

impl Decoder {
    /// None where the machine has no memory for it.
    pub(super) fn new(coding: RequestCoding) -> Option<Self> {
        let codec = match coding {
            RequestCoding::Zstd => {
                let mut decoder = raw::Decoder::new().ok()?;
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW)).ok()?;
                Codec::Zstd(decoder)
            }
            // Strict: without the large windows that are no part of RFC 7932, of up to a GiB.
            RequestCoding::Brotli => Codec::Brotli(Box::new(BrotliState::new_strict(
                HeapAlloc::default(),
                HeapAlloc::default(),
                HeapAlloc::default(),
            ))),
            RequestCoding::Gzip => Codec::Gzip(Decompress::new_gzip(15)),
            RequestCoding::Deflate => Codec::Deflate(Decompress::new(true)),
        };
        Some(Decoder { codec, full: false, whole: false })
    }

    /// Whether another step can do something with that many bytes to read.
    pub(super) fn can_step(&self, input: usize) -> bool {
        input > 0 || self.full
    }

    /// Whether what was read is whole: nothing has to follow.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Reads some of `input`, writes into `output`.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Stepped, Damaged> {
        let input = &input[..input.len().min(READ)];
        let stepped = match &mut self.codec {
            Codec::Zstd(decoder) => {
                let status = decoder.run_on_buffers(input, output).map_err(|_| Damaged)?;
                // Frames may follow each other (RFC 8878 section 3).
                self.whole = status.remaining == 0;
                Stepped { read: status.bytes_read, written: status.bytes_written }
            }
            Codec::Brotli(_) if self.whole => return Err(Damaged),
            Codec::Brotli(state) => {
                let (mut left, mut read, mut room, mut written, mut total) = (input.len(), 0, output.len(), 0, 0);
                let result = BrotliDecompressStream(
                    &mut left,
                    &mut read,
                    input,
                    &mut room,
                    &mut written,
                    output,
                    &mut total,
                    state,
                );
                match result {
                    BrotliResult::ResultFailure => return Err(Damaged),
                    BrotliResult::ResultSuccess => self.whole = true,
                    BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
                }
                Stepped { read, written }
            }
            Codec::Deflate(_) if self.whole => return Err(Damaged),
            Codec::Deflate(state) => {
                let (stepped, whole) = inflate(state, input, output)?;
                self.whole = whole;
                stepped
            }
            Codec::Gzip(state) => {
                if std::mem::take(&mut self.whole) {
                    // Another member (RFC 1952 section 2.2).
                    *state = Decompress::new_gzip(15);
                }
                let (stepped, whole) = inflate(state, input, output)?;
                self.whole = whole;
                stepped
            }
        };
        self.full = !self.whole && stepped.written == output.len();
        if stepped.read == 0 && stepped.written == 0 && !input.is_empty() {
            // None of them does nothing with bytes and room; if one did, it must not do so for ever.
            return Err(Damaged);
        }
        Ok(stepped)
    }
}

/// A step of zlib or gzip, and whether it was the last one.
fn inflate(state: &mut Decompress, input: &[u8], output: &mut [u8]) -> Result<(Stepped, bool), Damaged> {
    let before = (state.total_in(), state.total_out());
    let status = state.decompress(input, output, FlushDecompress::None).map_err(|_| Damaged)?;
    let read = (state.total_in() - before.0) as usize;
    let written = (state.total_out() - before.1) as usize;
    Ok((Stepped { read, written }, status == Status::StreamEnd))
}
