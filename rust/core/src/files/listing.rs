//! What is in a folder, as a page.

use std::collections::BinaryHeap;
use std::fmt::Write;
use std::os::fd::OwnedFd;

use http::StatusCode;
use http::header::{self, HeaderName};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rustix::fs::{Dir, FileType};

use super::open_file::Opened;
use super::{Missing, Root};
use crate::http::Response;

/// The most names on a page: the first ones by their order, of however many there are.
const MOST: usize = 10_000;
/// What may stand in a segment of a path as it is (RFC 3986 section 2.3).
pub(super) const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A page with the folders and files that a client can get there. `name` is the folder's below the root, and `title` what
/// the client knows it by.
pub(super) fn page(root: &Root, folder: OwnedFd, name: &[u8], title: &str, hidden: bool) -> Result<Response, Missing> {
    let (entries, more) = entries(root, folder, name, hidden)?;
    let title = escape(title);
    let mut page = format!(
        "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title></head>\n<body><h1>{title}</h1>\n<ul>\n"
    );
    if !name.is_empty() {
        page.push_str("<li><a href=\"../\">../</a></li>\n");
    }
    for Entry { is_file, name } in entries {
        let slash = if is_file { "" } else { "/" };
        let (link, text) = (percent_encode(&name, IN_PATH), escape(&String::from_utf8_lossy(&name)));
        // Writing to a String cannot fail. `./`, because a name with a colon would pass for a scheme.
        let _ = writeln!(page, "<li><a href=\"./{link}{slash}\">{text}{slash}</a></li>");
    }
    page.push_str("</ul>\n");
    if more {
        let _ = writeln!(page, "<p>There are more than these {MOST}.</p>");
    }
    page.push_str("</body></html>\n");
    Ok(Response::new(StatusCode::OK, page)
        .with(header::CONTENT_TYPE, "text/html; charset=utf-8")
        .with(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .with(HeaderName::from_static("content-security-policy"), "default-src 'none'"))
}

/// Folders before files, each by name.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    is_file: bool,
    name: Vec<u8>,
}

/// The first by their order, and whether there are more. No more than these are kept, however many there are.
fn entries(root: &Root, folder: OwnedFd, name: &[u8], hidden: bool) -> Result<(Vec<Entry>, bool), Missing> {
    let mut kept = BinaryHeap::with_capacity(64);
    let mut more = false;
    for entry in Dir::new(folder).map_err(Missing::from)? {
        let entry = entry.map_err(Missing::from)?;
        let file = entry.file_name().to_bytes();
        let is_hidden = file.starts_with(b".") && (!hidden || file == b"." || file == b"..");
        // What no path can name is not shown.
        if is_hidden || file.contains(&b'\\') {
            continue;
        }
        let is_file = match entry.file_type() {
            FileType::RegularFile => true,
            FileType::Directory => false,
            FileType::Symlink | FileType::Unknown => {
                match root.find(&[name, b"/", file].concat()[usize::from(name.is_empty())..]) {
                    Ok(Opened::File(_)) => true,
                    Ok(Opened::Folder(_)) => false,
                    Ok(Opened::Special) | Err(_) => continue,
                }
            }
            _ => continue,
        };
        kept.push(Entry { is_file, name: file.to_vec() });
        if kept.len() > MOST {
            kept.pop();
            more = true;
        }
    }
    Ok((kept.into_sorted_vec(), more))
}

/// Text as it may stand in HTML, between tags and in quotes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // A line end, or what turns the direction of writing, would show another name than there is.
            odd if odd.is_control() || matches!(odd, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                escaped.push('\u{fffd}');
            }
            other => escaped.push(other),
        }
    }
    escaped
}
