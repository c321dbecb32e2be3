//! Any bytes as a certificate with its key, as a key, and as a PFX. The first byte says which, and with what password.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portico_core::tls::{Credentials, Form, Identity, Password, Source};

fuzz_target!(|data: &[u8]| {
    let Some((first, bytes)) = data.split_first() else { return };
    let source = Source::Bytes(bytes.to_vec());
    let form = match first % 3 {
        0 => Form::Pfx(source),
        1 => Form::Pair { cert: source, key: None },
        _ => Form::Pair { cert: Source::Bytes(include_bytes!("../corpus/identity/leaf.der")[1..].to_vec()), key: Some(source) },
    };
    let password = match first / 3 % 3 {
        0 => None,
        1 => Some(Password::new("")),
        _ => Some(Password::new("secret")),
    };
    // An identity or an error; neither may show what it was made of.
    let credentials = Credentials { form, password };
    match Identity::load(&credentials, Some("localhost")) {
        Ok(identity) => assert!(identity.not_before <= identity.not_after),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
