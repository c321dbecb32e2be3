"""Every public name has a docstring, and the examples in docstrings do what they say."""

import doctest
import inspect

import pytest

import portico
import portico.sessions
import portico.testing
from portico import (
    _asgi,
    _connection,
    _event_loop,
    _lambda,
    _responses,
    _router,
    _server,
    _websocket,
    _worker,
    _workers,
    _wsgi,
)
from portico.pages import _handler as _pages_handler

PUBLIC = [
    getattr(portico, name)
    for name in portico.__all__
    if name not in ("__version__", "Handler", "Response", "StreamCallback", "sessions")
] + [getattr(portico.sessions, name) for name in portico.sessions.__all__]
MEMBERS = [
    (owner, name)
    for owner in PUBLIC
    if inspect.isclass(owner) and not issubclass(owner, BaseException)
    for name, member in vars(owner).items()
    if not name.startswith("_")
    and (callable(member) or isinstance(member, property) or inspect.isdatadescriptor(member))
]


@pytest.mark.parametrize("public", PUBLIC, ids=lambda public: public.__name__)
def test_every_public_name_has_a_docstring(public):
    assert inspect.getdoc(public)


@pytest.mark.parametrize(("owner", "name"), MEMBERS, ids=lambda part: getattr(part, "__name__", part))
def test_every_public_member_has_a_docstring(owner, name):
    # A field of a dataclass has its text behind it in the source, where doctest cannot see it.
    if name in getattr(owner, "__dataclass_fields__", {}):
        return
    assert inspect.getdoc(getattr(owner, name))


@pytest.mark.parametrize(
    "module",
    [
        portico.sessions,
        _asgi,
        _connection,
        _event_loop,
        _lambda,
        _responses,
        _router,
        _server,
        _websocket,
        _worker,
        _workers,
        _wsgi,
        _pages_handler,
        portico.testing,
    ],
    ids=lambda module: module.__name__,
)
def test_examples_in_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
