"""A checkpoint of which memory holds a part: layers that are on disk are read when they run."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from roots_compress.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from roots_compress.checkpoints.spread import Spread, limits_of
from roots_compress.errors import InputError
from roots_compress.models.config import RootsConfig
from roots_compress.models.encoders import make_model
from roots_compress.models.layer import BLOCKS
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.ops.base import OpSpec, changed
from roots_compress.models.spec import ModelSpec
from roots_compress.runtime.torch_engine import TorchEngine
from tests.specs import ENCODERS, SPECS
from tests.tasks.commands import roots
from tests.tiny import randomise, tiny_checkpoint, tiny_layer, tiny_tokenizer, tiny_tokens


def test_a_model_whose_layers_are_on_disk_says_what_the_whole_one_says(tmp_path: Path) -> None:
    source = tmp_path / "source"
    save_checkpoint(tiny_checkpoint(layers=[tiny_layer()] * 4), source)
    whole = load_checkpoint(source).model
    size = sum(parameter.nbytes for parameter in whole.parameters())
    put, read = Spread._put, list[Tensor]()

    def recorded(spread: Spread, name: str, tensor: Tensor) -> Tensor:
        read.append(put(spread, name, tensor))
        return read[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Spread, "_put", recorded)
        spread = load_checkpoint(source, spread=Spread({"cpu": size * 2 // 3})).model
    for held in (read, list(spread.parameters())):
        assert 0 < sum(tensor.nbytes for tensor in held if not tensor.is_meta) < size * 2 // 3
    ids_BT = tiny_tokens(2, 20).numpy()
    mask_BT = np.ones_like(ids_BT)
    mask_BT[1, :6] = 0
    given = []
    for model in (whole, spread):
        assert isinstance(model, RootsForCausalLM)
        engine = TorchEngine(model)
        step = engine.prefill(ids_BT, mask_BT)
        given.append((engine.logits(ids_BT), step.logits, engine.decode(ids_BT[:, 0], step.cache).logits))
    for one, other in zip(*given, strict=True):
        np.testing.assert_array_equal(one, other)
    text = tmp_path / "text.txt"
    text.write_text("A model reads tokens, one after another.\n\n" * 40)
    said = [
        roots("eval", source, "--eval-data", text, "--block-size", "32", "--windows", "4", *options)
        for options in ((), ("--device-map", f"cpu={size * 2 // 3 / 1000:.3f}KB"))
    ]
    assert said[0] == said[1]


def spec_with(block: type[OpSpec]) -> ModelSpec:
    """Return a specification of the tests' that has such a block."""
    specs: list[ModelSpec] = [kind["spec"] for kind in SPECS.values()]
    return next(spec for spec in specs if any(isinstance(each.op, block) for each in chain(*spec.layers)))


@pytest.mark.parametrize(
    "spec",
    [
        *(pytest.param(spec_with(block), id=block.__name__) for block in BLOCKS),
        pytest.param(ENCODERS["masked tokens"], id="masked tokens"),
    ],
)
@pytest.mark.parametrize("tied", [True, False])
def test_each_kind_of_block_runs_from_disk(spec: ModelSpec, tied: bool, tmp_path: Path) -> None:
    model = make_model(RootsConfig(spec=changed(spec, tied=tied))).eval()
    randomise(model)
    save_checkpoint(Checkpoint(model, tiny_tokenizer()), tmp_path / "source")
    spread = load_checkpoint(tmp_path / "source", spread=Spread({"cpu": 0})).model
    assert all(parameter.is_meta for parameter in spread.parameters())
    with torch.no_grad():
        whole, read = (each(input_ids=tiny_tokens()).logits for each in (model, spread))
    assert torch.equal(whole, read)


def test_devices_that_are_not_there_are_refused() -> None:
    assert limits_of("auto") == {}
    for text, fault in (
        ("half", "names no devices"),
        ("cpu=2", "names no devices"),
        ("99=1GB", "names GPU 99"),
    ):
        with pytest.raises(InputError, match=fault):
            limits_of(text)
