"""What a page may use. Each limit that is passed is a 500 for that request alone."""

from __future__ import annotations

from dataclasses import dataclass, fields

from .._errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PageLimits:
    """What one request of a page may use; past any of it the request gets a 500, and the session is what it was
    before. Raises `ConfigError` for what is no positive number."""

    seconds: float = 2.0
    """Time in the interpreter, 2 seconds. What it waits for functions of the host does not count."""
    memory_bytes: int = 32 * 2**20
    """Memory of the interpreter, with all that the session keeps: 32 MiB."""
    output_bytes: int = 4 * 2**20
    """What the page prints, 4 MiB."""
    recursion: int = 500
    """How deep functions may call each other, 500."""
    calls: int = 1000
    """How often it may call functions of the host, 1000. The first use of each name counts too."""
    state_bytes: int = 2**20
    """What a session may keep from one request to the next, 1 MiB: the interpreter, and, in characters, `session`
    written out."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kinds = (int, float) if field.name == "seconds" else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < 2**40:
                raise ConfigError(f"limits: {field.name} is a positive number, not {value!r}")
        if self.recursion > 2000:
            # Beyond that the interpreter itself runs out of stack before it notices.
            raise ConfigError(f"limits: recursion is 2000 at the most, not {self.recursion}")

    def key(self) -> str:
        """What of it an interpreter keeps for life."""
        return f"{self.seconds}/{self.memory_bytes}/{self.recursion}/{self.calls}"
