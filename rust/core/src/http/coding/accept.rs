//! `Accept-Encoding` (RFC 9110 section 12.5.3).

use bytes::Bytes;

use super::Coding;
use crate::http::Headers;

/// What one request said, to be read once its answer is one that may be coded: most are too small, and reading it costs
/// more than keeping it.
#[derive(Debug, Default)]
pub(crate) struct AcceptEncoding(Option<Bytes>);

impl AcceptEncoding {
    /// Several lines are one list (RFC 9110 section 5.3).
    pub(crate) fn of(headers: &Headers) -> Self {
        AcceptEncoding(headers.joined("accept-encoding"))
    }

    /// The coding that the client gives the highest weight; among equals the first of `offers`. A client that says
    /// nothing gets none: most that leave the header out cannot decode.
    pub(super) fn choose(&self, offers: &[Coding]) -> Option<Coding> {
        let mut weights = Weights::default();
        self.0.as_ref()?.split(|&byte| byte == b',').for_each(|item| weights.add(item.trim_ascii()));
        // `identity` is taken without being named; named it has a rank like the others.
        let identity = weights.identity.unwrap_or(0);
        let mut best = None;
        let mut highest = 0;
        for &offer in offers {
            let weight = weights.of(offer);
            if weight > highest && weight >= identity {
                (best, highest) = (Some(offer), weight);
            }
        }
        best
    }
}

/// The weights that a client gave, in thousandths.
#[derive(Debug, Default)]
struct Weights {
    zstd: Option<u16>,
    brotli: Option<u16>,
    gzip: Option<u16>,
    identity: Option<u16>,
    any: Option<u16>,
}

impl Weights {
    fn add(&mut self, item: &[u8]) {
        let (name, parameters) = match memchr::memchr(b';', item) {
            Some(at) => (item[..at].trim_ascii_end(), Some(item[at + 1..].trim_ascii())),
            None => (item, None),
        };
        // What is malformed is as good as not said.
        let Some(weight) = parameters.map_or(Some(1_000), weight) else { return };
        let slot = match Coding::named(name) {
            Some(Coding::Zstd) => &mut self.zstd,
            Some(Coding::Brotli) => &mut self.brotli,
            Some(Coding::Gzip) => &mut self.gzip,
            None if name.eq_ignore_ascii_case(b"identity") => &mut self.identity,
            None if name == b"*" => &mut self.any,
            None => return,
        };
        *slot = Some(weight);
    }

    /// `*` stands for what is not named.
    fn of(&self, coding: Coding) -> u16 {
        let named = match coding {
            Coding::Zstd => self.zstd,
            Coding::Brotli => self.brotli,
            Coding::Gzip => self.gzip,
        };
        named.or(self.any).unwrap_or(0)
    }
}

/// `q=` and a number from 0 to 1 of three decimals (RFC 9110 section 12.4.2), in thousandths.
fn weight(parameters: &[u8]) -> Option<u16> {
    let (b'q' | b'Q', b'=', number) = (*parameters.first()?, *parameters.get(1)?, parameters.get(2..)?) else {
        return None;
    };
    let (whole, decimals) = number.split_first()?;
    let decimals = match decimals {
        [] => decimals,
        [b'.', decimals @ ..] if decimals.len() <= 3 && decimals.iter().all(u8::is_ascii_digit) => decimals,
        _ => return None,
    };
    let thousandths = (0..3).fold(0, |sum, at| sum * 10 + u16::from(decimals.get(at).map_or(0, |digit| digit - b'0')));
    match whole {
        b'0' => Some(thousandths),
        b'1' if thousandths == 0 => Some(1_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header};
    use proptest::prelude::*;

    use super::*;

    const ALL: &[Coding] = &[Coding::Zstd, Coding::Brotli, Coding::Gzip];

    fn choose(offers: &[Coding], lines: &[&[u8]]) -> Option<Coding> {
        let mut map = HeaderMap::new();
        for line in lines {
            map.append(header::ACCEPT_ENCODING, HeaderValue::from_bytes(line).unwrap());
        }
        AcceptEncoding::of(&Headers::from_map(None, &map)).choose(offers)
    }

    #[test]
    fn the_weights_of_clients_decide_and_then_the_order() {
        let cases: &[(&[&[u8]], Option<Coding>)] = &[
            (&[], None),
            (&[b""], None),
            (&[b"gzip, deflate, br, zstd"], Some(Coding::Zstd)),
            (&[b"gzip, deflate, br"], Some(Coding::Brotli)),
            (&[b"gzip", b"zstd"], Some(Coding::Zstd)),
            (&[b"X-GZIP"], Some(Coding::Gzip)),
            (&[b"gzip;q=1.0, br;q=0.9"], Some(Coding::Gzip)),
            (&[b"gzip ; q=0.001"], Some(Coding::Gzip)),
            (&[b"gzip;q=0"], None),
            (&[b"gzip;q=0.000, *"], Some(Coding::Zstd)),
            (&[b"*;q=0"], None),
            (&[b"zstd;q=0, br;q=0, *;q=0.5"], Some(Coding::Gzip)),
            (&[b"identity"], None),
            (&[b"identity;q=0"], None),
            (&[b"identity;q=0, gzip;q=0.1"], Some(Coding::Gzip)),
            (&[b"identity;q=1, gzip;q=0.5"], None),
            (&[b"identity;q=0.5, gzip;q=0.5"], Some(Coding::Gzip)),
            (&[b"gzip;q=2"], None),
            (&[b"gzip;q=0.0001"], None),
            (&[b"gzip;level=9"], None),
            (&[b"gzipped, compress"], None),
        ];
        for (lines, expected) in cases {
            assert_eq!(choose(ALL, lines), *expected, "{:?}", String::from_utf8_lossy(&lines.concat()));
        }
        assert_eq!(choose(&[Coding::Gzip, Coding::Zstd], &[b"zstd, gzip"]), Some(Coding::Gzip));
        assert_eq!(choose(&[], &[b"gzip"]), None);
    }

    proptest! {
        #[test]
        fn any_header_gives_what_was_named_and_offered(line in "[ -~]{0,60}") {
            if let Some(coding) = choose(ALL, &[line.as_bytes()]) {
                let lower = line.to_ascii_lowercase();
                prop_assert!(lower.contains(coding.name()) || lower.contains('*'));
            }
        }

        #[test]
        fn weights_order_codings(weights in proptest::array::uniform3(0u16..=1_000)) {
            let line: Vec<_> = ALL.iter().zip(weights)
                .map(|(coding, weight)| format!("{};q={}.{:03}", coding.name(), weight / 1_000, weight % 1_000))
                .collect();
            let chosen = choose(ALL, &[line.join(", ").as_bytes()]);
            let highest = weights.into_iter().max().unwrap_or_default();
            let expected = ALL.iter().zip(weights).find(|(_, weight)| *weight == highest && highest > 0);
            prop_assert_eq!(chosen, expected.map(|(coding, _)| *coding));
        }
    }
}
