"""Skills: the likelihood of texts against a direct computation, and the checks of held-out text."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from roots_compress.configs.export import ExportConfig
from roots_compress.data.documents import Document
from roots_compress.evaluation.skills.builtin import CHOICES, choice_items, cloze_items
from roots_compress.evaluation.skills.subject import Asked, Subject
from roots_compress.export.exporter import export_checkpoint
from roots_compress.runtime.torch_engine import TorchEngine
from roots_compress.tasks.registry import CAUSAL_LM
from tests.tasks.commands import roots
from tests.tiny import tiny_checkpoint

WORDS = ["one", "model", "reads", "the", "text", "after", "another", "and", "says", "what", "comes", "next"]
TEXTS = [
    " ".join(WORDS[(7 * number + index * (number + 1)) % len(WORDS)] for index in range(120)) + " again."
    for number in range(6)
]
DOCUMENTS = [Document.plain(text) for text in TEXTS]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("skills")
    export_checkpoint(tiny_checkpoint(max_position_embeddings=256), folder / "graph", ExportConfig())
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(text)
    return folder / "graph"


def direct(model: torch.nn.Module, asked: Asked) -> tuple[float, bool]:
    ids = torch.tensor([[*asked.context, *asked.continuation]])
    with torch.no_grad():
        logits = model(ids).logits[0, len(asked.context) - 1 : -1].double()
    targets = torch.tensor(asked.continuation)
    found = F.log_softmax(logits, -1).gather(1, targets[:, None]).sum()
    return float(found), bool((logits.argmax(-1) == targets).all())


def test_a_continuation_is_as_likely_as_its_tokens_together() -> None:
    checkpoint = tiny_checkpoint()
    subject = Subject(CAUSAL_LM, TorchEngine(checkpoint.model), checkpoint.tokenizer, ())  # type: ignore[arg-type]
    asked = [
        subject.asked(*each) for each in (("The quick ", "fox"), ("", "A model reads"), ("x", " y" * 30))
    ]
    assert asked[0].context == subject.prompt("The quick")
    assert subject.tokenizer.decode(asked[0].continuation) == " fox"
    assert asked[1].context == [0]
    likeliest = subject.written("A model", stops=["\n"], max_new_tokens=3)
    asked.append(Asked(subject.prompt("A model"), []))
    with torch.no_grad():
        ids = torch.tensor([asked[-1].context])
        asked[-1].continuation.append(int(checkpoint.model(ids).logits[0, -1].argmax()))
    found = subject.likelihoods(asked)
    for likelihood, each in zip(found, asked, strict=True):
        expected, greedy = direct(checkpoint.model, each)
        assert likelihood.log_probability == pytest.approx(expected, rel=1e-5)
        assert likelihood.is_greedy == greedy
    assert found[-1].is_greedy
    assert likeliest.startswith(str(subject.tokenizer.decode(asked[-1].continuation)))


def test_checks_are_made_of_the_held_out_text() -> None:
    items = cloze_items(DOCUMENTS, seed=0)
    assert [item.continuations for item in items] == [(" again",)] * len(TEXTS)
    assert all((item.context + " again.") in text for item, text in zip(items, TEXTS, strict=True))
    items = choice_items(DOCUMENTS, seed=0)
    assert items == choice_items(DOCUMENTS, seed=0) != choice_items(DOCUMENTS, seed=1)
    for item in items:
        true, *others = item.continuations
        home = next(text for text in TEXTS if item.context + true in text)
        assert len(others) == CHOICES - 1
        assert not any(item.context + other in home for other in others)


def test_a_graph_s_skills_are_shown_and_others_refused(graph: Path, tmp_path: Path) -> None:
    text: list[str | Path] = ["--eval-data", graph.parent]
    shown = roots("eval", graph, "--tasks", "cloze,choice", *text)
    assert re.search(r"cloze . accuracy . [01]\.\d{4} . [01]\.\d{4} . 6 .*choice . accuracy", shown), shown
    if find_spec("lm_eval") is None:
        refused = roots("eval", graph, "--tasks", "cloze,hellaswag", *text, code=2)
        assert "unknown task: hellaswag; lm-eval, which has many tasks, is not installed" in refused
    refused = roots("eval", graph, "--tasks", "cloze", "--chat", *text, code=2)
    assert "--chat: cloze: the model continues plain text there" in refused
    refused = roots("eval", graph, "--chat", *text, code=2)
    assert "--chat: is about the questions of tasks, and no task is named" in refused
    short = tmp_path / "short.txt"
    short.write_text("A few words. " * 20)
    refused = roots("eval", graph, "--tasks", "choice", "--eval-data", short, code=2)
    assert "the held-out text is too short for choice" in refused
