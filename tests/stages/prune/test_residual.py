"""The residual stream's width: which channels stay, the norms' compensation, the refits, the cut itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from roots_compress.data.packing import pack
from roots_compress.data.windows import PackedWindows
from roots_compress.errors import StageError
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.stages.prune.narrow_norm import NarrowNorm, compensation
from roots_compress.stages.prune.refit import refit_scales
from roots_compress.stages.prune.residual import cut_residual, mixable_channels, principal_axes
from tests.models.test_resizing import VARIANTS
from tests.specs import parallel
from tests.stages.prune.test_stage import SPLIT
from tests.tiny import tiny_model, tiny_tokenizer, tiny_tokens

SILENT = [1, 6, 7, 13, 22, 29, 30, 31]
KEPT = [channel for channel in range(32) if channel not in SILENT]


def windows(count: int = 8) -> PackedWindows:
    return pack(SPLIT.train, tiny_tokenizer(), 32, seed=0, limit=count)


def cut(model: RootsForCausalLM, width: int, *, refitted: bool = True) -> list[float]:
    return cut_residual(model, windows(), width, refitted=refitted, device="cpu")


def logits(model: RootsForCausalLM) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(tiny_tokens()).logits
    return found


def distance(left: RootsForCausalLM, right: RootsForCausalLM) -> float:
    return float((logits(left) - logits(right)).norm() / logits(right).norm())


def silenced(**overrides: Any) -> RootsForCausalLM:
    """Return a model that writes nothing to some channels of its stream."""
    model = tiny_model(**overrides)
    writers = [layer.self_attn.o_proj for layer in model.model.layers]
    writers += [layer.mlp.down_proj for layer in model.model.layers]
    with torch.no_grad():
        model.model.embed_tokens.weight[:, SILENT] = 0
        for writer in writers:
            writer.weight[SILENT] = 0
            if writer.bias is not None:
                writer.bias[SILENT] = 0
        # Alike, so that a tied head lets all channels mix.
        model.model.norm.weight.fill_(1.3)
    return model


NARROWED = {**VARIANTS, "one norm of two blocks": {"spec": parallel()}}


@pytest.mark.parametrize("overrides", NARROWED.values(), ids=NARROWED.keys())
def test_the_stream_becomes_narrower_everywhere(overrides: dict[str, Any]) -> None:
    model = tiny_model(**overrides)
    errors = cut(model, 24)
    assert len(errors) == sum(len(layer.sharing) for layer in model.model.all_layers())
    assert all(0 < error < 1 for error in errors)
    assert model.config.hidden_size == model.model.embed_tokens.weight.shape[1] == 24
    rebuilt = RootsForCausalLM(model.config).eval()
    rebuilt.load_state_dict(model.state_dict())
    torch.testing.assert_close(logits(rebuilt), logits(model))
    tied = model.lm_head.weight is model.model.embed_tokens.weight  # type: ignore[union-attr]
    assert tied == model.config.tie_word_embeddings


@pytest.mark.parametrize("refitted", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_silent_channels_leave_without_a_trace(refitted: bool, tied: bool) -> None:
    model, original = (silenced(tie_word_embeddings=tied) for _ in range(2))
    errors = cut(model, len(KEPT), refitted=refitted)
    # All that the norms' means lose is the silent channels' share of them, which one factor gives back.
    assert max(errors) < 1e-3
    assert distance(model, original) < 1e-3


def entangled(**overrides: Any) -> RootsForCausalLM:
    """Return a model that writes to some channels of its stream a mixture of what it writes to the others."""
    model = tiny_model(**overrides)
    mixture = torch.eye(32)
    generator = torch.Generator().manual_seed(3)
    mixture[SILENT] = 0.0
    mixture[torch.tensor(SILENT)[:, None], torch.tensor(KEPT)] = 0.15 * torch.randn(
        len(SILENT), len(KEPT), generator=generator
    )
    with torch.no_grad():
        table = model.model.embed_tokens.weight
        table.copy_(table @ mixture.T)
        for layer in model.model.layers:
            for writer in (layer.self_attn.o_proj, layer.mlp.down_proj):
                writer.weight.copy_(mixture @ writer.weight)
        if model.config.tie_word_embeddings:
            model.model.norm.weight.copy_(torch.linspace(0.5, 2.0, 32))
    return model


def test_turned_into_its_principal_axes_an_entangled_stream_loses_nothing() -> None:
    original, model = (entangled(tie_word_embeddings=False) for _ in range(2))
    assert max(cut(model, len(KEPT), refitted=False)) < 1e-3
    assert distance(model, original) < 1e-3


@pytest.mark.parametrize(
    ("overrides", "least"),
    [({"norm": "layer_norm", "tie_word_embeddings": False}, 0.7), ({"norm": "layer_norm"}, 1.0), ({}, 1.0)],
)
def test_the_refit_reads_what_left_from_what_stayed(overrides: dict[str, Any], least: float) -> None:
    original, plain, refitted = (entangled(**overrides) for _ in range(3))
    before, after = cut(plain, len(KEPT), refitted=False), cut(refitted, len(KEPT))
    assert sum(after) < 0.5 * sum(before)
    assert distance(refitted, original) < least * distance(plain, original)


def test_principal_axes_gather_energy_and_leave_other_channels_alone() -> None:
    rows = torch.randn(50, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moments, mixed, others = rows.T @ rows, [0, 2, 3, 7], [1, 4, 5, 6]
    axes = principal_axes(moments, mixed)
    torch.testing.assert_close(axes.T @ axes, torch.eye(8, dtype=torch.float64))
    turned = (axes.T @ moments @ axes)[mixed][:, mixed]
    torch.testing.assert_close(turned, turned.diagonal().diag(), atol=1e-10, rtol=0)
    assert torch.equal(axes[others], torch.eye(8, dtype=torch.float64)[others])


def test_a_tied_head_lets_channels_of_like_gain_mix() -> None:
    gains = torch.tensor([1.0] * 29 + [1.05, 1.2, -1.0])
    for tied, expected in ((True, 30), (False, 32)):
        model = tiny_model(tie_word_embeddings=tied)
        with torch.no_grad():
            model.model.norm.weight.copy_(gains)
        assert mixable_channels(model) == list(range(expected))


def test_the_compensation_of_an_rms_norm_is_the_mean_ratio_of_roots() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden_BTW = torch.randn(2, 5, 8, generator=generator) * torch.arange(1.0, 9.0)
    kept = [0, 2, 3, 7]
    ratios = hidden_BTW[..., kept].square().mean(-1).sqrt() / hidden_BTW.square().mean(-1).sqrt()
    found = compensation(nn.RMSNorm(8, eps=0.0), [hidden_BTW], kept)
    assert found == pytest.approx(float(ratios.mean()), rel=1e-5)


@pytest.mark.parametrize("kind", [nn.RMSNorm, nn.LayerNorm])
def test_the_compensation_is_the_least_squares_factor(kind: type[nn.RMSNorm] | type[nn.LayerNorm]) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden_BTW = torch.randn(2, 5, 8, generator=generator) + 0.5
    kept, norm = [1, 2, 5, 6, 7], kind(8)
    whole, narrow = norm(hidden_BTW)[..., kept], kind(5)(hidden_BTW[..., kept])
    expected = np.linalg.lstsq(narrow.detach().numpy().reshape(-1, 1), whole.detach().numpy().ravel())[0]
    assert compensation(norm, [hidden_BTW], kept) == pytest.approx(float(expected[0]), rel=1e-5)


@pytest.mark.parametrize("kind", [nn.RMSNorm, nn.LayerNorm])
def test_a_narrow_norm_is_the_norm_of_the_kept_channels(kind: type[nn.RMSNorm] | type[nn.LayerNorm]) -> None:
    norm, plain = kind(8), kind(3)
    kept = [1, 4, 6]
    with torch.no_grad():
        for name, parameter in norm.named_parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
            getattr(plain, name).copy_(parameter[kept])
        plain.weight.mul_(1.5)
        hidden_BTW = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
        narrow = NarrowNorm(norm, kept, 1.5)
        torch.testing.assert_close(narrow(hidden_BTW)[..., kept], plain(hidden_BTW[..., kept]))
        assert not narrow(hidden_BTW)[..., [0, 2, 3, 5, 7]].any()
        torch.testing.assert_close(narrow.write_back().weight[kept], plain.weight)


def test_the_scales_of_a_tied_head_are_those_of_least_squares() -> None:
    rng = np.random.default_rng(0)
    table_VW, rows_RW = rng.normal(size=(20, 6)), rng.normal(size=(40, 6))
    kept = [0, 2, 5]
    narrow_RK = rows_RW[:, kept] * 1.3
    lacking_RW = rows_RW.copy()
    lacking_RW[:, kept] -= narrow_RK
    # One equation for every row and entry of the table, one unknown for every kept channel.
    design = (narrow_RK[:, None, :] * table_VW[None, :, kept]).reshape(-1, 3)
    expected = np.linalg.lstsq(design, (rows_RW @ table_VW.T).ravel())[0]
    rows_RZ = torch.from_numpy(np.concatenate([lacking_RW, narrow_RK], axis=1))
    gram_ZZ = rows_RZ.T @ rows_RZ
    found = refit_scales(torch.from_numpy(table_VW.T @ table_VW), gram_ZZ, kept, damping=1e-12)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8)


def test_activations_that_are_not_finite_are_refused() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[5] = torch.inf
    with pytest.raises(StageError, match="NaN or infinite"):
        cut(model, 24)
