"""What docs/server.md says is so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
from fastapi.testclient import TestClient

from manylens.cli import app
from manylens.serving.http.errors import ERROR_TYPES
from serving.http.conftest import Serve

PAGE = (Path(__file__).parents[3] / "docs/server.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"`POST (\S+)`\n\n```json\n(.*?)```\n\n```json\n(.*?)```", PAGE, flags=re.DOTALL)


def shape(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return the keys and types of some JSON."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    return [shape(inner) for inner in value] if isinstance(value, list) else type(value).__name__


@pytest.fixture(scope="module")
def rows() -> list[list[str]]:
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in PAGE.splitlines() if line[:1] == "|"]


@pytest.mark.parametrize(("path", "request_body", "answer"), EXAMPLES, ids=lambda text: text[:12])
def test_every_example_is_answered_in_its_shape(serve: Serve, path: str, request_body: str, answer: str) -> None:
    from_server = serve(models={"shop": serve().app.state.models.settings.models["tiny"]}).post(  # type: ignore[attr-defined]
        path, content=request_body
    )
    assert from_server.status_code == 200
    assert shape(from_server.json()) == shape(json.loads(answer))


def test_there_are_examples() -> None:
    assert [path for path, _, _ in EXAMPLES] == ["/rerank", "/v2/rerank", "/predict", "/predict"]


def test_the_table_of_flags_is_the_command_line(rows: list[list[str]]) -> None:
    command = dict(typer.main.get_command(app).commands.items())["serve"]  # type: ignore[attr-defined]
    flags = {}
    for option in command.params:
        assert option.envvar == f"MANYLENS_{option.name.upper()}"
        if option.param_type_name == "option":
            name = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
            default = "" if option.default is None else f"`{option.default}`"
            flags[name] = [f"`{option.envvar}`", default, option.help]
    assert {row[0]: row[1:] for row in rows if row[0].startswith("`--")} == flags


def test_the_table_of_errors_is_what_the_code_has(rows: list[list[str]]) -> None:
    table = {int(status): row[1] for row in rows if row[0][:1].isdigit() for status in row[0].split(",")}
    assert table == {**ERROR_TYPES, 500: "Internal"}


def test_the_table_of_metrics_is_what_the_server_has(client: TestClient, rows: list[list[str]]) -> None:
    client.post("/rerank", json={"query": "a", "texts": ["b"]})
    text = client.get("/metrics").text
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, flags=re.MULTILINE))
    families = {name for name, kind in kinds.items() if not name.endswith("_created")}
    table = {row[0].strip("`"): row[1] for row in rows if row[0].startswith("`manylens_")}
    assert set(table) == families
    for name, labels in table.items():
        for found in re.findall(rf"^{name}(?:_count|_bucket|_sum)?{{(.*?)}}", text, flags=re.MULTILINE):
            assert set(re.findall(r"(\w+)=", found)) - {"le"} == set(re.findall(r"`(\w+)`", labels)), name


def test_every_route_is_named(client: TestClient) -> None:
    for path in client.get("/openapi.json").json()["paths"]:
        assert f"{path}`" in PAGE, path
