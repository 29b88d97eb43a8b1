"""Answers to the exercises of notebook 17."""

import struct

import numpy as np
import torch

# --- 17.1 ---


def _by_cases(bits):
    upper, lower = bits >> 16, bits & 0xFFFF
    if lower > 0x8000 or (lower == 0x8000 and upper % 2 == 1):
        upper += 1
    return upper


def _by_python(bits):
    return round(bits / 65536)  # Python's round takes the even neighbor, too


def _by_torch(bits):
    data = torch.tensor([bits], dtype=torch.int64).to(torch.int32).view(torch.float32)
    return data.bfloat16().view(torch.int16).item() & 0xFFFF


def _added(amount):
    return lambda bits: (bits + amount(bits)) >> 16


def _lost_carry(bits):
    rounded = _by_cases(bits)
    return (bits >> 23 << 7) | (rounded & 0x7F)


def _value(bits):
    return struct.unpack(">f", struct.pack(">I", _by_cases(bits) << 16))[0]


def _float16(bits):
    x = struct.unpack("<f", struct.pack("<I", bits))[0]
    return int(np.float16(min(x, 60000.0)).view(np.uint16))


# --- 17.2 ---


def _loop(weight, group):
    """Quantize group by group."""
    rows, columns = weight.shape
    q = torch.zeros(rows, columns, dtype=torch.int8)
    scale = torch.zeros(rows, columns // group)
    for i in range(rows):
        for g in range(columns // group):
            part = weight[i, g * group : (g + 1) * group]
            step = max(abs(w) for w in part.tolist()) / 127
            scale[i, g] = step
            if step > 0:
                q[i, g * group : (g + 1) * group] = (part / step).round().to(torch.int8)
    return q, scale


def _split(weight, group):
    parts = torch.stack(weight.split(group, dim=1), dim=1)
    scale = parts.abs().max(dim=2).values / 127
    q = torch.nan_to_num(parts / scale.unsqueeze(2)).round()
    return q.reshape(weight.shape).to(torch.int8), scale


def _repeated(weight, group):
    """Without groups: one scale per weight, repeated."""
    scale = torch.nn.functional.max_pool1d(weight.abs()[None], group)[0] / 127
    each = scale.repeat_interleave(group, dim=1)
    return torch.where(each > 0, torch.round(weight / each), 0.0).to(torch.int8), scale


def _quantizer(largest=lambda parts: parts.abs().amax(2), by=127, integers=torch.round, low=None,
               high=None, back=lambda q, scale: (q, scale)):  # fmt: skip
    def quantize(weight, group):
        parts = weight.unflatten(1, (-1, group))
        scale = largest(parts) / by
        q = integers(parts / scale.unsqueeze(2).clamp(min=1e-30))
        if high is not None:
            q = q.clamp(low, high)
        return back(q.flatten(1).to(torch.int8), scale)

    return quantize


def _rowwise(change):
    def quantize(weight, group):
        scale = weight.abs().amax(dim=1, keepdim=True) / 127
        return (weight / scale).round().to(torch.int8), change(scale, weight.shape[1] // group)

    return quantize


def _columnwise(weight, group):
    scale = weight.abs().amax(dim=0) / 127
    return torch.nan_to_num(weight / scale).round().to(torch.int8), scale


def _one_scale(weight, group):
    scale = weight.abs().max() / 127
    return (weight / scale).round().to(torch.int8), scale


def _apart(weight, group):
    """Take every G-th weight as a group."""
    count = weight.shape[1] // group
    scale = torch.stack([weight[:, g::count].abs().amax(1) for g in range(count)], 1) / 127
    each = scale.repeat(1, group)
    return (weight / each.clamp(min=1e-30)).round().to(torch.int8), scale


# --- 17.3 ---


class _Nibbles:
    """Four bits per weight, by arithmetic instead of shifts."""

    def __init__(self, weight, group):
        parts = weight.unflatten(1, (-1, group))
        zeros = torch.zeros(parts.shape[:2])
        low = torch.minimum(parts.min(dim=2).values, zeros)
        high = torch.maximum(parts.max(dim=2).values, zeros)
        self.scale = self.size(low, high)
        step = torch.where(self.scale > 0, self.scale, 1.0)
        self.zero = self.point(-low / step).clamp(0, 15).to(torch.uint8)
        q = self.whole(parts / step[..., None] + self.zero[..., None])
        self.packed = self.pack(self.limit(q).int()).to(torch.uint8)

    size = staticmethod(lambda low, high: (high - low) / 15)
    point = staticmethod(torch.round)
    whole = staticmethod(torch.round)
    limit = staticmethod(lambda q: torch.clip(q, 0, 15))

    def pack(self, q):
        half = q.shape[2] // 2
        return (q[:, :, :half] + 16 * q[:, :, half:]).flatten(1)

    def unpack(self, grouped):
        return torch.cat([grouped % 16, grouped // 16], dim=2)

    def weights(self, q, zero, scale):
        return (q - zero) * scale

    def restore(self):
        grouped = self.packed.unflatten(1, (self.scale.shape[1], -1))
        q = self.unpack(grouped).float()
        return self.weights(q, self.zero[..., None].float(), self.scale[..., None]).flatten(1)


class _OneByOne:
    """Four bits per weight, in loops."""

    def __init__(self, weight, group):
        rows, groups = len(weight), weight.shape[1] // group
        self.group, self.scale = group, torch.zeros(rows, groups)
        self.zero = torch.zeros(rows, groups, dtype=torch.uint8)
        self.packed = torch.zeros(rows, weight.shape[1] // 2, dtype=torch.uint8)
        for i in range(rows):
            for g in range(groups):
                self.store(i, g, weight[i, g * group : (g + 1) * group])

    def store(self, i, g, part):
        low, high = min(0.0, part.min().item()), max(0.0, part.max().item())
        step = (high - low) / 15
        zero = min(max(round(-low / step), 0), 15) if step else 0
        q = [min(max(round(w / step + zero), 0), 15) if step else 0 for w in part.tolist()]
        self.scale[i, g], self.zero[i, g], half = step, zero, self.group // 2
        for place in range(half):
            self.packed[i, g * half + place] = q[place] | q[place + half] << 4

    def restore(self):
        rows, groups = self.scale.shape
        found, half = torch.zeros(rows, groups * self.group), self.group // 2
        for i in range(rows):
            for g in range(groups):
                for place in range(half):
                    byte = int(self.packed[i, g * half + place])
                    for at, q in ((place, byte & 15), (place + half, byte >> 4)):
                        value = (q - int(self.zero[i, g])) * self.scale[i, g]
                        found[i, g * self.group + at] = value
        return found


def _nibbles(**changes):
    """Return the class with other methods."""
    return type("Changed", (_Nibbles,), changes)


def _still(function):
    return staticmethod(function)


class _NoZero(_Nibbles):
    def __init__(self, weight, group):
        parts = weight.unflatten(1, (-1, group))
        low, high = parts.amin(2), parts.amax(2)
        self.scale = (high - low) / 15
        step = self.scale.clamp(min=1e-30)
        self.zero = (-low / step).round().clamp(0, 15).to(torch.uint8)
        q = (parts / step[..., None] + self.zero[..., None]).round().clamp(0, 15)
        self.packed = self.pack(q.int()).to(torch.uint8)


class _Even(_Nibbles):
    def __init__(self, weight, group):
        parts = weight.unflatten(1, (-1, group))
        self.scale = parts.abs().amax(2) / 7
        self.zero = torch.full(self.scale.shape, 8, dtype=torch.uint8)
        q = (parts / self.scale.clamp(min=1e-30)[..., None]).round() + 8
        self.packed = self.pack(q.clamp(0, 15).int()).to(torch.uint8)


class _RowWide(_Nibbles):
    def __init__(self, weight, group):
        super().__init__(weight, weight.shape[1])
        half = group // 2
        q = torch.cat([self.packed % 16, self.packed // 16], 1).unflatten(1, (-1, 2, half))
        self.packed = (q[:, :, 0] + 16 * q[:, :, 1]).flatten(1)
        self.scale = self.scale.repeat(1, weight.shape[1] // group)
        self.zero = self.zero.repeat(1, weight.shape[1] // group)


class _Remembers(_Nibbles):
    def __init__(self, weight, group):
        super().__init__(weight, group)
        self.weight = weight

    def restore(self):
        return self.weight


def _swapped(self, q):
    half = q.shape[2] // 2
    return (16 * q[:, :, :half] + q[:, :, half:]).flatten(1)


def _swapped_back(self, grouped):
    return torch.cat([grouped // 16, grouped % 16], dim=2)


def _two_by_two(self, q):
    return (q[:, :, 0::2] + 16 * q[:, :, 1::2]).flatten(1)


def _two_by_two_back(self, grouped):
    return torch.stack([grouped % 16, grouped // 16], dim=3).flatten(2)


def _row_halves(self, q):
    first, second = q.flatten(1).chunk(2, dim=1)
    return first + 16 * second


def _row_halves_back(self, grouped):
    bytes_of_row = grouped.flatten(1)
    q = torch.cat([bytes_of_row % 16, bytes_of_row // 16], dim=1)
    return q.unflatten(1, (grouped.shape[1], -1))


def _unmasked(self, grouped):
    return torch.cat([grouped, grouped // 16], dim=2)


RIGHT = {
    "to_bfloat16": [
        _by_cases,
        _by_python,
        _by_torch,
        lambda bits: (bits + 0x7FFF + (bits >> 16 & 1)) >> 16,
    ],
    "int8": [_loop, _split, _repeated, _quantizer(low=-127, high=127)],
    "int4": [_Nibbles, _OneByOne],
}
WRONG = {
    "to_bfloat16": [
        ("cut off", lambda bits: bits // 65536),
        ("the middle always up", lambda bits: int(bits / 65536 + 0.5)),
        ("the middle always down", _added(lambda bits: 0x7FFF)),
        ("to the odd neighbor", _added(lambda bits: 0x8000 if bits >> 16 & 1 == 0 else 0x7FFF)),
        ("always up", lambda bits: -(-bits // 65536)),
        ("even in any case", _added(lambda bits: 0x8000 if bits >> 16 & 1 else 0)),
        ("no carry", _lost_carry),
        ("not shifted", lambda bits: _by_cases(bits) * 65536),
        ("the lower half", lambda bits: bits % 65536),
        ("shifted by a byte", lambda bits: bits // 256),
        ("sign lost", lambda bits: _by_cases(bits) % 32768),
        ("a float", _value),
        ("values", _float16),
        ("kind", lambda bits: f"{_by_cases(bits):016b}"),
    ],
    "int8": [
        ("largest instead of absolute", _quantizer(lambda parts: parts.max(2).values)),
        ("largest instead of absolute",
            _quantizer(lambda parts: parts.max(2).values, low=-127, high=127)),
        ("one scale for all", _one_scale),
        ("one scale for all", lambda w, group: (
            _one_scale(w, group)[0],
            _one_scale(w, group)[1] * torch.ones(len(w), w.shape[1] // group))),
        ("one scale per row", _rowwise(lambda scale, count: scale)),
        ("one scale per row", _rowwise(lambda scale, count: scale.squeeze(1))),
        ("one scale per row", _rowwise(lambda scale, count: scale.repeat(1, count))),
        ("one scale per column", _columnwise),
        ("not neighbors", _apart),
        ("cut off", _quantizer(integers=lambda x: x)),
        ("rounded down", _quantizer(integers=torch.floor)),
        ("rounded down", _quantizer(integers=torch.floor, low=-127, high=127)),
        ("128 steps", _quantizer(by=128)),
        ("128 steps", _quantizer(by=128, low=-127, high=127)),
        ("the span over 255", _quantizer(lambda parts: parts.amax(2) - parts.amin(2), by=255)),
        ("scale upside down", _quantizer(back=lambda q, scale: (q, scale.reciprocal()))),
        ("restored", _quantizer(back=lambda q, scale:
            (q * scale.repeat_interleave(q.shape[1] // scale.shape[1], 1), scale))),
        ("scale first", _quantizer(back=lambda q, scale: (scale, q))),
        ("only the integers", _quantizer(back=lambda q, scale: q)),
        ("dtype: values right", _quantizer(back=lambda q, scale: (q.float(), scale))),
        ("shape: dimensions of size 1", _quantizer(back=lambda q, scale: (q, scale[..., None]))),
        ("values", _quantizer(integers=torch.ceil)),
    ],
    "int4": [
        ("sixteen gaps", _nibbles(size=_still(lambda low, high: (high - low) / 16))),
        ("0 outside", _NoZero),
        ("symmetric", _Even),
        ("cut off", _nibbles(whole=_still(torch.floor))),
        ("zero point cut off", _nibbles(point=_still(torch.floor))),
        ("not limited", _nibbles(limit=_still(lambda q: q))),
        ("one scale per row", _RowWide),
        ("four bits swapped", _nibbles(pack=_swapped, unpack=_swapped_back)),
        ("neighbors packed", _nibbles(pack=_two_by_two, unpack=_two_by_two_back)),
        ("halves of the row", _nibbles(pack=_row_halves, unpack=_row_halves_back)),
        ("restored as neighbors", _nibbles(unpack=_two_by_two_back)),
        ("restored as halves of the row", _nibbles(unpack=_row_halves_back)),
        ("upper bits not removed", _nibbles(unpack=_unmasked)),
        ("zero point forgotten", _nibbles(weights=lambda self, q, zero, scale: q * scale)),
        ("zero point added", _nibbles(weights=lambda self, q, zero, scale: (q + zero) * scale)),
        ("scaled too early", _nibbles(weights=lambda self, q, zero, scale: q * scale - zero)),
        ("restored by dividing",
            _nibbles(weights=lambda self, q, zero, scale: (q - zero) / scale)),
        ("not from the bytes", _Remembers),
        ("values", _nibbles(unpack=_swapped_back)),
    ],
}  # fmt: skip
