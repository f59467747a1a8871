"""Finding a model's files, checking them, and loading them into memory.

Files are checked before anything is loaded: safetensors only, no remote code unless the source
says so, a pinned revision for every model from the hub.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from interpflow.errors import UserError
from interpflow.models.devices import check_device
from interpflow.models.files import check_model_directory, read_config
from interpflow.models.hub import HUB_ID, download
from interpflow.models.memory import check_fits_memory
from interpflow.paths import RESOURCES_DIR

DTYPES = ("float32", "bfloat16", "float16")
HUB_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
# Second copies of the weights, in the layouts of other libraries.
HUB_IGNORED = ["*/*", "consolidated*"]


@dataclass(frozen=True)
class ModelSource:
    """A model by name and where it comes from.

    `location` is a hub id ("owner/name", with `revision`), a local directory, or the name of a
    directory under resources/reference. `dtype` is that of the weights in memory.
    """

    name: str
    kind: Literal["hub", "local", "reference"]
    location: str
    revision: str | None = None
    dtype: str = "float32"
    trust_remote_code: bool = False


def locate(source: ModelSource, resources_dir: Path = RESOURCES_DIR) -> Path | str:
    """The directory of a local or reference model, or the hub id; nothing is checked."""
    if source.kind == "hub":
        return source.location
    if source.kind == "reference":
        return resources_dir / "reference" / source.location
    return Path(source.location).expanduser()


def check_source_files(source: ModelSource, resources_dir: Path = RESOURCES_DIR) -> None:
    """Everything about a source that can be known without torch and without the network.

    Raises UserError naming the model and the file: wrong kind or dtype, a hub id without a
    revision, a missing directory, config, weights or tokenizer, weights only as pickles, an
    encoder-decoder.
    """
    if source.dtype not in DTYPES:
        raise UserError(
            f"unknown dtype {source.dtype!r}",
            where=f"model {source.name}",
            remedy=f"use one of {', '.join(DTYPES)}",
        )
    if source.kind not in ("hub", "local", "reference"):
        raise UserError(
            f"unknown kind of source {source.kind!r}",
            where=f"model {source.name}",
            remedy="use hub, local or reference",
        )
    if source.kind == "hub":
        _check_hub_reference(source)
    else:
        check_model_directory(Path(locate(source, resources_dir)), source.name)


def fetch(source: ModelSource, resources_dir: Path = RESOURCES_DIR) -> Path:
    """The checked directory of a model; a hub model's pinned revision is downloaded if needed.

    Only configuration, tokenizer and safetensors files are downloaded (and Python files where
    `trust_remote_code` is set). Raises UserError when the hub has no such model or revision,
    refuses access, or cannot be reached.
    """
    check_source_files(source, resources_dir)
    if source.kind != "hub":
        return Path(locate(source, resources_dir))
    patterns = HUB_PATTERNS + (["*.py"] if source.trust_remote_code else [])
    directory = download(
        source.location,
        source.revision or "",
        where=f"model {source.name}: {source.location} at revision {source.revision}",
        allowed=patterns,
        ignored=HUB_IGNORED,
    )
    check_model_directory(directory, source.name)
    return directory


def load_transformer(
    source_or_path: ModelSource | Path | str,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    resources_dir: Path = RESOURCES_DIR,
    attn_implementation: str | None = None,
) -> tuple[Any, Any]:
    """Load (model in evaluation mode, fast tokenizer).

    A path stands for a local source of that directory. `dtype` None means the source's own, or
    float32 for a path; `attn_implementation` ("eager", "sdpa") is passed on when given.
    Raises UserError for everything `fetch` checks, and for an architecture that is not a causal
    decoder, needs remote code, leaves weights uninitialised, lacks the device, or does not fit in
    memory.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if isinstance(source_or_path, ModelSource):
        source = source_or_path
    else:
        path = Path(source_or_path)
        source = ModelSource(path.name, "local", str(path), dtype=dtype or "float32")
    chosen = dtype or source.dtype
    if chosen not in DTYPES:
        raise UserError(
            f"unknown dtype {chosen!r}",
            where=f"model {source.name}",
            remedy=f"use one of {', '.join(DTYPES)}",
        )
    check_device(device, f"model {source.name}")
    directory = fetch(source, resources_dir)
    check_fits_memory(directory, source.name, chosen, device)
    trusted = source.trust_remote_code
    _check_architecture(directory, source)
    options = {"attn_implementation": attn_implementation} if attn_implementation else {}
    try:
        # With output_loading_info the call returns a pair, which its annotation does not say.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=getattr(torch, chosen),
            use_safetensors=True,
            trust_remote_code=trusted,
            local_files_only=True,
            output_loading_info=True,
            # Reported by `_check_loaded`, which names them.
            ignore_mismatched_sizes=True,
            **options,
        )
        model, loading = loaded
        tokenizer = AutoTokenizer.from_pretrained(
            directory, trust_remote_code=trusted, local_files_only=True
        )
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"the model cannot be loaded: {error}",
            where=f"model {source.name}: {directory}",
            remedy="check that the directory is complete and made for this transformers version",
        ) from error
    _check_loaded(model, tokenizer, loading, source)
    return model.to(device).eval(), tokenizer


def _check_hub_reference(source: ModelSource) -> None:
    where = f"model {source.name}: {source.location}"
    if not HUB_ID.fullmatch(source.location):
        raise UserError(
            f"{source.location!r} is not a hub id",
            where=where,
            remedy="write owner/name, or use kind: local for a directory",
        )
    if not source.revision:
        raise UserError(
            "a hub model needs a revision, or its results cannot be reproduced",
            where=where,
            remedy="set revision to a commit hash of the model's repository",
        )


def _check_architecture(directory: Path, source: ModelSource) -> None:
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    where = f"model {source.name}: {directory}"
    config = read_config(directory, where)
    model_type = config.get("model_type")
    if source.trust_remote_code and "auto_map" in config:
        return
    if model_type not in CONFIG_MAPPING:
        if "auto_map" in config:
            raise UserError(
                f"the model type {model_type!r} runs code from its own repository",
                where=where,
                remedy="read that code, then set trust_remote_code: true for this model",
            )
        raise UserError(
            f"the model type {model_type!r} is unknown to the installed transformers",
            where=where,
            remedy="correct model_type in config.json, or use a newer transformers",
        )
    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UserError(
            f"a model of type {model_type!r} is not a causal decoder",
            where=where,
            remedy="choose a decoder-only language model",
        )
    named = config.get("architectures") or []
    # An encoder's weights (BertForMaskedLM) would load into its decoder class, most of them right.
    if named and not any(str(name).endswith(("CausalLM", "LMHeadModel")) for name in named):
        decoder = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]
        decoders = (decoder,) if isinstance(decoder, str) else tuple(decoder)
        if not set(named) & set(decoders):
            raise UserError(
                f"the weights are those of {named[0]}, not of a causal decoder",
                where=where,
                remedy="choose a decoder-only language model",
            )


def _check_loaded(model: Any, tokenizer: Any, loading: Any, source: ModelSource) -> None:
    where = f"model {source.name}"
    missing = sorted(loading["missing_keys"])
    mismatched = sorted(str(key) for key in loading.get("mismatched_keys") or ())
    if missing or mismatched:
        bad = (missing + mismatched)[0]
        raise UserError(
            f"{len(missing) + len(mismatched)} weights are missing or of the wrong shape in the "
            f"files, and would be random: {bad} …",
            where=where,
            remedy="check that config.json and the weights belong together",
        )
    if not tokenizer.is_fast:
        raise UserError(
            "the tokenizer gives no character offsets",
            where=where,
            remedy="add a tokenizer.json (a 'fast' tokenizer) to the model",
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise UserError(
            f"the tokenizer has {len(tokenizer)} tokens, the embedding {rows} rows",
            where=where,
            remedy="use the tokenizer that belongs to these weights",
        )
