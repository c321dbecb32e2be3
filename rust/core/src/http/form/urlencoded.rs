//! `application/x-www-form-urlencoded`, pair by pair, as the URL standard parses it: what is not percent-encoded as it should
//! be stands for itself, `+` is a space, and what is not UTF-8 becomes U+FFFD.

use bytes::BytesMut;

use super::fields_over;
use super::parts::Parts;
use crate::error::RequestError;

#[derive(Debug)]
pub(super) struct Urlencoded {
    /// A pair whose end has not come.
    pair: BytesMut,
    /// The longest pair whose decoded form may be within the limit: a byte takes three at the most, and there is a `=`.
    longest: usize,
    limit: usize,
}

impl Urlencoded {
    pub(super) fn new(limit: usize) -> Self {
        Urlencoded { pair: BytesMut::new(), longest: limit.saturating_mul(3).saturating_add(1), limit }
    }

    pub(super) fn push(&mut self, mut piece: &[u8], parts: &mut Parts) -> Result<(), RequestError> {
        while let Some(at) = memchr::memchr(b'&', piece) {
            self.extend(&piece[..at])?;
            self.end(parts)?;
            piece = &piece[at + 1..];
        }
        self.extend(piece)
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), RequestError> {
        if self.pair.len() + bytes.len() > self.longest {
            return Err(fields_over(self.limit));
        }
        self.pair.extend_from_slice(bytes);
        Ok(())
    }

    /// The pair ends here. An empty one is none.
    pub(super) fn end(&mut self, parts: &mut Parts) -> Result<(), RequestError> {
        let pair =
            form_urlencoded::parse(&self.pair).next().map(|(name, value)| (name.into_owned(), value.into_owned()));
        self.pair.clear();
        match pair {
            Some((name, value)) => parts.text(name, value),
            None => Ok(()),
        }
    }
}
