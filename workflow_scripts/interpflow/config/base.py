"""What all settings share: strictness, names and ranges."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def _each_once(names: list[str]) -> list[str]:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"listed twice: {', '.join(repeated)}")
    return names


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]
Share = Annotated[float, Field(ge=0, le=1)]
# An empty list could be taken for "none" or for "all": null says all.
Names = Annotated[list[str], Field(min_length=1), AfterValidator(_each_once)]
# Bounds no study reaches; they stop a slip of the finger from filling the memory.
MAX_LENGTH, MAX_ITEMS = 1000, 1_000_000
Dtype = Literal["float32", "bfloat16", "float16", "float64"]


class Settings(BaseModel):
    """Base of all settings: an unknown key is an error, values are never coerced silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Range(Settings):
    """Whole numbers from `min` to `max`, both included."""

    min: int = Field(ge=0, le=MAX_LENGTH)
    max: int = Field(ge=0, le=MAX_LENGTH)

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.min > self.max:
            raise ValueError("min is larger than max")
        return self

    def values(self) -> tuple[int, ...]:
        return tuple(range(self.min, self.max + 1))
