//! An open file, and what it is told by.

use std::fmt::{self, Write};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::HeaderValue;
use rustix::fs::OFlags;

use super::read;
use crate::http::{Body, Pieces};

/// How files are opened: never waiting, as for a pipe's other end, and never becoming somebody's terminal.
pub(super) const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// A regular file that is open, as it was then.
#[derive(Clone)]
pub struct OpenFile {
    pub(super) file: Arc<File>,
    size: u64,
    /// Seconds since 1970, and nanoseconds.
    modified: (i64, i64),
    inode: u64,
    /// The part of it that is meant; else all of it.
    from: u64,
}

/// What an open descriptor is.
pub(super) enum Opened {
    File(OpenFile),
    Folder(OwnedFd),
    /// A device, a pipe, a socket.
    Special,
}

impl Opened {
    pub(super) fn look(fd: OwnedFd) -> io::Result<Self> {
        let file = File::from(fd);
        let metadata = file.metadata()?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            return Ok(Opened::Folder(file.into()));
        }
        if !kind.is_file() {
            return Ok(Opened::Special);
        }
        Ok(Opened::File(OpenFile {
            file: Arc::new(file),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            inode: metadata.ino(),
            from: 0,
        }))
    }
}

impl OpenFile {
    /// Opens the file at a path, wherever that leads.
    ///
    /// # Errors
    /// What the machine says, and `InvalidInput` for what is no regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        // The standard library adds O_RDONLY and O_CLOEXEC, and takes no others of those.
        let flags = (FLAGS.difference(OFlags::CLOEXEC)).bits().cast_signed();
        let file = File::options().read(true).custom_flags(flags).open(path)?;
        Self::from_descriptor(file.into())
    }

    /// The file that a descriptor is open for.
    ///
    /// # Errors
    /// The same.
    pub fn from_descriptor(fd: OwnedFd) -> io::Result<Self> {
        let what = match Opened::look(fd)? {
            Opened::File(file) => return Ok(file),
            Opened::Folder(_) => "it is a folder",
            Opened::Special => "it is no regular file",
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, what))
    }

    /// The same without its first bytes, and no longer than `most`; both in bytes.
    #[must_use]
    pub fn part(mut self, from: u64, most: Option<u64>) -> Self {
        self.from = from.min(self.size);
        let left = self.size - self.from;
        self.size = self.from + left.min(most.unwrap_or(left));
        self
    }

    /// The file as a body that is sent whatever the request asks.
    pub fn into_body(self) -> Body {
        if self.length() == 0 { Body::default() } else { Body::Pieces(self.pieces()) }
    }

    /// How many bytes there are.
    pub fn length(&self) -> u64 {
        self.size - self.from
    }

    /// The file as a body: what is small and in memory at once, else piece by piece.
    pub(crate) fn body(&self) -> Body {
        read::body(self, self.from..self.size)
    }

    /// The same piece by piece.
    pub(crate) fn pieces(&self) -> Pieces {
        read::pieces(self, self.from..self.size)
    }

    pub(super) fn from(&self) -> u64 {
        self.from
    }

    /// A strong entity tag (RFC 9110 section 8.8.3): another file, or another time or length of this one, has another.
    pub(super) fn etag(&self) -> HeaderValue {
        let (seconds, nanoseconds) = self.modified;
        let nanoseconds = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        let mut text = String::with_capacity(48);
        // Writing to a String cannot fail.
        let _ = write!(text, "\"{nanoseconds:x}-{:x}-{:x}\"", self.size, self.inode);
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"\""))
    }

    /// When it was changed, in whole seconds, and not later than `now` (RFC 9110 section 8.8.2.1).
    pub(super) fn modified(&self, now: SystemTime) -> SystemTime {
        let seconds = Duration::from_secs(u64::try_from(self.modified.0).unwrap_or(0));
        let whole = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            UNIX_EPOCH + Duration::from_secs(since.as_secs())
        };
        // A date has four digits for the year.
        (UNIX_EPOCH.checked_add(seconds).unwrap_or(UNIX_EPOCH)).min(whole(now))
    }

    /// Whether it was changed before another was, by the clock's seconds: tools that copy times often leave out the rest.
    pub(super) fn is_older_than(&self, other: &OpenFile) -> bool {
        self.modified.0 < other.modified.0
    }
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFile").field("size", &self.size).field("inode", &self.inode).finish_non_exhaustive()
    }
}
