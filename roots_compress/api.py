"""The Python interface: compress a model, load what came of it, evaluate it.

    from roots_compress import compress, evaluate, load

Settings are those of a recipe, as its own classes or as plain values: `data={"train": ["texts/"]}` is
`DataConfig(train=("texts/",))`. Errors are of `roots_compress.errors`: they say what is wrong, where, and
what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from roots_compress.advice.bounds import Bounds, bounds_of
from roots_compress.advice.compression import MINUTES, carry_out, request
from roots_compress.configs.base import Settings
from roots_compress.configs.data import DataConfig
from roots_compress.configs.evaluate import EvaluationConfig
from roots_compress.configs.recipe.growth import evaluation_request
from roots_compress.configs.recipe.loading import check_paths
from roots_compress.configs.stage import StageSettings
from roots_compress.data.chat.rendering import question
from roots_compress.data.texts import framed_texts
from roots_compress.errors import InputError, Key
from roots_compress.evaluation.single import Evaluation, evaluate_artifact, open_artifact
from roots_compress.events import Events, Sink
from roots_compress.io.hub_cache import on_disk
from roots_compress.pipeline.preflight import prepare_evaluation
from roots_compress.results import RunMetrics
from roots_compress.run.stages import read_stages
from roots_compress.runtime.generate import require_sampling
from roots_compress.runtime.text import load_wishes, require_text, stream_text
from roots_compress.system.memory import memory_errors
from roots_compress.system.threads import threads_or_default
from roots_compress.tasks.base import Task

Group = Settings | Mapping[str, Any]
"""Settings of a recipe: its own class, or keys and values."""
BATCH = 8


@dataclass(frozen=True)
class Compressed:
    """What a compression came to."""

    folder: Path
    """Of the run: checkpoints, graphs, figures, report."""
    metrics: RunMetrics
    """Every figure, as `metrics.json` holds them."""
    explanation: tuple[str, ...]
    """What was tried, what was chosen and why, in sentences."""

    @property
    def kept(self) -> bool:
        """Whether every bound is kept."""
        return all(gate.passed for gate in self.metrics.gates)

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that was chosen."""
        return read_stages(self.folder)[0][-1].checkpoint

    @property
    def graph(self) -> Path:
        """The folder of its ONNX graph, with the tokenizer."""
        return read_stages(self.folder)[0][-1].onnx

    @property
    def recipe(self) -> Path:
        """The recipe that repeats it."""
        return self.folder / "recipe.yaml"

    @property
    def report(self) -> Path:
        """The page with the figures."""
        return self.folder / "report.html"


def compress(
    model: str | Path,
    *,
    max_mb: float | None = None,
    min_speedup: float | None = None,
    max_loss: float | None = None,
    stages: Sequence[StageSettings | Mapping[str, Any]] = (),
    data: DataConfig | Mapping[str, Any] | None = None,
    evaluation: EvaluationConfig | Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    run: str | Path | None = None,
    max_minutes: float = MINUTES,
    fresh: bool = False,
    on_event: Sink | None = None,
) -> Compressed:
    """Compress a model within bounds: try what is expected to lose least first, and keep the first that fits.

    Where nothing keeps the bounds, the nearest is kept, and `kept` of the result is False. The same call goes
    on where it was stopped.

    Args:
        model: a folder of Hugging Face or of this program, or a GGUF file.
        max_mb: the largest graph, in millions of bytes.
        min_speedup: the least gain over the model as it is, in its task's last workload.
        max_loss: by how much quality may be worse: 0.05 is 5% of a perplexity, or 0.05 of an accuracy.
        stages: a chain to carry out, as under `stages` in a recipe, in place of trying candidates. Bounds are
            then its gates, and may be left out.
        data: the text, as under `data` in a recipe; without it the built-in corpus.
        evaluation: how every stage is measured, as under `evaluation` in a recipe.
        seed: fixes every random choice.
        device: `auto`, `cpu` or `cuda`.
        run: the run's folder; by default `runs/` and the model's name.
        max_minutes: after so many no further candidate is begun.
        fresh: delete the run that is in the folder first.
        on_event: called with each event (`roots_compress.events`): how far the work is, and every figure.

    Raises:
        InputError: a bound, a setting or the model cannot be.
        StageError: the model as it is cannot be made or measured.
    """
    given = (max_mb, min_speedup, max_loss)
    bounds = Bounds()
    if not stages or given != (None, None, None):
        bounds = bounds_of(max_mb=max_mb, min_speedup=min_speedup, max_loss=max_loss)
    settings = _settings(data=data, evaluation=evaluation) | {"seed": seed, "device": device}
    folder = None if run is None else Path(run)
    with memory_errors():
        asked = request(
            on_disk(Path(model)),
            bounds,
            settings,
            stages=stages,
            folder=folder,
            minutes=max_minutes,
            fresh=fresh,
        )
        events = Events() if on_event is None else Events(on_event)
        metrics, sentences = carry_out(asked, fresh=fresh, events=events)
    return Compressed(asked.folder.absolute(), metrics, tuple(sentences))


def evaluate(
    path: str | Path,
    *,
    data: DataConfig | Mapping[str, Any] | None = None,
    evaluation: EvaluationConfig | Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Evaluation:
    """Measure the quality of a checkpoint or a graph by its task's metrics.

    Args:
        path: a folder with an ONNX graph, a stage of a run (its graph is taken), or a checkpoint.
        data: the text, as under `data` in a recipe.
        evaluation: windows and threads, as under `evaluation` in a recipe.
        seed: draws the held-out documents, where no files are.

    Returns:
        the task, its figures by name, and the protocol by which they were measured.

    Raises:
        InputError: the path is neither, or the text does not suit it.
    """
    path = on_disk(Path(path))
    recipe = evaluation_request(_settings(data=data, evaluation=evaluation) | {"seed": seed}, path)
    recipe = recipe.from_folder(Path.cwd())
    check_paths(recipe)
    split = prepare_evaluation(recipe)
    return evaluate_artifact(path, split, recipe.evaluation, recipe.data.records)


class Model:
    """A checkpoint or a graph, opened: it writes text or encodes texts, as its task is.

    Attributes:
        task: what it is for.
        tokenizer: its tokenizer.
        engine: what runs it, on tokens: an engine of `roots_compress.runtime`.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        self.path = path
        opened = open_artifact(path, threads_or_default(threads))
        self.task: Task[Any] = opened.task
        self.engine: Any = opened.engine
        self.tokenizer: PreTrainedTokenizerFast = opened.tokenizer

    def stream(
        self,
        prompt: str,
        *,
        chat: bool = False,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> Iterator[str]:
        """Yield the text that goes on from a prompt, or answers it, piece by piece.

        Args:
            prompt: the text.
            chat: ask it in the tokenizer's chat template.
            max_new_tokens: the most to add; if there is room 64, or what an encoder-decoder's files ask.
            temperature: 0 takes the likeliest token each time.
            top_k: sample among so many likeliest tokens.
            top_p: sample within this probability mass.
            seed: of the sampling.

        Raises:
            InputError: the model writes no text, or a setting is out of range.
        """
        if not self.task.writes:
            raise InputError(
                f"models for {self.task.name} write no text", where=self.path, remedy="Use encode."
            )
        require_sampling(temperature, top_k=top_k, top_p=top_p)
        wishes = load_wishes(self.path, self.tokenizer, self.engine.vocab_size)
        return stream_text(
            self.engine,
            self.tokenizer,
            question(prompt, self.tokenizer) if chat else prompt,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            stop_tokens=wishes.stop_tokens,
            settings=wishes.settings,
            beams=None if temperature else wishes.beams,
            answer_tokens=wishes.answer_tokens,
            seed=seed,
        )

    def generate(self, prompt: str, **settings: Any) -> str:
        """Return the whole text; settings and errors are those of `stream`."""
        return "".join(self.stream(prompt, **settings))

    def encode(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Return what an encoder makes of texts: embeddings `(N, W)`, or logits of labels `(N, L)`.

        Of a masked language model they are logits of tokens, `(N, T, V)`, and where tokens have labels
        `(N, T, L)`, 0 behind the end of a text. A text longer than the model reads is cut.

        Raises:
            InputError: the model writes text instead, or there is no text.
        """
        if self.task.writes:
            raise InputError(
                f"models for {self.task.name} write text", where=self.path, remedy="Use generate."
            )
        is_one = isinstance(texts, str)
        texts = [] if is_one else list(texts)
        if not texts:
            fault = "one text was given, and not a list of them" if is_one else "there is no text to encode"
            raise InputError(fault, remedy="Give a list of one text or more.")
        for text in texts:
            require_text(text)
        rows = framed_texts(texts, self.tokenizer, self.engine.max_context, key=Key("max_context"))
        longest = max(map(len, rows))
        made: list[NDArray[np.float32]] = []
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            ids_BT = np.zeros((len(batch), longest), dtype=np.int64)
            mask_BT = np.zeros_like(ids_BT)
            for index, row in enumerate(batch):
                ids_BT[index, : len(row)], mask_BT[index, : len(row)] = row, 1
            found = self.engine.encode(ids_BT, mask_BT)
            made.append(np.where(mask_BT[..., None] > 0, found, 0) if found.ndim == 3 else found)
        return np.concatenate(made)


def load(path: str | Path, *, threads: int | None = None) -> Model:
    """Open a checkpoint, a graph's folder or a stage of a run (its graph), to write text or encode texts.

    Args:
        path: the folder, or a GGUF file.
        threads: of the graph; by default the physical cores that can be used.

    Raises:
        InputError: it is none of these, or is damaged; or threads are out of range.
    """
    return Model(on_disk(Path(path)), threads=threads)


def _settings(**groups: Group | None) -> dict[str, Any]:
    """Return groups of settings in a recipe's form; those that were not given are left out.

    Raises:
        InputError: a group is neither.
    """
    settings: dict[str, Any] = {}
    for name, group in groups.items():
        if isinstance(group, Settings):
            settings[name] = group.model_dump(mode="json", exclude_unset=True)
        elif isinstance(group, Mapping):
            settings[name] = dict(group)
        elif group is not None:
            raise InputError(
                f"is {group!r:.60}, which is no group of settings",
                where=name,
                remedy=f"Give its keys and values: {name}={{...}}",
            )
    return settings
