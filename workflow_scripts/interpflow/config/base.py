"""What all settings share: strictness, names and ranges."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]
Share = Annotated[float, Field(ge=0, le=1)]
Dtype = Literal["float32", "bfloat16", "float16", "float64"]


class Settings(BaseModel):
    """Base of all settings: an unknown key is an error, values are never coerced silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Range(Settings):
    """Whole numbers from `min` to `max`, both included."""

    min: int = Field(ge=0)
    max: int = Field(ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.min > self.max:
            raise ValueError("min is larger than max")
        return self

    def values(self) -> tuple[int, ...]:
        return tuple(range(self.min, self.max + 1))
