"""The cache that holds its whole length from the first token on."""

from __future__ import annotations

import pytest
import torch

from roots_compress.models.caches import PreallocatedLayer, empty_cache
from tests.specs import convolving
from tests.tiny import tiny_config, tiny_model, tiny_tokens


@torch.no_grad()
def test_tokens_by_turns_give_what_they_give_at_once() -> None:
    model = tiny_model()
    ids = torch.randint(model.config.vocab_size, (2, 11), generator=torch.Generator().manual_seed(0))
    past = empty_cache(model.config.spec, 11)
    parts = [
        model(input_ids=part, past_key_values=past, use_cache=True).logits
        for part in ids.split([4, 1, 1, 5], dim=1)
    ]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(input_ids=ids).logits)


@torch.no_grad()
def test_earlier_tokens_stay_where_they_are() -> None:
    model = tiny_model()
    past = empty_cache(model.config.spec, 3)
    ids = torch.zeros(1, 1, dtype=torch.long)
    places = set()
    for _ in range(3):
        model(input_ids=ids, past_key_values=past, use_cache=True)
        layer = past.layers[0]
        assert isinstance(layer, PreallocatedLayer)
        assert layer.keys is not None
        places.add(layer.keys.data_ptr())
    assert len(places) == 1
    assert past.get_seq_length() == 3


@torch.no_grad()
def test_a_first_layer_that_keeps_nothing_does_not_hide_what_was_read() -> None:
    spec = tiny_config().spec
    model = tiny_model(spec=spec.with_layers((spec.layers[0][1:], spec.layers[1])))
    ids = tiny_tokens(2, 9)
    past = empty_cache(model.config.spec)
    parts = [model(part, past_key_values=past, use_cache=True).logits for part in ids.split([5, 1, 3], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids).logits)


@torch.no_grad()
def test_tokens_are_forgotten_at_the_end_and_all_at_once() -> None:
    model = tiny_model(spec=convolving(kernel=4))
    ids, other = tiny_tokens(1, 9), tiny_tokens(1, 4)
    whole, past = model(ids).logits, empty_cache(model.config.spec)
    past.activate_past_recording()
    model(ids[:, :5], past_key_values=past, use_cache=True)
    past.crop(0)
    model(other, past_key_values=past, use_cache=True)
    past.crop(-4)
    again = model(ids[:, 5:], past_key_values=past, use_cache=True).logits
    torch.testing.assert_close(again, whole[:, 5:])
    past.reset()
    assert past.get_seq_length() == 0
    torch.testing.assert_close(model(ids, past_key_values=past, use_cache=True).logits, whole)


@torch.no_grad()
def test_more_tokens_than_it_holds_are_refused() -> None:
    model = tiny_model()
    past = empty_cache(model.config.spec, 3)
    with pytest.raises(RuntimeError, match="size"):
        model(input_ids=torch.zeros(1, 4, dtype=torch.long), past_key_values=past, use_cache=True)
