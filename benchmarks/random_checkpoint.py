"""Make a checkpoint of another family with random weights, to run the benchmarks on other shapes.

    python benchmarks/random_checkpoint.py FAMILY OUT --tokenizer CHECKPOINT

Writes a Hugging Face directory of some hundred million parameters with the tokenizer of another checkpoint.
What such a model says is noise, and its perplexity close to its vocabulary; its speed is a trained one's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedConfig, Qwen2Config, Qwen3Config

from roots_compress.errors import RootsError
from roots_compress.model.checkpoint import refuse_occupied
from roots_compress.model.sources import inspect_source
from roots_compress.model.tokenizer import load_tokenizer

SHAPES: dict[str, type[PreTrainedConfig]] = {"gpt2": GPT2Config, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
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


def main() -> int:
    """Write the checkpoint and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=list(SHAPES))
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
    config = SHAPES[options.family](vocab_size=vocab_size, **FIELDS[options.family], **ids)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    print(f"{options.out}: {options.family}, {model.num_parameters() / 1e6:.0f}M parameters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
