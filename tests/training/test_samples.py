"""Text that the student writes: from its own distribution, in its own document, and scored alone."""

from __future__ import annotations

import torch

from roots_compress.data.windows import IGNORED_LABEL
from roots_compress.training.distillation.samples import sample_continuations
from tests.tiny import tiny_model
from tests.training.text import as_batch, windows


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_first_half_stays_and_the_second_alone_is_scored() -> None:
    batch = as_batch(windows(tokens=17))
    sampled = sample_continuations(tiny_model(), batch, generator())
    assert torch.equal(sampled.input_ids_BT[:, :8], batch.input_ids_BT[:, :8])
    assert not torch.equal(sampled.input_ids_BT[:, 8:], batch.input_ids_BT[:, 8:])
    assert (sampled.targets_BT[:, :7] == IGNORED_LABEL).all()
    assert (sampled.targets_BT[:, -1] == IGNORED_LABEL).all()
    assert (sampled.segment_ids_BT[:, 8:] == sampled.segment_ids_BT[:, 7:8]).all()
    assert sampled.input_ids_BT.shape == batch.input_ids_BT.shape


def test_the_generator_decides_the_draws() -> None:
    batch, model = as_batch(windows()), tiny_model()
    first, again = (sample_continuations(model, batch, generator(3)).input_ids_BT for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, sample_continuations(model, batch, generator(4)).input_ids_BT)


def test_a_sure_student_goes_on_greedily_within_its_document() -> None:
    """Decoding through the cache must see what a packed forward pass sees: its own document alone."""
    model, packed = tiny_model(logit_scale=1000.0), windows(tokens=24)
    packed.segment_ids[:] = 0
    packed.segment_ids[::2, 5:] = 1
    sampled = sample_continuations(model, as_batch(packed), generator())
    logits = model(sampled.input_ids_BT, segment_ids=sampled.segment_ids_BT).logits
    assert torch.equal(logits[:, 11:-1].argmax(dim=-1), sampled.input_ids_BT[:, 12:])


def test_what_follows_the_end_of_a_text_is_not_scored() -> None:
    model = tiny_model()
    model.generation_config.eos_token_id = list(range(100))
    sampled = sample_continuations(model, as_batch(windows(tokens=32)), generator())
    for tokens, targets in zip(sampled.input_ids_BT[:, 16:], sampled.targets_BT[:, 15:-1], strict=True):
        ends = (tokens < 100).nonzero().flatten().tolist()
        stop = ends[0] + 1 if ends else len(tokens)
        assert torch.equal(targets[:stop], tokens[:stop])
        assert (targets[stop:] == IGNORED_LABEL).all()


def test_samples_follow_the_students_distribution() -> None:
    packed = windows(1, 8)
    packed.segment_ids[:] = 0
    many = as_batch(packed)
    model, rows = tiny_model(logit_scale=2.0), 4000
    many = type(many)(
        many.input_ids_BT.expand(rows, -1),
        many.targets_BT.expand(rows, -1),
        many.segment_ids_BT.expand(rows, -1),
        rows=(),
        first=0,
    )
    drawn = sample_continuations(model, many, generator()).input_ids_BT[:, 4]
    probabilities = model(torch.from_numpy(packed.input_ids[:, :4])).logits[0, -1].softmax(dim=-1)
    frequencies = torch.bincount(drawn, minlength=300) / rows
    assert (frequencies - probabilities).abs().sum() < 0.2
