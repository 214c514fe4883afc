"""Make a checkpoint of another family, or of layers that all differ, with random weights.

    python benchmarks/random_checkpoint.py FAMILY OUT --tokenizer CHECKPOINT

Writes a checkpoint of some hundred million parameters with the tokenizer of another one, so that benchmarks
run on other shapes. What such a model says is noise, and its perplexity close to its vocabulary; its speed is
a trained one's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedConfig, Qwen2Config, Qwen3Config

from roots_compress.checkpoints.checkpoint import refuse_occupied
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.checkpoints.tokenizer import load_tokenizer
from roots_compress.errors import RootsError
from roots_compress.models.config import RootsConfig
from roots_compress.models.modeling import RootsForCausalLM

SHAPES: dict[str, type[PreTrainedConfig]] = {"gpt2": GPT2Config, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
LAYERWISE = "layerwise"
# GPT-2 small's own sizes; the others between SmolLM2-135M's and Qwen2-0.5B's.
FIELDS: dict[str, dict[str, int | bool]] = {
    "gpt2": {"n_positions": 4096},
    "qwen2": {
        "hidden_size": 768, "num_hidden_layers": 16, "num_attention_heads": 12, "num_key_value_heads": 4,
        "intermediate_size": 2048, "max_position_embeddings": 4096, "tie_word_embeddings": True,
    },
    "qwen3": {
        "hidden_size": 768, "num_hidden_layers": 16, "num_attention_heads": 12, "num_key_value_heads": 4,
        "head_dim": 64, "intermediate_size": 2048, "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    },
}  # fmt: skip


def layerwise(**fields: Any) -> RootsConfig:
    """Return the config of a ROOTS model as pruning may leave one: no two neighbouring layers are alike."""
    layers = [
        {
            "num_attention_heads": 3 * groups,
            "num_key_value_heads": groups,
            "head_dim": 64,
            "intermediate_size": 1536 - 96 * (index % 7),
        }
        for index, groups in enumerate((3, 2, 3, 1) * 6)
    ]
    return RootsConfig(
        hidden_size=576, layers=layers, max_position_embeddings=4096, tie_word_embeddings=True, **fields
    )


def main() -> int:
    """Write the checkpoint and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=[*SHAPES, LAYERWISE])
    parser.add_argument("out", type=Path, help="a folder that is absent or empty")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a checkpoint whose tokenizer is taken")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        refuse_occupied(options.out)
        source = inspect_source(options.tokenizer)
        tokenizer = load_tokenizer(source)
    except RootsError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    torch.manual_seed(options.seed)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    vocab_size = source.vocab_size or len(tokenizer)
    if options.family == LAYERWISE:
        model = RootsForCausalLM(layerwise(vocab_size=vocab_size, **ids))
    else:
        config = SHAPES[options.family](vocab_size=vocab_size, **FIELDS[options.family], **ids)
        model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    print(f"{options.out}: {options.family}, {model.num_parameters() / 1e6:.0f}M parameters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
