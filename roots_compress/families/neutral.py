"""Keys of a config.json that change nothing of what a model computes."""

from __future__ import annotations

from typing import Any

# Keys that change nothing a forward pass in evaluation computes: training, bookkeeping, classification heads,
# how it is computed, and the generation defaults that older versions of transformers wrote into config.json.
NEUTRAL_KEYS = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _commit_hash _experts_implementation
    _flash_attn_2_enabled _model_name_or_path _name_or_path _num_labels architectures
    assistant_confidence_threshold assistant_lookbehind attention_dropout attention_probs_dropout_prob
    attn_implementation attn_pdrop bad_words_ids begin_suppress_tokens bos_token_id cache_implementation
    chunk_size_feed_forward classifier_dropout cls_token_id constraints decoder_start_token_id
    diversity_penalty do_sample dola_layers dtype early_stopping emb_size embd_pdrop enable_lm_head_fp32
    encoder_no_repeat_ngram_size encoder_repetition_penalty eos_token_id epsilon_cutoff eta_cutoff
    experts_implementation exponential_decay_length_penalty finetuning_task force_words_ids
    forced_bos_token_id forced_decoder_ids forced_eos_token_id gradient_checkpointing guidance_scale
    hidden_dropout hidden_dropout_prob id2label initializer_factor initializer_range is_assistant
    is_composition is_decoder is_encoder_decoder is_llama_config label2id length_penalty low_memory
    mask_token_id max_length max_new_tokens max_seq_length max_sequence_length max_time max_window_layers
    min_length min_new_tokens min_p model_max_length model_type n_ctx name_or_path no_repeat_ngram_size
    num_assistant_tokens num_assistant_tokens_schedule num_beam_groups num_beams num_labels
    num_return_sequences output_attentions output_hidden_states output_past output_scores pad_token_id
    penalty_alpha pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head
    pooler_type predict_special_tokens prefill_chunk_size prefix pretraining_tp problem_type
    remove_invalid_values renormalize_logits repetition_penalty resid_pdrop return_dict
    return_dict_in_generate sep_token_id seq_length sequence_bias stop_strings summary_activation
    summary_first_dropout summary_proj_to_labels summary_type summary_use_proj suppress_tokens
    target_lookbehind task_specific_params temperature tf_legacy_loss tie_encoder_decoder token_healing
    tokenizer_class top_h top_k top_p torch_dtype torchscript transformers.js_config transformers_version
    typical_p unk_token_id unsloth_fixed unsloth_version use_bfloat16 use_cache use_return_dict
    watermarking_config
    """.split()  # noqa: SIM905
)
# Keys that a family does not read, with the settings that say what its model does anyway.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "attention_bias": (False,),
    "auto_map": ({},),
    "cell": ({},),
    "directionality": ("bidi",),
    "full_attn_mod": (1,),
    "interpolate_factor": (1,),
    "layers_to_keep": ([],),
    "lm_head_bias": (False,),
    "mlp_bias": (False,),
    "n_special": (0,),
    "no_bias": (True,),
    "num_experts": (0,),
    "num_local_experts": (0,),
    "partial_rotary_factor": (1, 1.0),
    "pre_trained": ("",),
    "pruned_heads": ({},),
    "qk_layernorm": (False,),
    "reorder_and_upcast_attn": (False,),
    "rope_interleaved": (False,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "structure": ([],),
    "training": ("",),
    "use_bidirectional_attention": (False,),
    "use_mrope": (False,),
    "use_qk_norm": (False,),
    "use_sliding_window": (False,),
}
# Keys that transformers reads from any configuration where they are there, so that null is no absence.
NEVER_NULL = frozenset({"add_cross_attention", "reorder_and_upcast_attn", "scale_attn_by_inverse_layer_idx"})
