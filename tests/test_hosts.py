"""Host names: which certificate and which handler answers for which."""

import datetime
import ssl

import pytest

import portico
from certificates import DAY, pair, write_pair
from clients import Wire, openssl, request, trusting, wait_until


def named(name):
    return lambda request: {"statusCode": 200, "body": name}


def shown(port, sni="localhost", ciphers=None):
    """The certificate (DER) that a client which trusts anything gets for a name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if ciphers:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
    with Wire(port, context=context, sni=sni) as wire:
        return wire.sock.getpeercert(binary_form=True)


def der(pem):
    return ssl.PEM_cert_to_DER_cert(pem.decode())


@pytest.fixture
def hosts(make_server, issue):
    """A server with an exact name, a wildcard and one more exact name within it, each with its handler."""
    server = make_server(None)
    for host in ("example.test", "*.shop.test", "vip.shop.test"):
        server.add_context(host, **issue(host), handler=named(host))
    return server


@pytest.mark.parametrize(
    ("asked", "answers"),
    [
        ("example.test", "example.test"),
        ("a.shop.test", "*.shop.test"),
        ("b.shop.test", "*.shop.test"),
        ("vip.shop.test", "vip.shop.test"),
    ],
)
def test_each_name_has_its_certificate_and_handler(hosts, ca_pem, asked, answers):
    assert request(hosts.listen(0).port, host=asked, context=trusting(ca_pem)).text == answers


@pytest.mark.parametrize("asked", ["other.test", "shop.test", "a.b.shop.test", "xexample.test", "example.test.x"])
def test_unknown_name_without_default_is_told_so(hosts, ca_pem, asked):
    port = hosts.listen(0).port
    with pytest.raises(ssl.SSLError, match="unrecognized name"):
        request(port, host=asked, context=trusting(ca_pem))
    wait_until(lambda: hosts.stats()["handshakes_failed"]["unknown_name"] == 1)


def test_default_answers_unknown_names_and_clients_without_a_name(hosts, issue):
    default = issue("default.test")
    hosts.add_context(None, **default, handler=named("default"))
    port = hosts.listen(0).port
    for sni in ("other.test", "a.b.shop.test", None):
        assert shown(port, sni) == der(default["cert"])
    assert shown(port, "example.test") != der(default["cert"])


@pytest.mark.parametrize("written", ["Example.TEST", "example.test."])
def test_names_are_given_in_any_case_and_with_a_final_dot(make_server, issue, ca_pem, written):
    server = make_server()
    context = server.add_context(written, **issue("example.test"))
    assert context.host == "example.test"
    reply = request(server.listen(0).port, host="example.test", context=trusting(ca_pem))
    assert reply.status == 200


@pytest.mark.parametrize(
    "host", [".", "a..b", "a b", "a.test:443", "https://a.test", "*", "a.*.test", "-a.test", "127.0.0.1", "::1", "a/b"]
)
def test_malformed_names_are_refused(make_server, issue, host):
    server = make_server()
    with pytest.raises(portico.ConfigError) as caught:
        server.add_context(host, **issue("localhost"))
    assert host in str(caught.value)
    assert list(server.contexts) == []


@pytest.mark.parametrize("order", [("rsa", "p256"), ("p256", "rsa")])
def test_clients_offer_picks_among_several_certificates(make_server, order):
    server = make_server()
    certificates = {}
    for kind in order:
        cert, key = pair(kind=kind)
        certificates[kind] = der(cert)
        server.add_context("localhost", cert=cert, key=key)
    assert len(server.contexts) == 2
    port = server.listen(0).port
    assert shown(port) == certificates[order[0]], "the first where the client takes both"
    offers = {"rsa": "RSA-PSS+SHA256:RSA+SHA256", "p256": "ECDSA+SHA256"}
    for kind, sigalgs in offers.items():
        told = openssl(port, "-sigalgs", sigalgs, "-tls1_3")
        assert f"Peer signature type: {'RSA-PSS' if kind == 'rsa' else 'ECDSA'}" in told
    # A TLS 1.2 client says it by its cipher suites.
    assert shown(port, ciphers="ECDHE-RSA-AES128-GCM-SHA256") == certificates["rsa"]
    assert shown(port, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256") == certificates["p256"]


def test_another_host_on_the_connection_is_misdirected(hosts, ca_pem):
    port = hosts.listen(0).port
    with Wire(port, context=trusting(ca_pem), sni="example.test") as wire:
        assert wire.get(host="example.test").text == "example.test"
        assert wire.get(host="a.shop.test").status == 421
        assert wire.get(host=f"EXAMPLE.test:{port}").text == "example.test", "a port and case do not matter"
        assert wire.get(host="nobody.test").text == "example.test", "nobody else's name"
    assert hosts.stats()["requests_refused"]["misdirected"] == 1


def test_removed_host_is_gone_and_its_connections_go_on(hosts, ca_pem):
    port = hosts.listen(0).port
    context = trusting(ca_pem)
    with Wire(port, context=context, sni="example.test") as wire:
        assert wire.get(host="example.test").text == "example.test"
        hosts.remove_context("Example.test")
        assert wire.get(host="example.test").text == "example.test"
        with pytest.raises(ssl.SSLError, match="unrecognized name"):
            request(port, host="example.test", context=context)
    assert [context.host for context in hosts.contexts] == ["*.shop.test", "vip.shop.test"]
    with pytest.raises(portico.ConfigError, match=r"example\.test"):
        hosts.remove_context("example.test")


def test_replaced_certificate_serves_new_connections_only(make_server):
    old, new = pair(), pair()
    server = make_server()
    context = server.add_context("localhost", cert=old[0], key=old[1])
    port = server.listen(0).port
    with Wire(port, context=trusting(old[0])) as wire:
        assert wire.get().status == 200
        context.replace(cert=new[0], key=new[1])
        assert wire.get().status == 200
        assert request(port, context=trusting(new[0])).status == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            request(port, context=trusting(old[0]))


def test_reload_reads_the_files_again(make_server, tmp_path):
    server = make_server()
    cert, key = write_pair(tmp_path)
    old = cert.read_bytes()
    context = server.add_context("localhost", cert=cert, key=str(key))
    port = server.listen(0).port
    write_pair(tmp_path, kind="rsa")
    assert shown(port) == der(old), "nothing changes by itself"
    context.reload()
    assert shown(port) == der(cert.read_bytes()) != der(old)


def test_hosts_are_added_while_serving(make_server, issue, ca_pem):
    server = make_server()
    server.add_context("a.test", **issue("a.test"))
    port = server.listen(0).port
    server.add_context("b.test", **issue("b.test"), handler=named("b"))
    assert request(port, host="b.test", context=trusting(ca_pem)).text == "b"


def test_contexts_tell_what_they_are(make_server):
    server = make_server()
    cert, key = pair(ends=3 * DAY)
    context = server.add_context("localhost", cert=cert, key=key)
    assert context.host == "localhost"
    assert "CN=localhost" in context.subject
    left = context.not_after - datetime.datetime.now(datetime.timezone.utc)
    assert 2 * DAY < left <= 3 * DAY
    assert server.add_context(None, cert=cert, key=key).host is None
    assert [each.host for each in server.contexts] == ["localhost", None]
    assert server.contexts[0].subject == context.subject
