"""The answers of a prompt as one tree of tokens, so that shared beginnings are computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from interpflow.errors import UserError


@dataclass(frozen=True)
class AnswerTrie:
    """Inner nodes of the tree of answers, the root (the prompt itself) first.

    Node i > 0 continues node `parents[i]` with `tokens[i]`; `depths[0]` is 0 and
    `tokens[0]`, `parents[0]` are unused. An answer's last token is no node: nothing follows it.
    `edges` are the (node, next token) pairs whose probability is needed; `paths[a]` are the
    edges, as indices into `edges`, whose log-probabilities add up to answer a's.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    depths: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]
    paths: tuple[tuple[int, ...], ...]

    @property
    def n_inner(self) -> int:
        """Inner nodes below the root: the tokens to run besides the prompt's."""
        return len(self.tokens) - 1

    def path_to(self, node: int) -> list[int]:
        """The nodes from below the root down to `node`."""
        path: list[int] = []
        while node:
            path.append(node)
            node = self.parents[node]
        return path[::-1]

    def tips(self) -> list[int]:
        """Inner nodes without inner children: running the way to each of them visits all."""
        with_children = set(self.parents[1:])
        return [node for node in range(len(self.tokens)) if node not in with_children]

    def ancestry(self) -> torch.Tensor:
        """[inner, inner] bool: entry i, j says that node j+1 is node i+1 or above it."""
        seen = torch.eye(self.n_inner, dtype=torch.bool)
        for node in range(1, len(self.tokens)):
            parent = self.parents[node]
            if parent:
                seen[node - 1] |= seen[parent - 1]
        return seen


def build_trie(continuations: Sequence[Sequence[int]], answers: Sequence[str]) -> AnswerTrie:
    """Build the tree of the answers' token ids.

    Raises UserError when one answer's tokens begin another's: the probability of the shorter one
    would contain that of the longer.
    """
    tokens, parents, depths = [-1], [-1], [0]
    children: dict[tuple[int, int], int] = {}
    edges: dict[tuple[int, int], int] = {}
    paths: list[tuple[int, ...]] = []
    for ids in continuations:
        node, path = 0, []
        for place, token in enumerate(ids):
            path.append(edges.setdefault((node, token), len(edges)))
            if place == len(ids) - 1:
                break
            if (node, token) not in children:
                children[node, token] = len(tokens)
                tokens.append(token)
                parents.append(node)
                depths.append(depths[node] + 1)
            node = children[node, token]
        paths.append(tuple(path))
    keys = list(edges)
    for index, path in enumerate(paths):
        if keys[path[-1]] in children:
            size = len(continuations[index])
            longer = next(
                answers[other]
                for other, ids in enumerate(continuations)
                if len(ids) > size and list(ids[:size]) == list(continuations[index])
            )
            raise UserError(
                f"the answer {answers[index]!r} is the beginning of the answer {longer!r}, so its "
                "probability would contain the other's",
                remedy="end every answer with a terminator, such as ')' or a line break",
            )
    return AnswerTrie(tuple(tokens), tuple(parents), tuple(depths), tuple(keys), tuple(paths))
