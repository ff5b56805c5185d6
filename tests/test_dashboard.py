"""The page of the dashboard in a real browser, while a program is at work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from chromium import PROGRAM, Page, browser, serving

from memoleo import Cache

pytestmark = pytest.mark.skipif(
    PROGRAM is None and not os.environ.get("CI"),
    reason="there is no Chromium here (Debian: apt-get install chromium)",
)

SECRET = "nobody's business"

# Asks a few things again and again, a round for each line that it reads, and says when it is done.
PROGRAM_AT_WORK = f"""
import sys
from memoleo import content_cached, timed

@timed("stage1")
@content_cached(type="<b>emotion</b>", tags=[{SECRET!r}])
def score(number):
    if number == 9:
        raise ValueError(number)
    return {SECRET!r} * number

for line in sys.stdin:
    for number in (1, 2, 3, 1, 2, 3, 9):
        try:
            score(number)
        except ValueError:
            pass
    print("done", flush=True)
"""


class Work:
    """A program in another process that uses a cache when it is told to."""

    def __init__(self, folder: Path, url: str) -> None:
        path = folder / "program.py"
        path.write_text(PROGRAM_AT_WORK)
        environ = {**os.environ, "MEMOLEO_CACHE": url, "MEMOLEO_METRICS__INTERVAL": "0.1"}
        self._child = subprocess.Popen(
            [sys.executable, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        )

    def round(self) -> None:
        """Let it make its seven calls."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        assert self._child.stdout.readline() == "done\n"

    def end(self) -> None:
        self._child.communicate(timeout=60)


@contextmanager
def at_work(folder: Path) -> Iterator[tuple[Page, str, Work]]:
    """A browser, the address of a dashboard, and a program whose cache that shows."""
    url = f"sqlite:///{(folder / 'cache.db').as_posix()}"
    work = Work(folder, url)
    try:
        work.round()
        with serving("--cache", url) as address, browser(folder / "profile") as page:
            yield page, address, work
    finally:
        work.end()


def ready(page: Page) -> None:
    page.wait("document.querySelector('#live.on') && document.title.includes('%')")


def cells(page: Page, table: str) -> list[str]:
    """The text of the first row of a table."""
    return page.evaluate(
        f"[...document.querySelectorAll('#{table} tbody tr:first-child td')].map(c => c.innerText)"
    )


def test_the_page_is_right_and_live(tmp_path: Path) -> None:
    """It shows the right numbers, follows a program at work, and complains about nothing."""
    with at_work(tmp_path) as (page, address, work):
        page.look(1180, 1600)
        page.open(address)
        page.wait("document.querySelector('#rate .small')?.innerText === '3 of 7 lookups'")
        assert page.text("#rate .big") == "42.9 %"
        assert page.text("#stored .big") == "3"
        kind, rate, lookups, hits, misses, _, _, errors, *_ = cells(page, "types")
        assert (kind, rate) == ("<b>emotion</b>", "42.9 %")
        assert (lookups, hits, misses, errors) == ("7", "3", "4", "1")
        assert cells(page, "operations")[:3] == ["stage1", "6", "1"]
        assert "score" in cells(page, "largest")[0]
        assert page.evaluate("document.querySelectorAll('.chart canvas').length") == 3

        for number in range(2, 5):
            work.round()  # six hits, and the error again
            answered, asked = 3 + 6 * (number - 1), 7 * number
            expected = f"{answered} of {asked} lookups"
            page.wait(f"document.querySelector('#rate .small').innerText === '{expected}'")
        assert cells(page, "types")[2] == "28"
        assert cells(page, "operations")[1] == "24"
        drawn = page.evaluate("charts.lookups.plot.data.map(column => column.at(-1)).slice(1)")
        earlier = page.evaluate("charts.lookups.plot.data.map(column => column.at(-2)).slice(1)")
        assert [a + (b or 0) for a, b in zip(drawn, earlier, strict=True)] == [28, 21]

        assert SECRET not in page.evaluate("document.documentElement.innerHTML")
        assert page.troubles == []
        assert page.requests
        assert all(request.startswith(address) for request in page.requests)


def test_the_page_follows_its_buttons(tmp_path: Path) -> None:
    """Period, theme and operation can be chosen, and the first two are remembered."""
    with at_work(tmp_path) as (page, address, _):
        page.look(1180, 1000, "light")
        page.open(address)
        ready(page)
        ground = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(ground)
        page.click("#theme")
        dark = page.evaluate(ground)
        assert light != dark
        page.click("#period button[value=week]")
        page.wait("document.querySelector('.period').innerText === 'the last 7 days'")
        assert page.text("#lookups-step") == "per hour"
        page.open(address)
        ready(page)
        assert page.evaluate(ground) == dark
        pressed = "document.querySelector('#period [aria-pressed=true]').value"
        assert page.evaluate(pressed) == "week"
        page.look(1180, 1000, "dark")
        page.click("#theme")
        assert page.evaluate(ground) == light
        assert page.troubles == []


@pytest.mark.parametrize("width", [320, 390, 768])
def test_the_page_fits_a_narrow_screen(tmp_path: Path, width: int) -> None:
    """On a phone nothing sticks out, and buttons are large enough for a finger."""
    with at_work(tmp_path) as (page, address, _):
        page.look(width, 800, "dark")
        page.open(address)
        ready(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        heights = page.evaluate(
            "[...document.querySelectorAll('button')].map(b => b.getBoundingClientRect().height)"
        )
        assert min(heights) >= 34
        assert page.troubles == []


def test_the_page_survives_its_server(tmp_path: Path) -> None:
    """An empty cache is shown as empty, and a server that ends is told, with the numbers kept."""
    url = f"sqlite:///{(tmp_path / 'cache.db').as_posix()}"
    with Cache(url) as cache:
        cache.set("a", 1)
    with browser(tmp_path / "profile") as page:
        with serving("--cache", url) as address:
            page.open(address)
            page.wait("document.querySelector('#stored .big')?.innerText === '1'")
            assert page.text("#rate .small") == "no lookups in this time"
            assert "Nothing was looked up" in page.text("#lookups")
            assert page.troubles == []
        page.wait("document.querySelector('#live').className === 'off'")
        assert "no answer since" in page.text("#live")
        assert page.text("#stored .big") == "1"
