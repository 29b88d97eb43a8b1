"""The checks of notebook 08: wrong functions as readers write them, and the diagnosis expected."""

import functools

import pytest
import torch

from qwenkit import QwenConfig
from qwenkit.checks import layer
from qwenkit.model import DecoderLayer, RotaryEmbedding

CHECKS = {"08.1": layer.decoder_layer, "08.2": layer.lens, "08.3": layer.skip}


def test_each_exercise_has_a_check():
    assert set(CHECKS) == set(layer.EXERCISES)


@pytest.mark.parametrize("exercise", CHECKS)
@pytest.mark.parametrize("stub", [lambda *given: None, lambda *given: ...], ids=["None", "dots"])
def test_an_empty_stub_is_told_so(exercise, stub):
    found = CHECKS[exercise](stub)
    assert (found.exercise, found.outcome) == (exercise, "empty")


def test_the_right_layer_is_that_of_the_package():
    """The check's own answer, given the package's parts, is what the package's layer answers."""
    block = DecoderLayer(QwenConfig(10, 8, 12, 1, 2, 1), 0)
    for norm in (block.input_layernorm, block.post_attention_layernorm):
        torch.nn.init.normal_(norm.weight)
    x = torch.randn(2, 5, 8)
    rope = RotaryEmbedding(block.self_attn.config)(torch.arange(5)[None])

    def attention(normed):
        return block.self_attn(normed, rope, None)

    norms = block.input_layernorm, block.post_attention_layernorm
    answer = layer._layer(x, norms[0], attention, norms[1], block.mlp)
    assert torch.equal(answer, block(x, rope, None))
    assert not torch.allclose(answer, x, atol=0.1)


# --- 08.1: decoder_layer(x, norm1, attention, norm2, mlp) ---


def _in_one_expression(x, norm1, attention, norm2, mlp):
    a = attention(norm1(x))
    return x + a + mlp(norm2(x + a))


def _by_a_loop(x, norm1, attention, norm2, mlp):
    for norm, part in ((norm1, attention), (norm2, mlp)):
        x = torch.add(x, part(norm(x)))
    return x


def _from_a_copy(x, norm1, attention, norm2, mlp):
    stream = x.clone()
    stream += attention(norm1(stream))
    stream += mlp(norm2(stream))
    return stream


@pytest.mark.parametrize("function", [_in_one_expression, _by_a_loop, _from_a_copy])
def test_right_layers(function):
    assert layer.decoder_layer(function).outcome == "right"


def _chain(*parts):
    return lambda x: functools.reduce(lambda x, part: part(x), parts, x)


def _no_addition_around_attention(x, norm1, attention, norm2, mlp):
    x = attention(norm1(x))
    return x + mlp(norm2(x))


def _no_addition_around_the_mlp(x, norm1, attention, norm2, mlp):
    x = x + attention(norm1(x))
    return mlp(norm2(x))


def _adds_the_first_stream(x, norm1, attention, norm2, mlp):
    middle = x + attention(norm1(x))
    return mlp(norm2(middle)) + x


def _side_by_side(x, norm1, attention, norm2, mlp):
    return sum((attention(norm1(x)), mlp(norm2(x))), start=x)


def _as_in_2017(x, norm1, attention, norm2, mlp):
    x = norm1(x + attention(x))
    return norm2(x + mlp(x))


def _normed_results(x, norm1, attention, norm2, mlp):
    x = x + norm1(attention(x))
    x = x + norm2(mlp(x))
    return x


def _overwritten_by_both_norms(x, norm1, attention, norm2, mlp):
    x = norm1(x)
    x = x + attention(x)
    x = norm2(x)
    return x + mlp(x)


def _overwritten_by_the_first_norm(x, norm1, attention, norm2, mlp):
    x = norm1(x)
    x = x + attention(x)
    return x + mlp(norm2(x))


def _overwritten_by_the_second_norm(x, norm1, attention, norm2, mlp):
    x = x + attention(norm1(x))
    x = norm2(x)
    return x + mlp(x)


def _wrong_norms(x, norm1, attention, norm2, mlp):
    x = x + attention(norm2(x))
    return x + mlp(norm1(x))


def _first_norm_twice(x, norm1, attention, norm2, mlp):
    return _by_a_loop(x, norm1, attention, norm1, mlp)


def _mlp_then_attention(x, norm1, attention, norm2, mlp):
    x = x + mlp(norm2(x))
    return x + attention(norm1(x))


def _raw(x, norm1, attention, norm2, mlp):
    x = x + attention(x)
    return x + mlp(x)


def _raw_for_the_mlp(x, norm1, attention, norm2, mlp):
    x = x + attention(norm1(x))
    return x + mlp(x)


def _twice(x, norm1, attention, norm2, mlp):
    middle = x + attention(norm1(x))
    return x + middle + mlp(norm2(middle))


def _overwrites(x, norm1, attention, norm2, mlp):
    x += attention(norm1(x))
    x += mlp(norm2(x))
    return x


def _only_attention(x, norm1, attention, norm2, mlp):
    return x + attention(norm1(x))


WRONG_LAYERS = {
    "a chain": (lambda x, *parts: _chain(*parts)(x), "no addition"),
    "attention not added": (_no_addition_around_attention, "no addition around attention"),
    "MLP not added": (_no_addition_around_the_mlp, "no addition around the MLP"),
    "adds the first stream": (_adds_the_first_stream, "attention's part lost"),
    "side by side": (_side_by_side, "parallel"),
    "as in 2017": (_as_in_2017, "post-norm"),
    "normed results": (_normed_results, "norm on the results"),
    "overwritten twice": (_overwritten_by_both_norms, "added to the norm's copy"),
    "overwritten first": (_overwritten_by_the_first_norm, "added to the norm's copy"),
    "overwritten second": (_overwritten_by_the_second_norm, "added to the norm's copy"),
    "wrong norms": (_wrong_norms, "norms exchanged"),
    "first norm twice": (_first_norm_twice, "one norm for both"),
    "MLP, then attention": (_mlp_then_attention, "MLP first"),
    "raw": (_raw, "no norms"),
    "raw for the MLP": (_raw_for_the_mlp, "no second norm"),
    "twice": (_twice, "stream added twice"),
    "overwrites its input": (_overwrites, "changes its input"),
    "only attention": (_only_attention, "values"),
    "both streams": (lambda x, *parts: (x, _by_a_loop(x, *parts)), "kind"),
    "float32": (lambda x, *parts: _by_a_loop(x, *parts).float(), "dtype"),
    "one token": (lambda x, *parts: _by_a_loop(x, *parts)[:, -1], "shape"),
}


@pytest.mark.parametrize("name", WRONG_LAYERS)
def test_wrong_layers_are_diagnosed(name):
    function, mistake = WRONG_LAYERS[name]
    assert layer.decoder_layer(function).mistake == mistake


# --- 08.2: lens(streams, norm, head) ---


def _a_row_at_a_time(streams, norm, head):
    return torch.stack([head(norm(stream[-1])) for stream in streams])


def _read_everywhere_then_cut(streams, norm, head):
    return head(norm(streams))[:, -1, :]


def _by_index(streams, norm, head):
    return head(norm(streams.select(dim=1, index=streams.shape[1] - 1)))


@pytest.mark.parametrize("function", [_a_row_at_a_time, _read_everywhere_then_cut, _by_index])
def test_right_lenses(function):
    assert layer.lens(function).outcome == "right"


def _differences(streams, norm, head):
    rows = [streams[0, -1]]
    rows += [streams[n, -1] - streams[n - 1, -1] for n in range(1, len(streams))]
    return head(norm(torch.stack(rows)))


def _running_sum(streams, norm, head):
    total, rows = 0, []
    for stream in streams:
        total = total + stream[-1]
        rows.append(head(norm(total)))
    return torch.stack(rows)


WRONG_LENSES = {
    "raw": (lambda s, norm, head: torch.stack([head(one[-1]) for one in s]), "no norm"),
    "first token": (lambda s, norm, head: head(norm(s))[:, 0], "first place"),
    "the model's answer": (lambda s, norm, head: head(norm(s))[-1, -1], "last stream only"),
    "last stream": (lambda s, norm, head: head(norm(s))[-1], "all places of the last stream"),
    "everywhere": (
        lambda s, norm, head: torch.stack([head(norm(one)) for one in s]), "all places",
    ),
    "differences": (_differences, "what each layer added"),
    "running sum": (_running_sum, "summed again"),
    "softmax": (
        lambda s, norm, head: torch.softmax(_by_index(s, norm, head), dim=1), "probabilities",
    ),
    "numbers": (lambda s, norm, head: _by_index(s, norm, head).max(-1).indices, "token numbers"),
    "from layer 1": (
        lambda s, norm, head: torch.stack([head(norm(one[-1])) for one in s[1:]]),
        "embedding left out",
    ),
    "no head": (lambda s, norm, head: norm(s[:, -1]), "shape"),
    "a list": (lambda s, norm, head: list(_by_index(s, norm, head)), "kind"),
    "doubled": (lambda s, norm, head: 2 * _by_index(s, norm, head), "values"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_LENSES)
def test_wrong_lenses_are_diagnosed(name):
    function, mistake = WRONG_LENSES[name]
    assert layer.lens(function).mistake == mistake


# --- 08.3: skip(x, layers, number) ---


def _run(x, layers):
    return _chain(*layers)(x)


def _continues(x, layers, number):
    for place in range(len(layers)):
        if place == number:
            continue
        x = layers[place](x)
    return x


def _in_two_parts(x, layers, number):
    return _run(_run(x, layers[:number]), layers[number + 1 :])


def _pops_from_a_copy(x, layers, number):
    rest = list(layers)
    rest.pop(number)
    return _run(x, rest)


@pytest.mark.parametrize("function", [_continues, _in_two_parts, _pops_from_a_copy])
def test_right_skips(function):
    assert layer.skip(function).outcome == "right"


def _breaks(x, layers, number):
    for place, one in enumerate(layers):
        if place == number:
            break
        x = one(x)
    return x


def _empties(x, layers, number):
    for place, one in enumerate(layers):
        x = 0 * x if place == number else one(x)
    return x


def _from_the_start(x, layers, number):
    out = x
    for place, one in enumerate(layers):
        if place != number:
            out = one(x)
    return out


def _deletes(x, layers, number):
    del layers[number]
    return _run(x, layers)


WRONG_SKIPS = {
    "one before": (
        lambda x, layers, n: _run(x, [one for at, one in enumerate(layers) if at != n - 1]),
        "counted from 1",
    ),
    "one before, in a ring": (
        lambda x, layers, n: _pops_from_a_copy(x, layers, n - 1), "counted from 1",
    ),
    "breaks": (_breaks, "stops there"),
    "the rest": (lambda x, layers, n: _run(x, layers[n + 1 :]), "starts there"),
    "that one": (lambda x, layers, n: _run(x, layers[n : n + 1]), "that one only"),
    "all": (lambda x, layers, n: _run(x, layers), "nothing left out"),
    "empties": (_empties, "stream emptied"),
    "from the start": (_from_the_start, "not handed on"),
    "by equality": (
        lambda x, layers, n: _run(x, filter(lambda one: one is not layers[n], layers)),
        "every copy left out",
    ),
    "deletes": (_deletes, "changes its input"),
    "untouched": (lambda x, layers, n: x, "values"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_SKIPS)
def test_wrong_skips_are_diagnosed(name):
    function, mistake = WRONG_SKIPS[name]
    assert layer.skip(function).mistake == mistake
