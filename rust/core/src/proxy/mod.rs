//! Behind others: who is believed about clients, and what they tell.
//!
//! [`trust`] says whose word counts. [`protocol`] reads the PROXY protocol, which stands before everything else on a
//! connection; `opening` does its I/O. [`forwarded`] reads the headers by which proxies for HTTP tell the same of a request.

pub mod forwarded;
pub(crate) mod opening;
pub mod protocol;
pub mod trust;

pub use forwarded::{Forwarding, Style, Told};
pub use protocol::{Header, Proxied, ProxiedTls};
pub use trust::Proxies;
