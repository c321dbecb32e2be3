//! Which name below a root a request's path means.

use percent_encoding::percent_decode_str;

use crate::routing::match_path;

/// The longest name that is looked for, in bytes: Linux opens none that is longer.
const LONGEST: usize = 4096;

/// A name below a root: no segment of it is empty, `.` or `..`, or has a slash, a backslash or a NUL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relative {
    /// The segments with slashes between them, decoded; empty for the root itself.
    pub name: Vec<u8>,
    /// The path ends in a slash, so a folder is meant.
    pub is_folder: bool,
}

/// The name that a request's path means, of which the first `root` bytes, in the form in which routers match it, are
/// where the root is mounted. None for what cannot be there: a segment that is empty, an encoded slash (a router takes
/// it for a part of a name, and what is behind it would pass by its guards), a NUL, a backslash, and, unless `hidden`
/// files are to be found, a segment that begins with a dot, but for `/.well-known` (RFC 8615).
pub fn relative(raw_path: &str, root: usize, hidden: bool) -> Option<Relative> {
    let whole = match_path(raw_path);
    let rest = whole.get(root..)?;
    if rest.is_empty() {
        return Some(Relative { name: Vec::new(), is_folder: false });
    }
    let rest = rest.strip_prefix('/')?;
    let (rest, is_folder) = match rest.strip_suffix('/') {
        Some(folder) => (folder, true),
        None => (rest, rest.is_empty()),
    };
    if rest.is_empty() {
        // A single slash is the root, two of them nothing.
        return (!whole[root..].starts_with("//")).then(|| Relative { name: Vec::new(), is_folder: true });
    }
    let mut name = Vec::with_capacity(rest.len());
    for (index, segment) in rest.split('/').enumerate() {
        if index > 0 {
            name.push(b'/');
        }
        let begin = name.len();
        name.extend(percent_decode_str(segment));
        if !is_name(&name[begin..], hidden || (index == 0 && segment == ".well-known")) {
            return None;
        }
    }
    (name.len() < LONGEST).then_some(Relative { name, is_folder })
}

fn is_name(segment: &[u8], hidden: bool) -> bool {
    let odd = |byte: &u8| matches!(byte, b'/' | b'\\' | 0);
    match segment {
        [] | b"." | b".." => false,
        [b'.', ..] if !hidden => false,
        _ => !segment.iter().any(odd),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(raw: &str) -> Option<(String, bool)> {
        relative(raw, 0, false).map(|it| (String::from_utf8_lossy(&it.name).into_owned(), it.is_folder))
    }

    #[test]
    fn names() {
        for (raw, name, is_folder) in [
            ("/", "", true),
            ("/a", "a", false),
            ("/a/b.txt", "a/b.txt", false),
            ("/a/", "a", true),
            ("/%61%20b/c%25", "a b/c%", false),
            ("/a/../b", "b", false),
            ("/a/..%2Fb", "b", false),
            ("/../../etc/passwd", "etc/passwd", false),
            ("/a..b/...c/d.", "a..b/...c/d.", false),
            ("/.well-known/a", ".well-known/a", false),
        ] {
            let expected = if name.contains("/...") { None } else { Some((name.to_string(), is_folder)) };
            assert_eq!(found(raw), expected, "{raw}");
        }
    }

    #[test]
    fn what_cannot_be_there() {
        for raw in [
            "//",
            "//a",
            "/a//b",
            "/a//",
            "///",
            "/a%2Fb",
            "/a%2fb",
            "/a%00",
            "/a%5Cb",
            "/a\\b",
            "/.git",
            "/a/.git/config",
            "/a/.well-known",
            "/.%2E/a%2Fb%2F%2F",
            "*",
            "/%2F",
            "/%2F%2Fevil",
        ] {
            assert_eq!(found(raw), None, "{raw}");
        }
        assert_eq!(found(&format!("/{}", "a/".repeat(3000))), None);
        assert!(relative("/.git/a", 0, true).is_some());
    }

    #[test]
    fn a_mount_is_a_folder_without_a_slash() {
        assert_eq!(relative("/static", 7, false), Some(Relative { name: Vec::new(), is_folder: false }));
        assert_eq!(relative("/static/a", 7, false), Some(Relative { name: b"a".to_vec(), is_folder: false }));
        assert_eq!(relative("/static//", 7, false), None);
        assert_eq!(relative("/sta", 7, false), None);
    }

    proptest! {
        #[test]
        fn no_name_leads_up(raw in "/([a./%2eEfF05cC\\\\]|%2f|%2e){0,24}", hidden: bool) {
            if let Some(Relative { name, .. }) = relative(&raw, 0, hidden) {
                let segments: Vec<&[u8]> = name.split(|byte| *byte == b'/').collect();
                prop_assert!(name.is_empty() || segments.iter().all(|it| is_name(it, true)), "{raw}");
            }
        }
    }
}
