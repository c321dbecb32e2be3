//! The content of a file that came in a form, and the temporary file where it may be.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;

/// So much is copied at once.
const COPIED_AT_ONCE: usize = 256 * 1024;

/// The content of a file.
#[derive(Debug, Clone)]
pub enum Upload {
    /// It is in memory.
    Here(Bytes),
    /// It is in a temporary file, beside others of its form. That has no name, so nothing is left of it when the last of these
    /// goes, whatever becomes of the process.
    InFile {
        /// Shared by the files of a form.
        file: Arc<File>,
        /// Where it begins.
        offset: u64,
        /// How long it is.
        size: u64,
    },
}

/// A new file without a name in `folder`, for nobody else to read.
pub(super) fn temporary(folder: &Path) -> io::Result<File> {
    let file = tempfile::tempfile_in(folder)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

impl Upload {
    /// How long it is, in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Upload::Here(bytes) => bytes.len() as u64,
            Upload::InFile { size, .. } => *size,
        }
    }

    /// Reads from `at` on until `buffer` is full or the content ends; how much that was.
    ///
    /// # Errors
    /// Those of reading from a disk.
    pub fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(left) = self.size().checked_sub(at).filter(|&left| left > 0) else { return Ok(0) };
        let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..length];
        match self {
            Upload::Here(bytes) => {
                // `at` is below the size, which is that of what is in memory.
                let at = at as usize;
                buffer.copy_from_slice(&bytes[at..at + length]);
            }
            Upload::InFile { file, offset, .. } => file.read_exact_at(buffer, offset + at)?,
        }
        Ok(length)
    }

    /// Writes it to `path`, where it is there whole or not at all: it is written beside it and then takes its place. A file or a
    /// symbolic link that is there goes; the permissions are those of a new file.
    ///
    /// # Errors
    /// Those of writing to a disk. [`io::ErrorKind::AlreadyExists`] where `path` is there and no file.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        match fs::symlink_metadata(path).map(|known| known.file_type()) {
            Ok(kind) if kind.is_dir() => return Err(Errno::ISDIR.into()),
            Ok(kind) if !kind.is_file() && !kind.is_symlink() => return Err(Errno::EXIST.into()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let create = |path: &Path| File::options().write(true).create_new(true).open(path);
        let mut beside = tempfile::Builder::new().prefix(".portico-").make_in(folder, create)?;
        // Its own `write_all` would hide the number of an error.
        let file = beside.as_file_mut();
        match self {
            Upload::Here(bytes) => file.write_all(bytes)?,
            Upload::InFile { .. } => {
                let (mut buffer, mut at) = (vec![0; COPIED_AT_ONCE], 0);
                loop {
                    let length = self.read_at(at, &mut buffer)?;
                    if length == 0 {
                        break;
                    }
                    file.write_all(&buffer[..length])?;
                    at += length as u64;
                }
            }
        }
        beside.persist(path).map_err(|error| error.error)?;
        Ok(())
    }
}
