"""The probe of a study: which of a student's states know the words of the rationale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations

import numpy as np
import pyarrow.parquet as pq

from manylens.artefacts import rationales_path
from manylens.config import Config
from manylens.errors import DataError, StageError
from manylens.evaluation.keywords import Keywords, choose_keywords, verdict_words
from manylens.evaluation.probe import probe
from manylens.records import Pair
from manylens.run_folder import RunFolder
from manylens.study.arms import Study
from manylens.study.job import Job, Places
from manylens.study.measures.lines import KIND_TITLES, Line, Measured, States, rows_of, upstream_pairs
from manylens.study.rows import RESAMPLES

#: Principal components at which states of different dimension are compared.
_COMPONENTS = 64


def measure_probe(study: Study, jobs: Mapping[str, Sequence[Job]], places: Places) -> Measured:
    """Probe the states of every arm for words of the rationales, on pairs that no student was trained on.

    The pairs are those of dev and test that have a rationale, of test only where `judge.splits` has it. The words of
    ``keyword_f1`` stand in neither query nor product, and are no label's name; those of ``verdict_f1_NAME`` are the
    ones in which the perspective NAME words its verdicts. ``_pca`` reads 64 principal components of any state.

    Raises:
        StageError: If no pair of dev and test has a rationale, or a student's states were not kept.
    """
    guided = next((job for of_arm in jobs.values() for job in of_arm if job.config.student.method != "bert"), None)
    first = guided or jobs[study.arms[0].name][0]
    wanted = _wanted(first, places)
    lines = [
        (f"{arm.name}.{kind}", f"{arm.title}, {KIND_TITLES[kind]}", kind, states)
        for arm in study.arms
        for states in [[States(job, places) for job in jobs[arm.name]]]
        for kind in reversed(states[0].arrays)
    ]
    compared = [(one[0], other[0]) for one, other in combinations(lines, 2)]
    measured = Measured()
    confidence, seed = first.config.evaluate.confidence, first.config.seed
    for metric, (pairs, words) in wanted.items():
        ids, queries = [pair.pair_id for pair in pairs], [pair.query_id for pair in pairs]
        for components, suffix in ((None, ""), (_COMPONENTS, "_pca")):
            ask = partial(
                probe,
                keywords=words.matrix,
                groups=queries,
                components=components,
                samples=RESAMPLES,
                confidence=confidence,
                seed=seed,
            )
            answers = {name: [ask(each.of(kind, ids)) for each in states] for name, _, kind, states in lines}
            rows = rows_of(
                study,
                [Line(name, title, [answer.macro_f1 for answer in answers[name]]) for name, title, _, _ in lines],
                compared,
                split="dev+test",
                metric=f"{metric}{suffix}",
                queries=len(set(queries)),
                pairs=len(pairs),
                confidence=confidence,
                seed=seed,
            )
            measured.figures.extend(rows.figures)
            measured.contrasts.extend(rows.contrasts)
        (prior,) = {answer.prior for of_seeds in answers.values() for answer in of_seeds}
        measured.notes.append(
            f"{metric}: {len(words.words)} words in {len(pairs):,} pairs of {len(set(queries)):,} queries; saying of "
            f"every pair that the word is there gets {prior:.3f}. The words: {', '.join(words.words)}."
        )
    return measured


def _wanted(job: Job, places: Places) -> dict[str, tuple[list[Pair], Keywords]]:
    """Return what is asked for: by metric, the pairs and the words in their rationales."""
    pairs = {pair.pair_id: pair for pair in upstream_pairs(job, places).split("dev", "test")}
    texts: dict[str, dict[str, str]] = {}
    labels: dict[str, dict[str, str]] = {}
    table = pq.read_table(rationales_path(RunFolder(places.upstream(job), job.config)))
    for row in table.to_pylist():
        if row["pair_id"] in pairs:
            texts.setdefault(row["perspective"], {}).setdefault(row["pair_id"], row["rationale"])
            labels.setdefault(row["perspective"], {}).setdefault(row["pair_id"], row["label"])
    told = [pair for pair in pairs.values() if any(pair.pair_id in of for of in texts.values())]
    if not told:
        raise StageError("the probe needs rationales of dev or test pairs: --set 'judge.splits=[train,dev,test]'")
    joined = ["\n".join(of[pair.pair_id] for of in texts.values() if pair.pair_id in of) for pair in told]
    names = {word for name in job.config.labels.build().names for word in name.casefold().split()}
    wanted = {"keyword_f1": (told, choose_keywords(told, joined, exclude=names))}
    for perspective in texts if len(texts) > 1 else ():
        found = _verdicts(job.config, told, perspective, texts, labels[perspective])
        if found is not None:
            wanted[f"verdict_f1_{perspective}"] = found
    return wanted


def _verdicts(
    config: Config,
    pairs: Sequence[Pair],
    perspective: str,
    texts: Mapping[str, Mapping[str, str]],
    labels: Mapping[str, str],
) -> tuple[list[Pair], Keywords] | None:
    """Return the words of a perspective's verdicts; ``None`` where it has none of its own."""
    scale = config.labels.build()
    told = [pair for pair in pairs if pair.pair_id in labels]
    others = [
        "\n".join(of[pair.pair_id] for name, of in texts.items() if name != perspective and pair.pair_id in of)
        for pair in told
    ]
    argued = np.array([scale.index(labels[pair.pair_id]) for pair in told])
    try:
        return told, verdict_words(told, [texts[perspective][pair.pair_id] for pair in told], others, argued)
    except DataError:
        return None
