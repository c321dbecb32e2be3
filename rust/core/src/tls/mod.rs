//! TLS: who this server is for each host name, and the handshake that decides it.
//!
//! [`identity`] loads a certificate and its key, [`ocsp`], [`client_auth`] and [`tickets`] what goes with them;
//! [`context`] makes all that into one host's rules, [`hosts`] finds the context for a name, [`handshake`] does the rest
//! with rustls over a [`flight`]. [`watch`](mod@watch) sees when files change and certificates end, [`certificate`] tells
//! what stands in one, [`development`] makes some for trying things out, [`choice`] is for a fuzz target.

mod certificate;
mod choice;
mod client_auth;
mod context;
pub mod development;
mod flight;
mod handshake;
mod hosts;
mod identity;
mod ocsp;
mod tickets;
mod watch;

pub use certificate::Certificate;
#[doc(hidden)]
pub use choice::{Choice, Chosen};
pub use client_auth::ClientAuth;
pub use context::{Changes, Context, Rules, Sources, Version};
pub(crate) use flight::Flight;
pub(crate) use handshake::{HandshakeError, accept};
pub use hosts::host_name;
pub(crate) use hosts::{Host, Hosts};
pub use identity::{Credentials, Form, Found, Identity, Password, Source, Wanted, find_certificate, read_certificate};
pub(crate) use watch::{REMIND, remind, watch};
