//! UTF-8 that comes in pieces, checked as it comes.

/// How far a text is checked: the bytes of a character that is not whole yet.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    begun: [u8; 4],
    have: usize,
}

impl Utf8 {
    /// Looks at more of a text; false where it cannot be UTF-8, whatever follows.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> bool {
        while self.have > 0 {
            let Some((&byte, rest)) = bytes.split_first() else { return true };
            self.begun[self.have] = byte;
            self.have += 1;
            bytes = rest;
            match std::str::from_utf8(&self.begun[..self.have]) {
                Ok(_) => self.have = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return false,
            }
        }
        let Err(error) = std::str::from_utf8(bytes) else { return true };
        let left = &bytes[error.valid_up_to()..];
        if error.error_len().is_some() {
            return false;
        }
        // Fewer than four: a whole character would be valid or wrong.
        self.begun[..left.len()].copy_from_slice(left);
        self.have = left.len();
        true
    }

    /// Whether the last character is whole.
    pub(super) fn is_whole(&self) -> bool {
        self.have == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_are_judged_as_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..12), at in 0usize..12, text in ".{0,6}") {
            for whole in [&bytes[..], text.as_bytes(), &[text.as_bytes(), &bytes].concat()] {
                let (a, b) = whole.split_at(at.min(whole.len()));
                let mut utf8 = Utf8::default();
                let valid = utf8.feed(a) && utf8.feed(b) && utf8.is_whole();
                prop_assert_eq!(valid, std::str::from_utf8(whole).is_ok());
                let mut utf8 = Utf8::default();
                let valid = whole.iter().all(|byte| utf8.feed(&[*byte])) && utf8.is_whole();
                prop_assert_eq!(valid, std::str::from_utf8(whole).is_ok());
            }
        }
    }

    #[test]
    fn what_cannot_become_text_is_seen_at_once() {
        let mut utf8 = Utf8::default();
        assert!(utf8.feed(b"\xf4"));
        assert!(!utf8.feed(b"\x90"), "beyond U+10FFFF");
        assert!(!Utf8::default().feed(b"\xed\xa0"), "a surrogate");
    }
}
