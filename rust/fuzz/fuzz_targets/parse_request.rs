//! `portico.parse_request`: bytes that are to be exactly one request. Whatever they are, there is one answer, and it is
//! that of the machine fed byte by byte; a beginning of a request is incomplete, and one that was refused stays refused.

#![no_main]

use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use portico_core::Config;
use portico_core::http::h1::{Event, Limits, Machine, Unparsed, parse_request};

/// Where the first request ends, by the machine that gets one byte after the other; none where it needs more.
fn byte_by_byte(bytes: &[u8], limits: Limits) -> Result<Option<usize>, Unparsed> {
    let now = Instant::now();
    let mut machine = Machine::new(limits, now);
    for (at, byte) in bytes.iter().enumerate() {
        machine.receive(std::slice::from_ref(byte), now);
        loop {
            match machine.next_event(now).map_err(Unparsed::Refused)? {
                Event::EndOfBody => return Ok(Some(at + 1)),
                Event::NeedMore | Event::End { .. } => break,
                Event::Request(_) | Event::Body(_) => {}
            }
        }
    }
    Ok(None)
}

fuzz_target!(|data: &[u8]| {
    let limits = Limits::from(&Config::default());
    let parsed = parse_request(data, limits);
    match (&parsed, byte_by_byte(data, limits)) {
        (Ok(request), end) => {
            assert_eq!(end, Ok(Some(data.len())));
            let _ = (request.url(), request.path(), request.text(), request.cookies().count());
            let cut = data.len() / 2;
            assert_eq!(parse_request(&data[..cut], limits).unwrap_err(), Unparsed::Incomplete);
        }
        (Err(Unparsed::Incomplete), end) => assert_eq!(end, Ok(None)),
        (Err(Unparsed::Longer(end)), found) => {
            assert_eq!(found, Ok(Some(*end)));
            assert!(parse_request(&data[..*end], limits).is_ok());
        }
        (Err(Unparsed::Refused(error)), Err(Unparsed::Refused(found))) => assert_eq!(error.refusal, found.refusal),
        (Err(refused), found) => panic!("{refused:?} at once, {found:?} byte by byte"),
    }
});
