"""Beam search finds the texts that transformers' finds, through either engine."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from roots_compress.checkpoints.logit_settings import LogitSettings
from roots_compress.errors import InputError
from roots_compress.export.exporter import write_graph
from roots_compress.runtime.beams import Beams, beam_search
from roots_compress.runtime.onnx.engine import OnnxEngine
from roots_compress.runtime.torch_engine import TorchEngine
from tests.tiny import tiny_model, tiny_tokens

PROMPTS = [tiny_tokens(1, length, seed=length)[0].tolist() for length in (9, 1)]
NEW = 9


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_graph(tiny_model(), tmp_path_factory.mktemp("graph"))[0]


@pytest.mark.parametrize(
    ("count", "length_penalty", "early_stopping"),
    [*product((2, 4), (1.0,), (False, True, "never")), (3, -1.0, False), (3, 2.0, "never"), (3, 0.0, True)],
)
def test_beams_equal_transformers(
    graph: Path, count: int, length_penalty: float, early_stopping: Any
) -> None:
    model: Any = tiny_model()
    engines = TorchEngine(tiny_model()), OnnxEngine.open(graph, threads=1, provider="cpu")
    free = beam_search(engines[0], PROMPTS[0], Beams(count), max_new_tokens=NEW)
    for prompt, stops in product(PROMPTS, ([], free[3:6:2])):
        given = model.generate(
            torch.tensor([prompt]),
            max_new_tokens=NEW,
            do_sample=False,
            num_beams=count,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            eos_token_id=stops or None,
            pad_token_id=2,
        )
        wanted = given[0, len(prompt) :].tolist()
        beams = Beams(count, length_penalty, early_stopping)
        for engine in engines:
            found = beam_search(engine, prompt, beams, max_new_tokens=NEW, stop_tokens=stops)
            assert found == wanted[: len(found)]
            assert set(wanted[len(found) :]) <= {2}


RULED_OUT = {"bad_words_ids": [[number] for number in range(300) if number % 11], "min_length": 4}


@pytest.mark.parametrize("renormalized", [True, False, None])
def test_beams_are_compared_by_probabilities_of_what_is_not_ruled_out(renormalized: bool | None) -> None:
    """As every Marian's generation_config.json asks."""
    asked: dict[str, Any] = {**RULED_OUT, "renormalize_logits": renormalized}
    settings, model = LogitSettings.read(asked, Path("generation_config.json")), tiny_model()
    theirs: Any = model
    for prompt in (tiny_tokens(1, length, seed=length)[0].tolist() for length in range(2, 9)):
        made = theirs.generate(
            torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False, num_beams=3, **asked
        )
        beams = Beams(3)
        found = beam_search(TorchEngine(model), prompt, beams, max_new_tokens=NEW, settings=settings)
        assert found == made[0, len(prompt) :].tolist()


def test_no_beam_and_too_many_are_refused() -> None:
    with pytest.raises(InputError, match="at most 1024"):
        Beams(10**9)
    with pytest.raises(InputError, match="num_beams cannot be 0"):
        beam_search(TorchEngine(tiny_model()), [3], Beams(0), max_new_tokens=2)


@pytest.mark.parametrize("kind", ["torch", "graph"])
def test_a_cache_of_other_rows_goes_on_as_they_do(graph: Path, kind: str) -> None:
    engine = (
        TorchEngine(tiny_model()) if kind == "torch" else OnnxEngine.open(graph, threads=1, provider="cpu")
    )
    ids, rows = tiny_tokens(3, 9).numpy(), np.array([2, 2, 0, 1])
    mask = np.array([[1] * 9, [0] * 4 + [1] * 5, [0] * 8 + [1]])
    step = engine.prefill(ids[:, :8], mask[:, :8] | (np.arange(8) == 7))
    step = step._replace(cache=engine.reordered(step.cache, rows))
    moved = engine.decode(ids[rows, 8], step.cache).logits
    mask[2, 7] = 1
    np.testing.assert_allclose(moved, engine.prefill(ids[rows], mask[rows]).logits, atol=1e-4)
