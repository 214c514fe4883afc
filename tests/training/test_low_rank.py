"""Updates of low rank: what is trained, what comes out, what it takes, and that it can be interrupted."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from roots_compress.configs.training import TrainingConfig
from roots_compress.errors import InputError
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.training.low_rank import ALPHA, LowRankLinear, check_rank, low_rank_updates
from roots_compress.training.summary import FitSummary
from tests.specs import SPECS
from tests.tiny import tiny_layer, tiny_model, tiny_tokens
from tests.training.test_loop import settings, train

RANK = 4
BIASED = {"attention_bias": True, "mlp_bias": True, "qk_norm": True}


def train_low_rank(model: RootsForCausalLM, work: Path, config: TrainingConfig) -> FitSummary:
    with low_rank_updates(model, RANK, seed=0):
        return train(model, work, config)


def weights(model: RootsForCausalLM) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changes(before: RootsForCausalLM, after: RootsForCausalLM) -> dict[str, torch.Tensor]:
    """Return how the parameters that changed did so."""
    pairs = zip(before.named_parameters(), after.named_parameters(), strict=True)
    return {name: new.detach() - old.detach() for (name, old), (_, new) in pairs if not torch.equal(old, new)}


def test_a_layer_gives_what_its_merged_weights_give() -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.nn.Linear(8, 6)
    layer = LowRankLinear(base, 2, generator)
    rows = torch.randn(5, 8, generator=generator)
    assert torch.equal(layer(rows), base(rows)), "training starts from the layer as it was"
    torch.nn.init.normal_(layer.lora_b)
    expected = rows @ (base.weight + ALPHA / 2 * layer.lora_b @ layer.lora_a).T + base.bias
    torch.testing.assert_close(layer(rows), expected)
    layer.merge()
    torch.testing.assert_close(base(rows), expected)


def test_every_projection_changes_by_the_rank_and_nothing_else_does(tmp_path: Path) -> None:
    model = tiny_model(**BIASED)
    names = [name for name, _ in model.named_modules()]
    train_low_rank(model, tmp_path, settings(steps=3))
    found = changes(tiny_model(**BIASED), model)
    kinds = ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down")
    assert len(found) == 2 * len(kinds)
    assert all(any(f"{kind}_proj.weight" in name for kind in kinds) for name in found)
    # What rounding adds to the difference of the weights is no rank of its own.
    assert {int(torch.linalg.matrix_rank(change, rtol=1e-4)) for change in found.values()} == {RANK}
    assert [name for name, _ in model.named_modules()] == names
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_every_expert_changes_by_the_rank_and_the_router_does_not(tmp_path: Path) -> None:
    model = tiny_model(**SPECS["experts"])
    train_low_rank(model, tmp_path, settings(steps=3))
    found = changes(tiny_model(**SPECS["experts"]), model)
    assert found.keys() == {
        f"model.layers.{place.layer}.{place.name}.{name}.weight"
        for place, op in model.config.spec.blocks()
        for name in op.matrices(model.config.hidden_size)
    }
    assert {int(torch.linalg.matrix_rank(change, rtol=1e-4)) for change in found.values()} == {RANK}


def test_what_comes_out_is_what_was_trained(tmp_path: Path) -> None:
    model, tokens = tiny_model(), tiny_tokens()
    with low_rank_updates(model, RANK, seed=0):
        train(model, tmp_path, settings(steps=3))
        trained = model(tokens).logits
    torch.testing.assert_close(model(tokens).logits, trained, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(tiny_model()(tokens).logits, trained, rtol=1e-2, atol=1e-2)


def test_it_learns(tmp_path: Path) -> None:
    first = train_low_rank(tiny_model(), tmp_path, settings(steps=1))
    last = train_low_rank(tiny_model(), tmp_path, settings(steps=60, learning_rate=1e-2))
    assert last.loss < 0.8 * first.loss


def test_a_state_holds_the_factors_alone(tmp_path: Path) -> None:
    layers = [tiny_layer(), tiny_layer(intermediate_size=32)]
    (tmp_path / "all").mkdir()
    train(tiny_model(layers=layers), tmp_path / "all", settings(steps=1))
    (tmp_path / "low").mkdir()
    train_low_rank(tiny_model(layers=layers), tmp_path / "low", settings(steps=1))
    both = [(tmp_path / kind / "step-00000001/state.safetensors").stat().st_size for kind in ("all", "low")]
    sides = [32 + 32, 32 + 16, 32 + 16, 32 + 32] * 2 + [32 + 48] * 3 + [32 + 32] * 3
    # Float32 weights and two moments; the rest is names and the random state.
    assert both[1] == pytest.approx(3 * 4 * RANK * sum(sides), abs=20_000)
    assert both[1] < 0.5 * both[0]


def test_an_interrupted_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    straight, resumed = tiny_model(), tiny_model()
    (tmp_path / "straight").mkdir()
    train_low_rank(straight, tmp_path / "straight", settings(steps=8))
    before = weights(resumed)
    calls = iter(range(100))

    def interrupt(*_: object) -> None:
        if next(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    handle = resumed.model.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_low_rank(resumed, tmp_path, settings(steps=8))
    handle.remove()
    assert (tmp_path / "step-00000005").exists()
    assert all(torch.equal(value, before[name]) for name, value in resumed.state_dict().items())
    train_low_rank(resumed, tmp_path, settings(steps=8))
    expected = straight.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.state_dict().items())


def test_the_state_of_another_rank_is_not_used(tmp_path: Path) -> None:
    train_low_rank(tiny_model(), tmp_path, settings(steps=2))
    model = tiny_model()
    with low_rank_updates(model, RANK + 1, seed=0):
        assert train(model, tmp_path, settings(steps=2)).tokens == 2 * 4 * 16
    ranks = {int(torch.linalg.matrix_rank(c, rtol=1e-4)) for c in changes(tiny_model(), model).values()}
    assert ranks == {RANK + 1}


def test_a_rank_that_saves_nothing_is_refused() -> None:
    check_rank(tiny_model(), 15)
    with pytest.raises(InputError, match="smallest projection, which has rank 16"):
        check_rank(tiny_model(), 16)
    check_rank(tiny_model(**SPECS["linear attention"]), 11)
