"""Prompt in, text out: what transformers writes with the same folder, whatever tokenizer and settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.data.special_tokens import open_with_nothing
from roots_compress.errors import InputError
from roots_compress.runtime.beams import Beams
from roots_compress.runtime.text import load_tokenizer, load_wishes, stream_text
from tests.runtime.tokenizer_kinds import KINDS
from tests.runtime.transformers_text import Ours, Theirs

PROMPTS = [
    "a",
    "the quick  brown fox, don't",
    "<|end|>user\na fox<|end|>\n<|end|>assistant\n",
    "<s>the fox",
    "日本 می‌رود 👩‍🔧\r\n[tool] ",
]
NEW = 24


def opened_by_bos(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    return tokenizer


def folder_of(tokenizer: PreTrainedTokenizerFast, folder: Path, **generation: Any) -> Path:
    """Write a Llama with random weights and this tokenizer, as transformers does."""
    open_with_nothing(tokenizer.backend_tokenizer)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        initializer_range=0.4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **generation}))
    return folder


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("kind", ["byte-level BPE", "BPE with byte fallback", "Unigram with Metaspace"])
def test_text_equals_transformers(kind: str, bos: bool, tmp_path: Path) -> None:
    tokenizer = KINDS[kind]()
    source = folder_of(opened_by_bos(tokenizer) if bos else tokenizer, tmp_path / "theirs")
    theirs, ours = Theirs(source), Ours(load_checkpoint(source), tmp_path / "ours")
    for prompt in PROMPTS:
        if bos and prompt.startswith("<s>"):
            continue  # transformers puts a second BOS before it
        assert ours.text(prompt, NEW) == theirs.text(prompt, NEW), prompt


@pytest.mark.parametrize(
    "generation",
    [
        {"repetition_penalty": 1.4},
        {"no_repeat_ngram_size": 2, "temperature": 0.6},
        {"do_sample": False, "top_p": 0.9, "repetition_penalty": 1.2},
        {"bad_words_ids": [[70], [80, 90]], "suppress_tokens": [75]},
        {"eos_token_id": [2, 100, 110, 120, 130, 140, 150]},
    ],
    ids=str,
)
def test_what_generation_config_asks_is_heeded_after_an_import(
    generation: dict[str, Any], tmp_path: Path
) -> None:
    source = folder_of(KINDS["byte-level BPE"](), tmp_path / "theirs", **generation)
    theirs, ours = Theirs(source), Ours(load_checkpoint(source), tmp_path / "ours")
    for prompt in PROMPTS:
        assert ours.text(prompt, NEW) == theirs.text(prompt, NEW), prompt


def test_settings_of_a_config_without_generation_config_are_heeded(tmp_path: Path) -> None:
    source = folder_of(KINDS["byte-level BPE"](), tmp_path / "theirs")
    (source / "generation_config.json").unlink()
    config = json.loads((source / "config.json").read_text())
    ends = [2, *range(100, 180, 10)]
    asked = {"repetition_penalty": 1.7, "num_beams": 1, "eos_token_id": ends}
    (source / "config.json").write_text(json.dumps({**config, **asked}))
    theirs, ours = Theirs(source), Ours(load_checkpoint(source), tmp_path / "ours")
    assert ours.wishes.settings.repetition_penalty == 1.7
    assert set(ours.wishes.stop_tokens) == set(ends)
    for prompt in PROMPTS:
        assert ours.text(prompt, NEW) == theirs.text(prompt, NEW), prompt


def test_other_runtimes_are_told_and_what_only_they_do_is_named(tmp_path: Path) -> None:
    wanted = {"repetition_penalty": 1.4, "num_beams": 3, "stop_strings": ["\n\n"], "guidance_scale": 1.0}
    source = folder_of(KINDS["byte-level BPE"](), tmp_path / "theirs", **wanted)
    ours = Ours(load_checkpoint(source), tmp_path / "ours")
    kept = json.loads((tmp_path / "ours" / "generation_config.json").read_text())
    assert wanted.items() <= kept.items()
    genai = json.loads((tmp_path / "ours" / "genai_config.json").read_text())
    assert genai["search"]["repetition_penalty"] == 1.4
    assert ours.wishes.not_done == ("stop_strings: ['\\n\\n']",)
    assert ours.wishes.beams == Beams(3)


def test_a_setting_that_is_none_is_refused_by_its_file(tmp_path: Path) -> None:
    source = folder_of(KINDS["byte-level BPE"](), tmp_path / "theirs")
    Ours(load_checkpoint(source), tmp_path / "ours")
    for wrong in ({"repetition_penalty": -1}, {"forced_bos_token_id": 10**6}, {"bad_words_ids": [["x"]]}):
        (tmp_path / "ours" / "generation_config.json").write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=next(iter(wrong))) as refusal:
            load_wishes(tmp_path / "ours", load_tokenizer(tmp_path / "ours"), 300)
        assert refusal.value.where == str(tmp_path / "ours" / "generation_config.json")


def test_without_a_number_text_ends_with_the_context(tmp_path: Path) -> None:
    source = folder_of(KINDS["byte-level BPE"](), tmp_path / "theirs", eos_token_id=None)
    ours = Ours(load_checkpoint(source), tmp_path / "ours")
    ids = ours.tokenizer.encode("fox" * 100, add_special_tokens=False)[:100]
    prompt = str(ours.tokenizer.decode(ids))
    left = 128 - len(ours.tokenizer.encode(prompt, add_special_tokens=False)) + 1
    free = list(stream_text(ours.engine, ours.tokenizer, prompt, stop_tokens=[]))
    asked = list(stream_text(ours.engine, ours.tokenizer, prompt, stop_tokens=[], max_new_tokens=left))
    assert free == asked
    with pytest.raises(InputError, match="more than the model's"):
        stream_text(ours.engine, ours.tokenizer, prompt, stop_tokens=[], max_new_tokens=left + 1)
    short = list(stream_text(ours.engine, ours.tokenizer, "a", stop_tokens=[]))
    assert short == list(stream_text(ours.engine, ours.tokenizer, "a", stop_tokens=[], max_new_tokens=64))
