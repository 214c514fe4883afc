"""The whole stage on tiny models: what it makes, reloads as, and refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from roots_compress.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from roots_compress.configs.data import CalibrationConfig
from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.data.documents import Document, TextSplit
from roots_compress.errors import GateMissedError, InputError, StageError
from roots_compress.evaluation.size import stored_bytes
from roots_compress.events import Events
from roots_compress.models.blocks.moe import MoeBlock
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.quantized import QuantizedEmbedding, QuantizedLinear
from roots_compress.models.spec import ModelSpec
from roots_compress.pipeline.forecast.weights import weight_bytes
from roots_compress.stages.base import StageContext, StageOutcome
from roots_compress.stages.expected import ExpectedModel
from roots_compress.stages.quantize.protocol import QuantizeStage
from roots_compress.stages.quantize.stage import quantize
from tests.faults.commands import Commands
from tests.specs import BY_SIGMOIDS, ENCODERS, KINDS, with_experts
from tests.stages.quantize.choices import integers_win
from tests.tiny import TEXT, tiny_checkpoint, tiny_layer, tiny_tokens

Scheme = Literal["int8", "int4", "fp16"]
SCHEMES: tuple[Scheme, ...] = ("int8", "int4", "fp16")
DOCUMENT = Document.plain(TEXT * 8)


def settings_of(scheme: Scheme = "int8", **settings: Any) -> QuantizeConfig:
    small: dict[str, Any] = {} if scheme == "fp16" else {"group_size": 16, "own_windows": 0}
    if scheme == "int8":
        small["products"] = "integer"  # What a timing would choose is tested in test_choice.py.
    return QuantizeConfig(
        scheme=scheme,
        calibration=CalibrationConfig(windows=settings.pop("windows", 8), block_size=32),
        **{key: value for key, value in {**small, **settings}.items() if (key, value) != ("products", None)},
    )


def run(
    tmp_path: Path,
    checkpoint: Checkpoint,
    scheme: Scheme = "int8",
    *,
    text: Document | tuple[Document, ...] = DOCUMENT,
    **settings: Any,
) -> StageOutcome:
    documents = text if isinstance(text, tuple) else (text,)
    split = TextSplit(documents, documents, "a few lines")
    context = StageContext(split, "cpu", 0, tmp_path, Events())
    return quantize(settings_of(scheme, **settings), checkpoint, context)


def foreseen_bytes(spec: ModelSpec, scheme: Scheme) -> int:
    """Return the bytes of weights that a forecast expects of the stage."""
    return weight_bytes(QuantizeStage().expect(settings_of(scheme), ExpectedModel(spec)).model)


@torch.no_grad()
def logits(model: RootsWithHead) -> Tensor:
    out: Tensor = model(input_ids=tiny_tokens()).logits
    return out.float()


def distance(model: RootsWithHead, other: RootsWithHead) -> float:
    """Return the root mean square of the difference between two models' logits, relative to the first's."""
    target = logits(model)
    return float(((logits(other) - target).square().mean() / target.square().mean()).sqrt())


def distances(model: RootsWithHead, other: RootsWithHead) -> Tensor:
    """Return the same of each token."""
    target = logits(model)
    return ((logits(other) - target).square().mean(-1) / target.square().mean(-1)).sqrt()


MODELS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied, layer norms, learned positions, biases": {
        "tie_word_embeddings": False,
        "norm": "layer_norm",
        "position": "learned",
        "gated_mlp": False,
        "activation": "gelu_tanh",
        "attention_bias": True,
        "attention_output_bias": True,
        "mlp_bias": True,
    },
    "width no multiple of the group": {"hidden_size": 40},
    **{name: {"spec": spec} for name, spec in KINDS.items() if name != "experts"},
}


@pytest.mark.parametrize("overrides", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize(
    ("scheme", "most"), [("int8", 0.035), ("int4", 0.2), ("fp16", 2e-3)], ids=["int8", "int4", "fp16"]
)
def test_the_quantized_model_predicts_alike(
    tmp_path: Path, overrides: dict[str, Any], scheme: Scheme, most: float
) -> None:
    checkpoint = tiny_checkpoint(**overrides)
    before = {name: tensor.clone() for name, tensor in checkpoint.model.state_dict().items()}
    outcome = run(tmp_path, checkpoint, scheme)
    spec = overrides.get("spec")
    # What few channels of linear attention give is large or normalised, and with it the error.
    most *= 2 if spec in (KINDS["linear attention"], KINDS["attention beside Mamba-2"]) else 1
    if spec in (KINDS["sinks, clamped experts"], KINDS["shared expert"]):
        # A rounded router chooses other experts for a few tokens: the others must be alike.
        assert distances(checkpoint.model, outcome.checkpoint.model).quantile(0.8) < most
    else:
        assert distance(checkpoint.model, outcome.checkpoint.model) < most
    found = stored_bytes(outcome.checkpoint.model)
    assert found < stored_bytes(checkpoint.model)
    assert foreseen_bytes(checkpoint.model.config.spec, scheme) == pytest.approx(found, rel=0.02)
    for name, tensor in checkpoint.model.state_dict().items():
        assert torch.equal(tensor, before[name]), f"the source's {name} was changed"


RELOAD = """
import sys
from pathlib import Path
import torch
from roots_compress.checkpoints.checkpoint import load_checkpoint
from tests.tiny import tiny_tokens
for folder in sys.argv[1:]:
    model = load_checkpoint(Path(folder)).model
    with torch.no_grad():
        torch.save(model(input_ids=tiny_tokens()).logits, Path(folder, "logits.pt"))
"""


def test_saved_and_loaded_in_a_new_process_models_give_the_same_logits(
    commands: Commands, tmp_path: Path
) -> None:
    expected = {}
    for scheme in SCHEMES:
        work = tmp_path / f"{scheme}-work"
        work.mkdir()
        model = run(work, tiny_checkpoint(tie_word_embeddings=scheme != "int4"), scheme).checkpoint
        save_checkpoint(model, tmp_path / scheme)
        expected[scheme] = logits(model.model)
    commands.python(RELOAD, *(tmp_path / scheme for scheme in SCHEMES))
    for scheme, wanted in expected.items():
        found = torch.load(tmp_path / scheme / "logits.pt", weights_only=True)
        assert torch.equal(found.float(), wanted), scheme


def test_every_matrix_is_stored_in_integers(tmp_path: Path) -> None:
    model = run(tmp_path, tiny_checkpoint(tie_word_embeddings=False)).checkpoint.model
    names = {name for name, module in model.named_modules() if isinstance(module, QuantizedLinear)}
    assert len(names) == 2 * 7 + 1
    assert isinstance(model.model.embed_tokens, QuantizedEmbedding)
    assert {parameter.ndim for parameter in model.parameters()} == {1}


@pytest.mark.parametrize(("scheme", "most", "chosen"), [("int8", 0.03, 1), ("int4", 0.2, 3)])
def test_every_expert_is_quantized_and_the_router_is_not(
    tmp_path: Path, scheme: Scheme, most: float, chosen: int
) -> None:
    """Some experts see too few tokens. Where two are as likely, rounding may send a token to the other."""
    checkpoint = tiny_checkpoint(spec=with_experts(experts=8, chosen=chosen))
    outcome = run(tmp_path, checkpoint, scheme)
    before, model = checkpoint.model, outcome.checkpoint.model
    names = {name for name, module in model.named_modules() if isinstance(module, QuantizedLinear)}
    assert len(names) == 2 * (4 + 8 * 3)
    router = "model.layers.0.mlp.router.weight"
    assert torch.equal(model.get_parameter(router), before.get_parameter(router))
    errors = (logits(model) - logits(before)).norm(dim=-1) / logits(before).norm(dim=-1)
    assert errors.median() < most
    save_checkpoint(outcome.checkpoint, tmp_path / "saved")
    assert torch.equal(logits(load_checkpoint(tmp_path / "saved").model), logits(model))


def test_experts_are_chosen_in_half_precision_as_before(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(spec=with_experts(**BY_SIGMOIDS))
    block = next(each for each in checkpoint.model.modules() if isinstance(each, MoeBlock))
    block.selection_bias += 14.0  # As large as DeepSeek-V3's.
    save_checkpoint(run(tmp_path, checkpoint, "fp16").checkpoint, tmp_path / "halved")
    halved = load_checkpoint(tmp_path / "halved").model
    assert halved.dtype == torch.float16
    kept = next(each for each in halved.modules() if isinstance(each, MoeBlock))
    assert torch.equal(kept.selection_bias, block.selection_bias)


@pytest.mark.parametrize("scheme", ["int8", "int4", "fp16"])
@pytest.mark.parametrize("spec", ENCODERS.values(), ids=ENCODERS.keys())
def test_encoders_are_quantized_with_the_heads_that_they_have(
    tmp_path: Path, scheme: Scheme, spec: ModelSpec
) -> None:
    """They write no text of their own, so that the text given is all that they are calibrated on."""
    checkpoint = tiny_checkpoint(spec=spec)
    checkpoint.tokenizer.mask_token = "<pad>"
    own: dict[str, Any] = {} if scheme == "fp16" else {"own_windows": 8}
    # A classifier reads of a text what fits a window.
    lines = tuple(Document.plain(line) for line in DOCUMENT.text.splitlines())
    quantized = run(tmp_path, checkpoint, scheme, text=lines, **own).checkpoint
    save_checkpoint(quantized, tmp_path / "saved")
    loaded = load_checkpoint(tmp_path / "saved").model
    outputs = []
    for each in (checkpoint.model, quantized.model, loaded):
        with torch.no_grad():
            outputs.append(each(input_ids=tiny_tokens())[0].float())
    before, after, again = outputs
    assert torch.equal(after, again)
    assert foreseen_bytes(spec, scheme) == pytest.approx(stored_bytes(quantized.model), rel=0.02)
    assert float((after - before).norm() / before.norm()) < {"int8": 0.05, "int4": 0.4, "fp16": 2e-3}[scheme]
    if scheme != "fp16":
        settings = quantized.model.config.quantization
        assert settings is not None
        assert settings["formats"].keys() == spec.matrices().keys()
        # Tokens of tiny random models are alike, so one scale serves; of weights only no input is rounded.
        rounded = {name for name, chosen in settings["formats"].items() if chosen == "w8a8"}
        assert set(settings.get("fixed_inputs", ())) <= rounded
        assert bool(settings.get("fixed_inputs")) == bool(rounded)


def test_a_tied_table_is_stored_once(tmp_path: Path) -> None:
    checkpoint = run(tmp_path, tiny_checkpoint()).checkpoint
    save_checkpoint(checkpoint, tmp_path / "saved")
    assert checkpoint.model.lm_head is None
    tables = [name for name in checkpoint.model.state_dict() if "head" in name or "embed" in name]
    assert sorted(tables) == [
        "model.embed_tokens.lookup_scale",
        "model.embed_tokens.weight",
        "model.embed_tokens.weight_scale",
    ]
    loaded = load_checkpoint(tmp_path / "saved").model
    assert torch.equal(logits(loaded), logits(checkpoint.model))


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_the_final_norm_is_folded_into_the_head_where_folding_is_asked_for(
    tmp_path: Path, scheme: Scheme
) -> None:
    outlying = tiny_checkpoint(tie_word_embeddings=False)
    norm = outlying.model.model.norm.weight
    with torch.no_grad():
        norm[:2] *= 40.0
    plain, folded = (run(tmp_path, outlying, scheme, fold=fold).checkpoint.model for fold in (False, True))
    assert torch.equal(plain.model.norm.weight, norm)
    assert (folded.model.norm.weight[:2] / norm[:2]).max() < 0.5


@pytest.mark.parametrize(
    ("settings", "formats"),
    [
        ({"products": "integer", "activation_loss": None}, {"w8a8"}),
        ({"products": "float"}, {"w8"}),
        ({"activations": "always", "products": None}, {"w8a8"}),
        ({"activations": "never", "products": None}, {"w8"}),
    ],
)
def test_products_decides_the_projections_format(
    tmp_path: Path, settings: dict[str, Any], formats: set[str]
) -> None:
    model = run(tmp_path, tiny_checkpoint(), **settings).checkpoint.model
    chosen = model.config.quantization["formats"] if model.config.quantization else {}
    assert {chosen[name] for name in chosen if "proj" in name} == formats
    # A decoder reads token after token, and each token keeps its own scale.
    assert "fixed_inputs" not in (model.config.quantization or {})


def test_auto_keeps_inputs_in_float_where_rounding_them_costs_more_than_is_allowed(tmp_path: Path) -> None:
    """Nothing is allowed, then everything; between, one input is a hundred times worse than the others."""
    outlying = tiny_checkpoint()
    with torch.no_grad():
        mlp = outlying.model.model.layers[0].get_submodule("mlp")
        mlp.get_parameter("up_proj.weight")[0] *= 100.0
        mlp.get_parameter("down_proj.weight")[:, 0] /= 100.0

    def float_inputs(allowed: float) -> set[str]:
        outcome = run(tmp_path, outlying, activation_loss=allowed, fold=False)
        model = outcome.checkpoint.model
        formats = model.config.quantization["formats"] if model.config.quantization else {}
        spared = outcome.notes["spared_sites"]
        assert isinstance(spared, list)
        assert all(formats[str(name)] == "w8" for name in spared)
        assert bool(spared) == any("proj" in name and chosen == "w8" for name, chosen in formats.items())
        return {name for name, chosen in formats.items() if "proj" in name and chosen == "w8"}

    assert len(float_inputs(0.0)) == 2 * 7
    assert float_inputs(10.0) == set()
    assert float_inputs(5e-3) == {"model.layers.0.mlp.down_proj"}


def test_an_int8_cache_rounds_keys_and_values_and_survives_the_disk(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(layers=[tiny_layer(head_dim=16)] * 2)
    plain, cached = (run(tmp_path, checkpoint, cache=cache).checkpoint for cache in ("float", "int8"))
    assert cached.model.config.quantization == {**(plain.model.config.quantization or {}), "cache": "int8"}
    assert 0 < distance(plain.model, cached.model) < 0.05
    save_checkpoint(cached, tmp_path / "saved")
    assert torch.equal(logits(load_checkpoint(tmp_path / "saved").model), logits(cached.model))


@pytest.mark.parametrize("switches", [{}, {"attention": {"kind": "top_m", "top_m": 4}}])
def test_an_int8_cache_needs_attention_that_fuses(tmp_path: Path, switches: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="cannot be cached in int8"):
        run(tmp_path, tiny_checkpoint(**switches), cache="int8")


def test_int4_keeps_the_dearest_inputs_in_eight_bits(tmp_path: Path) -> None:
    notes = run(tmp_path, tiny_checkpoint(), "int4", eight_bit_fraction=0.3).notes
    formats = notes["formats"]
    assert isinstance(formats, dict)
    assert any(name.endswith("proj w8") for name in formats)
    assert any(name.endswith("proj w4") for name in formats)
    assert 0 < float(str(notes["share_in_4_bits"])) < 0.6


@pytest.mark.parametrize(
    ("overrides", "cache"), [({}, "int8"), ({"tie_word_embeddings": False, "position": "learned"}, "float")]
)
def test_a_budget_is_met_and_used(tmp_path: Path, overrides: dict[str, Any], cache: str) -> None:
    checkpoint = tiny_checkpoint(layers=[tiny_layer(head_dim=16)] * 2, **overrides)

    def size(**settings: Any) -> int:
        return stored_bytes(run(tmp_path, checkpoint, "int4", cache=cache, **settings).checkpoint.model)

    least, most = size(eight_bit_fraction=0.0), size(eight_bit_fraction=1.0)
    assert size(max_bytes=least) == least
    assert size(max_bytes=most) == most
    assert least < size(max_bytes=(least + most) // 2) <= (least + most) // 2
    with pytest.raises(GateMissedError, match=f"takes {least:,} bytes with every layer in 4 bits") as error:
        size(max_bytes=least - 1)
    assert error.value.exit_code == 3


def test_too_little_calibration_text_says_how_much_is_needed(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    with pytest.raises(InputError, match="32 tokens of calibration text are too few") as error:
        run(tmp_path, checkpoint, windows=1)
    assert "matrices of 48 inputs" in str(error.value)
    assert "2 windows of 32 tokens are needed" in str(error.value)
    run(tmp_path, checkpoint, windows=1, compensate=False)
    run(tmp_path, checkpoint, windows=1, own_windows=1)


def test_as_few_layers_stay_in_8_bits_as_the_loss_allows(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    outcomes = [run(tmp_path, checkpoint, "int4", max_loss=loss) for loss in (1e9, 0.0)]
    sizes = [stored_bytes(outcome.checkpoint.model) for outcome in outcomes]
    for size, fraction in zip(sizes, (0.0, 1.0), strict=True):
        outright = run(tmp_path, checkpoint, "int4", eight_bit_fraction=fraction)
        assert size == stored_bytes(outright.checkpoint.model)
    whole = outcomes[0].notes["expected_loss"]
    assert isinstance(whole, float)
    assert outcomes[1].notes["expected_loss"] == 0.0
    half = run(tmp_path, checkpoint, "int4", max_loss=whole / 2)
    assert sizes[0] < stored_bytes(half.checkpoint.model) < sizes[1]
    assert 0.0 < float(str(half.notes["expected_loss"])) <= whole / 2


OTHER = {
    "products": "float",
    "serve_on": "avx512-vnni",
    "workload": {"read": 100},
    "activation_loss": 0.1,
    "group_size": 32,
    "eight_bit_fraction": 0.5,
    "max_bytes": 10**6,
    "max_loss": 0.1,
    "fold": False,
    "compensate": False,
    "cache": "int8",
    "calibration": {"windows": 5},
    "own_windows": 3,
}
"""Every setting but the scheme, at another value than its default."""


def refusal(**settings: Any) -> str | None:
    try:
        QuantizeConfig.model_validate(settings)
    except ValidationError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("scheme", "products"),
    [("int8", "auto"), ("int8", "integer"), ("int8", "float"), ("int4", "auto"), ("fp16", "auto")],
)
def test_a_setting_that_is_taken_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: Scheme, products: str
) -> None:
    """Whatever else is given is refused, at its place, and no setting is refused with every scheme."""
    assert OTHER.keys() == QuantizeConfig.model_fields.keys() - {"kind", "name", "scheme", "gates"}
    read: set[str] = set()

    class Watched(QuantizeConfig):
        def __getattribute__(self, name: str) -> Any:
            read.add(name)
            return super().__getattribute__(name)

    integers_win(monkeypatch)
    chosen = {"scheme": scheme, "products": products}
    config = Watched.model_validate({**chosen, "calibration": {"windows": 8, "block_size": 32}})
    read.clear()
    split, events = TextSplit((DOCUMENT,), (DOCUMENT,), "a few lines"), Events()
    quantize(config, tiny_checkpoint(), StageContext(split, "cpu", 0, tmp_path, events))
    for key, value in OTHER.items():
        if (fault := refusal(**{**chosen, key: value})) is None:
            assert key in read
        else:
            assert fault.splitlines()[1] == key
            assert "goes with " in fault


@pytest.mark.parametrize("key", OTHER)
def test_every_setting_goes_with_a_scheme_and_its_default_with_all(key: str) -> None:
    assert any(refusal(scheme=scheme, **{key: OTHER[key]}) is None for scheme in SCHEMES)
    default = getattr(QuantizeConfig(), key)
    assert all(refusal(scheme=scheme, **{key: default}) is None for scheme in SCHEMES)


def test_what_a_setting_goes_with_is_named() -> None:
    assert "goes with scheme int8 or scheme int4, not with scheme fp16" in str(
        refusal(scheme="fp16", own_windows=5)
    )
    assert "goes with products auto or products integer, not with products float" in str(
        refusal(products="float", activation_loss=0.1)
    )
    assert "goes with cache auto, not with cache int8" in str(
        refusal(products="integer", cache="int8", workload={"read": 9})
    )


@pytest.mark.parametrize(
    "left_to_timing",
    [{"products": "auto", "cache": "int8"}, {"products": "float", "cache": "auto"}, {"scheme": "int4"}],
)
def test_a_workload_goes_with_whatever_a_timing_chooses(left_to_timing: dict[str, Any]) -> None:
    assert refusal(**left_to_timing, workload={"read": 9}, serve_on="amx") is None


@pytest.mark.parametrize(
    ("former", "wanted"),
    [
        ({"activations": "auto"}, {"products": "integer"}),
        ({"activations": "auto", "activation_loss": 0.1}, {"products": "integer", "activation_loss": 0.1}),
        (
            {"activations": "always", "activation_loss": 0.005},
            {"products": "integer", "activation_loss": None},
        ),
        ({"activations": "never", "activation_loss": 0.005}, {"products": "float"}),
        ({"activations": "auto", "scheme": "int4"}, {"scheme": "int4"}),
    ],
)
def test_a_recipe_from_before_products_asks_for_what_it_asked_for(
    former: dict[str, Any], wanted: dict[str, Any]
) -> None:
    assert QuantizeConfig.model_validate(former) == QuantizeConfig.model_validate(wanted)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"activations": "sometimes"}, "it may be auto, always, never"),
        ({"activations": ["never"]}, "it may be auto, always, never"),
        ({"activations": "never", "products": "float"}, "leave it out"),
        ({"activations": "never", "scheme": "int4"}, "goes with scheme int8, not with scheme int4"),
    ],
)
def test_a_key_from_before_products_is_refused_with_what_to_do(settings: dict[str, Any], fault: str) -> None:
    assert fault in str(refusal(**settings))


def test_there_is_one_budget() -> None:
    with pytest.raises(
        ValidationError, match="decides which layers keep 8 bits, as max_bytes does: set only one"
    ):
        QuantizeConfig(scheme="int4", max_loss=0.1, max_bytes=10**6)


def test_text_of_its_own_makes_up_for_narrow_calibration_text(tmp_path: Path) -> None:
    """Calibrated on one letter alone, a model is far worse on random tokens than with its own text beside."""
    checkpoint = tiny_checkpoint()
    letter = Document.plain("a" * 2000)
    narrow, broad = (
        run(tmp_path, checkpoint, "int4", text=letter, eight_bit_fraction=0.0, own_windows=windows)
        for windows in (0, 64)
    )
    assert distance(checkpoint.model, broad.checkpoint.model) < 0.9 * distance(
        checkpoint.model, narrow.checkpoint.model
    )


def test_shared_inputs_get_one_format(tmp_path: Path) -> None:
    model = run(tmp_path, tiny_checkpoint(), "int4", eight_bit_fraction=0.4).checkpoint.model
    formats = model.config.quantization["formats"] if model.config.quantization else {}
    for index in range(2):
        prefix = f"model.layers.{index}."
        assert len({formats[f"{prefix}self_attn.{name}_proj"] for name in "qkv"}) == 1
        assert len({formats[f"{prefix}mlp.{name}_proj"] for name in ("gate", "up")}) == 1


def test_rows_and_channels_of_zeros_stay_finite(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    with torch.no_grad():
        mlp = checkpoint.model.model.layers[0].get_submodule("mlp")
        mlp.get_parameter("up_proj.weight")[:5] = 0.0
        mlp.get_parameter("down_proj.weight")[:, :9] = 0.0
        checkpoint.model.model.layers[1].get_parameter("self_attn.o_proj.weight").zero_()
    for scheme in ("int8", "int4"):
        outcome = run(tmp_path, checkpoint, scheme)
        assert torch.isfinite(logits(outcome.checkpoint.model)).all()
        assert distance(checkpoint.model, outcome.checkpoint.model) < 0.2


def test_compensation_pays_in_four_bits_on_text_of_the_same_kind(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    tokens = torch.tensor(checkpoint.tokenizer(TEXT)["input_ids"])[None, :60]

    def error(**settings: Any) -> float:
        outcome = run(tmp_path, checkpoint, "int4", fold=False, eight_bit_fraction=0.0, **settings)
        model = outcome.checkpoint.model
        with torch.no_grad():
            difference = model(input_ids=tokens).logits - checkpoint.model(input_ids=tokens).logits
        return float(difference.square().mean())

    assert error() < 0.7 * error(compensate=False)


def test_the_same_seed_gives_the_same_integers(tmp_path: Path) -> None:
    first, second = (run(tmp_path, tiny_checkpoint(), "int4").checkpoint.model for _ in range(2))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_a_quantized_model_is_refused(tmp_path: Path) -> None:
    outcome = run(tmp_path, tiny_checkpoint())
    with pytest.raises(InputError, match="quantized already"):
        run(tmp_path, outcome.checkpoint)


def test_a_half_precision_model_is_refused(tmp_path: Path) -> None:
    outcome = run(tmp_path, tiny_checkpoint(), "fp16")
    with pytest.raises(InputError, match="float16"):
        run(tmp_path, outcome.checkpoint)


def test_an_infinite_weight_is_named(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    with torch.no_grad():
        checkpoint.model.model.layers[1].get_parameter("mlp.up_proj.weight")[3, 3] = float("inf")
    with pytest.raises(StageError, match=r"layers\.1\.mlp\.up_proj\.weight"):
        run(tmp_path, checkpoint)


def test_a_weight_too_large_for_half_precision_is_named(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    with torch.no_grad():
        checkpoint.model.model.layers[1].get_parameter("mlp.down_proj.weight")[0, 0] = 7e4
    with pytest.raises(StageError, match=r"layers\.1\.mlp\.down_proj\.weight reaches 70000"):
        run(tmp_path, checkpoint, "fp16")


def test_an_activation_too_large_for_half_precision_is_named(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    with torch.no_grad():
        for name in ("up_proj", "gate_proj"):
            checkpoint.model.model.layers[0].get_parameter(f"mlp.{name}.weight").mul_(500)
    with pytest.raises(StageError, match=r"the output of model\.layers\.0\.mlp"):
        run(tmp_path, checkpoint, "fp16")
