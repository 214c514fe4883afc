"""Checks the windows of text in a recipe against the contexts of its models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from roots_compress.configs.recipe.walk import placed_stages, training_of
from roots_compress.errors import Location

if TYPE_CHECKING:
    from roots_compress.configs.recipe.schema import Recipe


def context_faults(recipe: Recipe, contexts: Sequence[int]) -> Iterator[tuple[Location, str]]:
    """Yield each setting of more tokens than a model can hold, by place and description.

    Args:
        contexts: the longest context of the model before the first stage, and after each of `placed_stages`.
    """
    shortest = min(contexts)
    evaluation = recipe.evaluation.fitted(shortest)
    if evaluation.block_size > shortest:
        yield ("evaluation", "block_size"), too_long(evaluation.block_size, shortest)
    if evaluation.decode_tokens >= shortest:
        yield (
            ("evaluation", "decode_tokens"),
            f"{evaluation.decode_tokens} decoded tokens leave no room in the model's context "
            f"(max_position_embeddings) of {shortest}",
        )
    for index, (place, stage) in enumerate(placed_stages(recipe)):
        limit = read_along(recipe, contexts, index)
        for keys, training in training_of(stage):
            asked = training.fitted(limit).block_size
            if asked > limit:
                yield (*place, *keys, "block_size"), too_long(asked, limit)


def read_along(recipe: Recipe, contexts: Sequence[int], index: int) -> int:
    """Return the longest window that the models of a stage read, as `context_faults` numbers them.

    A student and its teacher read the same windows. Choices follow the stages, not one another.
    """
    return min(contexts[min(index, len(recipe.stages))], contexts[index + 1])


def too_long(tokens: int, limit: int) -> str:
    """Say that a window has more tokens than a model reads."""
    return f"is {tokens} tokens, but the model's context (max_position_embeddings) is {limit}"
