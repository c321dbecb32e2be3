//! Which of several codings of a file a client wants (RFC 9110 section 12.5.3).

use crate::http::Headers;

/// A coding in which files may lie beside the plain one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Brotli,
    Zstd,
    Gzip,
}

/// In the order in which they are taken where the client minds none: what gets smallest first.
const ALL: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

impl Coding {
    /// As headers have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
            Coding::Gzip => "gzip",
        }
    }

    /// What is at the end of such a file's name.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Coding::Brotli => ".br",
            Coding::Zstd => ".zst",
            Coding::Gzip => ".gz",
        }
    }
}

/// The codings that a client takes and does not like less than none at all, the best first.
pub(super) fn wanted(headers: &Headers) -> impl Iterator<Item = Coding> {
    let weight = |name: &str| weight(headers, name);
    let identity = weight("identity").unwrap_or(0);
    // Without the header a client may take anything, but most that leave it out know none.
    let other = weight("*").unwrap_or(0);
    let mut weighed = ALL.map(|coding| {
        let alias = if coding == Coding::Gzip { weight("x-gzip") } else { None };
        (weight(coding.name()).or(alias).unwrap_or(other), coding)
    });
    // Stable: of what is liked as much, the first of `ALL`.
    weighed.sort_by(|(a, _), (b, _)| b.cmp(a));
    weighed.into_iter().filter(move |(weight, _)| *weight > 0 && *weight >= identity).map(|(_, coding)| coding)
}

/// The weight of a coding in thousandths; none where it is not named.
fn weight(headers: &Headers, name: &str) -> Option<u16> {
    let items = headers.get_all("accept-encoding").flat_map(|value| value.split(|byte| *byte == b','));
    for item in items {
        let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        if !parts.next().unwrap_or_default().eq_ignore_ascii_case(name.as_bytes()) {
            continue;
        }
        let given = parts.find_map(|part| part.strip_prefix(b"q=").or(part.strip_prefix(b"Q=")));
        return Some(given.map_or(1000, thousandths));
    }
    None
}

/// A weight (RFC 9110 section 12.4.2); what is none is taken for 0.
fn thousandths(text: &[u8]) -> u16 {
    let (whole, fraction) = match text {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return 0,
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    let digits = fraction.iter().chain(b"000").take(3);
    let fraction = digits.fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
    (u16::from(whole - b'0') * 1000 + fraction).min(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(value: &'static str) -> Vec<&'static str> {
        let mut map = http::HeaderMap::new();
        map.append("accept-encoding", http::HeaderValue::from_static(value));
        wanted(&Headers::from_map(None, &map)).map(Coding::name).collect()
    }

    #[test]
    fn weights_decide_and_then_size() {
        for (value, expected) in [
            ("gzip, deflate, br, zstd", &["br", "zstd", "gzip"][..]),
            ("gzip", &["gzip"]),
            ("X-GZIP", &["gzip"]),
            ("GZIP;q=1.0, br;q=0.5", &["gzip", "br"]),
            ("br;q=0, gzip", &["gzip"]),
            ("br;q=0.000, *", &["zstd", "gzip"]),
            ("*;q=0", &[]),
            ("*", &["br", "zstd", "gzip"]),
            ("identity, gzip;q=0.5", &[]),
            ("identity;q=0.5, gzip;q=0.5", &["gzip"]),
            ("identity;q=0, zstd", &["zstd"]),
            ("gzip;q=2", &[]),
            ("gzip;q=1.0001", &[]),
            ("gzip;q=x, br ; q=0.1", &["br"]),
            ("", &[]),
            ("deflate", &[]),
            ("brotli, gzipped", &[]),
        ] {
            assert_eq!(names(value), expected, "{value}");
        }
        assert_eq!(wanted(&Headers::default()).count(), 0);
    }
}
