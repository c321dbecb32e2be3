"""The dashboard in a real browser: what it shows under traffic, what strangers cannot make of it, who can read it."""

import contextlib
import threading

import pytest

import portico
import portico.testing
from browsers import chromium
from certificates import DAY, pair
from clients import GENEROUS, Wire, request, wait_until

HOSTILE = "<img src=x onerror=window.harmed=1>"
# The least contrast of text with what is behind it (WCAG 2.2, 1.4.3), of every element that has text of its own.
TOO_FAINT = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, at) => sum + c * [.2126, .7152, .0722][at], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(at).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest("script")) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (contrast < 4.5) faint.push(`${element.tagName}.${element.className} ${element.textContent}: ${contrast}`);
  }
  return faint;
}"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def open_page(browser):
    """Opens pages that fail the test when something goes wrong within, or when they ask anybody else."""
    wrong = []
    with contextlib.ExitStack() as stack:

        def open_page(url, width=1240, height=900, **more):
            page = browser.new_page(viewport={"width": width, "height": height}, **more)
            stack.callback(page.close)
            page.set_default_timeout(GENEROUS * 1000)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("console", lambda message: "Content Security" in message.text and wrong.append(message.text))
            page.on("request", lambda asked: asked.url.startswith((url, "data:")) or wrong.append(asked.url))
            page.goto(url)
            return page

        yield open_page
        assert wrong == []


@pytest.fixture
def shop():
    """A server whose names are as bad as they can be, with traffic of every kind until the end of the test."""
    router = portico.Router()
    router.get("/goods/{id}")(lambda request: portico.response(200, "a lantern"))
    router.get(f"/{HOSTILE}")(lambda request: portico.response(200, "odd"))

    @router.get("/fails")
    def fails(request):
        raise ValueError(f"no {HOSTILE}")

    fails.__qualname__ = HOSTILE
    ended = threading.Event()
    with portico.Server(router) as server:
        for name, days in (("soon.test", 3), ("later.test", 20), ("fine.test", 60)):
            cert, key = pair(name, ends=DAY * (days + 0.1))
            server.add_context(name, cert=cert, key=key)
        server.listen(0)
        clear = server.listen(0, tls=False).port

        def buy():
            with Wire(clear) as wire:
                while not ended.wait(0.01):
                    for path in ("/goods/1", "/goods/2", f"/{HOSTILE.replace(' ', '%20')}", "/nowhere"):
                        wire.get(path)
            request(clear, path="/fails")
            with Wire(clear) as wire:
                wire.send(f"GET /{HOSTILE} HTTP/1.1\r\n\r\n").cut()

        request(clear, path="/fails")
        with Wire(clear) as wire:
            wire.send(f"GET {HOSTILE}\r\n\r\n").cut()
        thread = threading.Thread(target=buy)
        thread.start()
        yield server, server.listen_admin(0)
        ended.set()
        thread.join()


def wait_for(page, expression):
    """Waits until it is true. Playwright's own way has the page evaluate a string, which the page may not."""
    wait_until(lambda: page.evaluate(expression), expression)


def number(text):
    """The digits of a number as the page writes it."""
    return float(text.split("/")[0].replace(",", "").strip() or 0)


def row(page, table, head):
    """The cells of the row of that name."""
    found = page.locator(f"#{table} tbody tr", has=page.get_by_role("rowheader", name=head, exact=True))
    return found.locator("th, td").all_inner_texts()


def test_shows_what_happens_while_it_happens(shop, open_page):
    _, admin = shop
    page = open_page(admin.url)
    wait_for(page, "document.querySelectorAll('.value')[0]?.textContent.match(/[1-9]/)")
    assert page.locator("#state").inner_text() == "Serving"
    wait_until(lambda: number(page.locator(".row .value").first.inner_text()) > 20, "more than 20 in a second")
    wait_for(page, "document.querySelectorAll('.keys dd')[3].textContent.match(/[1-9]/)")  # p99
    assert page.locator(".plot .stroke.accent").first.get_attribute("d").startswith("M")
    wait_until(lambda: number(row(page, "routes", "/goods/{id}")[2]) > 20, "more than 20 of that route")
    _, host, *_, failed, _ = row(page, "routes", "/goods/{id}")
    assert (host, failed) == ("(default)", "0")
    assert row(page, "errors", "request_line")[1:] == ["0", "1"]
    assert row(page, "errors", "handlers that failed")[1:] == ["0", "1"]
    assert number(row(page, "connections", "open")[1]) >= 1
    assert row(page, "connections", "HTTP/2")[1] == "0"
    assert page.locator("#listeners").inner_text().count("127.0.0.1") == 2


def test_marks_certificates_that_end_soon(shop, open_page):
    _, admin = shop
    page = open_page(admin.url)
    page.wait_for_selector("#hosts tbody tr")
    badges = page.locator("#hosts .badge").evaluate_all("all => all.map(one => [one.textContent, one.className])")
    assert badges == [["3", "badge bad"], ["20", "badge warn"], ["60", "badge good"]]
    assert "The certificate of soon.test ends in 3 days." in page.locator("#attention").inner_text()


def test_names_and_lines_of_strangers_are_text(shop, open_page):
    _, admin = shop
    page = open_page(admin.url)
    wait_for(page, "document.querySelectorAll('#log li').length >= 2 && document.querySelector('#routes tbody th')")
    page.wait_for_selector("#handlers tbody tr")
    for place in ("#routes", "#handlers", "#log"):
        wait_until(lambda place=place: HOSTILE in page.locator(place).inner_text(), f"the name in {place}")
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1
    assert page.evaluate("window.harmed") is None


def test_says_so_when_nothing_comes_and_goes_on_when_it_does(open_page):
    def serve(port):
        server = portico.Server(lambda request: portico.response(200, "hi"))
        server.listen(0, tls=False)
        return server, server.listen_admin(port)

    server, admin = serve(0)
    page = open_page(admin.url)
    wait_for(page, "document.querySelector('#uptime').textContent.startsWith('up')")
    wait_for(page, "document.querySelector('#state').textContent === 'Serving'")
    server.close(grace=0)
    wait_for(page, "document.querySelector('#state').textContent.startsWith('No data for')")
    assert page.locator("main.stale").count() == 1
    assert page.title().startswith("(no data)")
    server, _ = serve(admin.port)
    try:
        wait_for(page, "document.querySelector('#state').textContent === 'Serving'")
        wait_for(page, "document.querySelectorAll('.plot .mark').length > 0")
        assert page.locator("main.stale").count() == 0
        assert not page.title().startswith("(no data)")
    finally:
        server.close(grace=0)


def test_shows_that_it_drains(open_page, gate):
    server = portico.Server(gate)
    port, admin = server.listen(0, tls=False).port, server.listen_admin(0)
    with Wire(port) as wire:
        wire.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        gate.wait_for()
        page = open_page(admin.url)
        page.wait_for_selector("#state.serving")
        closing = threading.Thread(target=server.close)
        closing.start()
        page.wait_for_selector("#state.draining")
        assert page.locator("#listeners").inner_text() == "Listening nowhere"
        gate.opened.set()
        closing.join()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1240])
def test_can_be_read_by_day_and_night_and_on_a_telephone(shop, open_page, scheme, width):
    _, admin = shop
    page = open_page(admin.url, width=width, color_scheme=scheme)
    wait_for(page, "document.querySelectorAll('.keys dd')[3]?.textContent.match(/[1-9]/)")
    page.wait_for_selector("#hosts tbody tr")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(TOO_FAINT) == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(background.split("(")[1].split(",")[0]) > 128) == (scheme == "light")


def test_can_be_read_by_keyboard_and_by_ear(shop, open_page):
    _, admin = shop
    page = open_page(admin.url)
    wait_for(page, "document.querySelectorAll('.plot .stroke.accent')[0].getAttribute('d')?.split('L').length > 3")
    charts = page.get_by_role("slider")
    charts.focus()
    assert charts.get_attribute("aria-valuetext").startswith("now: Requests ")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    wait_until(lambda: "seconds ago: Requests" in charts.get_attribute("aria-valuetext"))
    assert "s ago, " in page.locator("#moment").inner_text()
    assert page.locator(".plot .cursor").first.get_attribute("visibility") == "visible"
    page.keyboard.press("Escape")
    assert charts.get_attribute("aria-valuetext").startswith("now")
    tree = page.locator("body").aria_snapshot()
    for part in (
        'heading "portico',
        'heading "Traffic"',
        "table",
        'columnheader "Days left"',
        'rowheader "soon.test"',
        "status: Serving",
    ):
        assert part in tree, tree
    # A sorted table says so, and another column can be asked for without a pointer.
    page.get_by_role("button", name="Requests").focus()
    page.keyboard.press("Enter")
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("Requests")
    order = page.locator("#routes tbody td:nth-child(3)").all_inner_texts()
    assert [number(one) for one in order] == sorted(map(number, order), reverse=True)


def test_the_pointer_shows_a_moment(shop, open_page):
    _, admin = shop
    page = open_page(admin.url)
    wait_for(page, "document.querySelectorAll('.plot .stroke.accent')[0].getAttribute('d')?.split('L').length > 2")
    box = page.locator(".plot").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 30, box["y"] + 20)
    wait_until(lambda: "s ago" in page.locator("#moment").inner_text())
    page.mouse.move(box["x"] - 40, box["y"] - 80)
    wait_until(lambda: page.locator("#moment").inner_text() == "")
