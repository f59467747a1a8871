"""One item of a small language task: a prompt, its answer, and how an answer is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from interpflow.config.identity import Split, content_hash, split_of

# exact: the reference answer; set: any of the accepted answers; regex: what the pattern matches;
# number: the same number, however it is written; free: decided by a judge.
Scorer = Literal["exact", "set", "regex", "number", "free"]
SCORERS: tuple[Scorer, ...] = get_args(Scorer)


@dataclass(frozen=True)
class TaskItem:
    """A question of a task.

    prompt: text that ends where the answer begins. answer: the reference answer, with the space
    that it begins with, so that prompt + answer is the text whose log-probability is measured.
    accepted: every answer that counts as right, the reference answer among them, without outer
    spaces. pattern: regular expression of the scorer `regex`. kind: group within the task, such as
    "carry". family: what is independent of what, such as the fact behind several wordings.
    """

    task: str
    prompt: str
    answer: str
    scorer: Scorer = "exact"
    accepted: tuple[str, ...] = ()
    pattern: str = ""
    kind: str = ""
    family: str = ""
    source: str = "builtin"

    @property
    def example_id(self) -> str:
        """Content hash of everything that is asked and scored."""
        return content_hash(
            [self.task, self.prompt, self.answer, self.scorer, list(self.accepted), self.pattern]
        )

    @property
    def family_id(self) -> str:
        """Unit of inference."""
        return content_hash([self.task, self.family or self.prompt])

    @property
    def split(self) -> Split:
        return split_of(self.family_id)

    def to_row(self) -> dict[str, Any]:
        """A row of the table `surgery_items`."""
        return {
            "example_id": self.example_id,
            "family_id": self.family_id,
            "split": self.split,
            "task": self.task,
            "kind": self.kind,
            "source": self.source,
            "prompt": self.prompt,
            "answer": self.answer,
            "scorer": self.scorer,
            "accepted": list(self.accepted),
            "pattern": self.pattern,
            "family": self.family,
        }


def items_of_rows(rows: Sequence[dict[str, Any]]) -> list[TaskItem]:
    """The items of rows of the table `surgery_items`, in their order."""
    return [
        TaskItem(
            task=row["task"], prompt=row["prompt"], answer=row["answer"], scorer=row["scorer"],
            accepted=tuple(row["accepted"]), pattern=row["pattern"], kind=row["kind"],
            family=row["family"], source=row["source"],
        )
        for row in rows
    ]  # fmt: skip
