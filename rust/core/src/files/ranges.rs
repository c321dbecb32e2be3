//! Parts of a file that a client asks for (RFC 9110 section 14).

use std::ops::Range;

/// More ranges than this in one request are ignored, as section 14.2 advises: nobody has a use for them but an attacker.
const MOST: usize = 64;
/// Ranges are joined where what lies between them is shorter than this, which is about what a part's own head takes.
const GAP: u64 = 128;

/// What a `Range` header comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ranges {
    /// It says nothing that counts: the whole file is sent.
    Whole,
    /// These, none of which is empty or has anything in common with another, in the order in which they were asked for.
    Parts(Vec<Range<u64>>),
    /// None of them is in the file.
    Unsatisfiable,
}

impl Ranges {
    /// Parses the header's value for a file of that size.
    pub(super) fn parse(value: &[u8], size: u64) -> Self {
        let Some(list) = value.get(..6).filter(|unit| unit.eq_ignore_ascii_case(b"bytes=")).map(|_| &value[6..]) else {
            return Ranges::Whole;
        };
        let mut parts = Vec::new();
        let mut count = 0;
        for spec in list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|spec| !spec.is_empty()) {
            count += 1;
            match Spec::parse(spec) {
                Some(spec) if count <= MOST => parts.extend(spec.within(size)),
                _ => return Ranges::Whole,
            }
        }
        match (count, parts.is_empty()) {
            (0, _) => Ranges::Whole,
            // Of an empty file its last bytes are all of it, for which there is no range.
            (_, true) if size == 0 && list.trim_ascii_start().starts_with(b"-") => Ranges::Whole,
            (_, true) => Ranges::Unsatisfiable,
            (_, false) => Ranges::Parts(joined(parts)),
        }
    }
}

/// One range as it is asked for.
enum Spec {
    From(u64),
    Between(u64, u64),
    Last(u64),
}

impl Spec {
    /// None for what is malformed, which makes the whole header void.
    fn parse(text: &[u8]) -> Option<Self> {
        let dash = memchr::memchr(b'-', text)?;
        match (&text[..dash], &text[dash + 1..]) {
            (b"", last) => Some(Spec::Last(number(last)?)),
            (first, b"") => Some(Spec::From(number(first)?)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Spec::Between(first, last))
            }
        }
    }

    /// What there is of it; none where that is nothing.
    fn within(self, size: u64) -> Option<Range<u64>> {
        let range = match self {
            Spec::From(first) => first..size,
            Spec::Between(first, last) => first..size.min(last.saturating_add(1)),
            Spec::Last(length) => size.saturating_sub(length)..size,
        };
        (range.start < range.end).then_some(range)
    }
}

/// Digits; beyond 64 bits it is the largest of all numbers, which is beyond any file as well.
fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let add = |number: u64, digit: &u8| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    digits.then(|| text.iter().fold(0, add))
}

/// Joins what overlaps or nearly touches.
fn joined(parts: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut sorted: Vec<(usize, Range<u64>)> = parts.into_iter().enumerate().collect();
    sorted.sort_by_key(|(_, range)| range.start);
    let mut joined: Vec<(usize, Range<u64>)> = Vec::with_capacity(sorted.len());
    for (order, range) in sorted {
        match joined.last_mut() {
            Some((first, last)) if range.start <= last.end.saturating_add(GAP) => {
                last.end = last.end.max(range.end);
                *first = order.min(*first);
            }
            _ => joined.push((order, range)),
        }
    }
    joined.sort_by_key(|(order, _)| *order);
    joined.into_iter().map(|(_, range)| range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(value: &str, size: u64) -> Vec<(u64, u64)> {
        match Ranges::parse(value.as_bytes(), size) {
            Ranges::Parts(parts) => parts.into_iter().map(|range| (range.start, range.end)).collect(),
            other => panic!("{value}: {other:?}"),
        }
    }

    #[test]
    fn single_ranges() {
        for (value, expected) in [
            ("bytes=0-0", (0, 1)),
            ("bytes=0-499", (0, 500)),
            ("bytes=500-", (500, 1000)),
            ("bytes=-1", (999, 1000)),
            ("bytes=-5000", (0, 1000)),
            ("bytes=900-99999999999999999999999999", (900, 1000)),
            ("BYTES= 1-2 , ", (1, 3)),
            ("bytes=0-0,2000-3000", (0, 1)),
        ] {
            assert_eq!(parts(value, 1000), [expected], "{value}");
        }
    }

    #[test]
    fn several_keep_their_order_and_join_where_they_meet() {
        assert_eq!(parts("bytes=5000-5009,0-9", 10_000), [(5000, 5010), (0, 10)]);
        assert_eq!(parts("bytes=0-9,10-19", 10_000), [(0, 20)]);
        assert_eq!(parts("bytes=100-300,0-150,5000-", 10_000), [(0, 301), (5000, 10_000)]);
        assert_eq!(parts("bytes=0-,0-,0-,0-", 10_000), [(0, 10_000)]);
        assert_eq!(parts("bytes=0-9,20-29", 10_000), [(0, 30)], "a part's head is longer than what lies between");
    }

    #[test]
    fn what_is_malformed_is_ignored() {
        let many = format!("bytes={}", "0-0,".repeat(MOST + 1));
        for value in [
            "bytes=",
            "bytes",
            "",
            "items=0-1",
            "bytes=5-1",
            "bytes=a-b",
            "bytes=-",
            "bytes=1",
            "bytes=0-1;2-3",
            "bytes=+1-2",
            "bytes=0-1,x",
            "bytes=1 - 2",
            &many,
        ] {
            assert_eq!(Ranges::parse(value.as_bytes(), 1000), Ranges::Whole, "{value}");
        }
    }

    #[test]
    fn what_is_outside_cannot_be_satisfied() {
        for value in ["bytes=1000-", "bytes=1000-2000", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(Ranges::parse(value.as_bytes(), 1000), Ranges::Unsatisfiable, "{value}");
        }
        assert_eq!(Ranges::parse(b"bytes=0-", 0), Ranges::Unsatisfiable);
        assert_eq!(Ranges::parse(b"bytes=-5", 0), Ranges::Whole);
    }

    proptest! {
        #[test]
        fn parts_are_within_the_file_and_apart(
            value in "bytes=([0-9]{0,4}-[0-9]{0,4},){0,9}[0-9]{0,3}-[0-9]{0,3}",
            size in 0u64..3000,
        ) {
            if let Ranges::Parts(parts) = Ranges::parse(value.as_bytes(), size) {
                prop_assert!(!parts.is_empty());
                let mut sorted = parts;
                sorted.sort_by_key(|range| range.start);
                prop_assert!(sorted.iter().all(|range| range.start < range.end && range.end <= size));
                prop_assert!(sorted.windows(2).all(|two| two[0].end + GAP < two[1].start));
            }
        }
    }
}
