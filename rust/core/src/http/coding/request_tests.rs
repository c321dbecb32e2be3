use std::io::{Read, Write};

use brotli::enc::BrotliEncoderParams;
use http::{HeaderMap, HeaderValue, header};
use proptest::prelude::*;

use super::*;
use crate::config::Value;

const TEXT: &str = "one line of text, and then another one\n";

fn config(limit: i64) -> Config {
    let all = RequestCoding::WORDS.iter().map(|word| (*word).into()).collect();
    let settings = [("decompression", Value::Words(all)), ("max_request_read_bytes", Value::Integer(limit))];
    Config::parse(settings.map(|(name, value)| (name.to_string(), value))).unwrap()
}

fn decoding(codings: &str, limit: i64) -> Result<Option<Box<Decoding>>, RequestError> {
    let mut map = HeaderMap::new();
    map.append(header::CONTENT_ENCODING, HeaderValue::from_str(codings).unwrap());
    Decoding::of(&Headers::from_map(None, &map), &config(limit))
}

fn code(coding: &str, bytes: &[u8]) -> Vec<u8> {
    match coding {
        "zstd" => zstd::bulk::compress(bytes, 3).unwrap(),
        "br" => {
            let mut out = Vec::new();
            let mut encoder = brotli::CompressorWriter::new(&mut out, 4096, 5, 22);
            encoder.write_all(bytes).unwrap();
            drop(encoder);
            out
        }
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        _ => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
    }
}

/// What comes out of these pieces, and in how many steps.
fn decode(codings: &str, pieces: &[&[u8]], limit: i64) -> Result<(Vec<u8>, usize), RequestError> {
    let mut decoding = decoding(codings, limit)?.expect("a coding");
    let mut out = Vec::new();
    let (mut pieces, mut steps) = (pieces.iter(), 0);
    loop {
        steps += 1;
        match decoding.step()? {
            Step::Data(data) => {
                assert!(!data.is_empty() && data.len() <= WRITE);
                out.extend_from_slice(&data);
            }
            Step::More => {}
            Step::Hungry => match pieces.next() {
                Some(piece) => decoding.push(Bytes::copy_from_slice(piece)),
                None => decoding.end(),
            },
            Step::Whole => return Ok((out, steps)),
        }
    }
}

fn refusal(codings: &str, bytes: &[u8], limit: i64) -> Refusal {
    decode(codings, &[bytes], limit).unwrap_err().refusal
}

#[test]
fn every_coding_comes_back_however_it_is_cut() {
    let text = TEXT.repeat(3_000);
    for coding in RequestCoding::WORDS {
        let coded = code(coding, text.as_bytes());
        for size in [1, 7, 4096, coded.len()] {
            let pieces: Vec<_> = coded.chunks(size).collect();
            assert_eq!(decode(coding, &pieces, 1 << 20).unwrap().0, text.as_bytes(), "{coding} by {size}");
        }
        let nothing = code(coding, b"");
        assert_eq!(decode(coding, &[&nothing], 1 << 20).unwrap().0, b"", "{coding}");
        assert_eq!(decode(coding, &[], 1 << 20).unwrap().0, b"", "{coding}");
    }
}

#[test]
fn several_codings_are_undone_in_order() {
    let text = TEXT.repeat(3_000);
    let coded = code("br", &code("gzip", &code("zstd", text.as_bytes())));
    assert_eq!(decode("zstd, identity, x-gzip,,BR", &[&coded], 1 << 20).unwrap().0, text.as_bytes());
    assert_eq!(refusal("br, gzip, zstd", &coded, 1 << 20), Refusal::Undecodable);
}

#[test]
fn what_is_cut_is_refused() {
    for coding in RequestCoding::WORDS {
        let coded = code(coding, TEXT.repeat(9).as_bytes());
        for end in 1..coded.len() {
            assert_eq!(refusal(coding, &coded[..end], 1 << 20), Refusal::Undecodable, "{coding} at {end}");
        }
    }
}

#[test]
fn what_follows_is_another_member_or_refused() {
    for coding in RequestCoding::WORDS {
        let coded = code(coding, TEXT.as_bytes());
        for more in [&b"x"[..], b"\0", b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", b"trailing garbage, of some length"]
        {
            assert_eq!(refusal(coding, &[&coded, more].concat(), 1 << 20), Refusal::Undecodable, "{coding} {more:?}");
        }
        let twice = coded.repeat(2);
        match *coding {
            "gzip" | "zstd" => assert_eq!(decode(coding, &[&twice], 1 << 20).unwrap().0, TEXT.repeat(2).as_bytes()),
            _ => assert_eq!(refusal(coding, &twice, 1 << 20), Refusal::Undecodable, "{coding}"),
        }
    }
}

#[test]
fn the_limit_is_on_what_was_decoded() {
    let text = TEXT.repeat(100);
    for coding in RequestCoding::WORDS {
        let coded = code(coding, text.as_bytes());
        assert!(decode(coding, &[&coded], text.len() as i64).is_ok());
        assert_eq!(refusal(coding, &coded, text.len() as i64 - 1), Refusal::BodyBytes, "{coding}");
    }
}

#[test]
fn bombs_are_refused_early() {
    let zeros = vec![0; 2 << 20];
    for coding in RequestCoding::WORDS {
        let bomb = code(coding, &zeros);
        let error = decode(coding, &[&bomb], 1 << 30).unwrap_err();
        assert_eq!(error.refusal, Refusal::BodyBytes, "{coding}");
        assert!(error.message.contains("200 times"), "{coding}: {error}");
        // What is inside counts as well.
        let nested = code(coding, &code("gzip", &zeros));
        assert_eq!(refusal(&format!("gzip, {coding}"), &nested, 1 << 30), Refusal::BodyBytes, "{coding}");
    }
}

#[test]
fn windows_are_bounded() {
    let coded = |window| {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(window).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.write_all(TEXT.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(decode("zstd", &[&coded(23)], 1 << 20).unwrap().0, TEXT.as_bytes());
    for window in [24, 27] {
        assert_eq!(refusal("zstd", &coded(window), 1 << 20), Refusal::Undecodable, "2^{window}");
    }
    // Brotli's large windows, which its library takes unless told otherwise.
    let parameters = BrotliEncoderParams { large_window: true, lgwin: 26, ..Default::default() };
    let mut encoder = brotli::CompressorWriter::with_params(Vec::new(), 4096, &parameters);
    encoder.write_all(TEXT.as_bytes()).unwrap();
    let large = encoder.into_inner();
    let mut decoded = String::new();
    brotli::Decompressor::new(&large[..], 4096).read_to_string(&mut decoded).unwrap();
    assert_eq!(decoded, TEXT);
    assert_eq!(refusal("br", &large, 1 << 20), Refusal::Undecodable);
}

#[test]
fn what_is_not_offered_is_refused() {
    for codings in ["compress", "gzip, lzw", "gzip;q=1", "gzip gzip", "*", "gzip, gzip, gzip, gzip"] {
        assert_eq!(decoding(codings, 9).unwrap_err().refusal, Refusal::ContentCoding, "{codings}");
    }
    for codings in ["", "identity", " , Identity ,"] {
        assert!(decoding(codings, 9).unwrap().is_none(), "{codings}");
    }
}

#[test]
fn a_body_that_does_not_begin_has_no_decoders() {
    let mut idle = decoding("zstd, br, gzip", 1 << 20).unwrap().unwrap();
    assert_eq!(idle.step().unwrap(), Step::Hungry);
    assert!(idle.stages.is_empty() && idle.output.is_empty());
    let coded = code("gzip", &code("br", &code("zstd", TEXT.as_bytes())));
    let mut out = Vec::new();
    idle.push(coded.into());
    idle.end();
    loop {
        match idle.step().unwrap() {
            Step::Data(data) => out.extend_from_slice(&data),
            Step::Whole => break,
            _ => {}
        }
    }
    assert_eq!(out, TEXT.as_bytes());
}

#[test]
fn deflate_without_its_wrapper_is_refused() {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(TEXT.as_bytes()).unwrap();
    assert_eq!(refusal("deflate", &encoder.finish().unwrap(), 1 << 20), Refusal::Undecodable);
}

proptest! {
    #[test]
    fn any_bytes_end_in_as_many_steps_as_they_are_worth(
        which in 0..4usize,
        head in 0..60usize,
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let coding = RequestCoding::WORDS[which];
        let mut coded = code(coding, TEXT.repeat(9).as_bytes());
        coded.truncate(head);
        coded.extend_from_slice(&bytes);
        match decode(coding, &[&coded], 1 << 20) {
            Ok((_, steps)) => prop_assert!(steps < 2_000),
            Err(error) => prop_assert!(matches!(error.refusal, Refusal::Undecodable | Refusal::BodyBytes)),
        }
    }
}
