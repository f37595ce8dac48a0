"""Where pairs come from, and their labels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from manylens.config.base import Fraction, Section
from manylens.errors import nearest
from manylens.records import SCALES, LabelScale


class LabelsConfig(Section):
    """The label scale: a built-in one by name, or one's own."""

    scale: str | None = None
    names: tuple[str, ...] = ()
    gains: dict[str, float] = {}
    definitions: dict[str, str] = {}
    aliases: dict[str, str] = {}

    @model_validator(mode="after")
    def _either_name_or_parts(self) -> LabelsConfig:
        own = bool(self.names or self.gains or self.definitions or self.aliases)
        if self.scale is not None and own:
            raise ValueError("give either scale (a built-in name) or names, gains and definitions, not both")
        if self.scale is None and not own:
            raise ValueError("give scale (a built-in name) or names, gains and definitions")
        if self.scale is not None and self.scale not in SCALES:
            raise ValueError(
                f"unknown label scale {self.scale!r}{nearest(self.scale, SCALES)}; known: {', '.join(SCALES)}"
            )
        return self

    def build(self) -> LabelScale:
        """Return the scale that this section describes.

        Raises:
            ConfigError: If its parts do not fit together.
        """
        if self.scale is not None:
            return SCALES[self.scale]
        return LabelScale(names=self.names, gains=self.gains, definitions=self.definitions, aliases=self.aliases)


class _DataBase(Section):
    """What every loader understands.

    Attributes:
        on_bad_row: ``fail`` at the first bad row, or ``skip`` it, count it and write it to a file.
        dev_fraction: Share of the train queries that becomes dev, where the source has no dev split.
        test_fraction: Share of all queries that becomes test, where the source has no splits at all.
        split_seed: Seed of the split; a query's split depends on it and on the query alone, so that
            more rows never move an old query.
        unlabelled: ``keep`` takes training pairs without a label, which only feel the guide; ``refuse`` calls them
            bad rows.
        hide_labels: Share of the training queries whose labels are taken away, to see what rationales are worth
            without them; needs ``unlabelled: keep``.
        held_out_locales: Locales that are left out of train and dev, so that test asks for a language never trained
            on.
    """

    on_bad_row: Literal["fail", "skip"] = "fail"
    dev_fraction: Fraction = 0.15
    test_fraction: Fraction = 0.2
    split_seed: int = 13
    unlabelled: Literal["refuse", "keep"] = "refuse"
    hide_labels: Fraction = 0.0
    held_out_locales: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _hidden_labels_are_kept(self) -> _DataBase:
        if self.hide_labels and self.unlabelled == "refuse":
            raise ValueError("hide_labels leaves training pairs without a label: set unlabelled to 'keep'")
        return self


class DemoData(_DataBase):
    """The demo store that ships with manylens."""

    loader: Literal["demo"] = "demo"


class EsciData(_DataBase):
    """The Shopping Queries Dataset in its original layout: a folder of Parquet files."""

    loader: Literal["esci"]
    path: str
    version: Literal["small", "large"] = "small"
    locales: tuple[str, ...] = ("us", "es", "jp")


class WandsData(_DataBase):
    """The Wayfair Annotation Dataset in its original layout: a folder of tab-separated files."""

    loader: Literal["wands"]
    path: str


class TableData(_DataBase):
    """One table of pairs: CSV, TSV, Parquet or JSONL.

    Attributes:
        columns: From our field to the table's column, such as ``{"title": "product_name"}``; fields
            that the table names as we do need no entry. ``attributes`` maps to a list of columns.
    """

    loader: Literal["table"]
    path: str
    columns: dict[str, str | list[str]] = {}


class HubData(_DataBase):
    """A dataset of the Hugging Face hub, one row a pair.

    Attributes:
        path: The dataset's id, such as ``tasksource/esci``, or a local dataset folder.
        name: The dataset's configuration, where it has several.
        revision: A branch, tag or commit.
        columns: As for a table.
    """

    loader: Literal["hub"]
    path: str
    name: str | None = None
    revision: str | None = None
    columns: dict[str, str | list[str]] = {}


class WorldData(_DataBase):
    """A controlled world: an invented catalogue whose labels follow from attribute comparisons, and its teacher.

    `manylens.data.world` says how it is made.

    Attributes:
        pairs: Training pairs, rounded up to whole queries; dev has 40 queries and test 120, whatever the size.
        products_per_query: Pairs of a query.
        seed: Seed of the world.
        informativeness: Chance of each deciding comparison, and of the conclusion, to be stated in a rationale and not
            passed over.
        label_noise: Share of the training labels that are replaced by another label; dev and test keep the truth.
        hidden: Share of the products of which the teacher sees an attribute that the student's text lacks.
        teacher_error: Share of the judgements that argue for a wrong label.
    """

    loader: Literal["world"]
    pairs: int = Field(default=4000, ge=100)
    products_per_query: int = Field(default=10, ge=2)
    seed: int = 1
    informativeness: float = Field(default=1.0, ge=0.0, le=1.0)
    label_noise: Fraction = 0.0
    hidden: float = Field(default=0.0, ge=0.0, le=1.0)
    teacher_error: Fraction = 0.0


DataConfig = Annotated[DemoData | EsciData | WandsData | TableData | HubData | WorldData, Field(discriminator="loader")]
