//! Settings from Python, and what the documentation needs to know of them.

use std::borrow::Cow;

use portico_core::Config;
use portico_core::config::{Kind, SETTINGS, Value};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyString, PyTuple};

use crate::errors;

/// Reads a dict of settings.
pub(crate) fn parse(settings: &Bound<'_, PyDict>) -> PyResult<Config> {
    let values: PyResult<Vec<(String, Value)>> =
        settings.iter().map(|(name, value)| Ok((name.extract()?, to_value(&value)?))).collect();
    Config::parse(values?).map_err(errors::to_python)
}

fn to_value(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    if value.is_none() {
        return Ok(Value::Nothing);
    }
    // Before int: a bool is one, and 1 connection is not what True means.
    if let Ok(switch) = value.cast::<PyBool>() {
        return Ok(Value::Switch(switch.is_true()));
    }
    if value.cast::<PyInt>().is_ok()
        && let Ok(number) = value.extract()
    {
        return Ok(Value::Integer(number));
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        return Ok(Value::Real(number.value()));
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Value::Text(Cow::Owned(text.to_cow()?.into_owned())));
    }
    if let Ok(path) = value.call_method0("__fspath__")
        && let Ok(text) = path.extract()
    {
        return Ok(Value::Text(Cow::Owned(text)));
    }
    // A tuple or, as from TOML, a list.
    if let Ok(words) = value.extract::<Vec<String>>() {
        return Ok(Value::Words(words.into_iter().map(Cow::Owned).collect()));
    }
    match value.extract::<Vec<i64>>().as_deref() {
        Ok(&[least, most]) => Ok(Value::Pair(least, most)),
        _ => Ok(Value::Other(value.repr()?.to_string())),
    }
}

fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Nothing => py.None().into_bound(py),
        Value::Switch(on) => PyBool::new(py, *on).to_owned().into_any(),
        Value::Integer(number) => number.into_pyobject(py)?.into_any(),
        Value::Real(number) => number.into_pyobject(py)?.into_any(),
        Value::Text(text) => text.as_ref().into_pyobject(py)?.into_any(),
        Value::Pair(least, most) => (*least, *most).into_pyobject(py)?.into_any(),
        Value::Words(words) => PyTuple::new(py, words.iter().map(|word| &**word))?.into_any(),
        Value::Other(text) => text.into_pyobject(py)?.into_any(),
    })
}

/// Every setting, in the order of the documentation: dicts of `name`, `default`, `expected` (the range, in words), `doc`,
/// and `accepts`, the range as a JSON Schema, as far as that can say it.
#[pyfunction]
pub(crate) fn settings(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyDict>>> {
    SETTINGS
        .iter()
        .map(|setting| {
            let entry = PyDict::new(py);
            entry.set_item("name", setting.name)?;
            entry.set_item("default", to_python(py, &setting.default)?)?;
            entry.set_item("expected", setting.kind.expected())?;
            entry.set_item("doc", setting.doc)?;
            entry.set_item("accepts", schema(py, setting.kind)?)?;
            Ok(entry)
        })
        .collect()
}

/// Checks settings as `Server` does. Raises `ConfigError`.
#[pyfunction]
pub(crate) fn check_settings(settings: &Bound<'_, PyDict>) -> PyResult<()> {
    parse(settings).map(drop)
}

/// What a kind of setting accepts, as a JSON Schema. What has no limit is `"none"`, since TOML has no null.
fn schema(py: Python<'_>, kind: Kind) -> PyResult<Bound<'_, PyDict>> {
    let schema = PyDict::new(py);
    let optional = match kind {
        Kind::Count { min, max, optional, .. } => {
            schema.set_item("type", "integer")?;
            schema.set_item("minimum", min)?;
            schema.set_item("maximum", max)?;
            optional
        }
        Kind::Seconds { min, max, optional } => {
            schema.set_item("type", "number")?;
            schema.set_item("minimum", min)?;
            schema.set_item("maximum", max)?;
            optional
        }
        Kind::Switch => {
            schema.set_item("type", "boolean")?;
            false
        }
        Kind::Choice(words) => {
            schema.set_item("enum", words.to_vec())?;
            false
        }
        Kind::Words(words) => {
            let item = PyDict::new(py);
            item.set_item("enum", words.to_vec())?;
            schema.set_item("type", "array")?;
            schema.set_item("items", item)?;
            schema.set_item("uniqueItems", true)?;
            true
        }
        Kind::Range { min, max } => {
            let item = PyDict::new(py);
            item.set_item("type", "integer")?;
            item.set_item("minimum", min)?;
            item.set_item("maximum", max)?;
            schema.set_item("type", "array")?;
            schema.set_item("items", item)?;
            schema.set_item("minItems", 2)?;
            schema.set_item("maxItems", 2)?;
            false
        }
        // What paths and the like are is for the core to say.
        _ => false,
    };
    if !optional {
        return Ok(schema);
    }
    let none = PyDict::new(py);
    none.set_item("const", "none")?;
    let either = PyDict::new(py);
    either.set_item("anyOf", vec![schema, none])?;
    Ok(either)
}

/// Every key of `stats()` with what it counts.
#[pyfunction]
pub(crate) fn statistics() -> Vec<(&'static str, &'static str)> {
    portico_core::statistics()
}
