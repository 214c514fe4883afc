"""Figures of a model's texts against references.

Exact match is computed here; chrF and BLEU by sacrebleu (Post 2018, arXiv:1804.08771) and ROUGE-L by
rouge-score, where these packages are installed: `pip install roots-compress[references]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from roots_compress.tasks.figures.figures import share

METRICS = (
    share("exact_match", "exact match", optional=True),
    share("chrf", "chrF", digits=2, optional=True, package="sacrebleu"),
    share("bleu", "BLEU", digits=2, optional=True, package="sacrebleu"),
    share("rouge_l", "ROUGE-L", optional=True, package="rouge_score"),
)


def reference_figures(written: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return the figures of texts, each against its reference, by the names of metrics.

    Exact match and ROUGE-L are from 0 to 1, and chrF and BLEU of all texts together from 0 to 100. Space at
    the ends of texts is ignored.
    """
    pairs = [(ours.strip(), theirs.strip()) for ours, theirs in zip(written, references, strict=True)]
    figures = {"exact_match": sum(ours == theirs for ours, theirs in pairs) / len(pairs)}
    ours, theirs = [each for each, _ in pairs], [each for _, each in pairs]
    if (sacrebleu := _installed("sacrebleu")) is not None:
        figures["chrf"] = float(sacrebleu.corpus_chrf(ours, [theirs]).score)
        figures["bleu"] = float(sacrebleu.corpus_bleu(ours, [theirs]).score)
    if (rouge := _installed("rouge_score.rouge_scorer")) is not None:
        scorer = rouge.RougeScorer(["rougeL"], use_stemmer=False)
        found = (scorer.score(reference, text)["rougeL"].fmeasure for text, reference in pairs)
        figures["rouge_l"] = float(sum(found) / len(pairs))
    return figures


def _installed(module: str) -> Any:
    """Return a module of an optional package; None if it is not installed."""
    try:
        return import_module(module)
    except ImportError:
        return None
