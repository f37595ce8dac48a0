"""The columns of a table of pairs."""

from __future__ import annotations

import pyarrow as pa

ATTRIBUTES_TYPE = pa.map_(pa.string(), pa.string())

#: One row a pair; the columns are the fields of `manylens.records.Pair`, in their order.
PAIR_SCHEMA = pa.schema(
    [
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("product_id", pa.string(), nullable=False),
        pa.field("query", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("brand", pa.string(), nullable=False),
        pa.field("attributes", ATTRIBUTES_TYPE, nullable=False),
        pa.field("description", pa.string(), nullable=False),
        pa.field("locale", pa.string(), nullable=False),
        pa.field("query_kind", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=True),
        pa.field("split", pa.string(), nullable=False),
    ]
)

#: One row a product, with the fields that say what it is.
PRODUCT_SCHEMA = pa.schema(
    [PAIR_SCHEMA.field(name) for name in ("product_id", "title", "brand", "attributes", "description", "locale")]
)

#: A checked row before its split is settled (``split`` is null where the source has none), with its place.
CHECKED_SCHEMA = pa.schema(
    [
        *(field.with_nullable(True) if field.name == "split" else field for field in PAIR_SCHEMA),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
    ]
)

#: Rows read or written at a time: some tens of megabytes of text at most.
BATCH_ROWS = 8192
