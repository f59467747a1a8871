"""Compiled programs as models: weights in Tracr's layout, from arrays or an .npz file.

Tracr (Lindner et al. 2023, arXiv 2301.05062) compiles RASP programs into decoders without layer
norm, whose residual directions all have a name and whose unused heads are exactly 0. Compiling
needs JAX; running does not. The file is a plain .npz without pickled arrays, floats [in, out] as in
Haiku:

    token_embed                                [tokens, d]
    pos_embed                                  [positions, d]
    blocks.{i}.attn.query|key|value .w .b      [d, heads · key_size], [heads · key_size]
    blocks.{i}.attn.linear          .w .b      [heads · key_size, d], [d]
    blocks.{i}.mlp.linear_1         .w .b      [d, hidden], [hidden]
    blocks.{i}.mlp.linear_2         .w .b      [hidden, d], [d]
    unembed                                    [d, outputs]
    meta                                       a string, JSON:
      {"n_heads": 2, "key_size": 9, "causal": true, "tokens": ["a", ..., "compiler_bos"],
       "residual_labels": ["tokens:a", ...], "output_labels": ["frac_prevs"]}

with i from 0 without gaps. In Tracr's `AssembledTransformerModel` these are params["token_embed"],
["pos_embed"], ["transformer/layer_{i}/attn/query"] and so on, and the projection of the residual
space on the output space as unembed; causal=True must be given to the compiler.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from interpflow.errors import UserError
from interpflow.models.planted.plain_decoder import PlainDecoderConfig, PlainDecoderForCausalLM
from interpflow.models.planted.truth import PlantedSite

Array = NDArray[np.floating[Any]]

BOS = "compiler_bos"
# Arrays named in an error.
NAMED = 4
ATTENTION_PARTS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "linear": "o_proj"}
MLP_PARTS = {"linear_1": "up_proj", "linear_2": "down_proj"}


def read_tracr(path: Path | str) -> TracrWeights:
    """Weights of a compiled program from an .npz file; see the head of this module.

    Raises UserError for a file that is missing, damaged, or holds pickled arrays, for missing,
    unknown, misshapen or non-finite arrays by name, for incomplete meta, and for a program that was
    compiled without a causal mask.
    """
    path, where = Path(path), str(path)
    if not path.is_file():
        raise UserError("there is no such file", where=where, remedy="give the path of an .npz")
    arrays: dict[str, Array] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                arrays[name] = archive[name]
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"the file cannot be read as plain arrays: {error}",
            where=where,
            remedy="write it with numpy.savez, float arrays and one JSON string; no objects",
        ) from error
    meta = _read_meta(arrays.pop("meta", None), where)
    weights = TracrWeights(arrays=arrays, meta=meta)
    check_tracr(weights, where)
    return weights


def write_tracr(weights: TracrWeights, path: Path | str) -> None:
    """Write weights as `read_tracr` reads them."""
    check_tracr(weights, "weights")
    meta = np.array(json.dumps({**asdict(weights.meta), "causal": True}))
    arrays: dict[str, Any] = {**weights.arrays, "meta": meta}
    np.savez(path, **arrays)


def plain_decoder(weights: TracrWeights) -> PlainDecoderForCausalLM:
    """The model of a compiled program, float32, in evaluation mode. Raises UserError as
    `check_tracr`."""
    check_tracr(weights, "weights")
    arrays, meta = weights.arrays, weights.meta
    config = PlainDecoderConfig(
        vocab_size=len(arrays["token_embed"]),
        n_outputs=arrays["unembed"].shape[1],
        hidden_size=arrays["token_embed"].shape[1],
        head_dim=meta.key_size,
        intermediate_size=arrays["blocks.0.mlp.linear_1.w"].shape[1],
        num_hidden_layers=weights.n_layers,
        num_attention_heads=meta.n_heads,
        max_position_embeddings=len(arrays["pos_embed"]),
        tokens=list(meta.tokens),
        output_labels=list(meta.output_labels),
        residual_labels=list(meta.residual_labels),
        bos_token_id=meta.tokens.index(BOS) if BOS in meta.tokens else None,
    )
    state = {
        "model.embed_tokens.weight": arrays["token_embed"],
        "model.embed_positions.weight": arrays["pos_embed"],
        "lm_head.weight": arrays["unembed"].T,
    }
    for layer in range(weights.n_layers):
        for ours, theirs in _part_names(layer).items():
            state[f"{ours}.weight"] = arrays[f"{theirs}.w"].T
            state[f"{ours}.bias"] = arrays[f"{theirs}.b"]
    module = PlainDecoderForCausalLM(config)
    module.load_state_dict(
        {
            name: torch.tensor(np.ascontiguousarray(a), dtype=torch.float32)
            for name, a in state.items()
        }
    )
    return module.eval()


def prompt_ids(tokens: Sequence[str], program: Sequence[str]) -> list[int]:
    """Token ids of a prompt of a compiled program, after the start token that Tracr's models need.

    tokens: the model's (`meta.tokens`, `config.tokens`). Raises UserError for a token it lacks.
    """
    unknown = [token for token in program if token not in tokens]
    if unknown:
        raise UserError(
            f"the program has no token {unknown[0]!r}", remedy=f"use {', '.join(tokens)}"
        )
    return [list(tokens).index(token) for token in (BOS, *program)]


def program_truth(weights: TracrWeights) -> tuple[PlantedSite, ...]:
    """Every head and MLP of a compiled program: "dead" where nothing of the prompt gets through its
    weights, "needed" elsewhere (the compiler adds nothing that the program does not use). `does`
    names the residual directions it writes. Where and whether a needed part moves the output
    depends on the prompts.
    """
    arrays, meta = weights.arrays, weights.meta
    labels = np.array(meta.residual_labels)
    rows = []
    for layer in range(weights.n_layers):
        name = f"blocks.{layer}"
        written = arrays[f"{name}.attn.linear.w"].reshape(meta.n_heads, meta.key_size, -1)
        values = arrays[f"{name}.attn.value.w"].reshape(-1, meta.n_heads, meta.key_size)
        for head in range(meta.n_heads):
            out = values[:, head] @ written[head]
            rows.append(_site("head_out", layer, head, labels[out.any(axis=0)]))
        hidden = arrays[f"{name}.mlp.linear_1.w"].any(0) | (arrays[f"{name}.mlp.linear_1.b"] > 0)
        out = hidden[:, None] * arrays[f"{name}.mlp.linear_2.w"]
        rows.append(_site("mlp_out", layer, None, labels[out.any(axis=0)]))
    return tuple(rows)


def check_tracr(weights: TracrWeights, where: str) -> None:
    """Raise UserError, naming the array, for weights that are incomplete or do not fit together."""
    arrays, meta = weights.arrays, weights.meta
    expected = _shapes(weights)
    missing = [name for name in expected if name not in arrays]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(expected)} arrays are missing: {', '.join(missing[:NAMED])}"
            + " …" * (len(missing) > NAMED),
            where=where,
            remedy="write every array of every block, zeros where the program has nothing",
        )
    unknown = sorted(set(arrays) - set(expected))
    if unknown:
        raise UserError(
            f"there are arrays that a plain decoder does not have: {', '.join(unknown[:NAMED])}",
            where=where,
            remedy="export a program without layer norm, and nothing besides its weights",
        )
    for name, shape in expected.items():
        if arrays[name].dtype.kind not in "fiu" or not np.isfinite(arrays[name]).all():
            raise UserError(f"{name} holds something else than finite numbers", where=where)
        if arrays[name].shape != shape:
            raise UserError(
                f"{name} has shape {arrays[name].shape}, expected {shape}",
                where=where,
                remedy=f"arrays are [in, out], with n_heads {meta.n_heads}, key_size "
                f"{meta.key_size}, {len(meta.tokens)} tokens, "
                f"{len(meta.residual_labels)} residual labels",
            )


def _shapes(weights: TracrWeights) -> dict[str, tuple[int, ...]]:
    """Shape of every array that belongs to the program."""
    arrays, meta = weights.arrays, weights.meta
    width, heads = len(meta.residual_labels), meta.n_heads * meta.key_size

    def length(name: str, axis: int) -> int:
        """The program's own choice, 0 where the array is not there to say."""
        return arrays[name].shape[axis] if name in arrays and arrays[name].ndim == 2 else 0

    shapes = {
        "token_embed": (len(meta.tokens), width),
        "pos_embed": (length("pos_embed", 0), width),
        "unembed": (width, len(meta.output_labels)),
    }
    hidden = length("blocks.0.mlp.linear_1.w", 1)
    for layer in range(max(1, weights.n_layers)):
        name = f"blocks.{layer}"
        for part in ("query", "key", "value"):
            shapes |= {f"{name}.attn.{part}.w": (width, heads), f"{name}.attn.{part}.b": (heads,)}
        shapes |= {f"{name}.attn.linear.w": (heads, width), f"{name}.attn.linear.b": (width,)}
        shapes |= {f"{name}.mlp.linear_1.w": (width, hidden), f"{name}.mlp.linear_1.b": (hidden,)}
        shapes |= {f"{name}.mlp.linear_2.w": (hidden, width), f"{name}.mlp.linear_2.b": (width,)}
    return shapes


def _part_names(layer: int) -> dict[str, str]:
    """Names of a block's linear maps: in our model -> in Tracr's layout."""
    parts = {"self_attn": ("attn", ATTENTION_PARTS), "mlp": ("mlp", MLP_PARTS)}
    return {
        f"model.layers.{layer}.{ours}.{mine}": f"blocks.{layer}.{theirs}.{name}"
        for ours, (theirs, named) in parts.items()
        for name, mine in named.items()
    }


def _site(component: str, layer: int, head: int | None, labels: NDArray[np.str_]) -> PlantedSite:
    role = "needed" if len(labels) else "dead"
    return PlantedSite(component, layer, head, role, ", ".join(labels))


def _read_meta(stored: Array | None, where: str) -> TracrMeta:
    if stored is None:
        raise UserError("the array meta is missing", where=where, remedy="add it, a JSON string")
    try:
        meta = json.loads(str(stored[()]))
    except ValueError as error:
        raise UserError(f"meta is no JSON: {error}", where=where) from error
    fields = {"n_heads": int, "key_size": int, "causal": bool, "tokens": list,
              "residual_labels": list, "output_labels": list}  # fmt: skip
    wrong = [
        name
        for name, kind in fields.items()
        if not isinstance(meta, dict) or not isinstance(meta.get(name), kind)
    ]
    if wrong:
        raise UserError(f"meta lacks {', '.join(wrong)}, or they are of a wrong type", where=where)
    if not meta["causal"]:
        raise UserError(
            "the program was compiled without a causal mask: its tokens see what comes after them",
            where=where,
            remedy="compile it with causal=True",
        )
    if meta["n_heads"] < 1 or meta["key_size"] < 1:
        raise UserError("n_heads and key_size must be at least 1", where=f"{where}: meta")
    return TracrMeta(
        n_heads=meta["n_heads"],
        key_size=meta["key_size"],
        **{name: tuple(map(str, meta[name])) for name in list(fields)[3:]},
    )


@dataclass(frozen=True)
class TracrMeta:
    """What the arrays of a compiled program do not say. tokens: of each id; residual_labels: of
    each direction; output_labels: of each column of unembed (a single one may be a number)."""

    n_heads: int
    key_size: int
    tokens: tuple[str, ...]
    residual_labels: tuple[str, ...]
    output_labels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class TracrWeights:
    """The arrays of a compiled program by name, [in, out], and its meta; always causal."""

    arrays: Mapping[str, Array]
    meta: TracrMeta

    @property
    def n_layers(self) -> int:
        """One more than the largest block that is named."""
        blocks = [name.split(".")[1] for name in self.arrays if name.startswith("blocks.")]
        return 1 + max((int(block) for block in blocks if block.isdecimal()), default=-1)
