//! The module `portico._core`: a thin binding over `portico-core`. Every decision is made there or in `python/portico`;
//! here values are converted, errors become exceptions, and the interpreter is attached to and let go.

mod admin;
mod asgi;
mod bodies;
mod certificates;
mod connection;
mod contexts;
mod errors;
mod files;
mod forms;
mod handler;
mod header_names;
mod listener;
mod loops;
mod parse;
mod reports;
mod request;
mod response;
mod router;
mod server;
mod sessions;
mod settings;
mod slot;
mod streams;
mod threads;
mod toml;
mod trace;
mod uploads;
mod websocket;
mod wsgi;

use pyo3::prelude::*;
use pyo3::types::PyTuple;

#[pymodule(gil_used = true)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<asgi::Exchange>()?;
    module.add_class::<bodies::BodySender>()?;
    module.add_class::<uploads::BodyStream>()?;
    module.add_class::<connection::ConnectionInfo>()?;
    module.add_class::<connection::PeerCertificate>()?;
    module.add_class::<connection::ProxyInfo>()?;
    module.add_class::<files::FileBody>()?;
    module.add_class::<files::StaticFiles>()?;
    module.add_class::<forms::FormContent>()?;
    module.add_class::<forms::FormStream>()?;
    module.add_class::<handler::Failed>()?;
    module.add_class::<loops::Bridge>()?;
    module.add_class::<loops::Driver>()?;
    module.add_class::<loops::Raised>()?;
    module.add_class::<request::Request>()?;
    module.add_class::<router::Pattern>()?;
    module.add_class::<router::Router>()?;
    module.add_class::<contexts::Context>()?;
    module.add_class::<admin::Lines>()?;
    module.add_class::<listener::Listener>()?;
    module.add_class::<admin::WorkersSeen>()?;
    module.add_class::<server::Server>()?;
    module.add_class::<trace::TraceRecord>()?;
    module.add_class::<streams::Operation>()?;
    module.add_class::<streams::Stream>()?;
    module.add_class::<websocket::Handshake>()?;
    module.add_class::<websocket::Socket>()?;
    module.add_class::<websocket::Upgrade>()?;
    module.add_function(wrap_pyfunction!(websocket::asgi_headers, module)?)?;
    module.add_function(wrap_pyfunction!(websocket::is_websocket, module)?)?;
    module.add_function(wrap_pyfunction!(asgi::scope::asgi_scope, module)?)?;
    module.add_function(wrap_pyfunction!(certificates::make_authority, module)?)?;
    module.add_function(wrap_pyfunction!(certificates::issue_certificate, module)?)?;
    module.add_function(wrap_pyfunction!(certificates::certificate_info, module)?)?;
    module.add_function(wrap_pyfunction!(certificates::find_certificate, module)?)?;
    module.add_function(wrap_pyfunction!(parse::parse_request, module)?)?;
    module.add_function(wrap_pyfunction!(router::missed, module)?)?;
    module.add_function(wrap_pyfunction!(settings::settings, module)?)?;
    module.add_function(wrap_pyfunction!(settings::check_settings, module)?)?;
    module.add_function(wrap_pyfunction!(settings::statistics, module)?)?;
    module.add_function(wrap_pyfunction!(toml::parse_toml, module)?)?;
    module.add_function(wrap_pyfunction!(threads::close_door, module)?)?;
    module.add_function(wrap_pyfunction!(threads::raise_in_thread, module)?)?;
    module.add_function(wrap_pyfunction!(trace::trace_events, module)?)?;
    module.add_function(wrap_pyfunction!(wsgi::wsgi_environ, module)?)?;
    module.add_function(wrap_pyfunction!(wsgi::wsgi_start, module)?)?;
    module.add("REQUEST_KEYS", PyTuple::new(module.py(), request::KEYS)?)?;
    module.add("RESPONSE_KEYS", PyTuple::new(module.py(), response::KEYS)?)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    Ok(())
}
