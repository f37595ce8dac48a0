"""Where pairs come from: loaders, validation, splits and the demo store."""

from manylens.data.load import LoadReport, input_files, load_pairs, recorded_judgements
from manylens.data.pairs import Pairs
from manylens.data.schema import PAIR_SCHEMA
from manylens.data.table import iter_products, iter_unlabelled

__all__ = [
    "PAIR_SCHEMA",
    "LoadReport",
    "Pairs",
    "input_files",
    "iter_products",
    "iter_unlabelled",
    "load_pairs",
    "recorded_judgements",
]
