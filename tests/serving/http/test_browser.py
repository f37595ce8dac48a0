"""The page at /, in a real browser: Debian's chromium, which Playwright drives."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import uvicorn

from manylens.config import DemoData, ExportConfig
from manylens.data import Pairs, load_pairs
from manylens.records import ESCI
from manylens.serving.export import export_classifier
from manylens.serving.http.app import create_app
from manylens.serving.layout import Card
from manylens.student import Student
from serving.explaining import copy_with_rationales
from serving.http.conftest import make_settings
from student.build import make_encoder, make_model, make_pairs

_WHY = "the browser tests were not run: they need {}"
sync_api = pytest.importorskip("playwright.sync_api", reason=_WHY.format("the package playwright, of the extra dev"))
_CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(_CHROMIUM is None, reason=_WHY.format("chromium: apt-get install chromium"))

KEY = "s3cret"
PHONE, DESKTOP = {"width": 360, "height": 740}, {"width": 1280, "height": 900}
QUERY, PRODUCTS = "red shoe", ["blue shoe | acme", "red shoe", "green sofa", "red hat | acme | acme"]
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
Open = Callable[..., Any]


@contextmanager
def listening(*folders: Path, **changes: Any) -> Iterator[str]:  # noqa: ANN401 - any setting
    """Serve folders, and yield the address."""
    app = create_app(make_settings(*folders, **changes))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    yield f"http://{host}:{port}/"
    server.should_exit = True
    thread.join(20)


@pytest.fixture(scope="module")
def explained(exported: Path, student_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_with_rationales(exported, student_folder, tmp_path_factory.mktemp("explained"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with other weights, and without rationales."""
    student, folder = tmp_path_factory.mktemp("other"), tmp_path_factory.mktemp("run") / "export"
    make_model(5, extractor="poly", extractor_options={"codes": 3}).save_pretrained(student)
    make_encoder(max_length=48).save(student)
    loaded = Student.load(student, device="cpu")
    export_classifier(
        loaded.model,
        loaded.encoder,
        Card(labels=ESCI.names, gains=ESCI.gain_vector()),
        config=loaded.model.config.backbone_config,
        calibration=make_pairs(8),
        options=ExportConfig(variants=("onnx_fp32",), calibration_pairs=8),
        folder=folder,
    )
    return folder


@pytest.fixture(scope="module")
def address(explained: Path) -> Iterator[str]:
    with listening(explained) as address:
        yield address


@pytest.fixture(scope="module")
def two(explained: Path, other: Path) -> Iterator[str]:
    with listening(explained, other) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Open]:  # noqa: ANN401 - no types without playwright
    """Open pages; at the end nothing went to another host, and the console has no error but the expected ones."""
    contexts, hosts, errors, expected = [], set(), [], ["ERR_INTERNET_DISCONNECTED"]

    def go(address: str, *, statuses: tuple[int, ...] = (), **options: Any) -> Any:  # noqa: ANN401
        context = browser.new_context(**{"viewport": DESKTOP} | options)
        context.set_default_timeout(10_000)
        contexts.append(context)
        expected.extend(f"status of {status} " for status in statuses)
        page = context.new_page()
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        hosts.add(urlsplit(address).netloc)
        page.goto(address)
        return page

    yield go
    for context in contexts:
        context.close()
    assert len(hosts) <= 1
    assert [error for error in errors if not any(status in error for status in expected)] == []


def ask(page: Any, query: str = QUERY, products: list[str] = PRODUCTS) -> None:  # noqa: ANN401
    """Fill the form in, and rank."""
    page.get_by_label("Query", exact=True).fill(query)
    page.get_by_label("Products").fill("\n".join(products))
    page.get_by_role("button", name="Rank").click()


def titles(page: Any, column: int = 0) -> list[str]:  # noqa: ANN401
    page.locator(".column").nth(column).wait_for()
    return page.locator(".column").nth(column).locator(".title").all_text_contents()  # type: ignore[no-any-return]


def test_products_are_ranked_as_the_server_ranks_them(visit: Open, address: str) -> None:
    page = visit(address)
    ask(page)
    documents = httpx.post(f"{address}rerank", json={"query": QUERY, "documents": PRODUCTS}).json()["results"]
    assert titles(page) == [PRODUCTS[result["index"]] for result in documents]
    scores = page.locator(".score").all_inner_texts()
    assert [float(text.split()[-1]) for text in scores] == [round(result["relevance_score"], 3) for result in documents]
    assert page.locator("#status").inner_text() == f"4 products ranked for \u201c{QUERY}\u201d"
    assert [item.split("\n")[0] for item in page.locator("#legend li").all_inner_texts()] == list(ESCI.names)
    assert page.locator(".bar").first.get_attribute("aria-label").count("%") == len(ESCI.names)
    assert "ms in the server (queue" in page.locator(".latency").inner_text()
    # Markup in a text stays text.
    ask(page, "<b>hat</b>", ["<img src=x onerror=alert(1)>", json.dumps({"title": "red cup", "brand": "acme"})])
    page.get_by_text("2 products ranked for \u201c<b>hat</b>\u201d").wait_for()
    assert page.locator("#results img, #results .title b").count() == 0
    assert page.locator(".brand").inner_text() == "acme"


def test_a_link_keeps_what_was_asked(visit: Open, address: str) -> None:
    page = visit(address)
    ask(page, "\u00bf 10% & # red?", PRODUCTS)
    shown, link = titles(page), page.url
    assert parse_qs(urlsplit(link).fragment)["p"] == PRODUCTS
    assert titles(visit(link)) == shown


def test_an_explanation_is_shown_on_demand(visit: Open, address: str) -> None:
    page = visit(address)
    ask(page)
    assert page.locator(".rationale").count() == 0
    first, why = titles(page)[0], page.locator(".why").first
    why.click()
    page.locator(".rationale").first.wait_for()
    assert why.get_attribute("aria-expanded") == "true"
    said = httpx.post(f"{address}explain", json={"query": QUERY, "product": first}).json()
    panel = page.locator(".panel").first
    trained = "\u2713 like" if said["confidence"]["in_domain"] else "! unlike"
    assert trained in panel.locator(".confidence").inner_text()
    assert panel.locator("h4").all_inner_texts() == [name.replace("_", " ").capitalize() for name in said["rationales"]]
    nearest = [rationale for found in said["rationales"].values() for rationale in found]
    assert panel.locator(".text").all_text_contents() == [rationale["rationale"] for rationale in nearest]
    words = [word["text"] for part in ("query", "product") for word in said["tokens"][part]]
    assert [text.split(" (")[0] for text in panel.locator(".word").all_text_contents()] == words
    panel.locator(".word").nth(1).hover()
    assert panel.locator(".readout").inner_text().startswith(f"{words[1]} weight ")
    why.click()
    assert not panel.is_visible()


def test_two_models_are_compared(visit: Open, two: str) -> None:
    page = visit(two, statuses=(404,))
    page.locator("#models").wait_for()
    page.get_by_label("Compare with").select_option("tiny1")
    ask(page)
    left, right = titles(page), titles(page, 1)
    assert left != right
    assert sorted(left) == sorted(right)
    moves = page.locator(".column").nth(1).locator(".move").all_text_contents()
    for place, (title, move) in enumerate(zip(right, moves, strict=True)):
        up = left.index(title) - place
        assert ("the same place" if up == 0 else f"{'up' if up > 0 else 'down'} {abs(up)}") in move
    assert titles(visit(page.url), 1) == right
    # This one has no rationales, and says so.
    page.locator(".column").nth(1).locator(".why").first.click()
    page.get_by_text("No rationales were exported beside this model").wait_for()


def test_what_is_missing_is_said_at_its_field(visit: Open, address: str) -> None:
    page = visit(address, statuses=(422, 413))
    page.get_by_role("button", name="Rank").click()
    assert page.locator("#query-error").inner_text() == "Enter a query."
    assert page.locator("#products-error").inner_text() == "Enter at least one product."
    query = page.get_by_label("Query", exact=True)
    assert query.get_attribute("aria-invalid") == "true"
    assert query.evaluate("element => element === document.activeElement")
    ask(page, products=["red hat"] * 51)
    assert page.locator("#products-error").inner_text() == "The server takes at most 50 products; here are 51."
    ask(page, products=["red hat", "{red"])
    assert page.locator("#products-error").inner_text() == "Product 2 starts with { but is no JSON object."
    # What only the server can tell.
    ask(page, products=[json.dumps({"brand": "acme"})])
    page.get_by_role("alert").filter(has_text="The server cannot read this: products.0.title").wait_for()
    ask(page, products=["x" * 60_001])
    page.get_by_role("alert").filter(has_text="Too much for one request").wait_for()
    ask(page)
    assert len(titles(page)) == 4
    assert page.locator("#error").is_hidden()


def test_a_busy_server_and_a_lost_one_are_told_in_words(visit: Open, address: str) -> None:
    page = visit(address, statuses=(429, 424))
    refused = {"error": "200 pairs wait already", "error_type": "Overloaded"}
    page.route("**/predict", lambda route: route.fulfill(status=429, headers={"Retry-After": "3"}, json=refused))
    ask(page)
    page.get_by_role("alert").filter(has_text="The server is busy. Try again in 3 seconds.").wait_for()
    page.route("**/predict", lambda route: route.fulfill(status=424, json={"error": "the engine failed"}))
    ask(page)
    page.get_by_role("alert").filter(has_text="The server failed: the engine failed.").wait_for()
    page.unroute("**/predict")
    page.context.set_offline(True)
    ask(page)
    page.get_by_role("alert").filter(has_text="This device is offline.").wait_for()
    page.context.set_offline(False)
    ask(page)
    assert len(titles(page)) == 4


def test_a_key_is_asked_for_and_kept_in_the_tab(visit: Open, explained: Path) -> None:
    with listening(explained, api_key=KEY) as address:
        assert httpx.get(f"{address}info").status_code == 401
        page = visit(address, statuses=(401,))
        key = page.get_by_label("API key")
        key.wait_for()
        assert page.locator("#key-error").inner_text() == "The server wants an API key."
        assert key.evaluate("element => element === document.activeElement")
        key.fill("wrong")
        ask(page)
        page.get_by_text("The server does not take this API key.").wait_for()
        key.fill(KEY)
        ask(page)
        assert len(titles(page)) == 4
        page.reload()
        assert len(titles(page)) == 4
        assert KEY not in page.url
        assert page.evaluate("localStorage.length") == 0


def test_a_keyboard_is_enough(visit: Open, address: str) -> None:
    page = visit(address)
    page.locator(".example").first.wait_for()
    focused = "document.activeElement"
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate(f"{focused}.id") == "query":
            break
        outline = page.evaluate(f"getComputedStyle({focused}).outlineStyle")
        assert outline != "none"
    page.keyboard.type(QUERY)
    page.keyboard.press("Tab")
    for product in PRODUCTS:
        page.keyboard.type(product)
        page.keyboard.press("Enter")
    page.keyboard.press("Control+Enter")
    assert len(titles(page)) == 4
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate(f"{focused}.className") == "why":
            break
    page.keyboard.press("Enter")
    page.locator(".word").first.wait_for()
    page.keyboard.press("Tab")
    assert "word" in page.evaluate(f"{focused}.className")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(f"{focused}.firstChild.data") == "shoe"
    assert page.locator(".readout").inner_text().startswith("shoe weight ")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_it_fits_and_is_seen(visit: Open, two: str, tmp_path: Path, scheme: str, size: dict[str, int]) -> None:
    page = visit(two, viewport=size, color_scheme=scheme, reduced_motion="reduce")
    assert page.evaluate(SIDEWAYS) == 0
    page.locator("#models").wait_for()
    page.get_by_label("Compare with").select_option("tiny1")
    ask(page, "red" * 60, [*PRODUCTS, "https://example.com/" + "x" * 300])
    page.locator(".column").nth(1).wait_for()
    page.locator(".why").first.click()
    page.locator(".rationale").first.wait_for()
    assert page.evaluate(SIDEWAYS) == 0
    assert page.evaluate("getComputedStyle(document.querySelector('.primary')).transitionDuration") == "0s"
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 23)"
    assert dark == (scheme == "dark")
    picture = page.screenshot(full_page=True, path=tmp_path / f"{scheme}.png")
    assert len(picture) > 10_000


def test_examples_are_the_demo_stores(visit: Open, address: str, tmp_path: Path) -> None:
    examples = httpx.get(f"{address}page/examples.json").json()
    judged: dict[str, set[str]] = {}
    load_pairs(DemoData(), ESCI, tmp_path)
    for pair in Pairs.read(tmp_path / "pairs.parquet").split("test"):
        judged.setdefault(pair.query, set()).add(pair.title)
    for example in examples:
        assert set(example["products"]) == judged[example["query"]]
    page = visit(address)
    page.get_by_role("button", name=examples[0]["query"]).click()
    assert sorted(titles(page)) == sorted(examples[0]["products"])


def test_the_contracts_page_needs_no_other_host(visit: Open, address: str) -> None:
    page = visit(f"{address}docs")
    page.locator(".opblock").first.wait_for()


def test_the_page_confines_itself_and_can_be_left_out(explained: Path) -> None:
    with listening(explained, api_key=KEY) as address:
        answer = httpx.get(address)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "unsafe" not in policy
        assert httpx.get(f"{address}page/app.js").headers["content-type"].startswith("text/javascript")
        assert httpx.get(f"{address}page/none.js").status_code == 404
        assert httpx.get(f"{address}page/..%2fscorer.py").status_code == 404
    with listening(explained, page=False) as address:
        assert httpx.get(address).status_code == 404
        assert httpx.get(f"{address}page/app.js").status_code == 404
