"""Reading a recipe: YAML, environment variables and overrides become a checked `Config`."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from manylens.config import LOADER_SECTIONS, Config
from manylens.errors import ConfigError, MissingExtraError, nearest


def recipe_path(recipe: str | Path) -> Path:
    """Return the file of a recipe: a path, or the name of a packaged recipe.

    Raises:
        ConfigError: If there is neither.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    packaged = Path(str(resources.files("manylens") / "recipes"))
    named = packaged / f"{recipe}.yaml"
    if named.is_file():
        return named
    known = sorted(file.stem for file in packaged.glob("*.yaml"))
    raise ConfigError(
        f"no recipe at {path}{nearest(str(recipe), known)}; give a YAML file or one of {', '.join(known)}"
    )


#: A YAML file, the name of a packaged recipe, the tree itself, or what became of one.
Recipe = str | Path | Mapping[str, Any] | Config


def load_config(recipe: Recipe, overrides: Sequence[str] = ()) -> Config:
    """Read a recipe.

    Args:
        recipe: A YAML file, the name of a packaged recipe, the tree itself, or a configuration.
        overrides: ``"path.to.key=value"``; the value is read as YAML.

    Returns:
        The checked configuration.

    Raises:
        ConfigError: For a missing file, broken YAML, an unset variable, an unknown key or a wrong value.
    """
    if isinstance(recipe, Config):
        recipe = recipe.model_dump(mode="json")
    if isinstance(recipe, Mapping):
        source, tree = "the recipe", dict(recipe)
    else:
        path = recipe_path(recipe)
        source = str(path)
        try:
            tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{source} is not valid YAML: {error}") from None
        if not isinstance(tree, dict):
            raise ConfigError(f"{source} must hold a mapping of sections, got {type(tree).__name__}")
    for override in overrides:
        tree = _override(tree, override)
    tree = _interpolate(tree, "")
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{source}: " + "; ".join(_explain(error))) from None


def _override(tree: dict[str, Any], text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"an override looks like student.extractor=gat, got {text!r}")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {key}: the value is not valid YAML: {error}") from None
    *parents, last = key.split(".")
    root = dict(tree)
    node = root
    for part in parents:
        child = node.get(part)
        if child is not None and not isinstance(child, dict):
            raise ConfigError(f"override {key}: {part} is a value, not a section")
        node[part] = dict(child or {})
        node = node[part]
    node[last] = parsed
    return root


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def _interpolate(node: Any, path: str) -> Any:  # noqa: ANN401 - a YAML tree has no narrower type
    if isinstance(node, dict):
        return {key: _interpolate(value, f"{path}.{key}" if path else str(key)) for key, value in node.items()}
    if isinstance(node, list):
        return [_interpolate(value, f"{path}[{index}]") for index, value in enumerate(node)]
    if not isinstance(node, str):
        return node

    def replace(match: re.Match[str]) -> str:
        value = os.environ.get(match[1], match[2])
        if value is None:
            raise ConfigError(
                f"{path}: environment variable {match[1]} is not set; set it, or write ${{{match[1]}:-default}}"
            )
        return value

    return _VARIABLE.sub(replace, node)


def _explain(error: ValidationError) -> list[str]:
    lines = []
    for item in error.errors():
        # The tag of a discriminated union (the loader's name) stands in pydantic's location, not in the recipe.
        keys = [str(key) for index, key in enumerate(item["loc"]) if not (index == 1 and item["loc"][0] == "data")]
        path = ".".join(keys)
        if item["type"] == "extra_forbidden":
            known = _known_keys(item["loc"])
            lines.append(f"unknown key {path}{nearest(keys[-1], known)}; known here: {', '.join(known)}")
        elif item["type"] == "missing":
            lines.append(f"{path} is required")
        elif item["type"] == "union_tag_not_found":
            lines.append("data.loader is required: one of demo, esci, wands, table, hub")
        elif item["type"] == "union_tag_invalid":
            lines.append(f"data.loader: {item['msg']}")
        else:
            lines.append(f"{path or 'recipe'}: {item['msg'].removeprefix('Value error, ')}, got {item['input']!r}")
    return lines


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that the section at `location` (pydantic's, its last key unknown) does have."""
    if location[0] == "data" and len(location) > 1:
        return list(LOADER_SECTIONS[str(location[1])].model_fields)
    model: type[BaseModel] = Config
    for key in location[:-1]:
        section = model.model_fields[str(key)].annotation
        assert isinstance(section, type)
        model = section
    return list(model.model_fields)


def check_options(
    options: Mapping[str, Any],
    target: str,
    path: str,
    *,
    defaults: Mapping[str, Any] | None = None,
    reserved: Sequence[str] = (),
) -> None:
    """Check a block of options against the dataclass that will receive it, before anything heavy starts.

    Args:
        options: The block.
        target: ``"module:Class"`` of the receiver, such as ``"transformers:TrainingArguments"``.
        path: Where the block stands in the recipe.
        defaults: Options that manylens gives where the block has none.
        reserved: Keys that manylens sets itself.

    Raises:
        ConfigError: For an unknown or a reserved key, or a value that the class refuses.
        MissingExtraError: If the class's library is not installed.
    """
    module, _, name = target.partition(":")
    try:
        receiver = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or module, "teacher" if module == "trl" else "train") from None
    known = [field.name for field in dataclasses.fields(receiver) if field.init]
    for key in options:
        if key in reserved:
            raise ConfigError(f"{path}.{key} is set by manylens itself; remove it")
        if key not in known:
            raise ConfigError(f"unknown key {path}.{key}{nearest(key, known)}; known: the fields of {module}.{name}")
    try:
        receiver(**{"output_dir": "unused", **(defaults or {}), **options})
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"{path}: {name} refuses these options: {error}") from None


def parse_columns(mappings: Sequence[str]) -> dict[str, str | list[str]]:
    """Return a column mapping from ``"field=column"`` texts; a comma parts several columns.

    Raises:
        ConfigError: If a text has another form.
    """
    columns: dict[str, str | list[str]] = {}
    for mapping in mappings:
        name, equals, column = mapping.partition("=")
        if not equals or not name or not column:
            raise ConfigError(f"a column mapping looks like title=product_name, got {mapping!r}")
        columns[name] = column.split(",") if "," in column else column
    return columns
