"""The pages at / and /docs in a real browser: what they show, what they ask, and what they must not do."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import helpers
import pytest
from browser import browser, missing, screen
from selenium.common.exceptions import JavascriptException, TimeoutException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait
from serving import serving

from shmkv import DataStore, Store

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]

PAGES = Path(__file__).resolve().parent.parent / "shmkv" / "server" / "pages"
MARKUP = "<img src=x onerror=\"window.hurt='{}'\">"
WAIT_SECONDS = 20
NOT_KNOWN = "\N{EN DASH}"
TOKEN = "open-sesame-and-no-less"
SHOWN_BYTES = 64 << 10
MARKUP_MAKERS = r"\.(innerHTML|outerHTML|srcdoc)\b|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser"

# Puts and gets of as many keys as said, with a pause after each.
WRITE = """
import sys
import time
from shmkv import Store
with Store.attach(sys.argv[1]) as store:
    for n in range(int(sys.argv[2])):
        store.put(f"written:{n:05d}", n)
        store.get(f"written:{n:05d}")
        time.sleep(float(sys.argv[3]))
"""


class Page:
    """The status page in the browser, as a reader uses it."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        self.address = address

    def open(self, path: str = "/") -> None:
        self.driver.get(self.address + path)
        self.script("sessionStorage.clear()")

    def load(self) -> None:
        """The status page, with its first figures."""
        self.open()
        self.until(lambda: self.text("state") == "Live" and self.find("found").text != "", "the first figures")

    def script(self, code: str, *args: Any) -> Any:
        return self.driver.execute_script(code, *args)

    def find(self, name: str) -> WebElement:
        found: WebElement = self.driver.find_element(By.ID, name)
        return found

    def all(self, selector: str) -> list[WebElement]:
        found: list[WebElement] = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return found

    def text(self, name: str) -> str:
        """All of an element's text, also what is scrolled out of sight, if the element itself is to be seen."""
        element = self.find(name)
        return str(element.get_property("textContent")) if element.is_displayed() else ""

    def texts(self, selector: str) -> list[str]:
        found: list[str] = self.script(
            "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector
        )
        return found

    def until(self, condition: Callable[[], object], what: str) -> None:
        wait = WebDriverWait(self.driver, WAIT_SECONDS * helpers.PATIENCE, 0.05)
        try:
            wait.until(lambda driver: condition())
        except TimeoutException:
            raise AssertionError(f"{what} did not come; the page says {self.find('state').text!r}") from None

    def search(self, prefix: str) -> None:
        field = self.find("prefix")
        field.clear()
        field.send_keys(prefix)
        self.until(
            lambda: (
                all(name.startswith(prefix) for name in self.keys()) and (self.keys() or self.text("found") == "None")
            ),
            f"keys that begin with {prefix!r}",
        )

    def keys(self) -> list[str]:
        return self.texts("#browser .key")

    def show(self, name: str, rows: str = "#browser") -> None:
        """Open the value of a key that is listed."""
        button = next(button for button in self.all(f"{rows} .key") if button.get_property("textContent") == name)
        self.script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()
        note = self.find("value-note")
        # The sheet fades in: what is in it counts as hidden until then, and hidden text as none.
        self.until(
            lambda: self.find("sheet").is_displayed() and note.get_property("textContent") != "Loading",
            f"the value of {name!r}",
        )

    def view(self, name: str) -> str:
        """The value as "text", "json" or "hex"."""
        self.script("arguments[0].click()", self.all(f"input[value={name}]")[0])
        return self.text("value")

    def close(self) -> None:
        self.find("close").click()

    def overflows(self) -> bool:
        return bool(self.script("return document.scrollingElement.scrollWidth > innerWidth"))


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with browser() as driver:
        yield driver


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Store, str]]:
    """A store, and the address of a server of two workers over it."""
    with helpers.temporary_store() as store, serving("--store", store.name, "--workers", "2") as server:
        yield store, server.url


@pytest.fixture
def store(served: tuple[Store, str]) -> Store:
    """Empty."""
    store = served[0]
    store.clear()
    return store


@pytest.fixture
def page(driver: Any, served: tuple[Store, str]) -> Page:
    """Not yet loaded, so that a test puts into the store first what it wants to see."""
    screen(driver, 1280, 900)
    return Page(driver, served[1])


@pytest.fixture
def fresh(driver: Any) -> Iterator[tuple[Page, Store]]:
    """Of a server that has made no report yet: a report of an earlier test is as good for ten seconds."""
    screen(driver, 1280, 900)
    with helpers.temporary_store() as store, serving("--store", store.name) as server:
        yield Page(driver, server.url), store
        driver.get("about:blank")


# ---- Figures -------------------------------------------------------------------------------


def test_figures_move_when_another_process_writes(page: Page, store: Store) -> None:
    page.load()
    assert page.text("items-figure") == "0"
    helpers.run_python(WRITE, store.name, "1234", "0")
    page.until(lambda: page.text("items-figure") == "1,234", "the items of the other process")
    page.until(lambda: float(page.texts("#counts dd")[2].replace(",", "")) >= 1234, "its puts")


def test_rates_count_every_process(page: Page, store: Store) -> None:
    page.load()
    process = helpers.start_python(WRITE, store.name, "2000", "0.002")
    page.until(lambda: page.text("operations-figure") not in ("0", NOT_KNOWN), "a rate")
    page.until(lambda: "100 %" in page.text("hits-figure"), "a hit rate")
    helpers.finish(process)
    page.until(lambda: page.text("operations-figure") == "0", "a rate of 0")


def test_charts_draw_points_and_tell_the_value_pointed_at(page: Page, store: Store) -> None:
    page.load()
    line = "return document.querySelector(arguments[0]).getAttribute('d').split('L').length"
    page.until(lambda: page.script(line, "#items-chart .line") >= 3, "three points of items")
    page.until(lambda: page.script(line, "#operations-chart .line.second") >= 3, "three points of writes")
    assert len(page.texts("#memory-chart text")) >= 6, "an axis has labels"
    assert page.texts("#hits-chart text")[:3] == ["0 %", "50 %", "100 %"]

    chart = page.find("memory-chart")
    ActionChains(page.driver).move_to_element_with_offset(chart, -60, 0).perform()
    page.until(lambda: page.texts("#memory-chart .cursor, #memory-chart .dot") == ["", ""], "a mark where it points")
    assert "ago" in page.texts("#charts .under")[1]
    ActionChains(page.driver).move_to_element(page.find("name")).perform()
    page.until(lambda: not page.all("#charts .dot"), "no mark")

    page.script("arguments[0].focus()", chart)
    ActionChains(page.driver).send_keys(Keys.ARROW_LEFT).perform()
    assert "ago" in str(chart.get_attribute("aria-valuetext"))
    ActionChains(page.driver).send_keys(Keys.ESCAPE).perform()
    assert "ago" not in str(chart.get_attribute("aria-valuetext"))


def test_lists_processes_and_the_largest_and_the_expiring_keys(fresh: tuple[Page, Store]) -> None:
    page, store = fresh
    store.put("large", b"x" * 100_000)
    store.put("small", b"x")
    store.put("soon", 1, ttl=300)
    store.put("sooner", 1, ttl=8)
    page.load()
    page.until(lambda: "large" in page.texts("#largest .key"), "the largest key")
    assert page.texts("#largest .key")[0] == "large"
    assert page.texts("#largest td")[1] == "97.7 KiB"
    assert page.texts("#expiring .key") == ["sooner", "soon"]
    assert page.texts("#expiring td")[3].startswith("4 min")
    pids = {str(process.pid) for process in store.processes()}
    assert set(page.texts("#processes td:first-child")) == pids
    page.until(lambda: page.texts("#expiring .key") == ["soon"], "the end of a key that has expired")
    page.show("soon", "#expiring")
    assert page.view("text") == "1"
    page.close()


def test_asks_nothing_while_nobody_looks(page: Page, store: Store) -> None:
    page.load()
    hide = (
        "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    asked = "return performance.getEntriesByType('resource').filter((e) => e.name.endsWith('/stats')).length"
    page.script(hide, True)
    time.sleep(1)  # for what is on its way
    before = page.script(asked)
    time.sleep(2.5)
    assert page.script(asked) == before
    page.script(hide, False)
    page.until(lambda: page.script(asked) >= before + 2, "polls")


def test_says_that_the_server_is_away_and_recovers(driver: Any) -> None:
    with helpers.temporary_store() as store:
        with serving("--store", store.name) as server:
            page = Page(driver, server.url)
            page.load()
        page.until(lambda: page.text("state") == "Away" and "does not answer" in page.text("alert"), "an error")
        with serving("--store", store.name, "--port", server.url.rpartition(":")[2]):
            page.until(lambda: page.text("state") == "Live" and not page.text("alert"), "the recovery")
            driver.get("about:blank")


# ---- Keys and values -----------------------------------------------------------------------


def test_finds_keys_by_prefix_a_page_at_a_time(page: Page, store: Store) -> None:
    store.update({f"a:{n:04d}": n for n in range(300)})
    store.update({f"b:{n}": n for n in range(3)})
    page.load()
    page.search("b:")
    assert page.keys() == ["b:0", "b:1", "b:2"]
    assert page.text("found") == "3"
    page.search("a:")
    first = len(page.keys())
    assert 50 <= first < 300
    while page.find("more").is_displayed():
        before = len(page.keys())
        page.find("more").click()
        page.until(lambda before=before: len(page.keys()) > before or not page.find("more").is_displayed(), "a page")  # type: ignore[misc]
    assert sorted(page.keys()) == [f"a:{n:04d}" for n in range(300)]
    page.search("nothing begins so")
    assert page.keys() == []


def test_shows_a_value_as_text_as_json_and_in_hex(page: Page, store: Store) -> None:
    store.put("k", '{"number":12345678901234567890,"list":[1,{}],"text":"a\\"b"}', ttl=500)
    page.load()
    page.show("k")
    assert page.view("text") == '{"number":12345678901234567890,"list":[1,{}],"text":"a\\"b"}'
    laid_out = '{\n  "number": 12345678901234567890,\n  "list": [\n    1,\n    {}\n  ],\n  "text": "a\\"b"\n}'
    assert page.view("json") == laid_out, "a number of any size stays as it was written"
    assert (
        page.view("hex").splitlines()[0]
        == '00000000  7b 22 6e 75 6d 62 65 72 22 3a 31 32 33 34 35 36  {"number":123456'
    )
    facts = page.text("facts")
    assert "str" in facts
    assert "text/plain" in facts
    assert "59 B" in facts
    assert "expires in 8 min" in facts
    page.close()


VALUES: list[tuple[str, Any, str, str]] = [
    # key, value, the view that opens, what it shows
    ("plain", "Grüße", "text", "Grüße"),
    ("structure", {"a": [1, 2]}, "json", '{\n  "a": [\n    1,\n    2\n  ]\n}'),
    ("binary", b"\xff\x00\x01", "hex", "00000000  ff 00 01                                         ···"),
    ("empty value", b"", "text", ""),
    ("whole", 2**63 - 1, "json", "9223372036854775807"),
    ("", "of the empty key", "text", "of the empty key"),
    (".", "of a dot", "text", "of a dot"),
    ("..", "of two dots", "text", "of two dots"),
    ("a/b?c#d%2e&é\u2028", "of an awkward key", "text", "of an awkward key"),
    ("k/incr", "not a counter", "text", "not a counter"),
]


def test_shows_values_of_every_kind(page: Page, store: Store) -> None:
    store.update({key: value for key, value, _, _ in VALUES})
    page.load()
    names = {"": "(the empty key)", VALUES[8][0]: "a/b?c#d%2e&é\\u2028"}
    for key, _, view, text in VALUES:
        page.show(names.get(key, key))
        assert page.script("return document.querySelector('input[name=view]:checked').value") == view, key
        assert page.text("value") == text, key
        page.close()


def test_shows_what_has_no_json_as_python_writes_it(page: Page, store: Store) -> None:
    store.put("tuple", (1, {2}, None))
    page.load()
    page.show("tuple")
    assert page.script("return document.querySelector('input[name=view]:checked').value") == "text"
    assert page.text("value") == "(1, {2}, None)"
    assert page.text("value-note") == "As Python writes it."
    form = json.loads(page.view("json"))["items"][0]
    assert (form["key"], form["python"]) == ("tuple", "(1, {2}, None)")
    assert "safe" in form
    page.close()


UNSEEN_KEYS = {
    "   ": "\u2423\u2423\u2423",
    " before": "\u2423before",
    "after ": "after\u2423",
    "in the middle": "in the middle",
    "\t": "\\u0009",
    "no\u00a0break": "no\\u00a0break",
    "\u3164": "\\u3164",
    "\u2423": "\\u2423",
    "\u202eback": "\\u202eback",
    "tag\U000e0041": "tag\\u{e0041}",
}


def test_every_key_is_seen_in_the_list_and_in_the_question(page: Page, store: Store) -> None:
    store.update(dict.fromkeys(UNSEEN_KEYS, 1))
    page.load()
    assert sorted(page.keys()) == sorted(UNSEEN_KEYS.values())
    for key, shown in UNSEEN_KEYS.items():
        page.show(shown)
        page.find("delete").click()
        assert page.text("question-key") == shown
        assert page.script("return document.getElementById('question-key').getBoundingClientRect().width") > 4
        page.find("yes").click()
        page.until(lambda: not page.find("sheet").is_displayed(), "the deletion")
        assert key not in store
    assert page.script("return document.querySelectorAll('#question-key .mark').length") == 1


def test_a_store_that_is_nearly_full_is_not_green(driver: Any) -> None:
    with helpers.temporary_store(size="4MiB") as store, serving("--store", store.name) as server:
        page = Page(driver, server.url)
        page.load()
        helpers.fill_up(store)
        page.until(lambda: "% full" in page.text("state"), "the warning")
        assert page.find("state").get_attribute("data-is") == "full"
        assert 'on_full="error"' in page.text("alert")
        page.until(lambda: page.texts("#prefixes .key") == ["fill:"], "who fills it")
        store.clear()
        page.until(lambda: page.text("state") == "Live" and not page.text("alert"), "the end of the warning")
        driver.get("about:blank")


def test_a_full_cache_is_green(driver: Any) -> None:
    with helpers.temporary_store(size="4MiB", on_full="evict") as store, serving("--store", store.name) as server:
        for n in range(8_000):
            store.put(f"fill:{n}", b"x" * 1000)
        page = Page(driver, server.url)
        page.load()
        assert page.text("state") == "Live"
        assert "evicted in all" in page.text("evicted")
        driver.get("about:blank")


def test_charts_begin_with_what_the_server_has_kept(driver: Any) -> None:
    with helpers.temporary_store() as store, serving("--store", store.name, "--workers", "2") as server:
        helpers.wait_until(lambda: len(server.http.get("/history").json()["points"]) >= 3, 60, "three points")
        page = Page(driver, server.url)
        page.load()
        points = "return document.querySelector('#items-chart .line').getAttribute('d').split('L').length"
        page.until(lambda: page.script(points) >= 3, "the points of before")
        page.script("document.querySelector('input[name=window][value=\"3600\"]').click()")
        page.until(lambda: "1 h ago" in page.texts("#items-chart text"), "the hour")
        driver.get("about:blank")


def test_keys_come_before_all_but_the_charts(page: Page, store: Store) -> None:
    page.load()
    tops = "return ['charts', 'browser-title', 'counts', 'prefixes'].map((id) => document.getElementById(id)"
    places = page.script(tops + ".getBoundingClientRect().top)")
    assert places == sorted(places)
    assert places[1] < 700


def test_shows_and_deletes_a_key_of_bytes(page: Page, store: Store) -> None:
    store.put(b"\xff\x01", 2**60 + 1, ttl=100)
    store.put(b"text", b"\x01")
    page.load()
    page.show("bytes: ff 01")
    assert page.view("text") == str(2**60 + 1)
    assert str(2**60 + 1) in page.view("json")
    page.find("delete").click()
    assert "whatever its value is" in page.text("question-detail")
    page.find("yes").click()
    page.until(lambda: page.keys() == ["bytes: text"], "the deletion")
    assert b"\xff\x01" not in store
    page.show("bytes: text")
    assert page.view("hex").startswith("00000000  01 ")
    page.close()


def test_shows_the_beginning_of_a_long_value(page: Page, store: Store) -> None:
    store.put("long", "abcdefgh" * (3 << 16))
    page.load()
    page.show("long")
    assert page.text("value") == "abcdefgh" * (SHOWN_BYTES // 8)
    assert page.text("value-note") == "The first 64 KiB of 1.5 MiB."
    assert len(page.view("hex").splitlines()) == SHOWN_BYTES // 16
    page.close()


def test_deletes_only_after_a_yes(page: Page, store: Store) -> None:
    store.update({"keep": 1, "drop": 2})
    page.load()
    page.show("drop")
    page.find("delete").click()
    assert page.text("question-key") == "drop"
    assert page.script("return document.activeElement.id") == "no", "Enter deletes nothing by mistake"
    page.find("no").click()
    assert store["drop"] == 2
    page.find("delete").click()
    ActionChains(page.driver).send_keys(Keys.ESCAPE).perform()
    page.until(lambda: not page.find("question").is_displayed(), "the question's end")
    assert store["drop"] == 2
    page.find("delete").click()
    page.find("yes").click()
    page.until(lambda: page.keys() == ["keep"], "the deletion")
    assert dict(store) == {"keep": 1}


def test_deletes_only_the_version_that_is_shown(page: Page, store: Store) -> None:
    store["k"] = "old"
    page.load()
    page.show("k")
    store["k"] = "new"
    page.find("delete").click()
    page.find("yes").click()
    page.until(lambda: "has changed" in page.text("value-note"), "the refusal")
    assert store["k"] == "new"
    page.find("reload").click()
    page.until(lambda: page.text("value") == "new", "the new value")
    page.close()


# ---- What must not happen ------------------------------------------------------------------


def test_what_comes_from_the_store_is_never_markup(fresh: tuple[Page, Store]) -> None:
    page, store = fresh
    key = MARKUP.format("key")
    store.put(key, MARKUP.format("value"), ttl=900)
    store.put("typed" + key, MARKUP.format("typed").encode(), content_type="text/html")
    store.put(MARKUP.format("bytes").encode(), (MARKUP.format("tuple"),))
    page.load()
    page.until(lambda: key in page.texts("#largest .key") and key in page.texts("#expiring .key"), "the report")
    for name in sorted(page.keys()):
        page.show(name)
        for view in ("text", "json", "hex"):
            page.view(view)
        page.find("delete").click()
        assert page.text("question-key") == name
        page.find("no").click()
        page.close()
    page.show(key)
    assert page.text("value") == MARKUP.format("value")
    page.close()
    page.search("<img")
    assert page.all("img") == []
    assert page.script("return window.hurt") is None


def test_no_page_can_make_markup_of_text(page: Page, store: Store) -> None:
    for name in ("status.html", "docs.html"):
        assert not re.search(MARKUP_MAKERS, (PAGES / name).read_text())
    for path in ("/", "/docs"):
        page.open(path)
        with pytest.raises(JavascriptException, match="TrustedHTML"):
            page.script("document.body.innerHTML = '<p>'")


def test_asks_no_other_host(page: Page, store: Store) -> None:
    store["k"] = 1
    page.driver.get("about:blank")
    for log in ("performance", "browser"):
        page.driver.get_log(log)  # of earlier tests
    page.open("/docs")
    page.until(lambda: page.all("article"), "the API")
    page.load()
    page.show("k")
    page.close()
    messages = [json.loads(entry["message"])["message"] for entry in page.driver.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert len(asked) > 5
    strange = [url for url in asked if not url.startswith((page.address + "/", "data:"))]
    assert strange == []
    assert page.driver.get_log("browser") == [], "the browser has nothing to complain of"


# ---- The token -----------------------------------------------------------------------------


def test_asks_for_the_token_and_keeps_it_for_the_tab(driver: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    (tmp_path / "token").chmod(0o600)
    with (
        helpers.temporary_store() as store,
        serving("--store", store.name, "--token-file", str(tmp_path / "token")) as server,
    ):
        store["k"] = "secret"
        page = Page(driver, server.url)
        page.open()
        page.until(lambda: page.find("locked").is_displayed(), "the question for the token")
        assert not page.find("main").is_displayed()
        enter_token(page, "wrong")
        page.until(lambda: "refused" in page.text("locked-why"), "the refusal")
        enter_token(page, TOKEN)
        page.until(lambda: page.text("state") == "Live" and page.keys() == ["k"], "the figures")
        page.show("k")
        assert page.text("value") == "secret"
        page.close()
        driver.refresh()
        page.until(lambda: page.text("state") == "Live", "the figures without another question")
        driver.get(server.url + "/docs")
        page.until(
            lambda: "$TOKEN" in page.texts(".curl pre")[0] if page.all(".curl") else False, "a curl with a token"
        )
        driver.get(server.url)
        page.until(lambda: page.find("forget").is_displayed(), "the way out")
        page.find("forget").click()
        page.until(lambda: page.find("locked").is_displayed(), "the question again")
        assert page.script("return sessionStorage.length") == 0
        driver.get("about:blank")


def enter_token(page: Page, token: str) -> None:
    page.until(lambda: page.find("token").is_displayed(), "the field")
    page.find("token").send_keys(token + Keys.ENTER)


# ---- How it looks --------------------------------------------------------------------------


def test_fits_a_phone(page: Page, store: Store) -> None:
    store.put("long key " + "x" * 900, "y" * 5_000, ttl=900)
    store.put("large", b"\xff" * 50_000)
    screen(page.driver, 360, 740, touch=True)
    page.load()
    page.until(lambda: page.all("#items-chart .line"), "the charts")
    assert page.script("return innerWidth") == 360
    assert page.script("return document.querySelector('#browser .key').parentElement.clientWidth") >= 100
    assert not page.overflows()
    page.show("large")
    assert not page.overflows()
    widths = "const e = document.getElementById('sheet'); return [e.scrollWidth, e.clientWidth]"
    for view in ("text", "json", "hex"):
        page.view(view)
        content, room = page.script(widths)
        assert content <= room, view
    page.close()
    page.open("/docs")
    page.until(lambda: page.all("article"), "the API")
    assert not page.overflows()


HEADS_AND_CELLS = """
return [...document.getElementById(arguments[0]).closest('table').querySelectorAll('th:last-of-type')]
  .map((head) => head.closest('table').getBoundingClientRect().right - head.getBoundingClientRect().right);
"""


def test_an_empty_table_has_its_columns_where_a_full_one_has_them(fresh: tuple[Page, Store]) -> None:
    page, _ = fresh
    page.load()
    page.until(lambda: page.texts("#expiring td") == ["No key expires."], "the report")
    for table in ("prefixes", "largest", "expiring"):
        assert page.script(HEADS_AND_CELLS, table) == [0], table


OVERLAPS = """
const boxes = [...document.querySelectorAll(arguments[0])].map((text) => text.getBoundingClientRect());
return boxes.some((one, at) => boxes.slice(at + 1).some((other) => one.left < other.right && other.left < one.right
  && one.top < other.bottom && other.top < one.bottom));
"""


@pytest.mark.parametrize("width", [320, 360, 390])
def test_prefixes_and_charts_can_be_read_on_a_small_phone(fresh: tuple[Page, Store], width: int) -> None:
    page, store = fresh
    store.put("session:user:1", b"x" * 2_500_000, ttl=900)
    screen(page.driver, width, 700, touch=True)
    page.load()
    page.until(lambda: page.texts("#prefixes .key") == ["session:"], "the report")
    lines = "const e = document.querySelector('#prefixes .key'); return e.getClientRects().length"
    assert page.script(lines) == 1, "a prefix of eight letters is not broken"
    for window in ("300", "3600"):
        page.script(f"document.querySelector('input[name=window][value=\"{window}\"]').click()")
        for chart in ("items", "memory", "operations", "hits"):
            assert not page.script(OVERLAPS, f"#{chart}-chart text"), (chart, window)
    assert not page.overflows()


COLOURS = """
const of = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
return Object.fromEntries(arguments[0].map((name) => [name, of(name)]));
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_has_contrast_in_the_light_and_in_the_dark(page: Page, store: Store, dark: bool) -> None:
    screen(page.driver, 1280, 900, dark=dark)
    for path, inks in (
        ("/", ("text", "quiet", "first", "second", "bad")),
        ("/docs", ("text", "quiet", "get", "post", "put", "delete")),
    ):
        page.open(path)
        colours = page.script(COLOURS, [f"--{name}" for name in (*inks, "ground", "card")])
        for ink in inks:
            for paper in ("ground", "card"):
                assert contrast(colours[f"--{ink}"], colours[f"--{paper}"]) >= 4.5, f"{ink} on {paper}"
        background = page.script("return getComputedStyle(document.documentElement).backgroundColor")
        lightness = sum(map(int, re.findall(r"\d+", background)[:3])) / 3
        assert (lightness < 60) == dark


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, of two colours as #rrggbb or #rgb."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_every_control_has_a_name_and_is_reached_by_keyboard(page: Page, store: Store) -> None:
    store["k"] = 1
    page.load()
    for element in page.all("main button, main input, main svg, main table, main section"):
        if element.is_displayed() and element.get_attribute("id") != "charts":
            assert element.accessible_name, element.get_attribute("outerHTML")
    page.script("document.querySelector('#browser .key').focus()")
    ActionChains(page.driver).send_keys(Keys.ENTER).perform()
    page.until(lambda: page.text("value") == "1", "the value")
    ActionChains(page.driver).send_keys(Keys.ESCAPE).perform()
    page.until(lambda: not page.find("sheet").is_displayed(), "the sheet's end")
    assert page.script("return document.activeElement.textContent") == "k", "focus is back where it was"


def test_moves_nothing_for_who_does_not_want_it(page: Page, store: Store) -> None:
    store["k"] = 1
    page.load()
    for wish, moves in (("no-preference", True), ("reduce", False)):
        feature = {"name": "prefers-reduced-motion", "value": wish}
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        page.show("k")
        name = page.script("return getComputedStyle(document.getElementById('sheet')).animationName")
        assert (name != "none") == moves
        page.close()


# ---- Other stores, and the API --------------------------------------------------------------


def test_a_durable_store_is_called_by_its_folder(driver: Any, tmp_path: Path) -> None:
    with serving("--path", str(tmp_path / "shop")) as server:
        page = Page(driver, server.url)
        page.load()
        assert page.text("name") == str(tmp_path / "shop")
        assert page.text("about").startswith("on disk")
        driver.get("about:blank")


def test_a_datastore_is_browsed_without_figures(driver: Any, tmp_path: Path) -> None:
    with DataStore(tmp_path / "notes") as data:
        data.create("a1", {"text": MARKUP.format("record")})
        data.create("a2", {"n": 12345678901234567890})
        data.create("b1", {})
    with serving("--datastore", str(tmp_path / "notes")) as server:
        page = Page(driver, server.url)
        page.load()
        assert "DataStore" in page.text("no-figures")
        assert not page.find("charts").is_displayed()
        page.search("a")
        assert page.keys() == ["a1", "a2"]
        page.show("a2")
        assert page.view("json") == '{\n  "n": 12345678901234567890\n}'
        page.find("delete").click()
        page.find("yes").click()
        page.until(lambda: page.keys() == ["a1"], "the deletion")
        page.show("a1")
        assert MARKUP.format("record").replace('"', '\\"') in page.view("text")
        assert page.script("return window.hurt") is None
        driver.get("about:blank")


def test_the_api_page_lists_every_operation(page: Page, store: Store) -> None:
    with urllib.request.urlopen(page.address + "/openapi.json") as answer:
        paths = json.load(answer)["paths"]
    page.open("/docs")
    page.until(lambda: page.all("article"), "the API")
    listed = page.script(
        "return [...document.querySelectorAll('article h2')].map((h) => [...h.childNodes].map((n) => n.textContent))"
    )
    assert sorted((path, method.lower()) for method, path in listed) == sorted(
        (path, method) for path, methods in paths.items() for method in methods
    )
    for article in page.all("article"):
        path = str(article.get_attribute("data-path"))
        line = article.find_element(By.CSS_SELECTOR, ".curl pre").text
        assert f"'{page.address}{path.replace('{key}', 'KEY')}" in line
        told = {code.text for code in article.find_elements(By.CSS_SELECTOR, "th code")}
        assert told >= set(paths[path][article_method(article)]["responses"])


def article_method(article: WebElement) -> str:
    return article.find_element(By.CSS_SELECTOR, ".method").text.lower()


def test_a_curl_line_is_copied(page: Page, store: Store) -> None:
    page.open("/docs")
    page.until(lambda: page.all("article"), "the API")
    page.driver.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    page.all(".curl button")[0].click()
    page.until(lambda: page.texts(".curl button")[0] in ("Copied", "Selected"), "the copy")
    assert page.texts(".curl button")[0] == "Copied"
