//! Forms in a request body that was read already: `application/x-www-form-urlencoded` and
//! `multipart/form-data` (RFC 7578), the latter by multer.

use std::borrow::Cow;

use bytes::Bytes;
use futures_util::FutureExt;

use crate::error::{Refusal, RequestError};

/// The most fields of a form, so that a small body cannot become a million objects.
const MAX_PARTS: usize = 1_000;

/// One field of a form. A part with a file name is a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormPart {
    /// The field's name.
    pub name: String,
    /// The file name as the client gave it: not to be trusted as a path.
    pub filename: Option<String>,
    /// The content type that the client claims.
    pub content_type: Option<String>,
    /// The value.
    pub data: Bytes,
}

/// Reads a form by its content type; a body of any other type has no fields.
///
/// # Errors
/// [`Refusal::Framing`] for a malformed multipart body or too many parts.
pub fn parse_form(content_type: &str, body: Bytes) -> Result<Vec<FormPart>, RequestError> {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let pairs: Vec<_> = form_urlencoded::parse(&body).take(MAX_PARTS + 1).collect();
        if pairs.len() > MAX_PARTS {
            return Err(too_many());
        }
        let field = |(name, value): (Cow<'_, str>, Cow<'_, str>)| FormPart {
            name: name.into_owned(),
            filename: None,
            content_type: None,
            data: Bytes::from(value.into_owned()),
        };
        return Ok(pairs.into_iter().map(field).collect());
    }
    if !essence.eq_ignore_ascii_case("multipart/form-data") {
        return Ok(Vec::new());
    }
    let malformed =
        |why: &dyn std::fmt::Display| RequestError::new(Refusal::Framing, format!("malformed multipart form: {why}"));
    let boundary = multer::parse_boundary(content_type).map_err(|why| malformed(&why))?;
    // The body is here already, so reading it never waits: one poll finishes it.
    read_parts(boundary, body)
        .now_or_never()
        .unwrap_or_else(|| Err(multer::Error::IncompleteStream))
        .map_err(|why| malformed(&why))?
        .ok_or_else(too_many)
}

fn too_many() -> RequestError {
    RequestError::new(Refusal::Framing, format!("a form of over {MAX_PARTS} fields"))
}

/// None where there are too many.
async fn read_parts(boundary: String, body: Bytes) -> multer::Result<Option<Vec<FormPart>>> {
    let stream = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(body)]);
    let mut multipart = multer::Multipart::new(stream, boundary);
    let mut parts = Vec::new();
    while let Some(field) = multipart.next_field().await? {
        if parts.len() == MAX_PARTS {
            return Ok(None);
        }
        parts.push(FormPart {
            name: field.name().unwrap_or_default().to_string(),
            filename: field.file_name().map(str::to_string),
            content_type: field.content_type().map(ToString::to_string),
            data: field.bytes().await?,
        });
    }
    Ok(Some(parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urlencoded() {
        let parts =
            parse_form("application/x-www-form-urlencoded; charset=utf-8", Bytes::from_static(b"a=1+2&b=%7B%22"))
                .unwrap();
        let pairs: Vec<_> = parts.iter().map(|part| (part.name.as_str(), &part.data[..])).collect();
        assert_eq!(pairs, [("a", &b"1 2"[..]), ("b", &b"{\""[..])]);
    }

    #[test]
    fn multipart() {
        let body = "--X\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n1\r\n--X\r\ncontent-disposition: form-data; name=\"f\"; filename=\"x.png\"\r\ncontent-type: image/png\r\n\r\n\u{0}\u{1}\r\n--X--\r\n";
        let parts = parse_form("multipart/form-data; boundary=X", Bytes::from_static(body.as_bytes())).unwrap();
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0].data, "1");
        assert_eq!(parts[1].filename.as_deref(), Some("x.png"));
        assert_eq!(parts[1].content_type.as_deref(), Some("image/png"));
        assert_eq!(&parts[1].data[..], b"\0\x01");
    }

    #[test]
    fn too_many_fields() {
        for (count, good) in [(MAX_PARTS, true), (MAX_PARTS + 1, false)] {
            let body = "a&".repeat(count);
            assert_eq!(parse_form("application/x-www-form-urlencoded", body.into()).is_ok(), good);
            let part = "--X\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n1\r\n";
            let body = format!("{}--X--\r\n", part.repeat(count));
            assert_eq!(parse_form("multipart/form-data; boundary=X", body.into()).is_ok(), good);
        }
    }

    #[test]
    fn malformed_and_foreign() {
        assert!(parse_form("multipart/form-data", Bytes::new()).is_err());
        assert!(parse_form("multipart/form-data; boundary=X", Bytes::from_static(b"--X\r\nno")).is_err());
        assert_eq!(parse_form("application/json", Bytes::from_static(b"{}")).unwrap(), []);
    }
}
