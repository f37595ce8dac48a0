"""How long loading takes and how much memory it needs, for N synthetic pairs in the ESCI layout and as CSV.

    python benchmarks/loading.py --pairs 1000000

Each layout is written to a temporary folder, then loaded and walked through once by a child process. Resident
memory includes pages of mapped files, which the operating system drops when it needs the room; anonymous memory
is what the process itself holds.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from manylens.config import DataConfig, EsciData, TableData
from manylens.data import Pairs, load_pairs
from manylens.records import ESCI

WORDS = [
    f"{start}{end}" for start in ("ba", "co", "lu", "mi", "ro", "ta", "ve", "zi") for end in ("rn", "lt", "sha", "nk")
]
PAIRS_PER_QUERY = 20
BATCH = 20_000
MIB = 1 << 20


def sentence(rng: random.Random, words: int) -> str:
    """Return that many words."""
    return " ".join(rng.choices(WORDS, k=words))


def rows(pairs: int) -> Iterator[list[dict[str, object]]]:
    """Yield synthetic pairs in batches; every product is new, as nearly all are in ESCI."""
    rng = random.Random(0)
    for start in range(0, pairs, BATCH):
        batch = []
        for number in range(start, min(start + BATCH, pairs)):
            query = number // PAIRS_PER_QUERY
            batch.append(
                {
                    "example_id": number,
                    "query": f"{WORDS[query % len(WORDS)]} query {query}",
                    "query_id": query,
                    "product_id": f"B{number:09d}",
                    "product_locale": "us",
                    "esci_label": rng.choice("ESCI"),
                    "small_version": 1,
                    "large_version": 1,
                    "split": "test" if query % 5 == 0 else "train",
                    "product_title": sentence(rng, 15),
                    "product_description": f"<p>{sentence(rng, 60)}</p>",
                    "product_bullet_point": sentence(rng, 150),
                    "product_brand": rng.choice(WORDS),
                    "product_color": rng.choice(WORDS),
                }
            )
        yield batch


def write_esci(folder: Path, pairs: int) -> DataConfig:
    """Write the two Parquet files of the ESCI layout."""
    examples = ["example_id", "query", "query_id", "product_id", "product_locale", "esci_label", "small_version"]
    examples += ["large_version", "split"]
    products = ["product_id", "product_title", "product_description", "product_bullet_point", "product_brand"]
    products += ["product_color", "product_locale"]
    writers: dict[str, pq.ParquetWriter] = {}
    for batch in rows(pairs):
        table = pa.Table.from_pylist(batch)
        for name, columns in (("examples", examples), ("products", products)):
            part = table.select(columns)
            if name not in writers:
                path = folder / f"shopping_queries_dataset_{name}.parquet"
                writers[name] = pq.ParquetWriter(path, part.schema)
            writers[name].write_table(part)
    for writer in writers.values():
        writer.close()
    return EsciData(loader="esci", path=str(folder))


def write_csv(folder: Path, pairs: int) -> DataConfig:
    """Write one CSV file."""
    path = folder / "pairs.csv"
    columns = {
        "title": "product_title",
        "brand": "product_brand",
        "description": "product_bullet_point",
        "locale": "product_locale",
        "label": "esci_label",
        "attributes": ["product_color"],
    }
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = None
        for batch in rows(pairs):
            writer = writer or csv.DictWriter(stream, list(batch[0]))
            if batch[0]["example_id"] == 0:
                writer.writeheader()
            writer.writerows(batch)
    return TableData(loader="table", path=str(path), columns=columns)


def load_and_walk(config: DataConfig, folder: Path, seconds: multiprocessing.Queue[float]) -> None:
    """Load the pairs, then iterate over them; the child process runs this."""
    start = time.perf_counter()
    load_pairs(config, ESCI, folder)
    seconds.put(time.perf_counter() - start)
    start = time.perf_counter()
    for _ in Pairs.read(folder / "pairs.parquet"):
        pass
    seconds.put(time.perf_counter() - start)


def measure(name: str, config: DataConfig, folder: Path, pairs: int) -> None:
    """Run the child and print what it took."""
    context = multiprocessing.get_context("spawn")
    seconds: multiprocessing.Queue[float] = context.Queue()
    child = context.Process(target=load_and_walk, args=(config, folder, seconds))
    child.start()
    process = psutil.Process(child.pid)
    resident = anonymous = 0
    while child.is_alive():
        memory = process.memory_info()
        resident = max(resident, memory.rss)
        anonymous = max(anonymous, memory.rss - memory.shared)
        child.join(0.05)
    if child.exitcode != 0:
        raise SystemExit(f"{name}: the child ended with {child.exitcode}")
    loading, walking = seconds.get(), seconds.get()
    print(
        f"{name}: loaded in {loading:.1f} s ({pairs / loading:,.0f} pairs/s), read and walked in {walking:.1f} s,"
        f" peak resident {resident / MIB:,.0f} MiB, of it anonymous at most {anonymous / MIB:,.0f} MiB"
    )


def main() -> None:
    """Parse the arguments and measure both layouts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where the temporary files go; about 5 kB of disk a pair")
    arguments = parser.parse_args()
    for name, write in (("esci", write_esci), ("csv", write_csv)):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
            source, out = Path(temporary) / "source", Path(temporary) / "out"
            source.mkdir()
            config = write(source, arguments.pairs)
            size = sum(path.stat().st_size for path in source.iterdir())
            print(f"{name}: {arguments.pairs:,} pairs, {size / MIB:,.0f} MiB on disk")
            measure(name, config, out, arguments.pairs)


if __name__ == "__main__":
    main()
