"""Inputs of linear layers on calibration text, with the loss's gradients by their outputs.

Shape legend: T tokens in a window, N positions read by the head, I inputs and O outputs of a module, V
logits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from roots_compress.calibration.activations import batches
from roots_compress.data.windows import PackedWindows
from roots_compress.errors import StageError
from roots_compress.models.drawing import drawn
from roots_compress.models.heads import RootsWithHead
from roots_compress.progress import Progress

GradientObserver = Callable[[str, Tensor, Tensor], None]
"""Called with a module's name, a window's inputs `TI`, and the loss's gradient by its output, `TO`."""


def observe_gradients(
    model: RootsWithHead,
    windows: PackedWindows,
    names: Collection[str],
    observer: GradientObserver,
    *,
    sampled: torch.Generator | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> None:
    """Run forward and backward over each window, and call the observer with every named module's gradients.

    The loss is the cross-entropy summed over a window's positions. The parameters get no gradients.

    Args:
        model: on the device; its parameters' `requires_grad` is restored.
        names: those of linear modules.
        observer: called for the modules of a window from the last to the first.
        sampled: with this generator (on the CPU) targets are sampled from the model's predictions, so that
            the gradients' second moment is the Fisher information; without it they are the windows' targets.
        progress: called after every window.

    Raises:
        StageError: the loss of a window is NaN or infinite.
    """
    inputs: dict[str, list[Tensor]] = {name: [] for name in names}
    modules = dict(model.named_modules())

    def before(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _module, arguments: inputs[name].append(arguments[0].detach().flatten(0, -2))

    def after(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def hook(_module: nn.Module, _arguments: tuple[Any, ...], output: Tensor) -> None:
            output.register_hook(lambda gradient: observer(name, inputs[name].pop(), gradient.flatten(0, -2)))

        return hook

    # The graph begins at the embeddings' output, so that no parameter needs a gradient.
    handles = [
        model.get_input_embeddings().register_forward_hook(lambda _m, _i, output: output.requires_grad_()),
        *(modules[name].register_forward_pre_hook(before(name)) for name in names),
        *(modules[name].register_forward_hook(after(name)) for name in names),
    ]
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    model.requires_grad_(False)
    was_training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            for number, inputs_read in enumerate(batches(windows, 1, device)):
                output = model(**inputs_read, use_cache=False)
                read_T = positions_read(model, windows[number : number + 1])[0]
                loss = _loss(output, torch.from_numpy(windows.targets[number])[read_T], sampled)
                if not torch.isfinite(loss):
                    raise StageError(
                        f"the loss of calibration window {number} is NaN or infinite",
                        remedy="Check the checkpoint: its weights or activations are not finite.",
                    )
                loss.backward()
                if progress is not None:
                    progress(number + 1, len(windows.input_ids))
    finally:
        model.train(was_training)
        for parameter, flag in zip(model.parameters(), wanted, strict=True):
            parameter.requires_grad_(flag)
        for handle in handles:
            handle.remove()


def positions_read(model: RootsWithHead, windows: PackedWindows) -> Tensor:
    """Return the positions at which the head predicts, `NT` for N windows."""
    return model.reads(torch.from_numpy(windows.input_ids), torch.from_numpy(windows.segment_ids))


def _loss(output: Any, targets_N: Tensor, sampled: torch.Generator | None) -> Tensor:
    """Return the loss of a window, for the targets at the positions that the head reads.

    A vector instead of logits is treated as the mean of a Gaussian of variance 1: the gradient of a sample's
        loss is the noise, so that the second moment is the Fisher information too.
    """
    if not hasattr(output, "logits"):
        noise = torch.randn(output.last_hidden_state.shape, generator=sampled)
        loss: Tensor = (output.last_hidden_state.float() * noise.to(output.last_hidden_state.device)).sum()
        return loss
    logits_NV = output.logits.flatten(0, -2).float()
    if sampled is not None:
        targets_N = drawn(logits_NV.detach(), sampled).flatten()
    return F.cross_entropy(logits_NV, targets_N.to(logits_NV.device), reduction="sum")
