"""`portico.toml`, and what the command line and the environment say over it.

    file, environment, flags ─▶ _nodes ─▶ _schema, _kinds ─▶ _load ─▶ Configuration ─▶ _build ─▶ Server

A value knows where it was written (`_nodes`), down to the line, until it has been checked against everything that may
be said (`_schema`, of the kinds in `_kinds`). `_load` puts the three sources together; `_program` imports what is to be
served and finds out what it is; `_build` makes the server."""

from __future__ import annotations

from ._build import (
    add_host,
    admin,
    build,
    check_admin,
    check_own_certificate,
    listen_admin,
    own_certificate,
    wants_own_certificate,
)
from ._effective import effective
from ._load import DEFAULT_FILE, Configuration, Options, load
from ._nodes import Problems
from ._places import FORMS, Place, parse_host
from ._program import told
from ._schema import json_schema
from ._sockets import addresses

__all__ = [
    "DEFAULT_FILE",
    "FORMS",
    "Configuration",
    "Options",
    "Place",
    "Problems",
    "add_host",
    "addresses",
    "admin",
    "build",
    "check_admin",
    "check_own_certificate",
    "effective",
    "json_schema",
    "listen_admin",
    "load",
    "own_certificate",
    "parse_host",
    "told",
    "wants_own_certificate",
]
