"""Cookies by RFC 6265bis: what is set, what is refused, what comes back."""

import json
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import portico
from clients import curl

DAYS = 24 * 3600


def line(name="a", value="1", **attributes):
    """The `Set-Cookie` line of a cookie."""
    response = portico.set_cookie({"statusCode": 200}, name, value, **attributes)
    (line,) = response["multiValueHeaders"]["set-cookie"]
    return line


def attribute(line, name):
    (value,) = [part.partition("=")[2] for part in line.split("; ") if part.partition("=")[0] == name]
    return value


# ---- what is set


def test_every_attribute():
    shown = line("__Secure-a", "x-1", max_age=60, path="/p", domain="a.test", same_site="None", partitioned=True)
    expected = "__Secure-a=x-1; Max-Age=60; Domain=a.test; Path=/p; Secure; HttpOnly; SameSite=None; Partitioned"
    assert shown == expected
    assert line(path=None, secure=False, http_only=False, same_site=None) == "a=1"


@pytest.mark.parametrize("name", ["__Host-a", "__host-a", "__HOST-a"])
def test_host_prefix(name):
    assert line(name) == f"{name}=1; Path=/; Secure; HttpOnly; SameSite=Lax"
    for wrong in ({"secure": False}, {"path": "/p"}, {"path": None}, {"domain": "a.test"}):
        with pytest.raises(portico.ResponseError, match="__Host-"):
            line(name, **wrong)


@pytest.mark.parametrize("name", ["__Secure-a", "__secure-a"])
def test_secure_prefix(name):
    assert line(name, domain="a.test", path="/p").startswith(f"{name}=1; Domain=a.test; Path=/p; Secure")
    with pytest.raises(portico.ResponseError, match="__Secure- needs secure"):
        line(name, secure=False)


def test_what_only_looks_like_a_prefix():
    assert line("Host-a", domain="a.test", secure=False)
    assert line("x__Host-a", domain="a.test", secure=False)


@pytest.mark.parametrize(
    ("attributes", "what"), [({"same_site": "None"}, "same_site"), ({"partitioned": True}, "part")]
)
def test_what_needs_secure(attributes, what):
    assert "Secure" in line(**attributes)
    with pytest.raises(portico.ResponseError, match=f"{what}.* needs secure"):
        line(**attributes, secure=False)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (0, "0"),
        (-5, "0"),
        (1.9, "1"),
        (400 * DAYS, str(400 * DAYS)),
        (400 * DAYS + 1, str(400 * DAYS)),
        (10**30, str(400 * DAYS)),
        (float("inf"), str(400 * DAYS)),
    ],
)
def test_max_age_is_bounded(given, sent):
    assert attribute(line(max_age=given), "Max-Age") == sent


@pytest.mark.parametrize("given", ["60", float("nan"), [1], timedelta(1)])
def test_max_age_that_is_no_number(given):
    with pytest.raises(portico.ResponseError, match="max_age"):
        line(max_age=given)


def test_expires():
    moment = (datetime.now(timezone.utc) + timedelta(days=30)).replace(microsecond=0)
    for same in (moment, moment.replace(tzinfo=None), moment.astimezone(timezone(timedelta(hours=5)))):
        written = attribute(line(expires=same), "Expires")
        assert written.endswith(" GMT")
        assert parsedate_to_datetime(written) == moment


@pytest.mark.parametrize("zone", [None, timezone.utc, timezone(timedelta(hours=-12)), timezone(timedelta(hours=12))])
def test_expires_is_bounded(zone):
    latest = parsedate_to_datetime(attribute(line(expires=datetime.max.replace(tzinfo=zone)), "Expires"))
    assert abs(latest - datetime.now(timezone.utc) - timedelta(days=400)) < timedelta(minutes=1)
    past = attribute(line(expires=datetime.min.replace(tzinfo=zone)), "Expires")
    assert past == "Thu, 01 Jan 1970 00:00:00 GMT"


def test_expires_that_is_no_moment():
    with pytest.raises(portico.ResponseError, match="expires is a datetime"):
        line(expires="tomorrow")


def test_size():
    assert line("a" * 96, "b" * 4000)
    for name, value in (("a" * 97, "b" * 4000), ("a" * 96, "b" * 4001), ("a" * 5000, "")):
        with pytest.raises(portico.ResponseError, match="4096 bytes"):
            line(name, value)
    assert line(path="/" * 1024)
    for wrong in ({"path": "/" * 1025}, {"domain": "d" * 1025}):
        with pytest.raises(portico.ResponseError, match="1024 bytes"):
            line(**wrong)


@pytest.mark.parametrize("path", ["", "p", "p/"])
def test_path_without_a_slash(path):
    with pytest.raises(portico.ResponseError, match="slash"):
        line(path=path)


@pytest.mark.parametrize("character", [*map(chr, range(33)), *'",;\\', "\x7f", "\x80", "\u20ac"])
def test_characters_of_a_value(character):
    with pytest.raises(portico.ResponseError, match="cookie"):
        line(value=f"a{character}b")
    if character not in '",\\':
        for where in ("path", "domain"):
            if character != " ":
                with pytest.raises(portico.ResponseError, match="cannot stand"):
                    line(**{where: f"/{character}"})


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
@example("__Host-", "", "/")
def test_whatever_is_set_is_one_line_that_clients_understand(name, value, path):
    try:
        shown = line(name, value, path=path)
    except portico.ResponseError:
        return
    assert shown.isascii()
    assert shown.isprintable()
    assert shown.split("; ") == [f"{name}={value}", f"Path={path}", "Secure", "HttpOnly", "SameSite=Lax"]


# ---- what is deleted


def test_delete():
    def lines(name, **attributes):
        return portico.delete_cookie({"statusCode": 200}, name, **attributes)["multiValueHeaders"]["set-cookie"]

    gone = "Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0"
    assert lines("__Host-a") == [f"__Host-a=; {gone}; Path=/; Secure; HttpOnly; SameSite=Lax"]
    more = {"path": "/p", "domain": "a.test", "same_site": "None", "partitioned": True}
    expected = f"a=; {gone}; Domain=a.test; Path=/p; Secure; HttpOnly; SameSite=None; Partitioned"
    assert lines("a", **more) == [expected]
    assert lines("a", secure=False) == [f"a=; {gone}; Path=/; HttpOnly; SameSite=Lax"]
    with pytest.raises(portico.ResponseError, match="__Host-"):
        lines("__Host-a", path="/p")


# ---- on the wire


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_each_cookie_is_a_line_of_its_own(serve, http2):
    names = [f"c{number}" for number in range(50)]

    def handler(request):
        response = portico.response(200, "x")
        for name in names:
            portico.set_cookie(response, name, "1", expires=datetime(1999, 1, 1))
        return response

    with serve(handler).httpx(http2=http2) as client:
        reply = client.get("/")
    assert reply.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
    lines = reply.headers.get_list("set-cookie")
    assert [shown.partition("=")[0] for shown in lines] == names
    assert all("Expires=Thu, 01 Jan 1970" not in shown and "Expires=Fri, 01 Jan 1999" in shown for shown in lines)


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_many_cookies_come_back(serve, http2):
    def handler(request):
        return {"statusCode": 200, "body": json.dumps(request.cookies)}

    cookies = {f"c{number}": f"v{number}" for number in range(100)}
    sent = "; ".join(f"{name}={value}" for name, value in cookies.items())
    with serve(handler).httpx(http2=http2) as client:
        assert client.get("/", headers={"cookie": sent}).json() == cookies
        assert client.get("/", headers={"cookie": "alone; a=1"}).json() == {"": "alone", "a": "1"}


def test_client_keeps_and_forgets(serve, tmp_path):
    def handler(request):
        response = portico.response(200, json.dumps(request.cookies))
        if request.path == "/set":
            portico.set_cookie(response, "__Host-a", "1")
            portico.set_cookie(response, "__Secure-b", "2", max_age=10**12)
            portico.set_cookie(response, "c", "3", path="/other")
        if request.path == "/delete":
            portico.delete_cookie(response, "__Host-a")
        return response

    served = serve(handler)
    ca, jar = tmp_path / "ca.pem", str(tmp_path / "jar")
    ca.write_text(served.testing.ca_pem)

    def ask(path):
        return json.loads(curl(served.port, path, "--cookie", jar, "--cookie-jar", jar, ca=ca))

    assert ask("/set") == {}
    assert ask("/") == {"__Host-a": "1", "__Secure-b": "2"}
    assert ask("/other") == {"__Host-a": "1", "__Secure-b": "2", "c": "3"}
    ask("/delete")
    assert ask("/") == {"__Secure-b": "2"}
