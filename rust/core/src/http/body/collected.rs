//! Bodies that are collected on the way in.

use bytes::{Bytes, BytesMut};

/// A body that arrives in pieces. One piece is kept as it is; more are joined.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    first: Bytes,
    all: BytesMut,
}

impl Collected {
    pub(crate) fn push(&mut self, piece: Bytes) {
        if self.first.is_empty() && self.all.is_empty() {
            self.first = piece;
            return;
        }
        if self.all.is_empty() {
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.all.extend_from_slice(&piece);
    }

    pub(crate) fn len(&self) -> usize {
        self.first.len().max(self.all.len())
    }

    pub(crate) fn finish(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}

#[cfg(test)]
mod tests {
    use super::Collected;

    #[test]
    fn pieces_are_joined() {
        for pieces in [&[][..], &["abc"], &["a", "b", "c"]] {
            let mut body = Collected::default();
            pieces.iter().for_each(|piece| body.push((*piece).into()));
            assert_eq!(body.len(), pieces.concat().len());
            assert_eq!(body.finish(), pieces.concat());
        }
    }
}
