"""A model that reads whole texts at once, as tasks use it, and its graph behind ONNX Runtime.

Shape legend: B batch, T tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from roots_compress.errors import InputError
from roots_compress.runtime.onnx.graph_config import EXPORT_AGAIN, read_config, spec_of_graph
from roots_compress.runtime.onnx.session import Provider, open_session, run_session
from roots_compress.runtime.prompts import check_ids
from roots_compress.runtime.protocol import Served, Tokens

if TYPE_CHECKING:
    from roots_compress.models.spec import ModelSpec

TOKEN_TYPES: Final = "token_type_ids"
ENCODER_INPUTS: Final = ("input_ids", "attention_mask", TOKEN_TYPES)


def encoder_inputs(spec: ModelSpec) -> dict[str, dict[int, str]]:
    """Return the inputs of an encoder's graph and their dynamic axes; token types only where they differ."""
    differ = (spec.embeddings.token_types or 1) > 1
    names = ENCODER_INPUTS if differ else ENCODER_INPUTS[:2]
    return {name: {0: "batch_size", 1: "sequence_length"} for name in names}


class Encoder(Served, Protocol):
    """A model without a cache."""

    def encode(
        self, input_ids: Tokens, attention_mask: Tokens | None = None, token_types: Tokens | None = None
    ) -> NDArray[np.float32]:
        """Return what the model makes of texts, one row each.

        Args:
            input_ids: `(B, T)`, padded on the right.
            attention_mask: `(B, T)`, 0 at padding; None where nothing is padded.
            token_types: `(B, T)`, 1 in the second text of a pair; None where all are 0.

        Raises:
            InputError: there are more tokens than the model reads, or an id that it does not know.
        """
        ...

    def spec(self) -> ModelSpec:
        """Return the model's specification.

        Raises:
            InputError: the config.json beside a graph holds none.
        """
        ...


class OnnxEncoder:
    """Serves one output of an encoder's graph."""

    def __init__(self, session: Any, output: str, vocab_size: int, max_context: int, graph: Path) -> None:
        self._session, self._output, self._graph = session, output, graph
        self._takes_types = any(value.name == TOKEN_TYPES for value in session.get_inputs())
        self.vocab_size, self.max_context = vocab_size, max_context

    @classmethod
    def open(
        cls, graph: Path, output: str, *, threads: int | None = None, provider: Provider = "auto"
    ) -> OnnxEncoder:
        """Open a graph whose files have been checked by `graph_files`.

        Raises:
            InputError: the graph is not an encoder with this output, or this machine lacks the provider.
        """
        vocab_size, max_context = read_config(graph)
        session = open_session(graph, threads=threads, provider=provider)
        inputs = {value.name for value in session.get_inputs()}
        outputs = {value.name for value in session.get_outputs()}
        if inputs not in (set(ENCODER_INPUTS), set(ENCODER_INPUTS[:2])) or output not in outputs:
            raise InputError(
                f"the graph's inputs {', '.join(sorted(inputs))[:200]} and outputs "
                f"{', '.join(sorted(outputs))[:200]} are not an encoder's: "
                f"{', '.join(ENCODER_INPUTS)}; {output}",
                where=graph,
                remedy=EXPORT_AGAIN,
            )
        return cls(session, output, vocab_size, max_context, graph)

    def encode(
        self, input_ids: Tokens, attention_mask: Tokens | None = None, token_types: Tokens | None = None
    ) -> NDArray[np.float32]:
        """Return the output; see `Encoder.encode`."""
        check_texts(self, input_ids)
        mask = np.ones_like(input_ids) if attention_mask is None else attention_mask
        feeds = {"input_ids": input_ids, "attention_mask": mask}
        if self._takes_types:
            feeds[TOKEN_TYPES] = np.zeros_like(input_ids) if token_types is None else token_types
        found: NDArray[np.float32] = run_session(self._session, self._output, feeds, self._graph)
        return found

    def spec(self) -> ModelSpec:
        """Return what the config.json beside the graph holds; see `Encoder.spec`."""
        return spec_of_graph(self._graph)


def check_texts(engine: Served, input_ids: Tokens) -> None:
    """Refuse texts that a model cannot read.

    Raises:
        InputError: there are more tokens than the model reads, or an id that it does not know.
    """
    tokens = input_ids.shape[1]
    if tokens > engine.max_context:
        raise InputError(
            f"a text of {tokens} tokens is longer than the model's {engine.max_context}",
            remedy="Shorten the text.",
        )
    check_ids(engine, input_ids)
