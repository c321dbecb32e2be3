"""Flask on portico: every check of `frameworks.py`, and what Flask has of its own."""

import flask
import pytest

import portico
from frameworks import LARGE, Checks, of_file


def site_of(told):
    app = flask.Flask("site")
    app.secret_key = "not for the world"
    app.config["SESSION_COOKIE_SECURE"] = True

    @app.get("/greet/<name>")
    def greet(name):
        return {"name": name, "q": flask.request.args.get("q")}

    @app.post("/form")
    def form():
        return flask.request.form.to_dict()

    @app.post("/upload")
    def upload():
        file = flask.request.files["file"]
        return {**of_file(file.filename, file.read()), "note": flask.request.form["note"]}

    @app.post("/echo")
    def echo():
        return flask.request.get_data()

    @app.get("/large")
    def large():
        return LARGE

    @app.get("/steps")
    def steps():
        return flask.Response(told.make_steps(), mimetype="text/event-stream")

    @app.get("/endless")
    def endless():
        return flask.Response(told.endless())

    @app.get("/half")
    def half():
        return flask.Response(told.half())

    @app.get("/bad")
    def bad():
        raise ZeroDivisionError("on purpose")

    @app.get("/count")
    def count():
        flask.session["seen"] = flask.session.get("seen", 0) + 1
        return flask.jsonify(flask.session["seen"])

    @app.get("/moved")
    def moved():
        return flask.redirect(flask.url_for("greet", name="moved"))

    @app.get("/cookies")
    def cookies():
        response = flask.Response()
        response.set_cookie("one", "1")
        response.set_cookie("two", "2", httponly=True)
        return response

    @app.get("/address")
    def address():
        request = flask.request
        return [request.url, request.remote_addr, request.is_secure, request.root_path, request.script_root]

    @app.get("/context")
    def context():
        def parts():
            for _ in range(3):
                yield flask.request.args["q"]

        return flask.Response(flask.stream_with_context(parts()))

    @app.get("/file")
    def file():
        return flask.send_file(told.file, conditional=True)

    @app.get("/tea")
    def tea():
        flask.abort(418, "short and stout")

    @app.post("/chunked")
    def chunked():
        return [flask.request.content_length, flask.request.stream.read().decode()]

    @app.teardown_request
    def teardown(error):
        told.ran.set()

    return app


class TestFlask(Checks):
    @pytest.fixture
    def site(self, told):
        return portico.wsgi(site_of(told))

    def test_addresses(self, client, served):
        host = f"localhost:{served.port}"
        assert client.get("/address").json() == [f"https://{host}/address", "127.0.0.1", True, "", ""]

    def test_it_may_be_mounted(self, serve, site):
        router = portico.Router()
        router.mount("/below", site)
        served = serve(router)
        assert served.get("/below/moved").header("location") == "/below/greet/moved"
        assert served.get("/below/address").json()[4] == "/below"

    def test_stream_with_context(self, client, told):
        assert client.get("/context", params={"q": "ab"}).text == "ababab"
        assert told.ran.is_set()

    def test_files(self, client, told, tmp_path):
        told.file = tmp_path / "a.bin"
        told.file.write_bytes(LARGE)
        answer = client.get("/file")
        assert (answer.content, answer.headers["content-length"]) == (LARGE, str(len(LARGE)))
        part = client.get("/file", headers={"range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, LARGE[5:10])
        again = client.get("/file", headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")

    def test_errors_of_http(self, client):
        answer = client.get("/tea")
        assert answer.status_code == 418
        assert "short and stout" in answer.text

    def test_a_body_without_a_length_is_read_to_its_end(self, served):
        with served.tls_wire() as wire:
            wire.send(
                "POST /chunked HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            )
            assert wire.read().json()[1] == "abc"
