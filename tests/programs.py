"""Programs in processes of their own: what they print is read as it comes, and signals stop them."""

from __future__ import annotations

import contextlib
import os
import pathlib
import queue
import re
import signal
import subprocess
import sys
import threading
import time

from clients import GENEROUS, wait_until

# Nobody listens on the discard port.
DEAD_PROXY = "http://127.0.0.1:9"


class Program:
    """A Python program that runs until it is stopped. Everything it prints is in `printed`."""

    def __init__(self, *arguments, inherit=False, **environment):
        """With `inherit` it has every descriptor that can be inherited."""
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            close_fds=not inherit,
            env=clean_environment(**environment),
        )
        self.printed = []
        self._lines = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    @property
    def output(self):
        return "".join(self.printed)

    def wait_for(self, pattern):
        """Reads until a line matches."""
        while (line := self._lines.get(timeout=GENEROUS)) is not None:
            self.printed.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"ended with {self.process.wait()} and never printed {pattern}:\n{self.output}")

    def curls(self):
        """The curl lines printed so far, as the newcomer's script finds them."""
        return [line.lstrip(" $").rstrip("\n") for line in self.printed if re.match(r"[ $]*curl ", line)]

    def signal(self, number=signal.SIGINT):
        self.process.send_signal(number)
        return self

    def finish(self):
        """Waits for the end, reads what is left, and returns the exit code."""
        code = self.process.wait(GENEROUS)
        while (line := self._lines.get(timeout=GENEROUS)) is not None:
            self.printed.append(line)
        return code

    def end(self):
        """The same. A traceback, or a warning, is an error."""
        code = self.finish()
        assert not re.search("traceback|panicked|warning", self.output, re.IGNORECASE), self.output
        return code

    def close(self):
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()


def clean_environment(**more):
    """What a newcomer's environment holds, without this machine's settings."""
    return {"PATH": os.environ["PATH"], "TERM": "dumb", **more}


def shell(line, folder, **environment):
    """Runs a line as it was printed; its output. Every proxy of the environment is a dead one."""
    done = subprocess.run(
        ["sh", "-c", line],
        cwd=folder,
        env=clean_environment(
            HOME=str(folder), **dict.fromkeys(("http_proxy", "https_proxy"), DEAD_PROXY), **environment
        ),
        capture_output=True,
        text=True,
        timeout=GENEROUS,
    )
    assert done.returncode == 0, f"{line}: {done.stderr}"
    return done.stdout


def lives(pid):
    """Whether a process runs; a dead one that its parent has not collected does not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def children():
    """The processes that this one has started, dead ones that nobody has collected too."""
    found = set()
    for task in pathlib.Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found |= set(map(int, (task / "children").read_text().split()))
    return found


def starting_time():
    """How long it takes on this machine, as busy as it is now, to start an interpreter that imports portico; in seconds."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import portico"], check=True, timeout=GENEROUS)
    return time.monotonic() - began


def has_open(pid, path):
    """Whether a process has that file open, under the name that it has now."""
    for descriptor in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            if os.readlink(descriptor) == str(path):
                return True
    return False


def hold(pid):
    """Stops every thread of a process until SIGCONT."""
    os.kill(pid, signal.SIGSTOP)
    tasks = pathlib.Path(f"/proc/{pid}/task")
    wait_until(lambda: all(" T " in (task / "stat").read_text() for task in tasks.iterdir()), "every thread to stop")
