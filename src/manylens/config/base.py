"""What every section of the recipe is made of."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

#: Options for a class of another library, passed on word for word.
Options = dict[str, Any]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """A part of the recipe: immutable, and without room for unknown keys.

    Attributes:
        operational: Fields that say how the work is done and not what comes of it, such as a time-out; changing
            one makes no stage run again.
    """

    # constants: infinity stays infinity in config.yaml and fingerprints, where JSON's default is null.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    operational: ClassVar[frozenset[str]] = frozenset()

    def substance(self) -> dict[str, Any]:
        """Return the section as plain values, without what is operational; fingerprints are made of it."""
        tree = self.model_dump(mode="json", exclude=set(self.operational))
        parts = ((name, getattr(self, name)) for name in tree)
        return tree | {name: part.substance() for name, part in parts if isinstance(part, Section)}
