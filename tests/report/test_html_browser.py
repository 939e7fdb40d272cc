"""The HTML report in a real browser, without a network: it asks for nothing and can be read."""

from __future__ import annotations

import os
import shutil

import pytest
from playwright.sync_api import sync_playwright

from velollm_core.report.html.page import to_html
from velollm_core.report.html.tune import to_html as tune_to_html

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

LOOK = """() => {
  const charts = [...document.querySelectorAll("svg[role=img]")].map(svg => ({
    width: svg.getBoundingClientRect().width,
    height: svg.getBoundingClientRect().height,
    shapes: [...svg.querySelectorAll("circle, polygon, polyline, rect, line")].map(shape => {
      const box = shape.getBoundingClientRect(), frame = svg.getBoundingClientRect();
      const away = Math.max(frame.left - box.right, box.left - frame.right,
                            frame.top - box.bottom, box.top - frame.bottom);
      return {away, size: box.width + box.height};
    }),
    marks: svg.querySelectorAll("g.mark").length,
    small: Math.min(...[...svg.querySelectorAll("text")].map(
      text => text.getBoundingClientRect().height)),
  }));
  const luminance = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(part => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const page = luminance(getComputedStyle(document.body).backgroundColor);
  const contrast = colour => {
    const other = luminance(colour);
    return (Math.max(page, other) + 0.05) / (Math.min(page, other) + 0.05);
  };
  const texts = [...document.querySelectorAll("h1, h2, h3, p, td, th, li, dt, dd, strong, span")];
  return {
    charts,
    background: page,
    texts: Math.min(...texts.map(one => contrast(getComputedStyle(one).color))),
    labels: Math.min(...[...document.querySelectorAll("svg text")].map(
      one => contrast(getComputedStyle(one).fill))),
    marks: Math.min(...[...document.querySelectorAll("g.mark")].map(
      one => contrast(getComputedStyle(one).color))),
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  };
}"""
"""What is drawn, how large, and the contrast of text and marks (WCAG 2.2, relative luminance)."""


@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("there is no Chromium: apt-get install chromium")
        pytest.skip("there is no Chromium on this machine")
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def look(browser, tmp_path):
    """Open a page from its file and look at it."""

    def look(html, scheme="light", width=1280):
        path = tmp_path / "report.html"
        path.write_text(html, encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page, said, asked = context.new_page(), [], []
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))

        def request(route):
            asked.append(route.request.url)
            if route.request.url == path.as_uri():
                route.continue_()
            else:
                route.abort()

        page.route("**/*", request)
        page.goto(path.as_uri(), wait_until="networkidle")
        seen = page.evaluate(LOOK)
        context.close()
        assert said == []
        assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
        return seen

    return look


@pytest.fixture(params=["versus", "three_concurrencies"])
def result(request):
    found = request.getfixturevalue(request.param)
    return found(cells=[("short", 1), ("code", 4)], lost=[3]) if callable(found) else found


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_is_drawn_within_its_frame_and_can_be_read(look, result, scheme, width):
    html = to_html(result)
    seen = look(html, scheme, width)
    assert len(seen["charts"]) == html.count('role="img"') >= 8
    for chart in seen["charts"]:
        assert chart["width"] > 200
        assert chart["height"] > 15
        assert all(shape["away"] < 1 for shape in chart["shapes"])
        assert any(shape["size"] > 2 for shape in chart["shapes"])
    assert sum(chart["marks"] for chart in seen["charts"]) > 30
    assert seen["overflow"] == 0
    assert seen["texts"] >= 4.5
    assert seen["labels"] >= 4.5
    assert seen["marks"] >= 3
    assert (seen["background"] < 0.1) == (scheme == "dark")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["tuned", "two_objectives", "stopped"])
def test_a_tune_is_a_page_that_can_be_read(look, request, name, scheme, width):
    found = request.getfixturevalue(name)
    html = tune_to_html(found() if callable(found) else found, "mine")
    seen = look(html, scheme, width)
    assert len(seen["charts"]) == html.count('role="img"') >= 2
    assert all(shape["away"] < 1 for chart in seen["charts"] for shape in chart["shapes"])
    assert seen["overflow"] == 0
    assert min(seen["texts"], seen["labels"]) >= 4.5
    assert seen["marks"] >= 3
    assert (seen["background"] < 0.1) == (scheme == "dark")


def test_type_in_charts_keeps_its_size_on_a_phone(look, versus):
    smallest = [chart["small"] for chart in look(to_html(versus()), width=390)["charts"]]
    assert min(size for size in smallest if size) > 9


@pytest.mark.parametrize("name", ["one_launch", "with_failures", "silent_server", "two_arms"])
def test_partial_results_are_pages_without_an_error(look, request, name):
    seen = look(to_html(request.getfixturevalue(name)), width=390)
    assert seen["charts"]
    assert seen["overflow"] == 0


def test_hostile_and_long_names_neither_run_nor_widen_the_page(look, versus):
    hostile = '</script><img src="https://example.org/x" onerror="console.error(1)">' + "x" * 200
    seen = look(to_html(versus(names=(hostile, "b"), cells=[(hostile, 1)])), width=390)
    assert seen["overflow"] == 0
