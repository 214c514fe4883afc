"""An encoder and a decoder together: packing, caches, cuts, and what a specification of them can be."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor

from roots_compress.data.windows import START
from roots_compress.models.config import RootsConfig
from roots_compress.models.encoders import make_model
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.resizing import axis_of, block_at, keep_layers, keep_residual_channels, keep_units
from roots_compress.models.seq2seq import RootsForSeq2SeqLM
from roots_compress.models.spec import ModelSpec
from tests.specs import SEQ2SEQ, seq2seq
from tests.tiny import randomise, tiny_tokens

every_spec = pytest.mark.parametrize("spec", SEQ2SEQ.values(), ids=SEQ2SEQ.keys())


def model_of(spec: ModelSpec) -> RootsForSeq2SeqLM:
    """Return a model with random weights everywhere."""
    model = cast(RootsForSeq2SeqLM, make_model(RootsConfig(spec=spec)).eval())
    randomise(model)
    return model


def logits(model: RootsForSeq2SeqLM, source_BS: Tensor, target_BT: Tensor, **given: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=source_BS, decoder_input_ids=target_BT, **given).logits
    return found


@every_spec
def test_packed_pairs_equal_separate_ones(spec: ModelSpec) -> None:
    model, source, target = model_of(spec), tiny_tokens(1, 20), tiny_tokens(1, 11, seed=1)
    target[0, 0] = target[0, 5] = START
    sources, targets = torch.zeros_like(source), torch.zeros_like(target)
    sources[0, 13:], targets[0, 5:] = 1, 1
    packed = logits(model, source, target, segment_ids=sources, decoder_segment_ids=targets)
    first, second = logits(model, source[:, :13], target[:, :5]), logits(model, source[:, 13:], target[:, 5:])
    torch.testing.assert_close(packed, torch.cat([first, second], dim=1), atol=1e-5, rtol=0)


@every_spec
def test_decoding_through_both_caches_equals_one_forward(spec: ModelSpec) -> None:
    model, source, target = model_of(spec), tiny_tokens(2, 20), tiny_tokens(2, 11, seed=1)
    mask = torch.ones_like(source)
    mask[0, 12:] = 0
    whole = logits(model, source, target, attention_mask=mask)
    states, cache, steps = (model.encode(source, mask),), None, []
    with torch.no_grad():
        for token in target.split(1, dim=1):
            output = model(
                encoder_outputs=states,
                attention_mask=mask,
                decoder_input_ids=token,
                past_key_values=cache,
                use_cache=True,
            )
            cache = output.past_key_values
            steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-5, rtol=0)


@every_spec
def test_silent_units_of_every_axis_go_without_a_trace(spec: ModelSpec) -> None:
    model, source, target = model_of(spec), tiny_tokens(2, 20), tiny_tokens(2, 11, seed=1)
    for place, op in spec.blocks():
        for name in [axis.name for axis in op.axes()]:
            block = block_at(model, place)
            axis = axis_of(block, name)
            kept = [
                unit
                for unit in range(axis.units)
                if axis.units == 1 or unit % axis.each != 0 or axis.each == 1
            ]
            gone = sorted(set(range(axis.units)) - set(kept))
            with torch.no_grad():
                for unit in gone:
                    block.linear(str(axis.projection)).weight[
                        :, unit * axis.size : (unit + 1) * axis.size
                    ] = 0
            before = logits(model, source, target)
            keep_units(model, place, name, kept)
            torch.testing.assert_close(logits(model, source, target), before, atol=1e-4, rtol=1e-4)
    assert model.num_parameters() == model.config.spec.parameters < spec.parameters
    assert make_model(model.config).state_dict().keys() == model.state_dict().keys()


@every_spec
def test_layers_and_residual_channels_of_both_stacks_can_leave(spec: ModelSpec) -> None:
    model = model_of(spec)
    keep_layers(model, [1, 3])
    assert [len(stack.layers) for stack in model.config.spec.running] == [1, 1]
    keep_residual_channels(model, [0, 3, 4, 9, 17, 18, 25, 31])
    fresh = make_model(model.config)
    fresh.load_state_dict(model.state_dict())
    fresh.tie_weights()
    source, target = tiny_tokens(2, 20), tiny_tokens(2, 11, seed=1)
    found = logits(model, source, target)
    assert torch.equal(found, logits(cast(RootsForSeq2SeqLM, fresh.eval()), source, target))
    assert found.isfinite().all()


def test_what_cannot_be_is_refused() -> None:
    spec = seq2seq()
    decoder = spec.stacks["decoder"]
    with pytest.raises(ValueError, match="seq2seq_lm"):
        changed(spec, head=LmHead())
    with pytest.raises(ValueError, match="cross-attention is for a decoder"):
        changed(spec, stacks={"decoder": decoder}, head=LmHead())
    with pytest.raises(ValueError, match="cross-attention is dense"):
        changed(decoder.layers[0][1].op, causal=True)


def test_json_gives_the_specification_back() -> None:
    spec = seq2seq(bias=True)
    assert ModelSpec.of_json(spec.to_json()) == spec
