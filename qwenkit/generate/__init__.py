"""Generation: one token after another, for one text, for a batch, and for a conversation."""

from qwenkit.arguments import check_public
from qwenkit.generate._prompts import cache_for, one_prompt
from qwenkit.generate.batch import complete_batch, generate_batch
from qwenkit.generate.beam import Beam, beam_search
from qwenkit.generate.config import GenerationConfig, row_seed
from qwenkit.generate.conversation import Conversation
from qwenkit.generate.drafters import Drafter, DraftModel, PromptLookup, Proposal
from qwenkit.generate.reference import reference_generate
from qwenkit.generate.sampling import Sampling
from qwenkit.generate.score import TokenScore, log_probabilities, score_text
from qwenkit.generate.speculative import Speculation, speculate
from qwenkit.generate.steps import Step, generate
from qwenkit.generate.text import complete, default_stops, fill, stream

__all__ = [
    "Beam",
    "Conversation",
    "DraftModel",
    "Drafter",
    "GenerationConfig",
    "PromptLookup",
    "Proposal",
    "Sampling",
    "Speculation",
    "Step",
    "TokenScore",
    "beam_search",
    "cache_for",
    "complete",
    "complete_batch",
    "default_stops",
    "fill",
    "generate",
    "generate_batch",
    "log_probabilities",
    "one_prompt",
    "reference_generate",
    "row_seed",
    "score_text",
    "speculate",
    "stream",
]

check_public(globals(), ["reference_generate"])
check_public(globals(), __all__, only=("model", "tokenizer", "seed", "row"))
