import pyarrow as pa
import pytest

from manylens.errors import DataError, StudentError
from manylens.evaluation import PREDICTION_SCHEMA
from manylens.evaluation.predictions import Predictions
from manylens.records import ESCI

from .build import sure, table

ROWS = table([("q2", "exact", sure("exact")), ("q1", None, sure("exact")), ("q1", "irrelevant", [1.0, 2.0, 3.0, 2.5])])


def replaced(name: str, values: list[object]) -> pa.Table:
    index = ROWS.column_names.index(name)
    return ROWS.set_column(index, name, pa.array(values, type=PREDICTION_SCHEMA.field(name).type))


def test_judged_rows_sorted_by_pair_with_the_rest_counted() -> None:
    predictions = Predictions.from_table(ROWS, ESCI)
    assert predictions.table["pair_id"].to_pylist() == ["q1:2", "q2:0"]
    assert predictions.gold.tolist() == [3, 0]
    assert predictions.predicted.tolist() == [2, 0]
    assert (len(predictions), predictions.queries, predictions.unjudged) == (2, 2, 1)


def test_other_column_order_wider_types_and_further_columns_are_taken() -> None:
    wide = pa.table(
        {
            "score": pa.array([0.1, 0.2, 0.3]),
            "logits": ROWS["logits"].cast(pa.list_(pa.float64())),
            **{name: ROWS[name].cast(pa.large_string()) for name in reversed(PREDICTION_SCHEMA.names[:-1])},
        }
    )
    assert Predictions.from_table(wide, ESCI).table.equals(Predictions.from_table(ROWS, ESCI).table)


def test_an_empty_table_has_no_pairs() -> None:
    predictions = Predictions.from_table(PREDICTION_SCHEMA.empty_table(), ESCI)
    assert (len(predictions), predictions.queries, predictions.logits.shape) == (0, 0, (0, 4))


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (ROWS.drop_columns(["label"]), r"lack the columns \['label'\]"),
        (ROWS.set_column(6, "logits", pa.array(["a", "b", "c"])), "do not fit the schema"),
        (replaced("query_id", ["q2", None, "q1"]), "column 'query_id' has 1 missing values"),
        (replaced("pair_id", ["b", "a", "b"]), "pair b stands there more than once"),
        (replaced("label", ["exact", None, "perfect"]), "pair q1:2 has the label 'perfect', expected one of"),
    ],
)
def test_a_malformed_table_is_refused(predictions: pa.Table, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Predictions.from_table(predictions, ESCI)


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (
            [0.0, 1.0, float("nan"), 0.0],
            "1 of 2 pairs have logits that are not finite.*pair q1:2; the training diverged",
        ),
        ([0.0, 1.0, float("-inf"), 0.0], "not finite"),
        ([0.0, 1.0, None, 0.0], "not finite"),
        ([0.0, 1.0, 2.0], "pair q1:2 has 3 logits, expected 4"),
    ],
)
def test_logits_must_be_one_finite_number_for_each_class(logits: list[float | None], message: str) -> None:
    with pytest.raises(StudentError, match=message):
        Predictions.from_table(replaced("logits", [sure("exact"), sure("exact"), logits]), ESCI)


def test_where_counts_queries_anew() -> None:
    predictions = Predictions.from_table(table([("q1", "exact", sure("exact"))] * 2, locales=["us", "es"]), ESCI)
    part = predictions.where("locale", "es", ESCI)
    assert (len(part), part.queries, part.query.tolist()) == (1, 1, [0])
