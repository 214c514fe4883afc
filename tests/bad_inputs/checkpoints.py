"""Malformed checkpoints: what their folders and their config.json may have wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.bad_inputs.cases import ON_TEXT, Bench, Generator, Request

CONFIG, WEIGHTS = "config.json", "model.safetensors"
STEPS = ("--train-block-size", "32", "--steps", "1")
HUGE = 10**30


def met(bench: Bench, model: str, names: str, says: str = "", *, as_student: bool = True) -> Request:
    """Return a command that meets a model: any verb that reads one.

    Args:
        bench: where the model lies.
        model: its path.
        names: see `Request`.
        says: see `Request`.
        as_student: whether it may also be met as a student, which is loaded after a run has begun.
    """
    bench.take("prose")
    commands: list[tuple[str, ...]] = [
        ("import", model, "--out", "out"),
        ("export", model, "--out", "out"),
        ("eval", model, *ON_TEXT),
        ("quantize", model, *ON_TEXT),
        ("prune", model, *ON_TEXT),
        ("distill", "--teacher", model, *STEPS, *ON_TEXT),
    ]
    if as_student:
        bench.take("ckpt", "teacher")
        commands.append(("distill", "--teacher", "teacher", "--student", model, *STEPS, *ON_TEXT))
    return Request(bench.random.choice(commands), names, says)


def edit(folder: Path, change: Callable[[dict[str, Any]], object], name: str = CONFIG) -> None:
    """Change a JSON file of a checkpoint."""
    document = json.loads((folder / name).read_text())
    change(document)
    (folder / name).write_text(json.dumps(document))


NUMBERS: tuple[Any, ...] = (None, 0, -1, "32", 1.5, True, [], {}, HUGE, "many", [1])
FLAGS: tuple[Any, ...] = ("true", 0, 1, [], {}, "no")
FAMILY_KEYS: dict[str, dict[str, tuple[Any, ...]]] = {
    "llama": {
        **dict.fromkeys(
            ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
            "max_position_embeddings",
             "intermediate_size"), NUMBERS,
        ),
        "num_key_value_heads": (0, 3, -2, "2", 8, [], HUGE),
        "head_dim": (0, 7, -8, "8", [], HUGE),
        "rms_norm_eps": (0, -1, "1e-5", [], True),
        "hidden_act": ("swiglu", 3, [], {"a": 1}),
        "attention_bias": FLAGS,
        "mlp_bias": FLAGS,
        "tie_word_embeddings": (*FLAGS, True),
        "rope_parameters": ("yarn", [1], 3, {"rope_type": "longrope"}, {"rope_type": 3}, {"rope_theta": -1},
                            {"rope_type": "linear"}, {"rope_type": "llama3", "factor": "8"}, {"unknown": 1}),
        "rope_scaling": ("yarn", 3, {"type": "dynamic", "factor": 2}, {"factor": []}),
        "quantization_config": ({"quant_method": "gptq"}, {"bits": 4}, "int8", [1]),
    },
    "gpt2": {
        **dict.fromkeys(("vocab_size", "n_embd", "n_layer", "n_head", "n_positions"),
                        tuple(value for value in NUMBERS if value is not None)),
        "n_inner": (0, -1, "128", [], HUGE),
        "layer_norm_epsilon": (0, -1, "1e-5", []),
        "activation_function": ("swiglu", 3, []),
        "scale_attn_weights": FLAGS,
        "add_cross_attention": (True, 1, "no"),
        "scale_attn_by_inverse_layer_idx": (True, "no"),
    },
    "ckpt": {
        **dict.fromkeys(("vocab_size", "hidden_size"), NUMBERS),
        "max_position_embeddings": NUMBERS,
        "layers": (None, 2, {}, [], [1], [{}], "two", [[]]),
        "norm": ("batch", 3, None, []),
        "norm_eps": (0, -1, "1e-6", None, []),
        "position": ("alibi", 3, None),
        "rope_parameters": ("yarn", [1], {"rope_type": "longrope"}, {"rope_theta": -1}, {"rope_theta": "x"}),
        "activation": ("swiglu", 3, None, []),
        "gated_mlp": (False, "no", None, 0),
        "attention_bias": (True, "no", None),
        "mlp_bias": (True, "no", None),
        "qk_norm": (True, "no", None),
        "attention_scale": ("x", [], {}),
        "embedding_scale": ("x", None, []),
        "logit_scale": ("x", None, []),
        "tie_word_embeddings": (False, "no", None),
        "attention": (None, "dense", {}, {"kind": "flash"}, {"kind": "top_m"}, {"kind": "top_m", "top_m": 0},
                      {"kind": "dense", "top_m": 1}, {"kind": []}),
        "quantization": ({}, {"group_size": 32}, {"group_size": 7, "formats": {}}, "int8",
                         {"group_size": 32, "formats": {"model.norm": "w8"}},
                         {"group_size": 32, "formats": {"lm_head": "w99"}}, {"group_size": 32,
                         "formats": []}),
    },
}  # fmt: skip
"""Values that config.json cannot have, or not with these weights."""


def wrong_value(bench: Bench) -> Request:
    """Give a key of config.json a value of another type, out of range, or not the weights'."""
    family = bench.random.choice(tuple(FAMILY_KEYS))
    key = bench.random.choice(tuple(FAMILY_KEYS[family]))
    value = bench.random.choice(FAMILY_KEYS[family][key])
    folder = bench.take(family)
    edit(folder, lambda config: config.update({key: value}))
    return met(bench, family, family, as_student=False)


OP_KEYS: dict[str, tuple[Any, ...]] = {
    "heads": (*NUMBERS, 3, 5),
    "kv_heads": (*NUMBERS, 3, 5),
    "head_dim": (*NUMBERS, 3, 5),
    "channels": (*NUMBERS, 3, 5),
    "window": (0, -1, "4", 1.5, [], True),
    "rope": (
        "default",
        3,
        {"theta": 0},
        {"rotary_dim": 3},
        {"rotary_dim": 512},
        {"scaling": {"kind": "ntk"}},
    ),
    "qk_norm": ("head", {"over": "all"}, {"eps": 0}),
    "scale": (0, -1.0, "x", []),
    "softcap": (0, "x", []),
    "sparse": ("block", {"kind": "flash"}, {"kind": "top_m"}, {"kind": "top_m", "keys": 0}),
    "activation": ("swish", "", None, 3),
    "causal": ("yes", 3),
    "kind": ("conv", None, 3, []),
    "new": (1, None, "x"),
}
"""Values that a block of a specification cannot have, or not with these weights."""


def wrong_block(bench: Bench) -> Request:
    """Give one block of a ROOTS model numbers that it cannot have, or not with these weights."""
    folder = bench.take("ckpt")
    key = bench.random.choice(tuple(OP_KEYS))
    value = bench.random.choice(OP_KEYS[key])

    def change(config: dict[str, Any]) -> None:
        op = bench.random.choice(bench.random.choice(config["stacks"]["decoder"]["layers"]))["op"]
        if bench.random.random() < 0.2 and key in ("kind", "heads", "channels") and key in op:
            del op[key]
        else:
            op[key] = value

    edit(folder, change)
    return met(bench, "ckpt", "ckpt", as_student=False)


def unknown_key(bench: Bench) -> Request:
    """Add a switch to config.json that nobody here has heard of."""
    family = bench.random.choice(("llama", "gpt2", "ckpt"))
    key = bench.random.choice(
        ("_attn_implementation_internal", "use_kernels", "num_experts", "custom_code",
         "attn_logit_softcapping", "auto_class",
         "_auto_class", "adapter_path", "trust_remote_code", "base_model_tp_plan", "attribute_map",
         "__class__",
         "sub_configs", "peft_config", "query_pre_attn_scalar", "extra_files")
    )  # fmt: skip
    value = bench.random.choice(("org/kernels", "evil.Code", {"a": "b"}, [1], 3, True))
    folder = bench.take(family)
    edit(folder, lambda config: config.update({key: value}))
    return met(bench, family, CONFIG)


def wrong_type(bench: Bench) -> Request:
    """Name a model type that is not among those known, or none."""
    family = bench.random.choice(("llama", "ckpt"))
    value: Any = bench.random.choice(
        (
            "lama",
            "mamba",
            "LLAMA",
            "",
            "llama ",
            3,
            None,
            ["llama"],
            {},
            "../llama",
            "roots2",
            "auto",
            "x" * 500,
        )
    )
    folder = bench.take(family)
    edit(folder, lambda config: config.update(model_type=value))
    return met(bench, family, CONFIG, "model_type")


def code(bench: Bench) -> Request:
    """Name code that transformers would run."""
    folder = bench.take(bench.random.choice(("llama", "ckpt")), "model")
    name = bench.random.choice((CONFIG, "tokenizer_config.json", "tokenizer.json"))
    value = bench.random.choice(({"AutoConfig": "evil.Config"}, {"AutoTokenizer": ["evil.T", None]}))
    edit(folder, lambda document: document.update(auto_map=value), name)
    return met(bench, "model", name, "code")


def heads(bench: Bench) -> Request:
    """Give a number of heads that does not fit."""
    folder = bench.take("llama")
    key = bench.random.choice(("num_attention_heads", "num_key_value_heads"))
    value = bench.random.choice((3, 5, 7, 12, 33))
    edit(folder, lambda config: (config.update({key: value}), config.pop("head_dim", None)))
    return met(bench, "llama", "llama", as_student=False)


JSON_TEXTS: tuple[str | bytes, ...] = (
    "", " ", "{", "[]", "3", "null", '"x"', '{"model_type": "llama", "model_type": "gpt2"}', "{'a': 1}",
    '{"a": NaN}', '{"a": Infinity}', "[" * 100_000, '{"a":' * 100_000, b"\xff\xfe{}", b"\x80\x04.",
    '{"a": 1,}',
    '{"a": "\x01"}', '{"a": ' + "9" * 5000 + "}", '{"a": 1e99999}', "{} {}", b'{"a": "\xff"}',
    '// x\n{"a": 1}',
    '{"model_type": "\\ud800"}', "\ufeff{}", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
)  # fmt: skip


def broken_json(bench: Bench, name: str = CONFIG) -> Request:
    """Put what is not one JSON object, or a part of one, where one is needed."""
    folder = bench.take(bench.random.choice(("llama", "ckpt", "gpt2")), "model")
    text = (folder / name).read_bytes()
    if bench.random.random() < 0.5:
        end = text.rstrip().rindex(b"}")
        (folder / name).write_bytes(text[: bench.random.randrange(end)])
    else:
        value: str | bytes = bench.random.choice(JSON_TEXTS)
        (folder / name).write_bytes(
            value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        )
    return met(bench, "model", "model")


def missing_file(bench: Bench) -> Request:
    """Leave out a file, or offer something else for the folder."""
    folder = bench.take("llama")
    match bench.random.randrange(6):
        case 0:
            (folder / CONFIG).unlink()
        case 1:
            (folder / WEIGHTS).unlink()
        case 2:
            (folder / WEIGHTS).rename(
                folder / bench.random.choice(("pytorch_model.bin", "model.pt", "m.ckpt"))
            )
        case 3:
            (folder / "tokenizer.json").unlink()
        case 4:
            return met(bench, "llama/config.json", "config.json", as_student=False)
        case _:
            return met(
                bench, bench.random.choice(("absent", "llama/absent", "org/model")), "", as_student=False
            )
    return met(bench, "llama", "llama")


def not_a_file(bench: Bench) -> Request:
    """Put a pipe, a device, a folder or a loop of links where a file is needed."""
    folder = bench.take("llama")
    path = folder / bench.random.choice((CONFIG, WEIGHTS, "tokenizer.json", "tokenizer_config.json"))
    path.unlink()
    match bench.random.randrange(4):
        case 0:
            os.mkfifo(path)
        case 1:
            path.symlink_to(bench.random.choice(("/dev/zero", "/dev/stdin", "/proc/self/mem")))
        case 2:
            path.symlink_to(path)
        case _:
            path.mkdir()
    return met(bench, "llama", "llama")


def generation_config(bench: Bench) -> Request:
    """Give generation_config.json what is none."""
    folder = bench.take(bench.random.choice(("llama", "ckpt")), "model")
    name = "generation_config.json"
    values: tuple[dict[str, Any] | str, ...] = (
        "{", "[]", "3", '{"a": 1, "a": 2}', {"max_length": "long"}, {"temperature": "hot"}, {"top_k": []},
        {"eos_token_id": "x"}, {"eos_token_id": [[1]]}, {"eos_token_id": True}, {"do_sample": "yes"},
        {"do_sample": 1}, {"top_p": [0.5]}, {"pad_token_id": "pad"}, '{"bos_token_id": 1e9}',
        {"max_new_tokens": {}},
    )  # fmt: skip
    value = bench.random.choice(values)
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))
    return met(bench, "model", name, as_student=False)


GENERATORS: tuple[Generator, ...] = tuple(
    Generator(f"checkpoint: {name}", classes, make, count)
    for name, classes, make, count in (
        ("wrong value", (31, 32, 33, 45, 46, 47, 54, 87, 103), wrong_value, 260),
        ("wrong layer", (32, 45, 103), wrong_block, 70),
        ("unknown key", (33, 34), unknown_key, 120),
        ("model type", (33,), wrong_type, 26),
        ("code", (34,), code, 24),
        ("heads", (31, 32), heads, 10),
        ("broken config", (30,), broken_json, 200),
        ("broken tokenizer", (56,), partial(broken_json, name="tokenizer.json"), 100),
        ("broken tokenizer config", (56,), partial(broken_json, name="tokenizer_config.json"), 60),
        ("missing file", (27, 28, 29, 35, 55), missing_file, 20),
        ("not a file", (52,), not_a_file, 16),
        ("generation config", (34,), generation_config, 18),
    )
)
