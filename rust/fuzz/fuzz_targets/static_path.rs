//! Paths of files. The first byte of the input says whether hidden files are served and where the root is mounted, the rest is a
//! request's path. Whatever it is, its name stays a name below the root, and nothing outside the root is ever opened.

#![no_main]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use portico_core::files::{Links, Root, relative};

/// What stands outside is of this length, and nothing inside.
const OUTSIDE: usize = 4_321;

/// A root with links of every kind, beside what they must not lead to.
static ROOTS: LazyLock<[Root; 2]> = LazyLock::new(|| {
    let top = std::env::temp_dir().join(format!("portico-static-path-{}", std::process::id()));
    let root = top.join("root");
    let write = |path: PathBuf, length: usize| fs::write(path, vec![b'x'; length]).expect("a file");
    fs::create_dir_all(root.join("a/b")).expect("folders");
    write(top.join("o"), OUTSIDE);
    for (name, length) in [("i", 1), ("a/i", 2), ("a/b/i", 3), (".h", 4), ("a/ ", 5), ("%", 6)] {
        write(root.join(name), length);
    }
    for (to, name) in [("../o", "l"), ("../../o", "a/l"), ("..", "u"), ("/", "r"), ("a/i", "s"), ("c", "c")] {
        symlink(to, root.join(name)).expect("a link");
    }
    [Links::Below, Links::No].map(|links| Root::open(&root, links).expect("the root"))
});

fuzz_target!(|data: &[u8]| {
    let Some((how, path)) = data.split_first() else { return };
    // What the HTTP engines let through.
    let path: String = path.iter().map(|&byte| char::from(byte)).filter(|it| matches!(it, '!'..='~')).collect();
    let (hidden, mounted) = (how & 1 == 1, usize::from(how >> 4));
    let Some(found) = relative(&format!("/{path}"), mounted, hidden) else { return };
    if !found.name.is_empty() {
        for segment in found.name.split(|&byte| byte == b'/') {
            assert!(!matches!(segment, b"" | b"." | b".."), "{path:?}: {found:?}");
            assert!(!segment.iter().any(|byte| matches!(byte, 0 | b'\\')), "{path:?}: {found:?}");
            assert!(hidden || segment[0] != b'.' || found.name.starts_with(b".well-known"), "{path:?}: {found:?}");
        }
    }
    for root in ROOTS.iter() {
        if let Ok(file) = root.file(&found.name) {
            assert!(file.length() < 10, "{path:?} leads out of the root");
        }
    }
});
