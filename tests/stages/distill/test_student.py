"""Students from presets, config files and checkpoints, and the refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from roots_compress.checkpoints.checkpoint import Checkpoint, save_checkpoint
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.configs.distill import STUDENT_PRESETS, DistillConfig
from roots_compress.errors import InputError
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import ClassificationHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.ops.stack import Sublayer
from roots_compress.models.spec import Layer, ModelSpec, Place, Stack
from roots_compress.models.version1 import spec_of
from roots_compress.stages.base import ModelInfo
from roots_compress.stages.distill.presets import PRESETS, layer_sizes, preset_spec, spread_layers
from roots_compress.stages.distill.protocol import DistillStage
from roots_compress.stages.distill.student import make_student
from roots_compress.training.distillation.teacher import with_first_tokens
from tests.encoders import encoder_tokenizer, tiny_encoder
from tests.specs import SPECS
from tests.tiny import tiny_checkpoint, tiny_config, tiny_layer, tiny_tokenizer, tiny_tokens


def quickstart_layers(count: int, **fields: Any) -> ModelSpec:
    layer = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 768}
    return spec_of({"hidden_size": 256, "layers": [layer] * count, **fields})


def widths(spec: ModelSpec) -> list[int]:
    return [op.channels for _, op in spec.blocks() if isinstance(op, Mlp)]


def test_layer_sizes_counts_the_matrices() -> None:
    teacher = tiny_checkpoint().model
    counted = sum(p.numel() for p in teacher.model.layers.parameters() if p.ndim == 2)
    assert sum(layer_sizes(teacher.config.spec)) == counted


@pytest.mark.parametrize("layers", [6, 8, 12, 30])
@pytest.mark.parametrize("name", STUDENT_PRESETS)
def test_a_preset_keeps_its_share_of_the_parameters(name: str, layers: int) -> None:
    teacher = quickstart_layers(layers)
    student = preset_spec(teacher, PRESETS[name])
    shares = sum(layer_sizes(student)) / sum(layer_sizes(teacher))
    assert shares == pytest.approx(PRESETS[name].parameters, abs=0.04)
    assert all(width % 32 == 0 for width in widths(student))


def test_small_halves_the_layers_and_no_widths() -> None:
    assert preset_spec(quickstart_layers(8), PRESETS["small"]) == quickstart_layers(4)


def test_a_teacher_of_one_layer_gives_narrower_students() -> None:
    assert widths(preset_spec(quickstart_layers(1), PRESETS["small"])) == [256]


def test_a_preset_keeps_the_layers_widths_where_they_differ() -> None:
    layers = [tiny_layer(intermediate_size=512 + 32 * index) for index in range(4)]
    assert widths(preset_spec(quickstart_layers(0, layers=layers), PRESETS["small"])) == [512, 608]


def test_a_preset_takes_experts_out_and_leaves_as_many_as_a_token_goes_through() -> None:
    attention, feed_forward = quickstart_layers(1).layers[0]
    experts = [changed(feed_forward, op=Moe(experts=8, chosen=chosen, channels=128)) for chosen in (2, 6)]
    for narrow, left in zip(experts, (2, 6), strict=True):
        student = preset_spec(quickstart_layers(1).with_layers(((attention, narrow),)), PRESETS["tiny"])
        op = student.op(Place(0, "mlp"))
        assert isinstance(op, Moe)
        assert op.experts == left


def test_layers_whose_keys_others_take_stay() -> None:
    def layer(sharing: Literal["gives", "takes"]) -> Layer:
        return (Sublayer(op=Attention(heads=2, kv_heads=2, head_dim=4, sharing=sharing)),)

    stack = Stack(layers=(*[layer("gives")] * 3, *[layer("takes")] * 6))
    assert stack.needed == {2}
    assert [spread_layers(count, stack) for count in (2, 3, 5)] == [[2, 8], [2, 4, 8], [0, 2, 4, 6, 8]]


def test_a_preset_student_starts_from_the_teachers_weights() -> None:
    teacher = tiny_checkpoint(layers=[tiny_layer()] * 4)
    student = make_student("small", teacher, seed=0)
    assert student.notes["teacher_layers"] == [0, 3]
    assert student.notes["fresh_parameters"] == 0
    assert torch.equal(student.model.model.norm.weight, teacher.model.model.norm.weight)


def test_an_unknown_name_lists_the_presets() -> None:
    with pytest.raises(InputError, match="did you mean 'small'") as caught:
        make_student("smal", tiny_checkpoint(), seed=0)
    assert "tiny, small, medium" in str(caught.value.remedy)


def write(path: Path, **fields: Any) -> str:
    path.write_text(json.dumps(fields), encoding="utf-8")
    return str(path)


def test_a_config_file_gives_the_shape_and_the_teacher_the_vocabulary(tmp_path: Path) -> None:
    file = write(tmp_path / "student.json", hidden_size=24, layers=[tiny_layer(intermediate_size=32)])
    student = make_student(file, tiny_checkpoint(), seed=0)
    config = student.model.config
    assert (config.hidden_size, config.vocab_size, config.bos_token_id) == (24, 300, 0)
    assert student.notes["student_shape"] == {"layers": 1, "hidden_size": 24, "intermediate_sizes": [32]}


def test_a_file_of_version_2_need_not_name_the_vocabulary_either(tmp_path: Path) -> None:
    fields = tiny_config(hidden_size=24, layers=[tiny_layer()]).spec.to_json()
    del fields["embeddings"]["vocabulary"]
    student = make_student(write(tmp_path / "student.json", **fields), tiny_checkpoint(), seed=0)
    config = student.model.config
    assert (config.hidden_size, config.vocab_size, config.bos_token_id) == (24, 300, 0)


def test_a_saved_models_config_serves_as_well(tmp_path: Path) -> None:
    tiny_config(layers=[tiny_layer()]).save_pretrained(tmp_path)
    student = make_student(str(tmp_path / "config.json"), tiny_checkpoint(), seed=0)
    assert student.model.config.num_hidden_layers == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hiden_size": 32, "layers": [tiny_layer()]}, "unknown key 'hiden_size'.*'hidden_size'"),
        ({"vocab_size": 301, "layers": [tiny_layer()]}, "vocabulary has 301 entries, the teacher's 300"),
        ({"model_type": "llama", "layers": [tiny_layer()]}, "not a ROOTS config"),
        ({"hidden_size": "wide", "layers": [tiny_layer()]}, "no usable ROOTS config"),
        ({"hidden_size": 24}, "at least one layer"),
        ({"stacks": {}, "embeddings": {"width": 24}, "max_positions": 8}, "no usable ROOTS config: stacks"),
        ({"version": 3, "hidden_size": 24}, "version is 3, not 2"),
    ],
)
def test_a_bad_config_file_is_an_input_error(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_student(write(tmp_path / "student.json", **fields), tiny_checkpoint(), seed=0)
    assert caught.value.where == str(tmp_path / "student.json")


def test_a_checkpoint_keeps_its_own_weights(tmp_path: Path) -> None:
    own = tiny_checkpoint(5, layers=[tiny_layer()])
    save_checkpoint(own, tmp_path / "student")
    student = make_student(str(tmp_path / "student"), tiny_checkpoint(), seed=0)
    assert all(
        torch.equal(value, own.model.state_dict()[n]) for n, value in student.model.state_dict().items()
    )


@pytest.mark.parametrize(("student", "teacher"), [(320, 300), (300, 320), (310, 320)])
def test_tables_of_one_tokenizer_may_be_padded_differently(
    student: int, teacher: int, tmp_path: Path
) -> None:
    """Qwen 2.5 has 151,936 rows at 0.5B and 152,064 at 7B."""
    save_checkpoint(tiny_checkpoint(vocab_size=student), tmp_path / "student")
    large = tiny_checkpoint(1, vocab_size=teacher)
    made = make_student(str(tmp_path / "student"), large, seed=0)
    assert made.model.config.vocab_size == student
    cut = with_first_tokens(large, student)
    kept = min(student, teacher)
    assert cut.model.config.vocab_size == kept
    tokens = tiny_tokens()
    torch.testing.assert_close(cut.model(tokens).logits, large.model(tokens).logits[..., :kept])
    assert large.model.config.vocab_size == teacher


def test_what_embeddings_hold_for_single_layers_is_cut_with_the_tokens() -> None:
    large, tokens = tiny_checkpoint(**SPECS["shared keys"]), tiny_tokens().clamp(max=279)
    cut = with_first_tokens(large, 280)
    torch.testing.assert_close(cut.model(tokens).logits, large.model(tokens).logits[..., :280])


def test_a_checkpoint_with_other_token_ids_is_refused(tmp_path: Path) -> None:
    own, tokenizer = tiny_checkpoint(), json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    swapped = tiny_tokenizer()
    swapped._tokenizer = type(swapped.backend_tokenizer).from_str(json.dumps(tokenizer))
    save_checkpoint(Checkpoint(own.model, swapped), tmp_path / "student")
    with pytest.raises(InputError, match=r"student's tokenizer \(.*\) is not the teacher's"):
        make_student(str(tmp_path / "student"), tiny_checkpoint(), seed=0)


def classifier(*names: str) -> Checkpoint:
    head = ClassificationHead(labels=len(names) or 2, names=names or None)
    model: Any = tiny_encoder("classification", head=head)
    return Checkpoint(model, encoder_tokenizer())


@pytest.mark.parametrize("suffix", ["config.json", ""])
def test_a_students_labels_are_its_teachers_in_their_order(tmp_path: Path, suffix: str) -> None:
    teacher = classifier("bad", "good")
    save_checkpoint(teacher, tmp_path / "teacher")
    info = ModelInfo.of(inspect_source(tmp_path / "teacher"))
    for names, said in (
        ((), ""),
        (("bad", "good"), ""),
        (("good", "bad"), "the student's label 0 is 'good', the teacher's 'bad'"),
        (
            ("bad", "fair", "good"),
            "the student gives each text one of 3 labels, the teacher each text one of 2 labels",
        ),
    ):
        save_checkpoint(classifier(*names), folder := tmp_path / "-".join(("student", *names)))
        student = str(folder / suffix)
        if said:
            with pytest.raises(InputError, match=said):
                DistillStage().check(DistillConfig(student=student), info)
            with pytest.raises(InputError, match=said):
                make_student(student, teacher, seed=0)
        else:
            DistillStage().check(DistillConfig(student=student), info)
            made = make_student(student, teacher, seed=0).model.config.spec
            assert made.head == teacher.model.config.spec.head
