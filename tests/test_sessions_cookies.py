"""The cookie of a session: how it is set, and what is made of one that a client has made up."""

import contextlib
import re

import pytest

import portico
from portico.sessions import Sessions
from session_stores import SECRET, Clock, act

OLD = "an old secret of thirty-two bytes or more, for tests"


def get(served, path="/", cookie=None, secure=True, host="localhost"):
    headers = {} if cookie is None else {"cookie": cookie}
    with served.httpx(clear=not secure, http2=False, host=host) as client:
        return client.get(path, headers=headers)


def cookie_of(answer):
    return answer.headers["set-cookie"].partition(";")[0]


# ---- how it is set


def test_over_tls_it_belongs_to_this_host_alone(serve):
    line = get(serve(act, sessions={"secret": SECRET}), "/set/a/1").headers["set-cookie"]
    cookie, *attributes = line.split("; ")
    assert re.fullmatch(r"__Host-session=[\w-]{32}\.[\w-]{43}", cookie)
    assert attributes == ["Max-Age=28800", "Path=/", "Secure", "HttpOnly", "SameSite=Lax"]


def test_without_tls_it_has_no_prefix(serve):
    line = get(serve(act, sessions={"secret": SECRET}), "/set/a/1", secure=False).headers["set-cookie"]
    cookie, *attributes = line.split("; ")
    assert re.fullmatch(r"session=[\w-]{32}\.[\w-]{43}", cookie)
    assert attributes == ["Max-Age=28800", "Path=/", "HttpOnly", "SameSite=Lax"]


def test_its_name_and_same_site_can_be_chosen(serve):
    served = serve(act, sessions={"cookie": "sid", "same_site": "Strict", "lifetime": 600})
    line = get(served, "/set/a/1").headers["set-cookie"]
    assert re.fullmatch(r"__Host-sid=[^;]+; Max-Age=600; Path=/; Secure; HttpOnly; SameSite=Strict", line)


def test_behind_a_proxy_that_ends_tls(serve):
    served = serve(act, sessions={"secret": SECRET, "secure": True})
    answer = get(served, "/set/a/1", secure=False)
    assert "; Secure;" in answer.headers["set-cookie"]
    assert get(served, cookie=cookie_of(answer), secure=False).text == "({'a': '1'}, None)"


def test_the_end_takes_it_away_with_the_same_attributes(serve):
    served = serve(act, sessions={"secret": SECRET})
    cookie = cookie_of(get(served, "/set/a/1"))
    line = get(served, "/end", cookie).headers["set-cookie"]
    assert line == (
        "__Host-session=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax"
    )


def test_it_is_beside_cookies_of_the_handler(serve):
    def handler(request):
        request.session["a"] = 1
        return portico.set_cookie({"statusCode": 200}, "mine", "1")

    with serve(handler, sessions={"secret": SECRET}).httpx() as client:
        answer = client.get("/")
        assert sorted(line.partition("=")[0] for line in answer.headers.get_list("set-cookie")) == [
            "__Host-session",
            "mine",
        ]


# ---- ids


def test_an_id_that_the_server_did_not_make_is_never_taken_up(serve, caplog):
    caplog.set_level("INFO", "portico.session")
    served = serve(act, sessions={"secret": SECRET})
    planted = "__Host-session=" + "A" * 32 + "." + "B" * 43
    answer = get(served, "/set/a/1", planted)
    assert answer.status_code == 200
    assert "A" * 32 not in cookie_of(answer)
    assert get(served, cookie=planted).text == "({}, None)"
    assert "was not signed here: a new session" in caplog.text


def test_an_id_whose_session_has_ended_is_never_taken_up_again(stores, serve):
    served = serve(act, sessions=stores.sessions())
    for how in ("/end", "timeout"):
        old = cookie_of(get(served, "/set/a/1"))
        if how == "/end":
            get(served, how, old)
        else:
            stores.clock.now += 121
        answer = get(served, "/set/b/2", old)
        assert cookie_of(answer) != old
        assert answer.text == "({'b': '2'}, None)"
        assert get(served, cookie=old).text == "({}, None)"


def test_a_renewed_session_has_another_id_and_the_old_one_is_worth_nothing(stores, serve):
    served = serve(act, sessions=stores.sessions())
    before = cookie_of(get(served, "/set/a/1"))
    after = cookie_of(get(served, "/renew", before))
    assert after != before
    assert get(served, cookie=after).text == "({'a': '1'}, None)"
    assert get(served, cookie=before).text == "({}, None)"


def test_a_store_that_leaks_gives_no_cookies(serve, tmp_path):
    file = tmp_path / "sessions.db"
    with contextlib.closing(Sessions(secret=SECRET, store=f"sqlite:{file}")) as sessions:
        served = serve(act, sessions=sessions)
        cookie = cookie_of(get(served, "/set/a/1"))
        session_id = cookie.partition("=")[2].partition(".")[0]
        kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert b'{"a":"1"}' in kept
        assert session_id.encode() not in kept
        assert file.stat().st_mode & 0o777 == 0o600


# ---- cookies that were tampered with


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value[:-1] + ("A" if value[-1] != "A" else "E"),
        lambda value: ("A" if value[0] != "A" else "B") + value[1:],
        lambda value: value.partition(".")[0],
        lambda value: value.partition(".")[0] + ".",
        lambda value: "." + value.partition(".")[2],
        lambda value: value + "A",
        lambda value: value * 50,
        lambda value: value.swapcase(),
        lambda value: "",
        lambda value: "\xff\xfe" * 20,
        lambda value: '"' + value + '"x',
        lambda value: "../../etc/passwd",
    ],
)
def test_a_cookie_that_was_tampered_with_is_a_new_session(serve, change):
    served = serve(act, sessions={"secret": SECRET})
    name, _, value = cookie_of(get(served, "/set/a/1")).partition("=")
    tampered = f"{name}={change(value)}".encode("latin-1")
    with served.tls_wire() as wire:
        wire.send(b"GET /count HTTP/1.1\r\nhost: localhost\r\ncookie: " + tampered + b"\r\n\r\n")
        reply = wire.read()
    assert (reply.status, reply.text) == (200, "1")
    assert get(served, cookie=f"{name}={value}").text == "({'a': '1'}, None)", "the real one is as it was"


def test_a_cookie_without_the_prefix_is_not_looked_at_over_tls(serve):
    # Any host of the same domain, and anybody on the way without TLS, could have set it.
    served = serve(act, sessions={"secret": SECRET})
    clear = cookie_of(get(served, "/set/a/1", secure=False))
    assert get(served, cookie=clear).text == "({}, None)"
    assert get(served, cookie=f"__Host-{clear}").text == "({'a': '1'}, None)", "it is the name alone"


def test_a_session_of_one_host_is_none_of_another(serve):
    shop = serve({"shop.test": act, "admin.test": act}, hosts=["shop.test", "admin.test"], sessions={"secret": SECRET})
    cookie = cookie_of(get(shop, "/set/user/root", host="shop.test"))
    assert get(shop, cookie=cookie, host="shop.test").text == "({'user': 'root'}, None)"
    assert get(shop, cookie=cookie, host="admin.test").text == "({}, None)"


def test_a_session_of_an_alias_is_that_of_its_handler(serve):
    # A host that has no context goes to whomever the handshake chose.
    shop = serve({"shop.test": act, "admin.test": act}, hosts=["shop.test", "admin.test"], sessions={"secret": SECRET})

    def ask(sni, path, cookie=""):
        with shop.tls_wire(sni=sni) as wire:
            return wire.get(path, headers=f"cookie: {cookie}\r\n", host="alias.test")

    cookie = dict(ask("shop.test", "/set/user/root").headers)["set-cookie"].partition(";")[0]
    assert ask("shop.test", "/", cookie).text == "({'user': 'root'}, None)"
    assert ask("admin.test", "/", cookie).text == "({}, None)"


def test_hosts_of_one_wildcard_share_connections_and_not_sessions(serve):
    served = serve(act, hosts=["*.shop.test"], sessions={"secret": SECRET})

    def ask(sni, host, path, cookie=""):
        with served.tls_wire(sni=sni) as wire:
            return wire.get(path, headers=f"cookie: {cookie}\r\n", host=host)

    cookie = dict(ask("a.shop.test", "b.shop.test", "/set/n/1").headers)["set-cookie"].partition(";")[0]
    assert ask("b.shop.test", "b.shop.test", "/", cookie).text == "({'n': '1'}, None)"
    assert ask("b.shop.test", "a.shop.test", "/", cookie).text == "({}, None)"


# ---- keys


def test_secrets_are_changed_without_ending_sessions(stores, serve):
    old = serve(act, sessions=stores.sessions(secret=[OLD]))
    cookie = cookie_of(get(old, "/set/a/1"))
    both = serve(act, sessions=stores.sessions(secret=[SECRET, OLD]))
    answer = get(both, cookie=cookie)
    assert answer.text == "({'a': '1'}, None)"
    # It is signed anew at once, its record with the next change.
    again = cookie_of(answer)
    assert again != cookie
    assert again.partition(".")[0] == cookie.partition(".")[0], "its id is the same"
    assert get(both, cookie=again).headers.get("set-cookie") is None
    assert get(both, "/set/b/2", again).headers.get("set-cookie") is None
    new = serve(act, sessions=stores.sessions(secret=[SECRET]))
    assert get(new, cookie=again).text == "({'a': '1', 'b': '2'}, None)"
    assert get(new, cookie=cookie).text == "({}, None)"


def test_a_record_that_was_signed_elsewhere_is_a_new_session(stores, serve, caplog):
    # Whoever can write to the store, but does not know the secret.
    sessions = stores.sessions()
    served = serve(act, sessions=sessions)
    cookie = cookie_of(get(served, "/set/role/guest"))
    thief = stores.sessions(secret=OLD)
    thief._cookie_keys = sessions._cookie_keys
    forged = serve(act, sessions=thief)
    answer = get(forged, "/set/role/admin", cookie)
    assert cookie_of(answer) != cookie
    assert "was not signed with a secret that is known here: a new session" in caplog.text


def test_records_cannot_be_moved_within_the_store(serve, caplog):
    sessions = Sessions(secret=SECRET)
    served = serve(act, sessions=sessions)
    admin, guest = (cookie_of(get(served, f"/set/role/{role}")) for role in ("admin", "guest"))
    entries = sessions.store._entries
    of_admin, of_guest = list(entries)
    entries[of_guest].record = entries[of_admin].record
    assert get(served, cookie=admin).text == "({'role': 'admin'}, None)"
    assert get(served, cookie=guest).text == "({}, None)"
    assert "a record in" in caplog.text


def test_a_record_cannot_be_made_to_last(serve):
    sessions = Sessions(secret=SECRET)
    served = serve(act, sessions=sessions)
    cookie = cookie_of(get(served, "/set/a/1"))
    (entry,) = sessions.store._entries.values()
    entry.record = entry.record._replace(ends=entry.record.ends + 1)
    assert get(served, cookie=cookie).text == "({}, None)"


# ---- what is refused when it is made


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"secret": "short"}, "32 bytes at least"),
        ({"secret": []}, "32 bytes at least"),
        ({"secret": [SECRET, "short"]}, "32 bytes at least"),
        ({"secret": 7}, "a str, bytes, or a list"),
        ({"timeout": 0}, "timeout is a number of seconds over 0"),
        ({"timeout": "120"}, "timeout is a number of seconds"),
        ({"lifetime": float("nan")}, "lifetime is a number of seconds"),
        ({"timeout": 7200, "lifetime": 3600}, "longer than lifetime"),
        ({"cookie": "a b"}, "cookie is a name"),
        ({"cookie": "__Host-session"}, "prefixes come by themselves"),
        ({"same_site": "lax"}, "'Lax', 'Strict' or 'None'"),
        ({"secure": 1}, "True, False or None"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"store": "mysql://u:hush@h/db"}, '"mysql:..."'),
        ({"store": 5}, "a str or a Store"),
        ({"store": "redis://127.0.0.1:port/0"}, "not the URL of a Redis"),
        ({"store": "sqlite:/no/such/folder/sessions.db"}, "No such file or directory"),
        ({"tiemout": 5}, "tiemout"),
    ],
)
def test_what_is_wrong_is_said_at_once(options, expected):
    with pytest.raises(portico.ConfigError, match=re.escape(expected)) as raised:
        portico.Server(act, sessions=options)
    assert "hush" not in str(raised.value)
    assert "short" not in str(raised.value)


def test_sessions_that_are_none():
    with pytest.raises(portico.ConfigError, match="Sessions or a mapping"):
        portico.Server(act, sessions="memory:")


def test_they_may_stand_in_the_configuration():
    with portico.Server(act, config={"sessions": {"secret": SECRET, "timeout": 60}}) as server:
        assert server._open_sessions()._timeout == 60


def test_the_clock_of_tests_is_the_time(serve):
    sessions = Sessions(secret=SECRET)
    sessions._clock = clock = Clock()
    served = serve(act, sessions=sessions)
    cookie = cookie_of(get(served, "/set/a/1"))
    clock.now += 120.5
    assert get(served, cookie=cookie).text == "({}, None)"
