//! What a request is called in logs, here and elsewhere: ids of requests, and the trace that a request is part of.

use http::HeaderValue;

/// The longest id that is taken from a client.
const LONGEST: usize = 128;

/// The id that a client gave, where it is one; else a new one, of 128 random bits. None where the machine has none to give.
pub(crate) fn of(given: Option<&[u8]>) -> Option<HeaderValue> {
    given.filter(|id| is_id(id)).and_then(|id| HeaderValue::from_bytes(id).ok()).or_else(new)
}

/// Whether it is short, and of characters that mean nothing to whoever shows, stores or searches it: those of UUIDs, base64,
/// ULIDs and `X-Amzn-Trace-Id`.
fn is_id(id: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~+/=:;@".contains(byte);
    (1..=LONGEST).contains(&id.len()) && id.iter().all(is_plain)
}

fn new() -> Option<HeaderValue> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).ok()?;
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(random) {
        let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 0xf)]);
    }
    HeaderValue::from_bytes(&text).ok()
}

/// The ids of trace and parent in a `traceparent` that keeps to W3C Trace Context (section 3.2); none in any other.
pub(crate) fn trace(traceparent: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
    let (known, rest) = traceparent.split_at_checked(55)?;
    let mut parts = known.split(|byte| *byte == b'-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let sized = (version.len(), trace.len(), parent.len(), flags.len()) == (2, 32, 16, 2) && parts.next().is_none();
    // Later versions may add to it, behind another hyphen.
    let ends = if version == b"00" { rest.is_empty() } else { rest.is_empty() || rest.starts_with(b"-") };
    let hex = [version, trace, parent, flags].into_iter().all(is_hex);
    (sized && ends && hex && version != b"ff" && !is_zero(trace) && !is_zero(parent)).then_some((trace, parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_taken_or_made() {
        assert_eq!(of(Some(b"abc-1")).unwrap(), "abc-1");
        assert_eq!(of(Some(&[b'a'; 128])).unwrap().len(), 128);
        for bad in [&b""[..], &[b'a'; 129], b"a b", b"a\"b", b"a\xff", b"<a>", b"a,b", b"\x1b"] {
            let new = of(Some(bad)).unwrap();
            assert!(new.len() == 32 && new.as_bytes().iter().all(u8::is_ascii_hexdigit), "{bad:?}");
        }
        assert_ne!(of(None), of(None));
    }

    #[test]
    fn traces() {
        let good = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(trace(good), Some((&b"4bf92f3577b34da6a3ce929d0e0e4736"[..], &b"00f067aa0ba902b7"[..])));
        assert!(trace(b"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later").is_some());
        for bad in [
            &b""[..],
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
            b"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            b"00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            b"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            b"0--4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
        ] {
            assert_eq!(trace(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }
}
