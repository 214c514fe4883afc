"""GGUF files through transformers, which dequantizes them, with a check of what it understood."""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from roots_compress.errors import InputError
from roots_compress.model.sources import COPY_AGAIN, SourceInfo

# What each metadata key must have become in transformers' own config of the family.
CONFIG_KEYS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "vocab_size": "vocab_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
    "rope.dimension_count": "head_dim",
    "rope.freq_base": "rope_theta",
}


def load_gguf(source: SourceInfo) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the configuration and the dequantized float32 tensors of a GGUF file, as transformers has them.

    Raises:
        InputError: transformers cannot read the file, fills in tensors it lacks, or misreads its shape.
    """
    # The conversion draws its own progress bar on the standard error, which no setting turns off.
    try:
        with contextlib.redirect_stderr(io.StringIO()), tempfile.TemporaryDirectory() as aside:
            # Alone in a folder: transformers would read configurations and adapters that lie beside it, too.
            link = Path(aside, "model.gguf")
            link.symlink_to(source.path.resolve())
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                aside,
                gguf_file=link.name,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # Whatever a conversion of many steps meets in a file that contradicts itself.
        raise InputError(
            f"transformers cannot read it ({type(error).__name__}: {str(error)[:500]})", where=source.path
        ) from error
    model, loading = loaded
    absent = sorted({*loading["missing_keys"], *(str(entry) for entry in loading["mismatched_keys"])})
    if absent:
        raise InputError(f"lacks the tensor {absent[0]}", where=source.path, remedy=COPY_AGAIN)
    config = model.config.to_dict()
    # It says that the file was quantized; what transformers returns no longer is.
    config.pop("quantization_config", None)
    _check_understood(source, model.config)
    tensors = dict(model.state_dict())
    if config["tie_word_embeddings"]:
        tensors.pop("lm_head.weight")
    return config, tensors


def _check_understood(source: SourceInfo, config: Any) -> None:
    """Refuse a file whose metadata did not arrive: transformers falls back to its own defaults."""
    derived = {
        "head_dim": getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        "rope_theta": (getattr(config, "rope_parameters", None) or {}).get("rope_theta"),
    }
    for key, name in CONFIG_KEYS.items():
        said = source.config.get(f"{source.model_type}.{key}")
        understood = derived[name] if name in derived else getattr(config, name, None)
        if said is not None and understood is not None and not math.isclose(said, understood, rel_tol=1e-6):
            raise InputError(
                f"{source.model_type}.{key} is {said}, but transformers reads it as {understood}",
                where=source.path,
                remedy="Use the model's Hugging Face directory.",
            )
