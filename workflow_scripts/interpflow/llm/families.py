"""Which models come from the same hands: families by name, and when two names are one model.

A model judges its own kind kindly (and shares its errors), so what checks must be of another family
than what is checked. Names are all there is to go by; `family` in the settings of a role overrules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# A name's family, by what it contains where no letter stands before it. The more particular first:
# what a pattern has matched, later ones do not see.
_PATTERNS: tuple[tuple[str, str], ...] = (
    ("eleuther", r"gpt[-_]?(?:neox?|j)(?![a-z])|pythia"),
    ("gpt", r"gpt|chatgpt|davinci|o[134](?![a-z0-9])"),
    ("claude", r"claude"),
    ("gemini", r"gemini"),
    ("gemma", r"(?:code|shield|recurrent|pali|med|embedding)?gemma"),
    ("llama", r"(?:code|tiny|open_?)?llama|vicuna|alpaca"),
    ("qwen", r"qwen|qwq|qvq"),
    ("mistral", r"mi[sx]tral|mini?stral|codestral|magistral|devstral|mathstral|pixtral"),
    ("deepseek", r"deepseek"),
    ("olmo", r"olmo(?:e)?"),
    ("phi", r"phi(?![a-z])"),
    ("command", r"command[-_]?(?:r|a|xlarge|light|nightly)|c4ai|aya(?![a-z])"),
    ("grok", r"grok"),
    ("glm", r"(?:chat)?glm"),
    ("yi", r"yi(?![a-z])"),
    ("falcon", r"falcon"),
    ("granite", r"granite"),
    ("nemotron", r"nemotron|minitron"),
    ("nova", r"nova(?![a-z])"),
    ("kimi", r"kimi|moonlight"),
    ("minimax", r"minimax"),
    ("ernie", r"ernie"),
    ("hunyuan", r"hunyuan"),
    ("internlm", r"internlm"),
    ("smollm", r"smollm"),
    ("stablelm", r"stablelm"),
    ("starcoder", r"starcoder"),
    ("opt", r"opt(?![a-z])"),
    ("bloom", r"bloomz?"),
    ("mpt", r"mpt(?![a-z])"),
    ("jamba", r"jamba"),
    ("exaone", r"exaone"),
)  # fmt: skip
_SIZE = re.compile(r"(?<![a-z0-9.])(\d+x)?(\d+(?:\.\d+)?)([bm])(?![a-z0-9])")


@dataclass(frozen=True)
class ModelIdentity:
    """A model as far as its name tells.

    `name` is a hub id's, path's or service id's last part in lower case; `size` its parameters as
    written ("8b"), empty where the name has none.
    """

    name: str
    families: frozenset[str]
    size: str
    is_known: bool = True

    def same_model(self, other: ModelIdentity) -> bool:
        """Equal names; or one family in one size, as a base model and its chat variant are."""
        both_sized = self.size and self.size == other.size
        return self.name == other.name or bool(both_sized and self.families & other.families)


def family_of(model: str) -> str:
    """The family of a model id: the first that its last part names.

    A name of no known family is its own family, up to its first digit or dash.
    """
    found = _found(base_name(model))
    return min(found, key=lambda family: found[family]) if found else _stem(base_name(model))


def identity_of(model: str, family: str | None = None) -> ModelIdentity:
    """Everything a model id tells. A distilled model (DeepSeek-R1-Distill-Llama-8B) is of both
    families. `family` is what the user says, and overrules."""
    name = base_name(model)
    size = _SIZE.search(name)
    families = {family.strip().lower()} if family else set(_found(name)) or {_stem(name)}
    return ModelIdentity(
        name=name,
        families=frozenset(families),
        size="".join(part or "" for part in size.groups()) if size else "",
        is_known=bool(family or _found(name)),
    )


def base_name(model: str) -> str:
    """The last part of a hub id, path or service id, in lower case."""
    parts = [part for part in re.split(r"[/\\]", model.lower()) if part]
    return parts[-1] if parts else ""


def _found(name: str) -> dict[str, int]:
    """Families that a name contains, with the place of the first mention."""
    found: dict[str, int] = {}
    for family, pattern in _PATTERNS:
        matches = list(re.finditer(rf"(?<![a-z])(?:{pattern})", name))
        if matches:
            found[family] = matches[0].start()
            name = re.sub(rf"(?<![a-z])(?:{pattern})", lambda match: " " * len(match[0]), name)
    return found


def _stem(name: str) -> str:
    return re.split(r"[\d-]", name)[0] or name
