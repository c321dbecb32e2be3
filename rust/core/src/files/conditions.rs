//! Conditions under which a request wants an answer (RFC 9110 section 13).

use std::time::{Duration, SystemTime};

use http::Method;

use crate::http::Headers;

/// What a representation is told by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validators<'a> {
    /// The whole entity tag, quotes and maybe `W/` included.
    pub(super) etag: &'a [u8],
    /// When it was changed, in whole seconds.
    pub(super) modified: Option<SystemTime>,
}

/// What the conditions come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The request is answered as if there were none.
    Met,
    /// 304: the client has it.
    NotModified,
    /// 412: it is not what the client means.
    Failed,
}

/// Evaluates them in the order of section 13.2.2. What is malformed is no condition.
pub(super) fn evaluate(headers: &Headers, method: &Method, is: Validators<'_>) -> Outcome {
    let unchanged_since = |name| match (date(headers, name), is.modified) {
        (Some(date), Some(modified)) => Some(modified <= date),
        _ => None,
    };
    let matched = match headers.get("if-match") {
        Some(_) => names(headers, "if-match", |tag| strong(tag) && tag == is.etag),
        None => unchanged_since("if-unmodified-since").unwrap_or(true),
    };
    if !matched {
        return Outcome::Failed;
    }
    let reads = *method == Method::GET || *method == Method::HEAD;
    let known = match headers.get("if-none-match") {
        Some(_) => names(headers, "if-none-match", |tag| opaque(tag) == opaque(is.etag)),
        None => reads && unchanged_since("if-modified-since").unwrap_or(false),
    };
    match (known, reads) {
        (false, _) => Outcome::Met,
        (true, true) => Outcome::NotModified,
        (true, false) => Outcome::Failed,
    }
}

/// Whether `If-Range` lets a range be answered (section 13.1.5): without it, or where it says exactly what there is.
pub(super) fn lets_ranges(headers: &Headers, is: Validators<'_>, now: SystemTime) -> bool {
    let Some(value) = headers.get("if-range") else { return true };
    if value.starts_with(b"\"") || value.starts_with(b"W/") {
        return strong(value) && value == is.etag;
    }
    // A date only says that nothing has changed where that second is over (section 8.8.2.2).
    let is_over = |modified: SystemTime| now.duration_since(modified).is_ok_and(|age| age >= Duration::from_secs(1));
    is.modified.is_some_and(|modified| is_over(modified) && date(headers, "if-range") == Some(modified))
}

/// The date of a header that came once and is one.
fn date(headers: &Headers, name: &str) -> Option<SystemTime> {
    let mut values = headers.get_all(name);
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()
}

/// Whether one of a header's entity tags fits; `*` always does, because there is a representation.
fn names(headers: &Headers, name: &str, fits: impl Fn(&[u8]) -> bool) -> bool {
    headers.get_all(name).any(|value| value.trim_ascii() == b"*" || tags(value).any(&fits))
}

/// The entity tags of a list (section 8.8.3), up to what is none. A comma may stand in one.
fn tags(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        while let [b' ' | b'\t' | b',', rest @ ..] = list {
            list = rest;
        }
        let quote = if list.starts_with(b"W/") { 2 } else { 0 };
        if list.get(quote) != Some(&b'"') {
            return None;
        }
        let end = quote + 1 + memchr::memchr(b'"', list.get(quote + 1..)?)? + 1;
        let (tag, rest) = list.split_at(end);
        list = rest;
        Some(tag)
    })
}

fn strong(tag: &[u8]) -> bool {
    !tag.starts_with(b"W/")
}

fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn headers(lines: &[(&'static str, &str)]) -> Headers {
        let mut map = http::HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, http::HeaderValue::from_str(value).unwrap());
        }
        Headers::from_map(None, &map)
    }

    fn is(etag: &str) -> Validators<'_> {
        Validators { etag: etag.as_bytes(), modified: Some(httpdate::parse_http_date(THEN).unwrap()) }
    }

    fn of_get(lines: &[(&'static str, &str)]) -> Outcome {
        evaluate(&headers(lines), &Method::GET, is("\"a\""))
    }

    #[test]
    fn each_by_itself() {
        use Outcome::{Failed, Met, NotModified};
        for (name, value, expected) in [
            ("if-match", "\"a\"", Met),
            ("if-match", "*", Met),
            ("if-match", "\"b\", \"a\"", Met),
            ("if-match", "W/\"a\"", Failed),
            ("if-match", "\"b\"", Failed),
            ("if-match", "nonsense", Failed),
            ("if-none-match", "\"a\"", NotModified),
            ("if-none-match", "W/\"a\"", NotModified),
            ("if-none-match", "\"x,y\" ,, W/\"a\"", NotModified),
            ("if-none-match", " * ", NotModified),
            ("if-none-match", "\"b\"", Met),
            ("if-none-match", "a", Met),
            ("if-modified-since", THEN, NotModified),
            ("if-modified-since", AFTER, NotModified),
            ("if-modified-since", BEFORE, Met),
            ("if-modified-since", "yesterday", Met),
            ("if-modified-since", "Sunday, 06-Nov-94 08:49:37 GMT", NotModified),
            ("if-modified-since", "Sun Nov  6 08:49:37 1994", NotModified),
            ("if-unmodified-since", THEN, Met),
            ("if-unmodified-since", BEFORE, Failed),
            ("if-unmodified-since", "yesterday", Met),
        ] {
            assert_eq!(of_get(&[(name, value)]), expected, "{name}: {value}");
        }
    }

    #[test]
    fn tags_go_before_dates() {
        assert_eq!(of_get(&[("if-none-match", "\"b\""), ("if-modified-since", THEN)]), Outcome::Met);
        assert_eq!(of_get(&[("if-match", "\"a\""), ("if-unmodified-since", BEFORE)]), Outcome::Met);
        assert_eq!(of_get(&[("if-match", "\"a\""), ("if-none-match", "\"a\"")]), Outcome::NotModified);
        assert_eq!(of_get(&[("if-match", "\"b\""), ("if-none-match", "\"a\"")]), Outcome::Failed);
        assert_eq!(of_get(&[("if-modified-since", THEN), ("if-modified-since", THEN)]), Outcome::Met, "no date");
    }

    #[test]
    fn what_changes_things_is_not_told_that_nothing_changed() {
        let post = |lines: &[_]| evaluate(&headers(lines), &Method::POST, is("\"a\""));
        assert_eq!(post(&[("if-none-match", "*")]), Outcome::Failed);
        assert_eq!(post(&[("if-modified-since", AFTER)]), Outcome::Met);
    }

    #[test]
    fn ranges_need_exactly_what_there_is() {
        let now = httpdate::parse_http_date(THEN).unwrap() + Duration::from_secs(60);
        for (value, expected) in [
            ("\"a\"", true),
            ("W/\"a\"", false),
            ("\"b\"", false),
            (THEN, true),
            (AFTER, false),
            (BEFORE, false),
            ("nonsense", false),
        ] {
            assert_eq!(lets_ranges(&headers(&[("if-range", value)]), is("\"a\""), now), expected, "{value}");
        }
        assert!(lets_ranges(&headers(&[]), is("\"a\""), now));
        assert!(!lets_ranges(&headers(&[("if-range", "W/\"a\"")]), is("W/\"a\""), now));
        let at_once = now - Duration::from_millis(59_500);
        assert!(!lets_ranges(&headers(&[("if-range", THEN)]), is("\"a\""), at_once), "it may change once more");
    }

    proptest! {
        #[test]
        fn tags_are_parts_of_their_list(list in "[W/\", a*]{0,24}") {
            for tag in tags(list.as_bytes()) {
                prop_assert!(opaque(tag).len() >= 2 && opaque(tag).starts_with(b"\"") && tag.ends_with(b"\""));
            }
        }
    }
}
