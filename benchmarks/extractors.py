"""What a latent extractor costs within the exported graph, over a graph without one that reads all tokens, too.

    python -m benchmarks.extractors --rounds 15

A request is one query and 50 products of the demo store, sorted by length and run in batches of 10 on one core. The
extractors have random weights, which cost what trained ones do. Each round sends one request to every graph, and they
take turns in being first. Seconds are the process's own, which other work on the machine lengthens less than those of a
clock. Prints a Markdown table: the median over the rounds of what it takes longer than the first, and its quartiles.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manylens.config import DemoData, ExportConfig, StudentConfig
from manylens.data import Pairs, load_pairs
from manylens.records import ESCI, Pair
from manylens.serving.engines import Engine, build_engine
from manylens.serving.export import export_classifier
from manylens.serving.layout import CLASSES, Card
from manylens.student import LatentReasoningForSequenceClassification
from manylens.student.encoding import PairEncoder
from manylens.student.pretrained import resolve_pretrained

#: Students by name. The first, which the others are compared with, reads the states of all tokens; those that read
#: [CLS] alone have a cheaper last layer.
STUDENTS: dict[str, dict[str, Any]] = {
    "none, mean": {"extractor": None, "pooling": "mean"},
    "none, [CLS]": {"extractor": None},
    "mlp, [CLS]": {"extractor": "mlp", "extractor_options": {"pooling": "cls"}},
    "mlp": {"extractor": "mlp"},
    "poly": {"extractor": "poly"},
    "gat": {"extractor": "gat"},
}
VARIANTS = ("onnx_fp32", "onnx_int8")
PRODUCTS, ROWS = 50, 10
Request = list[dict[str, NDArray[np.int64]]]


def engines(encoder: PairEncoder, calibration: list[Pair], folder: Path) -> dict[str, dict[str, Engine]]:
    """Export every student, and load its graphs: from the variant and the student's name."""
    found: dict[str, dict[str, Engine]] = {variant: {} for variant in VARIANTS}
    for number, (name, options) in enumerate(STUDENTS.items()):
        model = LatentReasoningForSequenceClassification.from_backbone(
            resolve_pretrained("minilm"),
            ESCI,
            encoder.tokenizer.sep_token_id,
            **options,
        )
        place = folder / str(number)
        export_classifier(
            model.eval(),
            encoder,
            Card(labels=ESCI.names, gains=ESCI.gain_vector(), model=name),
            config=model.config.backbone_config,
            calibration=calibration,
            options=ExportConfig(variants=VARIANTS),
            folder=place,
        )
        for variant in VARIANTS:
            found[variant][name] = build_engine(variant, place / CLASSES, threads=1)
    return found


def requests(encoder: PairEncoder, pairs: list[Pair], rounds: int) -> list[Request]:
    """Return a request a round: a query with the next products of the store."""
    found = []
    for number in range(rounds):
        query = pairs[number * PRODUCTS % len(pairs)]
        products = [pairs[(number * PRODUCTS + offset) % len(pairs)] for offset in range(PRODUCTS)]
        encoded = encoder.encode([Pair(**{**vars_of(product), "query": query.query}) for product in products])
        order = np.argsort([len(ids) for ids in encoded["input_ids"]], kind="stable")
        batches = []
        for start in range(0, PRODUCTS, ROWS):
            rows = [{key: values[index] for key, values in encoded.items()} for index in order[start : start + ROWS]]
            batches.append({key: tensor.numpy() for key, tensor in encoder.pad(rows).items()})
        found.append(batches)
    return found


def vars_of(pair: Pair) -> dict[str, Any]:
    """Return a pair's fields."""
    return {name: getattr(pair, name) for name in Pair.__dataclass_fields__}


def seconds(engine: Engine, request: Request) -> float:
    """Return the processor seconds of a request."""
    start = time.process_time()
    for batch in request:
        engine.run(batch)
    return time.process_time() - start


def measure(rounds: int, max_length: int, folder: Path) -> None:
    """Export, time in turns, and print the table."""
    load_pairs(DemoData(loader="demo"), ESCI, folder)
    pairs = Pairs.read(folder / "pairs.parquet")
    template = StudentConfig().product_template
    encoder = PairEncoder.from_backbone(resolve_pretrained("minilm"), template, max_length)
    by_variant = engines(encoder, list(pairs.split("train"))[:50], folder)
    print(f"\n| graph | extractor | over `{next(iter(STUDENTS))}` | quartiles |\n|---|---|---|---|")
    for variant, students in by_variant.items():
        names = list(students)
        taken = np.zeros((rounds + 1, len(names)))
        for number, request in enumerate(requests(encoder, list(pairs.split("test")), rounds + 1)):
            for turn in range(len(names)):
                which = (number + turn) % len(names)
                taken[number, which] = seconds(students[names[which]], request)
        shares = taken[1:] / taken[1:, :1] - 1.0  # The first round does not count.
        for name, (low, median, high) in zip(names, np.quantile(shares, (0.25, 0.5, 0.75), axis=0).T, strict=True):
            if name != names[0]:
                print(f"| `{variant}` | `{name}` | {median:+.1%} | {low:+.1%} to {high:+.1%} |")


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--max-length", type=int, default=128)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(options.rounds, options.max_length, Path(folder))


if __name__ == "__main__":
    main()
