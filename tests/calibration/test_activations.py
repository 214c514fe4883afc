"""Streamed statistics equal those of all activations at once; the residual stream equals a plain forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from roots_compress.calibration.activations import InputStatistics, ResidualStream, batches, observed
from roots_compress.data.windows import PackedWindows, following
from roots_compress.errors import StageError
from roots_compress.models.modeling import RootsForCausalLM
from tests.specs import SPECS
from tests.tiny import tiny_layer, tiny_model, tiny_tokens

DOWN = "model.layers.0.mlp.down_proj"


def make_windows(count: int = 5, tokens: int = 12, *, documents: int = 2) -> PackedWindows:
    """Return random windows, each of `documents` equal segments."""
    ids = tiny_tokens(count, tokens).numpy()
    segments = np.broadcast_to(np.arange(tokens) * documents // tokens, ids.shape).astype(np.int64)
    return PackedWindows(ids, following(ids, ids >= 0), segments)


def all_inputs(model: RootsForCausalLM, windows: PackedWindows, names: Sequence[str]) -> dict[str, Tensor]:
    """Return every input row of the named modules, from one forward over all windows at once."""
    held: dict[str, Tensor] = {}
    handles = [
        dict(model.named_modules())[name].register_forward_pre_hook(
            lambda _m, inputs, name=name: held.__setitem__(name, inputs[0].detach().flatten(0, -2))
        )
        for name in names
    ]
    with torch.no_grad():
        model(torch.from_numpy(windows.input_ids), segment_ids=torch.from_numpy(windows.segment_ids))
    for handle in handles:
        handle.remove()
    return held


@pytest.mark.parametrize("width", [1, 63, 64, 65, 600])
def test_a_gram_matrix_is_whole_whatever_its_stripes(width: int) -> None:
    batches_RC = torch.randn(3, 50, width, generator=torch.Generator().manual_seed(0))
    statistics = InputStatistics(width, gram=True)
    for number, rows_RC in enumerate(batches_RC):
        statistics.update(rows_RC)
        if number:  # Whether it was asked for before or not.
            rows = batches_RC[: number + 1].flatten(0, 1).double()
            torch.testing.assert_close(statistics.gram, rows.T @ rows, rtol=1e-5, atol=1e-4)
    assert statistics.gram is not None
    assert torch.equal(statistics.gram, statistics.gram.T)
    assert torch.equal(statistics.squared_norms, statistics.gram.diagonal())


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize("gram", [True, False])
def test_streamed_statistics_equal_those_of_all_rows(batch_size: int, gram: bool) -> None:
    model, windows = tiny_model(), make_windows()
    rows = all_inputs(model, windows, [DOWN])[DOWN].double()
    statistics = InputStatistics(48, gram=gram)
    with (
        torch.no_grad(),
        observed({DOWN: model.get_submodule(DOWN)}, lambda _, each: statistics.update(each)),
    ):
        for read in batches(windows, batch_size):
            model(**read)
    assert statistics.rows == rows.shape[0] == 60
    torch.testing.assert_close(statistics.squared_norms, rows.square().sum(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(statistics.largest.double(), rows.abs().amax(0), rtol=1e-5, atol=1e-6)
    if gram:
        assert statistics.gram is not None
        torch.testing.assert_close(statistics.gram, rows.T @ rows, rtol=1e-5, atol=1e-5)
    else:
        assert statistics.gram is None, "a Gram matrix is made only where it was asked for"


def test_hooks_are_gone_afterwards_even_after_an_error() -> None:
    model = tiny_model()

    def failing(_name: str, _rows: Tensor) -> None:
        raise RuntimeError("observer")

    with (
        pytest.raises(RuntimeError, match="observer"),
        observed({DOWN: model.get_submodule(DOWN)}, failing),
    ):
        model(tiny_tokens())
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_infinite_activations_are_refused_by_name(value: float) -> None:
    statistics = InputStatistics(8)
    rows = torch.ones(3, 8)
    rows[1, 5] = value
    statistics.update(rows)
    with pytest.raises(StageError, match=r"down_proj.*the first of them 5"):
        statistics.check(DOWN)


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"position": "learned", "norm": "layer_norm", "gated_mlp": False, "embedding_scale": 3.0},
        {"layers": [tiny_layer(sliding_window=4), tiny_layer(head_dim=4, num_attention_heads=2)]},
        {"attention": {"kind": "top_m", "top_m": 3}},
        *SPECS.values(),
    ],
    ids=["llama", "gpt2", "windows and widths differ", "sparse", *SPECS],
)
@pytest.mark.parametrize("documents", [1, 3])
def test_the_residual_stream_follows_the_plain_forward(overrides: dict[str, Any], documents: int) -> None:
    model, windows = tiny_model(**overrides), make_windows(documents=documents)
    layers = model.model.layers
    with torch.no_grad():
        states = model(
            torch.from_numpy(windows.input_ids),
            segment_ids=torch.from_numpy(windows.segment_ids),
            output_hidden_states=True,
        ).hidden_states
        stream = ResidualStream(model, windows, batch_size=2)
        assert model.model.layers is layers, "the layers are put back"
        for index, layer in enumerate(layers):
            torch.testing.assert_close(torch.cat(stream.hidden), states[index], rtol=1e-4, atol=1e-5)
            for half in layer.halves:
                stream.add(half, stream.contributions(half))
    torch.testing.assert_close(torch.cat(stream.hidden), states[-1], rtol=1e-4, atol=1e-5)


def test_a_fork_of_the_stream_moves_on_its_own() -> None:
    model, windows = tiny_model(), make_windows()
    with torch.no_grad():
        stream, straight = ResidualStream(model, windows), ResidualStream(model, windows)
        fork = stream.fork()
        for layer in model.model.layers:
            fork.advance(layer)
            for half in layer.halves:
                straight.add(half, straight.contributions(half))
    torch.testing.assert_close(torch.cat(fork.hidden), torch.cat(straight.hidden))
    torch.testing.assert_close(
        torch.cat(stream.hidden), model.model.embed_tokens(torch.from_numpy(windows.input_ids))
    )
