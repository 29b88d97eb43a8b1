"""Training: the text, the loss, the schedule, the loop, and checkpoints to resume from.

And learning from what a model writes itself: from preferences (DPO) and from rewards (GRPO).
"""

from qwenkit.arguments import check_public
from qwenkit.train.average import average
from qwenkit.train.batches import Batch, Batches
from qwenkit.train.callbacks import EarlyStop, KeepModel, ProgressBar
from qwenkit.train.checkpoints import SaveTraining, checkpoints, load_training, save_training
from qwenkit.train.documents import Document, hold_out, read_documents, read_package
from qwenkit.train.evaluation import Evaluation, evaluate, token_losses
from qwenkit.train.grpo import group_advantages, grpo_loss, kl_estimate
from qwenkit.train.grpo_loop import GrpoTrainer
from qwenkit.train.grpo_settings import GrpoMetrics, GrpoSettings
from qwenkit.train.initial import init_weights
from qwenkit.train.loop import Callback, Metrics, Trainer
from qwenkit.train.losses import IGNORE, bits_per_byte, next_token_loss, perplexity
from qwenkit.train.metrics import CsvLog, read_metrics
from qwenkit.train.optimizer import make_optimizer
from qwenkit.train.policy import (
    completion_batch,
    reference_log_probs,
    sequence_log_probs,
    token_log_probs,
)
from qwenkit.train.preference import DpoLoss, Preference, dpo_loss, preference_loss
from qwenkit.train.rollouts import Rollouts, passes_tests
from qwenkit.train.run import read_text, train
from qwenkit.train.schedules import Schedule
from qwenkit.train.settings import DataSettings, Mix, Recipe, TrainingSettings

__all__ = [
    "IGNORE", "Batch", "Batches", "Callback", "CsvLog", "DataSettings", "Document", "DpoLoss",
    "EarlyStop", "Evaluation", "GrpoMetrics", "GrpoSettings", "GrpoTrainer", "KeepModel",
    "Metrics", "Mix", "Preference", "ProgressBar", "Recipe", "Rollouts", "SaveTraining",
    "Schedule", "Trainer", "TrainingSettings", "average", "bits_per_byte", "checkpoints",
    "completion_batch", "dpo_loss", "evaluate", "group_advantages", "grpo_loss", "hold_out",
    "init_weights", "kl_estimate", "load_training", "make_optimizer", "next_token_loss",
    "passes_tests", "perplexity", "preference_loss", "read_documents", "read_metrics",
    "read_package", "read_text", "reference_log_probs", "save_training", "sequence_log_probs",
    "token_log_probs", "token_losses", "train",
]  # fmt: skip

_OF_POLICIES = (
    "completion_batch", "dpo_loss", "group_advantages", "grpo_loss", "kl_estimate",
    "passes_tests", "preference_loss", "reference_log_probs", "sequence_log_probs",
    "token_log_probs",
)  # fmt: skip
check_public(globals(), _OF_POLICIES)
