"""Requests to the scorer of a split student whose products' states are stored, against the student without a split.

    python -m benchmarks.split --pairs PAIRS.jsonl

A request is `Scorer.rank` of a query and k products, drawn from a file with a query and a product in each line:
rendering, tokenising, fetching the states and what the graphs compute. MiniLM with random new layers, exported to ONNX;
one thread. The scorers take turns within each request, all with the same tokens, and seconds are the process's own,
which other work on the machine lengthens less than those of a clock. Every scorer has met every product before, so that
the one without a store has its token ids at hand.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from manylens.config import ExportConfig
from manylens.records import ESCI, Pair
from manylens.serving import Scorer
from manylens.serving.export import export_classifier
from manylens.serving.layout import CLASSES, Card
from manylens.serving.precompute import precompute
from manylens.serving.states import PRECISIONS
from manylens.student import LatentReasoningForSequenceClassification, Student
from manylens.student.encoding import PairEncoder, product_length
from manylens.student.pretrained import resolve_pretrained

MAX_LENGTH = 128
CALIBRATION = 64
#: A product as a request has it.
Product = dict[str, object]


def make_student(split_layers: int, extractor: str) -> Student:
    """Return a student with random new layers on MiniLM; all get the same tokens."""
    import torch

    backbone = resolve_pretrained("minilm")
    encoder = PairEncoder.from_backbone(backbone, "{{ title }}", MAX_LENGTH, product_length(MAX_LENGTH))
    torch.manual_seed(0)
    model = LatentReasoningForSequenceClassification.from_backbone(
        backbone, ESCI, encoder.tokenizer.sep_token_id, extractor=extractor, split_layers=split_layers
    )
    return Student(model, encoder)


def export(student: Student, calibration: Sequence[Pair], variant: str, folder: Path) -> Path:
    """Export a student without the parity gate, which a student that was never trained has no pairs for."""
    export_classifier(
        student.model,
        student.encoder,
        Card(labels=student.labels, gains=tuple(student.gains.tolist())),
        config=student.model.config.backbone_config,
        calibration=calibration,
        options=ExportConfig(variants=("onnx_fp32",) if variant == "onnx_fp32" else ("onnx_fp32", variant)),
        folder=folder,
    )
    return folder / CLASSES


def main() -> None:
    """Time the requests and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="JSONL with query and product")
    parser.add_argument("--requests", type=int, default=15, help="requests of each size")
    parser.add_argument("--products", type=int, nargs="+", default=[10, 50, 100], help="products of a request")
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 3, 4], help="split layers, of 6")
    parser.add_argument("--precisions", nargs="+", default=["fp16"], choices=PRECISIONS, help="of the stored states")
    parser.add_argument("--variant", default="onnx_fp32", choices=["onnx_fp32", "onnx_int8"])
    parser.add_argument("--extractor", default="mlp")
    parser.add_argument("--catalogue", type=int, default=400, help="products that the requests draw from")
    arguments = parser.parse_args()

    lines = [
        json.loads(line) for line in arguments.pairs.read_text(encoding="utf-8").splitlines()[: arguments.catalogue]
    ]
    products: list[Product] = [
        {"product_id": f"p{number}", "title": line["product"]} for number, line in enumerate(lines)
    ]
    queries = [line["query"] for line in lines]
    calibration = [
        Pair(pair_id="", query_id="", product_id="", query=line["query"], title=line["product"])
        for line in lines[:CALIBRATION]
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        table = folder / "products.jsonl"
        table.write_text("".join(f"{json.dumps(product)}\n" for product in products), encoding="utf-8")

        def load(classes: Path, states: Path | None = None) -> Scorer:
            return Scorer.load(classes, variant=arguments.variant, states=states, threads=1)

        plain = make_student(0, arguments.extractor)
        scorers = {"no split": load(export(plain, calibration, arguments.variant, folder / "plain"))}
        for layers in arguments.layers:
            student = make_student(layers, arguments.extractor)
            classes = export(student, calibration, arguments.variant, folder / f"split{layers}")
            scorers[f"split {layers}, no store"] = load(classes)
            for precision in arguments.precisions:
                store = folder / f"{layers}-{precision}"
                report = precompute(student, table, store, precision=precision)
                print(f"split {layers}, {precision}: {report.bytes_per_product:,.0f} bytes a product")
                scorers[f"split {layers}, {precision}"] = load(classes, store)
        for scorer in scorers.values():
            scorer.rank(queries[0], products)
        for size in arguments.products:
            measure(scorers, products, queries, size, arguments.requests)
        for name, scorer in scorers.items():
            assert scorer.states is None or not scorer.states.misses, f"{name} computed products that are stored"
            scorer.close()


def measure(
    scorers: Mapping[str, Scorer], products: Sequence[Product], queries: Sequence[str], size: int, rounds: int
) -> None:
    """Time requests of `size` products in turns, and print medians and the ratios to the student without a split."""
    random = np.random.default_rng(size)
    seconds: dict[str, list[float]] = {name: [] for name in scorers}
    for number in range(rounds + 2):
        chosen = [products[index] for index in random.choice(len(products), size, replace=False)]
        query = queries[int(random.integers(len(queries)))]
        for name in list(scorers) if number % 2 else list(scorers)[::-1]:
            start = time.process_time()
            scorers[name].rank(query, chosen)
            if number >= 2:  # The first two warm up.
                seconds[name].append(time.process_time() - start)
    print(f"\nk = {size}, {rounds} requests; median ms, and how many times faster than without a split (quartiles)")
    for name, own in seconds.items():
        ratios = [theirs / ours for theirs, ours in zip(seconds["no split"], own, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name:18} {1000 * statistics.median(own):8.1f}   {middle:.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
