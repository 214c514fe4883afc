"""The chunked head loss: the plain one's value and gradients, without its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from roots_compress.configs.training import DistillLossConfig
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import LmHead
from roots_compress.training.distillation import head
from roots_compress.training.distillation.objective import Distillation
from roots_compress.training.objective import CrossEntropy, Objective
from tests.tiny import VOCAB_SIZE, tiny_config, tiny_model
from tests.training.text import as_batch, windows

PROJECTED, SCORED = 14 * VOCAB_SIZE, 4 * VOCAB_SIZE
"""Fourteen positions projected at a time, and four scored."""


def cut_small(monkeypatch: pytest.MonkeyPatch, projected: int = PROJECTED, scored: int = SCORED) -> None:
    monkeypatch.setattr(head, "PROJECTED", projected)
    monkeypatch.setattr(head, "SCORED", scored)


def plain(model: RootsForCausalLM, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = model.project(hidden)
    cross_entropy = F.cross_entropy(logits, targets)
    squares = logits.square().sum(dim=-1).mean()
    return 0.7 * cross_entropy + 0.2 * squares, torch.stack((cross_entropy, squares)).detach()


def chunked(model: RootsForCausalLM, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    def term_sums(logits: Tensor, part: slice) -> Sequence[Tensor]:
        return F.cross_entropy(logits, targets[part], reduction="sum"), logits.square().sum()

    return head.head_loss(model, hidden, term_sums, (0.7, 0.2))


@pytest.mark.parametrize("projected", [1 << 24, PROJECTED])
@pytest.mark.parametrize("scored", [1 << 24, SCORED])
@pytest.mark.parametrize("bounds", [LmHead(), LmHead(scale=0.25), LmHead(scale=0.5, softcap=0.7)], ids=str)
def test_loss_and_gradients_equal_the_plain_ones(
    monkeypatch: pytest.MonkeyPatch, projected: int, scored: int, bounds: LmHead
) -> None:
    cut_small(monkeypatch, projected, scored)
    monkeypatch.setattr(head, "ROWS", 64)
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, VOCAB_SIZE, (45,), generator=generator)
    results = []
    for compute in (plain, chunked):
        model = tiny_model(spec=changed(tiny_config().spec, head=bounds)).double()
        hidden = torch.randn(45, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        hidden.requires_grad_()
        total, terms = compute(model, hidden, targets)
        (3 * total).backward()
        results.append((total.detach(), terms, hidden.grad, model.get_parameter("lm_head.weight").grad))
    torch.testing.assert_close(results[1], results[0])


def test_gradients_match_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    cut_small(monkeypatch, 3 * VOCAB_SIZE, 2 * VOCAB_SIZE)
    model = tiny_model().double().requires_grad_(False)
    targets = torch.tensor([5, 0, 299, 7, 7])
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    chunked(model, hidden.requires_grad_(), targets)[0].backward()
    assert hidden.grad is not None
    with torch.no_grad():
        for index in range(32):
            step = torch.zeros_like(hidden)
            step[:, index] = 1e-6
            rise = chunked(model, hidden + step, targets)[0] - chunked(model, hidden - step, targets)[0]
            assert float(rise / 2e-6) == pytest.approx(float(hidden.grad[:, index].sum()), rel=1e-6, abs=1e-7)


def test_the_loss_is_the_same_where_no_gradient_is_kept() -> None:
    model, targets = tiny_model(), torch.tensor([5, 0, 299])
    with torch.no_grad():
        total, _ = chunked(model, torch.ones(3, 32), targets)
    torch.testing.assert_close(total, plain(model, torch.ones(3, 32), targets)[0].detach())


class LargestTensor(TorchDispatchMode):
    """Watches for the largest tensor of vocabulary width that any operation gives out."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor) and tensor.ndim and tensor.shape[-1] == VOCAB_SIZE:
                self.rows = max(self.rows, tensor.numel() // VOCAB_SIZE)
        return out


@pytest.mark.parametrize("kind", ["cross-entropy", "forward_kl", "reverse_kl", "jensen_shannon"])
def test_no_tensor_holds_the_logits_of_a_batch(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    """Backward included; rows of the embedding, as wide as the vocabulary when transposed, are 32."""
    student, batch = tiny_model(1).train(), as_batch(windows(12, 64))
    objective: Objective = CrossEntropy()
    if kind != "cross-entropy":
        objective = Distillation(tiny_model(0), student, DistillLossConfig(divergence=kind), seed=0)

    def rows() -> int:
        watch = LargestTensor()
        with watch:
            objective(student, batch).total.backward()
        return watch.rows

    positions = len(batch.targets_N)
    assert rows() >= positions > 400
    cut_small(monkeypatch)
    assert rows() <= 32


def test_the_heads_gradient_is_added_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "ROWS", 64)
    products: list[int] = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if func is torch.ops.aten.mm.default and out.shape[1] == 32:
                products.append(len(out))
            return out

    with Products(), torch.autocast("cpu", torch.bfloat16):
        chunked(tiny_model(), torch.ones(45, 32), torch.full((45,), 7))
    assert max(products) == 64
    assert sum(products) == VOCAB_SIZE


def test_bfloat16_gradients_are_summed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Summed in bfloat16, the later of 300 equal chunks would be lost to rounding."""
    cut_small(monkeypatch, VOCAB_SIZE)
    model, targets = tiny_model(), torch.full((300,), 7)
    hidden = torch.ones(300, 32)
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = chunked(model, hidden, targets)
    weight = model.get_parameter("lm_head.weight")
    (gradient,) = torch.autograd.grad(total, weight)
    (expected,) = torch.autograd.grad(plain(model, hidden, targets)[0], weight)
    assert gradient.dtype == torch.float32
    assert torch.linalg.norm(gradient - expected) < 0.02 * torch.linalg.norm(expected)
