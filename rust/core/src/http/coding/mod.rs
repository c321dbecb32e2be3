//! Content codings (RFC 9110 section 8.4): which one a response gets, bodies that are coded while they are sent, and request
//! bodies that are decoded while they come.

mod accept;
mod decoder;
mod encoder;
mod request;
mod response;

use std::sync::Arc;

pub(crate) use accept::AcceptEncoding;
pub use request::RequestCoding;
pub(crate) use request::{Decoding, Step, TURN};

/// The most bodies of one server that are coded piece by piece at the same time. Each takes up to a MiB for as long
/// as its client takes to read it; one more is sent as it is.
const MAX_ENCODERS: usize = 64;

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Brotli,
    /// gzip (RFC 1952).
    Gzip,
}

impl Coding {
    /// The words for them in settings and headers.
    pub(crate) const WORDS: &'static [&'static str] = &["zstd", "br", "gzip"];

    /// The coding of that name, in any case.
    pub fn named(name: &[u8]) -> Option<Self> {
        match () {
            () if name.eq_ignore_ascii_case(b"zstd") => Some(Coding::Zstd),
            () if name.eq_ignore_ascii_case(b"br") => Some(Coding::Brotli),
            // RFC 9110 section 8.4.1.3: the old name is the same.
            () if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") => Some(Coding::Gzip),
            () => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd",
            Coding::Brotli => "br",
            Coding::Gzip => "gzip",
        }
    }
}

/// What bounds the encoders of one server that are in use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Encoders(Arc<()>);

impl Encoders {
    /// The right to one more, for as long as it is kept; none where there are too many.
    fn take(&self) -> Option<Encoders> {
        (Arc::strong_count(&self.0) <= MAX_ENCODERS).then(|| self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoders_are_bounded() {
        let encoders = Encoders::default();
        let mut taken: Vec<_> = (0..MAX_ENCODERS).map(|_| encoders.take()).collect();
        assert!(taken.iter().all(Option::is_some));
        assert!(encoders.take().is_none());
        taken.pop();
        assert!(encoders.take().is_some());
    }
}
