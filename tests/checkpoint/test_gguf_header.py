"""GGUF headers: what is read equals what the gguf library reads, and nothing damaged gets through.

The library itself trusts every count in the file: of a damaged one it may fill the memory.
"""

import os
import random
import struct
import time
import tracemalloc

import gguf
import numpy as np
import pytest
import torch
from fixtures_toy import random_tensors, small_config
from gguf_writing import Kind, convert, entry, gguf_name, pack, tensor, text, write_gguf

from qwenkit.checkpoint import Checkpoint
from qwenkit.errors import CheckpointError, QwenkitError
from qwenkit.gguf import read_gguf
from qwenkit.tokenizer import Tokenizer

CONFIG = small_config()
TENSORS = random_tensors(CONFIG, torch.float32)


def written(tmp_path, content):
    path = tmp_path / "broken-one.gguf"
    path.write_bytes(content)
    return path


def test_what_is_read_equals_what_the_library_reads(tmp_path, toy):
    path = convert(toy, tmp_path / "a.gguf", Kind.Q8_0)
    ours, theirs = read_gguf(path), gguf.GGUFReader(path)
    assert ours.path == path
    own = {name for name in theirs.fields if name.startswith("GGUF.")}
    assert ours.metadata.keys() == theirs.fields.keys() - own
    for key, value in ours.metadata.items():
        want = theirs.fields[key].contents()
        if isinstance(value, np.ndarray):
            assert value.tolist() == want
        elif isinstance(value, float):
            assert np.float32(value) == np.float32(want)
        else:
            assert (value, type(value)) == (want, type(want))
    assert ours.metadata["qwen2.attention.layer_norm_rms_epsilon"] == 1e-6  # and not 9.99...e-07
    data = path.read_bytes()
    assert list(ours.tensors) == [one.name for one in theirs.tensors]
    for one in theirs.tensors:
        info = ours.tensors[one.name]
        assert info.shape == tuple(reversed(one.shape.tolist()))
        assert info.type.upper() == one.tensor_type.name
        assert (info.start, info.nbytes) == (one.data_offset, one.n_bytes)
        assert data[info.start : info.start + info.nbytes] == one.data.tobytes()


def test_every_type_of_metadata_is_read_and_versions_2_and_3(tmp_path):
    entries = [
        entry("a", 200, "u8"), entry("b", 2**40, "u64"), entry("c", -5, "i32"),
        entry("d", 0.1, "f32"), entry("e", 0.1, "f64"), entry("f", True, "bool"),
        entry("g", "né\0\n"), entry("h", 60_000, "u16"),
        text("list") + struct.pack("<IIQ3h", 9, 3, 3, -1, 0, 7),
        text("bools") + struct.pack("<IIQ2?", 9, 7, 2, True, False),
        text("texts") + struct.pack("<IIQ", 9, 8, 2) + text("") + text("x"),
        text("none") + struct.pack("<IIQ", 9, 8, 0), entry("general.alignment", 64),
    ]  # fmt: skip
    tensors = [tensor("t", (3,)), tensor("s", (), offset=64)]
    for version in (2, 3):
        data = pack(entries, tensors, bytes(68), version=version, align=64)
        found = read_gguf(written(tmp_path, data))
        lists = {key: found.metadata.pop(key).tolist() for key in ("list", "bools")}
        assert lists == {"list": [-1, 0, 7], "bools": [True, False]}
        assert found.metadata == {
            "a": 200, "b": 2**40, "c": -5, "d": 0.1, "e": 0.1, "f": True, "g": "né\0\n",
            "h": 60_000, "texts": ["", "x"], "none": [], "general.alignment": 64,
        }  # fmt: skip
        assert found.tensors["t"].start % 64 == 0
        assert found.tensors["s"].shape == ()
        assert (found.tensors["s"].nbytes, found.tensors["t"].nbytes) == (4, 12)
    assert read_gguf(written(tmp_path, pack())).tensors == {}


HUGE = 2**63
VALID = pack([entry("a", 1)], [tensor("t")], bytes(16))
MALFORMED = {
    "empty": (b"", "does not begin"), "three bytes": (b"GGU", "does not begin"),
    "a pickle": (b"\x80\x04.0000", "does not begin"),
    "safetensors": (struct.pack("<Q", 2) + b"{}", "does not begin with the letters GGUF"),
    "an older kind": (b"tjgg" + bytes(60), "does not begin"),
    "an error page": (b"<!DOCTYPE html>", "does not begin"),
    "the magic alone": (b"GGUF", "the version ends at byte 8, and the file has 4"),
    **{f"version {number}": (pack(version=number), f"version {number}; qwenkit reads versions 2")
       for number in (0, 1, 4, 2**31 + 3)},
    **{f"big endian, {number}": (b"GGUF" + struct.pack(">IQQ", number, 0, 0), "is a big-endian")
       for number in (2, 3)},
    "huge count of tensors": (pack(counts=(HUGE, 0)), "it claims 9,223,372,036,854,775,808 t"),
    "huge count of entries": (pack(counts=(0, HUGE)), "metadata entries; 131,072 is the limit"),
    "more entries than there are": (pack([entry("a", 1)], counts=(0, 2), align=1), "entry 1 ends"),
    "more tensors than there are": (pack(counts=(1, 0), align=1), "the name of tensor 0 ends"),
    "key longer than the file": (pack([struct.pack("<Q", HUGE)]), "the key of metadata entry 0"),
    "key that is not UTF-8": (pack([entry(b"a\xff", 1)]), "entry 0 is not UTF-8 text: b'a\\xff'"),
    "text that is not UTF-8": (pack([entry("a", b"\xff")]), "the value of 'a' is not UTF-8"),
    "name that is not UTF-8": (pack(tensors=[tensor(b"t\xfe")], data=bytes(16)), "tensor 0 is not"),
    "key twice": (pack([entry("a\x1b", 1)] * 2), "its metadata has 'a\\x1b' twice"),
    "type of a value": (pack([text("a") + struct.pack("<I", 13)]), "'a' has the unknown type 13"),
    "list of lists": (pack([text("a") + struct.pack("<IIQ", 9, 9, 1)]), "a list of the unknown"),
    "list of nothing known": (pack([text("a") + struct.pack("<IIQ", 9, 99, 1)]), "unknown type 99"),
    **{f"list of {count} of type {kind}": (
        pack([text("a") + struct.pack("<IIQ", 9, kind, count)], data=bytes(64)), says)
       for kind, count, says in (
           (0, HUGE, "ends at byte 9,22"), (8, HUGE, "strings; 1,048,576 is the limit"),
           (12, 2**61, "ends at byte 18"), (8, 50, "the value of 'a' ends"))},
    **{f"alignment {value}": (pack([entry("general.alignment", value)], [tensor("t")], bytes(16)),
                              f"general.alignment is {value!r}")
       for value in (0, 3, 48, "32")},
    "name twice": (pack(tensors=[tensor("t"), tensor("t", offset=32)], data=bytes(64)), "t' twice"),
    "five dimensions": (pack(tensors=[tensor("t", (1,) * 5)], data=bytes(16)), "5 dimensions"),
    "many dimensions": (pack(tensors=[tensor("t", dimensions=2**31)]), "2,147,483,648 dimensions"),
    "huge shape": (pack(tensors=[tensor("t", (2**62, 2**62))]), "beyond 64 bits"),
    "huge shape of nothing": (pack(tensors=[tensor("t", (2**62, 2**62, 0))]), "beyond 64 bits"),
    "huge offset": (pack(tensors=[tensor("t", offset=HUGE)]), "beyond 64 bits"),
    "half a block": (pack(tensors=[tensor("t", (100, 4), 12)], data=bytes(999)),
                     "rows of 100 values, and q4_K has blocks of 256"),
    "cut in the data": (VALID[:-1], "'t' ends at byte"),
    "offset past the end": (pack(tensors=[tensor("t", offset=4096)], data=bytes(16)), "cut short"),
    "overlap": (pack(tensors=[tensor("t", (32,)), tensor("s", offset=64)], data=bytes(256)),
                "'s' overlaps 't'"),
    "two tensors on the same bytes": (pack(tensors=[tensor("t"), tensor("s")], data=bytes(64)),
                                      "overlaps"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "fragment"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_files_are_refused_with_a_clear_error(tmp_path, content, fragment):
    path = written(tmp_path, content)
    tracemalloc.start()
    start = time.process_time()
    for read in (read_gguf, Checkpoint, Tokenizer):
        with pytest.raises(QwenkitError) as caught:
            read(path)
        assert fragment in str(caught.value)
        assert "broken-one.gguf" in str(caught.value)
        assert str(caught.value).isprintable()
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()
    assert time.process_time() - start < 5


def test_a_header_over_100_mb_is_refused_unread(tmp_path):
    path = written(tmp_path, pack([text("a") + struct.pack("<IIQ", 9, 0, 2**28)]))
    os.truncate(path, 2**29)  # a sparse file, which takes no room
    with pytest.raises(CheckpointError, match="of the header; 100 MB is the limit"):
        read_gguf(path)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.gguf")
    for name in ("pipe.gguf", "absent.gguf", "folder.gguf"):
        (tmp_path / "folder.gguf").mkdir(exist_ok=True)
        with pytest.raises(QwenkitError):
            read_gguf(tmp_path / name)
        with pytest.raises(QwenkitError):
            Checkpoint(tmp_path / name)


def test_a_damaged_header_is_refused_or_loads_what_the_library_loads(tmp_path):
    path = write_gguf(tmp_path / "a.gguf", CONFIG, TENSORS)
    content, chance = path.read_bytes(), random.Random(1)
    end = content.index(b"output_norm.weight") + 60
    refused = loaded = 0
    for _ in range(500):
        at = chance.randrange(end)
        mutant = bytearray(content)
        mutant[at] = chance.choice([mutant[at] ^ (1 << chance.randrange(8)), 0, 255])
        mutant = bytes(mutant[: chance.choice([len(mutant)] * 4 + [at])])
        path.unlink()  # a new file: the old one may still be mapped
        path.write_bytes(mutant)
        try:
            ours = Checkpoint(path).load(torch.float32)
        except QwenkitError:  # any other exception fails the test
            refused += 1
            continue
        except UserWarning:  # an unknown key
            continue
        theirs = {one.name: np.array(one.data) for one in gguf.GGUFReader(path).tensors}
        for name, values in ours.items():
            np.testing.assert_array_equal(values.numpy(), theirs[gguf_name(name)])
        loaded += 1
    assert refused > 200
    assert loaded > 20


def test_cut_at_every_byte_is_refused(tmp_path):
    path = write_gguf(tmp_path / "a.gguf", CONFIG, TENSORS)
    content = path.read_bytes().rstrip(b"\0")
    for length in range(0, len(content) - 4, 5):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="not a valid GGUF file"):
            Checkpoint(path)
