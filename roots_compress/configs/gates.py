"""Bounds on a row's figures, and the row that they compare it with."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Annotated, Self

from pydantic import Field

from roots_compress.configs.base import PositiveFloat, PositiveInt, Settings

Share = Annotated[float, Field(ge=0, le=1)]
Score = Annotated[float, Field(ge=0, le=100)]
Correlation = Annotated[float, Field(ge=-1, le=1)]
AGAINST = "against"
COMPARING = ("_ratio", "_change", "_speedup")
"""Endings of gates that compare a row with another."""


class GatesConfig(Settings):
    """Bounds on a row's figures. A run that misses one finishes, and exits with code 3.

    `max_NAME` and `min_NAME` bound a figure itself. With `_ratio` or `_change` after it they bound the figure
    divided by that of another row, or its difference from it. A gate on speed is missed only if its whole
    interval is beyond the limit; if the limit lies inside, the line says so. A figure that was not measured
    fails its gate.
    """

    against: Annotated[str, Field(min_length=1)] | None = None
    """The row that ratios, changes and speedups compare with: `baseline` (the default), the name of an
    earlier stage, or a stored run, as a path with a `/` to its folder or its `metrics.json`. In a stored run
    it is the row of the same name; for the recipe's own gates, the last row."""
    max_perplexity_ratio: PositiveFloat | None = None
    """Largest perplexity of a causal language model, as a multiple of the baseline's (or of `against`)."""
    max_perplexity: PositiveFloat | None = None
    """Largest perplexity of a causal language model."""
    max_kl: PositiveFloat | None = None
    """Largest mean KL divergence from the run's first model, in nats a token."""
    max_kl_change: float | None = None
    """Largest change of that mean KL divergence."""
    max_kl_median: PositiveFloat | None = None
    """Largest median of the KL divergence from the run's first model, in nats a token."""
    max_kl_median_change: float | None = None
    """Largest change of that median."""
    max_kl_p99: PositiveFloat | None = None
    """Largest 99th percentile of the KL divergence from the run's first model, in nats a token."""
    max_kl_p99_change: float | None = None
    """Largest change of that 99th percentile."""
    min_same_top: Share | None = None
    """Smallest share of tokens at which a model's first choice is that of the run's first model."""
    min_same_top_change: float | None = None
    """Smallest change of that share."""
    max_bits_per_byte_ratio: PositiveFloat | None = None
    """Largest bits per byte of text, as a multiple of the baseline's (or of
    `against`). Tokenizers may differ."""
    max_bits_per_byte: PositiveFloat | None = None
    """Largest bits per byte of text."""
    max_response_perplexity_ratio: PositiveFloat | None = None
    """Largest perplexity of the answers to held-out instructions, as a multiple of the baseline's (or of
    `against`): 0.7 requires a fall by 30 %."""
    max_response_perplexity: PositiveFloat | None = None
    """Largest perplexity of the answers to held-out instructions."""
    max_response_bits_per_byte_ratio: PositiveFloat | None = None
    """Largest bits per byte of the answers to held-out instructions, as a multiple of the baseline's (or of
    `against`)."""
    max_response_bits_per_byte: PositiveFloat | None = None
    """Largest bits per byte of the answers to held-out instructions."""
    max_pseudo_perplexity_ratio: PositiveFloat | None = None
    """Largest pseudo-perplexity of a masked language model, as a multiple of the baseline's (or of
    `against`)."""
    max_pseudo_perplexity: PositiveFloat | None = None
    """Largest pseudo-perplexity of a masked language model."""
    min_cosine: Correlation | None = None
    """Smallest mean cosine of sentence embeddings to those of the run's first model."""
    min_cosine_change: float | None = None
    """Smallest change of the mean cosine: -0.01 lets it fall by 0.01."""
    min_accuracy: Share | None = None
    """Smallest share of the held-out texts that a classifier labels correctly."""
    min_accuracy_change: float | None = None
    """Smallest change of the accuracy: -0.01 lets it fall by one point of a hundred."""
    min_macro_f1: Share | None = None
    """Smallest mean F1 of a classifier's labels."""
    min_macro_f1_change: float | None = None
    """Smallest change of the mean F1."""
    min_mcc: Correlation | None = None
    """Smallest Matthews correlation of a classifier's labels."""
    min_mcc_change: float | None = None
    """Smallest change of the Matthews correlation."""
    min_score_r2: Annotated[float, Field(le=1)] | None = None
    """Smallest share of the variance of the first model's scores that a model's scores explain (R2)."""
    min_score_r2_change: float | None = None
    """Smallest change of the share of the scores' variance that is explained (R2)."""
    max_score_mse: PositiveFloat | None = None
    """Largest mean squared difference of scores to the first model's."""
    max_score_mse_change: float | None = None
    """Largest change of the mean squared difference of scores to the first model's."""
    min_spearman: Correlation | None = None
    """Smallest rank correlation (Spearman) of scores to the first model's."""
    min_spearman_change: float | None = None
    """Smallest change of the rank correlation of scores to the first model's."""
    min_label_spearman: Correlation | None = None
    """Smallest rank correlation (Spearman) of scores to the numbers in the data."""
    min_label_spearman_change: float | None = None
    """Smallest change of the rank correlation of scores to the numbers in the data."""
    min_label_pearson: Correlation | None = None
    """Smallest correlation (Pearson) of scores to the numbers in the data."""
    min_label_pearson_change: float | None = None
    """Smallest change of the correlation (Pearson) of scores to the numbers in the data."""
    min_auc: Share | None = None
    """Smallest area under the ROC curve, of scores for two numbers in the data."""
    min_auc_change: float | None = None
    """Smallest change of the area under the ROC curve."""
    min_word_accuracy: Share | None = None
    """Smallest share of the held-out words that an encoder labels correctly."""
    min_word_accuracy_change: float | None = None
    """Smallest change of the share of words with the right label."""
    min_entity_f1: Share | None = None
    """Smallest F1 of entities, such as names of persons and places; all words of an entity must be found."""
    min_entity_f1_change: float | None = None
    """Smallest change of the F1 of entities."""
    max_target_perplexity_ratio: PositiveFloat | None = None
    """Largest perplexity of an encoder-decoder's targets, as a multiple of the baseline's (or of
    `against`)."""
    max_target_perplexity: PositiveFloat | None = None
    """Largest perplexity of an encoder-decoder's targets."""
    min_exact_match: Share | None = None
    """Smallest share of the held-out pairs whose target an encoder-decoder writes exactly."""
    min_exact_match_change: float | None = None
    """Smallest change of the share of exact matches."""
    min_chrf: Score | None = None
    """Smallest chrF of an encoder-decoder's outputs; sacrebleu must be installed."""
    min_chrf_change: float | None = None
    """Smallest change of chrF."""
    min_bleu: Score | None = None
    """Smallest BLEU of an encoder-decoder's outputs; sacrebleu must be installed."""
    min_bleu_change: float | None = None
    """Smallest change of BLEU."""
    min_rouge_l: Share | None = None
    """Smallest ROUGE-L of an encoder-decoder's outputs; rouge-score must be installed."""
    min_rouge_l_change: float | None = None
    """Smallest change of ROUGE-L."""
    max_bytes: PositiveInt | None = None
    """Largest graph, in bytes: every file it needs to run."""
    min_size_ratio: PositiveFloat | None = None
    """Smallest ratio of the other row's bytes to this one's: 4.0 asks for a quarter of the size."""
    max_peak_rss_bytes: PositiveInt | None = None
    """Largest peak memory of a process that runs the graph, in bytes."""
    min_decode_speedup: PositiveFloat | None = None
    """Smallest ratio of the decoding speed to the other row's. Rows of one run are timed in turns; against a
    stored run, each run's gain over its own baseline is compared."""
    min_prefill_speedup: PositiveFloat | None = None
    """Smallest ratio of the speed of reading a prompt to the other row's."""
    min_encode_speedup: PositiveFloat | None = None
    """Smallest ratio of an encoder's speed to the other row's, for one text."""
    min_encode_batch_speedup: PositiveFloat | None = None
    """Smallest ratio of an encoder's speed to the other row's, for a batch of texts."""
    max_decode_ms: PositiveFloat | None = None
    """Most milliseconds to decode a token on this machine, at the longest of the evaluation's contexts."""
    max_prefill_ms: PositiveFloat | None = None
    """Most milliseconds to read a token of a prompt, at the longest of the evaluation's contexts."""
    max_encode_ms: PositiveFloat | None = None
    """Most milliseconds for an encoder to read a token of a text, at the longest of the evaluation's
    contexts."""
    max_encode_batch_ms: PositiveFloat | None = None
    """Most milliseconds for an encoder to read a token of a batch of texts."""

    @property
    def limits(self) -> dict[str, float]:
        """The gates that are set, by their names."""
        return self.model_dump(exclude_none=True, exclude={AGAINST})

    @property
    def comparing(self) -> tuple[str, ...]:
        """The names of the gates that compare a row with another."""
        return tuple(name for name in self.limits if name.endswith(COMPARING))

    @property
    def stored(self) -> Path | None:
        """The stored run that the row is compared with; None if the other row is of the same run."""
        against = self.against or ""
        is_path = len(PurePath(against).parts) > 1 or "/" in against or against.endswith(".json")
        return Path(against) if is_path else None

    def without_stored(self) -> Self:
        """Return the gates that need no stored run."""
        alone = {name: limit for name, limit in self.limits.items() if name not in self.comparing}
        return self if self.stored is None else type(self).model_validate(alone)

    def from_folder(self, folder: Path) -> Self:
        """Return the gates with a relative path to a stored run starting from a folder."""
        return self if self.stored is None else self.model_copy(update={AGAINST: str(folder / self.stored)})
