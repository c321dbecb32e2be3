use proptest::prelude::*;

use super::*;

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x11, 0x22, 0x33, 0xF4];
    let mut frame = head(0, payload.len()).to_vec();
    frame[0] = first;
    frame[1] |= 0x80;
    frame.extend_from_slice(&mask);
    let mut masked = payload.to_vec();
    unmask(&mut masked, mask);
    frame.extend_from_slice(&masked);
    frame
}

fn events(wire: &[u8]) -> (Vec<Event>, Option<u16>) {
    in_pieces(wire, wire.len().max(1))
}

fn in_pieces(wire: &[u8], piece: usize) -> (Vec<Event>, Option<u16>) {
    let (mut machine, mut events) = (Machine::new(1000, false), Vec::new());
    for piece in wire.chunks(piece) {
        machine.receive(piece);
        loop {
            match machine.next_event() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(violation) => return (events, Some(violation.code)),
            }
        }
    }
    (events, None)
}

fn text(text: &str) -> Event {
    Event::Message(Kind::Text, Bytes::copy_from_slice(text.as_bytes()))
}

#[test]
fn a_message_in_fragments_with_a_ping_between_them() {
    let wire = [frame(0x01, b"hel"), frame(0x89, b"?"), frame(0x00, b""), frame(0x80, b"lo"), frame(0x82, b"\xff")];
    let (events, failed) = events(&wire.concat());
    let binary = Event::Message(Kind::Binary, Bytes::from_static(b"\xff"));
    assert_eq!(events, [Event::Ping(Bytes::from_static(b"?")), text("hello"), binary]);
    assert_eq!(failed, None);
}

#[test]
fn what_breaks_the_rules() {
    let mut unmasked = frame(0x81, b"a");
    unmasked[1] &= 0x7F;
    let cases: [(&[u8], u16); 13] = [
        (&unmasked, 1002),
        (&frame(0xC1, b"a"), 1002),
        (&frame(0x91, b"a"), 1002),
        (&frame(0x83, b"a"), 1002),
        (&frame(0x8B, b"a"), 1002),
        (&frame(0x09, b"a"), 1002),
        (&frame(0x89, &[0; 126]), 1002),
        (&frame(0x80, b"a"), 1002),
        (&[frame(0x01, b"a"), frame(0x81, b"b")].concat(), 1002),
        (&[0x82, 0xFE, 0, 125, 0, 0, 0, 0], 1002),
        (&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1002),
        (&frame(0x81, b"\xff"), 1007),
        (&[frame(0x01, "é".as_bytes().split_at(1).0), frame(0x80, b"")].concat(), 1007),
    ];
    for (wire, code) in cases {
        assert_eq!(events(wire).1, Some(code), "{wire:?}");
    }
}

#[test]
fn a_message_that_is_too_large_is_refused_before_it_comes() {
    let announced = &frame(0x82, &[0; 1001])[..8];
    assert_eq!(events(announced).1, Some(1009));
    assert_eq!(events(&[frame(0x02, &[0; 600]), frame(0x80, &[0; 401])].concat()).1, Some(1009));
    assert_eq!(events(&[frame(0x02, &[0; 600]), frame(0x80, &[0; 400])].concat()).1, None);
}

#[test]
fn empty_fragments_without_end_are_ended() {
    let mut wire = frame(0x01, b"");
    (0..MAX_EMPTY + 1).for_each(|_| wire.extend_from_slice(&frame(0x00, b"")));
    assert_eq!(events(&wire).1, Some(1008));
}

#[test]
fn text_that_cannot_be_is_refused_before_its_frame_is_whole() {
    let wire = frame(0x81, b"abc\xff and more");
    assert_eq!(events(&wire[..10]).1, Some(1007));
}

#[test]
fn nothing_is_kept_while_nothing_comes() {
    let mut machine = Machine::new(1000, false);
    machine.receive(&frame(0x81, b"hello"));
    while machine.next_event().unwrap().is_some() {}
    assert_eq!(machine.buffer.capacity() + machine.control.capacity(), 0);
}

#[test]
fn lengths_are_written_in_the_fewest_bytes() {
    let heads = [(125, 2), (126, 4), (65535, 4), (65536, 10)];
    heads.into_iter().for_each(|(length, size)| assert_eq!(head(TEXT, length).len(), size, "{length}"));
}

proptest! {
    #[test]
    fn any_frames_in_any_pieces(
        frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..300)), 0..9),
        piece in 1usize..50,
    ) {
        let wire: Vec<u8> = frames.iter().flat_map(|(first, payload)| frame(*first, payload)).collect();
        prop_assert_eq!(in_pieces(&wire, piece), events(&wire));
    }

    #[test]
    fn messages_come_as_they_were_sent(
        messages in prop::collection::vec((any::<bool>(), ".{0,200}", 1usize..80), 0..9),
        piece in 1usize..50,
    ) {
        let (mut wire, mut sent) = (Vec::new(), Vec::new());
        for (binary, payload, size) in &messages {
            let opcode = if *binary { BINARY } else { TEXT };
            let pieces: Vec<_> = payload.as_bytes().chunks(*size).collect();
            for (at, piece) in pieces.iter().enumerate() {
                let fin = if at + 1 == pieces.len() { 0x80 } else { 0 };
                wire.extend_from_slice(&frame(fin | if at == 0 { opcode } else { 0 }, piece));
            }
            if pieces.is_empty() {
                wire.extend_from_slice(&frame(0x80 | opcode, b""));
            }
            let kind = if *binary { Kind::Binary } else { Kind::Text };
            sent.push(Event::Message(kind, Bytes::copy_from_slice(payload.as_bytes())));
        }
        prop_assert_eq!(in_pieces(&wire, piece), (sent, None));
    }
}

// ---- compressed messages

fn shrunk(message: &[u8]) -> Bytes {
    let agreed = crate::websocket::deflate::Deflate::from_offers([&b"permessage-deflate"[..]].into_iter());
    agreed.unwrap().shrink(message).unwrap()
}

/// All but the pauses, and how many of those there were.
fn inflated(wire: &[u8], piece: usize, limit: usize) -> (Vec<Event>, Option<u16>, usize) {
    let (mut machine, mut events, mut pauses) = (Machine::new(limit, true), Vec::new(), 0);
    for piece in wire.chunks(piece) {
        machine.receive(piece);
        loop {
            match machine.next_event() {
                Ok(Some(Event::Pause)) => pauses += 1,
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(violation) => return (events, Some(violation.code), pauses),
            }
        }
    }
    (events, None, pauses)
}

#[test]
fn a_compressed_message_in_fragments_beside_one_that_is_not() {
    let said = "compressed ".repeat(30);
    let coded = shrunk(said.as_bytes());
    let (first, rest) = coded.split_at(7);
    let wire = [frame(0x41, first), frame(0x89, b"?"), frame(0x00, b""), frame(0x80, rest), frame(0x81, b"plain")];
    for piece in [1, 5, 1000] {
        let (events, failed, _) = inflated(&wire.concat(), piece, 1000);
        assert_eq!(events, [Event::Ping(Bytes::from_static(b"?")), text(&said), text("plain")]);
        assert_eq!(failed, None);
    }
}

#[test]
fn faults_of_compressed_messages() {
    let (coded, bomb) = (shrunk(&[b'a'; 300]), shrunk(&[b'a'; 1001]));
    let not_text = shrunk(&[b"\xff".repeat(100), b"a".repeat(200)].concat());
    let cases: [(Vec<u8>, u16); 8] = [
        ([frame(0x01, b"a"), frame(0xC0, b"b")].concat(), 1002),
        (frame(0xC9, b"a"), 1002),
        (frame(0x61, &coded), 1002),
        (frame(0x51, &coded), 1002),
        (frame(0xC1, &bomb), 1009),
        (frame(0xC2, &bomb[..bomb.len() - 1]), 1009),
        (frame(0x41, &not_text), 1007),
        (frame(0xC2, b"\xff\xff\xff"), 1007),
    ];
    for (wire, code) in cases {
        assert_eq!(inflated(&wire, wire.len(), 1000).1, Some(code), "{wire:?}");
    }
    assert_eq!(inflated(&frame(0xC2, &shrunk(&[b'a'; 1000])), 1, 1000).1, None);
    assert_eq!(events(&frame(0xC1, &coded)).1, Some(1002), "nothing of it was agreed on");
    // What is on its way is bounded, too, where nothing comes of it.
    let nothing = frame(0x42, &[0, 0, 0, 0xFF, 0xFF].repeat(250));
    assert_eq!(inflated(&nothing, nothing.len(), 1000).1, Some(1009));
}

#[test]
fn the_first_fault_of_a_compressed_message_counts_however_it_is_cut() {
    let cases = [
        ([&b"a".repeat(900)[..], b"\xff", &b"a".repeat(900)].concat(), 1007),
        ([&b"a".repeat(1001)[..], b"\xff", &b"a".repeat(900)].concat(), 1009),
    ];
    for (message, code) in cases {
        let wire = frame(0xC1, &shrunk(&message));
        for piece in [1, 2, 5, wire.len()] {
            assert_eq!(inflated(&wire, piece, 1000).1, Some(code), "{piece}");
        }
    }
    let mut broken = shrunk(&[&b"a".repeat(300)[..], b"\xff", &b"b".repeat(300)].concat()).to_vec();
    broken.extend_from_slice(&[0xFF; 20]);
    let wire = frame(0xC1, &broken);
    for piece in [1, 3, wire.len()] {
        assert_eq!(inflated(&wire, piece, 1000).1, Some(1007), "{piece}");
    }
}

#[test]
fn a_large_message_is_inflated_in_turns() {
    let wire = frame(0xC2, &shrunk(&vec![0; 16 << 20]));
    let (events, failed, pauses) = inflated(&wire, wire.len(), 16 << 20);
    assert!(matches!(&events[..], [Event::Message(Kind::Binary, data)] if data.len() == 16 << 20));
    assert_eq!(failed, None);
    assert!(pauses > 25, "{pauses}");
}

proptest! {
    #[test]
    fn any_frames_in_any_pieces_may_be_compressed(
        frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..300)), 0..9),
        piece in 1usize..50,
    ) {
        let wire: Vec<u8> = frames.iter().flat_map(|(first, payload)| frame(*first, payload)).collect();
        let (whole, pieces) = (inflated(&wire, wire.len().max(1), 1000), inflated(&wire, piece, 1000));
        prop_assert_eq!((whole.0, whole.1), (pieces.0, pieces.1));
    }
}
