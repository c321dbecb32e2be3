//! Coding of what is here, and of what comes piece by piece.

use std::io::{self, Write};
use std::task::{Context, Poll};

use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use zstd::zstd_safe::CParameter;

use super::response::of_other_bytes;
use super::{Coding, Encoders};
use crate::event_loops;
use crate::http::body::{Broken, Source};
use crate::http::{Pieces, Trailers};

/// The most that is coded in one go.
const SLICE: usize = 16 * 1024;
/// After so much of one body the event loop has a turn for others.
const TURN: usize = 2 * SLICE;
/// The window of what comes in pieces, as a power of two: 64 KiB. By themselves the codings would keep megabytes.
const WINDOW: u8 = 16;
/// The tables of zstd, as a power of two; those of its level 3 are made for windows of megabytes.
const TABLES: u32 = 14;

/// One that writes into memory, so it cannot fail for reasons of the outside.
enum Encoder {
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Encoder {
    fn new(coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3)?;
                encoder.set_parameter(CParameter::WindowLog(WINDOW.into()))?;
                encoder.set_parameter(CParameter::HashLog(TABLES))?;
                encoder.set_parameter(CParameter::ChainLog(TABLES))?;
                Encoder::Zstd(encoder)
            }
            Coding::Brotli => {
                let parameters = BrotliEncoderParams { quality: 3, lgwin: WINDOW.into(), ..Default::default() };
                Encoder::Brotli(Box::new(brotli::CompressorWriter::with_params(Vec::new(), 4096, &parameters)))
            }
            Coding::Gzip => Encoder::Gzip(GzEncoder::new(Vec::new(), Compression::new(4))),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Encoder::Zstd(encoder) => encoder.write_all(bytes),
            Encoder::Brotli(encoder) => encoder.write_all(bytes),
            Encoder::Gzip(encoder) => encoder.write_all(bytes),
        }
    }

    /// Makes that all of what was written can be decoded from what was taken.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Encoder::Zstd(encoder) => encoder.flush(),
            Encoder::Brotli(encoder) => encoder.flush(),
            Encoder::Gzip(encoder) => encoder.flush(),
        }
    }

    /// What has come out of it since.
    fn take(&mut self) -> Vec<u8> {
        std::mem::take(match self {
            Encoder::Zstd(encoder) => encoder.get_mut(),
            Encoder::Brotli(encoder) => encoder.get_mut(),
            Encoder::Gzip(encoder) => encoder.get_mut(),
        })
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Encoder::Zstd(encoder) => encoder.finish(),
            Encoder::Brotli(encoder) => Ok(encoder.into_inner()),
            Encoder::Gzip(encoder) => encoder.finish(),
        }
    }
}

/// What is here, coded; none where that makes it no smaller.
pub(super) fn shrink(coding: Coding, bytes: &[u8]) -> Option<Vec<u8>> {
    let coded = match coding {
        // Knows the size, and chooses its tables by it.
        Coding::Zstd => zstd::bulk::compress(bytes, 3).ok()?,
        coding => {
            let mut encoder = Encoder::new(coding).ok()?;
            encoder.write(bytes).ok()?;
            encoder.finish().ok()?
        }
    };
    (coded.len() < bytes.len()).then_some(coded)
}

/// A body that is coded while it is sent: in slices, so that no event loop is held up, and flushed whenever there is
/// nothing more to code for now, so that what waits for its next piece holds nothing back.
struct Coded {
    from: Pieces,
    /// None when all was coded.
    encoder: Option<Encoder>,
    /// Taken from there and not yet coded.
    left: Bytes,
    /// Whether the encoder may hold something back.
    unflushed: bool,
    /// Coded since others had their turn.
    turn: usize,
    _right: Encoders,
}

/// The coded body; what it is made of is handed back where there are too many of them already.
pub(super) fn coded(coding: Coding, from: Pieces, encoders: &Encoders) -> Result<Pieces, Pieces> {
    let (Some(right), Ok(encoder)) = (encoders.take(), Encoder::new(coding)) else { return Err(from) };
    let has_trailers = from.has_trailers();
    let coded = Coded { from, encoder: Some(encoder), left: Bytes::new(), unflushed: false, turn: 0, _right: right };
    let coded = Pieces::new(None, coded);
    Ok(if has_trailers { coded.with_trailers() } else { coded })
}

/// What is here as a source of pieces.
pub(super) struct Here(pub(super) Option<Bytes>);

impl Source for Here {
    fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        Poll::Ready(self.0.take().map(Ok))
    }
}

impl Coded {
    fn poll(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<Option<Result<Bytes, Broken>>>> {
        loop {
            let Some(encoder) = &mut self.encoder else { return Ok(Poll::Ready(None)) };
            if !self.left.is_empty() {
                if self.turn >= TURN {
                    self.turn = 0;
                    event_loops::give_way(cx);
                    return Ok(Poll::Pending);
                }
                let slice = self.left.split_to(self.left.len().min(SLICE));
                self.turn += slice.len();
                encoder.write(&slice)?;
                self.unflushed = true;
                let out = encoder.take();
                if !out.is_empty() {
                    return Ok(Poll::Ready(Some(Ok(out.into()))));
                }
                continue;
            }
            match self.from.poll_next(cx) {
                Poll::Ready(Some(Ok(piece))) => self.left = piece,
                Poll::Ready(Some(Err(Broken))) => return Ok(Poll::Ready(Some(Err(Broken)))),
                Poll::Ready(None) => {
                    let end = self.encoder.take().map(Encoder::finish).transpose()?.unwrap_or_default();
                    return Ok(Poll::Ready((!end.is_empty()).then(|| Ok(end.into()))));
                }
                Poll::Pending => {
                    self.turn = 0;
                    if std::mem::take(&mut self.unflushed) {
                        encoder.flush()?;
                        let out = encoder.take();
                        if !out.is_empty() {
                            return Ok(Poll::Ready(Some(Ok(out.into()))));
                        }
                    }
                    return Ok(Poll::Pending);
                }
            }
        }
    }
}

impl Source for Coded {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        self.poll(cx).unwrap_or(Poll::Ready(Some(Err(Broken))))
    }

    fn trailers(&mut self) -> Trailers {
        let mut trailers = self.from.trailers();
        trailers.retain(of_other_bytes);
        trailers
    }

    fn stops_at_half_close(&self) -> bool {
        self.from.stops_at_half_close()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::task::Waker;

    use super::*;
    use crate::http::body;

    const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    /// As much as can be decoded of what is here, whether it is the whole or not.
    fn decode(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut reader: Box<dyn Read + '_> = match coding {
            Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
            Coding::Brotli => Box::new(brotli::Decompressor::new(bytes, 4096)),
            Coding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
        };
        let mut all = Vec::new();
        let mut buffer = [0; 512];
        while let Ok(n @ 1..) = reader.read(&mut buffer) {
            all.extend_from_slice(&buffer[..n]);
        }
        all
    }

    /// Everything that is ready; how often others had a turn before the end.
    fn drain(pieces: &mut Pieces, out: &mut Vec<u8>, turns: usize) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        let mut taken = 0;
        loop {
            match pieces.poll_next(&mut cx) {
                Poll::Ready(Some(piece)) => out.extend_from_slice(&piece.unwrap()),
                Poll::Ready(None) => return taken,
                Poll::Pending if taken == turns => return taken,
                Poll::Pending => taken += 1,
            }
        }
    }

    #[test]
    fn what_is_here_comes_back_and_is_smaller() {
        let text = "one line of text\n".repeat(2_000);
        for coding in ALL {
            let coded = shrink(coding, text.as_bytes()).unwrap();
            assert!(coded.len() < text.len() / 10);
            assert_eq!(decode(coding, &coded), text.as_bytes());
            assert_eq!(shrink(coding, b"short"), None);
        }
    }

    #[test]
    fn each_piece_can_be_decoded_before_the_next_is_made() {
        for coding in ALL {
            let (sender, pieces) = body::channel(None, false);
            let mut pieces = coded(coding, pieces, &Encoders::default()).unwrap();
            let mut out = Vec::new();
            let mut made = String::new();
            for piece in ["first\n", "second\n"] {
                made += piece;
                sender.send(piece.into()).unwrap();
                drain(&mut pieces, &mut out, 0);
                assert_eq!(decode(coding, &out), made.as_bytes(), "{coding:?}");
            }
            sender.finish();
            drain(&mut pieces, &mut out, 0);
        }
    }

    #[test]
    fn trailers_come_behind_it_without_what_is_wrong_of_other_bytes() {
        let (sender, pieces) = body::channel(None, false);
        let mut trailers = Trailers::default();
        for (name, value) in [("content-digest", "sha-256=:x:"), ("etag", "\"a\""), ("x-status", "0")] {
            trailers.push(name.parse().unwrap(), value.parse().unwrap()).unwrap();
        }
        sender.send("text".into()).unwrap();
        sender.finish_with(trailers);
        let mut pieces = coded(Coding::Gzip, pieces.with_trailers(), &Encoders::default()).unwrap();
        drain(&mut pieces, &mut Vec::new(), 0);
        let trailers: Vec<_> =
            pieces.trailers().into_iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        assert_eq!(trailers, ["etag: \"W/\\\"a\\\"\"", "x-status: \"0\""]);
    }

    #[test]
    fn a_large_body_lets_others_have_their_turn() {
        let large: Vec<u8> = (0..1_000_000u32).flat_map(|n| (n / 7 % 251).to_le_bytes()).collect();
        for coding in ALL {
            let here = Pieces::new(None, Here(Some(large.clone().into())));
            let mut pieces = coded(coding, here, &Encoders::default()).unwrap();
            let mut out = Vec::new();
            let turns = drain(&mut pieces, &mut out, usize::MAX);
            assert!(turns >= large.len() / TURN - 1, "{turns}");
            assert!(decode(coding, &out) == large, "{coding:?}");
        }
    }
}
