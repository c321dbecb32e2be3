//! Headers of the PROXY protocol: however much of one is there, what is to be read next is bounded and comes to an end, and
//! only what was read whole is taken for one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portico_core::proxy::Header;
use portico_core::proxy::protocol::{FIRST, Next, next};

fuzz_target!(|data: &[u8]| {
    let _ = Header::parse(data);
    let mut end = FIRST;
    while let Some(read) = data.get(..end) {
        match next(read) {
            Ok(Next::Exactly(more)) => {
                assert!(more > 0 && end + more <= 16 + usize::from(u16::MAX));
                end += more;
            }
            Ok(Next::Line) => {
                assert!(end < 107);
                end += 1;
            }
            Ok(Next::Done) => {
                let header = Header::parse(read);
                if let Ok(header) = &header {
                    assert!(header.version == 1 || read.starts_with(b"\r\n\r\n\0\r\nQUIT\n"));
                    assert!(!header.local || header.addresses.is_none());
                }
                return;
            }
            Err(_) => {
                assert!(Header::parse(read).is_err());
                return;
            }
        }
    }
});
