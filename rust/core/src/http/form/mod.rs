//! Forms in the bodies of requests: `application/x-www-form-urlencoded` (the URL standard) and `multipart/form-data`
//! (RFC 7578, RFC 2046).
//!
//! [`FormReader`] takes a body piece by piece. What reads the bytes (`multipart`, `part_head`, `urlencoded`) does no I/O;
//! `parts` counts and keeps what they find, and only [`FormReader::write`] and [`Upload`] touch a disk.

mod multipart;
mod part_head;
mod parts;
#[cfg(test)]
mod tests;
mod upload;
mod urlencoded;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::Config;
use crate::error::{Refusal, RequestError};

use multipart::Multipart;
use parts::Parts;
pub use upload::Upload;
use urlencoded::Urlencoded;

/// So much is written to a temporary file at once; what waits for that is bounded by it and one more piece.
const WRITTEN_AT_ONCE: usize = 256 * 1024;

/// One field of a form.
#[derive(Debug)]
pub struct FormPart {
    /// The field's name.
    pub name: String,
    /// What it holds.
    pub value: FormValue,
}

/// What a field of a form holds.
#[derive(Debug)]
pub enum FormValue {
    /// Text.
    Text(String),
    /// A file: what came with a file name.
    File {
        /// The file name as the client gave it: not to be trusted as a path.
        filename: String,
        /// The content type that the client claims.
        content_type: Option<String>,
        /// What is in it.
        content: Upload,
    },
}

/// How much a form may be, and where its files are kept.
#[derive(Debug, Clone)]
pub struct Limits {
    parts: usize,
    field_bytes: usize,
    file_bytes: u64,
    memory_bytes: usize,
    head_bytes: usize,
    head_lines: usize,
    folder: Option<PathBuf>,
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        Limits {
            parts: config.max_form_parts,
            field_bytes: config.max_form_field_bytes,
            file_bytes: config.max_form_file_bytes.map_or(u64::MAX, |bytes| bytes as u64),
            memory_bytes: config.form_memory_bytes,
            head_bytes: config.max_header_bytes,
            head_lines: config.max_headers,
            folder: config.form_folder.clone(),
        }
    }
}

/// A file of a form could not be written to the disk.
#[derive(Debug)]
pub struct NotKept {
    /// Where.
    pub folder: PathBuf,
    /// What the operating system said.
    pub source: io::Error,
}

impl fmt::Display for NotKept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a file of a form cannot be kept in {}: {}", self.folder.display(), self.source)
    }
}

impl std::error::Error for NotKept {}

/// Reads a form from a body that is here. Its files stay in memory, as the body is.
///
/// # Errors
/// Those of [`FormReader`].
pub fn parse_form(content_type: &str, body: &[u8], limits: &Arc<Limits>) -> Result<Vec<FormPart>, RequestError> {
    let Some(mut reader) = FormReader::new(content_type, limits)? else { return Ok(Vec::new()) };
    reader.parts.keep_in_memory();
    // What is not yet looked through is copied: little of a large body at a time.
    for piece in body.chunks(WRITTEN_AT_ONCE) {
        reader.push(piece)?;
    }
    reader.end()?;
    Ok(reader.into_parts())
}

/// Reads a form from a body that comes piece by piece. After an error there is nothing more to be had of it.
#[derive(Debug)]
pub struct FormReader {
    kind: Kind,
    parts: Parts,
}

#[derive(Debug)]
enum Kind {
    Urlencoded(Urlencoded),
    Multipart(Box<Multipart>),
}

impl FormReader {
    /// For a body of that content type; none for one that is no form.
    ///
    /// # Errors
    /// [`Refusal::Framing`] for a multipart form without a usable boundary.
    pub fn new(content_type: &str, limits: &Arc<Limits>) -> Result<Option<Self>, RequestError> {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let kind = if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            Kind::Urlencoded(Urlencoded::new(limits.field_bytes))
        } else if essence.eq_ignore_ascii_case("multipart/form-data") {
            let boundary = part_head::boundary(content_type)?;
            Kind::Multipart(Box::new(Multipart::new(&boundary, limits.head_bytes, limits.head_lines)))
        } else {
            return Ok(None);
        };
        Ok(Some(FormReader { kind, parts: Parts::new(limits.clone()) }))
    }

    /// Takes the next piece of the body.
    ///
    /// # Errors
    /// [`Refusal::Framing`] for what is malformed, [`Refusal::BodyBytes`] where a limit is passed.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), RequestError> {
        match &mut self.kind {
            Kind::Urlencoded(urlencoded) => urlencoded.push(piece, &mut self.parts),
            Kind::Multipart(multipart) => multipart.push(piece, &mut self.parts),
        }
    }

    /// Nothing more comes.
    ///
    /// # Errors
    /// As [`FormReader::push`].
    pub fn end(&mut self) -> Result<(), RequestError> {
        match &mut self.kind {
            Kind::Urlencoded(urlencoded) => urlencoded.end(&mut self.parts),
            Kind::Multipart(multipart) => multipart.end(),
        }
    }

    /// Whether so much waits to be written that [`FormReader::write`] is to be called before the next piece.
    pub fn is_to_be_written(&self) -> bool {
        self.parts.unwritten() >= WRITTEN_AT_ONCE
    }

    /// Writes what waits for it to the temporary file. This blocks.
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn write(&mut self) -> Result<(), NotKept> {
        self.parts.write()
    }

    /// The fields, in their order, once [`FormReader::end`] and [`FormReader::write`] have been called.
    pub fn into_parts(self) -> Vec<FormPart> {
        self.parts.finish()
    }
}

fn malformed(why: impl fmt::Display) -> RequestError {
    RequestError::new(Refusal::Framing, format!("malformed form: {why}"))
}

fn fields_over(limit: usize) -> RequestError {
    over(format_args!("its fields take more than {limit} bytes"), "max_form_field_bytes")
}

fn over(what: impl fmt::Display, setting: &str) -> RequestError {
    RequestError::new(Refusal::BodyBytes, format!("the form is over a limit: {what} ({setting})"))
}
