"""The deployment examples fit the server that they start."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from manylens.cli import app

DEPLOY = Path(__file__).parents[1] / "deploy"


def variables() -> set[str]:
    """Return the environment variables that the server reads."""
    serve = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    return {str(parameter.envvar) for parameter in serve.params if parameter.envvar}


def test_the_dockerfile_passes_its_linter() -> None:
    hadolint = str(Path(sys.executable).with_name("hadolint"))
    done = subprocess.run([hadolint, str(DEPLOY / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_variable_of_the_examples_is_one_of_the_server() -> None:
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").split("ENV ")[1].split("EXPOSE")[0]
    named = {part.partition("=")[0] for part in lines.replace("\\", " ").split()}
    deployment = next(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    named |= {each["name"] for each in container["env"]}
    assert named <= variables() and {"MANYLENS_HOST", "MANYLENS_API_KEY"} <= named


def test_the_probes_ask_what_the_server_answers_without_a_key() -> None:
    deployment, service = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/ready", "readiness": "/ready", "liveness": "/health"}
    drained = 30 + 5  # --drain-s by default, and MANYLENS_DRAIN_DELAY_S of the example.
    assert pod["spec"]["terminationGracePeriodSeconds"] > drained
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not installed; the unit was not checked")
    text = (DEPLOY / "manylens.service").read_text(encoding="utf-8")
    unit = tmp_path / "manylens.service"
    unit.write_text(text.replace("/opt/manylens/bin/manylens", "/bin/true"), encoding="utf-8")
    done = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "manylens.service" not in done.stderr, done.stderr
