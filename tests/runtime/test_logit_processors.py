"""Greedy tokens under each setting of generation_config.json equal those of transformers' `generate`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from roots_compress.checkpoints.logit_settings import LogitSettings
from roots_compress.errors import InputError
from roots_compress.runtime.generate import generate
from roots_compress.runtime.logit_processors import adjusted, repeating
from roots_compress.runtime.torch_engine import TorchEngine
from tests.tiny import VOCAB_SIZE, tiny_model, tiny_tokens

NEW = 16
PROMPTS = [tiny_tokens(1, length, seed=length)[0].tolist() for length in (1, 9)]
SETTINGS: list[dict[str, Any]] = [
    {"repetition_penalty": 1.5},
    {"repetition_penalty": 0.7},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 4},
    {"min_length": 8},
    {"min_new_tokens": 5},
    {"min_length": 4, "min_new_tokens": 6},
    {"forced_bos_token_id": 17},
    {"forced_eos_token_id": 9},
    {"forced_eos_token_id": [11, 9]},
    {"exponential_decay_length_penalty": [3, 30.0]},
    {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "min_new_tokens": 3, "forced_eos_token_id": 9},
]


def ours(prompt: list[int], settings: LogitSettings, stop: list[int]) -> list[int]:
    steps = generate(TorchEngine(model()), [prompt], max_new_tokens=NEW, settings=settings, stop_tokens=stop)
    return [token for (token,) in steps if token is not None]


@cache
def model() -> Any:
    return tiny_model()


def theirs(prompt: list[int], settings: dict[str, Any], stop: list[int]) -> list[int]:
    given = torch.tensor([prompt])
    output = model().generate(
        given,
        attention_mask=torch.ones_like(given),
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=stop or None,
        pad_token_id=2,
        **settings,
    )
    tokens: list[int] = output[0, len(prompt) :].tolist()
    return tokens


@cache
def unchanged(prompt: int, stop: tuple[int, ...] = ()) -> list[int]:
    """Return what transformers generates after a prompt under no setting."""
    return theirs(PROMPTS[prompt], {}, list(stop))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_tokens_equal_transformers(settings: dict[str, Any]) -> None:
    read = LogitSettings.read(settings, Path("generation_config.json"))
    changed = 0
    for number, prompt in enumerate(PROMPTS):
        free = unchanged(number)
        never = next(token for token in range(3, VOCAB_SIZE) if token not in free)
        # No end, one that would not come by itself, and one that would come early.
        for stop in ([], [never], [free[2], never]):
            if not stop and "exponential_decay_length_penalty" in settings:
                continue  # transformers asks for an end to make likelier
            expected = theirs(prompt, settings, stop)
            assert ours(prompt, read, stop) == expected, (prompt, stop)
            changed += expected != unchanged(number, tuple(stop))
    assert changed, "the setting changed nothing"


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_tokens_that_are_ruled_out_or_biased_equal_transformers(prompt: list[int]) -> None:
    free = theirs(prompt, {}, [])
    for settings in (
        {"bad_words_ids": [[free[1]], free[3:6], [prompt[-1], free[0]]]},
        {"suppress_tokens": [free[0], free[4]]},
        {"begin_suppress_tokens": [free[0]]},
        {"begin_suppress_tokens": [free[0]], "forced_bos_token_id": 17},
        {"sequence_bias": [[[free[0]], -3.5], [[free[1], 40], 60.0], [free[2:5], -9.0]]},
        {"sequence_bias": [[[free[0]], 60.0], [[free[0]], -30.0]]},
    ):
        expected = theirs(prompt, settings, [])
        assert ours(prompt, LogitSettings.read(settings, Path("any")), []) == expected, settings
        assert expected != free, settings


def test_an_end_by_itself_is_no_bad_word() -> None:
    settings = LogitSettings(bad_words_ids=[[5], [6], [7, 5]])
    logits = np.zeros(10, np.float32)
    changed = adjusted(logits, [1, 7], settings, prompt_length=2, max_length=9, stop_tokens=[5])
    assert np.isneginf(changed).nonzero()[0].tolist() == [5, 6]
    changed = adjusted(logits, [1, 2], settings, prompt_length=2, max_length=9, stop_tokens=[5])
    assert np.isneginf(changed).nonzero()[0].tolist() == [6]


@pytest.mark.parametrize("factor", [1.5, 1e200, -1e200])
def test_an_end_that_grows_likelier_without_bound_stays_a_number(factor: float) -> None:
    settings = LogitSettings(exponential_decay_length_penalty=(1, factor))
    logits = np.array([0, -2, 3, 0.5, -np.inf], np.float32)
    tokens, ends = [1] * 6003, [0, 1, 2, 4]  # 6,001 tokens past the start
    changed = adjusted(logits, tokens, settings, prompt_length=1, max_length=9999, stop_tokens=ends)
    most = float(np.finfo(np.float32).max) * np.sign(factor)
    assert changed.tolist() == [0, most, most, 0.5, -np.inf]
    free = adjusted(logits, tokens, settings, prompt_length=1, max_length=9999, stop_tokens=[])
    assert free.tolist() == logits.tolist()


@pytest.mark.parametrize("factor", [0.5, 1.5, 1e200])
def test_an_end_that_min_length_rules_out_stays_so(factor: float) -> None:
    settings = LogitSettings(exponential_decay_length_penalty=(1, factor), min_length=9)
    logits = np.array([1, 2, 3], np.float32)
    changed = adjusted(logits, [0] * 5, settings, prompt_length=1, max_length=20, stop_tokens=[1])
    assert changed.tolist() == [1, -np.inf, 3]


def test_rows_of_a_batch_are_changed_by_their_own_tokens() -> None:
    settings = LogitSettings(repetition_penalty=1.8, no_repeat_ngram_size=2)
    together = generate(TorchEngine(tiny_model()), PROMPTS, max_new_tokens=NEW, settings=settings)
    alone = [ours(prompt, settings, []) for prompt in PROMPTS]
    assert [list(row) for row in zip(*together, strict=True)] == alone


def test_sequences_that_would_come_again() -> None:
    ids = np.array([1, 2, 3, 1, 2, 4, 1, 2])
    assert repeating(ids, 3).tolist() == [3, 4]
    assert repeating(ids, 9).tolist() == []
    assert repeating(ids, 1).tolist() == ids.tolist()


def test_the_models_logits_are_left_as_they_are() -> None:
    logits = np.arange(5, dtype=np.float32)
    adjusted(
        logits, [3], LogitSettings(repetition_penalty=2.0), prompt_length=1, max_length=4, stop_tokens=[]
    )
    assert logits.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 0},
        {"repetition_penalty": "1.1"},
        {"no_repeat_ngram_size": -1},
        {"no_repeat_ngram_size": True},
        {"bad_words_ids": [3]},
        {"bad_words_ids": [[]]},
        {"sequence_bias": {"3": 1.0}},
        {"forced_eos_token_id": -1},
        {"suppress_tokens": 3},
        {"exponential_decay_length_penalty": [3]},
    ],
    ids=str,
)
def test_what_is_no_setting_is_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(settings))} is") as refusal:
        LogitSettings.read(settings, Path("generation_config.json"))
    assert refusal.value.where == "generation_config.json"


def test_a_token_outside_the_vocabulary_is_refused_by_name() -> None:
    for settings in (
        {"bad_words_ids": [[1], [2, 9]]},
        {"forced_bos_token_id": 9},
        {"sequence_bias": [[[9], 1]]},
    ):
        read = LogitSettings.read(settings, Path("any"))
        with pytest.raises(InputError, match=f"{next(iter(settings))} names token 9"):
            read.require_vocabulary(9, Path("any"))
        read.require_vocabulary(10, Path("any"))
