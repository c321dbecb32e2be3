"""How commands end, for whoever started them."""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """Exit codes. Supervisors may go by them: what is 1 to 4 will not be better by starting again."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Exit:
        code = int.__new__(cls, value)
        code._value_ = value
        code.meaning = meaning
        return code

    DONE = 0, "ended as it was asked to"
    MISTAKE = 1, "the configuration, a certificate or the program to run has to be mended"
    USAGE = 2, "the command was typed wrong"
    ADDRESS = 3, "an address cannot be listened on"
    NOBODY = 4, "no server was found that could be told"
    BUG = 70, "portico itself has failed, with a traceback: please report it"
    INTERRUPTED = 130, "an interrupt came before anything was begun"
