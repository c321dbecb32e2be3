"""Draws the video of the demo, `python/portico/demo/files/portico.webm`: a portico rises at dawn.

    python docs/draw_video.py

Needs what the tests of browsers need: playwright with a Chromium of the system's draws the pictures, PyAV codes them.
"""

from __future__ import annotations

import fractions
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import av
from av.video.frame import PictureType
from playwright.sync_api import sync_playwright

FILE = Path(__file__).parent.parent / "python" / "portico" / "demo" / "files" / "portico.webm"
WIDTH, HEIGHT, RATE, SECONDS = 640, 360, 24, 8
COLUMNS = 6


def eased(now: float, start: float, end: float) -> float:
    """From 0 at `start` to 1 at `end`, slow at both."""
    part = min(1.0, max(0.0, (now - start) / (end - start)))
    return part * part * (3 - 2 * part)


def mixed(one: tuple[int, int, int], other: tuple[int, int, int], part: float) -> str:
    return "rgb({})".format(",".join(str(round(a + (b - a) * part)) for a, b in zip(one, other, strict=True)))


def scene(now: float) -> str:
    """The picture at a second, as SVG."""
    dawn = eased(now, 0.3, 7)
    stone = mixed((84, 74, 110), (244, 236, 224), dawn)
    shade = mixed((62, 54, 86), (214, 200, 186), dawn)
    parts = [
        '<linearGradient id="sky" x2="0" y2="1">',
        f'<stop stop-color="{mixed((22, 22, 48), (116, 168, 214), dawn)}"/>',
        f'<stop offset="1" stop-color="{mixed((58, 42, 82), (250, 214, 176), dawn)}"/></linearGradient>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="url(#sky)"/>',
        f'<circle cx="320" cy="{330 - 215 * dawn}" r="34" fill="#ffe9b8" opacity="{0.25 + 0.75 * dawn}"/>',
        f'<path d="M0 290Q160 250 330 288T640 270V360H0Z" fill="{mixed((30, 28, 52), (142, 160, 130), dawn)}"/>',
        f'<path d="M0 312H640V360H0Z" fill="{mixed((24, 22, 42), (112, 132, 104), dawn)}"/>',
    ]
    for step in range(3):  # The steps come from the ground.
        up = eased(now, 0.2 + 0.25 * step, 1 + 0.25 * step)
        left, top = 130 + 16 * step, 320 - 11 * step
        parts.append(
            f'<rect x="{left}" y="{top + 11 * (1 - up)}" width="{WIDTH - 2 * left}" height="{11 * up}" '
            f'fill="{stone if step % 2 else shade}"/>'
        )
    for number in range(COLUMNS):
        up = eased(now, 1.4 + 0.45 * number, 2.6 + 0.45 * number)
        if up == 0:
            continue
        x, height = 178 + number * 52.8, 128 * up
        top = 298 - height
        parts.append(f'<rect x="{x}" y="{top}" width="20" height="{height}" fill="{stone}"/>')
        parts += [
            f'<rect x="{x + 3 + 5.2 * flute}" y="{top}" width="2" height="{height}" fill="{shade}"/>'
            for flute in range(3)
        ]
        parts.append(f'<rect x="{x - 5}" y="{top - 3}" width="30" height="8" rx="2" fill="{stone}"/>')
    down = eased(now, 5.1, 6.1)
    if down:
        y = 151 - 190 * (1 - down)
        parts.append(f'<rect x="160" y="{y}" width="320" height="16" fill="{shade}"/>')
        parts.append(f'<rect x="154" y="{y - 5}" width="332" height="6" fill="{stone}"/>')
    down = eased(now, 5.7, 6.8)
    if down:
        y = 146 - 190 * (1 - down)
        parts.append(f'<path d="M148 {y}L320 {y - 62}L492 {y}Z" fill="{stone}"/>')
        parts.append(f'<path d="M186 {y - 8}L320 {y - 52}L454 {y - 8}Z" fill="{shade}"/>')
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}">{"".join(parts)}</svg>'


def pictures() -> Iterator[av.VideoFrame]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        for number in range(SECONDS * RATE):
            page.set_content(f"<style>body {{ margin: 0 }}</style>{scene(number / RATE)}")
            with av.open(io.BytesIO(page.screenshot())) as picture:
                yield next(picture.decode(video=0))
        browser.close()


def main() -> None:
    # A key frame every second: a seek decodes no more than that.
    options = {"crf": "34", "g": str(RATE), "deadline": "good", "cpu-used": "3"}
    with av.open(FILE, "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 0
        stream.codec_context.time_base = fractions.Fraction(1, RATE)
        for number, picture in enumerate(pictures()):
            frame = picture.reformat(format="yuv420p")
            frame.pict_type = PictureType.NONE  # Each comes from a file of its own, and would be a key frame.
            frame.pts, frame.time_base = number, fractions.Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    print(f"{FILE}: {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
