"""GGUF files written with the public `gguf` package from models of transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf
import torch
from gguf import TokenType
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.compare.rules import byte_level_ids, sentencepiece_ids, with_special

Ids = Callable[[str], list[int]]


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of its tokenizer."""

    model: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[TokenType, ...]
    bos: int
    eos: int
    merges: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    add_bos: bool | None = None
    add_space_prefix: bool | None = None
    decoder: Tokenizer | None = None
    """Turns ids into text; its own rules for text into ids are not asked."""

    @property
    def opens_with_bos(self) -> bool:
        """Whether llama.cpp puts BOS before a text: as the file says, else by the kind of vocabulary."""
        return (self.model == "llama" or self.pre == "llama-bpe") if self.add_bos is None else self.add_bos

    def reference(self) -> PreTrainedTokenizerFast:
        """Return what turns ids into text, with the file's BOS and EOS."""
        names = {"bos_token": self.tokens[self.bos], "eos_token": self.tokens[self.eos]}
        return PreTrainedTokenizerFast(tokenizer_object=self.decoder, **names)

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text by the rules of llama.cpp."""
        whole = (TokenType.CONTROL, TokenType.USER_DEFINED)
        special = {
            t: i for i, (t, kind) in enumerate(zip(self.tokens, self.types, strict=True)) if kind in whole
        }
        if self.model == "llama":
            prefix = self.add_space_prefix is not False

            def plain(part: str) -> list[int]:
                return sentencepiece_ids(part, self.tokens, self.scores, prefix=prefix)
        else:

            def plain(part: str) -> list[int]:
                return byte_level_ids(part, self.tokens, self.merges, self.pre)

        ids = with_special(text, special, plain)
        return [self.bos, *ids] if self.opens_with_bos and ids[:1] != [self.bos] else ids


def byte_level_vocabulary(
    tokenizer: Tokenizer, pre: str, *, bos: str, eos: str, add_bos: bool | None = None
) -> Vocabulary:
    """Return the vocabulary of a byte-level BPE."""
    content = json.loads(tokenizer.to_str())
    tokens, types = _tokens(tokenizer, content, byte_tokens=False)
    merges = tuple(" ".join(pair) for pair in content["model"]["merges"])
    ends = (tokens.index(bos), tokens.index(eos))
    return Vocabulary("gpt2", pre, tokens, types, *ends, merges, add_bos=add_bos, decoder=tokenizer)


def sentencepiece_vocabulary(
    tokenizer: Tokenizer, *, add_space_prefix: bool | None, add_bos: bool | None
) -> Vocabulary:
    """Return the vocabulary of a BPE over characters: pieces scored by the order of their merges."""
    content = json.loads(tokenizer.to_str())
    tokens, types = _tokens(tokenizer, content, byte_tokens=True)
    order: dict[str, int] = {}
    for index, (left, right) in enumerate(content["model"]["merges"]):
        order.setdefault(left + right, index)
    scores = tuple(float(-order[token]) if token in order else -1e6 for token in tokens)
    bos, eos = tokens.index("<s>"), tokens.index("</s>")
    return Vocabulary(
        "llama",
        "default",
        tokens,
        types,
        bos,
        eos,
        scores=scores,
        decoder=tokenizer,
        add_bos=add_bos,
        add_space_prefix=add_space_prefix,
    )


def _tokens(
    tokenizer: Tokenizer, content: dict[str, list[dict[str, object]]], *, byte_tokens: bool
) -> tuple[tuple[str, ...], tuple[TokenType, ...]]:
    added = {token["content"]: token["special"] for token in content["added_tokens"]}
    numbered = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    assert [number for _, number in numbered] == list(range(len(numbered)))
    types = []
    for token, _ in numbered:
        if token == "<unk>":
            types.append(TokenType.UNKNOWN)
        elif token in added:
            types.append(TokenType.CONTROL if added[token] else TokenType.USER_DEFINED)
        else:
            types.append(TokenType.BYTE if byte_tokens and token.startswith("<0x") else TokenType.NORMAL)
    return tuple(token for token, _ in numbered), tuple(types)


ROTARY = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
GPT2 = {
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
}


def write_gguf(path: Path, model: PreTrainedModel, vocabulary: Vocabulary) -> Path:
    """Write a model of `llama`, `mistral`, `qwen2`, `qwen3` or `gpt2` as llama.cpp's converters do."""
    config = model.config
    family = "llama" if config.model_type == "mistral" else config.model_type
    writer = gguf.GGUFWriter(str(path), family)
    writer.add_name("a tiny model")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    if family == "gpt2":
        writer.add_feed_forward_length(4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        if family == "qwen3":
            writer.add_key_length(config.head_dim)
            writer.add_value_length(config.head_dim)
        else:
            writer.add_rope_dimension_count(config.head_dim)
    _add_vocabulary(writer, vocabulary)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        writer.add_tensor(_gguf_name(name, family), _laid_out(name, tensor, model).contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_name(name: str, family: str) -> str:
    stem, kind = name.rsplit(".", 1)
    parts = stem.split(".")
    table = GPT2 if family == "gpt2" else ROTARY
    if parts[1:2] in (["h"], ["layers"]):
        return f"blk.{parts[2]}.{table['.'.join(parts[3:])]}.{kind}"
    return f"{table[stem]}.{kind}"


def _laid_out(name: str, tensor: Tensor, model: PreTrainedModel) -> Tensor:
    """Return a tensor as the file holds it: Llama's rotated rows in pairs, GPT-2's Conv1D transposed."""
    config = model.config
    if config.model_type == "gpt2":
        return tensor.T if tensor.ndim == 2 and ".h." in name else tensor.to(torch.float32)
    if config.model_type in ("llama", "mistral") and (".q_proj." in name or ".k_proj." in name):
        heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
        halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
        return halves.swapaxes(1, 2).reshape(tensor.shape)
    return tensor.to(torch.float32)


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_vocab_size(len(vocabulary.tokens))
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types(list(vocabulary.types))
    if vocabulary.merges:
        writer.add_token_merges(list(vocabulary.merges))
    if vocabulary.scores:
        writer.add_token_scores(list(vocabulary.scores))
    writer.add_bos_token_id(vocabulary.bos)
    writer.add_eos_token_id(vocabulary.eos)
    if vocabulary.add_bos is not None:
        writer.add_add_bos_token(vocabulary.add_bos)
    if vocabulary.add_space_prefix is not None:
        writer.add_add_space_prefix(vocabulary.add_space_prefix)
