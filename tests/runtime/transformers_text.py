"""The text that transformers writes on from a prompt, and what our engine writes with the exported graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.configs.export import ExportConfig
from roots_compress.export.exporter import export_checkpoint
from roots_compress.runtime.onnx.engine import OnnxEngine
from roots_compress.runtime.text import load_tokenizer, load_wishes, stream_text


class Theirs:
    """transformers, reading a folder by its own classes."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        )

    def text(self, prompt: str, new_tokens: int) -> str:
        """Return the greedy text behind a prompt, as the text-generation pipeline cuts it."""
        given = self.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        length = given["input_ids"].shape[1]
        (ids,) = self.model.generate(**given, max_new_tokens=new_tokens, do_sample=False).tolist()
        ends = self.model.generation_config.eos_token_id
        if len(ids) > length and ids[-1] in (ends if isinstance(ends, list) else [ends]):
            ids.pop()  # no part of the text, also where it is no special token
        before = len(self.tokenizer.decode(ids[:length], skip_special_tokens=True))
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))[before:]


class Ours:
    """A checkpoint, exported and read back as the command does."""

    def __init__(self, checkpoint: Checkpoint, folder: Path) -> None:
        export_checkpoint(checkpoint, folder, ExportConfig())
        self.tokenizer = load_tokenizer(folder)
        self.engine = OnnxEngine.load(folder, provider="cpu")
        self.wishes = load_wishes(folder, self.tokenizer, self.engine.vocab_size)

    def text(self, prompt: str, new_tokens: int) -> str:
        """Return the greedy text behind a prompt."""
        return "".join(
            stream_text(
                self.engine,
                self.tokenizer,
                prompt,
                max_new_tokens=new_tokens,
                stop_tokens=self.wishes.stop_tokens,
                settings=self.wishes.settings,
            )
        )
