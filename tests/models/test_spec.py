"""What a model is: JSON both ways, version 1 read for good, and what cannot be refused by its key."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from roots_compress.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.errors import InputError
from roots_compress.models.config import RootsConfig
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.ops.attention import Attention, LinearScaling, QkNorm, Rope, TopM
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.ops.stack import Sublayer
from roots_compress.models.spec import Embeddings, ModelSpec, Norm, Stack
from tests.tiny import tiny_config, tiny_tokenizer, tiny_tokens

NORM = Norm(eps=1e-5)
GLOBAL = Attention(heads=4, kv_heads=2, head_dim=8, rope=Rope(theta=1e6, scaling=LinearScaling(factor=8.0)))
LOCAL = Attention(heads=4, kv_heads=1, head_dim=8, rope=Rope(rotary_dim=4), window=5, qk_norm=QkNorm())
SPEC = ModelSpec(
    stacks={
        "decoder": Stack(
            layers=(
                (
                    Sublayer(op=LOCAL, pre_norm=NORM, post_norm=NORM),
                    Sublayer(op=Moe(experts=4, chosen=2, channels=8), pre_norm=NORM, post_norm=NORM),
                ),
                (
                    Sublayer(op=GLOBAL, stream_norm=Norm(kind="layer_norm")),
                    Sublayer(op=Mlp(channels=12, gated=False, activation="relu", bias=True)),
                ),
            ),
            final_norm=NORM,
        )
    },
    embeddings=Embeddings(vocabulary=300, width=16, scale=4.0),
    head=LmHead(softcap=30.0),
    tied=False,
    max_positions=64,
)
"""Layers that differ in all that version 1 has once for all of them."""

VERSION_1 = """{
  "activation": "gelu_tanh", "architectures": ["RootsForCausalLM"], "attention": {"kind": "dense"},
  "attention_bias": true, "attention_output_bias": false, "attention_scale": null, "bos_token_id": 0,
  "dtype": "float32", "embedding_scale": 2.0, "eos_token_id": 1, "gated_mlp": false, "hidden_size": 16,
  "initializer_range": 0.02,
  "layers": [
    {"head_dim": 8, "intermediate_size": 12, "num_attention_heads": 4, "num_key_value_heads": 2,
     "sliding_window": 6},
    {"head_dim": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1,
     "sliding_window": null}
  ],
  "logit_scale": 0.5, "max_position_embeddings": 128, "mlp_bias": false, "model_type": "roots",
  "norm": "layer_norm", "norm_eps": 1e-05, "pad_token_id": 2, "position": "rotary", "qk_norm": true,
  "quantization": null,
  "rope_parameters": {"factor": 2.0, "original_max_position_embeddings": 64, "rope_theta": 100.0,
                      "rope_type": "yarn"},
  "tie_word_embeddings": false, "transformers_version": "5.23.0", "use_cache": true, "vocab_size": 300
}"""
"""A config.json as version 1 wrote it."""
VERSION_1_LOGITS = [
    -0.4530733525753021, 0.020427972078323364, 0.22359877824783325, -0.3762228190898895, 1.0574074983596802,
    -0.8988701105117798,
]  # fmt: skip
"""What version 1 gave for the checkpoint below: the first logits of the last of twelve tokens."""


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    """Write a checkpoint as version 1 did, its weights drawn in the order of their names."""
    shapes = {}
    for name, tensor in RootsForCausalLM(RootsConfig(**json.loads(VERSION_1))).named_parameters():
        former = name.replace("self_attn_pre_norm", "input_layernorm")
        shapes[former.replace("mlp_pre_norm", "post_attention_layernorm")] = tensor.shape
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=generator) * 0.5 for name, shape in sorted(shapes.items())}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    tiny_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(VERSION_1)
    return tmp_path


def test_json_gives_the_specification_back() -> None:
    assert ModelSpec.of_json(json.loads(json.dumps(SPEC.to_json()))) == SPEC


def test_json_leaves_defaults_out() -> None:
    fields = tiny_config().spec.to_json()
    assert fields.keys() == {"stacks", "embeddings", "max_positions"}
    assert fields["embeddings"] == {"vocabulary": 300, "width": 32}


def test_a_configuration_is_its_specification_saved_and_read(tmp_path: Path) -> None:
    config = RootsConfig(spec=SPEC, eos_token_id=1)
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["version"] == 2
    assert RootsConfig.from_pretrained(tmp_path).spec == SPEC


def test_a_checkpoint_of_version_1_gives_its_logits(version_1: Path) -> None:
    model = load_checkpoint(version_1).model
    with torch.no_grad():
        logits = model(tiny_tokens(1, 12)).logits[0, -1, :6]
    torch.testing.assert_close(logits, torch.tensor(VERSION_1_LOGITS), rtol=1e-5, atol=1e-5)


def test_a_checkpoint_of_version_1_is_saved_as_version_2(version_1: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(version_1)
    save_checkpoint(checkpoint, tmp_path / "now")
    again = load_checkpoint(tmp_path / "now")
    assert again.model.config.spec == inspect_source(version_1).spec
    tokens = tiny_tokens()
    with torch.no_grad():
        assert torch.equal(again.model(tokens).logits, checkpoint.model(tokens).logits)


def changed_at(path: str, value: Any) -> dict[str, Any]:
    """Return the specification's JSON with another value at a dotted path; a list is a value as well."""
    fields: Any = copy.deepcopy(SPEC.to_json())
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place = fields
    for step in steps:
        place = place[step]
    place[last] = value
    return dict(fields)


FIRST, MOE = "stacks.decoder.layers.0.0.op", "stacks.decoder.layers.0.1.op"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (f"{FIRST}.window", 0, f"{FIRST}.window is 0: input should be greater than or equal to 1"),
        (f"{FIRST}.heads", 0, f"{FIRST}.heads is 0"),
        (f"{FIRST}.heads", "4", f"{FIRST}.heads is '4'"),
        (f"{FIRST}.heads", True, f"{FIRST}.heads is True"),
        (f"{FIRST}.heads", 2**31, f"{FIRST}.heads is 2147483648"),
        (f"{FIRST}.kv_heads", 3, f"{FIRST}: 3 key/value heads do not divide 4 query heads"),
        (f"{FIRST}.rope.rotary_dim", 3, f"{FIRST}: rope.rotary_dim 3 is odd"),
        (f"{FIRST}.rope.rotary_dim", 16, f"{FIRST}: rope.rotary_dim 16 is wider than its head, which has 8"),
        (f"{FIRST}.rope.theta", -1.0, f"{FIRST}.rope.theta is -1.0"),
        (f"{FIRST}.rope.scaling", {"kind": "dynamic"}, f"{FIRST}.rope.scaling is"),
        (f"{FIRST}.headz", 4, f"{FIRST}.headz is a key that no specification has"),
        (f"{FIRST}.kind", "convolution", f"{FIRST} is"),
        (f"{MOE}.chosen", 5, f"{MOE}: 5 experts are chosen for a token, and there are 4"),
        (f"{MOE}.activation", "mish", f"{MOE}.activation is 'mish'"),
        (f"{FIRST}", Mlp(channels=4).model_dump(), "layers.0 has two blocks of one name: mlp, mlp"),
        ("stacks.decoder.final_norm.kind", "batch_norm", "stacks.decoder.final_norm.kind is 'batch_norm'"),
        ("stacks.middle", {"layers": []}, "stacks.middle"),
        ("stacks", {}, "stacks is empty"),
        ("embeddings", {"width": 16}, "embeddings.vocabulary is missing"),
        ("max_positions", 0, "max_positions is 0"),
        ("tied", "yes", "tied is 'yes'"),
        ("layers", [], "layers is a key that no specification has"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(path: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ModelSpec.of_json(changed_at(path, value))


def test_a_softcap_is_for_dense_attention() -> None:
    with pytest.raises(ValueError, match="dense attention only"):
        Attention(heads=1, kv_heads=1, head_dim=2, softcap=1.0, sparse=TopM(keys=2))


def test_keys_of_both_versions_are_refused(version_1: Path) -> None:
    (version_1 / "config.json").write_text(json.dumps({**json.loads(VERSION_1), **SPEC.to_json()}))
    with pytest.raises(InputError, match="activation is a key of version 1, and embeddings of version 2"):
        inspect_source(version_1)


def test_a_specification_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        SPEC.max_positions = 3
