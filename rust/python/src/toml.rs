//! `portico.toml` for Python: what stands in it, and in which lines.

use portico_core::config::toml::{Mistake, Node, Toml, parse};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyList};

/// A line, and what is wrong there.
type Told = (usize, String);

/// Reads TOML: what stands in it, and what is wrong with it, of which one is empty. Each value is a pair of its line (that
/// of its key, in a table) and itself; a mistake is one of its line and a message.
#[pyfunction]
pub(crate) fn parse_toml<'py>(py: Python<'py>, text: &str) -> PyResult<(Bound<'py, PyDict>, Vec<Told>)> {
    let table = PyDict::new(py);
    match parse(text) {
        Err(mistakes) => Ok((table, mistakes.into_iter().map(|Mistake { line, message }| (line, message)).collect())),
        Ok(root) => {
            if let Toml::Table(entries) = root.value {
                fill(&table, entries)?;
            }
            Ok((table, Vec::new()))
        }
    }
}

fn fill(table: &Bound<'_, PyDict>, entries: Vec<(String, Node)>) -> PyResult<()> {
    for (key, node) in entries {
        table.set_item(key, (node.line, to_python(table.py(), node.value)?))?;
    }
    Ok(())
}

fn to_python(py: Python<'_>, value: Toml) -> PyResult<Bound<'_, PyAny>> {
    Ok(match value {
        Toml::Text(text) => text.into_pyobject(py)?.into_any(),
        Toml::Integer(number) => number.into_pyobject(py)?.into_any(),
        Toml::Real(number) => number.into_pyobject(py)?.into_any(),
        Toml::Switch(on) => PyBool::new(py, on).to_owned().into_any(),
        Toml::List(nodes) => {
            let list = PyList::empty(py);
            for node in nodes {
                list.append((node.line, to_python(py, node.value)?))?;
            }
            list.into_any()
        }
        Toml::Table(entries) => {
            let table = PyDict::new(py);
            fill(&table, entries)?;
            table.into_any()
        }
    })
}
