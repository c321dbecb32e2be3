//! TLS: who this server is for each host name, and the handshake that decides it.
//!
//! [`identity`] loads a certificate and its key, [`context`] makes them into one host's rules, [`hosts`] finds the context for a
//! name, [`handshake`] does the rest with rustls over a [`flight`]. [`development`] makes certificates for trying things out.

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
