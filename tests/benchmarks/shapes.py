"""The models that are timed: random weights, saved once so that all tools load the same.

No torch at module level: the counting of operations and the tables need only the numbers.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WEIGHT_SEED = 20260711
END_TOKEN = "<|end|>"


@dataclass(frozen=True)
class Shape:
    """The numbers of a decoder. `mlp_matrices`: 2 (up, down), or 3 when the MLP is gated."""

    name: str
    kind: str
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_mlp: int
    mlp_matrices: int
    vocabulary: int
    positions: int = 1024

    def settings(self) -> dict[str, Any]:
        """Keyword arguments of the configuration class of `kind`."""
        if self.kind == "gpt2":
            return {
                "n_layer": self.n_layers,
                "n_embd": self.d_model,
                "n_head": self.n_heads,
                "n_inner": self.d_mlp,
                "vocab_size": self.vocabulary,
                "n_positions": self.positions,
                "bos_token_id": 0,
                "eos_token_id": 0,
            }
        return {
            "num_hidden_layers": self.n_layers,
            "hidden_size": self.d_model,
            "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.d_mlp,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.positions,
            "bos_token_id": 0,
            "eos_token_id": 0,
        }


def gpt2_shape(name: str, n_layers: int, d_model: int, n_heads: int, vocabulary: int) -> Shape:
    """A GPT-2: every head has its own keys, the MLP is four times as wide as the model."""
    head_dim = d_model // n_heads
    return Shape(
        name, "gpt2", n_layers, d_model, n_heads, n_heads, head_dim, 4 * d_model, 2, vocabulary
    )


SHAPES = {
    shape.name: shape
    for shape in (
        gpt2_shape("gpt2", 12, 768, 12, 50257),
        Shape("llama", "llama", 12, 512, 8, 2, 64, 1408, 3, 32000),
        gpt2_shape("tiny", 4, 128, 4, 50000),
        # That of the reference model of small language tasks.
        Shape("small", "llama", 8, 96, 4, 4, 24, 256, 3, 2000),
        # Only to see how the cost of a dump or a sweep grows, so as small as can be.
        gpt2_shape("minute", 2, 32, 2, 500),
        # Made on the device, never saved: 27 GB in float32.
        Shape("7b", "llama", 32, 4096, 32, 32, 128, 11008, 3, 32000),
        *(
            Shape(f"llama-{depth}", "llama", depth, 128, 4, 2, 32, 352, 3, 1000)
            for depth in (4, 8, 12, 24, 48)
        ),
    )
}


def scratch() -> Path:
    """Where weights and result arrays lie; nothing there needs keeping."""
    return Path(os.environ.get("BENCH_SCRATCH", Path(tempfile.gettempdir()) / "interpflow-bench"))


def random_model(shape: Shape, device: str = "cpu", dtype: str = "float32") -> Any:
    """The transformers model of a shape with seeded random weights, made on the device."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    torch.manual_seed(WEIGHT_SEED)
    config = CONFIG_MAPPING[shape.kind](**shape.settings())
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    return model.eval()


def checkpoint(shape: Shape, root: Path | None = None) -> Path:
    """The directory of the shape's weights (safetensors) and tokenizer; made once."""
    directory = (root or scratch()) / "models" / shape.name
    stamp = directory / "shape.json"
    stated = json.dumps({"seed": WEIGHT_SEED, **shape.settings()}, sort_keys=True)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == stated:
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=directory.parent))
    random_model(shape).save_pretrained(made)
    _tokenizer(shape.vocabulary, shape.positions).save_pretrained(made)
    (made / "shape.json").write_text(stated, encoding="utf-8")
    shutil.rmtree(directory, ignore_errors=True)
    made.rename(directory)
    return directory


def word(token: int) -> str:
    """The text of a token id; texts are words with spaces between."""
    return f"w{token}"


def _tokenizer(vocabulary: int, positions: int) -> Any:
    """One token per word, so that token counts are exact and tokenizing costs next to nothing."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {END_TOKEN: 0, **{word(token): token for token in range(1, vocabulary)}}
    inner = Tokenizer(models.WordLevel(words, unk_token=END_TOKEN))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token=END_TOKEN,
        bos_token=END_TOKEN,
        pad_token=END_TOKEN,
        unk_token=END_TOKEN,
        model_max_length=positions,
    )
