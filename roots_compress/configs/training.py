"""Settings of the one training loop and its losses, shared by the stages that train."""

from __future__ import annotations

from math import gcd
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from roots_compress.configs.base import (
    BlockSize,
    PathSetting,
    PositiveFloat,
    PositiveInt,
    Settings,
    faults_at,
)
from roots_compress.configs.options import Option
from roots_compress.errors import InputError, Key, Location, Text

Strategy = Literal["ddp", "fsdp"]


class TrainingConfig(Settings):
    """How a model is optimised: AdamW, linear warm-up, cosine decay."""

    recipe_only: ClassVar[str] = (
        "accumulation final_learning_rate_ratio warmup_ratio weight_decay beta2 max_grad_norm precision "
        "checkpoint_every strategy tensor_parallel_teacher activation_checkpointing"
    )
    # These do not change the result: a training can go on with other values.
    unkeyed: ClassVar[frozenset[str]] = frozenset(
        {"processes", "strategy", "tensor_parallel_teacher", "activation_checkpointing", "checkpoint_every"}
    )
    steps: PositiveInt = 300
    """Optimizer steps."""
    batch_size: PositiveInt = 4
    """Windows in each micro-batch."""
    accumulation: PositiveInt = 1
    """Micro-batches whose gradients are averaged before each optimizer step."""
    block_size: Annotated[BlockSize, Option("--train-block-size")] = 256
    """Tokens in each training window. If the model's context is shorter, the default is lowered to it."""
    learning_rate: Annotated[PositiveFloat, Option("--lr")] = 1e-3
    """Peak learning rate, after the warm-up."""
    final_learning_rate_ratio: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """The learning rate at the last step, as a fraction of the peak."""
    warmup_ratio: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """Fraction of the steps over which the learning rate rises from zero to its peak."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.1
    """AdamW weight decay, applied to matrices only (not to norms and biases)."""
    beta2: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    """AdamW's second moment decay; the first is 0.9."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are clipped to this global norm."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Autocast precision; weights stay float32. `auto`: bf16 where the GPU or CPU has instructions for it."""
    checkpoint_every: PositiveInt = 100
    """Steps between resumable checkpoints of the training state."""
    processes: PositiveInt | None = None
    """Processes that train together and share the windows of every step. Default: those that torchrun
    started, or one."""
    strategy: Strategy = "ddp"
    """Distribution over several processes; each holds, with `ddp`: all weights; `fsdp`: a part of weights,
    gradients, optimizer state and teacher."""
    tensor_parallel_teacher: bool = False
    """Let several processes of a machine each hold a part of every matrix of a teacher's layers, and run it
    together: its weights are never gathered."""
    activation_checkpointing: bool = False
    """Keep only the input of each layer for the backward pass, and compute the rest again: less memory, a
    third more time."""

    def fitted(self, context: int) -> Self:
        """Return the settings with windows that fit into a context, unless their length was given."""
        if self.block_size <= context or "block_size" in self.model_fields_set:
            return self
        return self.model_copy(update={"block_size": context})

    def sharing_fault(self, processes: int) -> str:
        """Return why this number of processes cannot share a step evenly, and a number that can."""
        windows = self.batch_size * self.accumulation
        fitting = [
            n
            for n in range(1, windows + 1)
            if parts_of_micro_batch(n, self.batch_size, self.accumulation) is not None
        ]
        below = max(n for n in fitting if n < processes)
        above = min((n for n in fitting if n > processes), default=None)
        near = f"{below}" if above is None else f"{below} or {above}"
        cut = processes // gcd(processes, self.accumulation)
        batch = -(-self.batch_size // cut) * cut
        return (
            f"{processes} processes cannot share the {windows} windows of a step (batch_size "
            f"{self.batch_size} x accumulation {self.accumulation}) evenly; use {near} processes, or a "
            f"batch_size of {batch}"
        )

    @model_validator(mode="after")
    def _must_share_evenly(self) -> Self:
        processes = self.processes or 1
        if parts_of_micro_batch(processes, self.batch_size, self.accumulation) is None:
            raise faults_at([(("processes",), self.sharing_fault(processes))])
        return self


def parts_of_micro_batch(processes: int, batch_size: int, accumulation: int) -> int | None:
    """Return into how many equal parts each micro-batch must be cut; None if that is impossible."""
    parts = processes // gcd(processes, accumulation)
    return None if batch_size % parts else parts


Divergence = Literal["forward_kl", "reverse_kl", "jensen_shannon"]


class DistillLossConfig(Settings):
    """Cross-entropy on the text, plus distances of the student from its teacher."""

    recipe_only: ClassVar[str] = "projection"
    cross_entropy_weight: Annotated[float, Field(ge=0.0), Option("--ce-weight")] = 0.25
    """Weight of the cross-entropy with the text: the next token, a masked token, or a label. For ratings,
    weight of the loss from their numbers. Embeddings, and scores of other records, have no such loss."""
    divergence_weight: Annotated[float, Field(ge=0.0)] = 0.75
    """Weight of the divergence from the teacher's distribution, multiplied by the temperature squared; for
    embeddings, of 1 less the cosine to the teacher's."""
    divergence: Divergence = "forward_kl"
    """`forward_kl`: KL(teacher || student); `reverse_kl`: KL(student || teacher); `jensen_shannon`: the mean
    KL of both to their mixture."""
    temperature: PositiveFloat = 1.0
    """Temperature of both distributions in the divergence."""
    top_k: PositiveInt | None = None
    """Compare the teacher's k most probable tokens, and all others as one. The teacher then reads the text
    once, before training, and its probabilities are cached on disk. Without it, the whole vocabulary is
    compared and the teacher runs at every step."""
    cache: PathSetting | None = None
    """Folder in which cached teachers are kept for other stages and runs, with `top_k`. Without it a cache is
    deleted when its stage is done."""
    hidden_weight: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the squared error between matched hidden states, relative to the teacher's variance."""
    projection: Literal["learned", "least_squares"] = "learned"
    """Linear map from the student's hidden states to the teacher's width: trained with the student
    (`learned`), or fitted once to the untrained student (`least_squares`)."""
    relation_weight: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the divergence between the attention relations (queries, keys, values) of the last layers."""
    on_policy_ratio: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Fraction of the batches in which the student writes the second half of each window and the teacher
    corrects it; with conversations it answers one prompt of each window."""
    teacher_text_ratio: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Fraction of the training windows that the teacher writes before training, useful if text is scarce;
    with pairs, the fraction whose targets it writes."""

    @property
    def whole_micro_batches(self) -> bool:
        """Whether the student writes whole micro-batches, so that processes cannot divide them."""
        return self.on_policy_ratio > 0

    @property
    def needs_running_teacher(self) -> bool:
        """Whether the loss needs more than a cache of distributions holds."""
        return self.hidden_weight > 0 or self.relation_weight > 0 or self.on_policy_ratio > 0

    def require_vocabulary(self, size: int, *, labels: bool = False) -> None:
        """Refuse a `top_k` above the teacher's number of tokens or labels.

        Raises:
            InputError: `top_k` exceeds their number.
        """
        if self.top_k is not None and self.top_k > size:
            has = f"teacher has {size} labels" if labels else f"teacher's vocabulary has {size} tokens"
            raise InputError(
                f"is {self.top_k}, and the {has}",
                where=Key("top_k"),
                remedy="Lower it; 64 is usual." if size > 64 else f"Lower it to {size} or less.",
            )

    def require_written_text(self, *, targets: bool) -> None:
        """Refuse text written by student or teacher, for models that cannot write it.

        Args:
            targets: whether the models write targets of sources, as a teacher can.

        Raises:
            InputError: a setting needs such text.
        """
        does = "writes whole targets only" if targets else "reads whole texts and writes none"
        for key, who in (("on_policy_ratio", "student"), ("teacher_text_ratio", "teacher")):
            if getattr(self, key) and not (targets and who == "teacher"):
                raise InputError(
                    f"is {getattr(self, key)}, but the {who} {does}",
                    where=Key(key),
                    remedy="Leave it out.",
                )

    def require_teacher(self) -> None:
        """Refuse losses that vectors do not have: cached probabilities, and cross-entropy with the text.

        Raises:
            InputError: the loss needs the teacher's probabilities, or nothing from the teacher.
        """
        if self.top_k is not None:
            raise InputError(
                "caches probabilities, but the teacher gives vectors or scores",
                where=Key("top_k"),
                remedy="Leave it out.",
            )
        if not (self.divergence_weight or self.hidden_weight or self.relation_weight):
            raise InputError(
                "is 0, and so are the other teacher terms, so nothing of the teacher would be learnt",
                where=Key("divergence_weight"),
                remedy="Raise it, or the weight of hidden states or relations.",
            )

    @model_validator(mode="after")
    def _must_fit_together(self) -> Self:
        faults: list[tuple[Location, str]] = []
        weights = self.cross_entropy_weight, self.divergence_weight, self.hidden_weight, self.relation_weight
        if not any(weights):
            what = "cross-entropy, divergence, hidden states and relations"
            faults.append(((), f"at least one of the weights of {what} must be above 0"))
        if self.on_policy_ratio and not self.divergence_weight:
            needed = Key("divergence_weight")
            text = Text("needs a ", needed, " above 0: the text no longer says what is right")
            faults.append((("on_policy_ratio",), text))
        if self.top_k is not None and self.needs_running_teacher:
            others = Key("hidden_weight"), ", ", Key("relation_weight"), " and ", Key("on_policy_ratio")
            needs = Text("caches distributions only; ", *others, " need the teacher itself: ")
            faults.append((("top_k",), Text(needs, "set this to null, or those to 0")))
        if self.cache is not None and self.top_k is None:
            text = Text("needs ", Key("top_k"), ": the whole vocabulary is too much to keep for every token")
            faults.append((("cache",), text))
        if faults:
            raise faults_at(faults)
        return self
