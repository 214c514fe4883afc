"""The `train` stage: a model from scratch, or one trained further, by its task's own objective."""

from __future__ import annotations

import copy
from typing import Any

import torch

from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.configs.train import ArchitectureConfig, SparseAttentionConfig, TrainConfig
from roots_compress.data.documents import TextSplit
from roots_compress.data.tokenizers import train_tokenizer
from roots_compress.errors import located
from roots_compress.models.config import RootsConfig
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.stages.base import StageContext, StageOutcome
from roots_compress.tasks.registry import task_of_model
from roots_compress.training.loop import fit, windows_needed


def new_model(config: TrainConfig, text: TextSplit, *, seed: int) -> Checkpoint:
    """Make an untrained model and a tokenizer trained on the text.

    The weights are drawn from a normal distribution with standard deviation 0.02, norms are ones and biases
    zeros. The projections that write to the residual stream, two in each of L layers, are divided by
    sqrt(2 L), so that depth does not swell it (Radford et al. 2019, GPT-2).

    Args:
        config: the shape, and the tokenizer's settings.
        text: its training part trains the tokenizer.
        seed: draws the weights.

    Raises:
        InputError: the tokenizer's settings cannot be met.
    """
    tokenizer = train_tokenizer(text.train, config.tokenizer)
    shape = model_config(
        config.architecture,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RootsForCausalLM(shape).eval()
    with torch.no_grad():
        for block in model.model.layers:
            for writer in (block.self_attn.o_proj, block.mlp.down_proj):
                writer.weight.mul_((2 * len(model.model.layers)) ** -0.5)
    return Checkpoint(model, tokenizer)


def planned_parameters(config: TrainConfig) -> int:
    """Return how many parameters a model from scratch will have, if its tokenizer finds all its entries."""
    with torch.device("meta"):
        shape = model_config(config.architecture, vocab_size=config.tokenizer.vocab_size)
        return sum(parameter.numel() for parameter in RootsForCausalLM(shape).parameters())


def train(config: TrainConfig, checkpoint: Checkpoint, context: StageContext) -> StageOutcome:
    """Train a model on the text by its task's objective; the given checkpoint is left as it is.

    Args:
        config: the stage's settings; `architecture` and `tokenizer` are those of `new_model`.
        checkpoint: where training starts.
        context: its training text is learnt from; its seed is that of the windows and their order.

    Raises:
        InputError, StageError: as `fit` raises them; or the text is too short.
    """
    task = task_of_model(checkpoint.model)
    windows = task.training_windows(
        context.text.train,
        checkpoint.tokenizer,
        config.training.block_size,
        seed=context.seed,
        limit=windows_needed(config.training),
    )
    # A checkpoint may be stored in half precision; it is trained, and then stored, in float32.
    model = copy.deepcopy(checkpoint.model).float()
    with located(("training",)):
        summary = fit(
            model,
            windows,
            task.objective(),
            config.training,
            device=context.device,
            seed=context.seed,
            work=context.work,
            console=context.console,
            label=config.name,
        )
    return StageOutcome(Checkpoint(model, checkpoint.tokenizer), summary.to_json())


def model_config(architecture: ArchitectureConfig, **vocabulary: Any) -> RootsConfig:
    """Return the model config of an architecture; `vocabulary` holds its size and the special tokens' ids."""
    layer = {
        "num_attention_heads": architecture.num_attention_heads,
        "num_key_value_heads": architecture.num_key_value_heads,
        "head_dim": architecture.head_dim,
        "intermediate_size": architecture.intermediate_size,
    }
    return RootsConfig(
        hidden_size=architecture.hidden_size,
        layers=[dict(layer) for _ in range(architecture.num_layers)],
        max_position_embeddings=architecture.max_position_embeddings,
        norm=architecture.norm,
        position=architecture.position,
        rope_parameters=(
            {"rope_type": "default", "rope_theta": architecture.rope_theta}
            if architecture.position == "rotary"
            else None
        ),
        activation=architecture.activation,
        gated_mlp=architecture.gated_mlp,
        attention_bias=architecture.attention_bias,
        qk_norm=architecture.qk_norm,
        tie_word_embeddings=architecture.tie_word_embeddings,
        attention=_attention(architecture.attention),
        **vocabulary,
    )


def _attention(sparse: SparseAttentionConfig) -> dict[str, Any]:
    if sparse.kind == "top_m":
        return {"kind": "top_m", "top_m": sparse.top_m}
    if sparse.kind == "block":
        size = {} if sparse.block_size is None else {"block_size": sparse.block_size}
        return {"kind": "block", "num_blocks": sparse.num_blocks, **size}
    return {"kind": "dense"}
