//! Where certificates and keys come from: files and bytes, and which of them stand for what.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The most that a file may hold. A chain with its key takes 10 KiB, a store of a hundred authorities 200.
pub(super) const MAX_BYTES: u64 = 1 << 20;

const SPECIAL: &str = "it is a pipe, a socket or a device, and only regular files are read";

/// Where a certificate or key comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// A file, read again on every reload.
    File(PathBuf),
    /// The bytes themselves.
    Bytes(Vec<u8>),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(path) => write!(f, "file {}", path.display()),
            Source::Bytes(bytes) => write!(f, "{} bytes given", bytes.len()),
        }
    }
}

// Bytes may be a private key, which must not end up in a log.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Source {
    pub(in crate::tls) fn read(&self) -> Result<Vec<u8>, String> {
        let bytes = match self {
            Source::File(path) => read_file(path)?,
            Source::Bytes(bytes) => bytes.clone(),
        };
        match bytes.len() as u64 {
            0 => Err("it is empty".into()),
            1..=MAX_BYTES => Ok(bytes),
            _ => Err(format!("it has more than {MAX_BYTES} bytes")),
        }
    }
}

/// A regular file, up to a byte more than is allowed. A pipe or a device could make its reader wait for ever.
fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("cannot read it: {error}");
    // Without waiting, and asked of what is open: what the name stands for may change at any time.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|error| {
        // A socket, and a device without a driver.
        if error.raw_os_error() == Some(libc::ENXIO) { SPECIAL.to_string() } else { unreadable(error) }
    })?;
    let kind = file.metadata().map_err(unreadable)?.file_type();
    if kind.is_dir() {
        return Err("it is a directory; portico.find_certificate looks into one".into());
    }
    if !kind.is_file() {
        return Err(SPECIAL.into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// What opens an encrypted key or PFX.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Vec<u8>);

impl Password {
    /// Text goes in as UTF-8, as OpenSSL takes it from a terminal.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Password(bytes.into())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// As PKCS#12 has it (RFC 7292 appendix B.1): UTF-16 with a zero at its end. What is no UTF-8 is taken for Latin-1,
    /// as OpenSSL does.
    pub(super) fn utf16(&self) -> Vec<u8> {
        let text = match std::str::from_utf8(&self.0) {
            Ok(text) => text.to_string(),
            Err(_) => self.0.iter().map(|byte| char::from(*byte)).collect(),
        };
        text.encode_utf16().chain([0]).flat_map(u16::to_be_bytes).collect()
    }
}

// It must not end up in a log.
impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a password")
    }
}

/// Where a certificate and its key come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// A certificate chain and a private key; without a key of its own, the chain's source holds it too.
    Pair {
        /// The chain, in any order.
        cert: Source,
        /// The private key.
        key: Option<Source>,
    },
    /// PKCS#12, which holds both.
    Pfx(Source),
}

/// A certificate with its key, and what opens them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Where they come from.
    pub form: Form,
    /// For what is encrypted; nothing else heeds it.
    pub password: Option<Password>,
}

impl Credentials {
    /// The files that they are read from, for those who watch them.
    pub fn files(&self) -> Vec<&Path> {
        let sources = match &self.form {
            Form::Pair { cert, key } => vec![Some(cert), key.as_ref()],
            Form::Pfx(pfx) => vec![Some(pfx)],
        };
        let mut files = Vec::new();
        for source in sources.into_iter().flatten() {
            if let Source::File(path) = source {
                files.push(path.as_path());
            }
        }
        files
    }
}

#[cfg(test)]
mod tests {
    use super::{Credentials, Form, Password, Source};

    #[test]
    fn secrets_are_not_shown() {
        let source = || Source::Bytes(b"a private key".to_vec());
        for form in [Form::Pfx(source()), Form::Pair { cert: source(), key: Some(source()) }] {
            let credentials = Credentials { form, password: Some(Password::new("open sesame")) };
            let shown = format!("{credentials:?} {}", source());
            assert!(shown.contains("13 bytes given"), "{shown}");
            // As bytes they would be 97, 32, ... and 111, 112, ...
            assert!(
                !["private", "sesame", "97, 32", "111, 112"].iter().any(|secret| shown.contains(secret)),
                "{shown}"
            );
        }
    }

    #[test]
    fn files_are_those_that_are_read() {
        let file = Source::File("a.pem".into());
        let form = Form::Pair { cert: file.clone(), key: Some(Source::Bytes(Vec::new())) };
        assert_eq!(Credentials { form, password: None }.files(), [std::path::Path::new("a.pem")]);
        assert_eq!(Credentials { form: Form::Pfx(file), password: None }.files().len(), 1);
    }

    #[test]
    fn passwords_of_pkcs12_are_utf_16() {
        assert_eq!(Password::new("é").utf16(), [0, 0xe9, 0, 0]);
        assert_eq!(Password::new("\u{1f511}").utf16(), [0xd8, 0x3d, 0xdd, 0x11, 0, 0]);
        assert_eq!(Password::new(vec![0xe9]).utf16(), [0, 0xe9, 0, 0], "Latin-1");
    }
}
