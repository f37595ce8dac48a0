"""The benchmark of the server under load: its clients against a real server, and its statistics."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web

from manylens.errors import DataError
from servers.loopback import LoopbackServer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # The benchmarks are no part of the package.

from benchmarks.load import figures, render  # noqa: E402
from benchmarks.load.catalogue import SERVERS  # noqa: E402
from benchmarks.load.connection import BROKEN, TIMEOUT, UNSENT, Answer, Client, post, rerank  # noqa: E402
from benchmarks.load.loops import arrivals, closed_loop, open_loop, percentile, window  # noqa: E402
from benchmarks.load.mischief import mixture  # noqa: E402
from benchmarks.load.process import Process, ServerError, free_port  # noqa: E402
from benchmarks.load.result import Measured, Result, Soak, Window  # noqa: E402
from benchmarks.load.traffic import Traffic  # noqa: E402
from benchmarks.serving.workload import pairs  # noqa: E402

PATH = "/v1/chat/completions"


class Obedient(LoopbackServer):
    """Answers what the body asks for: a status, after some seconds, with or without an end of the connection."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, object]] = []
        self.connections: set[object] = set()

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].split("/")[0])

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.connections.add(request.transport)
        await asyncio.sleep(body.get("seconds", 0))
        assert request.transport is not None
        if body.get("break"):
            request.transport.close()
        response = web.Response(status=body.get("status", 200), text="x" * 100_000)
        if body.get("close"):
            response.force_close()
        return response


def asking(**body: object) -> bytes:
    return post(PATH, json.dumps(body).encode())


def test_a_closed_loop_counts_every_answer_by_its_status() -> None:
    requests = itertools.cycle([asking(seconds=0.02), asking(status=429), asking(status=503, close=True)])
    with Obedient() as server:
        found = asyncio.run(closed_loop(server.port, requests, clients=3, seconds=0.3, timeout=5))
    assert found.sent == len(server.bodies) and set(found.statuses) == {"200", "429", "503"}
    assert found.p50 is not None and 0.02 <= found.p50 < 0.3
    assert 0.3 <= found.seconds < 1 and found.rate == pytest.approx(found.accepted / found.seconds)
    assert 0 < found.client <= 1.1
    assert len(server.connections) > 3  # One that was closed is made again.


def test_a_closed_loop_waits_for_what_it_began_and_keeps_its_connections() -> None:
    with Obedient() as server:
        requests = itertools.repeat(asking(seconds=0.2))
        found = asyncio.run(closed_loop(server.port, requests, clients=4, seconds=0.1, timeout=5))
    assert found.statuses == {"200": 4} and found.seconds >= 0.2 and len(server.connections) == 4


def test_what_is_not_answered_is_said() -> None:
    async def ask(port: int, request: bytes) -> str:
        client = Client(port, 0.2)
        answer = await client.ask(request)
        client.close()
        return answer.status

    with Obedient() as server:
        assert asyncio.run(ask(server.port, asking(seconds=5))) == TIMEOUT
        assert asyncio.run(ask(server.port, asking(**{"break": True}))) == BROKEN
    assert asyncio.run(ask(free_port(), asking())) == BROKEN


def test_an_open_loop_sends_at_its_times_and_no_more_than_it_may() -> None:
    times = [0.0, 0.05, 0.1, 0.15]
    with Obedient() as server:
        slow = itertools.repeat(asking(seconds=0.4))
        found = asyncio.run(open_loop(server.port, slow, times, timeout=5, most=3))
        assert found.statuses == {"200": 3, UNSENT: 1} and 0.5 <= found.seconds < 1.5
        late = asyncio.run(open_loop(server.port, itertools.repeat(asking(seconds=0.5)), times, timeout=0.2))
    assert late.statuses == {TIMEOUT: 4} and late.p50 is None and late.rate == 0


def test_arrivals_are_a_poisson_process_and_the_same_for_the_same_seed() -> None:
    times = arrivals(200.0, 10.0, seed=3)
    assert times == sorted(times) == arrivals(200.0, 10.0, seed=3) != arrivals(200.0, 10.0, seed=4)
    assert len(times) == pytest.approx(2000, abs=150) and times[0] > 0 and times[-1] < 10
    gaps = [after - before for before, after in itertools.pairwise(times)]
    # Of exponential gaps, exp(-1) are longer than the mean.
    assert sum(gap > 1 / 200 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.04)


def test_percentiles_are_values_that_were_measured() -> None:
    hundred = [float(number) for number in range(1, 101)]
    assert [percentile(hundred, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert percentile([7.0], 0.99) == 7.0 and percentile([1.0, 2.0, 3.0], 0.5) == 2.0
    assert percentile([], 0.5) is None


def test_only_what_was_accepted_has_a_time() -> None:
    answers = [Answer("200", 0.3), Answer("429", 0.001), Answer("200", 0.1), Answer("200", 0.2)]
    found = window(answers, seconds=2.0, spent=0.5)
    assert found == Window(seconds=2.0, statuses={"200": 3, "429": 1}, p50=0.2, p99=0.3, client=0.25)
    assert (found.sent, found.accepted, found.rate) == (4, 3, 1.5)


def test_requests_have_their_products_and_their_first_pairs_query() -> None:
    wanted = [(f"query {number}", f"product {number}") for number in range(25)]
    traffic = Traffic.of(wanted)
    assert len(traffic.normal) == 3 and len(traffic.small) == 25
    assert traffic.normal[2] == rerank("query 20", [f"product {number % 25}" for number in range(20, 30)])
    head, _, body = traffic.small[1].partition(b"\r\n\r\n")
    assert json.loads(body) == {"query": "query 1", "documents": ["product 1"]}
    assert f"Content-Length: {len(body)}".encode() in head


def test_a_soak_sends_mischief_in_a_fixed_share_and_never_a_product_twice() -> None:
    sent = list(itertools.islice(mixture(pairs(50)), 2000))
    kinds = Counter(each.kind for each in sent)
    assert kinds.pop("10 MB") == 1 and kinds.pop("good") == 2000 - 13 * 20 - 1 and set(kinds.values()) == {20}
    products = [
        product
        for each in sent
        if each.kind == "good"
        for product in json.loads(each.request.partition(b"\r\n\r\n")[2])["documents"]
    ]
    assert len(set(products)) == len(products) > 9000


def test_a_server_is_stopped_while_nothing_is_asked_of_it_and_says_why_it_ended(tmp_path: Path) -> None:
    port = free_port()
    script = f"""
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
HTTPServer(("127.0.0.1", {port}), Handler).serve_forever()
"""
    with Process([sys.executable, "-c", script], port, tmp_path / "log", {}) as server:
        server.wait_until_ready()
        server.stop()
        with pytest.raises(ServerError, match="did not start within 0 s"):
            server.wait_until_ready(patience=0.0)
        with server.running():
            server.wait_until_ready()
        assert server.memory > 2**20
        with pytest.raises(ServerError, match="the process ended"), server.running():
            server._signal(signal.SIGKILL)
            time.sleep(0.2)
    broken = [sys.executable, "-c", "raise SystemExit('no model here')"]
    with (
        Process(broken, port, tmp_path / "log", {}) as server,
        pytest.raises(ServerError, match="did not start: no model here"),
    ):
        server.wait_until_ready()


def windows(*rates: float, p50: float = 0.1, statuses: dict[str, int] | None = None) -> tuple[Window, ...]:
    return tuple(
        Window(seconds=2.0, statuses=statuses or {"200": int(2 * rate)}, p50=p50, p99=2 * p50, client=rate / 1000)
        for rate in rates
    )


@pytest.fixture
def result() -> Result:
    """Two rounds."""
    refused = {"200": 60, "429": 30, "504": 6, "timeout": 4}
    return Result(
        command="python -m benchmarks.load",
        finished="2026-01-02T03:04:05+00:00",
        processor="Some CPU",
        cores=2,
        rounds=2,
        seconds=2.0,
        products=10,
        large=200,
        timeout=10.0,
        servers=(
            Measured(
                name="manylens_onnx_int8",
                title="manylens serve, ONNX Runtime",
                kind="ours",
                precision="int8",
                difference=0.04,
                memory=300 * 2**20,
                closed={1: windows(40, 44), 8: windows(90, 100), 64: windows(95, 95)},
                in_process={1: (100.0, 100.0), 8: (120.0, 125.0)},
                alone=windows(100, 100, p50=0.01),
                beside=windows(40, 50, p50=0.02),
                open={0.5: windows(47)[0], 4.0: windows(1, statuses=refused)[0]},
                queue_pairs=237,
            ),
            Measured(
                name="infinity_torch",
                title="infinity, its torch engine",
                kind="infinity",
                precision="fp32",
                closed={1: windows(8, 8), 8: windows(20, 25), 64: windows(20, 20)},
            ),
            Measured(
                name="infinity_onnx",
                title="infinity, its optimum engine",
                kind="infinity",
                precision="int8",
                reason="did not start: no | here",
            ),
        ),
    )


@pytest.fixture
def soaked() -> Soak:
    return Soak(
        command="python -m benchmarks.load --soak 100",
        finished="2026-01-02T03:04:05+00:00",
        processor="Some CPU",
        cores=2,
        requests=100,
        seconds=5.0,
        cache_products=20_000,
        sent={"good": 90, "malformed JSON": 10},
        unexpected={},
        every=10,
        memory=(90 * 2**20, *[100 * 2**20] * 9, 104 * 2**20),
        base=10,
    )


def test_ours_is_compared_within_rounds(result: Result) -> None:
    ours, torch, _ = result.servers
    assert figures.capacity(ours) == 95 and figures.milliseconds(ours.closed[8], "p99") == 200
    assert figures.best(result.servers, "cross_encoder") is None and figures.best(result.servers, "infinity") is torch
    assert figures.best_of_kinds(result.servers, ("ours", "infinity")) == ["manylens_onnx_int8", "infinity_torch"]
    assert render.against(result).splitlines()[2:] == [
        "| its scorer without HTTP, one request after the other | 0.95 (0.90 to 1.00) | 0.85 |",
        # 90 / 120 and 100 / 125.
        "| its scorer without HTTP, 8 requests together | 0.78 (0.75 to 0.80) | 0.85 |",
        # 90 / 20 and 100 / 25.
        "| infinity, its torch engine, fp32 | 4.25 (4.00 to 4.50) | 4.00 |",
    ]


def test_the_tables_have_medians_and_shares(result: Result) -> None:
    lines = render.closed(result).splitlines()
    assert "| **manylens serve, ONNX Runtime** | int8 | 8 | 95.0 | 950 | 100.0 | 200.0 | 0 |" in lines
    assert lines[-1] == "| infinity, its optimum engine | int8 | not run: did not start: no / here |  |  |  |  |  |"
    assert render.opened(result).splitlines()[2:] == [
        "| manylens serve, ONNX Runtime, int8 | 0.5 x | 48 | 47.0 | 0.0% | 0.0% | 0.0% | 100.0 | 200.0 |",
        "| manylens serve, ONNX Runtime, int8 | 4 x | 380 | 30.0 | 30.0% | 6.0% | 4.0% | 100.0 | 200.0 |",
    ]
    assert render.beside(result).splitlines()[-1].endswith("| 10.0 | 20.0 | 20.0 | 40.0 | 45.0 |")
    assert "0.95 (0.90 to 1.00) | 0.78 (0.75 to 0.80) | 300 | 0.040 |" in render.servers(result)
    for table in (part(result) for part in render.PARTS):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_the_memory_of_a_soak_is_that_at_the_end_over_that_after_a_tenth(soaked: Soak) -> None:
    assert soaked.growth == pytest.approx(1.04)
    lines = render.memory(soaked).splitlines()
    assert lines[2:4] == ["| 0 | 90.0 |", "| 10 | 100.0 |"] and lines[-1] == "| 100 over 10 | 1.040 |"


def test_the_page_is_what_the_stored_runs_say() -> None:
    assert render.PAGE.read_text(encoding="utf-8") == render.render(), "run: python -m benchmarks.load --render"


def test_the_page_leaves_out_what_is_not_stored(result: Result, soaked: Soak, tmp_path: Path) -> None:
    run, soak = tmp_path / "run.json", tmp_path / "soak.json"
    assert "##" not in render.render(run, soak)
    with pytest.raises(DataError, match=r"no run is stored in .*run.json; make one with"):
        Result.load(run)
    result.save(run)
    soaked.save(soak)
    assert Result.load(run) == result and Soak.load(soak) == soaked
    page = render.render(run, soak)
    assert "took 1% to 10% of one core" in page
    assert "(`--max-queue-pairs 237`" in page and "Every answer had the status" in page
    nothing = tmp_path / "nothing.json"
    assert "## Soak" not in render.render(run, nothing) and "## Open loops" not in render.render(nothing, soak)


def test_every_server_is_told_its_model_port_and_threads() -> None:
    for name, server in SERVERS.items():
        command = server.command("python", model=Path("/some/model"), port=1234, threads=2)
        assert "1234" in command and ("." if server.inside else "/some/model") in command, name
        assert not [word for word in command if "{" in word], name
        assert server.kind == "infinity" or "2" in command, name


@pytest.mark.slow
def test_a_run_and_a_soak_with_a_tiny_student(models: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from benchmarks.load.measure import Plan, run
    from benchmarks.load.soak import soak

    plan = Plan(names=["manylens_onnx_fp32", "infinity_torch"], clients=[1, 4], rounds=2, seconds=0.3, open_seconds=0.5)
    found = run(plan, folder=tmp_path / "models", scored=pairs(40), backbone=str(models / "backbone"))
    ours, infinity = found.servers
    assert ours.reason == "" and ours.difference == 0.0 and ours.memory > 2**20
    assert infinity.reason == "not installed; run: python -m benchmarks.load --prepare" and not infinity.closed
    for clients in (1, 4):
        assert len(ours.closed[clients]) == 2 and all(each.statuses.keys() == {"200"} for each in ours.closed[clients])
    assert set(ours.in_process) == {1, 8} and all(min(rates) > 0 for rates in ours.in_process.values())
    assert len(ours.alone) == len(ours.beside) == 2 and list(ours.open) == [0.5, 1.0, 2.0, 4.0]
    assert ours.queue_pairs >= 10 and all(each.accepted for each in ours.open.values())

    soaked = soak(200, folder=tmp_path / "models")
    assert sum(soaked.sent.values()) == 200 and soaked.unexpected == {} and len(soaked.memory) == 11
