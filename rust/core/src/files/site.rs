//! The handler that serves what is below a folder.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Method, StatusCode};
use percent_encoding::percent_encode;
use tokio::runtime::Handle;

use super::coding::{self, Coding};
use super::listing::{self, IN_PATH};
use super::open_file::Opened;
use super::{Links, Missing, OpenFile, Relative, Root, answer, kinds, relative};
use crate::dispatch::{Handler, Reply};
use crate::error::Error;
use crate::http::{Body, Request, Response};

/// How a folder is served.
#[derive(Debug)]
pub struct Options {
    /// The file that stands for its folder; none: no file does.
    pub index: Option<String>,
    /// Whether files that were compressed beforehand are sent to whom wants them: `.br`, `.zst` and `.gz` beside the plain one.
    pub precompressed: bool,
    /// What is said about keeping files.
    pub cache_control: CacheControl,
    /// Whether a folder without an index is answered with what is in it.
    pub listing: bool,
    /// Whether files and folders are found whose names begin with a dot.
    pub hidden: bool,
    /// Which links are followed.
    pub links: Links,
}

/// The `Cache-Control` of files (RFC 9111 section 5.2).
#[derive(Debug, Default)]
pub struct CacheControl {
    /// By what a name ends in, with the dot, in lower case.
    pub by_suffix: HashMap<String, HeaderValue>,
    /// Of all others.
    pub other: Option<HeaderValue>,
}

impl CacheControl {
    fn of(&self, name: &[u8]) -> Option<&HeaderValue> {
        let file = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let by_suffix = || {
            let dot = memchr::memrchr(b'.', file)?;
            self.by_suffix.get(&std::str::from_utf8(&file[dot..]).ok()?.to_ascii_lowercase())
        };
        let found = if self.by_suffix.is_empty() { None } else { by_suffix() };
        found.or(self.other.as_ref())
    }
}

/// Serves the files below a folder, and nothing outside of it.
#[derive(Debug, Clone)]
pub struct StaticFiles {
    root: Arc<Root>,
    options: Arc<Options>,
}

/// What there is for a request.
enum Found {
    Answer(Response),
    /// A folder that is to be listed, which takes a while where much is in it.
    Folder(OwnedFd, Vec<u8>),
}

impl StaticFiles {
    /// Serves the folder at a path.
    ///
    /// # Errors
    /// [`Error::Config`] where there is none, and for an index that is no name of a file.
    pub fn new(root: &Path, options: Options) -> Result<Self, Error> {
        if let Some(index) = &options.index
            && (index.is_empty() || index == "." || index == ".." || index.contains(['/', '\\', '\0']))
        {
            return Err(Error::Config(format!("index {index:?}: the name of a file, as index.html")));
        }
        Ok(StaticFiles { root: Arc::new(Root::open(root, options.links)?), options: Arc::new(options) })
    }

    /// The answer to a request. It may take as long as the machine takes to list a folder.
    pub fn answer(&self, request: &Request) -> Response {
        match self.find(request) {
            Found::Answer(response) => response,
            Found::Folder(folder, name) => self.list(folder, &name, &request.whole_path_bytes()),
        }
    }

    fn find(&self, request: &Request) -> Found {
        Found::Answer(match request.method {
            Method::GET | Method::HEAD => return self.look(request),
            Method::OPTIONS => Response::new(StatusCode::NO_CONTENT, Body::default()).with(header::ALLOW, ALLOW),
            _ => Response::plain(StatusCode::METHOD_NOT_ALLOWED).with(header::ALLOW, ALLOW),
        })
    }

    fn look(&self, request: &Request) -> Found {
        let mount = request.route.as_ref().map_or(0, |route| route.matched);
        let Some(Relative { mut name, is_folder }) = relative(request.target.raw_path(), mount, self.options.hidden)
        else {
            return missing(Missing::NotFound);
        };
        if !is_folder {
            return match self.root.find(&name) {
                Ok(Opened::File(file)) => Found::Answer(self.send(request, &name, file)),
                Ok(Opened::Folder(_)) => Found::Answer(to_folder(request)),
                Ok(Opened::Special) => missing(Missing::NotFound),
                Err(error) => missing(error),
            };
        }
        let length = name.len();
        let mut error = Missing::NotFound;
        if let Some(index) = &self.options.index {
            if length > 0 {
                name.push(b'/');
            }
            name.extend_from_slice(index.as_bytes());
            match self.root.find(&name) {
                Ok(Opened::File(file)) => return Found::Answer(self.send(request, &name, file)),
                Ok(_) => {}
                Err(why) => error = why,
            }
            name.truncate(length);
        }
        if !self.options.listing || error != Missing::NotFound {
            return missing(error);
        }
        match self.root.find(&name) {
            Ok(Opened::Folder(folder)) => Found::Folder(folder, name),
            Ok(_) => missing(Missing::NotFound),
            Err(error) => missing(error),
        }
    }

    fn send(&self, request: &Request, name: &[u8], plain: OpenFile) -> Response {
        let mut response = Response::new(StatusCode::OK, Body::default());
        response.headers.reserve(10);
        let kind = kinds::content_type(name);
        let mut file = plain;
        if self.options.precompressed && kinds::shrinks(&kind) {
            // Also where the plain one is sent: a cache must not give that to everybody (RFC 9110 section 12.5.5).
            response.headers.push((header::VARY, HeaderValue::from_static("accept-encoding")));
            if let Some((coding, compressed)) = self.compressed(request, name, &file) {
                response.headers.push((header::CONTENT_ENCODING, HeaderValue::from_static(coding.name())));
                file = compressed;
            }
        }
        response.headers.push((header::CONTENT_TYPE, kind));
        response.headers.push((header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")));
        if let Some(value) = self.options.cache_control.of(name) {
            response.headers.push((header::CACHE_CONTROL, value.clone()));
        }
        response.body = Body::File(Box::new(file));
        answer(request, response)
    }

    /// The best of the compressed ones that the client takes. One that is older than the plain file is of another version.
    fn compressed(&self, request: &Request, name: &[u8], plain: &OpenFile) -> Option<(Coding, OpenFile)> {
        request.headers.get("accept-encoding")?;
        coding::wanted(&request.headers).find_map(|coding| {
            let file = self.root.file(&[name, coding.suffix().as_bytes()].concat()).ok()?;
            (!file.is_older_than(plain)).then_some((coding, file))
        })
    }

    fn list(&self, folder: OwnedFd, name: &[u8], path: &[u8]) -> Response {
        let title = String::from_utf8_lossy(path);
        let page = listing::page(&self.root, folder, name, &title, self.options.hidden);
        page.unwrap_or_else(refusal)
    }
}

const ALLOW: &str = "GET, HEAD, OPTIONS";

impl Handler for StaticFiles {
    fn call(&self, request: Box<Request>, reply: Reply) {
        match self.find(&request) {
            Found::Answer(response) => reply.send(response),
            Found::Folder(folder, name) => {
                let (files, path) = (self.clone(), request.whole_path_bytes().into_owned());
                let list = move || reply.send(files.list(folder, &name, &path));
                match Handle::try_current() {
                    Ok(handle) => drop(handle.spawn_blocking(list)),
                    Err(_) => list(),
                }
            }
        }
    }
}

fn missing(why: Missing) -> Found {
    Found::Answer(refusal(why))
}

fn refusal(why: Missing) -> Response {
    let response = Response::plain(why.status());
    if why == Missing::Busy { response.with(header::RETRY_AFTER, "1") } else { response }
}

/// Sends the client to the same path with a slash, from where relative links lead into the folder. The location is relative,
/// of one segment, so that whatever the path is it leads to no other host.
fn to_folder(request: &Request) -> Response {
    let path = request.whole_path_bytes();
    let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let query = match request.target.query() {
        "" => String::new(),
        query => format!("?{query}"),
    };
    let mut response = Response::plain(StatusCode::MOVED_PERMANENTLY);
    let location = HeaderValue::try_from(format!("./{}/{query}", percent_encode(last, IN_PATH)));
    response.headers.extend(location.ok().map(|location| (header::LOCATION, location)));
    response
}
