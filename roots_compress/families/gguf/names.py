"""GGUF's names of modules, by ours, and what is done to tensors that lie otherwise there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from roots_compress.families.base import Computed, Rule
from roots_compress.families.decoder_tensors import GATE_UP, QKV, decoder_rules
from roots_compress.families.transforms import COPY, TAPS, Each, Parts, Tensor, Transform
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.conv import READERS
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.ops.linear_attention import LinearAttention
from roots_compress.models.spec import ModelSpec

Names = Mapping[str, str]
"""A source's names of modules, by ours."""
EXPERTS = {f"mlp.experts.{{}}.{name}_proj": f"ffn_{name}_exps" for name in ("gate", "up", "down")}
NAMES = {
    "self_attn_pre_norm": "attn_norm",
    "conv_pre_norm": "attn_norm",
    "linear_attn_pre_norm": "attn_norm",
    **{f"self_attn.{letter}_proj": f"attn_{letter}" for letter in "qkv"},
    **{f"self_attn.{letter}_norm": f"attn_{letter}_norm" for letter in "qk"},
    "self_attn.o_proj": "attn_output",
    "self_attn.sinks": "attn_sinks.weight",
    "self_attn_post_norm": "post_attention_norm",
    "mlp_pre_norm": "ffn_norm",
    **{f"mlp.{name}_proj": f"ffn_{name}" for name in ("gate", "up", "down")},
    "mlp_post_norm": "post_ffw_norm",
    "mlp.router": "ffn_gate_inp",
    "mlp.selection_bias": "exp_probs_b.bias",
    **EXPERTS,
    **{f"conv.{name}": "shortconv.in_proj" for name in READERS},
    "conv.conv": "shortconv.conv",
    "conv.out_proj": "shortconv.out_proj",
    "linear_attn.conv1d": "ssm_conv1d",
    "linear_attn.A_log": "ssm_a",
    "linear_attn.dt_bias": "ssm_dt.bias",
    "linear_attn.D": "ssm_d",
    "linear_attn.norm.weight": "ssm_norm.weight",
    "linear_attn.out_proj": "ssm_out",
    "layer_input.gate_proj": "inp_gate",
    "layer_input.out_proj": "proj",
    "layer_input_post_norm": "post_norm",
}
"""Of a layer's modules."""
LAYER_INPUTS = {
    "per_layer_token_embd": "table",
    "per_layer_model_proj": "projection",
    "per_layer_proj_norm": "norm",
}
"""Of per-layer embeddings, GGUF's names first."""
OUTER = {
    "layers": "blk",
    "embed_tokens": "token_embd",
    "embed_positions": "position_embd",
    "norm": "output_norm",
    "lm_head": "output",
}
FUSED_QKV = dict.fromkeys(QKV, "attn_qkv")
FUSED_GATE_UP = dict.fromkeys(GATE_UP, "ffn_up")
FUSED_EXPERTS = dict.fromkeys([*EXPERTS][:2], "ffn_gate_up_exps")
MAMBA2 = dict.fromkeys((f"linear_attn.{letter}_proj" for letter in "zvkqa"), "ssm_in")
DELTA_NET = {
    **dict.fromkeys((f"linear_attn.{letter}_proj" for letter in "qkv"), "attn_qkv"),
    "linear_attn.z_proj": "attn_gate",
    "linear_attn.b_proj": "ssm_beta",
    "linear_attn.a_proj": "ssm_alpha",
}

SHARED = {
    **{f"shared_mlp.{name}_proj": f"ffn_{name}_shexp" for name in ("gate", "up", "down")},
    "shared_mlp.router": "ffn_gate_inp_shexp",
    "shared_mlp_pre_norm": "ffn_norm",
}
"""Names of a shared expert."""
ROUTED = {name: theirs for name, theirs in SHARED.items() if name != "shared_mlp.router"}
"""Names of a shared expert without a gate."""
AFTER_ATTENTION = dict.fromkeys(("mlp_pre_norm", "shared_mlp_pre_norm"), "post_attention_norm")
KEY_B, VALUE_B = "attn_k_b.weight", "attn_v_b.weight"
LATENT = {
    **ROUTED,
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_norm": "attn_q_a_norm",
    **dict.fromkeys(("self_attn.kv_a_proj", "self_attn.k_rope_proj"), "attn_kv_a_mqa"),
    "self_attn.kv_a_norm": "attn_kv_a_norm",
    "self_attn.k_proj": "attn_k_b",
    "self_attn.v_proj": "attn_v_b",
}
FUSED_KV_B = dict.fromkeys(("self_attn.k_proj", "self_attn.v_proj"), "attn_kv_b")


def falcon_names(spec: ModelSpec) -> Names:
    """Return the names of Falcon's modules: where a layer has two norms, the first is not attention's."""
    attention, mlp = spec.layers[0]
    two = attention.parallel and not mlp.shares_norm
    return FUSED_QKV | ({"self_attn_pre_norm": "attn_norm_2", "mlp_pre_norm": "attn_norm"} if two else {})


def latent_names(spec: ModelSpec) -> Names:
    """Return the names of a model's modules whose attention is latent."""
    latent = spec.attentions()[0].latent
    queries = {} if latent is None or latent.query_rank is None else {"self_attn.q_proj": "attn_q_b"}
    return {**LATENT, **queries}


BETA_ALPHA = "ssm_ba"
BETA_AND_ALPHA = dict.fromkeys(("linear_attn.b_proj", "linear_attn.a_proj"), BETA_ALPHA)
WIDE, READER = ("v_proj.weight", "v_conv.weight", "z_proj.weight"), "out_proj.weight"
"""Parameters of linear attention with rows for each channel of the value heads; with columns for them."""
FLAT = Each(lambda rows: rows.reshape(-1))
"""A vector that the file holds as rows."""
NEGATIVE_LOG = Each(lambda rates: (-rates.reshape(-1)).double().log().float())
"""The logarithms of rates that the file holds as rows of negative numbers."""
STORED = {
    "shortconv.conv.weight": TAPS,
    "ssm_conv1d.weight": TAPS,
    "ssm_a": NEGATIVE_LOG,
    "ssm_d": FLAT,
    "ssm_norm.weight": FLAT,
}
"""What is done to tensors that the file holds in another form."""
SCALARS = ("b_proj.weight", "a_proj.weight", "A_log", "dt_bias")
"""Those with one row for each value head."""


@dataclass(frozen=True)
class Layout:
    """How the files of an architecture hold their tensors.

    Attributes:
        names: of a layer's modules, where they are not those of all; they may depend on the model.
        paired: whether rows of q and k that rotate together lie next to each other, as in Meta's own files.
        by_head: whether the rows of attention's matrices that are one lie head by head.
        bare: names of norms whose gain's name does not end in `.weight`.
        tiled: whether the value heads of linear attention take turns over the key heads.
        computed: the tensors that several of the file's make together.
    """

    names: Names | Callable[[ModelSpec], Names] = field(default_factory=dict)
    outer: Names = field(default_factory=dict)
    paired: bool = False
    by_head: bool = False
    bare: tuple[str, ...] = ()
    tiled: bool = False
    computed: Callable[[ModelSpec], Sequence[Computed]] = lambda _: ()

    def rules(self, spec: ModelSpec) -> Iterator[Rule]:
        """Yield the place of each tensor that a model of this specification has."""
        yield from self._rules(spec, {})
        if isinstance(spec.head, LmHead) and spec.head.bias:
            yield Rule("output.bias", ("logits_bias",))
        for theirs, ours in LAYER_INPUTS.items() if spec.embeddings.layer_inputs else ():
            yield Rule(f"{theirs}.weight", (f"model.embed_layers.{ours}.weight",))
        for index, layer in enumerate(spec.layers):
            for each in layer:
                if each.stream_scale:
                    target = f"model.layers.{index}.{each.name}_stream_scale"
                    yield Rule(f"blk.{index}.layer_output_scale.weight", (target,))

    def others(self, spec: ModelSpec) -> Iterator[Rule]:
        """Yield the places of tensors that converters can make of several, in their stead."""
        latent = any(each.latent is not None for each in spec.attentions())
        fused = FUSED_KV_B if latent else FUSED_QKV
        for names in (FUSED_EXPERTS,) if self.by_head else (fused, FUSED_EXPERTS):
            for rule in self._rules(spec, names):
                if rule.source.split(".")[2:3] == [*names.values()][:1] and len(rule.targets) > 1:
                    yield rule

    def _rules(self, spec: ModelSpec, names: Names) -> Iterator[Rule]:
        own = self.names(spec) if callable(self.names) else self.names
        named, outer = {**NAMES, **own, **names}, {**OUTER, **self.outer}
        for rule in decoder_rules(
            spec,
            names=named,
            outer=outer,
            paired=self.paired,
            by_head=self.by_head,
            by_key_head=(BETA_ALPHA,),
            computed=self.computed(spec),
        ):
            stem = rule.source.removesuffix(".weight")
            source = stem if stem.rpartition(".")[2] in self.bare else rule.source
            yield Rule(source, rule.targets, self._changed(rule, spec))

    def _changed(self, rule: Rule, spec: ModelSpec) -> Transform:
        """Return what is done to a tensor, given what is done to it where it lies as usual."""
        _, number, part = rule.source.split(".", 2) if rule.source.startswith("blk.") else ("", "0", "")
        ops = [each.op for each in spec.layers[int(number)]]
        op = next((each for each in ops if isinstance(each, LinearAttention)), None)
        changed = rule.transform
        if part in (KEY_B, VALUE_B):
            attention = next(each for each in ops if isinstance(each, Attention))
            changed = heads(attention.heads, transposed=part == KEY_B)
        if op is not None:
            changed = self._untiled(rule, op) if self.tiled and op.shared > 1 else changed
        first = STORED.get(part)
        return changed if first is None else Then(first, changed)

    def _untiled(self, rule: Rule, op: LinearAttention) -> Transform:
        """Return a rule's transform, after which value heads follow one another for each key head."""
        changes: list[Each] = []
        for target in rule.targets:
            name = target.split(".", 4)[-1]
            size = op.value_dim if name in (*WIDE, READER) else 1 if name in SCALARS else None
            axis = int(name == READER)
            changes.append(COPY if size is None else tiled(op.key_heads, op.shared, size, axis))
        return changes[0] if len(changes) == 1 else Parts(rule.transform, tuple(changes))


@dataclass(frozen=True)
class Then:
    """A transform of a tensor that stays one, then another."""

    first: Each
    second: Transform

    def apply(self, tensor: Tensor) -> Sequence[Tensor]:
        """Return what the second makes."""
        return self.second.apply(self.first.read(tensor))

    def invert(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the tensor as it was."""
        return self.first.invert((self.second.invert(tensors),))


def heads(count: int, *, transposed: bool) -> Each:
    """Return what joins the rows of so many heads' matrices, whose axes may be the other way round."""

    def joined(tensor: Tensor) -> Tensor:
        if tensor.ndim != 3 or tensor.shape[0] != count:
            return tensor  # Refused for its shape later.
        return (tensor.mT if transposed else tensor).flatten(0, 1).contiguous()

    return Each(joined)


def tiled(groups: int, shared: int, size: int, axis: int) -> Each:
    """Return what puts value heads that take turns over the key heads one after another for each key head."""

    def in_turn(tensor: Tensor) -> Tensor:
        if tensor.ndim <= axis or tensor.shape[axis] != groups * shared * size:
            return tensor  # Refused for its shape later.
        apart = tensor.unflatten(axis, (shared, groups, size))
        return apart.transpose(axis, axis + 1).flatten(axis, axis + 2).contiguous()

    return Each(in_turn)
