"""Inputs of linear layers on calibration text: streamed statistics, and the residual stream itself.

Nothing here holds the activations of a whole model. Statistics are summed batch by batch; a Gram matrix is
computed only on request; the residual stream is one tensor of tokens by hidden size.

Shape legend: N windows, B windows in a batch, T tokens in a window, W hidden size, R rows (flattened tokens),
C input channels of a module.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from roots_compress.data.windows import PackedWindows
from roots_compress.errors import StageError
from roots_compress.models.blocks.base import Context, Half
from roots_compress.models.device import Precision, as_multiplied, autocast
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.layer import RootsLayer
from roots_compress.models.stack import StackParts

BATCH_SIZE = 4
GRAM_STRIPES = 8
"""Number of column stripes in which a Gram matrix is summed, each from its diagonal on: a little more than
half of the full matrix's products."""
NARROWEST_STRIPE = 64
SEGMENTS = "segment_ids"
"""Ending of the names of arguments with the document numbers of tokens."""
Observer = Callable[[str, Tensor], None]
"""Called with a module's name and a batch of its inputs, `RC`."""


def _stripes(width: int) -> Iterator[slice]:
    """Yield the stripes of columns for a Gram matrix of this width."""
    stripe = max(NARROWEST_STRIPE, -(-width // GRAM_STRIPES))
    for first in range(0, width, stripe):
        yield slice(first, min(first + stripe, width))


class InputStatistics:
    """Sums over a linear layer's input rows.

    Attributes:
        rows: the number of rows.
        squared_norms: `C`, float64: each channel's sum of squares; the diagonal of the Gram matrix.
        largest: `C`, float32: each channel's largest magnitude.
    """

    def __init__(self, width: int, *, gram: bool = False, device: str | torch.device = "cpu") -> None:
        self.rows = 0
        self.squared_norms = torch.zeros(width, dtype=torch.float64, device=device)
        self.largest = torch.zeros(width, device=device)
        self._products = torch.zeros(width, width, dtype=torch.float64, device=device) if gram else None
        self._mirrored = True

    @property
    def gram(self) -> Tensor | None:
        """`CC`, float64: `X.T @ X` over all rows; None if it was not requested.

        Each batch is multiplied in float32 and added in float64, on one side of the diagonal.
        """
        if self._products is not None and not self._mirrored:
            width = len(self._products)
            for columns in _stripes(width):
                block = self._products[columns, columns]
                block.copy_(block.triu() + block.triu(1).T)
                self._products[columns.stop :, columns] = self._products[columns, columns.stop :].T
            self._mirrored = True
        return self._products

    def update(self, rows_RC: Tensor) -> None:
        """Add rows."""
        rows_RC = rows_RC.float()
        if not len(rows_RC):
            return
        self.rows += rows_RC.shape[0]
        self.largest = torch.maximum(self.largest, rows_RC.abs().amax(dim=0))
        if self._products is None:
            self.squared_norms += rows_RC.square().sum(dim=0).double()
            return
        for columns in _stripes(rows_RC.shape[1]):
            self._products[columns, columns.start :] += rows_RC[:, columns].T @ rows_RC[:, columns.start :]
        self._mirrored = False
        self.squared_norms = self._products.diagonal().clone()

    def check(self, name: str) -> None:
        """Refuse unusable statistics.

        Raises:
            StageError: an input channel of the module `name` held NaN or an infinity.
        """
        finite_C = torch.isfinite(self.squared_norms) & torch.isfinite(self.largest)
        bad = (~finite_C).nonzero().flatten().tolist()
        if bad:
            raise StageError(
                f"{len(bad)} input channels of {name} are NaN or infinite on the calibration text, "
                f"the first of them {bad[0]}",
                remedy="Check the checkpoint: it is broken, or its activations overflow in half precision.",
            )


@contextmanager
def observed(modules: Mapping[str, nn.Module], observer: Observer) -> Iterator[None]:
    """Within the block, call the observer with the inputs of each of these modules whenever it runs."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _module, inputs: observer(name, inputs[0].detach().flatten(0, -2))

    handles = [module.register_forward_pre_hook(hook(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def batches(
    windows: PackedWindows, batch_size: int = BATCH_SIZE, device: str | torch.device = "cpu"
) -> Iterator[dict[str, Tensor]]:
    """Yield a model's inputs by argument names: tokens, and the document number of each.

    The numbers are left out if every window of the batch is one document.
    """
    for start in range(0, windows.input_ids.shape[0], batch_size):
        arrays = windows[start : start + batch_size].inputs()
        segments = [array for name, array in arrays.items() if name.endswith(SEGMENTS)]
        whole = all((array == array[:, :1]).all() for array in segments)
        yield {
            name: torch.from_numpy(array).to(device)
            for name, array in arrays.items()
            if not (whole and name.endswith(SEGMENTS))
        }


class ResidualStream:
    """The residual stream of calibration windows, moved through a model half a layer at a time.

    With it a stage can change a layer, see its new output, and go on from there. Each layer runs once or
    twice in total; a full forward pass for every layer would cost the square of the depth.

    An encoder's stream comes before its decoder's: at the decoder's first layer, the encoder's current output
    is kept for cross-attention, and the stream becomes the decoder's.

    The stream is kept on the CPU in float32, `N * T * W * 4` bytes; batches are computed on `device`, with
    matrix products in `precision`.

    Attributes:
        hidden: one tensor `BTW` (float32) for each batch: the stream before the next half-layer.
        waiting: outputs of parallel blocks for each batch, `BTW`, to be added with the next block's.
    """

    def __init__(
        self,
        model: RootsWithHead,
        windows: PackedWindows,
        *,
        device: str = "cpu",
        batch_size: int = BATCH_SIZE,
        precision: Precision = "no",
    ) -> None:
        self.device, self.precision = device, precision
        self._model = model.model
        parts = model.model.parts()
        self._ahead: list[tuple[list[Tensor], list[Context]]] = [([], []) for _ in parts]
        """For each stack not yet entered: its stream, and its blocks' shared data."""
        recorders = [_Recorder() for _ in parts]
        with torch.no_grad(), _layers_replaced(parts, recorders), self.computing():
            for inputs in batches(windows, batch_size, device):
                model.model(**inputs, use_cache=False)
                for recorder, (hidden, contexts) in zip(recorders, self._ahead, strict=True):
                    hidden.append(recorder.hidden.float().cpu())
                    contexts.append(recorder.context)
        self.hidden, self._contexts = self._ahead.pop(0)
        self.waiting: dict[int, Tensor] = {}

    def passing(self, layers: Iterable[RootsLayer]) -> Iterator[RootsLayer]:
        """Yield the model's layers, or copies of them, after the stream has entered each one's stack."""
        for layer in layers:
            self.enter(layer)
            yield layer

    def enter(self, layer: RootsLayer) -> None:
        """Go on with the decoder's stream, if a layer is the decoder's and the stream still the encoder's."""
        if self._ahead and not layer.feeds_decoder:
            self.finish()

    def finish(self) -> None:
        """Go on with the stream of the stack under the head."""
        while self._ahead:
            encoder = self._model.encoder
            assert encoder is not None
            with self.computing():
                given = [as_multiplied(encoder.normed(x_BSW.to(self.device))) for x_BSW in self.hidden]
            self.hidden, contexts = self._ahead.pop(0)
            self._contexts = [
                replace(context, source=replace(context.source, states_BSW=states_BSW))
                for context, states_BSW in zip(contexts, given, strict=True)
                if context.source is not None
            ]

    def computing(self) -> torch.autocast:
        """Return the context in which blocks compute."""
        return autocast(torch.device(self.device).type, self.precision)

    def contributions(self, half: Half, *, first: int = 0) -> Iterator[Tensor]:
        """Yield a block's contribution to each batch, `BTW` on the device; the stream does not change.

        Args:
            half: the block (possibly changed), with its norms.
            first: the first batch to yield.
        """
        return self._computed(half.contribution, first)

    def read(self, half: Half) -> Iterator[Tensor]:
        """Yield a block's input for each batch, `BTW`."""
        for hidden_BTW, _ in self._batches(0):
            yield half.read(hidden_BTW)

    def inner(self, half: Half, *, first: int = 0) -> Iterator[Tensor]:
        """Yield the input of a block's last projection for each batch, `BTC`."""
        return self._computed(half.inner, first)

    def given(self, half: Half, projection: nn.Linear, inputs_BTC: Tensor) -> Tensor:
        """Return a block's contribution, `BTW`, from its last projection's input."""
        with self.computing():
            return half.given(projection(inputs_BTC))

    def add(self, half: Half, contributions: Iterable[Tensor]) -> None:
        """Add a block's output, so that the stream is ready for the next block.

        A batch is added before the next one is computed.
        """
        for batch, contribution_BTW in enumerate(contributions):
            if not half.only_adds or batch in self.waiting:
                waiting_BTW = self.waiting.pop(batch, None)
                held_BTW = None if waiting_BTW is None else waiting_BTW.to(self.device)
                hidden_BTW = self.hidden[batch].to(self.device)
                after_BTW, waiting_BTW = half.add(hidden_BTW, contribution_BTW, held_BTW)
                self.hidden[batch] = after_BTW.float().cpu()
                if waiting_BTW is not None:
                    self.waiting[batch] = waiting_BTW.float().cpu()
            else:  # In place, because a copy may take gigabytes.
                self.hidden[batch] += contribution_BTW.float().cpu()

    def advance(self, layer: RootsLayer) -> None:
        """Move the stream through a whole layer."""
        self.enter(layer)
        for half in layer.halves:
            self.add(half, self.contributions(half))

    def _computed(self, compute: Callable[[Tensor, Context], Tensor], first: int) -> Iterator[Tensor]:
        for hidden_BTW, context in self._batches(first):
            with self.computing():  # Left before the yield: the caller computes outside of it.
                computed = compute(hidden_BTW, context)
            yield computed

    def _batches(self, first: int) -> Iterator[tuple[Tensor, Context]]:
        for hidden_BTW, context in zip(self.hidden[first:], self._contexts[first:], strict=True):
            yield hidden_BTW.to(self.device), context

    def fork(self) -> ResidualStream:
        """Return an independent stream at the same point."""
        twin = copy.copy(self)
        twin.hidden = [hidden_BTW.clone() for hidden_BTW in self.hidden]
        twin.waiting = {batch: waiting_BTW.clone() for batch, waiting_BTW in self.waiting.items()}
        twin._ahead = [([each.clone() for each in hidden], contexts) for hidden, contexts in self._ahead]
        return twin


class _Recorder(nn.Module):
    """Replaces the layers of a stack: records their inputs and passes the stream on unchanged."""

    hidden: Tensor
    context: Context

    def forward(self, hidden_BTW: Tensor, context: Context) -> Tensor:
        self.hidden, self.context = hidden_BTW, context
        return hidden_BTW


@contextmanager
def _layers_replaced(parts: Sequence[StackParts], stand_ins: Sequence[_Recorder]) -> Iterator[None]:
    layers, were_training = [part.layers for part in parts], [part.training for part in parts]
    for part, stand_in in zip(parts, stand_ins, strict=True):
        part.eval()
        part.layers = nn.ModuleList([stand_in])
    try:
        yield
    finally:
        for part, own in zip(parts, layers, strict=True):
            part.layers = own
        for part, was_training in zip(parts, were_training, strict=True):
            part.train(was_training)
