//! Forms. The first byte of the input says of which kind its body is. Whatever it holds, reading it neither panics nor finds
//! more than it may.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portico_core::http::form::parse_form;

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    let body = bytes::Bytes::copy_from_slice(body);
    let content_type = match kind % 4 {
        0 => "application/x-www-form-urlencoded".to_string(),
        1 => "multipart/form-data; boundary=\"a b\"".to_string(),
        2 => String::from_utf8_lossy(&body).into_owned(),
        _ => "multipart/form-data; boundary=X".to_string(),
    };
    let length = body.len();
    if let Ok(parts) = parse_form(&content_type, body) {
        assert!(parts.len() <= 1_000);
        // Nothing is made of nothing: what is not UTF-8 becomes three bytes at the most.
        assert!(parts.iter().map(|part| part.name.len() + part.data.len()).sum::<usize>() <= 3 * length);
    }
});
