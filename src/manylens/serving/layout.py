"""The export folder, said once: which files it has, and what its card says.

    export/
      rationales/    the training rationales, where the latents were trained towards them
      parity.json    every variant's figures against PyTorch, written last
      classes/       a logit for each class
      ranking/       one logit, whose sigmoid is the expected gain

Each of the two holds ``config.json``, the tokenizer's files, its card ``manylens.json`` and the files of `VARIANTS`.
``classes`` of a student with split layers also has its `PARTS`, in each of ONNX's variants.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from manylens.errors import StudentError
from manylens.files import write_json

#: The file of each variant, within `classes` or `ranking`.
VARIANTS: Mapping[str, str] = {
    "onnx_fp32": "onnx/model.onnx",
    "onnx_int8": "onnx/model_int8.onnx",
    "openvino_bf16": "openvino/openvino_model_bf16.xml",
    "openvino_int8": "openvino/openvino_model_int8.xml",
}
#: The graphs of a split student: the lower layers over queries, and over products, and what joins the two.
PARTS = ("lower_query", "lower_product", "upper")
#: The variant that is no file of an export: the student itself.
TORCH = "torch"
#: What is taken where nothing is asked for, the first of these that was exported.
_PREFERRED = ("onnx_int8", "onnx_fp32", "openvino_int8", "openvino_bf16")
EXPORT, CLASSES, RANKING = "export", "classes", "ranking"
CARD, PARITY = "manylens.json", "parity.json"
#: The version of the card's layout.
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Card:
    """What ``manylens.json`` says of an exported head.

    Attributes:
        format: Version of this layout.
        labels: The classes, best first, in the order of the logits.
        gains: Gain of each class, as the scale has it.
        gain_scale: What the ranking head's gains are divided by: the largest where it is above 1, else 1.
        temperature: What the graph divides the student's logits by.
        inputs: The graph's inputs: ``input_ids``, ``attention_mask`` and, where the backbone has them,
            ``token_type_ids``; each int64 of shape (batch, tokens).
        max_length: Most tokens of a pair.
        product_template: The Jinja source that renders a product.
        model: The student's name.
        versions: Of the libraries that exported it.
        variants: The graphs that were exported, relative to the card's folder; `VARIANTS` has their names.
        split_layers: In how many first layers query and product are apart; 0 where they are together in all.
        product_length: Most tokens of a split student's product; ``None`` for other students.
        lower_fingerprint: Of all that a split student's lower states follow from; a store of states has the same.
    """

    format: int = FORMAT
    labels: tuple[str, ...]
    gains: tuple[float, ...]
    gain_scale: float = 1.0
    temperature: float = 1.0
    inputs: tuple[str, ...] = ()
    max_length: int = 0
    product_template: str = ""
    model: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    variants: tuple[str, ...] = ()
    split_layers: int = 0
    product_length: int | None = None
    lower_fingerprint: str = ""

    @classmethod
    def load(cls, folder: str | Path) -> Card:
        """Read the card of a head's folder.

        Args:
            folder: ``classes`` or ``ranking`` of an export.

        Raises:
            StudentError: If there is none, it is damaged, or it is of another format.
        """
        path = Path(folder) / CARD
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["format"] != FORMAT:
                raise StudentError(
                    f"{path}: expected format {FORMAT}, got {values['format']!r}; export the student again"
                )
            known = [entry.name for entry in fields(cls) if entry.name in values]
            return cls(**{name: _tuple(values[name]) for name in known})
        except (FileNotFoundError, NotADirectoryError):
            raise StudentError(f"{folder} is no export: it has no {CARD}; make one with: manylens export RUN") from None
        except (ValueError, TypeError, KeyError) as error:
            raise StudentError(f"{path} is damaged ({error!r}); export the student again") from None

    def save(self, folder: str | Path) -> None:
        """Write the card into a head's folder, whole or not at all."""
        write_json(Path(folder) / CARD, asdict(self))


def part_file(part: str, variant: str) -> str:
    """Return the file of a split student's part, within `classes`.

    Args:
        part: One of `PARTS`.
        variant: ``onnx_fp32`` or ``onnx_int8``.
    """
    return VARIANTS[variant].replace("model", part)


def _tuple(value: Any) -> Any:  # noqa: ANN401 - a value of JSON
    return tuple(value) if isinstance(value, list) else value


def classes_folder(path: str | Path) -> Path:
    """Return the folder of the class head.

    Args:
        path: That folder, an export folder, or a run folder.

    Raises:
        StudentError: If nothing was exported there, the run has another student by now, or it is the ranking head's
            folder.
    """
    path = Path(path)
    if path.name == RANKING and (path / CARD).is_file():
        raise StudentError(
            f"{path} has one score and no classes; expected the folder beside it: {path.parent / CLASSES}"
        )
    for folder in (path, path / CLASSES, path / EXPORT / CLASSES):
        if (folder / CARD).is_file():
            if (path / "config.yaml").is_file() and not (path / EXPORT / "done.json").is_file():
                raise StudentError(
                    f"{path}: its export is of an earlier student; export it again: manylens export {path}"
                )
            return folder
    raise StudentError(f"{path}: nothing is exported there; export a run with: manylens export RUN")


def open_model(path: Path, variant: str | None) -> tuple[Path, str, Card | None]:
    """Find what `Scorer.load` is asked for.

    Args:
        path: An export folder, its folder ``classes``, a run folder that has an export, or a student's folder.
        variant: A name of `VARIANTS`, or `TORCH`; ``None`` takes the first that there is.

    Returns:
        The folder to read, the variant, and the card of an export; a student has none.

    Raises:
        StudentError: If there is no such export or variant.
    """
    if not path.is_dir():
        raise StudentError(
            f"expected the folder of an export, a run or a student, got {str(path)!r}, which is no folder"
        )
    if (path / "config.json").is_file() and not (path / CARD).is_file():
        if variant not in (None, TORCH):
            raise StudentError(
                f"{path} is a student's folder, which has no {variant}; make an export with: manylens export RUN, "
                f"or take the variant {TORCH}"
            )
        return path, TORCH, None
    folder = classes_folder(path)
    card = Card.load(folder)
    exported = [name for name in _PREFERRED if VARIANTS[name] in card.variants]
    if variant == TORCH:
        raise StudentError(
            f"{path} is an export; the variant {TORCH} takes a student's folder, such as RUN/distil/NAME"
        )
    if variant is None and exported:
        variant = exported[0]
    if variant is None or variant not in exported:
        raise StudentError(
            f"{folder} has no variant {variant or 'at all'}; exported: {', '.join(exported) or 'none'}; "
            "export the student again"
        )
    return folder, variant, card
