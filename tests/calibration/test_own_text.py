"""Text that a model writes for its own calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from roots_compress.calibration.own_text import joined, own_text, writing_step
from roots_compress.data.windows import IGNORED_LABEL, PackedWindows
from roots_compress.errors import StageError
from roots_compress.events import Events
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.spec import ModelSpec
from tests.specs import beside_attention, convolving, latent, remembering, sharing
from tests.tiny import tiny_config, tiny_model

EVENTS = Events()


def written(
    model: RootsForCausalLM, *, windows: int = 64, bos: int | None = 7, seed: int = 0
) -> PackedWindows:
    return own_text(model, windows, 12, bos=bos, seed=seed, events=EVENTS)


def test_windows_open_with_bos_and_differ() -> None:
    ids = written(tiny_model()).input_ids
    assert ids.shape == (64, 12)
    assert (ids[:, 0] == 7).all()
    assert len(np.unique(ids[:, 1])) > 48
    assert (written(tiny_model(), bos=None).input_ids[:, 0] != 7).any()


@pytest.mark.parametrize(("bos", "opening"), [(7, 2), (None, 1)])
def test_what_the_model_did_not_write_is_not_scored(bos: int | None, opening: int) -> None:
    windows = written(tiny_model(), bos=bos)
    assert (windows.targets[:, : opening - 1] == IGNORED_LABEL).all()
    assert np.array_equal(windows.targets[:, opening - 1 : -1], windows.input_ids[:, opening:])


def test_the_seed_decides() -> None:
    model = tiny_model()
    assert np.array_equal(written(model).input_ids, written(model).input_ids)
    assert not np.array_equal(written(model).input_ids, written(model, seed=1).input_ids)


@torch.no_grad()
def test_tokens_follow_the_models_predictions() -> None:
    """The mean surprise at what it wrote is the mean entropy of its predictions: four standard errors."""
    model = tiny_model()
    ids = torch.from_numpy(written(model, windows=1024).input_ids)
    logarithms = model(input_ids=ids).logits.log_softmax(-1)[:, 1:-1]
    surprise = -logarithms.gather(-1, ids[:, 2:, None]).mean()
    entropy = -(logarithms.exp() * logarithms).sum(-1).mean()
    assert float(surprise) == pytest.approx(float(entropy), abs=0.06)


def test_a_model_that_predicts_nan_is_refused() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(StageError, match="predicts NaN"):
        written(model)


def test_joined_windows_take_turns() -> None:
    def windows(*values: int) -> PackedWindows:
        ids = np.repeat(np.array(values, dtype=np.int64)[:, None], 3, axis=1)
        return PackedWindows(ids, ids + 10, ids + 20)

    both = joined(windows(0, 2, 4), windows(1, 3, 5, 6, 7))
    assert both.input_ids[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert both.targets[:, 0].tolist() == [10, 11, 12, 13, 14, 15, 16, 17]
    assert both.segment_ids[:, 2].tolist() == [20, 21, 22, 23, 24, 25, 26, 27]
    assert joined(windows(0), windows(1)).input_ids.shape == (2, 3)


@pytest.mark.parametrize(
    "spec", [tiny_config().spec, convolving(), remembering(), beside_attention(), sharing(), latent()]
)
def test_a_step_is_timed_in_the_middle_of_windows(spec: ModelSpec) -> None:
    model, read = tiny_model(spec=spec), []

    def note(_model: object, _given: object, named: dict[str, Any]) -> None:
        read.append((named["past_key_values"].get_seq_length(), *named["input_ids"].shape))

    model.register_forward_pre_hook(note, with_kwargs=True)
    step = writing_step(model, 3, 12)
    for _ in range(9):  # More than there is room for at the end of windows.
        step()
    assert read == [(0, 3, 1), *[(6, 3, 1)] * 9]
