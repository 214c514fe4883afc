"""Measured speeds of both kinds of int8 products on other processors.

Each entry is of SmolLM2-135M's graphs, batch 1, 2 threads on two cores, timed in turns after a prompt of 512
tokens. For another model the times are scaled by its weights, which is right if products take most of the
time. Only measured processors are listed; none is estimated from others.
"""

from __future__ import annotations

from dataclasses import dataclass

from roots_compress.stages.quantize.products.choice import FormTimes, TokenTimes

LAYER_WEIGHTS = 106_168_320
TABLE_WEIGHTS = 28_311_552
"""Weights of SmolLM2-135M: in its layers' projections, and in its output head."""


@dataclass(frozen=True)
class Rates:
    """Tokens a second."""

    read: float
    write: float


@dataclass(frozen=True)
class Measured:
    """Measurements on one machine."""

    machine: str
    date: str
    command: str
    integer: Rates
    floating: Rates


MEASURED: dict[str, Measured] = {
    "avx2": Measured(
        machine="an AMD EPYC with AVX2 alone",
        date="2026-11-28",
        command="both graphs timed in turns by evaluation/speed.py, before 8-bit groups of 128",
        integer=Rates(read=578.0, write=73.2),
        floating=Rates(read=310.0, write=75.5),
    ),
    "avx512-vnni": Measured(
        machine="an AMD EPYC with AVX-512 VNNI and without AMX",
        date="2026-11-30",
        command="python -m benchmarks.peers CHECKPOINT --text hamlet_gut.txt --repeats 7",
        integer=Rates(read=936.6, write=91.8),
        floating=Rates(read=794.0, write=110.6),
    ),
    "amx": Measured(
        machine="a Sapphire Rapids Xeon",
        date="2026-11-22",
        command="python -m benchmarks.peers CHECKPOINT --text hamlet_gut.txt",
        integer=Rates(read=1055.0, write=44.8),
        floating=Rates(read=554.0, write=50.6),
    ),
}
"""By the processor's class."""


def measured_times(processor: str, *, layer_weights: int, table_weights: int) -> FormTimes | None:
    """Return a model's times on a class of processors, or None if none was measured."""
    found = MEASURED.get(processor)
    if found is None:
        return None

    def scaled(rates: Rates) -> TokenTimes:
        # Only the last token of a prompt needs the head.
        read = layer_weights / LAYER_WEIGHTS
        write = (layer_weights + table_weights) / (LAYER_WEIGHTS + TABLE_WEIGHTS)
        return TokenTimes(1000 / rates.read * read, 1000 / rates.write * write)

    source = (
        f"scaled by weights from SmolLM2-135M on two cores of {found.machine}, 2 threads, {found.date} "
        f"({found.command})"
    )
    return FormTimes(processor, source, scaled(found.integer), scaled(found.floating))
