//! Forms. The first byte of the input says of which kind its body is, and how it is cut. Whatever it holds, reading it neither
//! panics nor finds more than it may, and in pieces it is what it is as a whole.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use portico_core::Config;
use portico_core::http::form::{FormPart, FormReader, FormValue, Limits, parse_form};

fn size(part: &FormPart) -> usize {
    part.name.len()
        + match &part.value {
            FormValue::Text(text) => text.len(),
            FormValue::File { filename, content, .. } => filename.len() + content.size() as usize,
        }
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    let content_type = match kind % 4 {
        0 => "application/x-www-form-urlencoded".to_string(),
        1 => "multipart/form-data; boundary=\"a b\"".to_string(),
        2 => String::from_utf8_lossy(body).into_owned(),
        _ => "multipart/form-data; boundary=X".to_string(),
    };
    let limits = Arc::new(Limits::from(&Config::default()));
    let whole = parse_form(&content_type, body, &limits);
    if let Ok(parts) = &whole {
        assert!(parts.len() <= 1_000);
        // Nothing is made of nothing: what is not UTF-8 becomes three bytes at the most.
        assert!(parts.iter().map(size).sum::<usize>() <= 3 * body.len());
    }
    let Ok(Some(mut reader)) = FormReader::new(&content_type, &limits) else { return };
    // Less than `form_memory_bytes`, so nothing waits to be written.
    let pieces = body.chunks(usize::from(kind / 4) + 1).try_for_each(|piece| reader.push(piece));
    match pieces.and_then(|()| reader.end()) {
        Ok(()) => assert_eq!(reader.into_parts().iter().map(size).sum::<usize>(), whole.unwrap().iter().map(size).sum()),
        Err(error) => assert_eq!(error, whole.unwrap_err()),
    }
});
