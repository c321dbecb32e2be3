//! The form in which paths are matched: percent-decoded, but for what would then mean something else.

use std::borrow::Cow;

use percent_encoding::{percent_decode, percent_decode_str};

use crate::http::target::decode_path;

/// A request's path as patterns are compared with it: decoded (RFC 3986 section 6.2.2.2), in UTF-8, without dot segments.
///
/// What stays percent-encoded is a slash, so that `%2F` does not split a segment, the `%` itself, and bytes that are no
/// UTF-8: decoding once more gives [`crate::http::Request::path_bytes`]. A path that has a dot segment once it is decoded,
/// as `..%2Fetc`, is resolved as that one is; there an encoded slash is a slash, and no parameter ever has a `..` in it.
pub(crate) fn match_path(raw: &str) -> Cow<'_, str> {
    let encoded = memchr::memchr(b'%', raw.as_bytes()).is_some();
    if !encoded && memchr::memmem::find(raw.as_bytes(), b"/.").is_none() {
        return Cow::Borrowed(raw);
    }
    let (decoded, resolved) = (Cow::from(percent_decode_str(raw)), decode_path(raw));
    if decoded != resolved {
        let mut path = String::with_capacity(resolved.len());
        escape(&mut path, &resolved, false);
        return Cow::Owned(path);
    }
    if !encoded {
        return Cow::Borrowed(raw);
    }
    let mut path = String::with_capacity(raw.len());
    for (index, segment) in raw.split('/').enumerate() {
        if index > 0 {
            path.push('/');
        }
        escape(&mut path, &Cow::from(percent_decode_str(segment)), true);
    }
    Cow::Owned(path)
}

/// The text of a pattern in the same form.
pub(super) fn literal(text: &str) -> String {
    let mut path = String::with_capacity(text.len());
    escape(&mut path, text.as_bytes(), false);
    path
}

/// What a part of such a path stands for; what is not UTF-8 becomes U+FFFD.
pub(super) fn decode(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

/// How many bytes it stands for.
pub(super) fn decoded_len(part: &str) -> usize {
    percent_decode(part.as_bytes()).count()
}

fn escape(path: &mut String, bytes: &[u8], slashes: bool) {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '%' => path.push_str("%25"),
                '/' if slashes => path.push_str("%2F"),
                character => path.push(character),
            }
        }
        chunk.invalid().iter().for_each(|byte| path.push_str(percent_encoding::percent_encode_byte(*byte)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decoding_would_change_the_meaning_of_stays() {
        for (raw, path) in [
            ("/a/b", "/a/b"),
            ("/%61%20b%C3%A9", "/a b\u{e9}"),
            ("/a%2Fb/c", "/a%2Fb/c"),
            ("/a%2fb", "/a%2Fb"),
            ("/100%25", "/100%25"),
            ("/%252F", "/%252F"),
            ("/%zz%", "/%25zz%25"),
            ("/%ff/%C3", "/%FF/%C3"),
            ("/.hidden/a..b", "/.hidden/a..b"),
            ("/a/./b/../c", "/a/c"),
            ("/a/%2e%2e/%62", "/b"),
            ("/a/..%2Fetc%2Fx", "/etc/x"),
            ("/a%2F..%2Fb%25", "/b%25"),
            ("/{a}", "/{a}"),
        ] {
            assert_eq!(match_path(raw), path, "{raw}");
            assert_eq!(percent_decode_str(path).collect::<Vec<_>>(), decode_path(raw).into_owned(), "{raw}");
        }
    }
}
