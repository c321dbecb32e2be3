//! The parts of a form as they come: counted, and kept in memory or on the disk.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::part_head::PartHead;
use super::upload::{Upload, temporary};
use super::{FormPart, FormValue, Limits, NotKept, fields_over, over};
use crate::error::RequestError;

/// What was found so far.
#[derive(Debug)]
pub(super) struct Parts {
    limits: Arc<Limits>,
    found: Vec<Found>,
    open: Option<Open>,
    /// Of names and of fields that are no files.
    field_bytes: usize,
    /// Of files in memory.
    memory: usize,
    in_memory_only: bool,
    /// The temporary file, which all parts share: a form of a thousand files takes one descriptor.
    file: Option<File>,
    written: u64,
    unwritten: BytesMut,
}

/// A part whose end has not come.
#[derive(Debug)]
struct Open {
    head: PartHead,
    size: u64,
    here: BytesMut,
    /// Where it begins in the temporary file, if it is there.
    offset: Option<u64>,
}

#[derive(Debug)]
enum Found {
    Text(String, String),
    Here(PartHead, Bytes),
    InFile(PartHead, u64, u64),
}

impl Parts {
    pub(super) fn new(limits: Arc<Limits>) -> Self {
        Parts {
            limits,
            found: Vec::new(),
            open: None,
            field_bytes: 0,
            memory: 0,
            in_memory_only: false,
            file: None,
            written: 0,
            unwritten: BytesMut::new(),
        }
    }

    /// Has files stay in memory, whatever their size.
    pub(super) fn keep_in_memory(&mut self) {
        self.in_memory_only = true;
    }

    /// That of the part that is open, or comes next.
    pub(super) fn number(&self) -> usize {
        self.found.len() + 1
    }

    /// A field that is whole.
    pub(super) fn text(&mut self, name: String, value: String) -> Result<(), RequestError> {
        self.count()?;
        self.charge(name.len() + value.len())?;
        self.found.push(Found::Text(name, value));
        Ok(())
    }

    /// A part begins.
    pub(super) fn begin(&mut self, head: PartHead) -> Result<(), RequestError> {
        self.count()?;
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.charge(head.name.len() + text(&head.filename) + text(&head.content_type))?;
        self.open = Some(Open { head, size: 0, here: BytesMut::new(), offset: None });
        Ok(())
    }

    /// Some of its content.
    pub(super) fn content(&mut self, bytes: &[u8]) -> Result<(), RequestError> {
        let number = self.number();
        let Some(mut open) = self.open.take() else { return Ok(()) };
        if open.head.filename.is_none() {
            self.charge(bytes.len())?;
            open.here.extend_from_slice(bytes);
            self.open = Some(open);
            return Ok(());
        }
        open.size += bytes.len() as u64;
        if open.size > self.limits.file_bytes {
            let what = format_args!("the file in part {number} is larger than {} bytes", self.limits.file_bytes);
            return Err(over(what, "max_form_file_bytes"));
        }
        let has_room = self.in_memory_only || self.memory + bytes.len() <= self.limits.memory_bytes;
        if open.offset.is_none() && !has_room {
            open.offset = Some(self.written + self.unwritten.len() as u64);
            self.memory -= open.here.len();
            self.unwritten.extend_from_slice(&std::mem::take(&mut open.here));
        }
        if open.offset.is_some() {
            self.unwritten.extend_from_slice(bytes);
        } else {
            self.memory += bytes.len();
            open.here.extend_from_slice(bytes);
        }
        self.open = Some(open);
        Ok(())
    }

    /// It ends.
    pub(super) fn end(&mut self) -> Result<(), RequestError> {
        let Some(Open { head, size, here, offset }) = self.open.take() else { return Ok(()) };
        let found = match offset {
            Some(offset) => Found::InFile(head, offset, size),
            None if head.filename.is_some() => Found::Here(head, here.freeze()),
            None => {
                let text = head.charset.decode_without_bom_handling(&here).0.into_owned();
                // Another charset, or what is none, takes up to three bytes for one.
                self.charge(text.len().saturating_sub(here.len()))?;
                Found::Text(head.name, text)
            }
        };
        self.found.push(found);
        Ok(())
    }

    fn count(&self) -> Result<(), RequestError> {
        if self.found.len() >= self.limits.parts {
            return Err(over(format_args!("it has more than {} parts", self.limits.parts), "max_form_parts"));
        }
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Result<(), RequestError> {
        self.field_bytes += bytes;
        if self.field_bytes > self.limits.field_bytes {
            return Err(fields_over(self.limits.field_bytes));
        }
        Ok(())
    }

    /// How much waits to be written.
    pub(super) fn unwritten(&self) -> usize {
        self.unwritten.len()
    }

    pub(super) fn write(&mut self) -> Result<(), NotKept> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let folder = self.limits.folder.clone().unwrap_or_else(std::env::temp_dir);
        let mut file = match self.file.take() {
            Some(file) => file,
            None => temporary(&folder).map_err(|source| NotKept { folder: folder.clone(), source })?,
        };
        file.write_all(&self.unwritten).map_err(|source| NotKept { folder, source })?;
        self.written += self.unwritten.len() as u64;
        self.unwritten.clear();
        self.file = Some(file);
        Ok(())
    }

    pub(super) fn finish(self) -> Vec<FormPart> {
        let file = self.file.map(Arc::new);
        let file_part = |head: PartHead, content| FormPart {
            name: head.name,
            value: FormValue::File {
                filename: head.filename.unwrap_or_default(),
                content_type: head.content_type,
                content,
            },
        };
        let part = |found| match (found, &file) {
            (Found::Text(name, value), _) => Some(FormPart { name, value: FormValue::Text(value) }),
            (Found::Here(head, bytes), _) => Some(file_part(head, Upload::Here(bytes))),
            (Found::InFile(head, offset, size), Some(file)) => {
                Some(file_part(head, Upload::InFile { file: file.clone(), offset, size }))
            }
            // Only without `write`, which the one who reads has to call.
            (Found::InFile(..), None) => None,
        };
        self.found.into_iter().filter_map(part).collect()
    }
}
