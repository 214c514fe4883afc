"""Times two forms of a model on this machine: graphs of the model's own shapes, with random weights.

The forms are both kinds of int8 products, or both kinds of caches.

Models of more than 120 million weights are timed in part: some of their layers, evenly chosen, and some
rows of the table. A third graph, with fewer layers, then gives the time of the table and of the call itself,
so that the times can be extrapolated to the whole model. The same share is left out of both forms, so their
ratio, which decides, is that of the timed layers.
"""

from __future__ import annotations

import shutil
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

import torch

from roots_compress.configs.quantize import GroupSetting, QuantizeConfig, WorkloadConfig
from roots_compress.evaluation.speed import measure_speed
from roots_compress.events import Events
from roots_compress.export.exporter import write_graph
from roots_compress.models.config import RootsConfig
from roots_compress.models.encoders import make_model
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.ops.attention import Attention, Rope
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.stack import Sublayer
from roots_compress.models.quantized import Format, QuantizedWeight
from roots_compress.models.spec import EMBEDDING, ModelSpec
from roots_compress.progress import bar
from roots_compress.stages.quantize.groups import group_size_of, stored_sizes
from roots_compress.stages.quantize.plan import usual_format
from roots_compress.stages.quantize.products.choice import FormTimes, TokenTimes
from roots_compress.system.machine import own_instruction_set, processor_class
from roots_compress.tasks.figures.figures import counted

PROMPT = 512
"""Tokens of the timed prompt, if the workload reads as many. Single tokens are timed after it, so that
attention has its share of their time; after 128 tokens the share was too small."""
DECODE_TOKENS = 8
REPEATS = 3
LONGEST_CONTEXT = 4096
"""The longest context at which caches are timed: with longer ones an int8 cache gains more."""
LAYER_WEIGHTS = 120_000_000
"""Weights of the timed layers, if the model has more: too many for the processor's caches, so that decoding
reads memory as in the whole model."""
TABLE_WEIGHTS = 32_000_000


@dataclass(frozen=True)
class Form:
    """The formats of a model's weights and of its key/value cache."""

    format: Format
    int8_cache: bool = False


@dataclass(frozen=True)
class Part:
    """The timed part of a model."""

    layers: tuple[int, ...]
    rows: int
    """Rows of the table."""

    def is_whole(self, config: RootsConfig) -> bool:
        """Return whether nothing is left out."""
        return len(self.layers) == len(config.spec.layers) and self.rows == config.vocab_size


def part_of(config: RootsConfig) -> Part:
    """Return the part to time: all, or at least two layers, so that a graph of fewer layers differs.

    A model of one layer whose table is timed in part has that layer twice.
    """
    weights = layer_weights(config)
    count, whole = len(weights), max(sum(weights), 1)
    rows = min(config.vocab_size, max(1, TABLE_WEIGHTS // config.table_width))
    taken = min(count, max(2, -(-LAYER_WEIGHTS * count // whole)))
    if rows < config.vocab_size:
        taken = max(2, taken)
    layers: list[int] = []
    for stack in stack_layers(config.spec):
        of_stack = taken if len(stack) == count else max(1, taken * len(stack) // count)
        layers += [stack[index * len(stack) // of_stack] for index in range(of_stack)]
    return Part(tuple(layers), rows)


def stack_layers(spec: ModelSpec) -> list[range]:
    """Return the numbers of the layers of each stack."""
    return [each for each in (range(spec.begins), range(spec.begins, len(spec.layers))) if len(each)]


def layer_weights(config: RootsConfig) -> list[int]:
    """Return the projection weights of each layer that one token uses."""
    found = [0] * len(config.spec.layers)
    for place, op in config.spec.blocks():
        matrices = op.matrices(config.spec.width)
        for each in op.inputs():
            weights = sum(matrices[name].rows * matrices[name].width for name in each.consumers)
            found[place.layer] += int(weights * each.share)
    return found


def time_here(
    config: RootsConfig,
    settings: QuantizeConfig,
    folder: Path,
    *,
    portable: bool,
    events: Events,
) -> FormTimes:
    """Time a model of this config with both kinds of int8 products, batch 1, in turns.

    Raises:
        StageError: a model cannot be exported, or the measuring process failed.
    """
    work, int8_cache = settings.workload, settings.cache == "int8"
    forms = {"integer": Form("w8a8", int8_cache), "float": Form("w8", int8_cache)}
    contexts = sorted({min(PROMPT, tokens) for tokens in (work.read, work.read + work.write)})
    label = "timing integer products and weights only"
    return _time_forms(config, settings.group_size, forms, contexts, folder, portable, events, label)


def caches_context(work: WorkloadConfig) -> int:
    """Return after how many tokens caches are timed: in the middle of a workload's written tokens."""
    return min(work.read + work.write // 2, LONGEST_CONTEXT)


def time_caches(config: RootsConfig, settings: QuantizeConfig, folder: Path, *, events: Events) -> FormTimes:
    """Time a model of this config with an int8 cache and with a float cache, batch 1, in turns.

    Both use weights only: the difference is that of the caches, whatever the products.

    Raises:
        StageError: a model cannot be exported, or the measuring process failed.
    """
    usual = usual_format(settings.scheme, "float")
    forms = {"integer": Form(usual, int8_cache=True), "float": Form(usual)}
    label = "timing a cache in int8 and one of floats"
    return _time_forms(
        config, settings.group_size, forms, [caches_context(settings.workload)], folder, False, events, label
    )


def _time_forms(
    config: RootsConfig,
    group_size: GroupSetting,
    forms: dict[str, Form],
    contexts: list[int],
    folder: Path,
    portable: bool,
    events: Events,
    label: str,
) -> FormTimes:
    """Time two forms, labelled `integer` and `float`, after prompts of these lengths."""
    threads, part = torch.get_num_threads(), part_of(config)
    parts = dict.fromkeys(forms, part)
    if not part.is_whole(config):
        stacks = ([each for each in part.layers if each in stack] for stack in stack_layers(config.spec))
        fewer = [index for taken in stacks for index in taken[: max(1, len(taken) // 4)]]
        parts[_BASE] = Part(tuple(fewer), part.rows)
    room = min(config.max_position_embeddings, max(contexts[-1], PROMPT) + DECODE_TOKENS)
    decoded = max(1, min(DECODE_TOKENS, room // 2))
    shutil.rmtree(folder, ignore_errors=True)  # left by a killed attempt
    try:
        for name, each in parts.items():
            model = _random_model(config, group_size, each, forms.get(name, forms["float"]), room)
            graph = folder / name
            graph.mkdir(parents=True)
            write_graph(model, graph, portable=portable)
        with bar(events, label) as progress:
            speeds = measure_speed(
                {name: folder / name for name in parts},
                contexts=contexts,
                decode_tokens=decoded,
                repeats=REPEATS,
                threads=threads,
                progress=progress,
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    # If a task writes nothing, both times are those of its one phase. The fastest repeat counts: what else
    # the machine does can only add to a timing, and few repeats leave a median at its mercy.
    times = {
        name: TokenTimes(1000 / phases[0][0].high, 1000 / phases[-1][-1].high)
        for name, phases in ((name, list(speed.values())) for name, speed in speeds.items())
    }
    if _BASE in times:
        times = _extrapolated(config, parts, times)
    source = f"timed on this machine with {counted(threads, 'thread')}"
    processor = processor_class(own_instruction_set())
    return FormTimes(processor, source, times["integer"], times["float"])


_BASE = "base"
"""The graph of fewer layers."""


def _extrapolated(
    config: RootsConfig, parts: dict[str, Part], times: dict[str, TokenTimes]
) -> dict[str, TokenTimes]:
    """Return the times of the whole model, extrapolated from its parts."""
    weights = layer_weights(config)
    few, many = (sum(weights[index] for index in parts[label].layers) for label in (_BASE, "float"))
    rows = config.vocab_size / parts["float"].rows

    def whole(phase: str, label: str) -> float:
        base, weights_only = getattr(times[_BASE], phase), getattr(times["float"], phase)
        # Time outside the layers; noise must not make it negative.
        rest = max(0.0, base - few * max(0.0, weights_only - base) / max(1, many - few))
        layers = max(getattr(times[label], phase) - rest, 0.0) * sum(weights) / many
        return float(layers + rest * rows)

    return {label: TokenTimes(whole("read", label), whole("write", label)) for label in ("integer", "float")}


def _part_spec(spec: ModelSpec, part: Part, room: int) -> ModelSpec:
    """Return the specification of the timed part, with a context of this many tokens.

    A layer that takes the keys of another has its own if that one is left out.
    """
    given: set[Hashable] = set()

    def timed(sublayer: Sublayer) -> Sublayer:
        op = sublayer.op
        if isinstance(op, Attention) and op.sharing == "gives":
            given.add(op.keys)
        elif isinstance(op, Attention) and op.sharing == "takes" and op.keys not in given:
            op = changed(op, sharing=None)
        if isinstance(op, Attention) and op.rope is not None:
            # Rotations by other angles take the same time, and suit a context of any length.
            op = changed(op, rope=Rope(rotary_dim=op.rope.rotary_dim))
        return changed(sublayer, op=op)

    positions = None if spec.embeddings.positions is None else room
    layers = tuple(tuple(timed(each) for each in spec.layers[index]) for index in part.layers)
    begins = sum(index < spec.begins for index in part.layers)
    cut = spec.with_layers(layers, begins=begins).with_embeddings(vocabulary=part.rows, positions=positions)
    # A shared table takes less memory, and its product the same time.
    return changed(cut, max_positions=room, tied=True)


def _random_model(
    config: RootsConfig, group_size: GroupSetting, part: Part, form: Form, room: int
) -> RootsWithHead:
    """Return a model of this config, its matrices quantized and filled from a fixed seed."""
    spec = _part_spec(config.spec, part, room)
    matrices = spec.matrices()
    formats: dict[str, Format] = {**dict.fromkeys(matrices, form.format), EMBEDDING: "w8"}
    groups = {
        name: group_size_of(group_size, chosen, matrices[name].width)
        for name, chosen in formats.items()
        if chosen != "w8a8"
    }
    quantization = {
        **stored_sizes(group_size, groups),
        "formats": formats,
        **({"cache": "int8"} if form.int8_cache else {}),
    }
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        model: RootsWithHead = make_model(RootsConfig(spec=spec, quantization=quantization)).eval()
    for module in model.modules():
        if isinstance(module, QuantizedWeight):
            # Pairs keep their bound, as in a rounded model.
            low, high = (-64, 65) if module.weight.dtype == torch.int8 else (1, 256)
            module.weight.random_(low, high, generator=generator)
            # Outputs about as large as inputs: nothing overflows, and nothing is subnormal.
            module.weight_scale.fill_(3.5 / ((high - low) * module.width**0.5))
    return model
