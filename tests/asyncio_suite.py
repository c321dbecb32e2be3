"""asyncio's own tests on the loop of `portico.new_event_loop`, while that serves; run by test_asyncio_suite.py."""

import asyncio
import importlib.util
import unittest

from test.test_asyncio import test_events, test_sock_lowlevel, utils  # CPython's

import portico


async def hello(request):
    return {"statusCode": 200}


def new_event_loop():
    """A loop on which a server has its I/O, from its first turn on until it is closed."""
    loop = portico.new_event_loop()
    server = portico.Server(hello, io_threads=1)

    async def begin():
        await server.__aenter__()
        server.listen(0, tls=False)

    close = loop.close

    def close_both():
        close()
        server.close(0)

    loop.run_until_complete(begin())
    loop.close = close_both
    return loop


class Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self):
        return new_event_loop()


class Events(
    test_events.UnixEventLoopTestsMixin,
    test_events.SubprocessTestsMixin,
    test_events.EventLoopTestsMixin,
    utils.TestCase,
):
    def create_event_loop(self):
        return new_event_loop()


class Sockets(test_sock_lowlevel.BaseSockTestsMixin, utils.TestCase):
    def create_event_loop(self):
        return new_event_loop()


# Those that take their loop from the policy.
MODULES = ["futures2", "locks", "queues", "streams", "subprocess", "taskgroups", "threads", "timeouts", "waitfor"]


def load_tests(loader, tests, pattern):
    for name in MODULES:
        # Not every Python has each.
        if importlib.util.find_spec(f"test.test_asyncio.test_{name}"):
            tests.addTests(loader.loadTestsFromName(f"test.test_asyncio.test_{name}"))
    return tests


if __name__ == "__main__":
    asyncio.set_event_loop_policy(Policy())
    unittest.main(verbosity=1)
