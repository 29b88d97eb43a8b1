"""RopeExplorer rotates as the model does, and q·k depends only on the distance."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures_toy import small_config

from qwenkit.config import YarnScaling
from qwenkit.errors import ConfigError, InputError
from qwenkit.model import RotaryEmbedding, apply_rope
from qwenkit.widgets.rope import RopeExplorer

CONFIG = small_config(head_dim=8, rope_theta=10_000.0)
YARN = replace(CONFIG, rope_scaling=YarnScaling(4.0, 64))
VECTORS = torch.randn(2, 8, generator=torch.Generator().manual_seed(3))
CONFIGS = pytest.mark.parametrize("config", [CONFIG, YARN], ids=["plain", "yarn"])


@CONFIGS
@pytest.mark.parametrize("theta", [100.0, 10_000.0, 1_000_000.0])
def test_it_rotates_as_the_model_does(config, theta):
    view = RopeExplorer(config, vectors=VECTORS).view
    view.choose(query=200, key=31, theta=theta)
    cos, sin = RotaryEmbedding(replace(config, rope_theta=theta))(torch.tensor([[200, 31]]))
    expected = apply_rope(VECTORS[None, None], cos, sin)[0, 0]  # by the model's own code
    # (2, 2, D/2) a and b of each pair -> (2, D) in halves
    assert view.rotated().reshape(2, 8) == pytest.approx(expected.numpy(), abs=1e-4)
    assert view.product() == pytest.approx(float(expected[0] @ expected[1]), abs=1e-3)
    parts = (expected[0] * expected[1]).reshape(2, 4).sum(0)
    for pair in range(4):
        view.choose(pair=pair)
        assert view.pair_product() == pytest.approx(float(parts[pair]), abs=1e-3)


def test_by_hand_two_dimensions_rotate_by_a_radian_per_position():
    view = RopeExplorer(head_dim=2, vectors=[[1, 0], [0, 2]], positions=10).view
    view.choose(query=3, key=1)
    query, key = view.rotated()[..., 0]
    assert query == pytest.approx([math.cos(3), math.sin(3)])
    assert key == pytest.approx([-2 * math.sin(1), 2 * math.cos(1)])
    assert view.product() == pytest.approx(2 * math.sin(2))  # the key is a quarter turn ahead
    assert view.title() == "Pair 0, dimensions 0 and 1: a full rotation every 6.3 positions"
    cos, sin = view.tables()
    assert cos[:, 0] == pytest.approx([math.cos(p) for p in range(10)])
    assert sin[:, 0] == pytest.approx([math.sin(p) for p in range(10)])


@CONFIGS
def test_shifting_both_leaves_the_product_and_the_page_gets_what_it_computes_from(config):
    widget = RopeExplorer(config, vectors=VECTORS)
    data, view = widget.data, widget.view
    for theta, frequencies in zip(data["thetas"], data["frequencies"], strict=True):
        assert frequencies == view.frequencies(theta).tolist()
    assert data["vectors"] == view.vectors.tolist()
    assert (data["factor"] > 1) == (data["scaled"] == "YaRN") == (config is YARN)
    view.choose(query=20, key=13)
    before, rotated = view.product(), view.rotated()
    view.choose(query=120, key=113)
    assert view.product() == pytest.approx(before, abs=1e-9)
    assert np.abs(view.rotated() - rotated).max() > 0.1
    view.choose(query=121)
    assert abs(view.product() - before) > 1e-3


@CONFIGS
def test_the_curve_is_the_product_at_every_distance(config):
    view = RopeExplorer(config, vectors=VECTORS, positions=50).view
    view.choose(pair=1)
    whole, part = view.products(), view.products(1)
    assert whole.shape == part.shape == (99,)
    for query, key in [(0, 49), (7, 7), (49, 0), (30, 12)]:
        view.choose(query=query, key=key)
        assert whole[query - key + 49] == pytest.approx(view.product(), abs=1e-9)
        assert part[query - key + 49] == pytest.approx(view.pair_product(), abs=1e-9)
    assert sum(view.products(pair) for pair in range(4)) == pytest.approx(whole)


def test_without_vectors_the_curve_is_a_sum_of_cosines_and_theta_can_be_the_configs_own():
    view = RopeExplorer(theta=100.0, head_dim=6, positions=5).view
    frequencies = [1, 100 ** (-1 / 3), 100 ** (-2 / 3)]
    expected = [sum(math.cos(d * f) for f in frequencies) for d in range(-4, 5)]
    assert view.products() == pytest.approx(expected, rel=1e-6)
    view = RopeExplorer(replace(CONFIG, rope_theta=500_000.0)).view
    assert view.theta == 500_000.0
    assert view.thetas == [100, 1e3, 1e4, 1e5, 500_000, 1e6, 1e7]
    slow = view.frequencies()
    view.choose(theta=100)
    assert (view.frequencies()[1:] > slow[1:]).all()
    assert view.frequencies() == pytest.approx([100 ** (-i / 4) for i in range(4)])


@pytest.mark.parametrize(("arguments", "words"), [
    ({"config": CONFIG, "theta": 100.0}, "has its own theta"),
    ({"config": CONFIG, "head_dim": 8}, "has its own theta"),
    ({"config": CONFIG, "vectors": [[1.0] * 8]}, "a query and a key of 8"),
    ({"config": CONFIG, "vectors": [[1.0] * 6] * 2}, r"shapes \[\(6,\), \(6,\)\]"),
    ({"config": CONFIG, "vectors": [[math.nan] * 8] * 2}, "finite"),
    ({"positions": 1}, "positions is 1; it must be an integer from 2 to 4,096"),
])  # fmt: skip
def test_arguments_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        RopeExplorer(**arguments)
    with pytest.raises(ConfigError, match="head_dim"):
        RopeExplorer(head_dim=7)


def test_alt_text_and_picture_say_what_is_chosen():
    half = RopeExplorer(CONFIG, vectors=VECTORS.bfloat16())
    assert half.view.vectors.tolist() == VECTORS.bfloat16().tolist()
    widget = RopeExplorer(head_dim=2, vectors=[[1, 0], [0, 2]], positions=10)
    widget.choose(query=3, key=1)
    assert widget.view.alt() == (
        "RoPE with theta 10,000. Pair 0, dimensions 0 and 1: a full rotation every 6.3 positions. "
        "The query at position 3 is rotated by 172 degrees, the key at 1 by 57. Their q·k is 1.82, "
        "of which this pair gives 1.82; it is the same at all positions whose distance is 2."
    )
    pair, *tables, curve, _ = widget.snapshot().axes
    for ax, table in zip(tables, widget.view.tables(), strict=True):
        assert np.array_equal(ax.images[0].get_array(), table)
    assert np.array_equal(curve.lines[0].get_ydata(), widget.view.products())
    assert [line.get_xdata()[0] for line in curve.lines[2:]] == [2, 2]
    assert np.allclose([text.xy for text in pair.texts], widget.view.rotated()[..., 0])
