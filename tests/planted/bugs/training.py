"""Bugs of training and distillation."""

from __future__ import annotations

from tests.planted.bug import Bug, Change, FailingTest

BUGS = (
    Bug(
        "teacher-in-training",
        "dropout in evaluation",
        "Training mode takes the teacher along.",
        FailingTest("test_distillation_brings_the_student_to_its_teacher"),
        (Change("Distillation.train", "if self.teacher is not None: ...", ""),),
    ),
    Bug(
        "size-is-identity",
        "distillation across tokenizers",
        "Tokenizers of equal size are taken for the same.",
        FailingTest("test_a_checkpoint_with_other_token_ids_is_refused", "Failed"),
        (Change("require_same_tokenizer", "hashes[0] != hashes[1]", "len(student) != len(teacher)"),),
    ),
    Bug(
        "squared-temperature",
        "distillation scales, directions and padding",
        "The divergence is not scaled by the square of the temperature.",
        FailingTest("test_the_objective_is_the_weighted_mean_of_plain_terms"),
        (
            Change(
                "training.distillation.objective",
                "distances_n.sum() * config.temperature ** 2",
                "distances_n.sum()",
            ),
        ),
    ),
    Bug(
        "reversed-divergence",
        "distillation scales, directions and padding",
        "KL(student || teacher) is called KL(teacher || student).",
        FailingTest("test_a_divergence_equals_torchs"),
        (
            Change(
                "training.distillation.divergence",
                "if kind == 'forward_kl': ...",
                "if kind == 'forward_kl':\n    return _kl(log_student_NC, log_teacher_NC)",
            ),
        ),
    ),
    Bug(
        "sum-of-gradients",
        "distillation scales, directions and padding",
        "The loss is a mean over positions, its gradient that of the sum.",
        FailingTest("test_loss_and_gradients_equal_the_plain_ones"),
        (Change("training.distillation.head", "grad_total / ctx.positions", "grad_total"),),
    ),
    Bug(
        "prompts-scored",
        "distillation scales, directions and padding",
        "Positions that are not to be scored are compared with the teacher all the same.",
        FailingTest("test_a_prompt_is_not_scored"),
        (
            Change(
                "data.windows",
                "np.where(scored_NT[:, 1:], input_ids_NT[:, 1:], IGNORED_LABEL)",
                "input_ids_NT[:, 1:]",
            ),
        ),
    ),
    Bug(
        "relations-look-back",
        "distillation scales, directions and padding",
        "Tokens of an encoder's text are related to those before them only.",
        FailingTest("test_relations_are_with_all_tokens_of_the_text"),
        (
            Change(
                "Distillation._relation_term",
                "relation_divergence(..., causal=last.causal)",
                "relation_divergence(student_BTC, teacher_BTC, batch.segment_ids_BT, heads)",
            ),
        ),
    ),
    Bug(
        "same-mask",
        "resuming repeats the data",
        "Every epoch hides the tokens of the first.",
        FailingTest("test_every_epoch_hides_other_tokens_and_any_place_can_be_read_again"),
        (Change("data.masking", "(self.seed, epoch, row)", "(self.seed, row)"),),
    ),
    Bug(
        "mean-of-means",
        "accumulation scales wrongly",
        "Micro-batches weigh alike, however many tokens they score.",
        FailingTest("test_accumulated_micro_batches_equal_one_batch"),
        (Change("training.running", "count / everything", "1 / len(counts)"),),
    ),
    Bug(
        "same-epoch",
        "resuming repeats the data",
        "Every epoch has the order of the first.",
        FailingTest("test_every_epoch_reads_each_window_once_in_an_order_of_its_own"),
        (
            Change(
                "training.batches",
                "np.random.default_rng((self._seed, epoch))",
                "np.random.default_rng(self._seed)",
            ),
        ),
    ),
    Bug(
        "begins-again",
        "resuming repeats the data",
        "A resumed training reads from the first window again.",
        FailingTest("test_a_resumed_training_is_bit_identical"),
        (
            Change(
                "TrainingRun._micro_batches",
                "windows_of(self.config, self.step, ...)",
                "windows_of(self.config, self.step - self.resumed, rank=self.team.rank, size=self.team.size)",
            ),
            Change(
                "TrainingRun.__init__",
                "self.parameters = trainable(...)",
                "self.resumed = 0\nself.parameters = trainable(self.placement.module)",
            ),
            Change(
                "TrainingRun._resume",
                "self.saved_step = self.step",
                "self.saved_step = self.resumed = self.step",
            ),
        ),
    ),
    Bug(
        "draws-again",
        "resuming repeats the data",
        "A resumed training draws random numbers from its seed again.",
        FailingTest("test_random_numbers_are_resumed"),
        (Change("SavedStates.restore", "torch.set_rng_state(state.tensors['random/cpu'])", ""),),
    ),
    Bug(
        "padding-related",
        "distillation scales, directions and padding",
        "The relations of padding count.",
        FailingTest("test_distillation.test_padding_changes_nothing"),
        (Change("Distillation._relation_term", "distance_BT[batch.scored_BT].mean()", "distance_BT.mean()"),),
    ),
)
