//! Request headers as one block of bytes and where each name and value stands in it: two allocations for
//! any number of headers, and nothing is converted before somebody asks.

use bytes::{Bytes, BytesMut};

/// Where one header stands in its block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) name: (u32, u32),
    pub(crate) value: (u32, u32),
}

/// The headers of a request, in the order in which they came, names in lower case.
#[derive(Debug, Clone, Default)]
pub struct Headers {
    block: Bytes,
    spans: Vec<Span>,
}

impl Headers {
    /// Names must be lower-case ASCII in the block already.
    pub(crate) fn new(block: Bytes, spans: Vec<Span>) -> Self {
        Headers { block, spans }
    }

    /// Those of a map, `host` before them.
    #[cfg(test)]
    pub(crate) fn from_map(host: Option<&str>, map: &http::HeaderMap) -> Self {
        Self::behind("", host, map).1
    }

    /// Copies a request target and a header map into one block, `host` before the headers: HTTP/2 keeps that one outside. It is
    /// one allocation, however often they are shared.
    pub(crate) fn behind(target: &str, host: Option<&str>, map: &http::HeaderMap) -> (Bytes, Self) {
        let host = host.map(|host| ("host", host.as_bytes()));
        let headers = || host.into_iter().chain(map.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
        let size: usize = headers().map(|(name, value)| name.len() + value.len()).sum();
        let mut block = BytesMut::with_capacity(target.len() + size);
        block.extend_from_slice(target.as_bytes());
        let mut push = |bytes: &[u8]| {
            let start = block.len() as u32;
            block.extend_from_slice(bytes);
            (start, block.len() as u32)
        };
        let spans = headers().map(|(name, value)| Span { name: push(name.as_bytes()), value: push(value) }).collect();
        let block = block.freeze();
        (block.slice(..target.len()), Headers { block, spans })
    }

    /// The same for a body whose codings were undone: no `Content-Encoding`, and no `Content-Length` but that of the decoded
    /// body, where one came and the new one is known.
    pub(crate) fn decoded(mut self, length: Option<usize>) -> Self {
        self.spans
            .retain(|span| self.block.get(span.name.0 as usize..span.name.1 as usize) != Some(b"content-encoding"));
        let at = self.spans.iter().position(|span| self.slice(span.name) == b"content-length");
        match (at, length) {
            (None, _) => {}
            (Some(at), None) => drop(self.spans.remove(at)),
            (Some(at), Some(length)) => {
                let mut block = BytesMut::from(&self.block[..]);
                let start = block.len() as u32;
                block.extend_from_slice(length.to_string().as_bytes());
                self.spans[at].value = (start, block.len() as u32);
                self.block = block.freeze();
            }
        }
        self
    }

    fn slice(&self, (start, end): (u32, u32)) -> &[u8] {
        self.block.get(start as usize..end as usize).unwrap_or_default()
    }

    /// Name and value of each, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> {
        self.spans
            .iter()
            .map(|span| (std::str::from_utf8(self.slice(span.name)).unwrap_or_default(), self.slice(span.value)))
    }

    /// The values of one header, by its lower-case name.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        self.spans
            .iter()
            .filter(move |span| self.slice(span.name) == name.as_bytes())
            .map(|span| self.slice(span.value))
    }

    /// The first value of one header, by its lower-case name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.spans.iter().find(|span| self.slice(span.name) == name.as_bytes()).map(|span| self.slice(span.value))
    }

    /// All of them as they stand in memory, shared, and where in it the first values of some are, by their lower-case names.
    pub(crate) fn shared<const N: usize>(&self, names: [&str; N]) -> (Bytes, [Option<(u32, u32)>; N]) {
        let mut places = [None; N];
        for span in &self.spans {
            let name = self.slice(span.name);
            if let Some(at) = names.iter().position(|wanted| wanted.as_bytes() == name) {
                places[at].get_or_insert(span.value);
            }
        }
        (self.block.clone(), places)
    }

    /// The values of one header as one list, by its lower-case name. Where it came in one line, nothing is copied.
    pub(crate) fn joined(&self, name: &str) -> Option<Bytes> {
        let mut values = self.get_all(name);
        let first = values.next()?;
        let Some(second) = values.next() else { return Some(self.block.slice_ref(first)) };
        Some([first, second].into_iter().chain(values).collect::<Vec<_>>().join(&b',').into())
    }

    /// How many header lines there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{Bytes, Headers};

    #[test]
    fn headers_of_a_decoded_body_are_its_own() {
        let mut map = http::HeaderMap::new();
        for (name, value) in
            [("content-encoding", "br"), ("content-length", "3"), ("a", "1"), ("content-encoding", "gzip")]
        {
            map.append(name, value.parse().unwrap());
        }
        let lines = |headers: Headers| -> Vec<_> {
            headers.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value))).collect()
        };
        let headers = Headers::from_map(None, &map);
        assert_eq!(lines(headers.clone().decoded(Some(1234))), ["content-length: 1234", "a: 1"]);
        assert_eq!(lines(headers.decoded(None)), ["a: 1"]);
        map.remove("content-length");
        assert_eq!(lines(Headers::from_map(None, &map).decoded(Some(1234))), ["a: 1"]);
    }

    #[test]
    fn a_map_keeps_its_repeated_headers() {
        let mut map = http::HeaderMap::new();
        map.append("a", "1".parse().unwrap());
        map.append("b", "2".parse().unwrap());
        map.append("a", "3".parse().unwrap());
        let headers = Headers::from_map(Some("h"), &map);
        assert_eq!(headers.get("b"), Some(&b"2"[..]));
        assert_eq!(headers.get_all("a").collect::<Vec<_>>(), [b"1", b"3"]);
        assert_eq!(headers.shared(["c", "a"]), (Bytes::from_static(b"hostha1a3b2"), [None, Some((6, 7))]));
        assert_eq!(headers.joined("a").as_deref(), Some(&b"1,3"[..]));
        assert_eq!(headers.joined("b").as_deref(), Some(&b"2"[..]));
        assert_eq!(headers.joined("c"), None);
        assert_eq!(headers.iter().next(), Some(("host", &b"h"[..])));
        assert_eq!(headers.len(), 4);
        assert_eq!(headers.get("c"), None);
    }
}
