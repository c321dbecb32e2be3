"""A Flask application: routes, a session, an upload, lines that are sent as they are made.

Needs `pip install flask`. Ctrl-C stops it.
"""

import hashlib
import time

import flask

import portico.testing

app = flask.Flask(__name__)
app.secret_key = "not for the world"


@app.get("/greet/<name>")
def greet(name):
    visits = flask.session["visits"] = flask.session.get("visits", 0) + 1
    return flask.Response(f"hello {name}, visit {visits}\n", mimetype="text/plain")


@app.post("/upload")
def upload():
    file = flask.request.files["file"]
    content = file.read()
    return {"name": file.filename, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@app.get("/lines")
def lines():
    def made():
        for number in range(3):
            yield f"line {number}\n"
            time.sleep(0.1)

    return flask.Response(made(), mimetype="text/plain")


if __name__ == "__main__":
    with portico.testing.server(portico.wsgi(app)) as running:  # for your certificates: portico.Server, see readme.py
        print(f"curl --insecure {running.url}/greet/world")
        print(f"curl --insecure --form 'file=some text;filename=note.txt' {running.url}/upload")
        print(f"curl --insecure --no-buffer {running.url}/lines", flush=True)
        running.server.serve_forever()
