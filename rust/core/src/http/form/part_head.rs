//! The head of a part of a multipart form, and the boundary between parts.
//!
//! Two readers of one form must not see two things, so what can be read in two ways is refused: a name that comes twice, a
//! line that is folded or has no colon, a control character, an encoding that is not undone here.

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};
use percent_encoding::percent_decode;

use super::{malformed, over};
use crate::error::RequestError;

/// RFC 2046 section 5.1.1.
const MAX_BOUNDARY: usize = 70;

/// What the head of a part says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PartHead {
    pub(super) name: String,
    /// Only a file has one.
    pub(super) filename: Option<String>,
    pub(super) content_type: Option<String>,
    /// That of the content type, else UTF-8.
    pub(super) charset: &'static Encoding,
}

impl PartHead {
    /// Reads lines, each with its CRLF; `number` says which part it is.
    pub(super) fn parse(head: &[u8], number: usize, most_lines: usize) -> Result<Self, RequestError> {
        let wrong = |why: &str| malformed(format_args!("the head of part {number}: {why}"));
        let (mut disposition, mut content_type, mut encoding) = (None, None, None);
        let mut rest = head;
        let mut lines = 0;
        while let Some(at) = memchr::memmem::find(rest, b"\r\n") {
            let line = &rest[..at];
            rest = &rest[at + 2..];
            lines += 1;
            if lines > most_lines {
                let what = format_args!("the head of part {number} has more than {most_lines} lines");
                return Err(over(what, "max_headers"));
            }
            if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
                return Err(wrong("a control character, or half a line end"));
            }
            let colon = memchr::memchr(b':', line).ok_or_else(|| wrong("a line without a colon"))?;
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if !is_token(name) {
                return Err(wrong("what stands before a colon is no name of a header"));
            }
            let known = match name.to_ascii_lowercase().as_slice() {
                b"content-disposition" => &mut disposition,
                b"content-type" => &mut content_type,
                b"content-transfer-encoding" => &mut encoding,
                _ => continue,
            };
            if known.replace(value).is_some() {
                return Err(wrong(&format!("{} comes twice", String::from_utf8_lossy(name))));
            }
        }
        // RFC 7578 section 4.7: deprecated; the three that change nothing are let be.
        if let Some(encoding) = encoding
            && !["7bit", "8bit", "binary"].iter().any(|known| encoding.eq_ignore_ascii_case(known.as_bytes()))
        {
            let encoding = String::from_utf8_lossy(encoding);
            return Err(wrong(&format!(
                "content-transfer-encoding {encoding} is not undone here: send bytes as they are"
            )));
        }
        let disposition = disposition.ok_or_else(|| wrong("it has no content-disposition"))?;
        let (kind, parameters) =
            parameters(disposition).map_err(|why| wrong(&format!("content-disposition: {why}")))?;
        if !kind.eq_ignore_ascii_case(b"form-data") {
            return Err(wrong("its content-disposition is not form-data"));
        }
        let one = |name: &str| parameters.iter().find(|known| known.0 == name).map(|known| known.1.as_slice());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let filename = match (one("filename"), one("filename*")) {
            (Some(plain), _) => Some(text(plain)),
            // RFC 7578 section 4.2 forbids it, and urllib3 sent it for years.
            (None, Some(extended)) => Some(decode_extended(extended).ok_or_else(|| wrong("filename* is malformed"))?),
            (None, None) => None,
        };
        Ok(PartHead {
            name: one("name").map(text).ok_or_else(|| wrong("its content-disposition has no name"))?,
            filename,
            content_type: content_type.map(text),
            charset: content_type.and_then(charset).unwrap_or(UTF_8),
        })
    }
}

/// The boundary that a content type names.
pub(super) fn boundary(content_type: &str) -> Result<Vec<u8>, RequestError> {
    let (_, parameters) =
        parameters(content_type.as_bytes()).map_err(|why| malformed(format_args!("its content type: {why}")))?;
    let boundary = parameters.into_iter().find(|known| known.0 == "boundary").map(|known| known.1);
    let boundary = boundary.ok_or_else(|| malformed("its content type names no boundary"))?;
    if boundary.is_empty() || boundary.len() > MAX_BOUNDARY {
        return Err(malformed(format_args!("its boundary has {} bytes, not 1 to {MAX_BOUNDARY}", boundary.len())));
    }
    // More than RFC 2046 names, but nothing that is lost in a line, and no space at the end, where a mail relay adds some.
    if boundary.ends_with(b" ") || !boundary.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(malformed("its boundary has characters that a boundary cannot have"));
    }
    Ok(boundary)
}

fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn charset(content_type: &[u8]) -> Option<&'static Encoding> {
    let (_, parameters) = parameters(content_type).ok()?;
    Encoding::for_label(&parameters.into_iter().find(|known| known.0 == "charset")?.1)
}

type Parameters = Vec<(String, Vec<u8>)>;

/// A value and its parameters by lower-case name, quotes taken off.
///
/// In quotes a backslash hides a quote or a backslash. Before anything else it stands for itself, since browsers send the
/// backslashes of a file name as they are.
fn parameters(value: &[u8]) -> Result<(&[u8], Parameters), &'static str> {
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    let (first, mut rest) = (value[..end].trim_ascii(), &value[end..]);
    let mut parameters = Parameters::new();
    while let Some((b';', after)) = rest.split_first() {
        rest = after.trim_ascii_start();
        if rest.is_empty() || rest[0] == b';' {
            continue; // An empty one.
        }
        let equals = memchr::memchr2(b'=', b';', rest).filter(|&at| rest[at] == b'=');
        let equals = equals.ok_or("a parameter without a value")?;
        let name = rest[..equals].trim_ascii_end();
        if !is_token(name) {
            return Err("what stands before = is no name of a parameter");
        }
        rest = rest[equals + 1..].trim_ascii_start();
        let value = match rest.split_first() {
            Some((b'"', quoted)) => {
                let (value, after) = unquote(quoted).ok_or("a quote is not closed")?;
                rest = after.trim_ascii_start();
                if !rest.is_empty() && rest[0] != b';' {
                    return Err("something stands behind a closing quote");
                }
                value
            }
            _ => {
                let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
                let value = rest[..end].trim_ascii();
                if memchr::memchr(b'"', value).is_some() {
                    return Err("a quote in the middle of a value");
                }
                rest = &rest[end..];
                value.to_vec()
            }
        };
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        if parameters.iter().any(|known| known.0 == name) {
            return Err("a parameter comes twice");
        }
        // Each is compared with all before it.
        if parameters.len() == 16 {
            return Err("more than 16 parameters");
        }
        parameters.push((name, value));
    }
    Ok((first, parameters))
}

/// What stands before the closing quote, and what behind it.
fn unquote(quoted: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    let mut rest = quoted;
    loop {
        match rest {
            [b'"', after @ ..] => return Some((value, after)),
            [b'\\', hidden @ (b'"' | b'\\'), after @ ..] => {
                value.push(*hidden);
                rest = after;
            }
            [byte, after @ ..] => {
                value.push(*byte);
                rest = after;
            }
            [] => return None,
        }
    }
}

/// `UTF-8''caf%C3%A9.txt` (RFC 8187 section 3.2).
fn decode_extended(value: &[u8]) -> Option<String> {
    let mut fields = value.splitn(3, |&byte| byte == b'\'');
    let (charset, _language, encoded) = (fields.next()?, fields.next()?, fields.next()?);
    let encoding = Encoding::for_label(charset).filter(|known| [UTF_8, WINDOWS_1252].contains(known))?;
    let bytes: Vec<u8> = percent_decode(encoded).collect();
    let text = encoding.decode_without_bom_handling(&bytes).0;
    (!text.chars().any(char::is_control)).then(|| text.into_owned())
}
