"""Checks whether the quality of two runs can be compared: the same text, protocol and tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from roots_compress.results import Protocol
from roots_compress.tasks.figures.figures import Metric

NOT_MEASURED = (
    "was not measured: what measures it is not installed or does not suit the model or the data, or the row "
    "is from an earlier version"
)
OTHER_TOKENIZER = "the tokenizers differ"


@dataclass(frozen=True)
class Basis:
    """The common part of two protocols."""

    unlike: tuple[str, ...] = ()
    """Differences of text and windows, in words. With any, no figure of quality can be compared."""
    same_tokenizer: bool = True

    def allows(self, metric: Metric) -> bool:
        """Whether two values of a metric compare as they are."""
        return not self.unlike and (self.same_tokenizer or metric.across_tokenizers)

    def compare(
        self, metric: Metric, before: Mapping[str, float], after: Mapping[str, float]
    ) -> tuple[float | None, str]:
        """Return a metric compared with another row's, and a remark.

        If only the tokenizers differ, a metric such as perplexity is compared by its `logarithm`, bits per
        byte: the ratio is converted to tokens of the other row. With b bits a byte and a perplexity P,
        log2(P) is b times the bytes of a token, so that this ratio is P ** (b' / b - 1).

        Args:
            metric: what is compared.
            before: the figures of the other row, by their names.
            after: the figures of the row.

        Returns:
            The ratio or the difference, or None where there is none; and a remark, or why there is none.
        """
        if metric.name not in before or metric.name not in after:
            return None, NOT_MEASURED
        if self.allows(metric):
            return metric.compared(before[metric.name], after[metric.name]), ""
        if self.unlike:
            return None, f"cannot be compared: {' and '.join(self.unlike)} differ"
        bits = metric.logarithm
        if bits is None or bits not in before or bits not in after:
            return None, f"cannot be compared: {OTHER_TOKENIZER}"
        remark = (
            f"compared by {bits}, {after[bits]:.4g} against {before[bits]:.4g}, because {OTHER_TOKENIZER}"
        )
        try:
            return before[metric.name] ** (after[bits] / before[bits] - 1), remark
        except OverflowError:
            return None, f"cannot be compared: {remark}, which is beyond any ratio"


def basis_of(first: Protocol, other: Protocol) -> Basis:
    """Return what two protocols have in common, as far as quality depends on it."""
    settings = (
        ("the texts", first.text_sha256, other.text_sha256),
        ("the windows", (first.block_size, first.windows), (other.block_size, other.windows)),
        ("the openings of windows", first.bos, other.bos),
    )
    return Basis(
        tuple(words for words, mine, its in settings if mine != its),
        first.tokenizer_sha256 == other.tokenizer_sha256,
    )
