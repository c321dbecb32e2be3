"""Settings: names, ranges, types, and where they come from."""

import pytest

import portico
from clients import Wire

SETTINGS = {each["name"]: each for each in portico.settings()}
NAMES = """max_request_read_bytes max_read_buffer_size max_header_bytes max_headers max_connections
    max_connections_per_ip max_in_flight handshake_timeout header_timeout body_timeout keepalive_timeout write_timeout
    handler_timeout http1 http2 nodelay backlog dispatch threads io_threads""".split()  # noqa: SIM905
COUNTS = [name for name in NAMES if "a whole number of" in SETTINGS[name]["expected"]]
SECONDS = [name for name in NAMES if "a number of seconds" in SETTINGS[name]["expected"]]
SWITCHES = ["http1", "http2", "nodelay"]


def refused(**settings):
    """What is said about a wrong setting."""
    with pytest.raises(portico.ConfigError) as caught:
        portico.Server(**settings)
    return str(caught.value)


def test_every_setting_of_the_contract_is_there():
    assert set(NAMES) <= set(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_is_described_and_takes_its_default(name):
    setting = SETTINGS[name]
    assert setting["doc"].endswith(".")
    assert setting["expected"]
    with portico.Server(**{name: setting["default"]}):
        pass


def test_defaults_of_the_contract():
    expected = {
        "max_request_read_bytes": 10 * 2**20,
        "max_read_buffer_size": 2**20,
        "max_header_bytes": 64 * 2**10,
        "max_headers": 100,
        "max_connections": 10_000,
        "max_connections_per_ip": None,
        "max_in_flight": 1_000,
        "handshake_timeout": 10,
        "header_timeout": 10,
        "body_timeout": 30,
        "keepalive_timeout": 60,
        "write_timeout": 30,
        "handler_timeout": None,
        "http1": True,
        "http2": True,
        "nodelay": True,
        "backlog": 1024,
        "dispatch": "auto",
        "threads": (5, 20),
    }
    assert {name: SETTINGS[name]["default"] for name in expected} == expected


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("max_header_byte", "max_header_bytes"),
        ("max_conections", "max_connections"),
        ("keep_alive_timeout", "keepalive_timeout"),
        ("http_2", "http2"),
        ("thread", "threads"),
        ("Backlog", "backlog"),
    ],
)
def test_unknown_setting_names_the_nearest(given, meant):
    text = refused(**{given: 1})
    assert given in text
    assert f"did you mean {meant}?" in text
    assert refused(config={given: 1}) == text, "the same words wherever it was given"


def test_unknown_setting_like_none_lists_all():
    text = refused(zzz=1)
    assert all(name in text for name in SETTINGS)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [-1, 2**40 * 100, 2**70, True, 1.0, "1", b"1", [1], float("nan")])
def test_count_out_of_range_or_of_another_type(name, value):
    text = refused(**{name: value})
    assert text.startswith(f"setting {name}: expected {SETTINGS[name]['expected']}, not ")
    assert repr(value).strip("'\"b") in text.replace('"', "").replace("NaN", "nan")


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [0, -1, 0.001, 1e9, 2**70, True, "1", float("nan"), float("inf"), -0.0])
def test_seconds_out_of_range_or_of_another_type(name, value):
    assert f"setting {name}: expected a number of seconds" in refused(**{name: value})


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [1, 0.5])
def test_seconds_are_int_or_float(name, value):
    with portico.Server(**{name: value}):
        pass


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("value", [0, 1, None, "on", "True"])
def test_switches_are_bools(name, value):
    assert f"setting {name}: expected True or False" in refused(**{name: value})


@pytest.mark.parametrize("name", sorted({*COUNTS, *SECONDS, "dispatch", "threads"}))
def test_none_is_for_optional_settings_alone(name):
    if "or None" in SETTINGS[name]["expected"]:
        with portico.Server(**{name: None}):
            pass
    else:
        assert "not None" in refused(**{name: None})


@pytest.mark.parametrize("value", ["", "Inline", "thread", 1, ["threads"]])
def test_dispatch_is_one_of_four_words(value):
    text = refused(dispatch=value)
    assert all(word in text for word in ("auto", "inline", "threads", "asyncio"))


@pytest.mark.parametrize("value", [5, (5,), (0, 5), (5, 4), (1, 100_000), (1, 2, 3), ("1", "2"), (1.0, 2.0), (-1, 1)])
def test_threads_is_a_pair(value):
    assert "setting threads: expected a pair" in refused(threads=value)


def test_threads_may_be_a_list():
    with portico.Server(threads=[1, 1]):
        pass


def test_one_protocol_at_least():
    text = refused(http1=False, http2=False)
    assert "http1" in text
    assert "http2" in text


def test_config_is_a_mapping_and_keywords_win(make_server):
    server = make_server(config={"max_headers": 1, "max_request_read_bytes": 10}, max_headers=50)
    with Wire(server.listen(0, tls=False).port) as wire:
        assert wire.get(headers="X: y\r\n" * 10).status == 200
        wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n")
        assert wire.read().status == 413


@pytest.mark.parametrize("config", [[], "x", 1, [("max_headers", 1)]])
def test_config_of_another_type(config):
    with pytest.raises((portico.ConfigError, TypeError)) as caught:
        portico.Server(config=config)
    if config:
        assert "config" in str(caught.value)


@pytest.mark.parametrize("config", [{1: 2}, {None: 1}, {"": 1}])
def test_config_with_odd_names(config):
    with pytest.raises((portico.ConfigError, TypeError)):
        portico.Server(config=config)


def test_config_is_not_changed():
    config = {"max_headers": 10, "on_error": None}
    with portico.Server(config=config, max_headers=20):
        assert config == {"max_headers": 10, "on_error": None}


@pytest.mark.parametrize("handler", [1, "handler", {"statusCode": 200}, [print]])
def test_handler_that_cannot_be_called(make_server, issue, handler):
    with pytest.raises(portico.ConfigError, match="handler"):
        portico.Server(handler)
    with pytest.raises(portico.ConfigError, match="handler"):
        make_server().add_context("localhost", **issue("localhost"), handler=handler)


def test_a_refused_server_leaves_nothing(make_server):
    for _ in range(100):
        refused(max_headers=0)
    assert make_server().listen(0, tls=False).port
