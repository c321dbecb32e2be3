"""nginx in front, as docs/behind-a-proxy.md has it: it ends TLS and speaks HTTP with portico on connections that it keeps."""

from __future__ import annotations

import ast
import getpass
import grp
import os
import re
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

import portico
from clients import GENEROUS, Wire, refuses, request, trusting, wait_until
from sockets import OverHTTP1, echo

PAGE = Path(__file__).parent.parent / "docs" / "behind-a-proxy.md"


@pytest.fixture
def nginx(tmp_path, issue):
    """Starts an nginx in front of a port, with the configuration that the documentation shows; gives its own."""
    if not shutil.which("nginx"):
        pytest.skip("nginx is not installed")
    started = []

    def nginx(port, more=""):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            own = probe.getsockname()[1]
        pair = issue("www.example.com")
        (tmp_path / "nginx.crt").write_bytes(pair["cert"])
        (tmp_path / "nginx.key").write_bytes(pair["key"])
        (shown,) = re.findall(r"^```nginx\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
        tls = f"listen 127.0.0.1:{own} ssl; ssl_certificate nginx.crt; ssl_certificate_key nginx.key; {more}"
        shown = shown.replace("listen 443 ssl;", tls).replace("127.0.0.1:8080", f"127.0.0.1:{port}")
        paths = "".join(
            f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (tmp_path / "nginx.conf").write_text(
            f"user {getpass.getuser()} {grp.getgrgid(os.getgid()).gr_name}; daemon off; pid {tmp_path}/pid; error_log {tmp_path}/log; events {{}}\n"
            f"http {{ access_log off; {paths}\n{shown} }}"
        )
        command = ["nginx", "-p", str(tmp_path), "-e", str(tmp_path / "log"), "-c", str(tmp_path / "nginx.conf")]
        started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        wait_until(lambda: started[-1].poll() is not None or not refuses(own), "nginx to listen")
        assert started[-1].poll() is None, (tmp_path / "log").read_text()
        return own

    yield nginx
    for process in started:
        process.terminate()
        process.wait(GENEROUS)


def tells(request):
    told = {"client": request.client, "url": request.url, "connection": request.connection.id}
    told["for"] = request.headers.get("x-forwarded-for")
    return portico.response(200, repr(told), "text/plain")


def behind(serve, handler, **settings):
    return serve(handler, forwarded="x-forwarded", trusted_proxies=("127.0.0.1",), keepalive_timeout=75, **settings)


def test_client_and_url_are_those_of_the_browser(serve, nginx, ca_pem):
    port = nginx(behind(serve, tells).clear)
    evil = "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Host: evil.test\r\nX-Forwarded-Proto: http\r\n"
    # From an address that is not the proxy's.
    with (
        socket.create_connection(("127.0.0.1", port), GENEROUS, source_address=("127.0.0.2", 0)) as plain,
        trusting(ca_pem).wrap_socket(plain, server_hostname="www.example.com") as sock,
    ):
        sock.sendall(f"GET /a?b=c HTTP/1.0\r\nHost: www.example.com:{port}\r\n{evil}\r\n".encode())
        reply = sock.makefile("rb").read().decode()
    told = ast.literal_eval(reply.partition("\r\n\r\n")[2])
    assert told["client"] == ("127.0.0.2", 0)
    assert told["for"] == "10.0.0.1, 127.0.0.2", "with what the client made up before it"
    assert told["url"] == f"https://www.example.com:{port}/a?b=c"


def test_nginx_keeps_its_connections(serve, nginx, ca_pem):
    served = behind(serve, tells)
    port = nginx(served.clear)
    with Wire(port, context=trusting(ca_pem), sni="www.example.com") as wire:
        seen = {ast.literal_eval(wire.get(host="www.example.com").text)["connection"] for _ in range(50)}
    assert len(seen) == 1


def test_many_clients_with_bodies_of_every_size(serve, nginx, ca_pem):
    def turned_round(request):
        return {"statusCode": 200, "body": request.body[::-1]}

    port = nginx(behind(serve, turned_round).clear, "client_max_body_size 10m;")
    failures = []

    def client(number):
        try:
            for size in (0, 1, 1000, 100_000, 1_500_000):
                body = bytes([number]) * size + b"end"
                reply = request(port, "POST", host="www.example.com", context=trusting(ca_pem), body=body)
                assert (reply.status, reply.body) == (200, body[::-1])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GENEROUS)
    assert not failures, failures


def test_sessions_are_for_tls(serve, nginx, ca_pem):
    def handler(request):
        request.session["seen"] = True
        return {"statusCode": 200}

    port = nginx(behind(serve, handler).clear)
    reply = request(port, host="www.example.com", context=trusting(ca_pem))
    assert reply.header("set-cookie").startswith("__Host-session=")


def test_websockets_pass(serve, nginx, ca_pem):
    upgrade = (
        "location /ws { proxy_pass http://portico; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
    )
    upgrade += 'proxy_set_header Connection "upgrade"; proxy_set_header Host $host; }'
    port = nginx(behind(serve, portico.websocket(echo)).clear, upgrade)
    with Wire(port, context=trusting(ca_pem), sni="www.example.com") as wire:
        socket = OverHTTP1(wire, "/ws")
        assert socket.reply.status == 101
        assert socket.send(b"\x81\x82\0\0\0\0hi").read() == (1, b"hi")
