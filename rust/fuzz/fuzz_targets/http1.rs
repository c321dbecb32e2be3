//! HTTP/1 requests in fragments. The first byte of the input says how the rest is cut; however that is, the machine must
//! neither panic, nor loop, nor see other requests than in the uncut bytes.

#![no_main]

use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use portico_core::Config;
use portico_core::http::h1::{Event, Limits, Machine};

#[derive(Debug, PartialEq)]
struct Seen {
    requests: Vec<(String, String, Vec<u8>)>,
    refused: Option<&'static str>,
}

fn run<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Seen {
    let now = Instant::now();
    let mut machine = Machine::new(Limits::from(&Config::default()), now);
    let mut seen = Seen { requests: Vec::new(), refused: None };
    let mut current = None;
    for piece in pieces {
        machine.receive(piece, now);
        loop {
            match machine.next_event(now) {
                Ok(Event::NeedMore | Event::End { .. }) => break,
                Ok(Event::Request(head)) => {
                    current = Some((head.method.to_string(), head.target.raw_path().to_string(), Vec::new()));
                }
                Ok(Event::Body(data)) => {
                    if let Some((_, _, body)) = &mut current {
                        body.extend_from_slice(&data);
                    }
                }
                Ok(Event::EndOfBody) => {
                    seen.requests.extend(current.take());
                    machine.answered(now);
                }
                Err(error) => {
                    seen.refused = Some(error.refusal.label());
                    return seen;
                }
            }
        }
    }
    seen
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, wire)) = data.split_first() else { return };
    let size = usize::from(*cut).max(1);
    assert_eq!(run(std::iter::once(wire)), run(wire.chunks(size)));
});
