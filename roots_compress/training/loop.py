"""The one training loop, on accelerate: AdamW, warm-up and cosine, mixed precision, exact resume."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console
from safetensors import SafetensorError
from torch import Tensor, nn

from roots_compress.configs.training import TrainingConfig
from roots_compress.data.windows import PackedWindows
from roots_compress.errors import InputError, Key, StageError
from roots_compress.models.device import Precision, resolve_precision
from roots_compress.models.heads import RootsWithHead
from roots_compress.progress import Display
from roots_compress.results import Json
from roots_compress.training.batches import Batch, BatchOrder
from roots_compress.training.interrupts import uninterrupted
from roots_compress.training.memory import hand_back_free_memory
from roots_compress.training.objective import Objective
from roots_compress.training.optimizer import make_optimizer, trainable
from roots_compress.training.schedule import learning_rate
from roots_compress.training.state import SavedState, fingerprint_of, load_state, save_state
from roots_compress.training.summary import FitSummary, Tally

SMALLEST_LOSS_SCALE = 2.0**-10


def fit(
    model: RootsWithHead,
    windows: PackedWindows,
    objective: Objective,
    config: TrainingConfig,
    *,
    device: str,
    seed: int,
    work: Path,
    console: Console,
    label: str = "training",
) -> FitSummary:
    """Train a model in place; afterwards it is on the CPU and in eval mode.

    The training state is saved every `checkpoint_every` steps, at the end and on Ctrl-C. The same call on
    the same `work` folder goes on from there, to the same final weights to the bit on the same device and
    number of threads.

    Args:
        model: float32 weights; its parameters that require gradients are trained.
        windows: packed text; read in an order that follows from the seed, epoch after epoch.
        objective: what to minimise; parameters of its own that require gradients are trained too.
        config: the settings.
        device: as `resolve_device` returns it.
        seed: of the order of the windows and the random state.
        work: an existing folder for the state of this training alone.
        console: where progress goes.
        label: names the run there.

    Raises:
        InputError: windows longer than the model's context, nothing to score, a quantized model, or a
            precision that the device lacks.
        StageError: the loss or a gradient is no longer finite, or the state cannot be written.
        KeyboardInterrupt: passed on once the state is saved.
    """
    check_trainable(model, windows)
    try:
        run = _TrainingRun(
            model, BatchOrder(windows, seed=seed), objective, config, device=device, seed=seed, work=work
        )
        run.resume(console, label)
        first_tokens = run.tally.tokens
        started = time.monotonic()
        with Display(console, label, done=run.step, in_full=True) as display:
            try:
                while run.step < config.steps:
                    run.advance()
                    speed = (run.tally.tokens - first_tokens) / max(time.monotonic() - started, 1e-9)
                    note = f"loss {run.tally.losses['total']:.3f}, {speed:,.0f} tokens/s"
                    display.update(run.step, config.steps, note)
                    if run.step % config.checkpoint_every == 0 or run.step == config.steps:
                        run.save()
            except KeyboardInterrupt:
                run.save()
                raise
    finally:
        model.eval().to("cpu")
        objective.to("cpu")
    losses = dict(run.tally.losses)
    return FitSummary(run.step, run.tally.tokens, run.tally.seconds, losses.pop("total"), losses)


class _TrainingRun:
    """The moving parts of one training: parameters, optimizer, position, totals."""

    def __init__(
        self,
        model: RootsWithHead,
        order: BatchOrder,
        objective: Objective,
        config: TrainingConfig,
        *,
        device: str,
        seed: int,
        work: Path,
    ) -> None:
        precision = resolve_precision(config.precision, device)
        self.model, self.order, self.objective, self.config = model, order, objective, config
        self.device, self.work = device, work
        self.step, self.saved_step, self.tally = 0, 0, Tally()
        self.parameters = trainable(model, objective)
        self.fingerprint = fingerprint_of(
            {
                "config": config.model_dump(mode="json", exclude={"checkpoint_every"}),
                "seed": seed,
                "device": device,
                "precision": precision,
                "objective": repr(objective),
            },
            {
                **dict(model.named_parameters()),
                **dict(objective.named_parameters("objective")),
                **order.tensors,
            },
        )
        torch.manual_seed(seed)
        nn.Module.to(model, device).train()
        objective.to(device).train()
        self.accelerator = make_accelerator(device, precision)
        self.adamw = make_optimizer(self.parameters, config)
        self.optimizer = self.accelerator.prepare_optimizer(self.adamw)

    def advance(self) -> None:
        """Do one optimizer step."""
        started = time.perf_counter()
        hand_back_free_memory()
        losses, tokens = self._backward()
        self._require(math.isfinite(losses["total"]), f"the loss became {losses['total']}")
        norm = float(self.accelerator.clip_grad_norm_(self.parameters.values(), self.config.max_grad_norm))
        scaler = self.accelerator.scaler
        if scaler is None:
            self._require(math.isfinite(norm), f"the gradient's norm became {norm}")
        else:
            # An overflow is no failure here: the step is left out, and the scale halved until gradients fit.
            scale = scaler.get_scale()
            self._require(scale >= SMALLEST_LOSS_SCALE, f"gradients overflow even at a loss scale of {scale}")
        for group in self.adamw.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        with uninterrupted():
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.step += 1
            self.tally.add(losses, step=self.step, tokens=tokens, seconds=time.perf_counter() - started)

    def _backward(self) -> tuple[dict[str, float], int]:
        """Accumulate the gradients of one step; return the mean losses and the tokens read."""
        # A step that Ctrl-C broke off may have left gradients behind.
        self.optimizer.zero_grad()
        batches = self._micro_batches()
        scored = [int(batch.scored_BT.sum()) for batch in batches]
        sums: dict[str, Tensor] = {}
        shares: dict[str, float] = {}
        for batch, count in zip(batches, scored, strict=True):
            # Weighted by scored tokens, so that the sum is the mean over the whole accumulated batch.
            share = count / sum(scored)
            with self.accelerator.autocast():
                loss = self.objective(self.model, batch)
            self.accelerator.backward(loss.total * share)
            for name, value in {"total": loss.total.detach(), **loss.parts}.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + share * value
                shares[name] = shares.get(name, 0.0) + share
        # A term that some batches do not have is a mean over those that do.
        return {name: float(value) / shares[name] for name, value in sums.items()}, sum(
            b.input_ids_BT.numel() for b in batches
        )

    def _micro_batches(self) -> list[Batch]:
        size, count = self.config.batch_size, self.config.accumulation
        first = self.step * size * count
        return [self.order.take(first + index * size, size, self.device) for index in range(count)]

    def _require(self, condition: bool, what: str) -> None:
        if not condition:
            raise StageError(
                what,
                where=f"training step {self.step + 1} of {self.config.steps}",
                remedy=f"Lower learning_rate (now {self.config.learning_rate:g}), raise warmup_ratio, or set "
                "precision: fp32; and check that the model's own weights are finite.",
            )

    def save(self) -> None:
        """Save the state, unless the disk has it already."""
        if self.step == self.saved_step:
            return
        tensors: dict[str, Tensor] = {f"parameter/{name}": p.detach() for name, p in self.parameters.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.adamw.state[parameter].items():
                tensors[f"optimizer/{key}/{name}"] = value
        tensors["random/cpu"] = torch.get_rng_state()
        if self.device == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state()
        facts: dict[str, Json] = {
            "tokens": self.tally.tokens,
            "seconds": self.tally.seconds,
            "losses": dict(self.tally.losses),
            "loss_scale": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
        }
        with uninterrupted():
            try:
                save_state(self.work, SavedState(self.step, tensors, facts), self.fingerprint)
            except (OSError, SafetensorError) as error:
                raise StageError(
                    f"the training state of step {self.step} cannot be written: {error}",
                    where=self.work,
                    remedy="Make room there and run the command again: it goes on from the last saved state.",
                    transient=True,
                ) from error
            self.saved_step = self.step

    def resume(self, console: Console, label: str) -> None:
        """Go on from the newest saved state of this very training, where there is one."""
        state = load_state(self.work, self.fingerprint)
        if state is None:
            return
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state.tensors[f"parameter/{name}"])
        for key, tensor in state.tensors.items():
            kind, _, rest = key.partition("/")
            if kind == "optimizer":
                entry, _, name = rest.partition("/")
                parameter = self.parameters[name]
                self.adamw.state[parameter][entry] = tensor.to(self.device)
        torch.set_rng_state(state.tensors["random/cpu"])
        if self.device == "cuda":
            torch.cuda.set_rng_state(state.tensors["random/cuda"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state.facts["loss_scale"])
        self.tally = Tally(state.facts["tokens"], state.facts["seconds"], state.facts["losses"])  # type: ignore[arg-type]
        self.step = self.saved_step = state.step
        console.print(
            f"{label}: going on from step {self.step} of {self.config.steps}", markup=False, highlight=False
        )


def windows_needed(config: TrainingConfig) -> int:
    """Return how many windows a training reads; more text than that need not be tokenised."""
    return config.steps * config.accumulation * config.batch_size


def make_accelerator(device: str, precision: Precision) -> Accelerator:
    """Return an accelerator of its own for one training.

    accelerate keeps device and precision in process-wide state, made for scripts that train once; a chain of
    stages trains several times, in precisions that may differ.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(mixed_precision=precision, cpu=device == "cpu")


def check_trainable(model: RootsWithHead, windows: PackedWindows) -> None:
    """Check that `fit` can train a model on windows.

    Raises:
        InputError: they are longer than its context, or its weights are integers.
    """
    length, context = windows.input_ids.shape[1], model.config.max_position_embeddings
    if length > context:
        raise InputError(
            f"training windows of {length} tokens are longer than the model's context of {context}",
            where=Key("block_size"),
            remedy=f"Use windows of at most {context} tokens.",
        )
    if model.config.quantization:
        raise InputError(
            "a quantized model cannot be trained: its weights are integers",
            where="stages",
            remedy="Put training stages before quantize.",
        )
    assert all(p.dtype == torch.float32 for p in model.parameters()), "training needs float32 weights"
