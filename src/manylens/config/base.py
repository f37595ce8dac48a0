"""What every section of the recipe is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

#: Options for a class of another library, passed on word for word.
Options = dict[str, Any]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """A part of the recipe: immutable, and without room for unknown keys."""

    # constants: infinity stays infinity in config.yaml and fingerprints, where JSON's default is null.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")
