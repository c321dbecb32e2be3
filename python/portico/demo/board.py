"""`b.localhost`: a bulletin board in memory. A handler with state, a form, and a redirect after it."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

import portico
from portico.demo.site import Response, Site, from_elsewhere, wants_html
from portico.demo.templates import join, render

MAX_NOTES = 60
MAX_NAME = 40
MAX_TEXT = 500


@dataclass(frozen=True)
class Note:
    """One note: who wrote it, what, and when (unix seconds)."""

    name: str
    text: str
    written: float


class Board:
    """Answers for `b.localhost`. Keeps the newest `MAX_NOTES`, until the program ends."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._notes: deque[Note] = deque(maxlen=MAX_NOTES)
        # Handlers may run on several threads at once.
        self._lock = threading.Lock()
        self.pin("The caretaker", "Four hosts live here. Each has its own certificate: knock by name.")
        self.pin("Ada", "Lost: one semicolon.\nFound: it was never needed.")

    def pin(self, name: str, text: str) -> None:
        """Puts up a note, cut to what fits."""
        note = Note(name[:MAX_NAME] or "Somebody", text[:MAX_TEXT], time.time())
        with self._lock:
            self._notes.appendleft(note)

    def handle(self, request: portico.Request) -> Response:
        """The handler."""
        if request.path != "/":
            return self.site.other(request)
        if request.method == "POST":
            return self._post(request)
        if request.method not in ("GET", "HEAD"):
            return self.site.refuse(request, 405, allow="GET, HEAD, POST")
        with self._lock:
            notes = list(self._notes)
        return self._page(request, notes) if wants_html(request) else self._text(request, notes)

    def _post(self, request: portico.Request) -> Response:
        if from_elsewhere(request):
            return self.site.refuse(request, 403)
        form = request.form()
        name, text = form.get("name", ""), form.get("text", "")
        if not (isinstance(name, str) and isinstance(text, str) and text.strip()):
            return self.site.refuse(request, 422)
        self.pin(" ".join(name.split()), text.strip())
        return portico.redirect("/", 303)

    def _page(self, request: portico.Request, notes: list[Note]) -> Response:
        now = time.time()
        rows = ({"name": note.name, "text": note.text, "age": age(now - note.written)} for note in notes)
        content = render("board.html", notes=join("note.html", rows), max_name=MAX_NAME, max_text=MAX_TEXT)
        return self.site.html(request, "Bulletin board", content)

    def _text(self, request: portico.Request, notes: list[Note]) -> Response:
        lines = (f"  {note.name}: {' '.join(note.text.split())}" for note in notes[:5])
        return self.site.text(request, "", *lines, "", "To pin a note: add -d 'text=hello' to the command.")


def age(seconds: float) -> str:
    """How long ago, in words."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"
