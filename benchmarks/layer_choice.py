"""Which layers should leave together: those that one measure each says, or one after the other?

    python benchmarks/layer_choice.py CHECKPOINT [--layers N]

Prints, for every number of layers up to N, the divergence from the whole model without them, in nats a token,
on the calibration text that the choice was made on and on held-out text. Those that leave one after the other
are measured anew only when they come up (lazy greedy, Minoux 1978): the same as measuring all of them each
time, where no layer is missed less because others are gone.
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Callable, Collection
from pathlib import Path

import torch

from roots_compress.calibration.activations import ResidualStream
from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.configs.data import DataConfig
from roots_compress.data.corpora import load_text
from roots_compress.data.packing import pack
from roots_compress.data.windows import PackedWindows
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.stages.prune.scores import divergence
from roots_compress.stages.prune.sensitivity import (
    DROP_WINDOWS,
    SCORED_EVERY,
    layer_divergences,
    predictions_at,
)
from roots_compress.system.threads import default_threads

Loss = Callable[[Collection[int]], float]


@torch.no_grad()
def main() -> None:
    """Choose layers both ways and print what they cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--threads", type=int, default=default_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    checkpoint = load_checkpoint(arguments.checkpoint)
    model, text = checkpoint.model.eval(), load_text(DataConfig(), seed=0)
    seen, held_out = (
        pack(documents, checkpoint.tokenizer, 512, seed=0, limit=count)
        for documents, count in ((text.train, DROP_WINDOWS), (text.held_out, 2 * DROP_WINDOWS))
    )
    loss, judge = loss_without(model, seen), loss_without(model, held_out)
    alone = layer_divergences(model, seen, device="cpu")
    at_once = sorted(range(len(alone)), key=alone.__getitem__)
    in_turn = one_after_the_other(alone, loss, arguments.layers)
    print("| layers that leave | chosen at once | held out | one after the other | held out |")
    print("|---|---|---|---|---|")
    for count in range(1, arguments.layers + 1):
        cells = [f"{each(order[:count]):.3f}" for order in (at_once, in_turn) for each in (loss, judge)]
        print(f"| {count} | {' | '.join(cells)} |", flush=True)


def loss_without(model: RootsForCausalLM, windows: PackedWindows) -> Loss:
    """Return a function of layers that gives the divergence from the whole model without them."""
    stream = ResidualStream(model, windows)
    judged_NT = torch.zeros(windows.input_ids.shape, dtype=torch.bool)
    judged_NT[:, ::SCORED_EVERY] = True

    def predictions(left_out: Collection[int]) -> torch.Tensor:
        fork = stream.fork()
        for index, layer in enumerate(model.model.layers):
            if index not in left_out:
                fork.advance(layer, index)
        return predictions_at(judged_NT, model, fork)

    whole = predictions(())
    return lambda left_out: divergence(whole, predictions(left_out))


def one_after_the_other(alone: list[float], loss: Loss, count: int) -> list[int]:
    """Return layers in the order in which each adds least to what those before it cost."""
    order: list[int] = []
    total = 0.0
    waiting = [(added, 0, index) for index, added in enumerate(alone)]
    heapq.heapify(waiting)
    while len(order) < count:
        added, measured_after, index = heapq.heappop(waiting)
        if measured_after == len(order):
            order.append(index)
            total += added
        else:
            heapq.heappush(waiting, (loss([*order, index]) - total, len(order), index))
    return order


if __name__ == "__main__":
    main()
