"""`portico.StaticFiles`: the files below a folder. They are served in `rust/core/src/files/`."""

from __future__ import annotations

import os
from collections.abc import Mapping

from . import _core
from ._errors import ConfigError
from ._responses import Response


class StaticFiles:
    """The files below a folder, as a handler. It goes wherever a handler goes: `Server(files)`,
    `add_context(handler=files)`, `router.mount("/static", files)`; into any number of servers. The core serves them,
    without Python for each request; called as a function, as middleware and handlers may do, it gives the response.

    `GET` and `HEAD` are answered with `ETag`, `Last-Modified`, all conditions and ranges of RFC 9110; other methods get
    405. The content type is that of the name's ending, text as UTF-8, and `X-Content-Type-Options: nosniff` with it. A
    folder is answered with its `index`, or, with `listing`, with a page of what is in it, up to 10,000 names; without a
    slash at the end of its path by a redirect. With `precompressed` a client that takes it gets the `.br`, `.zst` or
    `.gz` that lies beside a file and is no older. `cache_control` is the `Cache-Control` of every file, or a mapping
    from suffixes (`".css"`, `"*"` for all others).

    Nothing outside of `root` can be reached: not by dot segments or slashes in whatever encoding, not by symbolic
    links, of which relative ones that stay inside are followed, and none with `follow_symlinks=False`. Names that begin
    with a dot are not found, but for `/.well-known` (RFC 8615), unless `dotfiles` is set; nor are devices, pipes and
    sockets. A folder that takes the root's place is served after a second.

    Raises `ConfigError` where `root` is no folder, or something cannot be a header or a name.

    >>> import tempfile, urllib.request
    >>> from pathlib import Path
    >>> from portico import testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "hello.txt").write_text("hello")
    ...     files = StaticFiles(folder, cache_control="max-age=60")
    ...     testing.call_on_server(files, lambda url: urllib.request.urlopen(url + "/hello.txt").read())
    b'hello'
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        index: str | None = "index.html",
        precompressed: bool = True,
        cache_control: str | Mapping[str, str] | None = None,
        listing: bool = False,
        dotfiles: bool = False,
        follow_symlinks: bool = True,
    ) -> None:
        try:
            self._root = os.fspath(root)
        except TypeError:
            raise ConfigError(f"root: the path of a folder, not {type(root).__name__}") from None
        if not isinstance(self._root, str) or "\0" in self._root or not self._root:
            raise ConfigError(f"root: the path of a folder, not {root!r}")
        if not isinstance(index, (str, type(None))):
            raise ConfigError(f"index: the name of a file, as index.html, or None, not {index!r}")
        for name, value in (
            ("precompressed", precompressed),
            ("listing", listing),
            ("dotfiles", dotfiles),
            ("follow_symlinks", follow_symlinks),
        ):
            if not isinstance(value, bool):
                raise ConfigError(f"{name}: True or False, not {value!r}")
        self._core = _core.StaticFiles(
            self._root, index, precompressed, _by_suffix(cache_control), listing, dotfiles, follow_symlinks
        )

    def __call__(self, request: _core.Request) -> Response:
        """The response to a request, by the path below where this is mounted. Its body is for one answer only."""
        return self._core.answer(request)

    def __repr__(self) -> str:
        return f"portico.StaticFiles({self._root!r})"


def _by_suffix(given: str | Mapping[str, str] | None) -> list[tuple[str, str]]:
    if given is None:
        return []
    if isinstance(given, str):
        return [("*", given)]
    if not isinstance(given, Mapping):
        raise ConfigError(f"cache_control: a str, or a mapping from suffixes to str, not {type(given).__name__}")
    for suffix, value in given.items():
        if not isinstance(suffix, str) or not (suffix == "*" or (suffix.startswith(".") and "." not in suffix[1:])):
            raise ConfigError(f'cache_control: a suffix as ".css", or "*" for all others, not {suffix!r}')
        if not isinstance(value, str):
            raise ConfigError(f"cache_control: for {suffix} a str, not {type(value).__name__}")
    return [(suffix.lower(), value) for suffix, value in given.items()]
