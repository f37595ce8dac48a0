"""Reading a recipe: YAML, environment variables and overrides become a checked `Config`."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from manylens.config import Config
from manylens.errors import ConfigError, MissingExtraError, UnknownNameError, nearest


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
    known = sorted(file.relative_to(packaged).with_suffix("").as_posix() for file in packaged.rglob("*.yaml"))
    raise ConfigError(
        f"no recipe at {path}{nearest(str(recipe), known)}; give a YAML file or one of {', '.join(known)}"
    )


class _Loader(yaml.SafeLoader):
    """YAML, with ``1e-4`` a number; PyYAML's YAML 1.1 makes a text of it."""


class _Dumper(yaml.SafeDumper):
    """What `_Loader` reads back unchanged."""


for _yaml in (_Loader, _Dumper):
    _yaml.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )

#: A YAML file, the name of a packaged recipe, the tree itself, or what became of one.
Recipe = str | Path | Mapping[str, Any] | Config


def load_config(recipe: Recipe, overrides: Sequence[str] = ()) -> Config:
    """Read a recipe; where it ``extends`` another, it is laid over that one.

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
        if "extends" in tree:
            tree = _extended(tree, Path(), source)
    else:
        path = recipe_path(recipe)
        source, tree = str(path), _read(path)
    for override in overrides:
        tree = _override(tree, override)
    tree = _interpolate(tree, "")
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{source}: " + "; ".join(_explain(error, tree))) from None


def _read(path: Path, heirs: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the tree of a recipe's file, laid over the recipe that it extends."""
    if path.resolve() in heirs:
        raise ConfigError(f"{path}: extends goes round in a circle; remove it from one of the recipes")
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping of sections, got {type(tree).__name__}")
    return _extended(tree, path.parent, str(path), (*heirs, path.resolve())) if "extends" in tree else tree


def _extended(tree: dict[str, Any], folder: Path, source: str, heirs: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Lay a tree over the recipe that its key ``extends`` names: a file beside it, or any recipe."""
    parent = tree["extends"]
    if not isinstance(parent, str):
        raise ConfigError(f"{source}: extends must name one recipe, got {parent!r}")
    beside = folder / parent
    inherited = _read(beside if beside.is_file() else recipe_path(parent), heirs)
    return _laid_over(inherited, {key: value for key, value in tree.items() if key != "extends"})


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with the keys of `above`; sections are merged, and anything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _laid_over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def dump_config(config: Config) -> str:
    """Return a configuration as the YAML that `load_config` reads back."""
    # In ASCII: PyYAML does not read back every line break of Unicode that it writes.
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False)


def _override(tree: dict[str, Any], text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"an override looks like student.extractor=gat, got {text!r}")
    try:
        parsed = yaml.load(value, _Loader)
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


def _explain(error: ValidationError, tree: Mapping[str, Any]) -> list[str]:
    lines = []
    for item in error.errors():
        location, path = item["loc"], _path(item["loc"], tree)
        if item["type"] == "extra_forbidden":
            known = _known_keys(location)
            lines.append(f"unknown key {path}{nearest(str(location[-1]), known)}; known here: {', '.join(known)}")
        elif item["type"] == "missing":
            lines.append(f"{path}{'.' if path else ''}{location[-1]} is required")
        elif item["type"] in ("union_tag_not_found", "union_tag_invalid"):
            key, members = _tags(_annotation(location))
            if item["type"] == "union_tag_not_found":
                lines.append(f"{path}.{key} is required: one of {', '.join(members)}")
            else:
                lines.append(f"{path}.{key}: {UnknownNameError(key, str(item['ctx']['tag']), members)}")
        elif not location:
            lines.append(item["msg"].removeprefix("Value error, "))
        else:
            lines.append(f"{path or 'recipe'}: {item['msg'].removeprefix('Value error, ')}, got {item['input']!r}")
    return lines


def _path(location: tuple[int | str, ...], tree: Any) -> str:  # noqa: ANN401 - a YAML tree has no narrower type
    """Return the keys of pydantic's location that the recipe has; pydantic also names the members of unions."""
    keys = []
    for key in location:
        within = key in tree if isinstance(tree, Mapping) else isinstance(tree, list) and isinstance(key, int)
        if within:
            keys.append(str(key))
            tree = tree[key]
    return ".".join(keys)


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that the section at `location` (pydantic's, its last key unknown) does have."""
    section = _annotation(location[:-1])
    assert isinstance(section, type) and issubclass(section, BaseModel)
    return list(section.model_fields)


def _annotation(location: tuple[int | str, ...]) -> Any:  # noqa: ANN401 - a type hint has no narrower type
    """Return the type at `location`, a path of field names and of the tags of discriminated unions."""
    found: Any = Config
    for key in location:
        if isinstance(found, type) and issubclass(found, BaseModel):
            field = found.model_fields[str(key)]
            # Optional sections: the one member that is not None.
            members = [member for member in get_args(field.annotation) if member is not NoneType]
            found = members[0] if len(members) == 1 else field if field.discriminator else field.annotation
        else:
            found = _tags(found)[1][str(key)]
    return found


def _tags(union: FieldInfo) -> tuple[str, dict[str, type[BaseModel]]]:
    """Return the key that tells the members of a discriminated union apart, and the members by its value."""
    key = str(union.discriminator)
    return key, {get_args(member.model_fields[key].annotation)[0]: member for member in get_args(union.annotation)}


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
    known, hints = [field.name for field in dataclasses.fields(receiver) if field.init], get_type_hints(receiver)
    for key, value in options.items():
        if key in reserved:
            raise ConfigError(f"{path}.{key} is set by manylens itself; remove it")
        if key not in known:
            raise ConfigError(f"unknown key {path}.{key}{nearest(key, known)}; known: the fields of {module}.{name}")
        if not _fits(value, hints[key]):
            raise ConfigError(f"{path}.{key}: {name} expects {_type_name(hints[key])}, got {value!r}")
    try:
        receiver(**{"output_dir": "unused", **(defaults or {}), **options})
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"{path}: {name} refuses these options: {error}") from None


def _fits(value: object, hint: Any) -> bool:  # noqa: ANN401 - a type hint has no narrower type
    """Return whether a value fits a hint of scalars; of any other hint the class itself has to judge."""
    kinds = set(get_args(hint)) if get_origin(hint) in (Union, UnionType) else {hint}
    if not kinds <= {bool, int, float, str, NoneType}:
        return True
    return type(value) in kinds or (type(value) is int and float in kinds)


def _type_name(hint: Any) -> str:  # noqa: ANN401 - a type hint has no narrower type
    return hint.__name__ if isinstance(hint, type) else str(hint)


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
