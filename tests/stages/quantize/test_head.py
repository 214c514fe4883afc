"""The head and the table: folding the final norm keeps the model, and spares the head's input."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from roots_compress.calibration.activations import ResidualStream
from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.events import Events
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.spec import LAYER_PROJECTION, LAYER_TABLE
from roots_compress.stages.quantize.head import head_input, head_scale, round_head, round_layer_inputs
from roots_compress.stages.quantize.rounding import quantize_matrix
from roots_compress.stages.quantize.smoothing import energy_scales, relative_error
from roots_compress.stages.quantize.stage import assemble
from roots_compress.stages.quantize.walk import Rounded
from tests.specs import sharing
from tests.stages.quantize.windows import random_windows
from tests.tiny import tiny_model, tiny_tokens

QUIET = Events()

GROUP: Literal[16] = 16
KINDS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "layer norm": {"norm": "layer_norm"},
    "scaled embedding": {"embedding_scale": 3.0},
}


def outlying(gain: float = 40.0, **switches: Any) -> RootsWithHead:
    """Return a model, two channels of whose final norm are so many times as large as the others."""
    model = tiny_model(**switches)
    with torch.no_grad():
        model.model.norm.weight[:2] *= gain
    return model


def passed(model: RootsWithHead) -> ResidualStream:
    stream = ResidualStream(model, random_windows())
    for layer in model.model.layers:
        stream.advance(layer)
    return stream


def with_head_rounded(model: RootsWithHead, scale_W: Tensor | None) -> RootsWithHead:
    """Return the model with nothing rounded but the table and the head."""
    rounded = Rounded()
    round_head(model, passed(model), scale_W, GROUP, rounded)
    return assemble(model, rounded, QuantizeConfig(group_size=GROUP))


@torch.no_grad()
def logits(model: RootsWithHead) -> Tensor:
    result: Tensor = model(input_ids=tiny_tokens(2, 20)).logits
    return result


@torch.no_grad()
def test_the_head_reads_the_final_norm() -> None:
    model = tiny_model()
    stream = passed(model)
    seen = head_input(model, stream)
    rows = model.model.norm(torch.cat(stream.hidden)).flatten(0, -2)
    torch.testing.assert_close(seen.mean_square, rows.square().mean(dim=0))


@pytest.mark.parametrize("switches", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("folded", [False, True])
def test_the_model_stays_what_it_is(switches: dict[str, Any], folded: bool) -> None:
    """To within the rounding to 8 bits, whatever the scale: what is divided is multiplied again."""
    model = tiny_model(**switches)
    scale_W = torch.rand(32, generator=torch.Generator().manual_seed(0)) + 0.5 if folded else None
    found = with_head_rounded(model, scale_W)
    assert relative_error(logits(model), logits(found)) < 0.02
    if scale_W is not None:
        assert not torch.allclose(found.model.norm.weight, model.model.norm.weight, rtol=0.1)


@torch.no_grad()
def divergence(model: RootsWithHead, found: RootsWithHead) -> float:
    """Return the mean Kullback-Leibler divergence on the text that scales are chosen on, plainly."""
    windows = random_windows()
    tokens = torch.from_numpy(windows.input_ids)
    expected, actual = (
        each(input_ids=tokens, segment_ids=torch.from_numpy(windows.segment_ids)).logits.log_softmax(-1)
        for each in (model, found)
    )
    return float((expected.exp() * (expected - actual)).sum(dim=-1).mean())


@pytest.mark.parametrize("gain", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("switches", KINDS.values(), ids=KINDS.keys())
def test_the_scale_is_the_one_that_leaves_the_predictions_least_wrong(
    switches: dict[str, Any], gain: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all that come into question, none included; lookups are rounded with the head where they share."""
    monkeypatch.setattr("roots_compress.stages.quantize.head.JUDGED_WINDOWS", 1000)
    monkeypatch.setattr("roots_compress.stages.quantize.head.JUDGED_ROWS", 1_000_000)
    model, windows = outlying(gain, **switches), random_windows()
    stream = passed(model)
    scales = [None, *energy_scales(head_input(model, stream).mean_square)]
    costs = [divergence(model, with_head_rounded(model, scale)) for scale in scales]
    best = scales[costs.index(min(costs))]
    found = head_scale(model, windows, stream, GROUP, events=QUIET)
    assert found is best if best is None else found is not None and torch.equal(found, best)


def test_a_head_that_reads_outliers_is_relieved() -> None:
    model = outlying(tie_word_embeddings=False)
    scale_W = head_scale(model, random_windows(), passed(model), GROUP, events=QUIET)
    assert scale_W is not None
    assert scale_W[:2].min() > scale_W[2:].max()
    plain, folded = (divergence(model, with_head_rounded(model, scale)) for scale in (None, scale_W))
    assert folded < 0.7 * plain


@torch.no_grad()
def test_what_the_head_reads_decides_how_its_rows_are_clipped() -> None:
    """Divided by the scale, as the head's columns are multiplied by it."""
    model = outlying(tie_word_embeddings=False)
    scale_W = torch.linspace(0.2, 5.0, 32)
    read_RW = model.model.norm(torch.cat(passed(model).hidden)).flatten(0, -2) / scale_W
    head_VW = model.get_submodule("lm_head").get_parameter("weight") * scale_W
    expected = quantize_matrix(head_VW, "w8", GROUP, importance_C=read_RW.square().mean(dim=0))
    rounded = Rounded()
    round_head(model, passed(model), scale_W, GROUP, rounded)
    torch.testing.assert_close(rounded.state["lm_head.weight_scale"], expected.buffers()["weight_scale"])


def test_per_layer_embeddings_are_rounded_in_one_order() -> None:
    rounded = Rounded()
    round_layer_inputs(tiny_model(spec=sharing()), "w8", GROUP, rounded)
    assert list(rounded.formats) == [LAYER_TABLE, LAYER_PROJECTION]
