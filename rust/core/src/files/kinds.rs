//! What a file is, by the end of its name.

use http::header::HeaderValue;

/// For what has no known ending (RFC 9110 section 8.3).
const UNKNOWN: &str = "application/octet-stream";

/// The content type for a file's name; text is taken for UTF-8.
pub fn content_type(name: &[u8]) -> HeaderValue {
    let kind = guess(name);
    if !kind.starts_with("text/") {
        return HeaderValue::from_static(kind);
    }
    // The common ones are not put together each time.
    match kind {
        "text/html" => HeaderValue::from_static("text/html; charset=utf-8"),
        "text/css" => HeaderValue::from_static("text/css; charset=utf-8"),
        "text/javascript" => HeaderValue::from_static("text/javascript; charset=utf-8"),
        "text/plain" => HeaderValue::from_static("text/plain; charset=utf-8"),
        other => {
            let kind = HeaderValue::try_from(format!("{other}; charset=utf-8"));
            kind.unwrap_or(HeaderValue::from_static(UNKNOWN))
        }
    }
}

/// Whether files of that content type shrink when they are compressed, so that compressed ones may lie beside them.
pub(super) fn shrinks(content_type: &HeaderValue) -> bool {
    let kind = content_type.to_str().unwrap_or_default();
    let (family, rest) = kind.split_once('/').unwrap_or_default();
    match family {
        "text" => true,
        "image" => matches!(rest, "svg+xml" | "bmp" | "x-icon" | "vnd.microsoft.icon"),
        "font" => matches!(rest, "ttf" | "otf" | "sfnt"),
        "video" | "audio" => false,
        _ => !matches!(
            rest,
            "zip" | "gzip" | "x-gzip" | "x-bzip2" | "x-xz" | "x-7z-compressed" | "zstd" | "java-archive" | "font-woff"
        ),
    }
}

fn guess(name: &[u8]) -> &'static str {
    let file = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let Some(dot) = memchr::memrchr(b'.', file).filter(|dot| *dot > 0) else { return UNKNOWN };
    let ending = std::str::from_utf8(&file[dot + 1..]).unwrap_or_default();
    match mime_guess::from_ext(ending).first_raw() {
        // Its name since RFC 9239.
        Some("application/javascript") => "text/javascript",
        known => known.unwrap_or(UNKNOWN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_by_ending() {
        for (name, kind) in [
            ("index.html", "text/html; charset=utf-8"),
            ("A.CSS", "text/css; charset=utf-8"),
            ("a/b.min.js", "text/javascript; charset=utf-8"),
            ("a.mjs", "text/javascript; charset=utf-8"),
            ("a.csv", "text/csv; charset=utf-8"),
            ("a.json", "application/json"),
            ("a.svg", "image/svg+xml"),
            ("a.wasm", "application/wasm"),
            ("a.woff2", "font/woff2"),
            ("a.tar.gz", "application/gzip"),
            ("a.mp4", "video/mp4"),
            ("README", UNKNOWN),
            ("a.", UNKNOWN),
            (".html", UNKNOWN),
            ("a.b/c", UNKNOWN),
        ] {
            assert_eq!(content_type(name.as_bytes()), kind, "{name}");
        }
        assert_eq!(content_type(b"a.\xff"), UNKNOWN);
    }

    #[test]
    fn what_is_compressed_already_does_not_shrink() {
        for (name, expected) in [("a.html", true), ("a.json", true), ("a.svg", true), ("a.png", false), ("a.gz", false)]
        {
            assert_eq!(shrinks(&content_type(name.as_bytes())), expected, "{name}");
        }
    }
}
