//! HTTP: requests, responses, and the two versions that carry them.
//!
//! [`h1`] is our own engine on httparse; [`h2`] drives the crate of that name. Both turn what a peer sends into a [`Request`], hand it to
//! [`crate::dispatch`], and write the [`Response`] that comes back.

pub mod body;
pub mod coding;
pub(crate) mod date;
pub mod form;
pub mod h1;
pub(crate) mod h2;
pub mod headers;
pub(crate) mod pace;
pub mod request;
pub mod response;
pub mod target;
pub mod trailers;

pub use body::{Body, Pieces};
pub use headers::Headers;
pub use request::Request;
pub use response::Response;
pub use trailers::Trailers;
