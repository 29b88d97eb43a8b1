"""What happens inside: which heads do what, which part predicts what, what changes without it."""

from qwenkit._deprecated import renamed
from qwenkit.arguments import check_public
from qwenkit.interpret._ablation import (
    Patching,
    ablate_heads,
    head_effects,
    mean_outputs,
    patch_heads,
    patch_residual,
)
from qwenkit.interpret._divergence import Divergence, divergences, first_divergence
from qwenkit.interpret._heads import (
    attention_entropy,
    duplicate_token_scores,
    induction_scores,
    previous_token_scores,
    repeated_tokens,
    sink_scores,
)
from qwenkit.interpret._lens import Attribution, attribute_logit, logit_lens
from qwenkit.interpret._replace import Replaced, replace

__all__ = [
    "Attribution", "Divergence", "Patching", "Replaced", "ablate_heads", "attention_entropy",
    "attribute_logit", "divergences", "duplicate_token_scores", "first_divergence", "head_effects",
    "induction_scores", "logit_lens", "mean_outputs", "patch_heads", "patch_residual",
    "previous_token_scores", "repeated_tokens", "replace", "sink_scores",
]  # fmt: skip

check_public(globals(), set(__all__) - {"replace"})
check_public(globals(), ["replace"], only=("model",))  # it checks the rest itself
__getattr__ = renamed(__name__, sink_shares="sink_scores")
