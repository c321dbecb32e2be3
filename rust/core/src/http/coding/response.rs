//! Which responses are coded, and what that changes of their heads.

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::{AcceptEncoding, Coding, Encoders, encoder};
use crate::config::Config;
use crate::http::{Body, Pieces, Response};

/// Bodies up to this size are coded at once, so that their length is known; larger ones while they are sent.
const AT_ONCE: usize = 32 * 1024;
/// How much of a larger one is tried, to see whether it shrinks.
const TRIED: usize = 16 * 1024;

/// Types besides `text/*`, `*+json` and `*+xml` that shrink. Whatever is compressed already is not here.
const SHRINKING: &[&str] = &[
    "application/graphql",
    "application/javascript",
    "application/json",
    "application/manifest",
    "application/rtf",
    "application/wasm",
    "application/x-javascript",
    "application/x-ndjson",
    "application/xml",
    "application/yaml",
    "font/otf",
    "font/ttf",
    "image/bmp",
    "image/svg+xml",
    "image/vnd.microsoft.icon",
    "image/x-icon",
];

impl Response {
    /// Codes the body where client, server and handler want it, and where that makes it smaller.
    pub(crate) fn encode(&mut self, asked: &AcceptEncoding, method: &Method, config: &Config, encoders: &Encoders) {
        if self.upgrade.is_some() || !self.may_be_coded() || config.compression.is_empty() {
            return;
        }
        if self.body.length().is_some_and(|length| length < config.compression_min_bytes.max(1) as u64) {
            return;
        }
        self.vary();
        let Some(coding) = asked.choose(&config.compression) else { return };
        let body = match std::mem::take(&mut self.body) {
            Body::Whole(whole) if whole.len() <= AT_ONCE => {
                encoder::shrink(coding, &whole).map(Body::from).ok_or(Body::Whole(whole))
            }
            Body::Whole(whole) if encoder::shrink(coding, &whole[..TRIED]).is_none() => Err(Body::Whole(whole)),
            Body::Whole(whole) => {
                let here = Pieces::new(None, encoder::Here(Some(whole.clone())));
                coded(coding, method, here, encoders).map_err(|_| Body::Whole(whole))
            }
            Body::Pieces(pieces) => coded(coding, method, pieces, encoders).map_err(Body::Pieces),
            // That of an answer to HEAD, which nobody reads.
            Body::File(file) => coded(coding, method, file.pieces(), encoders).map_err(|_| Body::File(file)),
        };
        match body {
            Ok(coded) => {
                self.body = coded;
                self.coded_by(coding.name());
            }
            Err(plain) => self.body = plain,
        }
    }

    /// Whether type, status and headers let it be coded. A handler may say no by `content-encoding: identity`, which is no
    /// coding and stands in no response (RFC 9110 section 8.4).
    fn may_be_coded(&mut self) -> bool {
        let mut shrinks = false;
        for at in 0..self.headers.len() {
            let (name, value) = &self.headers[at];
            if *name == header::CONTENT_TYPE {
                shrinks = shrinking(value.as_bytes());
            } else if *name == header::CONTENT_ENCODING {
                if value.as_bytes().eq_ignore_ascii_case(b"identity") {
                    self.headers.remove(at);
                }
                return false;
            } else if *name == header::CONTENT_RANGE
                || is_digest(name)
                || (*name == header::TRAILER && DIGESTS.iter().any(|digest| has_word(value, digest)))
                || (*name == header::CACHE_CONTROL && has_word(value, "no-transform"))
            {
                return false;
            }
        }
        shrinks && !self.forbids_body() && self.status != StatusCode::PARTIAL_CONTENT
    }

    /// Says that another client may get another form (RFC 9110 section 12.5.5).
    fn vary(&mut self) {
        let said = self
            .headers
            .iter()
            .any(|(name, value)| *name == header::VARY && (has_word(value, "accept-encoding") || has_word(value, "*")));
        if said {
            return;
        }
        let first = self.headers.iter_mut().find(|(name, _)| *name == header::VARY);
        let merged = first
            .as_ref()
            .and_then(|(_, value)| value.to_str().ok())
            .and_then(|value| HeaderValue::try_from(format!("{value}, accept-encoding")).ok());
        match (first, merged) {
            (Some((_, value)), Some(merged)) => *value = merged,
            _ => self.headers.push((header::VARY, HeaderValue::from_static("accept-encoding"))),
        }
    }

    fn coded_by(&mut self, coding: &'static str) {
        // Ranges would be those of the coded form, of which no two need be alike.
        self.headers.retain(|(name, _)| *name != header::CONTENT_LENGTH && *name != header::ACCEPT_RANGES);
        self.headers.iter_mut().for_each(weaken);
        self.headers.push((header::CONTENT_ENCODING, HeaderValue::from_static(coding)));
    }
}

/// The coded body. That of an answer to HEAD is never sent, so it needs no encoder.
fn coded(coding: Coding, method: &Method, from: Pieces, encoders: &Encoders) -> Result<Body, Pieces> {
    if method == Method::HEAD {
        return Ok(Body::Pieces(Pieces::new(None, encoder::Here(None))));
    }
    encoder::coded(coding, from, encoders).map(Body::Pieces)
}

/// Digests of the content as the handler gave it (RFC 9530), which coding would make wrong.
const DIGESTS: [&str; 4] = ["content-digest", "content-md5", "digest", "repr-digest"];

fn is_digest(name: &HeaderName) -> bool {
    DIGESTS.contains(&name.as_str())
}

/// Other bytes than those that a strong one stands for (RFC 9110 section 8.8.3.3).
fn weaken((name, value): &mut (HeaderName, HeaderValue)) {
    if *name == header::ETAG && value.as_bytes().starts_with(b"\"") {
        let weak = [b"W/", value.as_bytes()].concat();
        if let Ok(weak) = HeaderValue::from_bytes(&weak) {
            *value = weak;
        }
    }
}

/// Makes a trailer right for a coded body; whether there is one then. A digest that no `Trailer` had announced is left out.
pub(super) fn of_other_bytes(trailer: &mut (HeaderName, HeaderValue)) -> bool {
    weaken(trailer);
    !is_digest(&trailer.0)
}

fn has_word(value: &HeaderValue, word: &str) -> bool {
    value.as_bytes().split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

/// Whether a content type is one of text. Event streams are not among them: each would keep an encoder for as long as its
/// client stays.
fn shrinking(content_type: &[u8]) -> bool {
    let essence = content_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    let Ok(essence) = std::str::from_utf8(&essence) else { return false };
    (essence.starts_with("text/") && essence != "text/event-stream")
        || essence.ends_with("+json")
        || essence.ends_with("+xml")
        || SHRINKING.contains(&essence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_text_shrink() {
        for good in ["text/html; charset=utf-8", "Application/JSON", "application/problem+json", "image/svg+xml"] {
            assert!(shrinking(good.as_bytes()), "{good}");
        }
        for bad in ["", "image/png", "application/octet-stream", "text/event-stream", "application/zip"] {
            assert!(!shrinking(bad.as_bytes()), "{bad}");
        }
    }
}
