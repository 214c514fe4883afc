"""Built-in instructions: questions about Python's standard library, answered by its own docstrings.

"What does textwrap.dedent do?" is answered by the first sentences of its docstring, and "How is
textwrap.dedent called?" by its parameters. Nothing is imported or executed.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from platform import python_version

from roots_compress.data.builtin import SENTENCE_END, Documented, definitions, documented_modules
from roots_compress.data.documents import ASSISTANT, USER, Document, Span
from roots_compress.data.fingerprint import without_repeats

DESCRIPTION = f"questions about the standard library of Python {python_version()}, answered by its docstrings"
LEAST_ANSWER, MOST_ANSWER = 20, 320
"""Characters of an answer."""


@functools.cache
def builtin_instructions() -> tuple[Document, ...]:
    """Return a question and its answer for each public module, class and function that has a docstring.

    The same Python gives the same documents, in the order of the modules' names.
    """
    return without_repeats(
        Document((Span(question, False, USER), Span(answer, True, ASSISTANT)))
        for name, tree in documented_modules()
        for question, answer in _questions(name, tree)
    )


def _questions(name: str, node: Documented) -> Iterator[tuple[str, str]]:
    """Yield the questions about a definition and what is defined in it, each with its answer."""
    if any(part.startswith("_") for part in name.split(".")):
        return
    answer = _first_sentences(ast.get_docstring(node) or "")
    if answer is not None:
        match node:
            case ast.Module():
                yield f"What is the module {name} for?", answer
            case ast.ClassDef():
                yield f"What is {name}?", answer
            case _:
                yield f"What does {name} do?", answer
                yield f"How is {name} called?", f"{name.split('.')[-1]}({ast.unparse(node.args)})"
    if isinstance(node, ast.Module | ast.ClassDef):
        for definition in definitions(node.body):
            yield from _questions(f"{name}.{definition.name}", definition)


def _first_sentences(docstring: str) -> str | None:
    """Return whole sentences of a docstring's first paragraph; None where they are no answer."""
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    answer = ""
    for sentence in SENTENCE_END.split(paragraph):
        longer = f"{answer} {sentence}".strip()
        if len(longer) > MOST_ANSWER:
            break
        answer = longer
    return answer if len(answer) >= LEAST_ANSWER else None
