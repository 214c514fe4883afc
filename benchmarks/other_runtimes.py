"""Load an exported folder in other runtimes, and hold their tokens against this project's engine.

    python -m benchmarks.other_runtimes FOLDER [--tokens 32] [--environments DIR]

Builds an environment with optimum-onnx and one with onnxruntime-genai (kept and used again). In each the
folder is loaded as it is, without this package, and several prompts are gone on from: one by one, and as a
batch of different lengths. An encoder-decoder answers them, in optimum alone, and by a search with beams too.
Exit code 1: a runtime refused the folder, or gave other tokens.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.peers.environments import (
    ENVIRONMENTS,
    PeerError,
    peer_variables,
    prepare_environment,
)
from roots_compress.errors import InputError, RootsError
from roots_compress.runtime.beams import Beams, beam_search
from roots_compress.runtime.generate import generate as generated
from roots_compress.runtime.onnx.engine import OnnxEngine
from roots_compress.runtime.onnx.graph_folder import find_graph, graph_files
from roots_compress.runtime.onnx.seq2seq import OnnxSeq2Seq
from roots_compress.runtime.onnx.seq2seq_graph import DECODER_GRAPH
from roots_compress.runtime.onnx.session import NO_FLASH_ATTENTION

SCRIPTS = {"optimum-onnx": "generate_optimum.py", "onnxruntime-genai": "generate_genai.py"}
SEQ2SEQ_SCRIPTS = {"optimum-onnx": "generate_optimum_seq2seq.py"}
DEFAULT_FOLDER = Path.home() / ".cache" / "roots-compress" / "peers" / "environments"
PROMPT_LENGTHS = (7, 3, 12)

Tokens = list[list[int]]


def prompts_for(vocab_size: int) -> Tokens:
    """Return random prompts of different lengths, without the low ids that special tokens usually have."""
    random = np.random.default_rng(0)
    return [random.integers(vocab_size // 4, vocab_size, size=length).tolist() for length in PROMPT_LENGTHS]


def greedy(engine: OnnxEngine, prompt: list[int], count: int, stops: set[int]) -> list[int]:
    """Return up to `count` tokens, the last a stop token where one came."""
    step = engine.prefill(np.array([prompt]))
    tokens = [int(step.logits[0].argmax())]
    while len(tokens) < count and tokens[-1] not in stops:
        step = engine.decode(np.array(tokens[-1:]), step.cache)
        tokens.append(int(step.logits[0].argmax()))
    return tokens


def answers(engine: OnnxSeq2Seq, sources: Tokens, count: int, stops: set[int]) -> dict[str, Tokens]:
    """Return what is generated for each source: the likeliest token each time, and by four beams."""
    read = [engine.read(np.array([source])) for source in sources]
    steps = [generated(each, [[engine.start]], max_new_tokens=count, stop_tokens=stops) for each in read]
    alone = [[token for (token,) in each if token is not None] for each in steps]
    found = [
        beam_search(each, [engine.start], Beams(4), max_new_tokens=count, stop_tokens=stops) for each in read
    ]
    return {"single": alone, "batch": alone, "beams": found}


def stop_tokens(folder: Path) -> set[int]:
    """Return the tokens at which the other runtimes stop, from `generation_config.json`."""
    path = folder / "generation_config.json"
    stops = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.exists() else None
    return set() if stops is None else {stops} if isinstance(stops, int) else set(stops)


def generate(
    name: str, script: str, folder: Path, prompts: Tokens, count: int, environments: Path
) -> dict[str, Tokens]:
    """Return a runtime's tokens by how they were generated: `single`, `batch`.

    Raises:
        PeerError: its environment cannot be made, or it refuses the folder.
    """
    python = prepare_environment(ENVIRONMENTS[name], environments, environments / f"{name}.log")
    answer = subprocess.run(
        [
            str(python),
            str(Path(__file__).parent / "runtimes" / script),
            str(folder),
            str(count),
        ],
        input=json.dumps(prompts),
        capture_output=True,
        text=True,
        check=False,
        # The engine's own form of attention: rounded inputs amplify the last bits by which forms differ.
        env=peer_variables({NO_FLASH_ATTENTION: "1"}),
    )
    if answer.returncode:
        said = [line for line in answer.stderr.splitlines() if line.strip()]
        raise PeerError(said[-1] if said else f"exit code {answer.returncode}")
    tokens: dict[str, Tokens] = json.loads(answer.stdout.splitlines()[-1])
    return tokens


def agreement(wanted: Tokens, given: Tokens) -> tuple[int, int]:
    """Return how many of the wanted tokens were given, up to each row's first difference, and of how many."""
    same = 0
    for want, gave in zip(wanted, given, strict=True):
        pairs = list(zip(want, gave, strict=False))
        same += next((place for place, (one, other) in enumerate(pairs) if one != other), len(pairs))
    return same, sum(map(len, wanted))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.other_runtimes", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="a folder that `roots-compress export` wrote")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--environments", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--only", choices=list(SCRIPTS), help="one of the runtimes")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        graph = find_graph(options.folder).resolve()
        folder, is_seq2seq = graph.parent, graph.name == DECODER_GRAPH
        graph_files(graph)
        engine = (OnnxSeq2Seq if is_seq2seq else OnnxEngine).open(graph, provider="cpu")
        if not 1 <= options.tokens <= engine.max_context - max(PROMPT_LENGTHS):
            raise InputError(f"--tokens {options.tokens} does not fit a context of {engine.max_context}")
    except RootsError as error:
        Console(stderr=True).print(str(error), style="red", markup=False)
        return error.exit_code
    prompts = prompts_for(engine.vocab_size)
    stops = stop_tokens(folder)
    if isinstance(engine, OnnxSeq2Seq):
        wanted = answers(engine, prompts, options.tokens, stops)
    else:
        alone = [greedy(engine, prompt, options.tokens, stops) for prompt in prompts]
        wanted = {"single": alone, "batch": alone}
    scripts, failed = SEQ2SEQ_SCRIPTS if is_seq2seq else SCRIPTS, False
    for name in [options.only] if options.only else scripts:
        try:
            given = generate(
                name, scripts[name], folder, prompts, options.tokens, options.environments.resolve()
            )
        except PeerError as error:
            console.print(f"{name}: refused: {error}", style="red", markup=False)
            failed = True
            continue
        for kind, tokens in given.items():
            same, of = agreement(wanted[kind], tokens)
            failed |= same != of
            console.print(f"{name}, {kind}: {same} of {of} tokens are equal", markup=False)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
