"""Calibration text that the model writes itself.

Error-compensating rounding and least-squares refits fit the calibration text: on another kind of text they
may help little. Text that a model writes from random first tokens covers its training data and needs no data
set. Liu et al. 2023, "LLM-QAT: Data-Free Quantization Aware Training"; Williams et al. 2024,
"Self-calibration for Language Model Quantization and Pruning".

Shape legend: N windows, T tokens in a window, P of them given, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.data.special_tokens import opening_id
from roots_compress.data.windows import PackedWindows, following
from roots_compress.events import Events
from roots_compress.models.caches import empty_cache, move_to
from roots_compress.models.device import multiplies_bf16
from roots_compress.models.drawing import drawn
from roots_compress.models.heads import RootsWithHead
from roots_compress.progress import Display

AT_ONCE = 64
"""Windows that are written together: enough to read the weights rarely, few enough for their cache."""

STEP, TOKEN = 29.0, 2.6
"""Cost of a step of writing, and of each token in it, in forward passes of a token among many, by timing
SmolLM2: the weights are read for few tokens."""


def writing_passes(windows: int, block_size: int) -> float:
    """Return the cost of writing windows, in forward passes of a token."""
    return block_size * (-(-windows // AT_ONCE) * STEP + windows * TOKEN)


class Written(NamedTuple):
    """Windows that were written side by side."""

    ids_NT: Tensor
    state: Tensor
    """Of the generator, after their draws."""


def own_text(
    model: RootsWithHead, windows: int, block_size: int, *, bos: int | None, seed: int, events: Events
) -> PackedWindows:
    """Return windows that each begin with BOS and a uniformly random token.

    The tokens after them are sampled from the model's predictions, at temperature 1. A window is one
    document, even if the model writes an end of text. A bfloat16 copy writes if the device multiplies that
    fastest; later measurements on the text use the model itself.

    Args:
        model: one in evaluation mode, on any device.
        bos: the first token of each window; None if the tokenizer adds none.

    Raises:
        StageError: the model predicts NaN.
    """
    parts = own_text_in_parts(model, windows, block_size, bos=bos, seed=seed, events=events)
    return windows_of_own(torch.cat([part.ids_NT for part in parts]).numpy(), bos=bos)


@torch.no_grad()
def own_text_in_parts(
    model: RootsWithHead,
    windows: int,
    block_size: int,
    *,
    bos: int | None,
    seed: int,
    events: Events,
    after: Sequence[Written] = (),
) -> Iterator[Written]:
    """Yield the windows of `own_text` as they are written, without those parts that were written `after`.

    Raises:
        StageError: the model predicts NaN.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn_N1 = torch.randint(model.config.vocab_size, (windows, 1), generator=generator)
    opening = [] if bos is None else [torch.full_like(drawn_N1, bos)]
    opening_NP = torch.cat((*opening, drawn_N1), dim=1)[:, :block_size]
    writer = _writer(model)
    parts, steps = opening_NP.split(AT_ONCE), block_size - opening_NP.shape[1]
    if after:
        generator.set_state(after[-1].state)
    with Display(events, "writing text", done=len(after) * steps) as display:
        for part in parts[len(after) :]:
            ids_NT = _continued(
                writer, part, block_size, generator, lambda: display.advance(len(parts) * steps)
            )
            yield Written(ids_NT, generator.get_state())


def writing_step(model: RootsWithHead, windows: int, block_size: int) -> Callable[[], None]:
    """Return one step of writing in the middle of windows, to be timed repeatedly.

    Args:
        model: one in evaluation mode.
        windows: the number written together.
    """
    writer, past = _writer(model), empty_cache(model.config.spec, block_size)
    ids_N1, generator = torch.zeros(windows, 1, dtype=torch.long), torch.Generator().manual_seed(0)

    @torch.no_grad()
    def step() -> None:
        output = writer(input_ids=ids_N1, past_key_values=past, use_cache=True, logits_to_keep=1)
        drawn(output.logits[:, -1], generator)
        move_to(past, block_size // 2)

    step()
    return step


def _writer(model: RootsWithHead) -> RootsWithHead:
    """Return the model that writes: a bfloat16 copy if the device is fastest in it."""
    return copy.deepcopy(model).bfloat16() if multiplies_bf16(model.device.type) else model


def _continued(
    writer: RootsWithHead,
    opening_NP: Tensor,
    block_size: int,
    generator: torch.Generator,
    advance: Callable[[], None],
) -> Tensor:
    """Return windows of `block_size` tokens, `NT`, that continue their first P."""
    past = empty_cache(writer.config.spec, block_size)
    pieces = [opening_NP]
    for _ in range(block_size - opening_NP.shape[1]):
        output = writer(
            input_ids=pieces[-1].to(writer.device), past_key_values=past, use_cache=True, logits_to_keep=1
        )
        pieces.append(drawn(output.logits[:, -1], generator))
        advance()
    return torch.cat(pieces, dim=1)


def windows_of_own(ids_NT: NDArray[np.int64], *, bos: int | None) -> PackedWindows:
    """Return windows of a model's own text; their beginning, which it did not write, is not scored."""
    written_NT = np.ones_like(ids_NT, dtype=bool)
    written_NT[:, : 1 if bos is None else 2] = False
    return PackedWindows(ids_NT, following(ids_NT, written_NT), np.zeros_like(ids_NT))


def with_own_text(
    windows: PackedWindows, checkpoint: Checkpoint, count: int, *, seed: int, events: Events
) -> PackedWindows:
    """Return calibration windows, mixed with the requested number of the model's own.

    Raises:
        StageError: the model predicts NaN.
    """
    if not count:
        return windows
    block_size, bos = windows.input_ids.shape[1], opening_id(checkpoint.tokenizer)
    own = own_text(checkpoint.model, count, block_size, bos=bos, seed=seed, events=events)
    return joined(windows, own)


def joined(first: PackedWindows, second: PackedWindows) -> PackedWindows:
    """Return the windows of both, of equal length, alternating for as long as both last."""
    shorter = min(len(first.input_ids), len(second.input_ids))
    turns = np.arange(2 * shorter).reshape(2, shorter).T.reshape(-1)
    both = concatenated(first[:shorter], second[:shorter])[turns]
    return concatenated(concatenated(both, first[shorter:]), second[shorter:])


def concatenated(first: PackedWindows, second: PackedWindows) -> PackedWindows:
    """Return the windows of both, of equal length, one after the other."""
    return PackedWindows(
        np.concatenate((first.input_ids, second.input_ids)),
        np.concatenate((first.targets, second.targets)),
        np.concatenate((first.segment_ids, second.segment_ids)),
    )
