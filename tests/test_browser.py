"""A real browser, Chromium without a window: pages over HTTP/2, events, uploads, streams, cookies, WebSockets."""

from __future__ import annotations

import asyncio
import random

import pytest

import portico
from browsers import chromium
from clients import wait_until
from frameworks import LARGE, of_file

av = pytest.importorskip("av", reason="PyAV is not installed")

PAGE = """<!doctype html><title>portico</title><link rel="icon" href="data:,">
<form action="/upload" method="post" enctype="multipart/form-data">
<input name="note"><input name="file" type="file"><button>send</button></form>"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


class Site:
    """What the pages ask for."""

    def __init__(self):
        self.left = asyncio.Event()
        self.versions = []
        self.socket = portico.websocket(self.echo, subprotocols=["shout"])
        self.closed = []

    async def __call__(self, request):
        self.versions.append((request.path, request.version))
        match request.path:
            case "/upload":
                form = request.form()
                return portico.response(200, repr((form["note"], of_file(form["file"].filename, form["file"].read()))))
            case "/events":
                return portico.event_stream(self.events())
            case "/stream":
                return {"statusCode": 200, "headers": {"content-type": "text/plain"}, "body": self.pieces()}
            case "/socket":
                return await self.socket(request)
            case "/echo":
                return {"statusCode": 200, "body": request.body}
            case "/cookies":
                response = portico.response(200, request.headers.get("cookie", "none"))
                return portico.set_cookie(response, "seen", "yes", http_only=True)
        return portico.response(200, PAGE, "text/html; charset=utf-8")

    async def echo(self, ws):
        async for message in ws:
            await ws.send(message.upper())
        self.closed.append((ws.close_code, ws.close_reason))

    async def events(self):
        try:
            for number in range(1_000_000):
                yield f"tick {number}"
                await asyncio.sleep(0.01)
        finally:
            self.left.set()

    async def pieces(self):
        for number in range(3):
            yield f"piece {number} "
            await asyncio.sleep(0.05)


@pytest.fixture
def site():
    return Site()


@pytest.fixture
def page(browser, serve, site):
    """A page of the site, in a profile of its own."""
    served = serve(site)
    context = browser.new_context(ignore_https_errors=True, base_url=f"https://localhost:{served.port}")
    page, failures = context.new_page(), []
    page.on("pageerror", lambda error: failures.append(error))
    page.goto("/")
    yield page
    context.close()
    assert failures == []


def test_a_page_comes_over_http_2(page, site):
    assert page.title() == "portico"
    assert page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
    assert site.versions[0] == ("/", "2")


def test_events(page, site):
    counted = page.evaluate(
        """() => new Promise((resolve, reject) => {
            const source = new EventSource('/events'), seen = [];
            source.onerror = reject;
            source.onmessage = event => {
                if (seen.push(event.data) === 5) { source.close(); resolve(seen); }
            };
        })"""
    )
    assert counted == [f"tick {number}" for number in range(5)]
    # The browser has closed it, and so the generator ends.
    wait_until(site.left.is_set, "the generator to end")


def test_a_form_with_a_file(page):
    page.fill("input[name=note]", "caf\u00e9")
    page.set_input_files(
        "input[type=file]", {"name": "a b.bin", "mimeType": "application/octet-stream", "buffer": LARGE}
    )
    page.click("button")
    page.wait_for_url("**/upload")
    assert page.inner_text("body") == repr(("caf\u00e9", of_file("a b.bin", LARGE)))


def test_fetch_reads_pieces_as_they_come(page):
    pieces = page.evaluate(
        """async () => {
            const reader = (await fetch('/stream')).body.getReader(), pieces = [];
            for (;;) {
                const {done, value} = await reader.read();
                if (done) return pieces;
                pieces.push(new TextDecoder().decode(value));
            }
        }"""
    )
    assert pieces == ["piece 0 ", "piece 1 ", "piece 2 "]


def test_fetches_side_by_side(page):
    lengths = page.evaluate(
        """() => Promise.all([...Array(50).keys()].map(async number => {
            const sent = new Uint8Array(number * 10000).fill(number);
            const got = new Uint8Array(await (await fetch('/echo', {method: 'POST', body: sent})).arrayBuffer());
            return got.every(byte => byte === number) ? got.length : -1;
        }))"""
    )
    assert lengths == [number * 10_000 for number in range(50)]


def test_cookies(page):
    assert page.evaluate("() => fetch('/cookies').then(answer => answer.text())") == "none"
    assert page.evaluate("() => fetch('/cookies').then(answer => answer.text())") == "seen=yes"
    assert page.evaluate("document.cookie") == "", "it is for the server alone"


def test_a_websocket(page, site):
    seen = page.evaluate(
        """() => new Promise((resolve, reject) => {
            const url = location.origin.replace('http', 'ws') + '/socket', seen = [];
            const socket = new WebSocket(url, ['whisper', 'shout']);
            const sent = ['h\u00e4llo', new Uint8Array([97, 0, 255]), 'x'.repeat(200000)];
            socket.binaryType = 'arraybuffer';
            socket.onerror = reject;
            socket.onopen = () => { seen.push(socket.protocol, socket.extensions); sent.forEach(it => socket.send(it)); };
            socket.onmessage = ({data}) => {
                seen.push(data instanceof ArrayBuffer ? [...new Uint8Array(data)] : data);
                if (seen.length === 2 + sent.length) socket.close(3000, 'enough');
            };
            socket.onclose = ({code, reason, wasClean}) => { seen.push(code, reason, wasClean); resolve(seen); };
        })"""
    )
    compressed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    assert seen == ["shout", compressed, "H\u00c4LLO", [65, 0, 255], "X" * 200_000, 3000, "enough", True]
    wait_until(lambda: site.closed == [(3000, "enough")])
    # In a stream of the connection on which the page came (RFC 8441).
    assert site.versions[-1] == ("/socket", "2")


def test_a_websocket_that_is_refused(page, site):
    code = page.evaluate(
        """() => new Promise(resolve => {
            new WebSocket(location.origin.replace('http', 'ws') + '/').onclose = event => resolve(event.code);
        })"""
    )
    assert code == 1006


SECONDS, FRAMES, WIDTH, HEIGHT = 30, 4, 320, 240


def darkest(second):
    return 40 + 4 * second


def light(second):
    """How light it is on average. Video has black at 16 and white at 235."""
    return (darkest(second) + 31.5 - 16) * 255 / 219


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Some MB of noise, each second a little lighter than the one before."""
    noise = random.Random(1)
    path = tmp_path_factory.mktemp("video") / "noise.webm"
    with av.open(path, "w") as container:
        stream = container.add_stream(
            "libvpx", rate=FRAMES, options={"deadline": "realtime", "cpu-used": "8", "crf": "4"}
        )
        stream.width, stream.height, stream.bit_rate = WIDTH, HEIGHT, 4_000_000
        picture = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
        light, *colours = picture.planes
        for plane in colours:
            plane.update(bytes([128]) * plane.buffer_size)
        for picture.pts in range(SECONDS * FRAMES):
            least = darkest(picture.pts // FRAMES)
            light.update(noise.randbytes(light.buffer_size).translate(bytes(least + byte % 64 for byte in range(256))))
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def test_a_video_is_played_from_where_one_likes(browser, serve, video):
    """Only what is to be seen is fetched: the rest of the file is left."""
    served = serve(portico.StaticFiles(video.parent))
    with browser.new_context(ignore_https_errors=True) as context:
        page, parts = context.new_page(), []
        page.on("response", lambda answer: parts.append((answer.status, answer.headers.get("content-range", ""))))
        page.goto(f"https://localhost:{served.port}/nothing")
        seen = page.evaluate(
            """async scenes => {
                const video = document.createElement('video'), canvas = document.createElement('canvas');
                const happened = name => new Promise((resolve, reject) => {
                    video.addEventListener(name, resolve, {once: true});
                    video.addEventListener('error', () => reject(video.error.message), {once: true});
                });
                const loaded = happened('loadeddata');
                Object.assign(video, {preload: 'metadata', src: '/noise.webm'});
                await loaded;
                const [width, height] = [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
                const picture = canvas.getContext('2d'), seen = [width, height, Math.round(video.duration)];
                for (const [second, expected] of scenes) {
                    const there = happened('seeked');
                    video.currentTime = second + 0.5;
                    await there;
                    // 'seeked' may come before the frame does: a canvas then shows the one before, or none.
                    for (let looks = 0; looks < 100; looks++) {
                        picture.drawImage(video, 0, 0);
                        const pixels = picture.getImageData(0, 0, width, height).data;
                        const sum = pixels.filter((_, at) => at % 4 === 1).reduce((sum, it) => sum + it, 0);
                        var light = sum / width / height;
                        if (Math.abs(light - expected) < 3) break;
                        await new Promise(resolve => setTimeout(resolve, 50));
                    }
                    seen.push(light);
                }
                return seen;
            }""",
            [[second, light(second)] for second in (25, 3)],
        )
    assert seen[:3] == [WIDTH, HEIGHT, SECONDS]
    assert seen[3:] == [pytest.approx(light(second), abs=3) for second in (25, 3)]
    statuses, ranges = zip(*parts[1:], strict=True)
    assert set(statuses) == {206}
    # Its index is at the end, and asked for by itself.
    size = video.stat().st_size
    assert ranges[0] == f"bytes 0-{size - 1}/{size}"
    assert max(int(part.split()[1].split("-")[0]) for part in ranges) > size * 0.9
