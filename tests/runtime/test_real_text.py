"""SmolLM2-135M-Instruct writes with the exported graph what it writes under transformers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.checkpoints.write_back import write_back
from tests.runtime.transformers_text import Ours, Theirs

pytestmark = [pytest.mark.real_model, pytest.mark.slow]
NEW = 32
PLAIN = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    ",
    "1. Wash the rice.\n2.",
    "Der Himmel ist",
    "日本の首都は",
    "سلام، حال شما",
    "Water boils at 100\u00a0°C, and",
    "{\n  \"name\": \"Ada\",\n  \"age\":",
    "To be, or not to be,",
    "  two spaces  and\ttabs\r\nand then",
    "👩‍🔧 is a",
]  # fmt: skip
QUESTIONS = [
    "What is the capital of Italy?",
    "Write a haiku about rain.",
    "How do I reverse a list in Python?",
    "Translate 'good morning' to French.",
    "List three fruits.",
    "¿Qué es la fotosíntesis?",
    "What is 12 times 12?",
    "Say hello 👋🏽 in Japanese.",
]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ours, Theirs]:
    path = os.environ.get("ROOTS_SMOLLM2")
    if not path:
        pytest.skip("ROOTS_SMOLLM2 does not name the GGUF file")
    folder = tmp_path_factory.mktemp("smollm2")
    checkpoint = load_checkpoint(Path(path))
    write_back(checkpoint, "llama", folder / "theirs")
    return Ours(checkpoint, folder / "ours"), Theirs(folder / "theirs")


@pytest.mark.parametrize("prompt", PLAIN)
def test_plain_text_equals_transformers(prompt: str, both: tuple[Ours, Theirs]) -> None:
    ours, theirs = both
    assert ours.text(prompt, NEW) == theirs.text(prompt, NEW)


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_answer_equals_transformers(question: str, both: tuple[Ours, Theirs]) -> None:
    ours, theirs = both
    prompt = theirs.tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    assert prompt.startswith("<|im_start|>")
    assert ours.text(prompt, NEW) == theirs.text(prompt, NEW)
