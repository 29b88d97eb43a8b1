"""Headers: what is read equals what safetensors reads, and nothing damaged gets through."""

import json
import os
import time

import pytest
import torch
from fixtures_toy import entry, pack
from safetensors import safe_open

from qwenkit.checkpoint import read_header
from qwenkit.errors import CheckpointError


def written(tmp_path, content):
    path = tmp_path / "broken-one.safetensors"
    path.write_bytes(content)
    return path


def test_what_is_read_equals_what_safetensors_reads(toy):
    path = toy / "model.safetensors"
    infos, data = read_header(path), path.read_bytes()
    with safe_open(path, "pt") as theirs:
        assert set(infos) == set(theirs.keys())
        for name, info in infos.items():
            part, tensor = theirs.get_slice(name), theirs.get_tensor(name)
            assert (info.name, info.file) == (name, path)
            assert info.dtype == part.get_dtype() == "BF16"
            assert list(info.shape) == part.get_shape()
            assert (info.num_parameters, info.nbytes) == (tensor.numel(), tensor.nbytes)
            raw = tensor.reshape(-1).view(dtype=torch.uint8).numpy().tobytes()
            assert data[info.start : info.start + info.nbytes] == raw


def test_tensors_come_in_the_order_of_their_bytes(tmp_path):
    header = {"b": entry(offsets=(4, 8)), "a": entry(offsets=(0, 4)), "__metadata__": {"x": "y"}}
    infos = read_header(written(tmp_path, pack(header, bytes(8))))
    assert list(infos) == ["a", "b"]
    first = 8 + len(json.dumps(header))
    assert [info.start for info in infos.values()] == [first, first + 4]


def test_empty_and_scalar_tensors_and_none_at_all_are_valid(tmp_path):
    header = {"x": entry(shape=(), offsets=(0, 4)), "none": entry(shape=(0, 3), offsets=(4, 4))}
    infos = read_header(written(tmp_path, pack(header, bytes(4))))
    assert infos["x"].shape == ()
    assert infos["x"].num_parameters == 1
    assert infos["none"].nbytes == infos["none"].num_parameters == 0
    assert read_header(written(tmp_path, pack({}))) == {}
    assert list(read_header(written(tmp_path, VALID))) == ["a"]  # the file that the table breaks


def one(*args, size=4, **kwargs):
    """Return a file whose only tensor, "a", has the given entry, and `size` bytes of data."""
    return pack({"a": entry(*args, **kwargs)}, bytes(size))


VALID = one()
TWICE = b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(),) * 2)
MALFORMED = {
    "empty file": (b"", "0 bytes, fewer than the 8"),
    "cut in the length": (VALID[:5], "5 bytes, fewer than the 8"),
    "cut in the header": (VALID[:20], "its header claims"),
    "cut in the data": (VALID[:-1], "cut short"), "without its data": (VALID[:-4], "cut short"),
    "header longer than the file": (pack({}, length=1_000), "header claims 1,000 bytes"),
    "header over 100 MB": (pack({}, length=100_000_001), "100 MB is the limit"),
    "length of all ones": (b"\xff" * 8 + b"{}", "100 MB is the limit"),
    "length with the wrong byte order": ((64).to_bytes(8, "big") + bytes(64), "100 MB"),
    # nothing, other quotes, cut, more after it, not UTF-8, a pickle, a long number, deep nesting
    **{f"header {text[:20]}": (pack(text), "not JSON") for text in (
        b"", b"{'a': 1}", b'{"a": {', b"{} {}", b'{"\xff\xfe": 1}', b"\x80\x04\x95\x10",
        b'{"a": ' + b"9" * 5_000 + b"}", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")},
    **{f"JSON {value}": (pack(value), "not a JSON object") for value in ([], None, "tensors")},
    "entry is a list": (pack({"a": [1]}), "'a' lacks dtype, shape or data_offsets"),
    "entry is null": (pack({"a": None}), "'a' lacks"),
    **{f"no {key}": (pack({"a": {k: v for k, v in entry().items() if k != key}}, bytes(4)),
                     "'a' lacks") for key in entry()},
    **{f"dtype {dtype}": (one(dtype), f"'a' has the unknown dtype {dtype!r}")
       for dtype in ("f32", "F 32", "", "F" * 40, "\x1b[2J", None, 32, ["F32"], {"F": 32})},
    **{f"shape {shape}": (one(shape=shape), f"'a' has shape {list(shape)}")
       for shape in ((-1, -1), (1.0,), (True,), "1", ([1],))},
    "shape is a number": (pack({"a": {**entry(), "shape": 1}}, bytes(4)), "'a' has shape 1"),
    "huge shape": (one(shape=(2**62, 4)), "'a' has a shape or offset beyond 64 bits"),
    "many huge sizes": (one(shape=(2**62,) * 10_000), "beyond 64 bits"),
    "an unpaired surrogate": (pack({"a\ud800": entry()}, bytes(4)), "not valid Unicode"),
    "shape whose size wraps to 4 bytes": (one(shape=(2**63 + 1, 2), size=8), "'a' has "),
    "sizes of 4,000 digits": (one(shape=(10**4000, 10**4000)), "'a' "),
    **{f"offsets {offsets}": (one(offsets=offsets, size=8), f"data_offsets {list(offsets)}")
       for offsets in ((-4, 0), (0, 4.0), (4,), (0, 4, 8))},
    "bool offsets": (one("U8", (1,), (False, True), size=1), "data_offsets [False, True]"),
    "offsets reversed": (one(offsets=(4, 0)), "'a' has -4 bytes"),
    "too few bytes for the shape": (one(shape=(2,)), "'a' has 4 bytes; F32 of shape [2] takes 8"),
    "too many bytes for the dtype": (one("BF16"), "'a' has 4 bytes; BF16 of shape [1] takes 2"),
    "offsets past the end": (one(shape=(25,), offsets=(0, 100)), "cut short"),
    "overlap": (pack({"a": entry("U8", (4,)), "b": entry("U8", (4,), (2, 6))}, bytes(6)),
                "'b' overlaps the one before"),
    "two tensors on the same bytes": (pack({"a": entry(), "b": entry()}, bytes(4)),
                                      "'b' overlaps the one before"),
    "gap between": (pack({"a": entry(), "b": entry(offsets=(8, 12))}, bytes(12)),
                    "'b' leaves a gap before it"),
    "gap at the start": (one(offsets=(4, 8), size=8), "'a' leaves a gap"),
    "bytes at the end": (VALID + b"\0", "followed by bytes that no tensor owns"),
    "bytes and no tensor": (pack({}, bytes(4)), "followed by bytes that no tensor owns"),
    "name twice": (pack(TWICE, bytes(4)), "names 'a' twice"),
    "key twice in an entry": (
        pack(b'{"a":{"dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
        "names 'dtype' twice"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "fragment"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_files_are_refused_with_a_clear_error(tmp_path, content, fragment):
    path = written(tmp_path, content)
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert "broken-one.safetensors" in str(caught.value)
    assert fragment in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("text", [
    b'{"a":%s' % json.dumps(entry()).encode() + b',"a":1' * 30_000 + b"}",
    b'{"a":{"dtype":"F32","shape":[' + b"9" * 19 + b",9" * 100_000 + b'],"data_offsets":[0,4]}}',
    json.dumps({f"{i:0>200}": entry(shape=(i,) * 99) for i in range(1_000)}).encode(),
], ids=["one name 30,000 times", "100,000 sizes", "many names"])  # fmt: skip
def test_a_large_malformed_header_is_refused_soon_and_in_few_words(tmp_path, text):
    start = time.process_time()
    with pytest.raises(CheckpointError) as caught:
        read_header(written(tmp_path, pack(text, bytes(4))))
    assert time.process_time() - start < 2
    assert len(str(caught.value)) < 2_000


def test_a_dtype_of_another_day_is_listed(tmp_path):
    header = {"a": entry("F4", (3, 4), (0, 6)), "b": entry("F31", (2,), (6, 9))}
    infos = read_header(written(tmp_path, pack(header, bytes(9))))
    assert [(i.dtype, i.shape, i.nbytes) for i in infos.values()] == [
        ("F4", (3, 4), 6), ("F31", (2,), 3)]  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_header(tmp_path / "pipe.safetensors")


def test_an_absent_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "gone.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match=f"{path.name} cannot be read"):
            read_header(path)
