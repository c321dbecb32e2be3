//! The patterns of routes: `/users/{id}`, `/files/{*path}`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::path;
use crate::error::Error;

/// The most parameters of a pattern: matchit panics at 26.
const MAX_PARAMETERS: usize = 20;

/// What may not stand in a segment of a path as it is (RFC 3986 section 3.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');
/// The same for several segments.
const SEGMENTS: &AsciiSet = &SEGMENT.remove(b'/');

/// A path with parameters in place of segments. It is written decoded: `/café` is what clients ask for as `/caf%C3%A9`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// One segment that is not empty.
    Parameter(String),
    /// All that is left, which is not nothing.
    Rest(String),
}

/// How closely a segment says what it matches; the closest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Literal,
    Parameter,
    Rest,
}

impl Pattern {
    /// Reads a pattern: a path of which whole segments may be `{name}`, and the last `{*name}`. `{{` and `}}` are braces.
    ///
    /// # Errors
    /// [`Error::Config`] for what is none, or could never match.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Err(Error::Config(format!("path {text:?}: {why}")));
        let Some(rest) = text.strip_prefix('/') else { return wrong("a path begins with a slash") };
        if text.contains(['?', '#']) {
            return wrong("a path ends before a query or a fragment: there is no ? and no # in it");
        }
        let segments = rest.split('/').map(Segment::parse).collect::<Option<Vec<_>>>();
        let Some(segments) = segments else {
            return wrong(
                "a parameter is a whole segment, {name} or, for all that is left, {*name}; its name is made of letters, \
                 digits and _; braces of another meaning are doubled, {{ and }}",
            );
        };
        let pattern = Pattern { text: text.to_string(), segments };
        if pattern.segments.iter().any(|segment| matches!(segment, Segment::Literal(it) if it == "." || it == "..")) {
            return wrong("no request ever has a . or .. in its path: they are resolved before it is matched");
        }
        if pattern.segments.iter().rev().skip(1).any(|segment| matches!(segment, Segment::Rest(_))) {
            return wrong("{*name} matches all that is left, so it comes last");
        }
        let names: Vec<_> = pattern.parameters().collect();
        if let Some(twice) = names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)) {
            return wrong(&format!("parameter {} stands twice in it", twice.1));
        }
        if names.len() > MAX_PARAMETERS {
            return wrong(&format!("more than {MAX_PARAMETERS} parameters"));
        }
        Ok(pattern)
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names of its parameters, in their order.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Parameter(name) | Segment::Rest(name) => Some(name.as_str()),
        })
    }

    /// The same for all patterns that match the same paths, as `/{a}` and `/{b}`; in matchit's syntax.
    pub fn shape(&self) -> String {
        let mut shape = String::with_capacity(self.text.len());
        for segment in &self.segments {
            shape.push('/');
            match segment {
                Segment::Literal(text) => shape.push_str(&path::literal(text).replace('{', "{{").replace('}', "}}")),
                Segment::Parameter(_) => shape.push_str("{p}"),
                Segment::Rest(_) => shape.push_str("{*p}"),
            }
        }
        shape
    }

    pub(super) fn kinds(&self) -> Box<[Kind]> {
        let kind = |segment: &Segment| match segment {
            Segment::Literal(_) => Kind::Literal,
            Segment::Parameter(_) => Kind::Parameter,
            Segment::Rest(_) => Kind::Rest,
        };
        self.segments.iter().map(kind).collect()
    }

    /// The segments before a `{*name}`; none where there is no such thing.
    pub(super) fn before_rest(&self) -> Option<usize> {
        matches!(self.segments.last(), Some(Segment::Rest(_))).then(|| self.segments.len() - 1)
    }

    /// The pattern without a slash at its end: of `/`, none.
    pub(super) fn into_prefix(mut self) -> Self {
        if matches!(self.segments.last(), Some(Segment::Literal(last)) if last.is_empty()) {
            self.segments.pop();
        }
        self
    }

    /// How many segments it has.
    pub(super) fn len(&self) -> usize {
        self.segments.len()
    }

    /// The pattern with one more segment: an empty one, or what is left.
    pub(super) fn and(&self, rest: bool) -> Self {
        let mut segments = self.segments.clone();
        segments.push(if rest { Segment::Rest(String::new()) } else { Segment::Literal(String::new()) });
        Pattern { text: self.text.clone(), segments }
    }

    /// A path that it matches with those parameters, percent-encoded (RFC 3986 section 3.3).
    ///
    /// # Errors
    /// [`Error::Config`] where one is missing, or is a value that no path can have there.
    pub fn fill<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> Result<String, Error> {
        let missing: Vec<_> = self.parameters().filter(|name| value(name).is_none()).collect();
        if !missing.is_empty() {
            return Err(Error::Config(format!("path {:?}: {} is missing", self.text, missing.join(", "))));
        }
        let mut path = String::with_capacity(self.text.len());
        for segment in &self.segments {
            path.push('/');
            let (name, set) = match segment {
                Segment::Literal(text) => {
                    path.extend(utf8_percent_encode(text, SEGMENT));
                    continue;
                }
                Segment::Parameter(name) => (name, SEGMENT),
                Segment::Rest(name) => (name, SEGMENTS),
            };
            let text = value(name).unwrap_or_default();
            if text.is_empty() || text.split('/').any(|part| part == "." || part == "..") {
                return Err(Error::Config(format!(
                    "path {:?}: {name} is {text:?}, which no path can have there: it is empty, or has a . or .. that \
                     would be resolved",
                    self.text
                )));
            }
            path.extend(utf8_percent_encode(text, set));
        }
        Ok(path)
    }
}

impl Segment {
    fn parse(text: &str) -> Option<Self> {
        let inside = text.strip_prefix('{').filter(|inside| !inside.starts_with('{'));
        let Some(inside) = inside else { return unescape(text).map(Segment::Literal) };
        let inside = inside.strip_suffix('}')?;
        let (name, rest) = inside.strip_prefix('*').map_or((inside, false), |name| (name, true));
        let is_name = !name.starts_with(|it: char| it.is_ascii_digit())
            && !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let name = is_name.then(|| name.to_string())?;
        Some(if rest { Segment::Rest(name) } else { Segment::Parameter(name) })
    }
}

/// Text whose braces are doubled.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if matches!(character, '{' | '}') && characters.next() != Some(character) {
            return None;
        }
        out.push(character);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Pattern {
        Pattern::parse(text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn shapes_are_the_same_for_what_matches_the_same() {
        for (text, shape) in [
            ("/", "/"),
            ("/a/", "/a/"),
            ("/users/{id}", "/users/{p}"),
            ("/{a}/{b_2}/x", "/{p}/{p}/x"),
            ("/files/{*path}", "/files/{*p}"),
            ("/100%/{{a}}", "/100%25/{{a}}"),
            ("/caf\u{e9}//b c", "/caf\u{e9}//b c"),
        ] {
            assert_eq!(parse(text).shape(), shape, "{text}");
        }
    }

    #[test]
    fn what_is_no_pattern() {
        for text in [
            "",
            "a",
            "/a?b",
            "/a#b",
            "/{}",
            "/{*}",
            "/{1a}",
            "/{a-b}",
            "/{id:int}",
            "/{path:*}",
            "/a{b}",
            "/{a}b",
            "/{a",
            "/a}",
            "/{a}}",
            "/{{a}",
            "/{*a}/b",
            "/{a}/{a}",
            "/{a}/{*a}",
            "/a/../b",
            "/.",
            "/{\u{e9}}",
        ] {
            assert!(matches!(Pattern::parse(text), Err(Error::Config(_))), "{text}");
        }
        let many = |n: usize| (0..n).map(|n| format!("/{{p{n}}}")).collect::<String>();
        assert!(Pattern::parse(&many(MAX_PARAMETERS)).is_ok());
        assert!(Pattern::parse(&many(MAX_PARAMETERS + 1)).is_err());
    }

    #[test]
    fn filled_in() {
        let fill = |pattern: &str, value: &'static str| parse(pattern).fill(|name| (name == "x").then_some(value));
        assert_eq!(fill("/a b/{x}", "1/2 %\u{e9}").unwrap(), "/a%20b/1%2F2%20%25%C3%A9");
        assert_eq!(fill("/{{}}/{*x}", "a/b c").unwrap(), "/%7B%7D/a/b%20c");
        assert_eq!(fill("/~x/", "").unwrap(), "/~x/");
        for value in ["", ".", "..", "a/../b"] {
            assert!(fill("/{x}", value).is_err() && fill("/{*x}", value).is_err(), "{value}");
        }
        let error = fill("/{x}/{y}/{*z}", "1").unwrap_err().to_string();
        assert!(error.contains("y, z is missing"), "{error}");
    }
}
