//! ASN.1 as PKCS#7 and PKCS#12 need it: BER, because NSS and others write lengths that end where they end, and octets in
//! pieces (X.690 section 8). None is "malformed" throughout.

use std::borrow::Cow;

use x509_parser::asn1_rs::{Any, Class, FromBer, Oid, Tag};

/// How deep octets in pieces may be nested; one level is what is seen.
const MAX_NESTING: usize = 4;

/// Values one after another.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// What stands in the one SEQUENCE that those bytes begin with.
    pub(super) fn of_sequence(bytes: &'a [u8]) -> Option<Self> {
        Reader(bytes).sequence()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next value, and all of its bytes.
    pub(super) fn value(&mut self) -> Option<(Any<'a>, &'a [u8])> {
        let (rest, any) = Any::from_ber(self.0).ok()?;
        let whole = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Some((any, whole))
    }

    fn universal(&mut self, tag: Tag) -> Option<Any<'a>> {
        let (any, _) = self.value()?;
        (any.class() == Class::Universal && any.tag() == tag).then_some(any)
    }

    pub(super) fn sequence(&mut self) -> Option<Self> {
        Some(Reader(self.universal(Tag::Sequence)?.data))
    }

    pub(super) fn set(&mut self) -> Option<Self> {
        Some(Reader(self.universal(Tag::Set)?.data))
    }

    pub(super) fn oid(&mut self) -> Option<Oid<'a>> {
        self.universal(Tag::Oid)?.oid().ok()
    }

    pub(super) fn integer(&mut self) -> Option<u64> {
        self.universal(Tag::Integer)?.u64().ok()
    }

    pub(super) fn octets(&mut self) -> Option<Cow<'a, [u8]>> {
        octets(&self.universal(Tag::OctetString)?)
    }

    /// What is under the tag of that number (EXPLICIT), if that comes next.
    pub(super) fn tagged(&mut self, number: u32) -> Option<Self> {
        Some(Reader(self.tagged_value(number)?.data))
    }

    /// The same, for octets that have that tag instead of their own (IMPLICIT).
    pub(super) fn tagged_octets(&mut self, number: u32) -> Option<Cow<'a, [u8]>> {
        octets(&self.tagged_value(number)?)
    }

    fn tagged_value(&mut self, number: u32) -> Option<Any<'a>> {
        let before = self.0;
        let (any, _) = self.value()?;
        if any.class() == Class::ContextSpecific && any.tag() == Tag(number) {
            return Some(any);
        }
        self.0 = before;
        None
    }
}

fn octets<'a>(any: &Any<'a>) -> Option<Cow<'a, [u8]>> {
    if any.header.is_primitive() {
        return Some(Cow::Borrowed(any.data));
    }
    let mut whole = Vec::new();
    collect(any.data, MAX_NESTING, &mut whole)?;
    Some(Cow::Owned(whole))
}

fn collect(pieces: &[u8], depth: usize, whole: &mut Vec<u8>) -> Option<()> {
    let mut pieces = Reader(pieces);
    while !pieces.is_empty() {
        let piece = pieces.universal(Tag::OctetString)?;
        if piece.header.is_primitive() {
            whole.extend_from_slice(piece.data);
        } else {
            collect(piece.data, depth.checked_sub(1)?, whole)?;
        }
    }
    Some(())
}
