"""Any bytes at all as certificate, key or PFX: an identity or an error, soon, and nothing else."""

import contextlib
import functools
import pathlib
import tempfile
import time

from hypothesis import given
from hypothesis import strategies as st

import portico
from certificates import DER, PEM, TRADITIONAL, Chain, key_bytes
from clients import run

PFX = pathlib.Path(__file__).parent / "pfx"
# The most work that a file may ask for takes two seconds or so on an idle machine.
BOUND = 60.0


@functools.cache
def files():
    """Real ones, to be changed a little."""
    chain = Chain("rsa")
    real = [path.read_bytes() for path in sorted(PFX.iterdir())]
    real += [chain.pem("key", "leaf", "intermediate"), chain.leaf.public_bytes(DER)]
    for encoding in (PEM, DER):
        real += [key_bytes(chain.key, encoding=encoding), key_bytes(chain.key, encoding=encoding, password="secret")]
    real.append(key_bytes(chain.key, form=TRADITIONAL, password="secret"))
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "in").write_bytes(chain.pem("key", "leaf"))
        for options in ("-legacy", "-nomac", "-nomac -keypbe NONE -certpbe NONE"):
            command = f"openssl pkcs12 -export -in in -out out {options} -passout pass:secret"
            assert run(*command.split(), cwd=folder).returncode == 0
            real.append((pathlib.Path(folder) / "out").read_bytes())
    return real


@st.composite
def changed(draw):
    """A real file with bytes set, taken out, put in or repeated."""
    content = bytearray(draw(st.sampled_from(files())))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        what = draw(st.sampled_from(["set", "cut", "insert", "repeat", "end"]))
        if what == "set" and content:
            content[at] = draw(st.integers(0, 255))
        elif what == "cut":
            del content[at : at + draw(st.integers(1, 40))]
        elif what == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif what == "repeat":
            content[at:at] = content[at : at + draw(st.integers(1, 400))]
        else:
            del content[at:]
    return bytes(content)


def load(**given):
    """Loads an identity, or fails as it should, within the bound."""
    began = time.monotonic()
    with contextlib.suppress(portico.ConfigError), portico.Server() as server:
        server.add_context("localhost", **given)
    assert time.monotonic() - began < BOUND


anything = changed() | st.binary(max_size=200)
passwords = st.sampled_from([None, "", "secret", "1234", b"\xff"])


@given(anything, passwords)
def test_pfx(pfx, password):
    load(pfx=pfx, password=password)


@given(anything, passwords)
def test_bundle(cert, password):
    load(cert=cert, password=password)


@given(anything, anything, passwords)
def test_pair(cert, key, password):
    load(cert=cert, key=key, password=password)


@given(st.lists(anything, max_size=3), passwords)
def test_folder(contents, password):
    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate(contents):
            (pathlib.Path(folder) / str(number)).write_bytes(content)
        began = time.monotonic()
        with contextlib.suppress(portico.CertificateError):
            portico.find_certificate(folder, password=password)
        assert time.monotonic() - began < BOUND
