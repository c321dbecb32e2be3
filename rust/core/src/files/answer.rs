//! A file as the answer to a request: whole, in parts, or not at all (RFC 9110 sections 13.2.2, 14 and 15.3.7).

use std::ops::Range;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::conditions::{self, Outcome, Validators};
use super::ranges::Ranges;
use super::{OpenFile, read};
use crate::http::{Body, Request, Response, date};

/// Sends the file that is a response's body by what the request asks: its conditions, its ranges. A response without a
/// file, and one to a method that does not read, stay as they are.
///
/// `ETag` and `Last-Modified` are the file's, unless the response has its own, by which then is gone. With another status
/// than 200 the file is sent whole, and neither is added: it is no representation of what was asked for. So it is with a
/// `Content-Range` of the response's own.
pub fn answer(request: &Request, mut response: Response) -> Response {
    let file = match std::mem::take(&mut response.body) {
        Body::File(file) => file,
        body => return Response { body, ..response },
    };
    let reads = request.method == Method::GET || request.method == Method::HEAD;
    let is_representation = response.status == StatusCode::OK && find(&response, &header::CONTENT_RANGE).is_none();
    if !reads || !is_representation {
        response.body = Body::File(file);
        return response;
    }
    let now = SystemTime::now();
    if find(&response, &header::ETAG).is_none() {
        response.headers.push((header::ETAG, file.etag()));
    }
    if find(&response, &header::LAST_MODIFIED).is_none() {
        response.headers.push((header::LAST_MODIFIED, date::of(file.modified(now))));
    }
    let etag = find(&response, &header::ETAG).map_or(&b""[..], HeaderValue::as_bytes);
    let modified =
        find(&response, &header::LAST_MODIFIED).and_then(|value| httpdate::parse_http_date(value.to_str().ok()?).ok());
    let is = Validators { etag, modified };
    match conditions::evaluate(&request.headers, &request.method, is) {
        Outcome::Met => {}
        Outcome::NotModified => return not_modified(response),
        Outcome::Failed => return Response::plain(StatusCode::PRECONDITION_FAILED),
    }
    let ranges = match asked_range(request) {
        Some(value) if conditions::lets_ranges(&request.headers, is, now) => Ranges::parse(value, file.length()),
        _ => Ranges::Whole,
    };
    match ranges {
        Ranges::Unsatisfiable => return unsatisfiable(&file),
        Ranges::Parts(parts) => send_parts(&mut response, &file, parts),
        // What has no body for HEAD is not read for it.
        Ranges::Whole if request.method == Method::HEAD => response.body = Body::File(file),
        Ranges::Whole => response.body = file.body(),
    }
    if find(&response, &header::ACCEPT_RANGES).is_none() {
        response.headers.push((header::ACCEPT_RANGES, HeaderValue::from_static("bytes")));
    }
    response
}

fn find<'a>(response: &'a Response, name: &HeaderName) -> Option<&'a HeaderValue> {
    response.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

/// The `Range` of a request that may have one: only GET (section 14.2), and only a single line.
fn asked_range(request: &Request) -> Option<&[u8]> {
    let mut values = request.headers.get_all("range").filter(|_| request.method == Method::GET);
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    Some(value)
}

/// Without what describes a body that is not sent (section 15.4.5).
fn not_modified(mut response: Response) -> Response {
    response.status = StatusCode::NOT_MODIFIED;
    let of_body = [
        header::CONTENT_TYPE,
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_DISPOSITION,
    ];
    response.headers.retain(|(name, _)| !of_body.contains(name));
    response
}

fn unsatisfiable(file: &OpenFile) -> Response {
    let mut response = Response::plain(StatusCode::RANGE_NOT_SATISFIABLE);
    push(&mut response, header::CONTENT_RANGE, format!("bytes */{}", file.length()));
    response
}

fn send_parts(response: &mut Response, file: &OpenFile, parts: Vec<Range<u64>>) {
    response.status = StatusCode::PARTIAL_CONTENT;
    // The length that it names is that of the whole.
    response.headers.retain(|(name, _)| name != header::CONTENT_LENGTH);
    let size = file.length();
    let told = |range: &Range<u64>| format!("bytes {}-{}/{size}", range.start, range.end - 1);
    let place = |range: &Range<u64>| file.from() + range.start..file.from() + range.end;
    if let [range] = &parts[..] {
        push(response, header::CONTENT_RANGE, told(range));
        response.body = read::body(file, place(range));
        return;
    }
    let boundary = boundary();
    let at = response.headers.iter().position(|(name, _)| name == header::CONTENT_TYPE);
    let kind = at.map(|at| response.headers.swap_remove(at).1);
    let kind = kind.as_ref().map_or(&b"application/octet-stream"[..], HeaderValue::as_bytes);
    let with_heads = parts.iter().enumerate().map(|(index, range)| {
        let mut head = Vec::with_capacity(160);
        // What comes before the first boundary would be a preamble (RFC 2046 section 5.1.1).
        let before = if index == 0 { "--" } else { "\r\n--" };
        head.extend_from_slice(format!("{before}{boundary}\r\ncontent-type: ").as_bytes());
        head.extend_from_slice(kind);
        head.extend_from_slice(format!("\r\ncontent-range: {}\r\n\r\n", told(range)).as_bytes());
        (Bytes::from(head), place(range))
    });
    response.body = read::body_of_parts(file, with_heads.collect(), format!("\r\n--{boundary}--\r\n").into());
    push(response, header::CONTENT_TYPE, format!("multipart/byteranges; boundary={boundary}"));
}

/// What no part has in it, because nobody knows it beforehand.
fn boundary() -> String {
    let mut random = [0; 16];
    // It fails only where the machine has no randomness, and TLS would not have come so far.
    let _ = aws_lc_rs::rand::fill(&mut random);
    format!("{:032x}", u128::from_ne_bytes(random))
}

fn push(response: &mut Response, name: HeaderName, value: String) {
    // Numbers and names of ours, which may stand in a header.
    response.headers.extend(HeaderValue::try_from(value).ok().map(|value| (name, value)));
}
