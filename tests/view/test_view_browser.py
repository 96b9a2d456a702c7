"""The page in a browser: what it answers, that it asks nobody, and that uploads come to something."""

import io
import re
import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from benchmarks import browser as browsers
from PIL import Image

from viewed import SIZE, calibration, match, photograph

if lacking := browsers.missing():
    pytest.skip(lacking, allow_module_level=True)


@pytest.fixture(scope="module")
def browser():
    with browsers.browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("page") / "view.html"
    match().save(path)
    return path.as_uri()


@pytest.fixture
def visit(browser):
    """`visit(address)` -> a page on which nothing went wrong, and that asked for nothing else."""
    contexts, asked, wrong = [], [], []

    def call(address: str, script: str = "", **settings: object):
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | settings))
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if "Content Security" in said.text else None)
        if script:
            page.add_init_script(script)
        page.goto(address)
        return page

    yield call
    for context in contexts:
        context.close()
    own = re.compile(r"(file:|data:|blob:|http://127\.0\.0\.1:\d+/)")
    assert not [url for url in asked if not own.match(url)]
    assert not wrong


def opened(page):
    page.wait_for_selector("#viewer:not([hidden])")
    # On a busy machine the page may still be moving into place: only when two frames in a row agree it stands.
    page.wait_for_function(
        """async () => {
            const place = () => JSON.stringify(document.getElementById('target').getBoundingClientRect());
            const frame = () => new Promise(requestAnimationFrame);
            const before = place();
            for (let i = 0; i < 5; i++) await frame();
            return before === place();
        }"""
    )
    return page


def hover(page, x: int, y: int) -> dict[str, str]:
    """Points at the middle of a target pixel, and reads; again if the page moved under the pointer meanwhile."""
    target = page.locator("#target")
    for _ in range(20):
        box = target.bounding_box()
        page.mouse.move(box["x"] + (x + 0.5) * box["width"] / SIZE[1], box["y"] + (y + 0.5) * box["height"] / SIZE[0])
        told = read(page)
        if target.bounding_box() == box:
            return told
    raise AssertionError(f"the page does not come to rest: {box}")


def read(page) -> dict[str, str]:
    return {name: page.locator(f"#{name}").inner_text() for name in ("here", "there", "flow", "trust", "hint")}


def numbers(text: str) -> list[float]:
    return [float(part) for part in re.findall(r"-?\d+(?:\.\d+)?", text.replace("\u2212", "-"))]


def colour(page, x: int, y: int) -> list[int]:
    """What is drawn over the target at a pixel."""
    return page.evaluate(
        f"[...document.getElementById('picture').getContext('2d').getImageData({x}, {y}, 1, 1).data].slice(0, 3)"
    )


POINTS = np.array([(x, y) for y in range(8, SIZE[0], 23) for x in range(5, SIZE[1], 29)])


def check_answers(page) -> None:
    made = match()
    found, confidence = made.at(POINTS, least=0.5)
    assert 5 < np.isnan(found[:, 0]).sum() < len(found) - 5
    for point, there, trust in zip(POINTS, found, confidence, strict=True):
        told = hover(page, *point)
        assert told["here"] == f"{point[0]}, {point[1]}"
        assert abs(numbers(told["trust"])[0] - 100 * trust) <= 1
        if np.isnan(there[0]):
            assert told["there"] == "no match"
            outside = made.in_view[point[1], point[0]] == 0
            assert ("out of the source" if outside else "% is below 50 %") in told["hint"]
        else:
            # Half a step of 1/8 px, and two decimals.
            np.testing.assert_allclose(numbers(told["there"]), there, atol=1 / 16 + 0.0051)
            np.testing.assert_allclose(numbers(told["flow"])[:2], there - point, atol=1 / 16 + 0.0051)


def test_a_hover_reads_what_the_match_says(visit, address):
    check_answers(opened(visit(address)))


def test_a_browser_that_cannot_unpack_is_told(visit, address):
    assert "open it in a newer one" in visit(address, "delete window.DecompressionStream").inner_text("body")


def test_a_hover_is_a_look_up(visit, address):
    page = opened(visit(address))
    took = page.evaluate(
        "() => { const start = performance.now();"
        "for (let i = 0; i < 300; i++) move(i % 160, i % 120); return (performance.now() - start) / 300 }"
    )
    assert took < 16  # ms, a frame; a tenth of one is usual


def test_the_mark_in_the_source_is_where_the_numbers_say(visit, address):
    page = opened(visit(address))
    point = POINTS[~np.isnan(match().at(POINTS, least=0.5)[0][:, 0])][3]
    there = numbers(hover(page, *point)["there"])
    mark, box = (page.locator(name).bounding_box() for name in ("#source-mark", "#source"))
    middle = [mark[a] + mark[s] / 2 - box[a] for a, s in (("x", "width"), ("y", "height"))]
    np.testing.assert_allclose(
        middle, [(there[0] + 0.5) * box["width"] / 140, (there[1] + 0.5) * box["height"] / 100], atol=1
    )


def test_the_slider_moves_what_counts_as_no_match(visit, address):
    page = opened(visit(address))
    confidence = match().confidence
    y, x = np.argwhere((confidence > 0.55) & (confidence < 0.75))[0]
    assert hover(page, x, y)["there"] != "no match"
    plain = colour(page, x, y)
    page.get_by_label("No match below").fill("80")
    assert read(page)["there"] == "no match"
    assert page.locator("#nowhere").is_visible()
    assert colour(page, x, y) != plain
    page.get_by_label("cover").uncheck()
    assert colour(page, x, y) == plain
    page.get_by_label("No match below").fill("10")
    assert read(page)["there"] != "no match"


def test_swipe_and_blend_and_flow(visit, address):
    page = opened(visit(address))
    page.get_by_label("cover").uncheck()
    left, right, far = (20, 60), (100, 60), (140, 60)
    target = {at: colour(page, *at) for at in (left, right, far)}
    page.locator("#modes").get_by_text("Blend").click()
    page.get_by_label("Warped source").fill("100")
    warped = {at: colour(page, *at) for at in (left, right)}
    assert warped != {at: target[at] for at in warped}
    page.get_by_label("Warped source").fill("50")
    np.testing.assert_allclose(colour(page, *right), (np.array(target[right]) + warped[right]) / 2, atol=2)
    page.locator("#modes").get_by_text("Swipe").click()
    assert colour(page, *left) == target[left]
    assert colour(page, *right) == warped[right]
    box = page.locator("#target").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 40, steps=3)
    page.mouse.up()
    assert colour(page, *right) == target[right]
    assert page.get_by_label("Warped source").input_value() == "80"
    page.locator("#modes").get_by_text("Flow").click()
    assert colour(page, *left) != target[left]
    assert page.locator("#legend").is_visible()


def test_by_keyboard(visit, address):
    page = opened(visit(address))
    target = page.get_by_label("Target. Arrow keys move the point.")
    target.focus()
    x, y = numbers(read(page)["here"])
    for key, step in (
        ("ArrowRight", (1, 0)),
        ("Shift+ArrowLeft", (-10, 0)),
        ("ArrowDown", (0, 1)),
        ("ArrowUp", (0, -1)),
    ):
        target.press(key)
        x, y = x + step[0], y + step[1]
        assert numbers(read(page)["here"]) == [x, y]
    page.locator("#said", has_text=f"Target {x:.0f}, {y:.0f}").wait_for(state="attached")
    for _ in range(40):
        target.press("Shift+ArrowRight")
    assert numbers(read(page)["here"])[0] == SIZE[1] - 1
    page.keyboard.press("2")
    assert page.get_by_label("Swipe").is_checked()
    page.keyboard.press("]")
    assert page.get_by_label("Warped source").input_value() == "55"
    page.keyboard.press("+")
    assert page.get_by_label("No match below").input_value() == "55"


def test_the_verdict_is_shown_and_the_point_begins_where_it_is_true(visit, address, tmp_path):
    page = opened(visit(address))
    assert page.locator("#verdict").inner_text().startswith("The two images show the same thing (mean confidence 0.")
    assert read(page)["there"] != "no match"
    path = tmp_path / "strangers.html"
    match(calibration=replace(calibration(), threshold=0.99)).save(path)
    page = opened(visit(path.as_uri()))
    assert page.locator("#verdict.no").inner_text().startswith("These two do not show the same thing")
    assert read(page)["here"] == "80, 60"


def test_a_click_holds_the_point(visit, address):
    page = opened(visit(address))
    held = hover(page, 50, 50)
    page.mouse.down()
    page.mouse.up()
    assert hover(page, 90, 80)["here"] == held["here"]
    page.keyboard.press("Escape")
    assert hover(page, 90, 81)["here"] == "90, 81"


@pytest.mark.parametrize("width", [360, 414])
def test_on_a_phone(visit, address, width):
    page = opened(visit(address, viewport={"width": width, "height": 740}, has_touch=True, is_mobile=True))
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for part in ("#target", "#target-loupe", "#source-loupe"):
        box = page.locator(part).bounding_box()
        assert box["y"] + box["height"] < 740, f"{part} has to be seen without scrolling"
    box = page.locator("#target").bounding_box()
    page.touchscreen.tap(box["x"] + 0.25 * box["width"], box["y"] + 0.75 * box["height"])
    np.testing.assert_allclose(numbers(read(page)["here"]), (0.25 * SIZE[1], 0.75 * SIZE[0]), atol=1)


def test_everything_has_a_name(visit, address):
    page = opened(visit(address))
    for control in page.locator("input:visible, button:visible, canvas[role], [tabindex]").all():
        name = control.evaluate("e => e.ariaLabel || [...(e.labels ?? [])].map(l => l.innerText).join() || e.innerText")
        assert name.strip(), control
    assert all(image.get_attribute("alt") for image in page.locator("img").all())


def test_light_and_dark(visit, address):
    backs = [
        numbers(opened(visit(address, color_scheme=scheme)).evaluate("getComputedStyle(document.body).backgroundColor"))
        for scheme in ("light", "dark")
    ]
    assert sum(backs[0]) > 600
    assert sum(backs[1]) < 150


def test_the_page_cannot_reach_the_network(browser, address):
    context = browser.new_context()
    page = opened_page = context.new_page()
    opened_page.goto(address)
    opened(page)
    assert (
        page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', (error) => error.message)") == "Failed to fetch"
    )
    blocked = page.evaluate(
        "new Promise((done) => {"
        "document.addEventListener('securitypolicyviolation', (event) => done(event.violatedDirective));"
        "new Image().src = 'http://127.0.0.1:9/'; })"
    )
    assert blocked == "img-src"
    context.close()


# The server


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    pytest.importorskip("uvicorn")
    from test_view_server import Still

    from glunet.view.server import listen, make_server

    with listen(0) as door:
        port = door.getsockname()[1]
        made = make_server(Still, port, max_pixels=200_000, longest=160)
        thread = threading.Thread(target=made.run, kwargs={"sockets": [door]})
        thread.start()
        yield f"http://127.0.0.1:{port}/"
        made.should_exit = True
        thread.join(10)
    assert not thread.is_alive()


def image_file(name: str, size: tuple[int, int] = SIZE) -> dict[str, object]:
    buffer = io.BytesIO()
    Image.fromarray(photograph(size, len(name))).save(buffer, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": buffer.getvalue()}


def upload(page, target: dict, source: dict) -> None:
    page.locator("input[name=target]").set_input_files(target)
    page.locator("input[name=source]").set_input_files(source)
    page.get_by_role("button", name="Match").click()


def test_two_images_are_matched_and_the_page_is_saved(visit, server, tmp_path):
    page = visit(server)
    assert page.get_by_role("button", name="Match").is_disabled()
    upload(page, image_file("here.png"), image_file("there.png", (240, 320)))
    opened(page)
    assert page.locator("#target-name").inner_text() == "here.png · 160 \u00d7 120 px"
    assert page.locator("#source-name").inner_text() == "there.png · 320 \u00d7 240 px"
    told = hover(page, 40, 30)
    assert told["here"] == "40, 30"
    np.testing.assert_allclose(numbers(told["there"]), (2 * 40.5 - 0.5, 2 * 30.5 - 0.5), atol=0.07)
    page.get_by_text("Keys, touch").click()
    assert "matched at 160 \u00d7 120" in page.locator("#facts").inner_text()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save this page").click()
    saved = tmp_path / "saved.html"
    download.value.save_as(saved)
    again = opened(visit(saved.as_uri()))
    assert hover(again, 40, 30) == told
    assert not again.locator("#upload").is_visible()
    assert "connect-src" not in saved.read_text(encoding="utf-8")


def test_a_broken_image_is_told_kindly(visit, server):
    page = visit(server)
    broken = {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"\xff\xd8\xff\xe0 not a photograph"}
    upload(page, image_file("here.png"), broken)
    page.wait_for_selector("#problem:not([hidden])")
    assert "source 'broken.jpg' is not an image" in page.get_by_role("alert").inner_text()
    upload(page, image_file("here.png"), image_file("large.png", (500, 600)))
    page.locator("#problem", has_text="600 x 500").wait_for()
    upload(page, image_file("here.png"), image_file("there.png"))
    opened(page)
    assert not page.get_by_role("alert").is_visible()


def test_images_are_dropped_and_pasted(visit, server):
    page = visit(server)
    give = """([selector, kind, names]) => {
        const data = new DataTransfer();
        for (const name of names) data.items.add(new File(['x'], name, {type: 'image/png'}));
        const event = kind === 'paste' ? new ClipboardEvent('paste', {clipboardData: data, bubbles: true})
          : new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true});
        document.querySelector(selector).dispatchEvent(event);
    }"""
    target, source = (page.locator(f"[data-role={role}] span") for role in ("target", "source"))
    page.evaluate(give, ["[data-role=source]", "drop", ["one.png"]])
    assert source.inner_text() == "one.png"
    page.evaluate(give, ["body", "paste", ["two.png"]])
    assert target.inner_text() == "two.png"
    page.evaluate(give, ["body", "drop", ["three.png", "four.png"]])
    assert (target.inner_text(), source.inner_text()) == ("three.png", "four.png")
    page.get_by_role("button", name="Exchange target and source").click()
    assert (target.inner_text(), source.inner_text()) == ("four.png", "three.png")
    assert page.get_by_role("button", name="Match").is_enabled()
