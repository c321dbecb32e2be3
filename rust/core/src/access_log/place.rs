//! Where lines are written to: a file, a pipe or a terminal.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::LogTarget;
use crate::error::Error;

/// The mode of a file that is made: what clients did is not for everybody on the machine.
const MODE: u32 = 0o640;
/// What a pipe takes as one piece, so that the lines of several processes do not run into each other (PIPE_BUF).
const PIECE: usize = 4096;
/// How long a pipe is waited for at once.
const PATIENCE: Duration = Duration::from_millis(500);

/// An open file, or what there is instead.
#[derive(Debug)]
pub(super) enum Place {
    /// A regular file, opened for appending: what is written at once stays together, whoever else writes.
    File(File),
    /// A pipe, a terminal or the like, which may keep its writer waiting.
    Slow(File),
    /// A named pipe that nobody reads yet.
    Unread,
    /// The embedding program takes them.
    Program,
}

impl Place {
    pub(super) fn open(target: &LogTarget) -> Result<Self, Error> {
        let opened = match target {
            LogTarget::File(path) => Place::of_path(path),
            LogTarget::Stdout => io::stdout().as_fd().try_clone_to_owned().map(|fd| Place::of_file(fd.into())),
            LogTarget::Stderr => io::stderr().as_fd().try_clone_to_owned().map(|fd| Place::of_file(fd.into())),
            LogTarget::Program => Ok(Place::Program),
        };
        opened.map_err(|error| {
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            Error::Config(format!("setting access_log: cannot open the {}: {text}", target.name()))
        })
    }

    fn of_path(path: &Path) -> io::Result<Self> {
        let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
        // A named pipe that nobody reads would be waited for without the flag; for files it means nothing.
        let options = OpenOptions::new().append(true).create(true).mode(MODE).custom_flags(nonblocking).clone();
        match options.open(path) {
            Ok(file) => Ok(Place::of_file(file)),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
                let is_pipe = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
                if is_pipe { Ok(Place::Unread) } else { Err(error) }
            }
            Err(error) => Err(error),
        }
    }

    fn of_file(file: File) -> Self {
        let regular = file.metadata().is_ok_and(|found| found.is_file());
        if regular { Place::File(file) } else { Place::Slow(file) }
    }

    /// Writes some of these lines; how many bytes.
    pub(super) fn write(&mut self, lines: &[u8], target: &LogTarget) -> io::Result<usize> {
        match self {
            Place::File(file) => file.write(lines),
            Place::Slow(file) => {
                let timeout = Timespec::try_from(PATIENCE).ok();
                // A pipe that is ready takes a piece without keeping anybody waiting.
                let mut polled = [PollFd::new(file, PollFlags::OUT)];
                if rustix::event::poll(&mut polled, timeout.as_ref())? == 0 {
                    return Err(io::Error::new(io::ErrorKind::WouldBlock, "nobody reads what was written"));
                }
                let written = file.write(piece(lines));
                if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
                    self.reopen(target);
                }
                written
            }
            Place::Unread => {
                self.reopen(target);
                match self {
                    Place::Unread => Err(io::Error::new(io::ErrorKind::NotConnected, "nobody reads the pipe")),
                    _ => Ok(0),
                }
            }
            // Whoever calls this has told the program.
            Place::Program => Ok(lines.len()),
        }
    }

    /// A named pipe may have a new reader.
    fn reopen(&mut self, target: &LogTarget) {
        if let LogTarget::File(path) = target
            && let Ok(place) = Place::of_path(path)
        {
            *self = place;
        }
    }
}

/// As many whole lines as a pipe takes at once, or else the beginning of one.
fn piece(lines: &[u8]) -> &[u8] {
    let most = &lines[..lines.len().min(PIECE)];
    match memchr::memrchr(b'\n', most) {
        Some(end) => &most[..=end],
        None => most,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_gets_whole_lines() {
        assert_eq!(piece(b"a\nb\n"), b"a\nb\n");
        let mut long = vec![b'a'; PIECE - 1];
        long.extend(b"\nbb\n");
        assert_eq!(piece(&long).len(), PIECE);
        let mut longer = b"a\n".to_vec();
        longer.extend(vec![b'b'; PIECE]);
        assert_eq!(piece(&longer), b"a\n");
        assert_eq!(piece(&vec![b'b'; 2 * PIECE]).len(), PIECE);
    }
}
