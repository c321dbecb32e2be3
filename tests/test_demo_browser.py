"""The server pages of `portico demo` in a real browser: a cart, ways out, a clock, a chat of two, a video that seeks."""

from __future__ import annotations

import pytest

from browsers import chromium

pytest.importorskip("pydantic_monty", reason="pydantic-monty is not installed")

PATHS = ["", "shop.psp", "cart.psp", "breakout.psp", "clock.psp", "chat.psp", "files.psp"]


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser, demo):
    """Makes visitors, each with a profile of their own. What a page complains of is an error."""
    contexts, complaints = [], []

    def visit(**options):
        context = browser.new_context(
            ignore_https_errors=True, base_url=f"https://pages.localhost:{demo.port}", **options
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        return page

    visit.complaints = complaints
    yield visit
    for context in contexts:
        context.close()
    # What a page is stopped for is such an answer, and is meant.
    assert [one for one in complaints if "status of 500" not in one] == []


def test_cart_over_two_pages(visit):
    page = visit()
    page.goto("/shop.psp")
    for item in (3, 3, 1):
        page.click(f".goods li:nth-child({item}) button")
        page.wait_for_url("**/cart.psp")
        page.goto("/shop.psp")
    assert page.inner_text("#count") == "3"
    assert page.is_disabled(".goods li:nth-child(6) button"), "sold out"
    page.click("text=Cart")
    assert page.inner_text("#total") == "€ 1,418.00"
    page.click("[aria-label='One less'] >> nth=0")
    page.wait_for_selector("#total:text('€ 1,329.00')")
    other = visit()
    other.goto("/cart.psp")
    assert other.is_visible("#empty")


def test_ways_out_are_tried_and_told(visit):
    page = visit()
    page.goto("/breakout.psp")
    assert page.inner_text("#held") == "16"
    assert page.locator(".ways .held").count() == 16
    assert page.locator(".ways .out").count() == 0
    for number, words in enumerate(["0.5 seconds", "memory", "printed"]):
        page.click(f"[data-try] >> nth={number}")
        page.wait_for_selector(f"output:has-text('500 after'):has-text('{words}')")
    page.fill("#code", "print('<b>', 2 ** 100)")
    page.click("text=Run it")
    page.wait_for_selector("#outcome")
    assert page.inner_text("#outcome") == f"<b> {2**100}"


def test_clock_ticks(visit):
    page = visit()
    page.goto("/clock.psp")
    page.wait_for_selector("#watchers:text('You are the only one who watches')")
    first = page.inner_text("#time")
    page.wait_for_selector(f"#time:not(:text-is('{first}'))")
    hours, minutes, seconds = map(int, page.inner_text("#time").split(":"))
    # It may have ticked in between.
    turned = page.get_attribute(".second", "transform")
    assert turned in [f"rotate({(seconds + more) % 60 * 6})" for more in range(3)]
    assert 0 <= hours < 24
    assert 0 <= minutes < 60


def test_chat_between_two(visit):
    ada, eve = visit(), visit()
    for page in (ada, eve):
        page.goto("/chat.psp")
        page.wait_for_selector("#line:enabled")
    ada.wait_for_selector("#state:has-text('one of 2 here')")
    ada.fill("#line", "<i>is anybody there?")
    ada.press("#line", "Enter")
    eve.wait_for_selector("#said li:has-text('<i>is anybody there?')")
    eve.fill("#line", "only me")
    eve.click("text=Say it")
    ada.wait_for_selector("#said li:not(.mine):has-text('only me')")
    assert ada.inner_text("#said .mine") == "You <i>is anybody there?"
    eve.goto("/")
    ada.wait_for_selector("#said .does:has-text('left')")
    ada.wait_for_selector("#state:has-text('alone here')")


def test_video_seeks(visit):
    page, parts = visit(), []
    page.on("response", lambda answer: parts.append((answer.status, answer.headers.get("content-range", ""))))
    page.goto("/files.psp")
    seen = page.evaluate(
        """async () => {
            const video = document.querySelector('video'), canvas = document.createElement('canvas');
            const happened = name => new Promise((resolve, reject) => {
                video.addEventListener(name, resolve, {once: true});
                video.addEventListener('error', () => reject(video.error.message), {once: true});
            });
            if (video.readyState < 2) await happened('loadeddata');
            canvas.width = video.videoWidth; canvas.height = video.videoHeight;
            const picture = canvas.getContext('2d', {willReadFrequently: true}), seen = [video.duration];
            for (const [second, there] of [[7.5, blue => blue > 180], [0.1, blue => blue < 80]]) {
                const arrived = happened('seeked');
                video.currentTime = second;
                await arrived;
                // 'seeked' may come before the frame does: a canvas then shows the one before, or none.
                for (let looks = 0; looks < 100; looks++) {
                    picture.drawImage(video, 0, 0);
                    var [, , blue, opaque] = picture.getImageData(20, 20, 1, 1).data;
                    if (opaque && there(blue)) break;
                    await new Promise(resolve => setTimeout(resolve, 50));
                }
                seen.push(blue);
            }
            return seen;
        }"""
    )
    assert seen[0] == pytest.approx(8, abs=0.1)
    assert seen[1] > 180, "the sky is blue by day"
    assert seen[2] < 80, "and dark at night"
    assert 206 in {status for status, _ in parts}


@pytest.mark.parametrize(
    "options",
    [{}, {"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 844}}],
    ids=["light", "dark", "phone"],
)
def test_nothing_is_wider_than_the_window(visit, options):
    page = visit(**options)
    for path in PATHS:
        page.goto(f"/{path}")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(20, 22, 26)") == (options.get("color_scheme") == "dark")


def test_pages_work_without_javascript(visit):
    page = visit(java_script_enabled=False)
    page.goto("/shop.psp")
    page.click(".goods li:nth-child(5) button")
    assert page.inner_text("#total") == "€ 29.00"
    page.goto("/breakout.psp")
    page.click("text=Run for ever")
    page.wait_for_selector("h1:has-text('This page was stopped')")
