"""What learning from rewards is asked for, and what each of its steps gives."""

from dataclasses import dataclass

from qwenkit.train._checks import at_least, check_types, one_of, require
from qwenkit.train.grpo import NORMALIZATIONS


@dataclass(frozen=True)
class GrpoSettings:
    """How to learn from rewards; the defaults are those of Dr. GRPO.

    Args:
        steps: batches of samples.
        learning_rate: of AdamW; constant.
        prompts: P, tasks in a step.
        group_size: G, completions of each.
        epochs: optimizer steps on each batch of samples.
        temperature: at which completions are sampled, and of the probabilities that are learned.
        max_new_tokens: of a completion. One that is cut off there counts like the others: it seldom
            passes, so the policy learns to end in time.
        clip_low: how far a token's probability may fall by an old sample; see `grpo_loss`.
        clip_high: how far it may rise.
        beta: weight of the KL divergence from the model as it was at the start; 0: free.
        normalization: see `grpo_loss`.
        baseline: whether the mean reward of the group is subtracted. Without it (REINFORCE) all
            that has a reward above 0 becomes more likely, however easy its task was.
        scale: see `group_advantages`.
        max_norm: the largest gradient norm; a larger gradient is scaled down. 0: never.
        batch_size: completions in one forward pass of learning; decides memory, not results.
        seed: of the tasks and the samples.
    """

    steps: int
    learning_rate: float = 1e-4
    prompts: int = 8
    group_size: int = 8
    epochs: int = 1
    temperature: float = 1.0
    max_new_tokens: int = 128
    clip_low: float = 0.2
    clip_high: float = 0.2
    beta: float = 0.0
    normalization: str = "dr_grpo"
    baseline: bool = True
    scale: bool = False
    max_norm: float = 1.0
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        at_least(1, steps=self.steps, prompts=self.prompts, epochs=self.epochs)
        at_least(1, max_new_tokens=self.max_new_tokens, batch_size=self.batch_size)
        at_least(2 if self.baseline else 1, group_size=self.group_size)
        at_least(0, beta=self.beta, max_norm=self.max_norm, seed=self.seed)
        at_least(0, clip_low=self.clip_low, clip_high=self.clip_high)
        require(self.clip_low < 1, "clip_low", self.clip_low, "below 1")
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        require(self.temperature > 0, "temperature", self.temperature, "above 0")
        one_of(NORMALIZATIONS, normalization=self.normalization)


@dataclass(frozen=True)
class GrpoMetrics:
    """What one step gave."""

    step: int  # counted from 1
    reward: float  # mean of the step's completions, before the step
    silent: float  # proportion of groups whose rewards are all equal: nothing to learn from
    length: float  # mean tokens of a completion, the stop token included
    cut_off: float  # proportion of completions that did not end by themselves
    entropy: float  # nats per token, of the tokens learned from: the mean of −log p; NaN if none
    kl: float  # from the model at the start, nats per token; 0 where beta is 0
    loss: float  # of the last epoch
    gradient_norm: float  # before clipping, of the last epoch
    seconds: float
