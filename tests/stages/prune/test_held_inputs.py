"""Inputs held for the pass after a cut: the stream goes on as if the cut half-layer had run again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from roots_compress.calibration.activations import ResidualStream
from roots_compress.models.blocks.base import Half
from roots_compress.stages.prune.held_inputs import HeldInputs, held_bytes
from roots_compress.stages.prune.layerwise import LayerwiseCutter
from tests.stages.prune.shapes import shape
from tests.stages.prune.test_layerwise import make_windows
from tests.tiny import tiny_model

NARROW = [shape(kv_groups=1, queries=2, mlp_channels=32), shape(2, 1, 24)]
BATCH_BYTES = 4 * 32 * 48 * 4


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_stream_goes_on_as_through_the_cut_layers(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roots_compress.stages.prune.held_inputs.HELD_SHARE", share)
    model = tiny_model()
    cutter = LayerwiseCutter(model, make_windows(), score="activation", refitted=True, device="cpu")
    list(cutter.cut(NARROW))
    stream = ResidualStream(model, make_windows())
    for layer in model.model.layers:
        with torch.no_grad():
            stream.advance(layer)
    for found, expected in zip(cutter.stream.hidden, stream.hidden, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_what_was_held_does_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roots_compress.stages.prune.held_inputs.HELD_SHARE", 1e9)
    model, runs = tiny_model(), 0
    plain = ResidualStream.inner

    def counted(stream: ResidualStream, half: Half, *, first: int = 0) -> Iterator[torch.Tensor]:
        nonlocal runs
        runs += len(stream.hidden[first:])
        return plain(stream, half, first=first)

    monkeypatch.setattr(ResidualStream, "inner", counted)
    cutter = LayerwiseCutter(model, make_windows(), score="activation", refitted=True, device="cpu")
    list(cutter.cut(NARROW))
    assert runs == 4 * len(cutter.stream.hidden), "each block once over all batches"


def test_no_more_is_held_than_fits() -> None:
    batches = [torch.full((4, 32, 48), float(number)) for number in range(5)]
    held = HeldInputs(2 * BATCH_BYTES + 1)
    assert [batch[0, 0, 0].item() for batch in held.passing(batches)] == [0, 1, 2, 3, 4]
    asked: list[int] = []

    def anew(first: int) -> Iterator[torch.Tensor]:
        asked.append(first)
        return iter(batches[first:])

    found = list(held.contributions(torch.nn.Identity(), [1, 5], anew))
    assert asked == [2]
    assert [each.shape[-1] for each in found] == [2, 2, 48, 48, 48]
    assert [each[0, 0, 0].item() for each in found] == [0, 1, 2, 3, 4]


def test_a_device_with_memory_apart_holds_nothing() -> None:
    model = tiny_model()
    assert held_bytes(model, "cuda") == 0
    assert held_bytes(model, "cpu") == sum(each.nbytes for each in model.parameters()) // 2
