//! PEM (RFC 7468) as it is found: text before, between and after the sections, CRLF, a byte order mark, and the headers
//! of RFC 1421 that the old encrypted keys have.

use base64ct::{Base64, Encoding};
use memchr::memmem;

const BEGIN: &[u8] = b"-----BEGIN ";

/// What stands between a BEGIN and its END.
pub(super) struct Section {
    /// `CERTIFICATE`, `PRIVATE KEY` and the like.
    pub(super) label: String,
    /// `Proc-Type: 4,ENCRYPTED` and the like.
    pub(super) headers: Vec<(String, String)>,
    /// What is in it.
    pub(super) der: Vec<u8>,
}

impl Section {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

pub(in crate::tls) fn is_pem(bytes: &[u8]) -> bool {
    memmem::find(bytes, BEGIN).is_some()
}

/// Every section, in the order of the file.
pub(super) fn sections(bytes: &[u8]) -> Result<Vec<Section>, String> {
    let mut sections = Vec::new();
    let mut rest = bytes;
    while let Some(start) = memmem::find(rest, BEGIN) {
        let (section, after) = section(&rest[start + BEGIN.len()..])
            .map_err(|why| format!("malformed PEM in section {}: {why}", sections.len() + 1))?;
        sections.push(section);
        rest = after;
    }
    Ok(sections)
}

/// One section, from its label on, and what follows it.
fn section(bytes: &[u8]) -> Result<(Section, &[u8]), String> {
    let (label, bytes) =
        cut(bytes, b"-----").filter(|(label, _)| label.len() < 64).ok_or("its BEGIN line does not end")?;
    let label = String::from_utf8_lossy(label).into_owned();
    let end = format!("-----END {label}-----");
    let (body, rest) = cut(bytes, end.as_bytes()).ok_or_else(|| format!("it has no {end}"))?;
    let body = std::str::from_utf8(body).map_err(|_| "it is no text")?;
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut base64 = String::with_capacity(body.len());
    for line in body.lines() {
        // Only a header has a colon, and one that goes on in the next line is indented (RFC 1421 section 4.4).
        match (line.split_once(':'), headers.last_mut()) {
            (Some((name, value)), _) if base64.is_empty() => headers.push((name.trim().into(), value.trim().into())),
            (None, Some((_, value))) if base64.is_empty() && line.starts_with([' ', '\t']) => {
                value.push_str(line.trim())
            }
            _ => base64.extend(line.chars().filter(|character| !character.is_whitespace())),
        }
    }
    let der = Base64::decode_vec(&base64).map_err(|_| "what is in it is no base64")?;
    Ok((Section { label, headers, der }, rest))
}

/// What is before and after a part.
fn cut<'a>(bytes: &'a [u8], part: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let start = memmem::find(bytes, part)?;
    Some((&bytes[..start], &bytes[start + part.len()..]))
}

#[cfg(test)]
mod tests {
    use super::sections;

    #[test]
    fn as_it_is_found() {
        let file = "\u{feff}Bag Attributes\r\n  friendlyName: x\r\n-----BEGIN A-----\r\nProc-Type: 4,ENCRYPTED\r\n\
                    DEK-Info: X,\r\n 00\r\n\r\nAAEC\r\n  AwQF\r\n\r\n-----END A-----\r\nbetween\n-----BEGIN B-----\n-----END B-----";
        let [a, b] = sections(file.as_bytes()).unwrap().try_into().ok().unwrap();
        assert_eq!((a.label.as_str(), a.der.as_slice()), ("A", &[0, 1, 2, 3, 4, 5][..]));
        assert_eq!((a.header("Proc-Type"), a.header("DEK-Info")), (Some("4,ENCRYPTED"), Some("X,00")));
        assert_eq!((b.label.as_str(), b.der.len()), ("B", 0));
    }

    #[test]
    fn what_is_malformed_says_where() {
        for (file, why) in [
            ("-----BEGIN A-----\nAAEC\n", "has no -----END A-----"),
            ("-----BEGIN A", "does not end"),
            ("-----BEGIN A-----\nA?\n-----END A-----", "no base64"),
        ] {
            let error = sections(file.as_bytes()).err().unwrap();
            assert!(error.contains(why) && error.contains("section 1"), "{error}");
        }
    }
}
