"""A run: every system in a process of its own, timed in turns."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from benchmarks.serving.catalogue import MODELS, SYSTEMS, Model
from benchmarks.serving.client import Client
from benchmarks.serving.environments import interpreter
from benchmarks.serving.floor import pair_flops
from benchmarks.serving.machine import native_bf16, processor
from benchmarks.serving.master import Master, make_master
from benchmarks.serving.result import Result, Workload
from benchmarks.serving.running import Running
from benchmarks.serving.workers.batching import load_tokenizer
from benchmarks.serving.workload import CALIBRATION_SEED, TextPair, pairs, write_pairs
from numpy.typing import NDArray
from transformers import AutoConfig

from manylens.errors import StageError
from manylens.progress import meter
from manylens.serving.engines.protocol import physical_cores

#: Pairs that int8 models are calibrated on, and pairs that outputs are compared on.
CALIBRATION, COMPARED = 300, 500
#: Products of a request, and requests of a turn.
REQUESTS = {1: 20, 10: 10, 50: 4, 100: 3}


def run(
    scored: Sequence[TextPair],
    source: str,
    *,
    names: Sequence[str],
    rounds: int,
    folder: Path,
    backbone: str = "minilm",
) -> Result:
    """Compare systems.

    Every system first does all the work untimed, and says what it makes of the first pairs. Then, in each round, they
    take turns in scoring all pairs, and in answering requests of each size. While one works the others are stopped.

    Args:
        scored: The pairs.
        source: Where they are from.
        names: Of the systems; the catalogue's first is always among them.
        rounds: How often.
        folder: Where models are made; those that are there already are taken.
        backbone: The encoder that all compute, a name for `resolve_pretrained`.

    Raises:
        StageError: If the first system cannot be run; what is wrong with another is said in the result.
    """
    calibration = pairs(CALIBRATION, CALIBRATION_SEED)
    folder.mkdir(parents=True, exist_ok=True)
    pairs_file = write_pairs(folder / "pairs.jsonl", scored)
    calibration_file = write_pairs(folder / "calibration.jsonl", calibration)
    master = make_master(folder / "master", calibration, backbone)
    running = [Running.of(name) for name in SYSTEMS if name in {*names, next(iter(SYSTEMS))}]
    _make_models(running, master, calibration_file, folder)
    peak = Client(sys.executable, "peak", folder / "peak.log")
    try:
        _load(running, master, pairs_file, folder)
        _compare(running, min(COMPARED, len(scored)))
        peaks = _time(running, peak, rounds)
    finally:
        for each in (peak, *running):
            each.close()
    return Result(
        command=shlex.join(["python", "-m", "benchmarks.serving", *sys.argv[1:]]),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        processor=processor(),
        cores=physical_cores(),
        native_bf16=native_bf16(),
        workload=_workload(scored, source, master),
        rounds=rounds,
        peaks={precision: tuple(each[precision] for each in peaks) for precision in peaks[0]},
        systems=tuple(each.result() for each in running),
    )


def _make_models(running: Sequence[Running], master: Master, calibration: Path, folder: Path) -> None:
    """Make the models that are wanted and not there; a system whose model cannot be made is out."""
    wanted = sorted({each.system.model for each in running if not each.measured.reason} - {""})
    with meter("making models", total=len(wanted)) as progress:
        for name in wanted:
            progress.note(name)
            try:
                make_model(MODELS[name], master, calibration, folder / name)
            except StageError as error:
                for each in running:
                    if each.system.model == name:
                        each.give_up(str(error))
            progress.advance()


def make_model(model: Model, master: Master, calibration: Path, made: Path) -> None:
    """Make a model that systems share, unless it is there.

    Args:
        model: Its entry of a catalogue.
        master: What it is made from.
        calibration: Pairs that int8 models are calibrated on.
        made: Its folder.

    Raises:
        StageError: If it cannot be made.
    """
    if made.exists():
        return
    unfinished = made.with_name(f"{made.name}.unfinished")
    unfinished.mkdir(exist_ok=True)
    with Client(interpreter(model.environment), model.module, made.with_name(f"{made.name}.making.log")) as client:
        client.ask(
            "prepare",
            master=str(master.one if model.one_logit else master.labels),
            folder=str(unfinished),
            calibration=str(calibration),
            options=dict(model.options),
        )
    unfinished.rename(made)


def _master_of(master: Master, model: str) -> str:
    return str(master.one if model and MODELS[model].one_logit else master.labels)


def _load(running: Sequence[Running], master: Master, pairs_file: Path, folder: Path) -> None:
    """Start all, load them, and have each do all the work once."""

    def load(client: Client, each: Running) -> None:
        answer = client.ask(
            "load",
            master=_master_of(master, each.system.model),
            folder=str(folder / each.system.model),
            pairs=str(pairs_file),
            threads=physical_cores(),
            options=dict(each.system.options),
        )
        each.measured = replace(each.measured, versions=answer["versions"])
        client.ask("score")
        for products, count in REQUESTS.items():
            _requests(client, products, count)

    with meter("loading and warming up", total=len(running)) as progress:
        for each in running:
            progress.note(each.measured.name)
            if not each.measured.reason:
                python = interpreter(each.system.environment)
                each.client = Client(python, each.system.module, folder / f"{each.measured.name}.log")
            each.attempt(load)
            progress.advance()


def _compare(running: Sequence[Running], count: int) -> None:
    """Compare the outputs of all with the first's."""
    wanted: list[NDArray[np.float64]] = []

    def compare(client: Client, each: Running) -> None:
        logits = np.array(client.ask("outputs", count=count)["outputs"], dtype=np.float64)
        if not wanted:
            wanted.append(logits - logits.mean(axis=1, keepdims=True))
        (reference,) = wanted
        if logits.shape[1] == 1:
            each.measured = replace(each.measured, difference=float(np.abs(logits[:, 0] - reference[:, 0]).mean()))
            return
        logits -= logits.mean(axis=1, keepdims=True)
        each.measured = replace(
            each.measured,
            agreement=float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean()),
            difference=float(np.abs(logits - reference).mean()),
        )

    for each in running:
        each.attempt(compare)
        if not wanted:
            raise StageError(
                f"{each.measured.title}, which the others are measured against, cannot be run: {each.measured.reason}"
            )


def _time(running: Sequence[Running], peak: Client, rounds: int) -> list[dict[str, float]]:
    """Time all in turns, and return the machine's peaks of each round."""
    peaks = []
    turns = {"all pairs": _turn_of_all, **{f"{size} products": partial(_turn, products=size) for size in REQUESTS}}
    with meter("timing", total=rounds * len(running) * len(turns)) as progress:
        for number in range(rounds):
            peaks.append(peak.ask("peaks", threads=physical_cores())["peaks"])
            order = [running[(number + place) % len(running)] for place in range(len(running))]
            for what, turn in turns.items():
                for each in order:
                    progress.note(f"round {number + 1}, {what}, {each.measured.name}")
                    each.attempt(turn)
                    progress.advance()
    return peaks


def _turn_of_all(client: Client, each: Running) -> None:
    each.seconds.append(client.ask("score")["seconds"])


def _turn(client: Client, each: Running, *, products: int) -> None:
    """Send the requests of one size; one before them, which does not count, wakes the process."""
    client.ask("request", start=0, products=products)
    each.requests.setdefault(products, []).append(_requests(client, products, REQUESTS[products]))


def _requests(client: Client, products: int, count: int) -> tuple[float, ...]:
    asked = range(0, count * products, products)
    return tuple(client.ask("request", start=start, products=products)["seconds"] for start in asked)


def _workload(scored: Sequence[TextPair], source: str, master: Master) -> Workload:
    lengths = [len(each.ids) for each in load_tokenizer(master.labels).encode_batch(list(scored))]
    p50, p95, p99, longest = np.quantile(lengths, (0.5, 0.95, 0.99, 1.0)).tolist()
    return Workload(
        source=source,
        pairs=len(scored),
        tokens={"p50": p50, "mean": float(np.mean(lengths)), "p95": p95, "p99": p99, "max": longest},
        flops=pair_flops(AutoConfig.from_pretrained(str(master.labels)), lengths),
        compared=min(COMPARED, len(scored)),
    )
