"""Models that people ask for and that are not read: what they have that ROOTS has not, and the nearest."""

from __future__ import annotations

from typing import NamedTuple


class Refused(NamedTuple):
    """Why a kind of model is refused."""

    why: str
    nearest: str
    """The family that is nearest among those that are read."""


_ALIBI = "positions are slopes on the scores (ALiBi)"
_STATES = "no layer has attention, by whose cache tokens are counted"
_SINGLE = "each layer is one block, Mamba-2, attention or a feed-forward block"
_LONG = "attention is to a window and to global tokens"
_SIGHT = "it reads images or sound, not text alone"
REFUSED: dict[str, Refused] = {
    "gemma3n": Refused("its stream is several (AltUp), its activations are sparse", "gemma4_text"),
    "gemma3n_text": Refused("its stream is several (AltUp), its activations are sparse", "gemma4_text"),
    "llama4": Refused("attention is to chunks of a text, experts read weighed inputs", "llama"),
    "llama4_text": Refused("attention is to chunks of a text, experts read weighed inputs", "llama"),
    "deepseek_v32": Refused("an indexer chooses the keys of each query", "deepseek_v3"),
    "deepseek_v4": Refused("layers attend to keys that a compressor makes of several", "deepseek_v3"),
    "kimi_k25": Refused(_SIGHT, "deepseek_v3"),
    "phimoe": Refused("two experts are chosen one after the other, by masked softmaxes", "mixtral"),
    "bamba": Refused(
        "positions turn a part of each head, and the other layers are Mamba-2", "granitemoehybrid"
    ),
    "nemotron_h": Refused(_SINGLE, "granitemoehybrid"),
    "jamba": Refused("its state space layers are Mamba-1", "granitemoehybrid"),
    "zamba2": Refused("layers share one attention", "falcon_h1"),
    "lfm3": Refused("its convolutions and gates of heads are others than LFM2's", "lfm2"),
    "mamba": Refused(_STATES, "falcon_h1"),
    "mamba2": Refused(_STATES, "falcon_h1"),
    "falcon_mamba": Refused(_STATES, "falcon_h1"),
    "rwkv": Refused(_STATES, "qwen3_5_text"),
    "recurrent_gemma": Refused("its recurrent layers are RG-LRU", "gemma2"),
    "bloom": Refused(_ALIBI, "gpt_neox"),
    "mpt": Refused(_ALIBI, "gpt_neox"),
    "codegen": Refused("its projections lie in the order of the chips it was trained on", "gptj"),
    "olmo": Refused("its norms have no gain, and projections may be bounded", "olmo2"),
    "minicpm": Refused("its factors are others than Granite's", "granite"),
    "qwen": Refused("its class is in the checkpoint's own code", "qwen2"),
    "chatglm": Refused("its class is in the checkpoint's own code", "glm"),
    "internlm2": Refused("its class is in the checkpoint's own code", "llama"),
    "baichuan": Refused("its class is in the checkpoint's own code", "llama"),
    "deberta": Refused("its attention is that before version 2", "deberta-v2"),
    "gte": Refused("its feed-forward blocks are gated, behind norms of the sum", "modernbert"),
    "xlnet": Refused("it reads permuted texts in two streams", "deberta-v2"),
    "longformer": Refused(_LONG, "modernbert"),
    "big_bird": Refused(_LONG, "modernbert"),
    "longt5": Refused(_LONG, "t5"),
    "led": Refused(_LONG, "bart"),
    "umt5": Refused("each layer has distances of its own", "mt5"),
    "switch_transformers": Refused("its feed-forward blocks are experts with capacities", "t5"),
    **dict.fromkeys(("clip", "vit", "siglip", "whisper", "wav2vec2"), Refused(_SIGHT, "bert")),
}
"""By `model_type`."""
_LATER = ("dots1", "ernie4_5-moe", "hunyuan-moe", "minicpm3")
GGUF_NAMES = {
    "deepseek32": "deepseek_v32",
    "deepseek4": "deepseek_v4",
    "rwkv6": "rwkv",
    "rwkv7": "rwkv",
    "nemotron_h_moe": "nemotron_h",
}
"""GGUF's names of such models, where they are others."""
FROM_FOLDERS = ("modern-bert", "t5", "gptj", *_LATER)
"""GGUF architectures of families that are read from folders only."""


def refusal(name: str) -> str:
    """Return why a model is refused and what is nearest, to follow its name; nothing of an unknown one."""
    found = REFUSED.get(GGUF_NAMES.get(name, name))
    return f": {found.why}. The nearest family that is read is {found.nearest}" if found else ""
