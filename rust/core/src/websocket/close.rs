//! How a WebSocket ends: codes (RFC 6455 section 7.4), and what a client did to be told one.

use std::borrow::Cow;

use super::machine::MAX_CONTROL;

/// Code and reason of a close frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// The code.
    pub code: u16,
    /// For people; up to 123 bytes of it are sent.
    pub reason: Cow<'static, str>,
}

impl Close {
    /// It has done what it was for.
    pub const NORMAL: u16 = 1000;
    /// The server ends, or has waited long enough.
    pub const GOING_AWAY: u16 = 1001;
    /// The client broke the rules.
    pub const PROTOCOL: u16 = 1002;
    /// A close frame came without a code. It is never sent.
    pub const NONE: u16 = 1005;
    /// The connection ended without a close frame. It is never sent.
    pub const ABNORMAL: u16 = 1006;
    /// What was said to be text is not UTF-8, or what was said to be compressed cannot be inflated.
    pub const NOT_TEXT: u16 = 1007;
    /// What the rules allow, and this server does not.
    pub const POLICY: u16 = 1008;
    /// A message is larger than it may be.
    pub const TOO_LARGE: u16 = 1009;
    /// The handler failed.
    pub const FAILED: u16 = 1011;
    /// There is no thread for it now.
    pub const TRY_AGAIN: u16 = 1013;

    /// One with a reason.
    pub fn new(code: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        Close { code, reason: reason.into() }
    }

    /// What a close frame says.
    ///
    /// # Errors
    /// One byte alone, a code that nobody may send, or a reason that is not UTF-8.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, Violation> {
        match payload {
            [] => Ok(Close::new(Close::NONE, "")),
            [_] => Err(Violation::protocol("half a close code")),
            [a, b, reason @ ..] => {
                let code = u16::from_be_bytes([*a, *b]);
                if !Close::may_be_sent(code) {
                    return Err(Violation::protocol("a close code that nobody may send"));
                }
                let reason = std::str::from_utf8(reason).map_err(|_| Violation::not_text())?;
                Ok(Close::new(code, reason.to_owned()))
            }
        }
    }

    /// What a close frame carries: a reason that is too long is cut between two characters.
    pub(super) fn payload(&self) -> Vec<u8> {
        if self.code == Close::NONE {
            return Vec::new();
        }
        let mut end = self.reason.len().min(MAX_CONTROL - 2);
        while !self.reason.is_char_boundary(end) {
            end -= 1;
        }
        [&self.code.to_be_bytes(), &self.reason.as_bytes()[..end]].concat()
    }

    /// Whether a close frame may have that code: those that the registry of RFC 6455 section 11.7 has for it, those of
    /// libraries and frameworks, and those of applications.
    pub fn may_be_sent(code: u16) -> bool {
        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

/// What a client did that ends its WebSocket, and the code that it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The code.
    pub code: u16,
    /// What it was.
    pub text: Cow<'static, str>,
}

impl Violation {
    pub(super) fn protocol(text: &'static str) -> Self {
        Violation { code: Close::PROTOCOL, text: text.into() }
    }

    pub(super) fn policy(text: &'static str) -> Self {
        Violation { code: Close::POLICY, text: text.into() }
    }

    pub(super) fn not_text() -> Self {
        Violation { code: Close::NOT_TEXT, text: "text that is not UTF-8".into() }
    }

    pub(super) fn not_deflate() -> Self {
        Violation { code: Close::NOT_TEXT, text: "a compressed message that cannot be inflated (RFC 7692)".into() }
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let text = format!("a message of over {limit} bytes (max_message_bytes)");
        Violation { code: Close::TOO_LARGE, text: text.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_may_be_sent() {
        for code in [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999] {
            assert!(Close::parse(&u16::to_be_bytes(code)).is_ok(), "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert_eq!(Close::parse(&u16::to_be_bytes(code)).unwrap_err().code, Close::PROTOCOL, "{code}");
        }
        assert_eq!(Close::parse(&[3]).unwrap_err().code, Close::PROTOCOL);
        assert_eq!(Close::parse(&[3, 232, 0xFF]).unwrap_err().code, Close::NOT_TEXT);
        assert_eq!(Close::parse(&[]).unwrap(), Close::new(Close::NONE, ""));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let payload = Close::new(1000, "é".repeat(100)).payload();
        assert_eq!(payload.len(), 124);
        assert!(std::str::from_utf8(&payload[2..]).is_ok());
        assert!(Close::new(Close::NONE, "").payload().is_empty());
    }
}
