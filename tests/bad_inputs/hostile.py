"""Files that would leave a mark if anything in them ran: pickles, code, templates, tags, formulas, links.

Each maker writes its file so that, were it run, parsed by an unsafe parser or followed, it would create the
file named by `mark`, or change the file `precious`, and returns the commands that meet it.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper

from tests.bad_inputs.cases import ON_TEXT, Bench
from tests.bad_inputs.checkpoints import edit
from tests.bad_inputs.graphs import GRAPH, change, external, relocate
from tests.bad_inputs.materials import RECIPE

MARK = "MARK"
Commands = tuple[tuple[str, ...], ...]
IMPORT: tuple[str, ...] = ("import", "model", "--out", "out")


class Payload:
    """Pickled, it makes the mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return exec, (code(self.mark),)


def code(mark: Path) -> str:
    """Return Python that makes the mark."""
    return f"open({str(mark)!r}, 'a').close()"


def _model(bench: Bench, family: str = "llama") -> Path:
    return bench.take(family, "model")


def _text_verbs(name: str) -> Commands:
    return (
        ("eval", "ckpt", "--data", name, *ON_TEXT[2:]),
        ("quantize", "ckpt", "--data", name, *ON_TEXT[2:]),
    )


def _quantize(bench: Bench) -> tuple[str, ...]:
    """Return a command that quantizes, and times what comes of it no longer than it must."""
    evaluation = {**RECIPE["evaluation"], "repeats": 1}
    bench.write("r.yaml", json.dumps({**RECIPE, "evaluation": evaluation, "stages": RECIPE["stages"][-1:]}))
    return ("run", "r.yaml", "--run", "runs/current")


def _with_checkpoint(bench: Bench) -> Path:
    bench.take("ckpt")
    bench.take("prose")
    return bench.folder


def pickled_weights(bench: Bench, mark: Path, name: str, *, zipped: bool) -> Commands:
    """A pickle under a name of weights, as torch.save writes it or bare."""
    folder = _model(bench)
    path = folder / name
    if (folder / "model.safetensors").exists() and name != "extra.bin":
        (folder / "model.safetensors").unlink()
    if zipped:
        torch.save({"model.norm.weight": Payload(mark)}, path)
    else:
        path.write_bytes(pickle.dumps({"a": Payload(mark)}))
    bench.take("prose")
    return (IMPORT, ("eval", "model", *ON_TEXT))


def remote_code(bench: Bench, mark: Path, name: str, value: dict[str, Any]) -> Commands:
    """Code beside a model, and a configuration that names it."""
    folder = _model(bench)
    for module in (
        "evil",
        "modeling_evil",
        "configuration_evil",
        "tokenization_evil",
        "generate",
        "__init__",
    ):
        (folder / f"{module}.py").write_text(code(mark) + "\nclass Evil:\n    pass\n")
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(code(mark))
    edit(folder, lambda document: document.update(value), name)
    return (IMPORT, ("generate", "model", "-p", "x"))


def template(bench: Bench, mark: Path) -> Commands:
    """A chat template that runs a command where Jinja is not in its sandbox."""
    folder = _model(bench)
    text = "{{ cycler.__init__.__globals__.os.system('touch " + str(mark) + "') }}"
    (folder / "chat_template.jinja").write_text(text)
    edit(folder, lambda document: document.update(chat_template=text), "tokenizer_config.json")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool.jinja").write_text(text)
    messages = json.dumps({"messages": [{"role": "assistant", "content": "Words and words. " * 200}]})
    bench.write("a.jsonl", "\n".join([messages] * 3))
    return (IMPORT, ("eval", "model", "--data", "a.jsonl", *ON_TEXT[2:]))


def yaml_tag(bench: Bench, mark: Path, text: str) -> Commands:
    """A recipe with a Python tag, or a value that a template language would evaluate."""
    _with_checkpoint(bench)
    bench.write("r.yaml", text.replace("CODE", code(mark)).replace("MARK", str(mark)))
    return tuple((verb, "r.yaml") for verb in ("validate", "plan", "run"))


def graph_operator(bench: Bench, mark: Path) -> Commands:
    """A graph with an operator of another library, which lies beside it."""
    folder = bench.take("graph")
    (folder / "libevil.so").write_bytes(b"\x7fELF" + bytes(60))
    (folder / "evil.py").write_text(code(mark))

    def alter(model: onnx.ModelProto) -> None:
        model.graph.node[0].domain, model.graph.node[0].op_type = "evil", "PyOp"
        model.opset_import.append(helper.make_opsetid("evil", 1))
        for key, value in (("ort_config", '{"session_options": {}}'), ("script", code(mark))):
            entry = model.metadata_props.add()
            entry.key, entry.value = key, value

    change(folder, alter)
    return (("generate", "graph", "-p", "x"), ("verify", "graph"))


def graph_data(bench: Bench, _mark: Path, how: str) -> Commands:
    """A graph that would read a file of someone else's, and say of it what it says."""
    folder = external(bench)
    secret = bench.write("precious", bytes(1 << 16))
    if how == "link":
        (folder / "model.onnx.data").unlink()
        (folder / "model.onnx.data").symlink_to(secret)
    else:
        change(folder, lambda model: relocate(model, location=how.replace("HERE", str(bench.folder))))
    return (("generate", "graph", "-p", "x"), ("bench", "graph"), ("verify", "graph"))


def graph_as_pickle(bench: Bench, mark: Path) -> Commands:
    """A pickle for a graph."""
    folder = bench.take("graph")
    (folder / GRAPH).write_bytes(pickle.dumps(Payload(mark)))
    bench.take("prose")
    return (("generate", "graph", "-p", "x"), ("eval", "graph", *ON_TEXT))


def names_in_reports(bench: Bench, _mark: Path, name: str) -> Commands:
    """A run whose names are markup: a script, a link, a terminal's escape."""
    run = bench.take("run")
    document = json.loads((run / "metrics.json").read_text())
    document["name"] = document["stages"][0]["name"] = document["protocol"]["text"] = name
    (run / "metrics.json").write_text(json.dumps(document))
    return (
        ("report", "run"), ("report", "run", "--format", "html"), ("report", "run", "--format", "markdown"),
        ("compare", "run", "run"),
    )  # fmt: skip


def archive(bench: Bench, _mark: Path, kind: str) -> Commands:
    """An archive whose member leaves its folder, offered as text or as a model."""
    _with_checkpoint(bench)
    bench.write("precious", "mine")
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("../precious", "theirs")
            file.writestr("../MARK", "")
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as file:
            for name in ("../precious", "../MARK", "/tmp/MARK"):
                file.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
    path = bench.write(f"a.{kind}", buffer.getvalue())
    bench.write("b.parquet", buffer.getvalue())
    return (*_text_verbs(path.name), *_text_verbs("b.parquet"), ("import", path.name, "--out", "out"))


def arrays(bench: Bench, mark: Path) -> Commands:
    """NumPy arrays of objects, which are pickles, under several names."""
    _with_checkpoint(bench)
    value = np.array([Payload(mark)], dtype=object)
    np.savez(bench.folder / "a.npz", x=value)
    np.save(bench.folder / "a.npy", value)
    folder = _model(bench)
    (folder / "model.safetensors").write_bytes((bench.folder / "a.npy").read_bytes())
    return (*_text_verbs("a.npz"), *_text_verbs("a.npy"), IMPORT)


def formulas(bench: Bench, mark: Path) -> Commands:
    """Tables whose cells are a spreadsheet's formulas, and lines that are Python."""
    _with_checkpoint(bench)
    cell = f"=cmd|' /C touch {mark}'!A0"
    bench.write("a.csv", "text\n" + "\n".join(f'"{cell} and some words, number {i}"' for i in range(200)))
    rows = [{"text": f"__import__('os').system('touch {mark}') {i} {cell}"} for i in range(200)]
    bench.write("a.jsonl", "\n".join(map(json.dumps, rows)))
    return tuple(("eval", "ckpt", "--data", name, *ON_TEXT[2:]) for name in ("a.csv", "a.jsonl"))


def scripts(bench: Bench, mark: Path) -> Commands:
    """Python beside the text and the model, under names that something may import."""
    _with_checkpoint(bench)
    for folder in ("prose", "ckpt", "."):
        for name in ("sitecustomize.py", "torch.py", "conftest.py", "prose.py"):
            bench.write(f"{folder}/{name}", code(mark))
    return (("eval", "ckpt", *ON_TEXT), _quantize(bench), ("doctor",))


def run_state(bench: Bench, mark: Path) -> Commands:
    """Pickles among the saved states of a run that is gone on with."""
    run = bench.take("run", "runs/current")
    bench.take("prose")
    bench.take("ckpt")
    work = run / ".01-distill.partial" / "work" / "step-00000001"
    work.mkdir(parents=True)
    for name in ("state.safetensors", "state.json", "optimizer.pt", "rng_state.pth", "scheduler.pt"):
        (work / name).write_bytes(pickle.dumps(Payload(mark)))
    (run / ".01-distill.partial" / "key.json").write_text("{}")
    return (("distill", "--train-block-size", "32", "--steps", "1"), ("report",))


def linked_run(bench: Bench, _mark: Path) -> Commands:
    """A run whose own files are links to someone else's."""
    precious = bench.write("precious", "mine")
    run = bench.take("run", "runs/current")
    bench.take("ckpt")
    bench.take("prose")
    for name in ("report.html", ".roots-run.owner", "metrics.json", "recipe.yaml", "manifest.json"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(precious)
    (run / ".metrics.json.tmp").symlink_to(precious)
    (run / ".01-quantize.partial").symlink_to(bench.folder)
    return ((*_quantize(bench), "--fresh"),)


def gguf_neighbour(bench: Bench, mark: Path) -> Commands:
    """A sound GGUF file, beside configurations and adapters that name code."""
    folder = bench.folder / "m"
    folder.mkdir()
    bench.take("model.gguf", "m/model.gguf")
    (folder / "config.json").write_text(
        json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}})
    )
    (folder / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "org/evil", "peft_type": "LORA"})
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["evil.Evil", None]}})
    )
    (folder / "evil.py").write_text(code(mark))
    return (("import", "m/model.gguf", "--out", "out"),)


def gguf_template(bench: Bench, mark: Path) -> Commands:
    """A GGUF file whose template runs a command, in place of a value of the same kind."""
    path = bench.take("model.gguf")
    data = path.read_bytes()
    key, value = b"tokenizer.chat_template", ("{{ x.__class__.__mro__[1] }} touch " + str(mark)).encode()
    pair = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    magic, version, tensors, keys = struct.unpack_from("<4sIQQ", data)
    path.write_bytes(struct.pack("<4sIQQ", magic, version, tensors, keys + 1) + pair + data[24:])
    return (("import", "model.gguf", "--out", "out"),)


PICKLES = {
    "pytorch_model.bin": True, "model.pt": True, "model.safetensors": True, "optimizer.pt": True,
    "m.ckpt": False,
    "model.safetensors bare": False, "extra.bin": False,
}  # fmt: skip
CODE: dict[str, tuple[str, dict[str, Any]]] = {
    "auto_map of the config": ("config.json", {"auto_map": {"AutoConfig": "evil.Evil",
    "AutoModelForCausalLM": "evil.Evil"}}),
    "auto_map of the tokenizer": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Evil",
    "evil.Evil"]}}),
    "class of the tokenizer": ("tokenizer_config.json", {"tokenizer_class": "evil.Evil",
    "init_inputs": ["evil"]}),
    "file of the tokenizer": ("tokenizer_config.json", {"tokenizer_file": "../evil.json",
    "fast_tokenizer_files": ["evil"]}),
    "custom_generate": ("generation_config.json", {"custom_generate": "./", "trust_remote_code": True}),
    "kernels": ("config.json", {"_attn_implementation": "evil/kernels", "use_kernels": True}),
    "model type": ("config.json", {"model_type": "evil", "architectures": ["Evil"]}),
}  # fmt: skip
TAGS = {
    "apply": "name: !!python/object/apply:builtins.exec [\"CODE\"]\n",
    "new": "!!python/object/new:builtins.exec [\"CODE\"]\n",
    "module": "name: !!python/module:evil\n",
    "target": "name: x\nmodel: ckpt\n_target_: builtins.exec\nargs: [\"CODE\"]\n",
    "interpolation": "name: x\nmodel: '${oc.env:HOME}/$(touch MARK)'\n",
    "template": "name: \"{{ ''.__class__.__mro__ }}\"\nmodel: ckpt\n",
}  # fmt: skip
NAMES = {
    "script": "<script>document.title='MARK'</script><img src=x onerror=alert(1)>",
    "markdown": "[x](javascript:alert(1)) ![](http://evil/x) `a` | b",
    "escapes": "\x1b]0;MARK\x07\x1b[2J\x9b31m\x1b]8;;http://evil\x07x\r\x08",
    "rich markup": "[red]x[/red][link=http://evil]y[/link]",
    "template": "{{ 7*7 }}{% for i in range(10**9) %}x{% endfor %}",
}


def _hostile() -> dict[str, Callable[[Bench, Path], Commands]]:
    made: dict[str, Callable[[Bench, Path], Commands]] = {}
    for name, zipped in PICKLES.items():
        made[f"pickle as {name}"] = partial(pickled_weights, name=name.split()[0], zipped=zipped)
    for name, (file, value) in CODE.items():
        made[name] = partial(remote_code, name=file, value=value)
    for name, text in TAGS.items():
        made[f"YAML {name}"] = partial(yaml_tag, text=text)
    for name, text in NAMES.items():
        made[f"names: {name}"] = partial(names_in_reports, name=text)
    for how in ("link", "HERE/precious", "../precious", "*/_ORT_MEM_ADDR_/*"):
        made[f"graph data at {how}"] = partial(graph_data, how=how)
    for kind in ("zip", "tar.gz"):
        made[f"archive {kind}"] = partial(archive, kind=kind)
    return {
        **made,
        "scripts": scripts,
        "chat template": template,
        "operator": graph_operator,
        "pickle as a graph": graph_as_pickle,
        "arrays of objects": arrays,
        "formulas": formulas,
        "saved states": run_state,
        "links in a run": linked_run,
        "beside a GGUF file": gguf_neighbour,
        "template in a GGUF file": gguf_template,
    }


HOSTILE = _hostile()
"""Makers of hostile files by name."""
