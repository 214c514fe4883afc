"""Command lines at fault, and folders that a command may not write to."""

from __future__ import annotations

import json
from typing import Any

from tests.bad_inputs.cases import ON_TEXT, Bench, Generator, Request
from tests.tiny import tiny_fields
from tests.verbs import verbs

MODEL_VERBS: tuple[tuple[str, ...], ...] = (
    ("quantize", "ckpt"),
    ("prune", "ckpt"),
    ("distill", "--teacher", "ckpt"),
)


def stage(bench: Bench, *options: str) -> tuple[str, ...]:
    """Return a stage verb on a good model and good text."""
    bench.take("ckpt")
    bench.take("prose")
    verb = bench.random.choice(MODEL_VERBS)
    training = ("--train-block-size", "32", "--steps", "1") if verb[0] == "distill" else ()
    return (*verb, *training, *ON_TEXT, *options)


def unknown_option(bench: Bench) -> Request:
    """Name an option, a verb or an argument that there is not."""
    match bench.random.randrange(3):
        case 0:
            option = bench.random.choice(
                (
                    "--force",
                    "--resume",
                    "--stage",
                    "--trust-remote-code",
                    "--ouput",
                    "-Z",
                    "--int9",
                    "--fresh=3",
                    "--",
                )
            )
            verb = bench.random.choice(verbs())
            if option == "--":
                return Request((verb, "a", "b", "c", "--", "d", "e", "f", "--nope"), "", "")
            return Request((verb, option), option.split("=")[0])
        case 1:
            verb = bench.random.choice(
                ("quantise", "Prune", "", "eval ", "--eval", "help", "\x1b[31m", "x" * 3000)
            )
            return Request((verb,), "")
        case _:
            bench.take("ckpt")
            return Request(("quantize", "ckpt", "extra", "more"), "extra")


VALUES = (
    "-1",
    "0",
    "many",
    "",
    "1.5",
    "1e3",
    "NaN",
    "0x10",
    "9" * 5000,
    "99999999999999999999",
    "True",
    "-0",
    "\u0663",
)
NUMBERS = ("--steps", "--batch-size", "--train-block-size")


def numbers(bench: Bench) -> Request:
    """Give a number that is none, or out of range."""
    options: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("--windows", ("-1", "0", "many", "", "1.5", "NaN")), ("--block-size", ("-1", "0", "7", "129",
        "x", "9" * 5000)),
        ("--threads", ("-1", "0", "1025", "9" * 30, "two")), ("--seed", ("-1", str(2**32), str(2**65),
        "x", "1.5")),
        ("--device", ("tpu", "", "cuda:0")),
    )  # fmt: skip
    name, values = bench.random.choice(options)
    said = {"--block-size": "block", "--windows": "windows"}.get(name, name.strip("-"))
    return Request(stage(bench, name, bench.random.choice(values)), said)


def stage_numbers(bench: Bench) -> Request:
    """Give a stage's own settings out of range, or together where they exclude one another."""
    bench.take("ckpt")
    bench.take("prose")
    distill = ("distill", "--teacher", "ckpt", "--train-block-size", "32")
    options: tuple[tuple[tuple[str, ...], str], ...] = (
        (("prune", "ckpt", "--ratio", bench.random.choice(("1", "1.5", "-0.1", "nan", "inf", "50%"))),
        "ratio"),
        (("prune", "ckpt", "--head-ratio", "1"), "head"), (("prune", "ckpt", "--layer-ratio", "-1"), "layer"),
        (("prune", "ckpt", "--recover", bench.random.choice(("0", "-1", "x"))), "recover"),
        (("prune", "ckpt", "--score", "random"), "score"),
        (("prune", "ckpt", "--target-parameters", bench.random.choice(("0", "1", "2", "nan"))), "parameters"),
        (("prune", "ckpt", "--target-bytes", bench.random.choice(("0", "-1", "x"))), "bytes"),
        (("prune", "ckpt", "--target-parameters", "0.5", "--target-bytes", "9"), "target"),
        (("quantize", "ckpt", "--int8", "--int4"), "already"),
        (("quantize", "ckpt", "--group-size", bench.random.choice(("0", "7", "33", "-32", "x"))), "group"),
        ((*distill, "--steps", bench.random.choice(("0", "-1", "x", "1.5"))), "steps"),
        ((*distill, "--lr", bench.random.choice(("0", "-1", "nan", "inf", "fast"))), "l"),
        ((*distill, "--batch-size", bench.random.choice(("0", "-2", "x"))), "batch"),
        ((*distill, "--temperature", bench.random.choice(("0", "-1", "nan"))), "temperature"),
        ((*distill, "--top-k", bench.random.choice(("0", "-1", "x"))), "top"),
        ((*distill, "--ce-weight", "-1"), "--ce-weight"),
        ((*distill, "--on-policy-ratio", bench.random.choice(("-1", "1.5", "nan"))), "--on-policy-ratio"),
        ((*distill, "--teacher-text-ratio", bench.random.choice(("-1", "1", "nan"))), "--teacher-text-ratio"),
        ((*distill, "--divergence", "hellinger"), "divergence"),
        (("distill", "--teacher", "ckpt", "--train-block-size", bench.random.choice(("0", "7", "129"))),
        "block-size"),
        ((*distill, "--student", bench.random.choice(("smal", "absent", "../absent", "x" * 300, ""))),
        "student"),
    )  # fmt: skip
    arguments, names = bench.random.choice(options)
    return Request((*arguments, *ON_TEXT), names)


def occupied(bench: Bench) -> Request:
    """Name an output that holds something else, which --fresh must not touch either."""
    kind = bench.random.randrange(6)
    fresh = ("--fresh",) if bench.random.random() < 0.5 else ()
    if kind == 0:
        bench.write("out/precious.txt", "mine")
    elif kind == 1:
        bench.write("out", "a file")
    elif kind == 2:
        bench.write(
            "out/.roots-run.json", bench.random.choice(("{", "[]", "3", '{"schema": 99}', '{"a": 1}', ""))
        )
        bench.write("out/precious.txt", "mine")
    elif kind == 3:
        bench.write("below", "a file")
        return Request(stage(bench, "--run", "below/run", *fresh), "below")
    elif kind == 4:
        bench.take("ckpt")
        return Request(stage_on_itself(bench), "ckpt")
    else:
        (bench.folder / "out").symlink_to("out")
        return Request(stage(bench, "--run", "out", *fresh), "out")
    return Request(stage(bench, "--run", "out", *fresh), "out")


def stage_on_itself(bench: Bench) -> tuple[str, ...]:
    """Return a verb whose output is, or lies in, the model it reads."""
    bench.take("prose")
    place = bench.random.choice(("ckpt", "ckpt/", "./ckpt", "ckpt/run", "ckpt/a/../run"))
    verb = bench.random.choice(("quantize", "import", "export"))
    if verb == "quantize":
        return ("quantize", "ckpt", *ON_TEXT, "--run", place)
    return (verb, "ckpt", "--out", place)


def unwritable(bench: Bench) -> Request:
    """Name an output where nothing can be made."""
    bench.take("ckpt")
    bench.take("prose")
    place = bench.random.choice(
        (
            "/proc/roots",
            "/proc/self/roots/deep",
            "/dev/null/x",
            "x" * 300,
            "a/" * 2100 + "b",
            "/sys/roots",
            "\x1b[31m/" + "x" * 300,
        )
    )
    verb = bench.random.choice(("quantize", "import", "export", "init"))
    if verb == "quantize":
        return Request(("quantize", "ckpt", *ON_TEXT, "--run", place), "error")
    if verb == "init":
        return Request(("init", "-o", place + "/r.yaml"), "error")
    return Request((verb, "ckpt", "--out", place), "error")


def odd_paths(bench: Bench) -> Request:
    """Name a model or a folder by a path that is none."""
    path = bench.random.choice(
        ("absent", "-dash", "a\0b", "x" * 4096, "x" * 300, "/dev/null", "/dev/zero", "", ".", "/", "//",
        "~", "\udcff", "a\nb",
         "\x1b[2J", "C:\\model", "hf://org/model", "https://example.org/m", "org/model", "*", "$HOME",
         "%s%n", "/proc/self/mem")
    )  # fmt: skip
    bench.take("prose")
    verbs: tuple[tuple[str, ...], ...] = (
        ("quantize", path, *ON_TEXT), ("import", path, "--out", "out"), ("export", path, "--out", "out"),
        ("eval", path, *ON_TEXT), ("generate", path, "-p", "x"), ("bench", path), ("report", path),
        ("verify", path),
        ("compare", path, path), ("run", path), ("validate", path), ("distill", "--teacher", path, *ON_TEXT),
    )  # fmt: skip
    return Request(bench.random.choice(verbs), "")


def nothing_to_do(bench: Bench) -> Request:
    """Ask to go on from a run that is not there."""
    bench.take("prose")
    commands: tuple[tuple[tuple[str, ...], str], ...] = (
        (("quantize", *ON_TEXT), "checkpoint"), (("prune", *ON_TEXT), "checkpoint"), (("distill",
        *ON_TEXT), "checkpoint"),
        (("export", "--out", "out"), "runs/current"), (("report",), "runs/current"), (("compare", "a",
        "b"), "a"),
        (("report", "--run", "prose"), "prose"), (("verify", "prose"), "prose"), (("compare",), "RUN"),
        (("run",), "RECIPE"),
        (("eval",), "PATH"), (("generate",), "GRAPH"), (("import",), "SRC"), (("import", "prose"), "out"),
        (("verify",), "DIR"),
    )  # fmt: skip
    arguments, names = bench.random.choice(commands)
    return Request(arguments, names)


def other_settings(bench: Bench) -> Request:
    """Go on from a run with settings that are not its own, or from another model."""
    bench.take("run", "runs/current")
    bench.take("prose")
    bench.take("llama")
    commands: tuple[tuple[tuple[str, ...], str], ...] = (
        (("quantize", "--seed", "7"), "seed"), (("quantize", "--block-size", "64"), "--block-size"),
        (("quantize", "llama"), "runs/current"), (("quantize", "--text-column", "body"), "--text-column"),
        (("quantize", "--windows", "9"), "windows"), (("prune", "--device", "cuda"), "device"),
    )  # fmt: skip
    arguments, names = bench.random.choice(commands)
    return Request(arguments, names)


def student_file(bench: Bench) -> Request:
    """Give a student's shape that is none, or one that no machine holds."""
    bench.take("ckpt")
    bench.take("prose")
    config = {"model_type": "roots", **tiny_fields()}
    layer = config["layers"][0]
    changes: tuple[dict[str, Any], ...] = (
        {"layers": []}, {"layers": 3}, {"vocab_size": 301}, {"hidden_size": "32"}, {"hiden_size": 32},
        {"model_type": "llama"},
        {"layers": [{**layer, "head_dim": 7}]}, {"layers": [{**layer, "num_key_value_heads": 3}]},
        {"hidden_size": 2**31},
        {"hidden_size": 10**30}, {"quantization": {"group_size": 32, "formats": {}}},
        {"auto_map": {"a": "b"}},
        {"attribute_map": {"a": "b"}},
    )  # fmt: skip
    bench.write("student.json", json.dumps({**config, **bench.random.choice(changes)}))
    command = (
        "distill",
        "--teacher",
        "ckpt",
        "--student",
        "student.json",
        "--train-block-size",
        "32",
        "--steps",
        "1",
    )
    return Request((*command, *ON_TEXT), "student.json")


def other_tokens(bench: Bench) -> Request:
    """Give a student whose tokenizer means other tokens by the same ids."""
    bench.take("ckpt")
    bench.take("prose")
    student = bench.take("ckpt", "student")
    path = student / "tokenizer.json"
    document = json.loads(path.read_text())
    vocab = document["model"]["vocab"]
    one, other = bench.random.sample(sorted(token for token, number in vocab.items() if number > 2), 2)
    vocab[one], vocab[other] = vocab[other], vocab[one]
    path.write_text(json.dumps(document))
    command = ("distill", "--teacher", "ckpt", "--student", "student", "--train-block-size", "32")
    return Request((*command, *ON_TEXT), "student", "tokenizer")


def student_too_large(bench: Bench) -> Request:
    """Give a student's shape that no machine holds."""
    bench.take("ckpt")
    bench.take("prose")
    config = {"model_type": "roots", **tiny_fields()}
    layer = {**config["layers"][0], bench.random.choice(("intermediate_size", "head_dim")): 2**30}
    bench.write("student.json", json.dumps({**config, "layers": [layer] * bench.random.randrange(4, 99)}))
    command = ("distill", "--teacher", "ckpt", "--student", "student.json", "--train-block-size", "32")
    return Request((*command, *ON_TEXT), "runs/current", "too little")


GENERATORS: tuple[Generator, ...] = tuple(
    Generator(f"command line: {name}", classes, make, count)
    for name, classes, make, count in (
        ("unknown option", (89, 90, 92), unknown_option, 60),
        ("numbers", (93, 94), numbers, 60),
        ("stage numbers", (11, 58, 93), stage_numbers, 90),
        ("occupied output", (25, 91, 92, 98), occupied, 40),
        ("unwritable output", (96, 97), unwritable, 30),
        ("odd paths", (27, 28, 52, 97), odd_paths, 160),
        ("nothing to do", (90,), nothing_to_do, 15),
        ("other settings", (90,), other_settings, 6),
        ("student file", (58, 103), student_file, 16),
        ("student of other tokens", (58, 59), other_tokens, 20),
        ("student too large", (103,), student_too_large, 12),
    )
)
