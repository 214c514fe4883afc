"""How many blocks layers get."""

from __future__ import annotations

from roots_compress.stages.sparsify.choice import Blocks, counts, first_within, succession


def test_counts_double_below_the_whole_text() -> None:
    assert counts(2, 16) == (2, 4, 8)
    assert counts(3, 4) == (3,)


def test_each_model_gives_the_costliest_layer_more() -> None:
    models = succession([0.1, 1.0, -0.3], (2, 4))
    assert models == [
        (2, 2, 2),
        (2, 4, 2),
        (2, None, 2),
        (4, None, 2),
        (None, None, 2),
        (None, None, 4),
        (None, None, None),
    ]


def test_the_first_model_within_a_bound_is_found_by_few_measurements() -> None:
    models = succession([1.0] * 8, (2, 4, 8))
    measured: list[Blocks] = []

    def keeps(blocks: Blocks) -> bool:
        measured.append(blocks)
        return sum(16 if each is None else each for each in blocks) >= 50

    chosen = first_within(models, keeps)
    before = models[models.index(chosen) - 1]
    assert keeps(chosen)
    assert not keeps(before)
    assert len(measured) <= 8
