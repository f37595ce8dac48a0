"""The parity gate: what every exported variant makes of dev pairs, against PyTorch in fp32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from rich import box
from rich.markup import escape
from rich.table import Table
from scipy.special import expit

from manylens.config import ExportConfig, Tolerance
from manylens.data import Pairs
from manylens.errors import StudentError
from manylens.evaluation import PREDICTION_SCHEMA
from manylens.evaluation.predictions import Predictions
from manylens.evaluation.significance import METRICS, headline, query_sums
from manylens.progress import meter
from manylens.records import LabelScale, Pair
from manylens.serving.engines import Engine, build_engine
from manylens.serving.graphs import Heads
from manylens.serving.layout import CLASSES, PARTS, RANKING, VARIANTS, Card, part_file
from manylens.serving.split import open_split
from manylens.student.encoding import PairEncoder

Arrays = Mapping[str, NDArray[np.int64]]
#: Pairs in one batch; they are sorted by length first.
_ROWS = 32
#: Shapes beside those of the batches: one pair, and as few tokens as a pair can have.
_CORNERS = ((1, 3), (2, 3), (1, 16))
#: Behind a variant's name: the parts of a split student, one after the other.
_OF_PARTS = "_parts"


@dataclass(frozen=True, kw_only=True, slots=True)
class VariantParity:
    """How near one variant is to PyTorch.

    Attributes:
        logit_max: Largest absolute difference of a logit.
        logit_mean: Mean absolute difference of the logits.
        labels: Share of pairs that get the same label.
        gain_max: Largest absolute difference of the expected gain, from the ranking head.
        macro_f1: The variant's; ``None`` where dev has no judged pair.
        ndcg: The variant's; ``None`` where dev has no judged pair.
        mebibytes: Size of the class head, or of the parts.
        problems: The tolerances that are exceeded, in words.
    """

    logit_max: float
    logit_mean: float
    labels: float
    gain_max: float
    macro_f1: float | None
    ndcg: float | None
    mebibytes: float
    problems: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """What the gate measured. PyTorch's logits are divided by the temperature, too.

    Attributes:
        model: The student's name.
        pairs: Dev pairs that were compared.
        ndcg_cutoff: Ranks that nDCG looks at.
        macro_f1: PyTorch's; ``None`` where dev has no judged pair.
        ndcg: PyTorch's; ``None`` where dev has no judged pair.
        temperature: What the logits are divided by.
        versions: Of the libraries.
        variants: By name; the parts of a split student are ``onnx_fp32_parts`` and ``onnx_int8_parts``.
    """

    model: str
    pairs: int
    ndcg_cutoff: int
    macro_f1: float | None
    ndcg: float | None
    temperature: float
    versions: Mapping[str, str]
    variants: Mapping[str, VariantParity]

    @property
    def problems(self) -> list[str]:
        """Every tolerance that is exceeded, with variant, figure and limit."""
        return [f"{name}: {problem}" for name, each in self.variants.items() for problem in each.problems]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Outputs:
    """What PyTorch or a variant says of pairs.

    Attributes:
        logits: (pairs, classes), then the rows of the corner shapes.
        gains: (pairs,) expected gains, then those of the corner shapes.
    """

    logits: NDArray[np.float32]
    gains: NDArray[np.float32]


def measure(
    heads: Heads,
    encoder: PairEncoder,
    folder: Path,
    dev: Pairs,
    scale: LabelScale,
    options: ExportConfig,
    *,
    ndcg_cutoff: int,
) -> Parity:
    """Compare every variant of an export with PyTorch; a split student's parts, one after the other, are such, too.

    Args:
        heads: The classifier and its heads.
        encoder: Its tokenizer and template.
        folder: Holds ``classes`` and ``ranking``.
        dev: The pairs.
        scale: The label scale.
        options: Which variants there are, and what they must keep to.
        ndcg_cutoff: Ranks that nDCG looks at.

    Returns:
        The figures; those beyond a tolerance have a problem.

    Raises:
        StudentError: If there is no pair, or a variant does not run.
        MissingExtraError: If an engine's library is not installed.
    """
    if not len(dev):
        raise StudentError("an export is compared with PyTorch on dev pairs, got none; give data.dev_fraction")
    card = Card.load(folder / CLASSES)
    order, batches = _batches(dev, encoder)
    split = [name for name in options.variants if card.split_layers and name.startswith("onnx")]
    found: dict[str, _Outputs] = {}
    with meter("parity", len(batches) * (1 + len(options.variants)) + len(split) * -(-len(dev) // _ROWS)) as bar:
        outputs = []
        for batch in batches:
            outputs.append(_torch(heads, batch))
            bar.advance()
        reference = _in_order(outputs, order)
        for variant in options.variants:
            classes, ranking = (build_engine(variant, folder / head, threads=1) for head in (CLASSES, RANKING))
            outputs = []
            for batch in batches:
                outputs.append(_run(variant, classes, ranking, batch))
                bar.advance()
            found[variant] = _in_order(outputs, order)
        for variant in split:
            outputs = []
            for each in _run_parts(variant, folder / CLASSES, card, list(dev), order):
                outputs.append(each)
                bar.advance()
            found[f"{variant}{_OF_PARTS}"] = _in_order(outputs, order)
    macro_f1, ndcg = _figures(dev, reference.logits, scale, ndcg_cutoff)
    variants: dict[str, VariantParity] = {}
    for name, each in found.items():
        tolerance = options.fp32 if name.startswith("onnx_fp32") else options.low_precision
        its_macro_f1, its_ndcg = _figures(dev, each.logits, scale, ndcg_cutoff)
        compared = len(each.logits)  # Parts have no rows of the corner shapes.
        differences = np.abs(each.logits - reference.logits[:compared])
        agreement = each.logits.argmax(axis=1) == reference.logits[:compared].argmax(axis=1)
        measured = VariantParity(
            logit_max=float(differences.max()),
            logit_mean=float(differences.mean()),
            labels=float(agreement[: len(dev)].mean()),
            gain_max=float(np.abs(each.gains - reference.gains[:compared]).max()),
            macro_f1=its_macro_f1,
            ndcg=its_ndcg,
            mebibytes=_mebibytes([folder / CLASSES / file for file in _files(name)]),
            problems=(),
        )
        variants[name] = replace(measured, problems=_problems(measured, macro_f1, ndcg, tolerance))
    return Parity(
        model=card.model,
        pairs=len(dev),
        ndcg_cutoff=ndcg_cutoff,
        macro_f1=macro_f1,
        ndcg=ndcg,
        temperature=card.temperature,
        versions=card.versions,
        variants=variants,
    )


def parity_table(parity: Parity) -> Table:
    """Lay out the figures: a row for PyTorch, and one for each variant."""
    table = Table(
        title=f"{escape(parity.model)} on {parity.pairs} dev pairs, temperature {parity.temperature:.3f}",
        caption="Differences from PyTorch in fp32: of logits, and of the ranking head's expected gain.",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("", no_wrap=True)
    for heading in ("logit max", "mean", "gain max", "labels", "macro-F1", f"nDCG@{parity.ndcg_cutoff}", "MiB"):
        table.add_column(heading, justify="right")
    table.add_row("PyTorch", "", "", "", "", _figure(parity.macro_f1), _figure(parity.ndcg), "")
    for name, each in parity.variants.items():
        table.add_row(
            name,
            f"{each.logit_max:.2g}",
            f"{each.logit_mean:.2g}",
            f"{each.gain_max:.2g}",
            f"{each.labels:.3f}",
            _figure(each.macro_f1),
            _figure(each.ndcg),
            f"{each.mebibytes:.0f}",
            style="red" if each.problems else None,
        )
    return table


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _batches(dev: Pairs, encoder: PairEncoder) -> tuple[NDArray[np.intp], list[Arrays]]:
    """Return the order of the pairs by length, and their batches in it; the corners come last."""
    encoded = encoder.encode(list(dev))
    order = np.argsort([len(ids) for ids in encoded["input_ids"]], kind="stable")
    batches: list[Arrays] = []
    for start in range(0, len(order), _ROWS):
        rows = [{key: values[index] for key, values in encoded.items()} for index in order[start : start + _ROWS]]
        batches.append({name: tensor.numpy() for name, tensor in encoder.pad(rows).items()})
    longest = batches[-1]
    corners = [{name: array[:rows, :tokens] for name, array in longest.items()} for rows, tokens in _CORNERS]
    return order, [*batches, *corners]


def _torch(heads: Heads, batch: Arrays) -> _Outputs:
    with torch.inference_mode():
        found = heads(**{name: torch.from_numpy(array) for name, array in batch.items()})
    return _Outputs(logits=found["class_logits"].numpy(), gains=found["gain_logit"].sigmoid().squeeze(1).numpy())


def _run(variant: str, classes: Engine, ranking: Engine, batch: Arrays) -> _Outputs:
    try:
        logits, gain_logits = classes.run(batch)["logits"], ranking.run(batch)["logits"]
    except Exception as error:  # the engines' own errors have no common type
        shape = batch["input_ids"].shape
        raise StudentError(
            f"{variant} does not run on a batch of {shape[0]} pairs of {shape[1]} tokens: {error}"
        ) from error
    return _Outputs(logits=np.array(logits), gains=expit(np.array(gain_logits)[:, 0]))


def _run_parts(
    variant: str, folder: Path, card: Card, pairs: Sequence[Pair], order: NDArray[np.intp]
) -> Iterator[_Outputs]:
    """Yield what the parts of a split student say of pairs, in `order`."""
    engine, reader = open_split(folder, variant, threads=1)
    gains = np.array(card.gains, dtype=np.float32) / card.gain_scale
    for start in range(0, len(order), _ROWS):
        chosen = [pairs[index] for index in order[start : start + _ROWS]]
        try:
            encoded = reader.encode(chosen)
            found = engine.run(reader.batch(encoded, range(len(chosen)), int(encoded.lengths.max())))
        except Exception as error:  # the engines' own errors have no common type
            raise StudentError(
                f"the parts of {variant} do not run on a batch of {len(chosen)} pairs: {error}"
            ) from error
        yield _Outputs(logits=found["logits"], gains=found["probabilities"] @ gains)


def _in_order(outputs: list[_Outputs], order: NDArray[np.intp]) -> _Outputs:
    logits, gains = (np.concatenate([getattr(each, name) for each in outputs]) for name in ("logits", "gains"))
    rows = np.concatenate([np.argsort(order), np.arange(len(order), len(logits))])
    return _Outputs(logits=logits[rows], gains=gains[rows])


def _figures(
    dev: Pairs, logits: NDArray[np.float32], scale: LabelScale, cutoff: int
) -> tuple[float, float] | tuple[None, None]:
    """Return macro-F1 and nDCG by the stage evaluate's code, of calibrated logits; ``None`` where no pair is judged."""
    columns = [name for name in PREDICTION_SCHEMA.names if name != "logits"]
    values = pa.array(list(logits[: len(dev)]), type=PREDICTION_SCHEMA.field("logits").type)
    predictions = Predictions.from_table(dev.table.select(columns).append_column("logits", values), scale)
    if not len(predictions):
        return None, None
    figures = dict(zip(METRICS, headline(query_sums(predictions, scale, cutoff).sum(axis=0)).tolist(), strict=True))
    return figures["macro_f1"], figures["ndcg"]


def _problems(
    measured: VariantParity, macro_f1: float | None, ndcg: float | None, tolerance: Tolerance
) -> tuple[str, ...]:
    problems = []
    for name in ("logit_max", "logit_mean"):
        value, limit = getattr(measured, name), getattr(tolerance, name)
        if limit is not None and not value <= limit:  # A logit that is no number is within no limit.
            problems.append(f"{name} is {value:.3g}, at most {limit:g} is allowed")
    if not measured.labels >= tolerance.labels:
        problems.append(
            f"labels agree on {measured.labels:.4f} of the pairs, at least {tolerance.labels:g} is asked for"
        )
    for name, before in {"macro_f1": macro_f1, "ndcg": ndcg}.items():
        after, limit = getattr(measured, name), getattr(tolerance, name)
        if before is not None and not before - after <= limit:
            problems.append(f"{name} falls from {before:.4f} to {after:.4f}, by at most {limit:g} it may")
    return tuple(problems)


def _files(name: str) -> Sequence[str]:
    """Return the files of a variant's class head, or of a variant's parts."""
    variant = name.removesuffix(_OF_PARTS)
    if variant != name:
        return [part_file(part, variant) for part in PARTS]
    file = Path(VARIANTS[name])
    return [str(file), *([str(file.with_suffix(".bin"))] if file.suffix == ".xml" else [])]


def _mebibytes(files: Sequence[Path]) -> float:
    return round(sum(each.stat().st_size for each in files) / 2**20, 2)
