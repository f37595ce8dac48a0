"""What training must not see: labels that are not there or are hidden, and locales that are held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from manylens.config import DataConfig
from manylens.data.arrow import Codes, Mask, codes, true
from manylens.data.repeats import query_codes
from manylens.data.split import query_share
from manylens.errors import DataError, nearest
from manylens.records import SPLITS

_TRAIN, _DEV, _TEST = range(3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Withheld:
    """What is left, and what was taken away.

    Attributes:
        splits: An index into `SPLITS` for each row, -1 where it is left out.
        hidden: Training rows whose label is to be taken away.
        unmeasurable: Rows of dev and test that were left out because they have no label.
        held_out: Rows of train and dev that were left out because of their locale.
    """

    splits: Codes
    hidden: Mask
    unmeasurable: int
    held_out: int


def withhold(table: pa.Table, splits: Codes, config: DataConfig) -> Withheld:
    """Leave out and hide what the configuration says.

    Args:
        table: Rows with the columns of `CHECKED_SCHEMA`.
        splits: An index into `SPLITS` for each row, -1 where it does not count.
        config: ``hide_labels``, ``held_out_locales`` and ``split_seed``. A query whose labels are hidden at one share
            has them hidden at any larger one.

    Returns:
        What is left.

    Raises:
        DataError: If nobody has a locale that is held out, or nothing is left of a split or of the training labels.
    """
    unlabelled = true(table["label"].is_null())
    unmeasurable = unlabelled & np.isin(splits, (_DEV, _TEST))
    held_out = _of_locales(table, config.held_out_locales) & np.isin(splits, (_TRAIN, _DEV)) & ~unmeasurable
    left = np.where(unmeasurable | held_out, -1, splits)
    hidden = (left == _TRAIN) & ~unlabelled & _hides(table, config)
    for index, name in enumerate(SPLITS):
        labelled = (left == index) & ~unlabelled & ~hidden
        if not labelled.any():
            raise DataError(
                f"the {name} split has no labelled pair left: {int(unmeasurable.sum())} of dev and test have no label, "
                f"{int(held_out.sum())} are of data.held_out_locales, {int(hidden.sum())} training labels are hidden; "
                "give more labels or hold back less"
            )
    return Withheld(splits=left, hidden=hidden, unmeasurable=int(unmeasurable.sum()), held_out=int(held_out.sum()))


def _of_locales(table: pa.Table, locales: tuple[str, ...]) -> Mask:
    numbers, names = codes(table["locale"])
    known = [str(name).casefold() for name in names.to_pylist()]
    for locale in locales:
        if locale.casefold() not in known:
            raise DataError(
                f"data.held_out_locales: no pair is of the locale {locale!r}{nearest(locale, known)}; there are "
                f"{', '.join(map(repr, dict.fromkeys(known)))}"
            )
    wanted = {locale.casefold() for locale in locales}
    return np.isin(numbers, [index for index, name in enumerate(known) if name in wanted])


def _hides(table: pa.Table, config: DataConfig) -> Mask:
    if not config.hide_labels:
        return np.zeros(table.num_rows, dtype=np.bool_)
    queries, keys = query_codes(table)
    shares = np.array([query_share(key, config.split_seed, "label") for key in keys])
    return np.asarray(shares[queries] < config.hide_labels, dtype=np.bool_)
