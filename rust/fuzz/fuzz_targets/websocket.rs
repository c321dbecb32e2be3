//! Frames of WebSockets in fragments. The first byte of the input says how the rest is cut, and whether messages may be
//! compressed; however that is, the machine must neither panic, nor loop, nor find anything else than in the uncut bytes,
//! and keep to the limit of messages.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portico_core::websocket::{Close, Event, Kind, Machine};

const LIMIT: usize = 300;

fn run<'a>(inflates: bool, pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Event>, Option<u16>) {
    let mut machine = Machine::new(LIMIT, inflates);
    let mut events = Vec::new();
    for piece in pieces {
        machine.receive(piece);
        loop {
            match machine.next_event() {
                Ok(None) => break,
                // Where it comes depends on the pieces.
                Ok(Some(Event::Pause)) => {}
                Ok(Some(event)) => {
                    check(&event);
                    events.push(event);
                }
                Err(violation) => {
                    assert!(Close::may_be_sent(violation.code));
                    return (events, Some(violation.code));
                }
            }
        }
    }
    (events, None)
}

fn check(event: &Event) {
    match event {
        Event::Message(kind, payload) => {
            assert!(payload.len() <= LIMIT);
            assert!(*kind == Kind::Binary || std::str::from_utf8(payload).is_ok());
        }
        Event::Pause => {}
        Event::Ping(payload) | Event::Pong(payload) => assert!(payload.len() <= 125),
        Event::Close(close) => assert!(close.code == Close::NONE || Close::may_be_sent(close.code)),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, wire)) = data.split_first() else { return };
    let (size, inflates) = (usize::from(*cut & 0x7F).max(1), *cut & 0x80 != 0);
    assert_eq!(run(inflates, std::iter::once(wire)), run(inflates, wire.chunks(size)));
});
