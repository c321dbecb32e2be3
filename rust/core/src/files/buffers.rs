//! Buffers for pieces of files, used again: a fresh one would have to be filled with zeros first, which costs a third of
//! the read itself.

use std::cell::RefCell;

use bytes::Bytes;

/// How much of a file is read at once, in bytes: three times what TLS encrypts at once.
pub(super) const SIZE: usize = 3 * 48 * 1024;
/// How many unused buffers a thread keeps.
const KEPT: usize = 8;

/// What is no longer than this is copied, so that it does not keep a whole buffer while a client takes its time.
const COPIED: usize = 16 * 1024;

thread_local! {
    static UNUSED: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer that goes back when it is dropped, on whichever thread.
pub(super) struct Buffer(Box<[u8]>);

impl Buffer {
    pub(super) fn take() -> Self {
        let unused = UNUSED.try_with(|unused| unused.borrow_mut().pop()).ok().flatten();
        Buffer(unused.unwrap_or_else(|| vec![0; SIZE].into_boxed_slice()))
    }

    pub(super) fn space(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// Its first bytes, as many as were read.
    pub(super) fn filled(self, length: usize) -> Bytes {
        if length <= COPIED {
            return Bytes::copy_from_slice(self.0.get(..length).unwrap_or_default());
        }
        Bytes::from_owner(Filled { buffer: self, length })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        // A thread that ends keeps none.
        let _ = UNUSED.try_with(|unused| {
            let mut unused = unused.borrow_mut();
            if unused.len() < KEPT {
                unused.push(buffer);
            }
        });
    }
}

struct Filled {
    buffer: Buffer,
    length: usize,
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        self.buffer.0.get(..self.length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_and_few_are_kept() {
        let mut buffer = Buffer::take();
        buffer.space()[..3].copy_from_slice(b"abc");
        let place = buffer.0.as_ptr();
        let piece = buffer.filled(SIZE);
        assert!(piece.starts_with(b"abc"));
        let copy = piece.clone();
        drop(piece);
        assert!(copy.starts_with(b"abc"), "as long as somebody has it");
        drop(copy);
        let again = Buffer::take();
        assert_eq!(again.0.as_ptr(), place);
        let small = again.filled(3);
        assert_eq!(small, "abc");
        assert_eq!(Buffer::take().0.as_ptr(), place, "what is small keeps none");
        let many: Vec<Buffer> = (0..3 * KEPT).map(|_| Buffer::take()).collect();
        drop(many);
        assert_eq!(UNUSED.with_borrow(Vec::len), KEPT);
    }
}
