"""Files for other runtimes: config.json in the keys of a known family, and genai_config.json."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from roots_compress.checkpoints.generation_settings import TOKEN_IDS
from roots_compress.checkpoints.inspect import CONFIG
from roots_compress.checkpoints.write_back import family_config
from roots_compress.data.special_tokens import as_setting, stop_ids
from roots_compress.errors import InputError
from roots_compress.families.registry import FAMILIES
from roots_compress.families.text_encoder import written_config
from roots_compress.io.genai_config import GENAI_CONFIG
from roots_compress.models.config import RootsConfig
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.limits import longrope_length
from roots_compress.models.ops.conv import ShortConv
from roots_compress.models.quantized import has_int8_cache
from roots_compress.runtime.onnx.graph_config import OURS
from roots_compress.runtime.onnx.graph_folder import GRAPH_NAME
from roots_compress.runtime.onnx.seq2seq_graph import cached_attentions

MOST_SLOTS = 8192
"""Slots of the cache that onnxruntime-genai allocates by default: a million would exceed any machine."""
# Families whose head size optimum reads; for others it divides the hidden size by the heads.
STATED_HEAD_SIZE = ("gemma",)


def write_configs(model: RootsWithHead, directory: Path, *, shared_cache: bool) -> tuple[str, ...]:
    """Write both files; only a decoder by itself has a genai_config.json.

    `shared_cache` says whether the graph writes into the buffer that it is given as the past.

    Returns:
        what keeps another runtime from loading the folder, or from the checkpoint's text, a sentence each.
    """
    document, obstacles = served_config(model.config, model.dtype)
    if (length := longrope_length(model.config.spec)) is not None:
        obstacles += (
            f"optimum and onnxruntime-genai do not read a text anew that grows past {length} tokens: what "
            "they write from there on is not the checkpoint's",
        )
    # Of a model that no checkpoint was made of yet, transformers says no class; the graph's task goes by it.
    _write(
        directory / CONFIG,
        {**document, "architectures": document.get("architectures") or [type(model).__name__]},
    )
    if [*model.config.spec.stacks] == ["decoder"]:
        _write(directory / GENAI_CONFIG, genai_config(model, shared_cache=shared_cache))
    return obstacles


def served_config(config: RootsConfig, dtype: torch.dtype) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a config.json, and the reasons why optimum's `ORTModelForCausalLM` cannot load the folder.

    If a family of transformers expresses the model, the file is that family's, so that any version of
    transformers reads it without our code; the model's own config is then under one more key. The family's
    part has no formats of quantized weights: only the graph has them.
    """
    ours = config.to_dict()
    plain = RootsConfig(spec=config.spec, **{name: getattr(config, name) for name in TOKEN_IDS})
    attentions = [op for _name, op in cached_attentions(config.spec)]
    if any(not state.grows for state in config.spec.states()):
        return ours, ("optimum cannot load this graph: it feeds keys and values, and no other state",)
    if has_int8_cache(config):
        return ours, ("optimum cannot load this graph: it would make a cache of floats, not of int8",)
    caches = "decoder" in config.spec.stacks
    if caches and len({(op.kv_heads, op.head_dim) for op in attentions}) > 1:
        return ours, ("optimum cannot load this graph: its layers' caches differ in shape",)
    document = _in_familys_words(plain, dtype)
    if document is None:
        return ours, ("optimum cannot load this graph: no family of transformers expresses the model",)
    width = attentions[0].head_dim
    taken = config.hidden_size // attentions[0].heads
    obstacles: tuple[str, ...] = ()
    sized = caches and config.spec.source is None
    if sized and width != taken and document["model_type"] not in STATED_HEAD_SIZE:
        obstacles = (f"optimum cannot load this graph: it would take heads of {taken}, not {width}",)
    return {**document, OURS: ours}, obstacles


def _in_familys_words(config: RootsConfig, dtype: torch.dtype) -> dict[str, Any] | None:
    """Return the config.json of a family that expresses a model; None if none does.

    If several do, the first that fixes most ids of special tokens: a RoBERTa differs from a BERT only in its
        padding's.
    """
    fitting = []
    for model_type, family in FAMILIES.items():
        with suppress(InputError):
            document = family_config(config, model_type, dtype)
            fitting.append((len(written_config(family, config.spec).keys() & TOKEN_IDS), document))
    return max(fitting, key=lambda each: each[0])[1] if fitting else None


def genai_config(model: RootsWithHead, *, shared_cache: bool) -> dict[str, Any]:
    """Return the genai_config.json with which onnxruntime-genai 0.18 runs the graph.

    It takes the caches' shapes from the graph itself; older versions build all of them from the widths given
    here, those of the first layer.
    """
    config, generation = model.config, model.generation_config
    first = next(iter(config.spec.attentions()), None)
    penalty = generation.repetition_penalty if generation is not None else None
    named = generation.eos_token_id if generation is not None else None
    tokens = {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": as_setting(stop_ids(named, config.eos_token_id, None)),
        "pad_token_id": config.pad_token_id,
    }
    heads = {}
    if first is not None:
        heads = {"head_size": first.head_dim, "num_attention_heads": first.heads}
        heads["num_key_value_heads"] = first.kv_heads
    kernels = [op.kernel for _, op in config.spec.blocks() if isinstance(op, ShortConv)]
    inputs, outputs, others = {}, {}, {}
    if kernels:
        inputs, outputs = {"past_conv_names": "past_conv.%d"}, {"present_conv_names": "present_conv.%d"}
        others = {"layer_types": config.layer_types, "conv_cache_size": kernels[0] - 1}
    return {
        "model": {
            # It reads no graph that keeps states of convolutions as another type.
            "type": "lfm2" if kernels else "decoder",
            "context_length": config.max_position_embeddings,
            "vocab_size": config.vocab_size,
            **{name: token for name, token in tokens.items() if token is not None},
            "decoder": {
                # Nothing here depends on the processor, because the file is moved with the graph.
                "session_options": {"provider_options": []},
                "filename": GRAPH_NAME,
                "hidden_size": config.hidden_size,
                **heads,
                # Layers that read the caches of others come last, and have none.
                "num_hidden_layers": sum(
                    any(each.op.states(0) for each in layer) for layer in config.spec.stack.layers
                ),
                "inputs": {
                    **{name: name for name in ("input_ids", "attention_mask", "position_ids")},
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                    **inputs,
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                    **outputs,
                },
                **others,
            },
        },
        "search": {
            "max_length": min(config.max_position_embeddings, MOST_SLOTS),
            "do_sample": False,
            **({} if penalty is None else {"repetition_penalty": penalty}),
            "past_present_share_buffer": shared_cache,
        },
    }


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
