from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from roots_compress.configs.data import CalibrationConfig
from roots_compress.configs.distill import DistillConfig
from roots_compress.configs.gates import GatesConfig
from roots_compress.configs.prune import PruneConfig, RecoveryConfig
from roots_compress.configs.recipe.growth import grow
from roots_compress.configs.recipe.loading import (
    check_paths,
    load_recipe,
    naming_lines,
    parse_recipe,
    resolved,
)
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.configs.recipe.yaml import read_yaml
from roots_compress.configs.training import TrainingConfig
from roots_compress.errors import InputError

ROOT = Path(__file__).parents[2]
MAKES = "name: a\nstages:\n  - kind: train\n    architecture: "
MINIMAL = "name: demo\nmodel: m\nstages:\n"
SEARCH = "name: demo\nmodel: m\n\nsearch:\n  max_minutes: 1\n"


def load(tmp_path: Path, text: str, *, model: Path | None = None) -> Recipe:
    (tmp_path / "r.yaml").write_text(text)
    return load_recipe(read_yaml(tmp_path / "r.yaml"), model=model)


def message_of(tmp_path: Path, text: str) -> str:
    """The message of the refusal, with the file's folder cut off."""
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    assert caught.value.remedy
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_a_recipe_is_read_with_its_defaults(tmp_path: Path) -> None:
    recipe = load(tmp_path, f"{MINIMAL}  - kind: prune\n    ratio: 0.5\n  - kind: quantize\n")
    assert [stage.kind for stage in recipe.stages] == ["prune", "quantize"]
    assert recipe.stages[0].ratio == 0.5  # type: ignore[union-attr]
    assert recipe.evaluation.block_size == 512
    assert not recipe.makes_model


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The recipe as a whole: RELIABILITY's classes of bad YAML that reach the schema.
        ("", "r.yaml: the recipe is empty"),
        ("# only a comment", "r.yaml: the recipe is empty"),
        ("- kind: prune", "r.yaml:1: a recipe is a group of keys"),
        ("just text", "r.yaml:1: a recipe is a group of keys"),
        ("name: a\nstages: []", "r.yaml:2: stages: there is nothing to do"),
        ("name: a", "r.yaml:1: stages: there is nothing to do"),
        ("model: m", "r.yaml:1: name: is required"),
        ("name: a\nstages:\n  - kind: prune", "r.yaml:1: model: is required: name a model here"),
        # A search.
        (f"{SEARCH}  choices: []", "r.yaml:6: search.choices: must have at least 1, not 0"),
        (
            f"{SEARCH}gates: {{}}",
            "r.yaml:4: search: needs a budget: give at least one of the gates max_perpl",
        ),
        (
            f"{SEARCH}gates: {{max_bytes: 9}}\nstages:\n  - kind: prune",
            "r.yaml:8: stages[0].kind: 'prune' (prune) cannot stand before a search",
        ),
        (
            f"{SEARCH}  choices:\n  - kind: prune\n    ratoi: 1",
            "r.yaml:8: search.choices[0].ratoi: unknown key (did you mean 'ratio'?)",
        ),
        (
            f"{SEARCH}  choices:\n  - kind: train",
            "r.yaml:7: search.choices[0].kind: 'train' is not one of tune, distill, prune",
        ),
        (
            f"{SEARCH}  choices: [{{kind: prune}}, {{kind: prune, ratio: 0.5}}]\ngates: {{max_bytes: 9}}",
            "search.choices[1].name: 'prune' is already the name of search.choices[0]",
        ),
        (
            f"{SEARCH}  choices: [{{kind: prune, recovery: {{training: {{steps: 0}}}}}}]",
            "r.yaml:6: search.choices[0].recovery.training.steps: must be at least 1, not 0",
        ),
        ("name: a\nmodel: m\nsearch: {}", "r.yaml:3: search.max_minutes: is required"),
        (
            "name: a\nmodel: m\nsearch: {max_minutes: 0}",
            "r.yaml:3: search.max_minutes: must be above 0.0, not 0",
        ),
        (
            "name: a\nmodel: m\nsearch: {max_bytes: 1}",
            "search.max_bytes: unknown key (bounds belong under 'gates'",
        ),
        (
            f"{MINIMAL}  - kind: prune\n    gates: {{against: prune, max_perplexity_ratio: 2}}",
            "stages[0].gates.against: 'prune' is not the name of an earlier stage, which are baseline",
        ),
        (
            f"{MINIMAL}  - kind: prune\ngates: {{against: prnue, min_size_ratio: 2}}",
            "gates.against: 'prnue' is not the name of an earlier stage",
        ),
        (
            f"{MINIMAL}  - kind: prune\ngates: {{against: ./old, max_bytes: 2}}",
            "gates.against: is given, but none of the gates here compares a row",
        ),
        (
            f"{SEARCH}gates: {{against: ./old, min_size_ratio: 2}}",
            "gates.against: a search compares its candidates with the baseline",
        ),
        (
            f"{SEARCH}  choices: [{{kind: prune, gates: {{max_bytes: 9}}}}]",
            "search.choices[0].gates: a search keeps the recipe's gates alone",
        ),
        (f"{MINIMAL}  - kind: prune\n    max_bytes: 3", "(did you mean 'gates.max_bytes'?)"),
        (
            f"{MINIMAL}  - kind: quantize\n    cache: int8\nexport: {{portable: true}}",
            "r.yaml:5: stages[0].cache: 'int8' has no portable form; set export.portable to false",
        ),
        (
            f"{SEARCH}  choices: [{{kind: quantize, cache: int8}}]\nexport: {{portable: true}}",
            "search.choices[0].cache: 'int8' has no portable form",
        ),
        # Keys.
        ("name: a\nsead: 1", "r.yaml:2: sead: unknown key (did you mean 'seed'?)"),
        ("name: a\n_target_: os.system", "r.yaml:2: _target_: unknown key"),
        ("name: a\nschema: 99", "r.yaml:2: schema: unknown key"),
        ("name: a\n<<: {seed: 1}", "r.yaml:2: <<: unknown key"),
        (
            f"{MINIMAL}  - kind: prune\n    ratoi: 1",
            "r.yaml:5: stages[0].ratoi: unknown key (did you mean 'ratio'?)",
        ),
        (f"{MINIMAL}  - kind: distill\n    steps: 1", "(did you mean 'training.steps'?)"),
        (f"{MINIMAL}  - kind: prune\n    steps: 1", "(did you mean 'recovery.training.steps'?)"),
        (f"{MINIMAL}  - kind: prune\n    seed: 1", "('seed' belongs at the top of the recipe)"),
        (
            f"{MINIMAL}  - kind: quantize\n    calibration: {{zzz: 1}}",
            "r.yaml:5: stages[0].calibration.zzz: unknown key; the keys here are windows, block_size",
        ),
        # Kinds of stages.
        (f"{MINIMAL}  - kind: prun", "r.yaml:4: stages[0].kind: 'prun' is not one of train, tune, distill"),
        (f"{MINIMAL}  - kind: prun", "(did you mean 'prune'?)"),
        (f"{MINIMAL}  - ratio: 0.5", "r.yaml:4: stages[0]: must have a 'kind'"),
        (f"{MINIMAL}  - prune", "r.yaml:4: stages[0]: must be a group of keys, not text 'prune'"),
        (f"{MINIMAL}  - prune: {{}}", "r.yaml:4: stages[0]: must have a 'kind'"),
        (f"{MINIMAL}  - kind: [prune]", "r.yaml:4: stages[0].kind: "),
        ("name: a\nstages: prune", "r.yaml:2: stages: must be a list, not text 'prune'"),
        ("name: a\nstages: {kind: prune}", "r.yaml:2: stages: must be a list, not a group of keys"),
        ("name: a\nstages:", "r.yaml:2: stages: must be a list, not empty"),
        # Types.
        (f"{MINIMAL}  - kind: prune\n    ratio: 50%", "stages[0].ratio: must be a number, not text '50%'"),
        (f"{MINIMAL}  - kind: prune\n    ratio: '0.5'", "stages[0].ratio: must be a number, not text '0.5'"),
        (f"{MINIMAL}  - kind: prune\n    ratio: true", "stages[0].ratio: must be a number, not true"),
        (f"{MINIMAL}  - kind: prune\n    ratio:", "r.yaml:5: stages[0].ratio: must be a number, not empty"),
        (f"{MINIMAL}  - kind: prune\n    refit: no", "stages[0].refit: must be true or false, not text 'no'"),
        (f"{MINIMAL}  - kind: prune\n    refit: 1", "stages[0].refit: must be true or false, not 1"),
        ("name: a\nseed: true", "seed: must be a whole number, not true"),
        ("name: a\nseed:", "seed: must be a whole number, not empty"),
        ("name: a\nseed: 1.0", "seed: must be a whole number, not 1.0"),
        ("name: a\nseed: 12:30:00", "seed: must be a whole number, not text '12:30:00'"),
        ("name: 5", "name: must be text, not 5"),
        ("name: a\nmodel: 5", "model: must be a path, not 5"),
        ("name: a\ndata: 5", "data: must be a group of keys, not 5"),
        ("name: a\ndata: {train: x.txt}", "data.train: must be a list, not text 'x.txt'"),
        # Bounds.
        (f"{MINIMAL}  - kind: prune\n    ratio: 1.0", "stages[0].ratio: must be below 1.0, not 1.0"),
        (f"{MINIMAL}  - kind: prune\n    ratio: -0.1", "stages[0].ratio: must be at least 0.0, not -0.1"),
        (f"{MINIMAL}  - kind: prune\n    ratio: 0", "stages[0]: at least one of ratio, head_ratio"),
        (
            f"{MINIMAL}  - kind: prune\n    ratio: 0.1\n    target: {{parameters: 0.5}}",
            "stages[0]: a target takes the",
        ),
        (
            f"{MINIMAL}  - kind: prune\n    target: {{}}",
            "stages[0].target: give exactly one of target.parameters, target.bytes and",
        ),
        (
            f"{MINIMAL}  - kind: prune\n    target: {{parameters: 1.0}}",
            "stages[0].target.parameters: must be below 1.0",
        ),
        ("name: a\nseed: -1", "seed: must be at least 0, not -1"),
        ("name: a\nseed: 36893488147419103232", "seed: must be below 4294967296"),
        ("name: a\nevaluation: {block_size: 0}", "evaluation.block_size: must be at least 8, not 0"),
        ("name: a\nevaluation: {contexts: []}", "evaluation.contexts: "),
        ("name: a\nevaluation: {contexts: [0]}", "evaluation.contexts[0]: must be at least 1, not 0"),
        ("name: a\nevaluation: {threads: 0}", "evaluation.threads: must be at least 1, not 0"),
        ("name: a\ngates: {max_bytes: 0}", "gates.max_bytes: must be at least 1, not 0"),
        ("name: a\ngates: {min_size_ratio: .nan}", "gates.min_size_ratio: must be a finite number, not nan"),
        (
            f"{MINIMAL}  - kind: distill\n    training: {{learning_rate: .inf}}",
            "r.yaml:5: stages[0].training.learning_rate: must be a finite number, not inf",
        ),
        (
            f"{MINIMAL}  - kind: distill\n    training: {{learning_rate: 1e999}}",
            "stages[0].training.learning_rate: must be a finite number, not inf",
        ),
        (
            f"{MINIMAL}  - kind: quantize\n    group_size: 31",
            "group_size: must be 'auto', 16, 32, 64 or 128, not 31",
        ),
        ("name: a\ndevice: gpu", "device: must be 'auto', 'cpu' or 'cuda', not text 'gpu'"),
        # Names that are to be folders.
        ("name: ../up\nmodel: m", "r.yaml:1: name: must begin with a letter or digit"),
        ("name: /abs\nmodel: m", "name: must begin with a letter or digit"),
        ("name: a/b\nmodel: m", "name: must begin with a letter or digit"),
        ("name: a.\nmodel: m", "name: must begin with a letter or digit"),
        ("name: ''\nmodel: m", "name: must begin with a letter or digit"),
        (f"name: {'a' * 65}\nmodel: m", "name: "),
        # Rules between stages.
        (
            f"{MINIMAL}  - kind: quantize\n  - kind: prune\n",
            "r.yaml:5: stages[1].kind: 'prune' (prune) cannot come after 'quantize' (quantize)",
        ),
        (
            f"{MINIMAL}  - kind: quantize\n    name: q8\n  - kind: distill\n    name: d\n",
            "r.yaml:6: stages[1].kind: 'd' (distill) cannot come after 'q8' (quantize)",
        ),
        (f"{MINIMAL}  - kind: quantize\n  - kind: train\n", "'train' (train) cannot come after"),
        (
            f"{MINIMAL}  - kind: quantize\n  - kind: quantize\n    name: b\n",
            "'b' (quantize) cannot come after",
        ),
        (
            f"{MINIMAL}  - kind: prune\n  - kind: prune\n    name: prune\n",
            "r.yaml:6: stages[1].name: 'prune' is already the name of stages[0]",
        ),
        (f"{MINIMAL}  - kind: prune\n    name: baseline\n", "'baseline' is already the name of the row"),
        (
            f"{MINIMAL}  - kind: train\n    architecture: {{num_layers: 2}}\n",
            "r.yaml:5: stages[0].architecture: would have no effect",
        ),
        (
            f"{MINIMAL}  - kind: distill\n    loss: {{cache: x}}\n",
            "r.yaml:5: stages[0].loss.cache: needs loss.top_k: the whole vocabulary",
        ),
        (
            f"{MINIMAL}  - kind: quantize\n    scheme: fp16\n    cache: int8\n",
            "r.yaml:6: stages[0].cache: goes with scheme int8 or scheme int4, not with scheme fp16",
        ),
        # The shape of a model that the recipe itself makes.
        (
            f"{MAKES}{{num_attention_heads: 4, num_key_value_heads: 3}}\n",
            "architecture: num_key_value_heads (3) must divide num_attention_heads (4)",
        ),
        (
            f"{MAKES}{{attention: {{kind: block, num_blocks: 99}}, max_position_embeddings: 64}}\n",
            "num_blocks: is 99; a context of 64 tokens has 8 blocks of 8 keys",
        ),
        (f"{MAKES}{{position: relative}}\n", "position: relative is for a model with encoder_layers"),
        (
            f"{MAKES}{{encoder_layers: 2, attention: {{kind: top_m, top_m: 4}}}}\n",
            "attention: must be dense with encoder_layers",
        ),
        (f"{MAKES}{{head_dim: 7}}\n", "head_dim (7) must be even for rotary positions"),
        (
            "name: a\nstages:\n  - kind: train\n    objective: {}\n    architecture: {gated_mlp: false}\n",
            "architecture.gated_mlp: would have no effect: with an objective a new model has BERT's shape",
        ),
        (
            "name: a\nstages:\n  - kind: train\n    objective: {}\n"
            "    architecture: {hidden_size: 30, num_attention_heads: 4}\n",
            "architecture.hidden_size: (30) must be a multiple of the 4 heads",
        ),
        (
            "name: a\nstages:\n  - kind: train\n    tokenizer: {kind: byte_bpe, vocab_size: 200}\n",
            "vocab_size: must be at least",
        ),
        (
            "name: a\ndata: {source_language: en}\nstages:\n  - kind: train\n",
            "data.target_language: is missing: both languages are named, or none",
        ),
        (
            f"{MINIMAL}  - kind: sparsify\n    blocks: 4\n    max_perplexity_ratio: 1.5\n",
            "blocks: leaves nothing for max_perplexity_ratio to choose: set only one of them",
        ),
        # The context of a model that the recipe itself makes.
        (
            "name: a\nstages:\n  - kind: train\n    architecture: {max_position_embeddings: 256}\n"
            "    training: {block_size: 512}\n",
            "r.yaml:5: stages[0].training.block_size: is 512 tokens, but the model's context",
        ),
        (
            "name: a\nevaluation: {contexts: [250], block_size: 128}\nstages:\n  - kind: train\n"
            "    architecture: {max_position_embeddings: 256}\n",
            "r.yaml:2: evaluation.contexts: the longest and the 16 tokens decoded after it take 266",
        ),
    ],
)
def test_a_bad_recipe_is_refused_with_line_key_and_cause(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in message_of(tmp_path, text)


def test_all_faults_are_listed_in_the_order_of_the_file(tmp_path: Path) -> None:
    message = message_of(tmp_path, "name: a b\nsead: 1\nstages:\n  - kind: prune\n    ratio: 2\nseed: x\n")
    lines = message.splitlines()
    assert lines[0] == "4 things are wrong:"
    assert [line.split(": ")[0].strip() for line in lines[1:5]] == [
        "r.yaml:1",
        "r.yaml:2",
        "r.yaml:5",
        "r.yaml:6",
    ]


def test_a_choice_at_fault_is_a_choice() -> None:
    choices = {"max_minutes": 1, "choices": [{"kind": "prune", "name": "a", "ratio": 2}]}
    with pytest.raises(InputError) as caught:
        parse_recipe({"name": "a", "model": "m", "gates": {"max_bytes": 9}, "search": choices})
    assert str(caught.value).startswith("search.choices[0].ratio: must be below 1")


def test_a_long_list_of_faults_is_cut(tmp_path: Path) -> None:
    message = message_of(tmp_path, "name: a\n" + "".join(f"zz{index}: 1\n" for index in range(25)))
    assert "and 15 more" in message
    assert len(message.splitlines()) == 13


def test_faults_of_plain_values_name_the_key_alone() -> None:
    with pytest.raises(InputError, match=r"^stages\[0\].ratio: must be below 1.0, not 3"):
        parse_recipe({"name": "a", "model": "m", "stages": [{"kind": "prune", "ratio": 3}]})


def test_terminal_codes_in_values_are_not_echoed() -> None:
    with pytest.raises(InputError) as caught:
        parse_recipe({"name": "\x1b[2J", "model": "m"})
    assert "\x1b" not in str(caught.value)


def test_paths_start_from_the_recipes_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    (folder / "r.yaml").write_text(
        "name: a\nmodel: m\ndata: {train: [t.txt], eval: [/abs/e.txt]}\nstages:\n"
        "  - {kind: distill, name: a, student: small}\n  - {kind: distill, name: b, student: s.json}\n"
    )
    recipe = load_recipe(read_yaml(Path("recipes/r.yaml")))
    assert recipe.model == folder / "m"
    assert recipe.data.train == (folder / "t.txt",)
    assert recipe.data.eval == (Path("/abs/e.txt"),)
    assert [stage.student for stage in recipe.stages] == ["small", str(folder / "s.json")]  # type: ignore[union-attr]
    assert load_recipe(read_yaml(Path("recipes/r.yaml")), model=Path("other")).model == tmp_path / "other"


def test_paths_of_the_home_are_written_as_in_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    text = "name: a\nmodel: ~/m\ndata: {train: [~/t.txt, ./~]}\nstages:\n  - {kind: prune}\n"
    recipe = load(tmp_path, text)
    assert recipe.model == tmp_path / "home" / "m"
    assert recipe.data.train == (tmp_path / "home" / "t.txt", tmp_path / "~")


def test_a_model_that_is_a_link_keeps_its_name(tmp_path: Path) -> None:
    """The cache of huggingface_hub links to files without a suffix; by its name a split model is whole."""
    (tmp_path / "blob").touch()
    link = tmp_path / "m-00001-of-00002.gguf"
    link.symlink_to("blob")
    recipe = grow(tmp_path / "run", {"kind": "prune"}, source=link, fresh=False, settings={})
    assert recipe.model == link


def test_a_teacher_cache_starts_from_the_recipes_folder_too(tmp_path: Path) -> None:
    text = (
        "name: a\nmodel: m\nstages:\n"
        "  - {kind: distill, loss: {top_k: 8, cache: caches}}\n"
        "  - {kind: prune, recovery: {loss: {top_k: 8, cache: caches}}}\n"
        "  - {kind: prune, name: again, recovery: {loss: {top_k: 8}}}\n"
    )
    first, second, third = load(tmp_path, text).stages
    assert isinstance(first, DistillConfig)
    assert isinstance(second, PruneConfig)
    assert isinstance(third, PruneConfig)
    assert second.recovery is not None
    assert third.recovery is not None
    assert first.loss.cache == second.recovery.loss.cache == tmp_path / "caches"
    assert third.recovery.loss.cache is None


def test_a_model_on_the_command_line_stands_in_for_one_in_the_recipe(tmp_path: Path) -> None:
    recipe = load(tmp_path, "name: a\nstages:\n  - kind: prune\n", model=Path("/m"))
    assert recipe.model == Path("/m")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nmodel: gone\n", "r.yaml:2: model: '{folder}/gone' does not exist"),
        ("name: a\nmodel: .\ndata:\n  train:\n    - r.yaml\n    - gone.txt\n", "r.yaml:6: data.train[1]: "),
        (
            "name: a\nmodel: .\nstages:\n  - kind: distill\n    student: smal\n",
            "r.yaml:5: stages[0].student: there is no preset or path 'smal' (did you mean 'small'?)",
        ),
    ],
)
def test_missing_files_are_found(tmp_path: Path, text: str, expected: str) -> None:
    recipe = load(tmp_path, text)
    with pytest.raises(InputError) as caught, naming_lines(read_yaml(tmp_path / "r.yaml")):
        check_paths(recipe, in_file=True)
    assert expected.format(folder=tmp_path) in str(caught.value)


def test_a_missing_model_from_the_command_line_is_blamed_on_it(tmp_path: Path) -> None:
    recipe = load(tmp_path, "name: a\n", model=tmp_path / "gone")
    with pytest.raises(InputError, match=r"^--model: .* does not exist"):
        check_paths(recipe, in_file=True, model=tmp_path / "gone")


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_the_recipes_that_come_along_are_valid(path: Path) -> None:
    document = read_yaml(path)
    try:
        recipe = load_recipe(document)
    except InputError as error:
        assert "--model" in str(error)  # noqa: PT017 - such a recipe is about the user's own model
        recipe = load_recipe(document, model=ROOT)
    if "texts.csv" in path.read_text(encoding="utf-8"):
        with pytest.raises(InputError, match=r"texts\.csv' does not exist"):  # and about the user's own texts
            check_paths(recipe)
    else:
        check_paths(recipe)
    assert parse_recipe(json.loads(json.dumps(resolved(recipe)))) == recipe


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_the_recipes_that_are_shipped_are_recipes(path: Path, tmp_path: Path) -> None:
    makes_model = "kind: train" in path.read_text(encoding="utf-8")
    recipe = load_recipe(read_yaml(path), model=None if makes_model else tmp_path)
    assert recipe.name == path.stem


def test_a_group_given_in_part_keeps_the_rest_of_its_default(tmp_path: Path) -> None:
    text = (
        f"{MINIMAL}  - kind: prune\n    calibration: {{windows: 8}}\n    recovery: {{training: {{steps: 4}}}}"
    )
    (stage,) = load(tmp_path, text).stages
    assert isinstance(stage, PruneConfig)
    usual = PruneConfig(recovery=RecoveryConfig())
    assert stage.calibration == usual.calibration.model_copy(update={"windows": 8})
    assert stage.calibration.block_size != CalibrationConfig().block_size
    assert stage.recovery is not None
    assert usual.recovery is not None
    assert stage.recovery.training == usual.recovery.training.model_copy(update={"steps": 4})
    assert stage.recovery.training.learning_rate != TrainingConfig().learning_rate


@pytest.mark.parametrize(
    ("given", "ratio"),
    [
        ("", 0.25),
        ("head_ratio: 0.5", 0.0),
        ("layer_ratio: 0.0", 0.25),
        ("target: {parameters: 0.5}", 0.0),
        ("residual_ratio: 0.5\n    ratio: 0.1", 0.1),
    ],
)
def test_the_default_ratio_makes_way_to_what_is_asked_for(tmp_path: Path, given: str, ratio: float) -> None:
    recipe = load(tmp_path, f"{MINIMAL}  - kind: prune\n    {given}\n")
    assert isinstance(recipe.stages[0], PruneConfig)
    assert recipe.stages[0].ratio == ratio
    again = parse_recipe(resolved(recipe)).stages[0]
    assert again == recipe.stages[0]


@pytest.mark.parametrize(
    "text",
    [
        f"{MINIMAL}  - {{kind: sparsify, blocks: 4}}\n",
        "name: demo\nstages:\n  - {kind: train, architecture: {max_position_embeddings: 256}}\n"
        "evaluation: {block_size: 256}\n",
    ],
)
def test_a_run_goes_on_from_its_own_recipe(tmp_path: Path, text: str) -> None:
    """It holds every default, also those that would be refused if they were asked for."""
    recipe = load(tmp_path, text)
    assert parse_recipe(resolved(recipe)) == recipe


def test_resolved_holds_every_default(tmp_path: Path) -> None:
    document = resolved(load(tmp_path, f"{MINIMAL}  - kind: distill\n"))
    assert document["stages"][0]["training"]["steps"] == 300
    assert document["gates"] == dict.fromkeys(GatesConfig.model_fields)


def test_loading_imports_no_heavy_library() -> None:
    code = (
        "import sys; from pathlib import Path; from roots_compress.configs.recipe.loading import *; "
        "from roots_compress.configs.recipe.yaml import read_yaml; "
        "check_paths(load_recipe(read_yaml(Path('recipes/quickstart.yaml')))); "
        "heavy = {'torch', 'transformers', 'onnx', 'numpy', 'datasets', 'filelock'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
