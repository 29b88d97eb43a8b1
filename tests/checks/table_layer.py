"""Answers to the exercises of notebook 08."""

import functools

import torch


def _run(x, layers):
    return functools.reduce(lambda x, layer: layer(x), layers, x)


# --- decoder_layer(x, norm1, attention, norm2, mlp) ---


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


def _attention_not_added(x, norm1, attention, norm2, mlp):
    x = attention(norm1(x))
    return x + mlp(norm2(x))


def _mlp_not_added(x, norm1, attention, norm2, mlp):
    x = x + attention(norm1(x))
    return mlp(norm2(x))


def _adds_the_first_stream(x, norm1, attention, norm2, mlp):
    middle = x + attention(norm1(x))
    return mlp(norm2(middle)) + x


def _in_parallel(x, norm1, attention, norm2, mlp):
    return sum((attention(norm1(x)), mlp(norm2(x))), start=x)


def _as_in_2017(x, norm1, attention, norm2, mlp):
    x = norm1(x + attention(x))
    return norm2(x + mlp(x))


def _normed_results(x, norm1, attention, norm2, mlp):
    x = x + norm1(attention(x))
    x = x + norm2(mlp(x))
    return x


def _overwritten(*which):
    """Return a layer in which some norms overwrite the stream."""

    def layer(x, norm1, attention, norm2, mlp):
        for number, (norm, part) in enumerate([(norm1, attention), (norm2, mlp)], start=1):
            normed = norm(x)
            x = normed if number in which else x
            x = x + part(normed)
        return x

    return layer


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


# --- lens(streams, norm, head) ---


def _row_by_row(streams, norm, head):
    return torch.stack([head(norm(stream[-1])) for stream in streams])


def _read_everywhere_then_cut(streams, norm, head):
    return head(norm(streams))[:, -1, :]


def _by_index(streams, norm, head):
    return head(norm(streams.select(dim=1, index=streams.shape[1] - 1)))


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


# --- skip(x, layers, number) ---


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


def _breaks(x, layers, number):
    for place, one in enumerate(layers):
        if place == number:
            break
        x = one(x)
    return x


def _zeroes(x, layers, number):
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


RIGHT = {
    "decoder_layer": [_in_one_expression, _by_a_loop, _from_a_copy],
    "lens": [_row_by_row, _read_everywhere_then_cut, _by_index],
    "skip": [_continues, _in_two_parts, _pops_from_a_copy],
}  # fmt: skip
WRONG = {
    "decoder_layer": [
        ("no addition", lambda x, *parts: _run(x, parts)),
        ("no addition around attention", _attention_not_added),
        ("no addition around the MLP", _mlp_not_added),
        ("attention lost", _adds_the_first_stream),
        ("parallel", _in_parallel),
        ("post-norm", _as_in_2017),
        ("norm on the results", _normed_results),
        ("added to the norm's copy", _overwritten(1, 2)),
        ("added to the norm's copy", _overwritten(1)),
        ("added to the norm's copy", _overwritten(2)),
        ("norms swapped", _wrong_norms),
        ("one norm for both", _first_norm_twice),
        ("MLP first", _mlp_then_attention),
        ("no norms", _raw),
        ("no second norm", _raw_for_the_mlp),
        ("stream added twice", _twice),
        ("changes its input", _overwrites),
        ("values", lambda x, norm1, attention, norm2, mlp: x + attention(norm1(x))),
        ("kind", lambda x, *parts: (x, _by_a_loop(x, *parts))),
        ("dtype", lambda x, *parts: _by_a_loop(x, *parts).float()),
        ("shape", lambda x, *parts: _by_a_loop(x, *parts)[:, -1]),
    ],
    "lens": [
        ("no norm", lambda s, norm, head: torch.stack([head(one[-1]) for one in s])),
        ("first position", lambda s, norm, head: head(norm(s))[:, 0]),
        ("last stream only", lambda s, norm, head: head(norm(s))[-1, -1]),
        ("all positions of the last stream", lambda s, norm, head: head(norm(s))[-1]),
        ("all positions", lambda s, norm, head: torch.stack([head(norm(one)) for one in s])),
        ("what each layer added", _differences),
        ("summed again", _running_sum),
        ("probabilities", lambda s, norm, head: torch.softmax(_by_index(s, norm, head), dim=1)),
        ("token ids", lambda s, norm, head: _by_index(s, norm, head).max(-1).indices),
        ("embedding left out",
            lambda s, norm, head: torch.stack([head(norm(one[-1])) for one in s[1:]])),
        ("shape", lambda s, norm, head: norm(s[:, -1])),
        ("kind", lambda s, norm, head: list(_by_index(s, norm, head))),
        ("values", lambda s, norm, head: 2 * _by_index(s, norm, head)),
    ],
    "skip": [
        ("counted from 1",
            lambda x, layers, n: _run(x, [one for at, one in enumerate(layers) if at != n - 1])),
        ("counted from 1", lambda x, layers, n: _pops_from_a_copy(x, layers, n - 1)),
        ("stops there", _breaks),
        ("starts there", lambda x, layers, n: _run(x, layers[n + 1 :])),
        ("that one only", lambda x, layers, n: _run(x, layers[n : n + 1])),
        ("nothing left out", lambda x, layers, n: _run(x, layers)),
        ("stream set to zero", _zeroes),
        ("not passed on", _from_the_start),
        ("every copy left out",
            lambda x, layers, n: _run(x, filter(lambda one: one is not layers[n], layers))),
        ("changes its input", _deletes),
        ("values", lambda x, layers, n: x),
    ],
}  # fmt: skip
