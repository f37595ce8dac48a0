"""Ranking figures of each query: nDCG with the scale's gains, and the reciprocal rank."""

from __future__ import annotations

import hashlib

import numpy as np

from manylens.evaluation._optional import optional
from manylens.evaluation.predictions import FloatArray, Predictions
from manylens.records import LabelScale

# trec_eval knows whole gains only; nDCG is a ratio of gains, so their unit does not matter.
_GAIN_UNIT = 10_000


def expected_gain(logits: FloatArray, scale: LabelScale) -> FloatArray:
    """Return the score that ranks products: the mean of the gains under the predicted probabilities.

    Args:
        logits: Shape (pairs, classes).
        scale: Gives the gains.

    Returns:
        ``sum_c p(c) gain(c)``, in [0, 1], shape (pairs,).
    """
    probabilities: FloatArray = optional("scipy.special").softmax(logits, axis=1)
    gains: FloatArray = probabilities @ np.asarray(scale.gain_vector())
    return gains


def rank_queries(predictions: Predictions, scale: LabelScale, cutoff: int) -> tuple[FloatArray, FloatArray]:
    """Rank the judged products of each query by expected gain.

    nDCG follows Järvelin and Kekäläinen (2002, doi 10.1145/582415.582418) as trec_eval computes it: the
    gain at rank i is divided by ``log2(i + 1)``, the ideal order is that of the query's judged products,
    and a query whose gains are all zero counts 0. Gains are taken to four decimals. The reciprocal rank is that
    of the first product that has the scale's best label; a query without one counts 0.

    Products with equal scores are ordered by a hash of their pair_id: the same on every run and every
    order of rows, and unrelated to the label, as the order of a file often is not.

    Args:
        predictions: The judged pairs.
        scale: Gives the gains and the best label.
        cutoff: Ranks that nDCG looks at.

    Returns:
        nDCG and the reciprocal rank of each query, both of shape (queries,).
    """
    ir_measures = optional("ir_measures")
    best = len(scale.names) - 1
    ndcg = ir_measures.nDCG(
        cutoff=cutoff, gains={best - index: round(gain * _GAIN_UNIT) for index, gain in enumerate(scale.gain_vector())}
    )
    reciprocal_rank = ir_measures.RR(rel=best)
    relevance = best - predictions.gold

    pair_ids = predictions.table["pair_id"].to_numpy()
    tie_break = [hashlib.blake2b(pair_id.encode(), digest_size=8).digest() for pair_id in pair_ids]
    order = np.lexsort((np.asarray(tie_break, dtype="S8"), -expected_gain(predictions.logits, scale)))
    judged: dict[str, dict[str, int]] = {str(query): {} for query in range(predictions.queries)}
    ranked: dict[str, dict[str, float]] = {query: {} for query in judged}
    for row in order:
        query, product = str(predictions.query[row]), str(row)
        judged[query][product] = int(relevance[row])
        # The rank itself is the score handed on: trec_eval's own order of ties never comes into play.
        ranked[query][product] = -float(len(ranked[query]))

    values = {ndcg: np.zeros(predictions.queries), reciprocal_rank: np.zeros(predictions.queries)}
    for metric in ir_measures.iter_calc([ndcg, reciprocal_rank], judged, ranked):
        values[metric.measure][int(metric.query_id)] = metric.value
    return values[ndcg], values[reciprocal_rank]
