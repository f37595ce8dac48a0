from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from manylens.cli import perspectives
from manylens.teacher import load_perspective
from tiny import COLOURS, TinyShop

assert perspectives  # Its commands join the application when it is imported.
Cli = Callable[..., Result]

PROPOSED = [
    {"name": "Colour first", "description": "Is it the colour?", "instruction": "Compare the colours first."},
    {"name": "Guess", "description": "Nothing at all.", "instruction": "Say what comes to mind."},
]


class Shopkeeper(BaseHTTPRequestHandler):
    """An OpenAI-compatible server: it takes everything for exact, unless a prompt tells it to compare the colours."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        system, user = (message["content"] for message in body["messages"])
        assert isinstance(self.server, Shop)
        self.server.bodies.append(body)
        if "Perspectives so far:" in system:
            text = f"Here you are.\n```json\n{json.dumps(PROPOSED)}\n```"
        else:
            query, title = (re.findall(rf"{field}: (\w+)", user)[0] for field in ("Query", "Title"))
            other = "Compare the colours" in system and query in COLOURS and query != title
            text = f"The title begins with {title}.\n\nLabel: {'substitute' if other else 'exact'}"
        answer = {
            "id": "1",
            "object": "chat.completion",
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
        }
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Stay silent."""


class Shop(ThreadingHTTPServer):
    request_queue_size = 128  # A full queue makes clients wait for a second.

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Shopkeeper)
        self.bodies: list[dict[str, Any]] = []


@pytest.fixture
def server() -> Iterator[Shop]:
    with Shop() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Path]:
    """Write the tiny shop's recipe with sections changed; no command here looks at a model's files."""
    shop = TinyShop.make(tmp_path / "shop", tmp_path / "models")

    def build(**sections: object) -> Path:
        file = tmp_path / "recipe.yaml"
        file.write_text(yaml.safe_dump({**shop.recipe(), **sections}))
        return file

    return build


def asks(server: Shop) -> dict[str, Any]:
    return {"backend": "openai", "model": "m", "base_url": f"http://127.0.0.1:{server.server_port}/v1"}


def test_propose_writes_files_and_measures_them(
    cli: Cli, recipe: Callable[..., Path], server: Shop, tmp_path: Path
) -> None:
    file = recipe(teacher={**asks(server), "structured_output": "response_format"})
    result = cli("perspectives", "propose", file, "-n", 2, "--pairs", 4, "--out", "new")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "colour_first.jinja",
        "guess.jinja",
        "proposal.json",
    ]
    assert load_perspective("new/colour_first.jinja").description == "Is it the colour?"
    first = server.bodies[0]
    assert "response_format" not in first and first["max_tokens"] >= 4096 and "propose 2 new" in str(first["messages"])
    # Dev has 16 pairs, a quarter of each label; all say exact, and the first new one finds all the substitutes.
    words = " ".join(result.stdout.split())
    assert "new/colour_first.jinja: Is it the colour?" in words
    assert "on dev: 4 queries, 16 pairs" in words
    assert "colour_first 16 0.500 4 +0.250" in words and "guess 16 0.250 0 +0.000 1.000 120" in words
    assert "(user_intent, structured_analysis, business_rules): 0.250; with all of these 0.500" in words
    assert len(server.bodies) == 1 + 16 * 5

    # What is edited is measured again, and nothing is paid for twice.
    edited = tmp_path / "new" / "guess.jinja"
    edited.write_text(edited.read_text().replace("what comes to mind", "it twice"))
    result = cli("perspectives", "measure", file, "new/colour_first.jinja", "new/guess.jinja", "--measure", 100)
    assert result.exit_code == 0, result.output
    assert "colour_first 16 0.500 4 +0.250" in " ".join(result.stdout.split())
    assert len(server.bodies) == 1 + 16 * 6
    result = cli("perspectives", "propose", file, "-n", 2, "--pairs", 4, "--out", "new")
    assert result.exit_code == 1 and "guess.jinja exists and says something else" in " ".join(result.stderr.split())
    assert len(server.bodies) == 1 + 16 * 6


def test_propose_without_measuring_asks_once(cli: Cli, recipe: Callable[..., Path], server: Shop) -> None:
    result = cli("perspectives", "propose", recipe(teacher=asks(server)), "--no-measure")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[:2] == [
        "perspectives/colour_first.jinja: Is it the colour?",
        "perspectives/guess.jinja: Nothing at all.",
    ]
    assert len(server.bodies) == 1
    assert "asked for 3, got 2; 0 without a name" in result.stderr and "perspectives/proposal.json" in result.stderr
    assert "shown: 24 train pairs, on 0 of them the panel is wrong" in " ".join(result.stderr.split())


def test_recorded_judgements_cannot_propose(cli: Cli, recipe: Callable[..., Path]) -> None:
    result = cli("perspectives", "propose", recipe())
    assert (result.exit_code, result.stdout) == (1, "")
    assert "teacher.backend: recorded judgements cannot propose anything" in " ".join(result.stderr.split())


def test_recorded_judgements_can_be_measured(cli: Cli, recipe: Callable[..., Path]) -> None:
    file = recipe(judge={"perspectives": ["business_rules"]})
    result = cli("perspectives", "measure", file, "user_intent")
    assert result.exit_code == 0, result.output
    assert "user_intent 16 1.000 4 +0.250 0.750 -" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("files", "said"),
    [(["absent.jinja"], "absent.jinja"), (["user_intnt"], "user_intent"), (["user_intent"], "name of its own")],
)
def test_a_wrong_file_is_one_line(cli: Cli, recipe: Callable[..., Path], files: list[str], said: str) -> None:
    result = cli("perspectives", "measure", recipe(), *files)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr and len([line for line in result.stderr.splitlines() if "error" in line]) == 1


def test_help_names_both_commands(cli: Cli) -> None:
    told = cli("perspectives", "--help").stdout
    assert "propose" in told and "measure" in told
