"""What an encoder ends with, in configurations: its class, its labels, and what is shown of scores."""

from __future__ import annotations

from typing import Any

from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.ops.base import LARGEST, changed
from roots_compress.models.ops.heads import (
    ClassificationHead,
    EmbeddingHead,
    LabelHead,
    MaskedLmHead,
    ScoreHead,
    TextLabelHead,
    TokenClassificationHead,
)
from roots_compress.models.spec import Head

SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"
"""sentence-transformers' names of what it shows of a score: its sigmoid, or itself."""
PLAIN = TokenClassificationHead(labels=2)
"""A classifier of tokens that is a matrix alone, whatever labels it has."""


def read_head(
    switches: Switches,
    kinds: dict[str, str],
    *,
    masked: MaskedLmHead,
    labelled: ClassificationHead,
    tagged: TokenClassificationHead = PLAIN,
) -> Head:
    """Return what a model ends with, by its class.

    Args:
        masked: the family's head of a masked language model.
        labelled: its classifier of texts, whatever labels it has.
    """
    architectures = switches.architectures() or [next(reversed(kinds))]
    known = [kinds[name] for name in architectures if name in kinds]
    if not known:
        switches.refuse(f"architectures names {', '.join(architectures)}; supported are {', '.join(kinds)}")
    if known[0] == "masked_lm":
        return masked
    if known[0] in ("classification", "token_classification"):
        count, names = _labels(switches)
        after, problem, by_text = _after_scores(switches), _problem(switches), known[0] == "classification"
        if count == 1 and by_text:
            if after not in (SIGMOID, IDENTITY):
                switches.refuse(f"activation_fn is {after!r:.100}; supported are {SIGMOID} and {IDENTITY}")
            form = {name: getattr(labelled, name) for name in TextLabelHead.model_fields}
            return ScoreHead(**{**form, "labels": 1, "names": names, "sigmoid": after == SIGMOID})
        if count == 1 or problem not in (None, "single_label_classification"):
            switches.refuse(
                f"problem_type is {problem} with num_labels {count}; supported are "
                "single_label_classification of 2 labels or more, and of texts a score, which is one label"
            )
        return changed(labelled if by_text else tagged, labels=count, names=names)
    return EmbeddingHead()


def _labels(switches: Switches) -> tuple[int, tuple[str, ...] | None]:
    """Return how many labels there are, 1 of a score, and any names; 2 where nothing is said."""
    named, count = switches.said("id2label", None), switches.said("num_labels", 2)
    names: tuple[str, ...] | None = None
    if named:
        if not isinstance(named, dict) or set(named) != set(map(str, range(len(named)))):
            switches.refuse("id2label does not give names by the numbers of labels, from 0 on")
        names = tuple(str(named[str(number)]) for number in range(len(named)))
        count = len(names)
    if type(count) is not int or not 1 <= count <= LARGEST:
        switches.refuse(f"num_labels is {shown(count)}; it must be a whole number from 1 to {LARGEST}")
    is_named = names != tuple(f"LABEL_{number}" for number in range(len(names or ())))
    return count, names if is_named else None


def _after_scores(switches: Switches) -> Any:
    """Take the function that sentence-transformers shows scores by: its name, by new files or older.

    Without one it is the sigmoid, but of regression, whose scores are the numbers themselves.
    """
    settings = switches.take("sentence_transformers")
    old = switches.take("sbert_ce_default_activation_function")
    return (
        (settings.get("activation_fn") if isinstance(settings, dict) else None)
        or old
        or (IDENTITY if _problem(switches) == "regression" else SIGMOID)
    )


def _problem(switches: Switches) -> str | None:
    """Return what kind of labels a classifier has, if the configuration says it."""
    kind = switches.said("problem_type", None)
    return kind if kind is None else str(kind)


def written_head(head: Head, kinds: dict[str, str]) -> dict[str, Any]:
    """Return the class of a model with a head, and the names of its labels, for `read_head`."""
    classes = {kind: name for name, kind in reversed(kinds.items())}
    kind = "classification" if isinstance(head, TextLabelHead) else head.kind
    written: dict[str, Any] = {"architectures": [classes.get(kind, next(reversed(kinds)))]}
    if isinstance(head, LabelHead):
        written["id2label"] = {str(number): name for number, name in enumerate(head.label_names)}
        written["label2id"] = {name: number for number, name in enumerate(head.label_names)}
    if isinstance(head, ScoreHead):
        written["sentence_transformers"] = {"activation_fn": SIGMOID if head.sigmoid else IDENTITY}
    return written
