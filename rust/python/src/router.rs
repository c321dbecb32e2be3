//! `portico._core.Router` and `Pattern`: the core's, for `python/portico/_router.py`, which is what users see.

use std::sync::{Arc, Weak};

use portico_core::locks::Mutex;
use portico_core::{Handler, routing};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::{self, ClosedError, ConfigError};
use crate::request::Request;

/// The routes of one `portico.Router` in one server. Handlers in it belong to that server; this here is to add some while it
/// serves, and keeps them only until the server has it.
#[pyclass(frozen)]
pub(crate) struct Router {
    made: Mutex<Option<Arc<routing::Router>>>,
    router: Weak<routing::Router>,
}

#[pymethods]
impl Router {
    #[new]
    fn new() -> Self {
        let router = Arc::default();
        Router { router: Arc::downgrade(&router), made: Mutex::new(Some(router)) }
    }

    /// Leaves it to the server that it was given to; where there is none, that is its end.
    fn let_go(&self) {
        // Dropped outside the lock, because dropping handlers may run anything.
        let _made = self.made.lock().take();
    }

    /// Whether anybody uses it.
    fn is_alive(&self) -> bool {
        self.router.strong_count() > 0
    }

    /// Takes what another one has, in place of what there is.
    fn replace(&self, other: &Router) -> PyResult<()> {
        self.core()?.replace(&*other.core()?);
        Ok(())
    }
}

impl Router {
    pub(crate) fn core(&self) -> PyResult<Arc<routing::Router>> {
        self.router.upgrade().ok_or_else(|| ClosedError::new_err("the server of these routes is closed"))
    }

    pub(crate) fn handler(&self) -> PyResult<Arc<dyn Handler>> {
        Ok(self.core()?)
    }
}

/// A path with parameters: `/users/{id}`, `/files/{*path}`.
#[pyclass(frozen)]
pub(crate) struct Pattern(pub(crate) routing::Pattern);

#[pymethods]
impl Pattern {
    /// Raises `ConfigError` for what is none.
    #[new]
    fn new(text: &str) -> PyResult<Self> {
        routing::Pattern::parse(text).map(Pattern).map_err(errors::to_python)
    }

    /// The same for all patterns that match the same paths.
    #[getter]
    fn shape(&self) -> String {
        self.0.shape()
    }

    /// The names of its parameters.
    #[getter]
    fn parameters(&self) -> Vec<&str> {
        self.0.parameters().collect()
    }

    /// A path that it matches, percent-encoded.
    ///
    /// Raises `ConfigError` where a parameter is missing, or cannot stand there.
    fn fill(&self, values: &Bound<'_, PyDict>) -> PyResult<String> {
        let values: Vec<(String, String)> =
            values.iter().map(|(name, value)| Ok((name.extract()?, value.extract()?))).collect::<PyResult<_>>()?;
        let value = |name: &str| values.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        self.0.fill(value).map_err(errors::to_python)
    }
}

/// For whoever answers where a router has no route: the methods that there are for the path, as `Allow` lists them, empty
/// where there are none; None where there was a route.
#[pyfunction]
pub(crate) fn missed<'a>(request: &'a Bound<'_, Request>) -> Option<&'a str> {
    request.get().core().missed()
}

/// A method of requests, which is a token (RFC 9110 section 9.1).
pub(crate) fn method(name: &str) -> PyResult<http::Method> {
    name.parse().map_err(|_| ConfigError::new_err(format!("method {name:?}: not a method (RFC 9110 section 9.1)")))
}
