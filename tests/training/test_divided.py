"""Blocks of every kind, divided among two processes, give what they give whole; how a model is divided."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from roots_compress.data.windows import model_inputs
from roots_compress.models.blocks.base import Block
from roots_compress.models.config import RootsConfig
from roots_compress.models.encoders import make_model
from roots_compress.models.heads import RootsWithHead
from roots_compress.training.parallel import divided as division
from roots_compress.training.parallel import placement
from roots_compress.training.parallel.divided import divided
from roots_compress.training.parallel.launch import call, team_of
from roots_compress.training.parallel.team import Team
from roots_compress.training.parallel.twins import emptied, sent, twin
from tests.specs import ENCODERS, SEQ2SEQ, SPECS
from tests.tiny import randomise, tiny_layer, tiny_model, tiny_tokens

pytestmark = [pytest.mark.slow, pytest.mark.processes]


@pytest.fixture(scope="module")
def two() -> Iterator[Team]:
    with team_of(2, device="cpu", label="tests") as team:
        yield team


def read(team: Team, model: RootsWithHead, inputs: dict[str, Tensor]) -> None:
    """Read this process's rows; process 0 keeps what all of them gave in `FOUND`."""
    parts = divided(model, team, "cpu").eval()
    own = {name: value.chunk(team.size)[team.rank] for name, value in inputs.items()}
    with torch.no_grad():
        output = parts.model(**own, use_cache=False, output_hidden_states=True)
    blocks = [block for block in parts.modules() if isinstance(block, Block)]
    wholes = [block for block in model.modules() if isinstance(block, Block)]
    shares = [part.spec != whole.spec for part, whole in zip(blocks, wholes, strict=True)]
    FOUND[:] = [*team.gather((output.last_hidden_state, output.hidden_states[1])), shares]


def make(team: Team, model: RootsWithHead, shards: bool) -> None:
    """Make a divided model, or shards; process 0 keeps in `FOUND` the most whole weights each had at once."""
    source: Callable[..., Tensor] = emptied if shards else sent
    alive: list[tuple[StorageWeakRef, int]] = []
    most = 0

    def watched(*given: Any) -> Tensor:
        nonlocal most
        tensor = source(*given)
        alive.append((StorageWeakRef(tensor.untyped_storage()), tensor.numel()))
        most = max(most, sum(size for storage, size in alive if not storage.expired()))
        return tensor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement if shards else division, "emptied" if shards else "sent", watched)
        _made = placement.Shards(model, team, "cpu") if shards else divided(model, team, "cpu")
    FOUND[:] = team.gather(most)


FOUND: list[Any] = []
CASES = {
    "norms of the stream": SPECS["norms of the stream"]["spec"],
    "clamped experts": SPECS["clamped experts"]["spec"],
    "experts beside": SPECS["experts beside"]["spec"],
    "shared keys": SPECS["shared keys"]["spec"],
    "sinks": SPECS["sinks"]["spec"],
    "linear attention": SPECS["linear attention"]["spec"],
    "masked tokens": ENCODERS["masked tokens"],
    "two stacks": SEQ2SEQ["untied, biases"],
}
"""Blocks with biases, blocks that share keys or experts' inputs, and blocks that stay whole beside others."""


@pytest.mark.parametrize("name", CASES)
def test_divided_blocks_give_what_they_give_whole(name: str, two: Team) -> None:
    spec = CASES[name]
    model = make_model(RootsConfig(spec=spec)).eval().requires_grad_(False)
    randomise(model)
    ids_BT, segments_BT = tiny_tokens(4, 12), torch.zeros(4, 12, dtype=torch.long)
    segments_BT[:, 7:] = 1
    source = (tiny_tokens(4, 12, seed=1), segments_BT) if spec.source is not None else None
    inputs = model_inputs(ids_BT, segments_BT, source, None)
    call(two, read, twin(model, "meta"), inputs)
    read(two, model, inputs)
    *rows, shares = FOUND
    with torch.no_grad():
        whole = model.model(**inputs, use_cache=False, output_hidden_states=True)
    for place, right in enumerate((whole.last_hidden_state, whole.hidden_states[1])):
        given = torch.cat([each[place] for each in rows])
        torch.testing.assert_close(given, right, atol=1e-5, rtol=1e-5)
    assert any(shares)


@pytest.mark.parametrize("shards", [False, True])
def test_no_process_but_the_first_holds_more_than_a_layer_whole(shards: bool, two: Team) -> None:
    model = tiny_model(layers=[tiny_layer()] * 6).requires_grad_(shards)
    call(two, make, twin(model, "meta"), shards)
    make(two, model, shards)
    layers = [sum(each.numel() for each in layer.parameters()) for layer in model.model.all_layers()]
    rest = sum(each.numel() for each in model.parameters()) - sum(layers)
    assert 0 < FOUND[1] < rest + 2 * layers[0]
