"""The body of a request: bytes, text, JSON and forms."""

import pytest

import portico


@pytest.fixture
def posted(serve):
    """Sends a body with a content type; gives what `look(request)` gave, raises what it raised, and asks the status."""

    def posted(look, body, content_type=None, **more):
        seen = []

        def handler(request):
            try:
                seen.append(look(request))
            except BaseException as exception:
                seen.append(exception)
                raise
            return {"statusCode": 200}

        with serve(handler).httpx() as client:
            headers = {"content-type": content_type} if content_type else {}
            posted.status = client.post("/", content=body, headers=headers, **more).status_code
        if isinstance(seen[0], BaseException):
            raise seen[0]
        return seen[0]

    return posted


@pytest.mark.parametrize("size", [0, 1, 1000, 16_384, 65_536, 3_000_000])
def test_body_of_any_size(posted, size):
    body = bytes(range(256)) * (size // 256 + 1)
    assert posted(lambda request: request.body, body[:size]) == body[:size]


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        (b"", None, ""),
        ("h\u00e9".encode(), None, "h\u00e9"),
        ("h\u00e9".encode("latin-1"), "text/plain; charset=ISO-8859-1", "h\u00e9"),
        ("h\u00e9".encode("utf-16"), 'text/plain; charset="utf-16"', "h\u00e9"),
        (b"h\xff", "text/plain", "h\ufffd"),
        ("h\u00e9".encode(), "text/plain; charset=no-such-thing", "h\u00e9"),
        (b"68656c6c6f", "text/plain; charset=hex", "68656c6c6f"),
    ],
)
def test_text(posted, body, content_type, text):
    assert posted(lambda request: request.text, body, content_type) == text


def test_json(posted):
    assert posted(lambda request: request.json(), b'{"a": [1, "\xc3\xa9", null]}') == {"a": [1, "\u00e9", None]}


@pytest.mark.parametrize("body", [b"", b"{", b"{'a': 1}", b"\xff\xfe\xfd", b"[" * 100_000])
def test_bad_json_is_the_clients_fault(posted, body):
    with pytest.raises(portico.RequestError) as caught:
        posted(lambda request: request.json(), body)
    assert caught.value.status == 400
    assert "JSON" in str(caught.value)
    assert posted.status == 400


def test_urlencoded_form(posted):
    form = posted(
        lambda request: request.form(),
        b"a=1+2&a=3&b=%7B%22%7D&c=&d=%C3%A9",
        "application/x-www-form-urlencoded; charset=utf-8",
    )
    assert isinstance(form, portico.Form)
    assert dict(form) == {"a": "3", "b": '{"}', "c": "", "d": "\u00e9"}
    assert form.getlist("a") == ["1 2", "3"]
    assert form.getlist("none") == []
    assert (form["b"], form.get("none"), "a" in form, len(form)) == ('{"}', None, True, 4)
    with pytest.raises(KeyError):
        form["none"]


def test_multipart_form(serve):
    seen = []
    served = serve(lambda request: seen.append(request.form()) or {"statusCode": 200})
    content = bytes(range(256)) * 100
    with served.httpx() as client:
        files = [
            ("file", ("../../x y.png", content, "image/png")),
            ("file", ("second.txt", b"", "text/plain")),
        ]
        assert client.post("/", data={"name": "J\u00fcrgen", "empty": ""}, files=files).status_code == 200
    (form,) = seen
    assert (form["name"], form["empty"]) == ("J\u00fcrgen", "")
    first, second = form.getlist("file")
    assert isinstance(first, portico.FormFile)
    assert (first.name, first.filename, first.content_type) == ("file", "../../x y.png", "image/png")
    assert (first.read(), first.size) == (content, len(content))
    assert (second.filename, second.size) == ("second.txt", 0)
    assert form["file"] == second


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "multipart/form-data"),
        (b"--X\r\nno", "multipart/form-data; boundary=X"),
        (b"nothing of the kind", "multipart/form-data; boundary=X"),
        (b'--X\r\ncontent-disposition: form-data; name="a"\r\n\r\nno end', "multipart/form-data; boundary=X"),
    ],
    ids=["no boundary", "no head", "no part", "no end"],
)
def test_bad_multipart_is_the_clients_fault(posted, body, content_type):
    with pytest.raises(portico.RequestError) as caught:
        posted(lambda request: request.form(), body, content_type)
    assert caught.value.status == 400
    assert posted.status == 400


def test_other_content_has_no_form(posted):
    assert dict(posted(lambda request: request.form(), b"a=1", "text/plain")) == {}
    assert dict(posted(lambda request: request.form(), b"a=1")) == {}
