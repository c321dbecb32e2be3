"""Django on portico, by ASGI and by WSGI: every check of `frameworks.py`, and what Django has of its own."""

import pytest

import django_site
import portico
from clients import GENEROUS
from frameworks import LARGE, Checks, Told

# Django leaves the file of a large body to the garbage collector where a view has not read it to the end.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


class DjangoChecks(Checks):
    @pytest.fixture
    def told(self, monkeypatch):
        told = Told()
        monkeypatch.setattr(django_site, "told", told)
        return told

    def test_uploads(self, client):
        """Large ones are kept in files by Django."""
        answer = client.post("/upload", files={"file": ("caf\u00e9.bin", LARGE)}, data={"note": "hi"}).json()
        assert (answer["name"], answer["size"], answer["note"]) == ("caf\u00e9.bin", len(LARGE), "hi")
        assert answer["kept_in"] == "TemporaryUploadedFile"

    def test_async_views(self, client, served):
        """Context variables reach what an async view calls on a thread."""
        assert client.get("/awaits").json() == ["/awaits", True, str(served.port)]

    def test_a_host_that_is_not_allowed(self, served):
        assert served.get("/moved", host="localhost", headers={"Host": "evil.test"}).status == 400

    def test_it_may_be_mounted(self, serve, site):
        """Below a prefix, which Django's URLs have then."""
        router = portico.Router()
        router.mount("/below", site)
        reply = serve(router).get("/below/moved")
        assert (reply.status, reply.header("location")) == (302, "/below/greet/moved")


class TestDjangoByASGI(DjangoChecks):
    @pytest.fixture
    def site(self, told):
        return portico.asgi(django_site.by_asgi)

    def test_a_client_that_leaves_cancels_its_async_view(self, served, told):
        """Django listens for `http.disconnect`."""
        with served.tls_wire() as wire:
            wire.send("GET /waits HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert told.ran.wait(GENEROUS)
        assert told.left.wait(GENEROUS)
        served.wait_stat("requests_in_flight", value=0)
        assert served.errors.given.empty()


class TestDjangoByWSGI(DjangoChecks):
    @pytest.fixture
    def site(self, told):
        return portico.wsgi(django_site.by_wsgi)
