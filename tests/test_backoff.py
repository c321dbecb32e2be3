"""How long a supervisor waits before it replaces a worker."""

from portico._backoff import Backoff


def test_the_pause_grows_to_five_seconds_and_is_forgotten_by_who_has_grown_up():
    backoff = Backoff()
    assert [backoff.after(0.0) for _ in range(9)] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert backoff.after(9.9) == 5.0
    assert [backoff.after(10.0), backoff.after(0.0)] == [0.0, 0.1]
