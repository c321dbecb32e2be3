"""What `portico serve` answers with: the server pages of a folder, and its files."""

from __future__ import annotations

import itertools
import os

from . import _responses
from ._core import Request
from ._files import StaticFiles
from ._responses import Response
from .pages import MISSING, Pages
from .pages._folder import SUFFIX, Folder

# As many names are looked at when the command starts, to see whether there are pages.
_LOOKED_AT = 10_000


class PagesAndFiles:
    """Pages where pydantic-monty is installed, else 501 for them; everything else is a file. The source of a page is
    never sent, nor what an editor may have left beside it.

    Raises `ConfigError` where `root` is no folder."""

    def __init__(self, root: str | os.PathLike[str], files: StaticFiles) -> None:
        self._files = files
        self._folder = Folder(os.fspath(root))
        self._pages = None if MISSING else Pages(root)

    def __call__(self, request: Request) -> Response:
        """The response to a request, by its path."""
        path = request.path
        # Folded: there are file systems to which `.PSP`, and even the old long s, are the same.
        if SUFFIX not in path.casefold() and not (path.endswith("/") and self._folder.page(path)):
            return self._files(request)
        if self._pages:
            return self._pages(request)
        if not self._folder.page(path):
            return _responses.error(404)
        return _responses.response(501, f"501 Not Implemented: this is a server page, but {MISSING}\n")

    def close(self) -> None:
        """Ends the processes that run pages."""
        if self._pages:
            self._pages.close()

    def remark(self) -> str:
        """What is to be said at the start: that there are pages which cannot run."""
        if self._pages:
            return ""
        names = itertools.chain.from_iterable(names for _, _, names in os.walk(self._folder.root))
        found = any(name.endswith(SUFFIX) for name in itertools.islice(names, _LOOKED_AT))
        return f"Server pages ({SUFFIX}) are answered by 501: {MISSING}" if found else ""
