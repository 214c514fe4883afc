"""The built-in corpus: parsed, never imported; in order; only what belongs to Python."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from roots_compress.configs.data import DataConfig
from roots_compress.data.builtin import builtin_documents
from roots_compress.data.builtin_instructions import builtin_instructions
from roots_compress.data.corpora import load_text
from roots_compress.errors import InputError

JSON_SOURCE = '''"""Read and write JSON."""
from pathlib import Path
Path(__file__).with_name("executed").touch()

@decorator
def dumps(obj, *,
          indent=None):
    """Return text.

    More of it.
    """

def undocumented(): pass
\f

if True:
    class Encoder(Base):
        def encode(self):
            "Encode."
'''

JSON_DOCUMENT = """module json

Read and write JSON.

def dumps(obj, *, indent=None):
    Return text.

    More of it.

class Encoder(Base):

    def encode(self):
        Encode."""


@pytest.fixture
def stdlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of the standard library."""
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    return tmp_path


def write(stdlib: Path, name: str, text: str) -> None:
    (stdlib / name).parent.mkdir(exist_ok=True)
    (stdlib / name).write_text(text, encoding="utf-8")


def gathered() -> list[str]:
    return [document.text for document in builtin_documents.__wrapped__()]


def test_a_module_becomes_its_docstrings_and_is_not_executed(stdlib: Path) -> None:
    write(stdlib, "json.py", JSON_SOURCE)
    assert gathered() == [JSON_DOCUMENT]
    assert not (stdlib / "executed").exists()


def test_topics_come_first_and_all_in_the_order_of_names(stdlib: Path) -> None:
    write(stdlib, "pydoc_data/topics.py", "topics = {'with': 'About with.\\n', 'assert': 'About assert.\\n'}")
    write(stdlib, "email/__init__.py", "'''Email.'''")
    write(stdlib, "email/policy.py", "'''Policies.'''")
    write(stdlib, "ast.py", "'''Trees.'''")
    assert gathered() == [
        "About assert.",
        "About with.",
        "module ast\n\nTrees.",
        "module email\n\nEmail.",
        "module email.policy\n\nPolicies.",
    ]


def test_installed_packages_and_tests_are_left_out(stdlib: Path) -> None:
    write(stdlib, "ast.py", "'''Trees.'''")
    write(stdlib, "site-packages/other.py", "'''Not Python's own.'''")
    write(stdlib, "sitecustomize.py", "'''Not Python's own.'''")
    write(stdlib, "test/test_ast.py", "'''A test.'''")
    assert gathered() == ["module ast\n\nTrees."]


def test_a_file_that_does_not_parse_is_passed_over(stdlib: Path) -> None:
    write(stdlib, "ast.py", "'''Trees.'''")
    write(stdlib, "bdb.py", "'''Broken.'''\ndef (")
    assert gathered() == ["module ast\n\nTrees."]


INSTRUCTIONS_SOURCE = f"""'Read and write JSON text.'
class Encoder:
    'Encodes what it is given. More than that.'
    def encode(self, value, *, indent=None):
        'Return the text of a value.\\n\\nAnother paragraph.'
    def _inner(self):
        'Not public, whatever it says of itself.'
def short():
    'Too short.'
def told():
    '{"A sentence of words that goes on. " * 20}'
"""


def test_docstrings_answer_questions_about_what_is_public(stdlib: Path) -> None:
    write(stdlib, "json.py", INSTRUCTIONS_SOURCE)
    write(stdlib, "_private.py", "'Not a module for people to import.'")
    found = [tuple(span.text for span in each.spans) for each in builtin_instructions.__wrapped__()]
    assert found == [
        ("What is the module json for?", "Read and write JSON text."),
        ("What is json.Encoder?", "Encodes what it is given. More than that."),
        ("What does json.Encoder.encode do?", "Return the text of a value."),
        ("How is json.Encoder.encode called?", "encode(self, value, *, indent=None)"),
        ("What does json.told do?", " ".join(["A sentence of words that goes on."] * 9)),
        ("How is json.told called?", "told()"),
    ]


def test_a_python_without_sources_says_what_to_do(stdlib: Path) -> None:
    with pytest.raises(InputError, match=r"data\.train"):
        gathered()


def test_the_real_corpus_has_the_reference_and_the_library() -> None:
    documents = builtin_documents()
    texts = [document.text for document in documents]
    assert sum(len(text.encode()) for text in texts) > 1_000_000
    assert any('The "with" statement' in text for text in texts)
    assert any(text.startswith("module argparse\n\nCommand-line parsing library") for text in texts)
    assert len(set(texts)) == len(texts)


def test_without_paths_the_built_in_corpus_is_split() -> None:
    split = load_text(DataConfig(), seed=0)
    assert len(split.train) > 10 * len(split.held_out) > 0
    assert "of Python 3" in split.description


def test_own_held_out_text_leaves_the_built_in_corpus_whole(tmp_path: Path) -> None:
    whole = load_text(DataConfig(), seed=0)
    (tmp_path / "a.txt").write_text("to judge", encoding="utf-8")
    split = load_text(DataConfig(eval=(tmp_path / "a.txt",)), seed=0)
    assert len(split.train) == len(whole.train) + len(whole.held_out)
