//! What a ClientHello leads to, without a socket: for the fuzz target `sni`. No part of what portico promises.

use std::io::Cursor;
use std::sync::Arc;

use rustls::server::Acceptor;

use super::context::Context;
use super::handshake::choose;
use super::hosts::Hosts;
use crate::error::Error;

/// Some contexts, to choose from.
pub struct Choice(Hosts);

/// What was chosen.
#[derive(Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The name that the client asked for, in lower case.
    pub sni: Option<String>,
    /// The host of the context; the inner none is the default.
    pub host: Option<Option<String>>,
}

impl Choice {
    /// The table that a server with these contexts has.
    ///
    /// # Errors
    /// Those of adding a context to a server.
    pub fn new(contexts: impl IntoIterator<Item = Context>) -> Result<Self, Error> {
        let mut hosts = Hosts::new(None);
        contexts.into_iter().try_for_each(|context| hosts.add(Arc::new(context)))?;
        Ok(Choice(hosts))
    }

    /// The host by that name, as a handshake looks it up: not the default.
    pub fn find(&self, name: &str) -> Option<&str> {
        self.0.find(name).and_then(|host| host.name())
    }

    /// What the records of a ClientHello lead to; none where they are no whole, acceptable one.
    pub fn of_hello(&self, records: &[u8]) -> Option<Chosen> {
        let mut acceptor = Acceptor::default();
        let mut records = Cursor::new(records);
        loop {
            if acceptor.read_tls(&mut records).ok()? == 0 {
                return None;
            }
            if let Some(accepted) = acceptor.accept().ok()? {
                let (sni, context) = choose(&self.0, &accepted.client_hello());
                return Some(Chosen { sni, host: context.map(|context| context.host().map(str::to_string)) });
            }
        }
    }
}
