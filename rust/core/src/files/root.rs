//! Opening what is below a folder, and nothing else.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use super::open_file::{FLAGS, OpenFile, Opened};
use crate::error::Error;
use crate::locks::RwLock;

/// How long a root is taken to be where it was. Deployments put another folder, or a link to another, in its place.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often a name is looked up that is changed meanwhile: the kernel gives up where it cannot be sure that nothing led out.
const TRIES: usize = 16;
#[cfg(target_os = "linux")]
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Which symbolic links are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Relative ones that stay below the root.
    Below,
    /// None.
    No,
}

/// Why there is nothing to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It is not there, is no file, or leads out of the root.
    NotFound,
    /// The machine does not let this program read it.
    Forbidden,
    /// There is no room for another open file.
    Busy,
    /// The machine failed.
    Failed,
}

impl Missing {
    /// The status that tells a client.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Missing::NotFound => StatusCode::NOT_FOUND,
            Missing::Forbidden => StatusCode::FORBIDDEN,
            Missing::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Missing::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<Errno> for Missing {
    fn from(error: Errno) -> Self {
        match error {
            Errno::ACCESS | Errno::PERM => Missing::Forbidden,
            Errno::MFILE | Errno::NFILE | Errno::NOMEM => Missing::Busy,
            Errno::IO | Errno::AGAIN => Missing::Failed,
            // Not there, too long, no folder on the way; a link that leads out (EXDEV) or in circles (ELOOP), or is none to
            // follow; a socket, or a device without a driver (ENXIO).
            _ => Missing::NotFound,
        }
    }
}

/// A folder. It is looked for again every second, so that what takes its place is served.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    links: Links,
    /// Step by step, where the kernel cannot do it in one.
    by_steps: bool,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    folder: Arc<OwnedFd>,
    looked: Instant,
}

impl Root {
    /// The folder at a path.
    ///
    /// # Errors
    /// [`Error::Config`] where there is none.
    pub fn open(path: &Path, links: Links) -> Result<Self, Error> {
        let failed = |why: &dyn std::fmt::Display| Error::Config(format!("root {path:?}: {why}"));
        let path = std::path::absolute(path).map_err(|error| failed(&error))?;
        let folder = open_folder(&path).map_err(|error| failed(&std::io::Error::from(error)))?;
        // A sandbox that does not know the call says so in one of these ways.
        let by_steps = matches!(beneath(&folder, b".", FOLDER, links), Err(Errno::NOSYS | Errno::PERM));
        let state = RwLock::new(State { folder: Arc::new(folder), looked: Instant::now() });
        Ok(Root { path, links, by_steps, state })
    }

    /// What a name below it is; the name of the root itself is empty.
    pub(super) fn find(&self, name: &[u8]) -> Result<Opened, Missing> {
        let fd = self.open_at(name, FLAGS)?;
        Opened::look(fd).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO).into())
    }

    /// The file of that name.
    ///
    /// # Errors
    /// There is none that can be read.
    pub fn file(&self, name: &[u8]) -> Result<OpenFile, Missing> {
        match self.find(name)? {
            Opened::File(file) => Ok(file),
            Opened::Folder(_) | Opened::Special => Err(Missing::NotFound),
        }
    }

    fn open_at(&self, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let folder = self.folder();
        let name = if name.is_empty() { b"." } else { name };
        if self.by_steps { step_by_step(&folder, name, flags) } else { beneath(&folder, name, flags, self.links) }
    }

    fn folder(&self) -> Arc<OwnedFd> {
        let known = {
            let state = self.state.read();
            if state.looked.elapsed() < LOOK_AGAIN {
                return state.folder.clone();
            }
            state.folder.clone()
        };
        self.state.write().looked = Instant::now();
        match open_folder(&self.path) {
            Ok(folder) => {
                let folder = Arc::new(folder);
                self.state.write().folder = folder.clone();
                folder
            }
            // It is gone, or there is no room for another descriptor: what was there is as good as ever.
            Err(_) => known,
        }
    }
}

fn open_folder(path: &Path) -> Result<OwnedFd, Errno> {
    fs::open(path, FOLDER, Mode::empty())
}

/// Opens in one step, in which the kernel lets nothing lead out of the folder: neither `..`, nor a link, absolute ones
/// included, nor what is renamed meanwhile.
#[cfg(target_os = "linux")]
fn beneath(folder: &OwnedFd, name: &[u8], flags: OFlags, links: Links) -> Result<OwnedFd, Errno> {
    use rustix::fs::ResolveFlags;
    let resolve = match links {
        Links::Below => ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
        Links::No => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    };
    for _ in 1..TRIES {
        match fs::openat2(folder, name, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return opened,
        }
    }
    fs::openat2(folder, name, flags, Mode::empty(), resolve)
}

#[cfg(not(target_os = "linux"))]
fn beneath(_: &OwnedFd, _: &[u8], _: OFlags, _: Links) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}

/// The same for kernels before 5.6, sandboxes that forbid `openat2`, and other systems: segment by segment, each from the
/// descriptor of the one before. No link is followed, for where it leads would have to be judged before it is gone to.
fn step_by_step(folder: &OwnedFd, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut here = None;
    let mut segments = name.split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        if segment == b".." {
            return Err(Errno::XDEV);
        }
        let flags = if segments.peek().is_some() { FOLDER } else { flags };
        let next = fs::openat(here.as_ref().unwrap_or(folder), segment, flags | OFlags::NOFOLLOW, Mode::empty())?;
        here = Some(next);
    }
    here.ok_or(Errno::NOENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    /// A folder of its own, taken away at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("portico-root-{}-{name}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(path.join("root/deep")).unwrap();
            std::fs::write(path.join("secret"), "secret").unwrap();
            std::fs::write(path.join("root/a"), "inside").unwrap();
            std::fs::write(path.join("root/deep/b"), "inside").unwrap();
            symlink("a", path.join("root/near")).unwrap();
            symlink("../a", path.join("root/deep/up")).unwrap();
            symlink("../secret", path.join("root/out")).unwrap();
            symlink(path.join("secret"), path.join("root/absolute")).unwrap();
            symlink("..", path.join("root/parent")).unwrap();
            symlink("circle", path.join("root/circle")).unwrap();
            Folder(path)
        }

        fn root(&self, links: Links) -> Root {
            Root::open(&self.0.join("root"), links).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn content(root: &Root, name: &str) -> Result<String, Missing> {
        let opened = root.file(name.as_bytes())?;
        let mut text = String::new();
        (&*opened.file).read_to_string(&mut text).unwrap();
        Ok(text)
    }

    #[test]
    fn nothing_leads_out() {
        let folder = Folder::new("out");
        let mut steps = folder.root(Links::Below);
        steps.by_steps = true;
        for root in [folder.root(Links::Below), folder.root(Links::No), steps] {
            assert_eq!(content(&root, "a").as_deref(), Ok("inside"));
            assert_eq!(content(&root, "deep/b").as_deref(), Ok("inside"));
            for name in ["out", "absolute", "parent/secret", "../secret", "deep/../../secret", "/etc/passwd", "circle"]
            {
                assert!(content(&root, name).is_err(), "{name} by {root:?}");
            }
            assert_eq!(content(&root, "deep"), Err(Missing::NotFound), "a folder");
            assert_eq!(content(&root, "none"), Err(Missing::NotFound));
            assert_eq!(content(&root, &"a".repeat(300)), Err(Missing::NotFound));
        }
    }

    #[test]
    fn links_that_stay_inside_are_followed_where_asked() {
        let folder = Folder::new("links");
        for name in ["near", "deep/up"] {
            assert_eq!(content(&folder.root(Links::Below), name).as_deref(), Ok("inside"));
            assert_eq!(content(&folder.root(Links::No), name), Err(Missing::NotFound));
        }
    }

    #[test]
    fn a_folder_that_takes_the_roots_place_is_served() {
        let folder = Folder::new("place");
        let root = folder.root(Links::Below);
        std::fs::rename(folder.0.join("root"), folder.0.join("old")).unwrap();
        std::fs::create_dir(folder.0.join("root")).unwrap();
        std::fs::write(folder.0.join("root/a"), "new").unwrap();
        root.state.write().looked = Instant::now() - LOOK_AGAIN;
        assert_eq!(content(&root, "a").as_deref(), Ok("new"));
        std::fs::remove_dir_all(folder.0.join("root")).unwrap();
        root.state.write().looked = Instant::now() - LOOK_AGAIN;
        assert_eq!(content(&root, "a"), Err(Missing::NotFound), "and an end is no error");
    }

    #[test]
    fn a_root_that_is_none_is_told() {
        let folder = Folder::new("none");
        for name in ["none", "root/a"] {
            let error = Root::open(&folder.0.join(name), Links::Below).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
