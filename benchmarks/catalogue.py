"""What `manylens score` makes of a catalogue: pairs a second, and memory, at each tenth of the way.

    python -m benchmarks.catalogue --rows 1000000

The table is streamed to Parquet: pairs of `benchmarks.serving.workload`, each product met once, so that no token is
taken from the cache of products. The student has random new layers, on the packaged MiniLM or, to try the benchmark
itself, on a small BERT that is made here; it is exported, and the command runs as a user's would. A shard has a tenth
of the rows, so that each tenth is seen from outside when its shard appears. Memory is resident, summed over the
command's processes, pages that they share counted in each; what is printed is the peak of ten samples a second.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from benchmarks.serving.machine import processor
from benchmarks.serving.workload import CALIBRATION_SEED, SEED, pairs
from transformers import AutoTokenizer, BertConfig, BertModel

from manylens.config import ExportConfig
from manylens.products import as_pair
from manylens.records import ESCI
from manylens.serving.engines.protocol import physical_cores
from manylens.serving.export import export_classifier
from manylens.serving.layout import Card
from manylens.student.encoding import PairEncoder
from manylens.student.model import LatentReasoningForSequenceClassification
from manylens.student.pretrained import resolve_pretrained

STUDENTS = {
    "minilm": "MiniLM, 6 layers of 384",
    "small": "a random BERT, 2 layers of 128, to try the benchmark itself",
}
MAX_LENGTH, EXTRACTOR, CALIBRATION_PAIRS = 128, "mlp", 300
TENTHS, MIB = 10, 1 << 20
#: Rows that are made and written at a time.
_BLOCK = 10_000


def write_table(path: Path, rows: int) -> None:
    """Write a table of `rows` pairs with a query and a title."""
    schema = pa.schema({"pair_id": pa.string(), "query": pa.string(), "title": pa.string()})
    with pq.ParquetWriter(str(path), schema) as writer:
        for start in range(0, rows, _BLOCK):
            block = pairs(min(_BLOCK, rows - start), seed=CALIBRATION_SEED + SEED + start)
            ids = [str(start + number) for number in range(len(block))]
            queries, titles = zip(*block, strict=True)
            # The number makes every product another.
            writer.write_table(
                pa.table(
                    [ids, queries, [f"{title} {number}" for title, number in zip(titles, ids, strict=True)]],
                    schema=schema,
                )
            )


def export_student(name: str, folder: Path) -> None:
    """Export a student with random new layers.

    Args:
        name: One of `STUDENTS`.
        folder: Where to.
    """
    backbone = resolve_pretrained("minilm")
    torch.manual_seed(0)
    if name == "small":
        small = folder / "backbone"
        tokenizer = AutoTokenizer.from_pretrained(backbone)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=512,
        )
        BertModel(config).save_pretrained(str(small))
        tokenizer.save_pretrained(str(small))
        backbone = str(small)
    encoder = PairEncoder.from_backbone(backbone, "{{ title }}", MAX_LENGTH)
    model = LatentReasoningForSequenceClassification.from_backbone(
        backbone, ESCI, encoder.tokenizer.sep_token_id, extractor=EXTRACTOR
    )
    export_classifier(
        model.eval(),
        encoder,
        Card(labels=ESCI.names, gains=ESCI.gain_vector(), model=name),
        config=model.config.backbone_config,
        calibration=[as_pair(query, product) for query, product in pairs(CALIBRATION_PAIRS, CALIBRATION_SEED)],
        options=ExportConfig(calibration_pairs=CALIBRATION_PAIRS),
        folder=folder / "export",
    )


def resident(process: psutil.Process) -> int:
    """Return the resident bytes of a process and all that it has started."""
    total = 0
    try:
        for each in (process, *process.children(recursive=True)):
            total += each.memory_info().rss
    except psutil.NoSuchProcess:  # It ended between two looks.
        pass
    return total


def processor_seconds() -> float:
    """Return what all processes took that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def watch(command: list[str], shards: Path) -> Iterator[tuple[int, float, int]]:
    """Run the command.

    Args:
        command: Its words.
        shards: The folder that it writes to.

    Yields:
        For each shard, when it appears: how many there are, seconds since the start, and the peak memory in bytes since
        the shard before.
    """
    start, peak, seen = time.monotonic(), 0, 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        process = psutil.Process(child.pid)
        running = True
        while running:
            running = child.poll() is None
            peak = max(peak, resident(process))
            found = len(list(shards.glob("part-*.parquet")))
            if found > seen:
                yield found, time.monotonic() - start, peak
                peak, seen = 0, found
            time.sleep(0.1)
        assert child.stderr is not None
        if child.returncode:
            raise SystemExit(child.stderr.read())


def measure(student: str, rows: int, workers: int, threads: int | None, variant: str | None, folder: Path) -> None:
    """Make everything in `folder`, run the command, and print what came out."""
    table, shards = folder / "pairs.parquet", folder / "scores"
    write_table(table, rows)
    export_student(student, folder)
    command = [str(Path(sys.executable).with_name("manylens")), "score", str(folder / "export"), str(table)]
    command += ["-o", str(shards), "--workers", str(workers), "--rows-per-shard", str(-(-rows // TENTHS))]
    command += [] if threads is None else ["--threads", str(threads)]
    command += [] if variant is None else ["--variant", variant]
    print(f"student: {STUDENTS[student]}; extractor {EXTRACTOR}; at most {MAX_LENGTH} tokens")
    print(f"variant: {variant or 'the default'}")
    print(f"machine: {processor()}, {physical_cores()} cores; load before: {psutil.getloadavg()[0]:.1f}")
    print(f"rows: {rows:,}; workers: {workers}; threads of each: {threads or 'the default'}\n")
    print("| rows | seconds | rows/s in this tenth | peak MiB in this tenth |\n|---|---|---|---|", flush=True)
    before, seconds, used = 0, 0.0, processor_seconds()
    for found, now, peak in watch(command, shards):
        done = min(rows, found * -(-rows // TENTHS))
        print(f"| {done:,} | {now:.1f} | {(done - before) / (now - seconds):,.0f} | {peak / MIB:,.0f} |", flush=True)
        before, seconds = done, now
    written = sum(pq.read_metadata(file).num_rows for file in shards.glob("part-*.parquet"))
    if written != rows:
        raise SystemExit(f"expected {rows:,} scored rows, got {written:,}")
    print(f"\nrows/s of the whole command, start and all: {rows / seconds:,.0f}")
    print(f"processor seconds per 1,000 rows: {1000 * (processor_seconds() - used) / rows:.2f}")


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--student", choices=STUDENTS, default="minilm")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--variant", default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(options.student, options.rows, options.workers, options.threads, options.variant, Path(folder))


if __name__ == "__main__":
    main()
