"""Does tuning teach a teacher more than it was taught? The paper's variants on a teacher trained from scratch.

    python -m benchmarks.tiny_teacher.study runs/tiny_teacher --seeds 1 2 3

Each seed trains a base teacher on flawed texts (`base.py`), lets it judge the train pairs from three perspectives,
curates what it said by the gold labels, and tunes it on that: judging, curating and tuning are manylens' own. The pairs
are the same for all seeds, and no query of theirs is among the base teacher's. A study that was stopped goes on where
it was. The tables are printed, and ``figures.json`` in the folder holds them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from benchmarks.tiny_teacher.base import prompt_path, train_base
from benchmarks.tiny_teacher.catalogue import LOOKS_AT, make_listings
from benchmarks.tiny_teacher.figures import Labels, difference, markdown, mean_and_spread

from manylens.config import (
    CurateConfig,
    PreferenceConfig,
    SamplingConfig,
    TransformersOptions,
    TransformersTeacher,
    TuneConfig,
)
from manylens.records import ESCI, Judgement, Pair, Split
from manylens.teacher import JudgementStore, build_backend, curate, judge, judgements_of, load_perspective
from manylens.teacher.curate import Curated
from manylens.teacher.judgements import read_judgements
from manylens.teacher.panel import panel_statistics
from manylens.teacher.tune import tune
from manylens.teacher.tune.measure import average

PERSPECTIVES = tuple(LOOKS_AT)
#: What each perspective is asked for a pair, at this temperature.
SAMPLES, TEMPERATURE = 3, 1.0
_TRAINING = {"gradient_checkpointing": False, "logging_steps": 50, "warmup_steps": 10, "lr_scheduler_type": "cosine"}
SFT = {**_TRAINING, "learning_rate": 5e-4, "per_device_train_batch_size": 16, "num_train_epochs": 1}
DPO = {**_TRAINING, "learning_rate": 1e-4, "per_device_train_batch_size": 16, "num_train_epochs": 1, "beta": 0.1}
MOST_TOKENS = 96
BATCH = 256

#: Each teacher by the row of its table, and the judgements that `tune` left of it.
TEACHERS = {
    "base": "pooled/base.parquet",
    **{f"SFT, {name}": f"single/{name}/sft/dev.parquet" for name in PERSPECTIVES},
    "SFT, pooled": "pooled/unified/sft/dev.parquet",
    **{f"SFT, {name}, then aligned DPO": f"single/{name}/dpo/dev.parquet" for name in PERSPECTIVES},
    **{f"SFT, {name}, then DPO across": f"across_{name}/unified/dpo/dev.parquet" for name in PERSPECTIVES},
    "SFT, pooled, then DPO across": "pooled/unified/dpo/dev.parquet",
    "control: pooled, a third of the rows": "third/unified/sft/dev.parquet",
    "control: pooled, wrong labels kept": "unfiltered/unified/sft/dev.parquet",
}
AVERAGE = "SFT, average of the three"
#: The comparisons that the paper makes, and the controls.
COMPARISONS = [
    ("SFT, pooled", "base"),
    ("SFT, pooled, then DPO across", "SFT, pooled"),
    ("SFT, pooled, then DPO across", "base"),
    *[("SFT, pooled", f"SFT, {name}") for name in PERSPECTIVES],
    ("SFT, pooled", AVERAGE),
    *[(f"SFT, {name}, then aligned DPO", f"SFT, {name}") for name in PERSPECTIVES],
    *[(f"SFT, {name}, then DPO across", f"SFT, {name}") for name in PERSPECTIVES],
    *[("SFT, pooled", name) for name in TEACHERS if name.startswith("control")],
]


@dataclass(frozen=True, kw_only=True)
class Study:
    """The folder of a study, and how large it is.

    Attributes:
        folder: Where models, answers and figures go.
        base: Rows that a base teacher learns from.
        train: Queries to be tuned on, of six pairs each.
        dev: Held-out queries on which the options above were chosen.
        test: Held-out queries for the figures.
    """

    folder: Path
    base: int = 16_000
    train: int = 200
    dev: int = 60
    test: int = 150
    pairs: dict[Split, list[Pair]] = field(init=False, default_factory=dict)
    taken: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        """Draw the pairs, the same for every seed."""
        sizes: dict[Split, int] = {"train": self.train, "dev": self.dev, "test": self.test}
        for split, queries in sizes.items():
            listings = make_listings(0, queries, split=split, taken=self.taken)
            self.pairs[split] = [listing.pair for listing in listings]


class Seed:
    """What one seed does: every variant of tuning, from one base teacher."""

    def __init__(self, study: Study, seed: int) -> None:
        """Train the base teacher, or find it trained, and have it judge the train and the test pairs."""
        self._study, self._seed = study, seed
        self.folder = study.folder / f"seed{seed}"
        self._base = str(train_base(self.folder / "base", rows=study.base, seed=seed, taken=study.taken))
        self._judgements = self._judge("train", self._base, PERSPECTIVES, SAMPLES)
        held_out = self._judge("test", self._base, PERSPECTIVES, SAMPLES)
        self.panel = asdict(panel_statistics(study.pairs["test"], held_out, ESCI, PERSPECTIVES))

    def tune(self, *, pooled_only: bool) -> None:
        """Tune the variants, each by one call of the library; ``pooled_only`` leaves out all but the paper's own."""
        pooled = self._curate()
        self._tune("pooled", pooled)
        if pooled_only:
            return
        aligned = self._curate(preferences=PreferenceConfig(between="same_perspective"))
        self._tune("single", replace(pooled, preferences=aligned.preferences), teachers="per_perspective")
        for name in PERSPECTIVES:
            tuned = self.folder / "single" / name / "sft" / "model"
            self._tune(f"across_{name}", pooled, model=str(tuned), sft=None)
        third = pooled.sft.take(list(range(0, len(pooled.sft), 3)))
        self._tune("third", replace(pooled, sft=third), dpo=None)
        self._tune("unfiltered", self._curate(filter="none"), dpo=None)

    def labels(self, split: Split, *, sampled: bool) -> dict[str, Labels]:
        """Return what each teacher says of the pairs of a split under the neutral prompt.

        Args:
            split: The split.
            sampled: Whether answers are drawn at `TEMPERATURE`, or are the likeliest, which `tune` has measured.
        """
        found: dict[str, Labels] = {}
        for name, file in TEACHERS.items():
            path = self.folder / file
            if not path.exists():
                continue
            if sampled:
                model = self._base if name == "base" else str(path.parent / "model")
                judgements = self._judge(split, model, ["neutral"], samples=1)
            else:
                judgements = list(read_judgements(path))
            labels = {each.pair_id: each.label for each in judgements}
            found[name] = [labels[pair.pair_id] for pair in self._study.pairs[split]]
        single = [found[name] for name in found if name in {f"SFT, {each}" for each in PERSPECTIVES}]
        return {**found, AVERAGE: average(single)} if single else found

    def _judge(self, split: Split, model: str, prompts: Sequence[str], samples: int) -> list[Judgement]:
        sampling = SamplingConfig(temperature=TEMPERATURE, max_tokens=MOST_TOKENS, seed=self._seed)
        teacher = TransformersTeacher(
            backend="transformers", model=model, batch_size=BATCH, sampling=sampling, device="cpu"
        )
        panel = [load_perspective(prompt_path(name)) for name in prompts]
        asked = (self._study.pairs[split], panel, ESCI, build_backend(teacher))
        with JudgementStore(self.folder / "judgements.sqlite") as store:
            judge(*asked, store, samples=samples)
            return list(judgements_of(*asked, store, samples=samples))

    def _curate(self, **options: Any) -> Curated:  # noqa: ANN401 - fields of CurateConfig
        preferences = options.pop("preferences", PreferenceConfig())
        config = CurateConfig(prompt=prompt_path("neutral"), preferences=preferences, **options)
        return curate(self._study.pairs["train"], self._judgements, ESCI, config, self._seed)

    def _tune(
        self, name: str, rows: Curated, model: str | None = None, **options: Any  # noqa: ANN401 - fields of TuneConfig
    ) -> None:  # fmt: skip
        generate = TransformersOptions(batch_size=BATCH, sampling=SamplingConfig(max_tokens=MOST_TOKENS), device="cpu")
        tune(
            TuneConfig(**{"adapter": "none", "sft": SFT, "dpo": DPO, "generate": generate, **options}),
            model=model or self._base,
            sft=rows.sft,
            preferences=rows.preferences,
            dev=[*self._study.pairs["dev"], *self._study.pairs["test"]],
            scale=ESCI,
            prompt=load_perspective(prompt_path("neutral")),
            folder=self.folder / name,
            seed=self._seed,
        )


def figures(study: Study, seeds: Sequence[Seed], split: Split, *, sampled: bool) -> dict[str, Any]:
    """Return the figures of a split: of each teacher, and of `COMPARISONS`."""
    pairs, by_seed = study.pairs[split], [seed.labels(split, sampled=sampled) for seed in seeds]
    labels = {name: [found[name] for found in by_seed] for name in by_seed[0]}
    return {
        "teachers": {name: mean_and_spread(pairs, each) for name, each in labels.items()},
        "differences": {
            f"{one} - {other}": difference(pairs, labels[one], labels[other])
            for one, other in COMPARISONS
            if one in labels and other in labels
        },
    }


def main() -> None:
    """Run the study, print its tables and write its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where models, answers and figures go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--pooled-only", action="store_true", help="base, pooled SFT and DPO, without the variants")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # So that the figures do not depend on the machine's cores.
    study = Study(folder=arguments.folder)
    seeds = [Seed(study, seed) for seed in arguments.seeds]
    for seed in seeds:
        seed.tune(pooled_only=arguments.pooled_only)
    found: dict[str, Any] = {
        "dev, likeliest answers": figures(study, seeds, "dev", sampled=False),
        "test, likeliest answers": figures(study, seeds, "test", sampled=False),
        "test, sampled answers": figures(study, seeds, "test", sampled=True),
    }
    for title, tables in found.items():
        print(f"\n{title}\n\n{markdown(**tables)}")
    found["panel"] = [seed.panel for seed in seeds]
    (arguments.folder / "figures.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
