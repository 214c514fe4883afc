"""The verb `generate`: its text on pipes and terminals, its threads, its prompt, and how a graph is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from roots_compress.checkpoints.checkpoint import save_checkpoint
from roots_compress.checkpoints.tokenizer import save_tokenizer
from roots_compress.cli.app import app
from roots_compress.cli.display import console
from roots_compress.configs.export import ExportConfig
from roots_compress.export.exporter import export_checkpoint, write_graph
from roots_compress.models.config import RootsConfig
from roots_compress.models.encoders import make_model
from tests.cli.shells import ROOT, shell
from tests.faults.commands import Commands
from tests.specs import seq2seq
from tests.tiny import randomise, tiny_checkpoint, tiny_tokenizer

C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""Python decodes arguments as ASCII here, and keeps other bytes as they are."""
SCRIPTS = (
    "5\u00a0km, 3\u3000日, 👩\u200d🔧, می\u200cرود, so\u00adft, thin\u2009space, "
    "\ufeff\u2028\ue000\u200f\u2066x\u2069"
)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generate")
    save_checkpoint(tiny_checkpoint(), folder / "checkpoint")
    export_checkpoint(tiny_checkpoint(), folder / "graph", ExportConfig())
    return folder / "graph"


def generate(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["generate", *map(str, arguments)])
    return result.exit_code, result.output


def test_a_pipe_carries_prompt_and_text_as_they_are(graph: Path, tmp_path: Path) -> None:
    prompt = f"{SCRIPTS}\r\n\x1b[31mred\x07"
    ended = shell(
        '$ROOTS generate "$GRAPH" -p "$PROMPT" --max-new-tokens 1', tmp_path, GRAPH=str(graph), PROMPT=prompt
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(prompt)


def test_a_terminal_gets_no_control_character(graph: Path, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "roots_compress", "generate", str(graph), "--max-new-tokens", "1"]
    with subprocess.Popen(
        [*command, "-p", f"{SCRIPTS} \x1b[31mred\x07"],
        stdout=theirs,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
    ):
        os.close(theirs)
        written = b""
        try:
            while piece := os.read(ours, 4096):
                written += piece
        except OSError:  # how a terminal says that its other end is gone
            pass
    os.close(ours)
    assert f"{SCRIPTS} \ufffd[31mred\ufffd" in written.decode()


def test_a_line_ends_as_it_should_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Terminal:
        write = written.append

        def isatty(self) -> bool:
            return True

        def flush(self) -> None: ...

    monkeypatch.setattr(sys, "stdout", Terminal())
    console.write_pieces(["one\r", "\ntwo\r\nthree\r", "four\r"])
    assert "".join(written) == "one\ntwo\nthree\ufffdfour\ufffd"


def test_a_prompt_of_utf8_is_read_in_the_c_locale_and_what_that_lacks_is_escaped(
    graph: Path, tmp_path: Path
) -> None:
    line = f"$ROOTS generate {graph} -p '日本 é' --max-new-tokens 4"
    ended = shell(line, tmp_path, **C_LOCALE, PYTHONIOENCODING="ascii")
    assert ended.returncode == 0, ended.stderr
    _, written = generate(graph, "-p", "日本 é", "--max-new-tokens", "4")
    assert ended.stdout == written.encode("ascii", "backslashreplace").decode()
    assert ended.stdout.startswith("\\u65e5\\u672c \\xe9")
    ended = shell(f"$ROOTS generate {graph} -p $'\\xff'", tmp_path, **C_LOCALE)
    assert ended.returncode == 2
    assert "--prompt: is not UTF-8 text" in ended.stderr


def test_threads_default_to_the_cores_this_process_may_use(
    graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from roots_compress.runtime.onnx import engine as onnx_engine
    from roots_compress.runtime.onnx import session
    from roots_compress.system import threads

    opened: list[int | None] = []

    def open_with_one(
        path: Path, *, threads: int | None, provider: session.Provider, spinning: bool = False
    ) -> Any:
        opened.append(threads)
        return session.open_session(path, threads=1, provider=provider, spinning=spinning)

    monkeypatch.setattr(threads, "default_threads", lambda: 3)
    monkeypatch.setattr(onnx_engine, "open_session", open_with_one)
    assert generate(graph, "-p", "a", "--max-new-tokens", "1")[0] == 0
    assert generate(graph, "-p", "a", "--max-new-tokens", "1", "--threads", "2")[0] == 0
    assert opened == [3, 2]


def test_a_graphs_own_file_may_be_named(graph: Path) -> None:
    assert generate(graph / "model.onnx", "-p", "The") == generate(graph, "-p", "The")
    assert generate(graph, "-p", "The")[0] == 0


def test_a_checkpoint_is_not_taken_for_a_missing_graph(graph: Path, tmp_path: Path) -> None:
    for verb in (["generate", "-p", "a"], ["bench"]):
        checkpoint = graph.parent / "checkpoint"
        result = CliRunner().invoke(app, [*verb, str(checkpoint)])
        assert result.exit_code == 2
        assert "the folder holds no model.onnx" in result.output
        assert f"roots-compress export {checkpoint} --out GRAPH" in result.output
        gguf = tmp_path / "a model.gguf"
        gguf.write_bytes(b"GGUF")
        result = CliRunner().invoke(app, [*verb, str(gguf)])
        assert "is a checkpoint, not a graph" in result.output
        assert f"roots-compress export '{gguf}' --out GRAPH" in result.output
        result = CliRunner().invoke(app, [*verb, str(tmp_path / "nowhere")])
        assert "there is no such folder" in result.output
        result = CliRunner().invoke(app, [*verb, __file__])
        assert "is not a graph" in result.output


def test_what_only_other_runtimes_do_is_said(graph: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(graph, tmp_path / "guided")
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "guidance_scale": 4}))
    result = CliRunner().invoke(app, ["generate", str(folder), "-p", "The", "--max-new-tokens", "2"])
    assert result.exit_code == 0
    assert "generation_config.json asks for guidance_scale: 4" in result.stderr
    path.write_text(json.dumps({"repetition_penalty": "high"}))
    code, output = generate(folder, "-p", "The")
    assert code == 2
    assert "repetition_penalty is 'high'" in output


def test_without_a_number_the_text_ends_where_the_context_does(graph: Path) -> None:
    code, output = generate(graph, "-p", "a b " * 30)
    assert code == 0, output
    code, output = generate(graph, "-p", "a b " * 30, "--max-new-tokens", "64")
    assert code == 2
    assert "more than the model's 128" in output


def test_nothing_is_said_of_a_cleanup_that_is_not_done(
    graph: Path, tmp_path: Path, commands: Commands
) -> None:
    folder = shutil.copytree(graph, tmp_path / "cleaning")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "clean_up_tokenization_spaces": True}))
    arguments: list[str | Path] = [folder, "-p", "a .", "--max-new-tokens", "2"]
    assert commands.run("generate", *arguments).code == 0
    assert commands.said() == generate(*arguments)[1]


def test_the_module_is_the_command(tmp_path: Path) -> None:
    assert shell("$ROOTS --version", tmp_path).stdout.strip()[0].isdigit()


def test_an_encoder_decoder_answers_the_prompt(tmp_path: Path) -> None:
    tokenizer, folder = tiny_tokenizer(), tmp_path / "onnx"
    folder.mkdir()
    model = make_model(RootsConfig(spec=seq2seq(), pad_token_id=2, eos_token_id=1)).eval()
    randomise(model)
    write_graph(model, folder)
    save_tokenizer(tokenizer, folder)
    theirs: Any = model
    source = torch.tensor([[*tokenizer.encode("The quick", add_special_tokens=False), 1]])
    for option, beams in (("1", 1), ("3", 3)):
        ids = theirs.generate(source, max_new_tokens=9, do_sample=False, num_beams=beams, length_penalty=0.5)
        answer = tokenizer.decode(ids[0], skip_special_tokens=True)
        for named in (tmp_path, folder / "encoder_model.onnx"):
            penalty = ("--length-penalty", "0.5") if beams > 1 else ()
            given = ("-p", "The quick", "--max-new-tokens", "9", "--beams", option, *penalty)
            assert generate(named, *given) == (0, f"{answer}\n")
    assert generate(folder, "-p", "The quick", "--length-penalty", "2")[0] == 2
    assert generate(folder, "-p", "The quick", "--beams", "2", "--length-penalty", "nan")[0] == 2
