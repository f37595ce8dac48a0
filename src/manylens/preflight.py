"""Everything that can be wrong with a recipe, found before the first costly hour."""

from __future__ import annotations

import importlib.util
import inspect
from collections import deque
from typing import TYPE_CHECKING, cast

from manylens.config import TUNED_TEACHER, Config, StudentConfig
from manylens.data import input_files, recorded_judgements
from manylens.errors import ConfigError, MissingExtraError, StudentError, UnknownNameError, nearest
from manylens.products import ProductTemplate
from manylens.recipe import check_options
from manylens.records import Pair
from manylens.teacher import build_backend, load_perspective
from manylens.teacher.annotate import check_annotating
from manylens.teacher.backends import check_installed
from manylens.teacher.judge import check_sampling
from manylens.teacher.questions import requests_of
from manylens.teacher.spending import Budget
from manylens.teacher.tune import check_tuning

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_EXAMPLE = Pair(
    pair_id="q1:p1",
    query_id="q1",
    product_id="p1",
    query="unscented body lotion",
    title="Body Lotion, Fragrance Free",
    brand="Pellumire",
    attributes={"Size": "8 fl oz"},
    description="A light lotion.",
    locale="us",
    label=None,
)


def check(config: Config) -> None:
    """Check a recipe: its names, extras, data, prompts, templates and training options.

    Nothing is trained, downloaded beyond a model's configuration, or asked of a teacher.

    Raises:
        ConfigError: If a name or an option is wrong.
        DataError: If a data file is missing.
        TeacherError: If a prompt cannot be rendered, or the teacher cannot be built.
        StudentError: If the backbone or the encoder is not to be had.
        MissingExtraError: If an extra is not installed.
    """
    _check_data_and_teacher(config)
    _check_student(config)
    check_export(config)


def check_export(config: Config) -> None:
    """Check that the libraries of every variant of an export are installed.

    Raises:
        MissingExtraError: If one is not.
    """
    if config.export is None:
        return
    needed = {"onnx": "export", "onnxscript": "export", "onnxruntime": "export"}
    if any(variant.startswith("openvino") for variant in config.export.variants):
        needed["openvino"] = "openvino"
    if any(variant.endswith("int8") for variant in config.export.variants):
        needed["nncf"] = "export"
    for library, extra in needed.items():
        if importlib.util.find_spec(library) is None:
            raise MissingExtraError(library, extra)


def _check_data_and_teacher(config: Config) -> None:
    scale = config.labels.build()
    input_files(config.data)
    perspectives = [load_perspective(name) for name in config.judge.perspectives]
    form = config.teacher.answer_format
    deque(requests_of([_EXAMPLE], perspectives, scale, answer_format=form), maxlen=0)  # Renders every prompt.
    build_backend(config.teacher, recorded_judgements(config.data))
    check_installed(config.teacher.backend)
    check_sampling(config.teacher, config.judge)
    if config.judge.budget is not None:
        Budget.parse(config.judge.budget)
    load_perspective(config.curate.prompt)
    if config.tune is not None and config.tuned_model is not None:
        check_tuning(config.tune, config.tuned_model)
        check_installed(config.tune.generate.backend)
    check_annotating(config.annotate, config.tune)


def _check_student(config: Config) -> None:
    try:
        import ir_measures  # noqa: F401 - the stage evaluate needs it
        from sentence_transformers.util import is_sentence_transformer_model
        from transformers import AutoConfig

        from manylens.student.embedding import check_embedding
        from manylens.student.extractors import build_extractor
        from manylens.student.losses import GUIDE_LOSSES
        from manylens.student.methods import get_method
        from manylens.student.pretrained import resolve_pretrained
        from manylens.student.split import check_split
        from manylens.student.train import RESERVED_TRAINING_KEYS, TRAINING_DEFAULTS, hardware_precision
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "transformers", "train") from None

    student = config.student
    methods = [get_method(name) for name in (student.method, *student.baselines)]
    check_options(
        student.training,
        "transformers:TrainingArguments",
        "student.training",
        defaults={**TRAINING_DEFAULTS, **hardware_precision()},
        reserved=RESERVED_TRAINING_KEYS,
    )
    ProductTemplate(student.product_template).render(_EXAMPLE)
    if student.guide.loss not in GUIDE_LOSSES:
        raise UnknownNameError("guide loss", student.guide.loss, GUIDE_LOSSES)
    check_embedding(config.embed, config.tune)
    if config.embed.encoder != TUNED_TEACHER:
        encoder = resolve_pretrained(config.embed.encoder)
        try:
            if not is_sentence_transformer_model(encoder):
                AutoConfig.from_pretrained(encoder)  # sentence-transformers pools any other model's token states.
        except (OSError, ValueError) as error:
            raise StudentError(f"embed.encoder {config.embed.encoder!r} is not to be had: {error}") from error
    backbone = _backbone_config(resolve_pretrained(student.backbone), student)
    check_split(backbone, student.split_layers)
    lengths = {"max_length": student.max_length}
    if any("texts" in method.needs for method in methods):
        lengths["earlier.augmented_length"] = student.earlier.augmented_length
    for name, length in lengths.items():
        positions = getattr(backbone, "max_position_embeddings", length)
        if length > positions:
            raise ConfigError(
                f"student.{name} must be at most the {positions} positions of {student.backbone!r}, got {length}"
            )
    if any(method.extractor for method in methods):
        build_extractor(student.extractor, backbone.hidden_size, 1, 8, student.extractor_options)


def _backbone_config(backbone: str, student: StudentConfig) -> PreTrainedConfig:
    """Return the backbone's configuration under the recipe's options."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, PreTrainedModel

    try:
        config, unused = AutoConfig.from_pretrained(backbone, return_unused_kwargs=True, **student.backbone_options)
    except (OSError, ValueError) as error:
        raise StudentError(f"student.backbone {student.backbone!r} is not to be had: {error}") from error
    except StrictDataclassError as error:
        raise ConfigError(f"student.backbone_options: {error}") from None
    # What is no field of the configuration may still be an option of loading the weights.
    known = [*config.to_dict(), *inspect.signature(PreTrainedModel.from_pretrained).parameters]
    for key in unused:
        if key not in known:
            raise ConfigError(
                f"unknown key student.backbone_options.{key}{nearest(key, known)}; "
                f"known: the fields of {type(config).__name__}"
            )
    return cast("PreTrainedConfig", config)
