"""What goes on inside: which heads do what, who says what, what changes without it."""

from qwenkit.interpret.ablation import (
    Patching,
    ablate_heads,
    head_effects,
    mean_outputs,
    patch_heads,
    patch_residual,
)
from qwenkit.interpret.divergence import Divergence, divergences, first_divergence
from qwenkit.interpret.heads import (
    attention_entropy,
    duplicate_token_scores,
    induction_scores,
    previous_token_scores,
    repeated_tokens,
    sink_shares,
)
from qwenkit.interpret.lens import Attribution, attribute_logit, logit_lens
from qwenkit.interpret.replace import Replaced, replace

__all__ = [
    "Attribution",
    "Divergence",
    "Patching",
    "Replaced",
    "ablate_heads",
    "attention_entropy",
    "attribute_logit",
    "divergences",
    "duplicate_token_scores",
    "first_divergence",
    "head_effects",
    "induction_scores",
    "logit_lens",
    "mean_outputs",
    "patch_heads",
    "patch_residual",
    "previous_token_scores",
    "repeated_tokens",
    "replace",
    "sink_shares",
]
