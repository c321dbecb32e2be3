//! Files as responses: [`StaticFiles`] serves what is below a folder, and [`answer`] sends one file as a request asks for it,
//! whole or in ranges, or not at all where the client has it.
//!
//! 1. `path` says which name below the root a request's path means, if any.
//! 2. [`Root`] opens it, and nothing outside of it.
//! 3. `coding` chooses between it and what was compressed beforehand.
//! 4. [`answer`] goes by `conditions` and `ranges` (RFC 9110 sections 13 and 14).
//! 5. `read` is the body: pieces of a file, read without making the event loop wait.

mod answer;
mod buffers;
mod coding;
mod conditions;
mod kinds;
mod listing;
mod open_file;
mod path;
mod ranges;
mod read;
mod root;
mod site;

pub use answer::answer;
pub use kinds::content_type;
pub use open_file::OpenFile;
pub use path::{Relative, relative};
pub use root::{Links, Missing, Root};
pub use site::{CacheControl, Options, StaticFiles};
