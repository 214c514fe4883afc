"""Generation equals transformers' where greedy, keeps to its limits where sampled, and stops when told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from roots_compress.errors import InputError, StageError
from roots_compress.runtime.generate import generate, sample
from roots_compress.runtime.torch_engine import TorchEngine
from tests.tiny import tiny_model, tiny_tokens

PROMPTS = [tiny_tokens(1, length, seed=length)[0].tolist() for length in (9, 4, 1)]


def collect(steps: Iterator[list[int | None]]) -> list[list[int]]:
    rows = zip(*steps, strict=True)
    return [[token for token in row if token is not None] for row in rows]


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    return TorchEngine(tiny_model())


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_equals_transformers(engine: TorchEngine, prompt: list[int]) -> None:
    model: Any = tiny_model()
    output = model.generate(
        torch.tensor([prompt]), max_new_tokens=40, do_sample=False, eos_token_id=None, pad_token_id=2
    )
    ours = collect(generate(engine, [prompt], max_new_tokens=40))
    assert ours == [output[0, len(prompt) :].tolist()]


def test_a_ragged_batch_is_continued_as_its_rows_are_alone(engine: TorchEngine) -> None:
    alone = [collect(generate(engine, [prompt], max_new_tokens=12))[0] for prompt in PROMPTS]
    assert collect(generate(engine, PROMPTS, max_new_tokens=12)) == alone


def test_a_stop_token_ends_its_row_alone_and_is_the_last_it_yields(engine: TorchEngine) -> None:
    """Of drawn tokens: the likeliest ones of so small a model are all alike soon."""
    free = collect(generate(engine, PROMPTS, max_new_tokens=12, temperature=1.0))
    stops = [free[0][5], free[1][3]]
    stopped = collect(generate(engine, PROMPTS, max_new_tokens=12, temperature=1.0, stop_tokens=stops))
    ends = [[*map(stops.__contains__, row), True].index(True) + 1 for row in free]
    assert stopped == [row[:end] for row, end in zip(free, ends, strict=True)]
    assert ends[0] <= 6
    assert ends[1] <= 4


def test_tokens_come_one_by_one(engine: TorchEngine) -> None:
    steps = generate(engine, [PROMPTS[0]], max_new_tokens=10**2)
    assert isinstance(next(steps)[0], int)


def test_the_same_seed_draws_the_same_tokens(engine: TorchEngine) -> None:
    def drawn(seed: int) -> list[list[int]]:
        return collect(generate(engine, PROMPTS, max_new_tokens=12, temperature=1.5, seed=seed))

    assert drawn(1) == drawn(1) != drawn(2)


def test_top_k_of_one_is_greedy(engine: TorchEngine) -> None:
    greedy = collect(generate(engine, PROMPTS, max_new_tokens=8))
    assert collect(generate(engine, PROMPTS, max_new_tokens=8, temperature=3.0, top_k=1)) == greedy
    assert collect(generate(engine, PROMPTS, max_new_tokens=8, temperature=3.0, top_p=1e-6)) == greedy


def test_samples_follow_the_softmax() -> None:
    probabilities = np.asarray([0.5, 0.1, 0.3, 0.1])
    logits = np.log(np.tile(probabilities, (20_000, 1)))
    tokens = sample(logits, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(tokens) / len(tokens), probabilities, atol=0.02)


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({"top_k": 2}, {0, 2}),
        ({"top_p": 0.5}, {0}),
        ({"top_p": 0.6}, {0, 2}),
        ({"top_k": 3, "top_p": 0.9}, {0, 1, 2}),
    ],
)
def test_restrictions_keep_the_likeliest(limits: dict[str, Any], kept: set[int]) -> None:
    logits = np.log(np.tile([0.5, 0.1, 0.3, 0.1], (2_000, 1)))
    assert set(sample(logits, np.random.default_rng(0), **limits).tolist()) == kept


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_k": 0},
        {"top_p": 0.0},
    ],
)
def test_options_out_of_range_are_refused_at_once(engine: TorchEngine, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        generate(engine, PROMPTS, **{"max_new_tokens": 4, **options})


@pytest.mark.parametrize("prompts", [[], [[]], [[3, 4], []]])
def test_a_prompt_of_no_token_is_refused(engine: TorchEngine, prompts: list[list[int]]) -> None:
    with pytest.raises(InputError, match=r"no token|no prompt"):
        generate(engine, prompts, max_new_tokens=4)


def test_more_tokens_than_the_context_holds_are_refused(engine: TorchEngine) -> None:
    room = engine.max_context - len(PROMPTS[0]) + 1
    assert len(collect(generate(engine, [PROMPTS[0]], max_new_tokens=room))[0]) == room
    with pytest.raises(InputError, match="more than the model's"):
        generate(engine, [PROMPTS[0]], max_new_tokens=room + 1)


def test_a_broken_model_is_an_error_and_not_a_token() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(StageError, match="not finite"):
        next(generate(TorchEngine(model), PROMPTS, max_new_tokens=4))
