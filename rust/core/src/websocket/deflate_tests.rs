use proptest::prelude::*;

use super::*;

const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

fn answer(offers: &str) -> Option<String> {
    Deflate::from_offers([offers.as_bytes()].into_iter()).map(|agreed| agreed.header().to_str().unwrap().to_owned())
}

fn inflated(coded: &[u8], piece: usize) -> Result<Vec<u8>, Failed> {
    let (mut inflater, mut message) = (Inflater::new(), BytesMut::new());
    for piece in coded.chunks(piece) {
        inflater.feed(piece, &mut message, 100_000)?;
    }
    inflater.finish(&mut message, 100_000)?;
    Ok(message.to_vec())
}

#[test]
fn offers_that_are_met() {
    for offer in [
        "permessage-deflate",
        "Permessage-Deflate ; client_max_window_bits",
        "permessage-deflate; client_max_window_bits=8; server_no_context_takeover; client_no_context_takeover",
        "x-webkit-deflate-frame, permessage-deflate; x=1, permessage-deflate; client_max_window_bits=\"10\"",
        "permessage-deflate; server_max_window_bits=8, permessage-deflate",
    ] {
        assert_eq!(answer(offer).as_deref(), Some(AGREED), "{offer}");
    }
    let offer = "permessage-deflate; server_max_window_bits=9, permessage-deflate";
    assert_eq!(answer(offer), Some(format!("{AGREED}; server_max_window_bits=9")));
}

#[test]
fn offers_that_are_declined() {
    for parameters in [
        "server_max_window_bits",
        "server_max_window_bits=8",
        "server_max_window_bits=16",
        "server_max_window_bits=09",
        "client_max_window_bits=7",
        "client_max_window_bits=",
        "client_no_context_takeover=1",
        "server_no_context_takeover; server_no_context_takeover",
        "client_max_window_bits; client_max_window_bits=9",
        "something",
        "",
    ] {
        assert_eq!(answer(&format!("permessage-deflate; {parameters}")), None, "{parameters}");
    }
    assert_eq!(answer("permessage-bzip2"), None);
    assert_eq!(answer(""), None);
}

#[test]
fn the_examples_of_the_rfc() {
    // RFC 7692 sections 7.2.3.1, 7.2.3.3 and 7.2.3.4: compressed, not compressed, and a block that says it is the last.
    let examples: [&[u8]; 3] = [
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
        &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
    ];
    for example in examples {
        for piece in [1, 100] {
            assert_eq!(inflated(example, piece).unwrap(), b"Hello", "{example:x?}");
        }
    }
    // Section 7.2.3.5: two blocks in one message.
    let two = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
    assert_eq!(inflated(&two, 3).unwrap(), b"Hello");
    // Section 7.2.3.2: what refers to the message before, which nobody may do here.
    assert_eq!(inflated(&[0xf2, 0x00, 0x11, 0x00, 0x00], 9), Err(Failed::Wrong));
}

#[test]
fn what_is_wrong_and_what_is_too_large() {
    assert_eq!(inflated(&[0xff; 20], 9), Err(Failed::Wrong));
    let bomb = Deflate { window: None }.shrink(&[0; 100_001]).unwrap();
    assert!(bomb.len() < 1000);
    assert_eq!(inflated(&bomb, 1), Err(Failed::TooLarge));
    assert_eq!(inflated(&Deflate { window: None }.shrink(&[0; 100_000]).unwrap(), 1).unwrap().len(), 100_000);
}

#[test]
fn what_does_not_shrink_is_left_as_it_is() {
    let mut noise = vec![0; 50_000];
    aws_lc_rs::rand::fill(&mut noise).unwrap();
    let deflate = Deflate { window: None };
    assert_eq!(deflate.shrink(&noise), None);
    assert_eq!(deflate.shrink(&noise[..300]), None);
    assert_eq!(deflate.shrink(&[b'a'; LEAST - 1]), None);
}

proptest! {
    #[test]
    fn messages_come_back(
        seed in prop::collection::vec(any::<u8>(), 1..200),
        times in 1usize..400,
        window in prop::option::of(9u8..=15),
        piece in 1usize..5000,
    ) {
        let message = seed.repeat(times);
        if let Some(coded) = (Deflate { window }).shrink(&message) {
            prop_assert!(coded.len() < message.len());
            prop_assert_eq!(inflated(&coded, piece).unwrap(), message);
        }
    }

    #[test]
    fn anything_in_any_pieces_is_judged_alike(bytes in prop::collection::vec(any::<u8>(), 0..300), piece in 1usize..30) {
        prop_assert_eq!(inflated(&bytes, piece), inflated(&bytes, bytes.len().max(1)));
    }
}
