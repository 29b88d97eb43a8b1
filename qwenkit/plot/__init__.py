"""Figures, one topic a file: arrays, strings and configs in, matplotlib out.

One convention holds for all of them, and for figures that a notebook draws itself; its colors and
sizes are in `qwenkit.plot.style`.

- Signed values: red is positive, blue negative, white 0 (`SIGNED`, with limits that are equal on
  both sides). Values from 0 on: the brighter, the larger (`UNSIGNED`).
- Attention maps and masks: a row per query position, a column per key position; the axes are named
  "query position" and "key position". Attention maps have a color bar.
- Queries are blue, keys vermilion, values green (`QUERY`, `KEY`, `VALUE`). Only where query heads
  and the kv heads that they share are told apart, a color means such a group (`HEADS`), and the
  boxes are named q, k and v.
- What attention adds to the stream is orange, what the MLP adds is green, as their boxes in the
  drawing of the model. Curves that are compared are first blue, then vermilion (`CURVES`).
- The smallest text has 10 points (`TEXT`): at the resolution of `show` 14 pixels, as a notebook's
  body text. A figure is at most 9 inches wide (`WIDEST`), so that no notebook shrinks it.
"""

from qwenkit.arguments import check_public
from qwenkit.plot._architecture import architecture, architecture_alt
from qwenkit.plot._attention import (
    attention,
    attention_alt,
    attention_heads,
    attention_heads_alt,
    mask,
    mask_alt,
)
from qwenkit.plot._gqa import (
    cache_growth,
    cache_growth_alt,
    gqa_sharing,
    gqa_sharing_alt,
    kv_repetition,
    kv_repetition_alt,
)
from qwenkit.plot._rope import (
    qk_distance,
    qk_distance_alt,
    rope_pair,
    rope_pair_alt,
    rope_tables,
    rope_tables_alt,
    rope_wavelengths,
    rope_wavelengths_alt,
)
from qwenkit.plot._sampling import sampling, sampling_alt
from qwenkit.plot._show import as_png, show
from qwenkit.plot._stream import logit_lens, logit_lens_alt, residual_norms, residual_norms_alt
from qwenkit.plot._training import (
    lora_spectra,
    lora_spectra_alt,
    training_curve,
    training_curve_alt,
)
from qwenkit.plot._values import (
    outlier_channels,
    outlier_channels_alt,
    value_histograms,
    value_histograms_alt,
)

__all__ = [
    "architecture", "architecture_alt", "as_png", "attention", "attention_alt", "attention_heads",
    "attention_heads_alt", "cache_growth", "cache_growth_alt", "gqa_sharing", "gqa_sharing_alt",
    "kv_repetition", "kv_repetition_alt", "logit_lens", "logit_lens_alt", "lora_spectra",
    "lora_spectra_alt", "mask", "mask_alt", "outlier_channels", "outlier_channels_alt",
    "qk_distance", "qk_distance_alt", "residual_norms", "residual_norms_alt", "rope_pair",
    "rope_pair_alt", "rope_tables", "rope_tables_alt", "rope_wavelengths", "rope_wavelengths_alt",
    "sampling", "sampling_alt", "show", "training_curve", "training_curve_alt", "value_histograms",
    "value_histograms_alt",
]  # fmt: skip

check_public(globals(), set(__all__) - {"show"})  # it checks its text first
