"""What a study is: arms, each a way to train and use a student, and which of them are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from manylens.config import Section
from manylens.errors import ConfigError, UnknownNameError
from manylens.evaluation.significance import METRICS

Inference = Literal["as_trained", "zero_latents"]
Slicing = Literal["locale", "query_kind"]


class Arm(Section):
    """One line of a study's table.

    Attributes:
        name: Short name, unique in the study.
        title: For tables.
        method: A name of `manylens.student.methods.METHODS`.
        overrides: What the arm changes in the recipe, as ``"path.to.key=value"``.
        inference: Use the student as it was trained, or give its head zeros in place of the latents.
        settings: The arm's place on the axes of a curve, such as ``{"rate": 0.2}``.
    """

    name: str = Field(pattern=r"^\w[\w.-]*$")
    title: str
    method: str = "lrkd"
    overrides: tuple[str, ...] = ()
    inference: Inference = "as_trained"
    settings: dict[str, float | str] = Field(default_factory=dict)


class Study(Section):
    """A question, the arms that answer it, and their comparisons.

    Attributes:
        name: Names the tables.
        title: Heading.
        question: What the study asks.
        arms: The lines of the table.
        baseline: The arm that every other arm is compared with, where `contrasts` names no comparisons.
        contrasts: Comparisons as pairs of arms, the treatment first.
        family: Metrics whose comparisons are corrected together, by Holm's method, within a split and a slice.
        slices: Columns of the predictions by whose values figures and comparisons are also given.
        measures: Names of `manylens.study.measures.MEASURES`: figures beyond those of the predictions.
        vectors: Keep the students' states of every pair, which some measures need.
    """

    name: str = Field(pattern=r"^\w[\w.-]*$")
    title: str
    question: str = ""
    arms: tuple[Arm, ...] = Field(min_length=1)
    baseline: str | None = None
    contrasts: tuple[tuple[str, str], ...] = ()
    family: tuple[str, ...] = ("accuracy", "macro_f1")
    slices: tuple[Slicing, ...] = ()
    measures: tuple[str, ...] = ()
    vectors: bool = False

    @model_validator(mode="after")
    def _names_fit(self) -> Study:
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise ValueError(f"arms must differ in name, got {names}")
        for name in {*([self.baseline] if self.baseline else []), *(name for pair in self.contrasts for name in pair)}:
            if name not in names:
                raise ValueError(f"{name!r} is no arm; the arms: {', '.join(names)}")
        for metric in self.family:
            if metric not in METRICS:
                raise ValueError(f"family: {metric!r} is no metric; the metrics: {', '.join(METRICS)}")
        return self

    def arm(self, name: str) -> Arm:
        """Return the arm called `name`.

        Raises:
            UnknownNameError: If there is none.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise UnknownNameError("arm", name, [arm.name for arm in self.arms])

    def comparisons(self) -> tuple[tuple[str, str], ...]:
        """Return the pairs of arms that are compared, the treatment first."""
        if self.contrasts or self.baseline is None:
            return self.contrasts
        return tuple((arm.name, self.baseline) for arm in self.arms if arm.name != self.baseline)


def load_study(path: Path) -> Study:
    """Read a study of one's own: a YAML file with the fields of `Study`.

    Raises:
        ConfigError: If the file is not YAML, or a field is wrong.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    try:
        return Study.model_validate(tree)
    except ValidationError as error:
        problems = (
            f"{'.'.join(map(str, item['loc'])) or 'study'}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        )
        raise ConfigError(f"{path}: {'; '.join(problems)}") from None
