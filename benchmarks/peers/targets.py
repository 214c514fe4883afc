"""What the figures are held to: this project's engines against the best of the peers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SAME_PERPLEXITY = 1.01
"""Within 1% of float32: the quality at which 8-bit engines are compared."""
INT8_DECODE = {128: 1.05, 512: 1.05, 2048: 1.25}
INT4_DECODE = {128: 1.35, 512: 1.35, 2048: 1.4}
"""How many times as fast as the peer ours must decode, by context."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """One figure that must be reached."""

    figure: str
    reached: float | None
    """None where it was not measured."""
    wanted: float
    at_least: bool
    against: str

    @property
    def met(self) -> bool | None:
        """Whether it is; None where it was not measured."""
        if self.reached is None:
            return None
        return self.reached >= self.wanted if self.at_least else self.reached <= self.wanted


def judge_targets(rows: Mapping[str, Row], baseline: str) -> list[Target]:
    """Return every target that this project set itself on SmolLM2-135M, from rows of figures.

    The best 8-bit peer is that of 8 bits or fewer within 1% of float32's perplexity. A row
    has `bits`, `ours`, `bytes`, `perplexity`, and `prefill` and `decode`: tokens per second by context.
    """
    float32 = [row for row in rows.values() if not row["ours"] and row["bits"] == 32]
    limit = rows[baseline]["perplexity"] * SAME_PERPLEXITY if baseline in rows else 0.0
    eight = [
        row for row in rows.values() if not row["ours"] and row["bits"] <= 8 and row["perplexity"] <= limit
    ]
    torch = [rows[baseline]] if baseline in rows else []
    q4 = [row for name, row in rows.items() if name == "llama.cpp Q4_K_M"]
    ours = {bits: rows.get(f"ours {label}") for bits, label in ((32, "fp32"), (8, "int8"), (4, "int4"))}
    same = "best 8-bit peer (1%)"
    targets = [
        *(
            _faster(f"fp32 decode at {at}", ours[32], "decode", at, float32, factor, "best fp32 peer")
            for at, factor in ((128, 1.0), (512, 1.2))
        ),
        _faster("fp32 prefill at 512", ours[32], "prefill", 512, torch, 1.0, "torch"),
        _ratio("int8 perplexity", ours[8], torch, _perplexity, 1.005, False, "fp32"),
        *(
            _faster(f"int8 decode at {at}", ours[8], "decode", at, eight, wanted, same)
            for at, wanted in INT8_DECODE.items()
        ),
        _faster("int8 prefill at 512", ours[8], "prefill", 512, eight, 1.15, same),
        _faster("int8 prefill at 512", ours[8], "prefill", 512, torch, 2.0, "torch"),
        _plain("int8 MB", ours[8], 145.0),
        *(
            _faster(f"int4 decode at {at}", ours[4], "decode", at, q4, wanted, "llama.cpp Q4_K_M")
            for at, wanted in INT4_DECODE.items()
        ),
        _ratio("int4 perplexity", ours[4], q4, _perplexity, 1.0, False, "llama.cpp Q4_K_M"),
        _plain("int4 MB", ours[4], 105.0),
    ]
    targets += [_steady(label, ours[bits]) for bits, label in ((32, "fp32"), (8, "int8"), (4, "int4"))]
    return targets


def _perplexity(row: Row) -> float | None:
    value: float = row["perplexity"]
    return value


def _faster(
    figure: str, row: Row | None, what: str, context: int, peers: Iterable[Row], wanted: float, against: str
) -> Target:
    return _ratio(figure, row, peers, lambda of: of[what].get(context), wanted, True, against)


def _ratio(
    figure: str,
    row: Row | None,
    peers: Iterable[Row],
    read: Callable[[Row], float | None],
    wanted: float,
    at_least: bool,
    against: str,
) -> Target:
    mine = read(row) if row is not None else None
    theirs = [value for value in map(read, peers) if value is not None]
    reached = None if mine is None or not theirs else mine / max(theirs)
    return Target(figure, reached, wanted, at_least, against)


def _plain(figure: str, row: Row | None, wanted: float) -> Target:
    return Target(figure, None if row is None else row["bytes"] / 1e6, wanted, False, "")


def _steady(label: str, row: Row | None) -> Target:
    near, far = (None, None) if row is None else (row["decode"].get(128), row["decode"].get(2048))
    reached = None if near is None or far is None else far / near
    return Target(f"{label} decode at 2048 / at 128", reached, 0.7, True, "itself")
