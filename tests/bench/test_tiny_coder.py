"""The embedded model keeps what its README promises."""

import platform
import re

import pytest
import torch
from transformers import AutoTokenizer, Qwen2ForCausalLM

import qwenkit as qk
import tiny_coder
import tiny_programs
from baselines import ByteNgram, xz_bits
from qwenkit.pretrained import EMBEDDED
from qwenkit.programs import families_of

README = (EMBEDDED / "README.md").read_text(encoding="utf-8")
MEASURED_WITH = re.search(r"Measured with Python (\d+\.\d+)", README)[1]
SAME_PYTHON = platform.python_version().startswith(f"{MEASURED_WITH}.")
CODE = 'def add(a, b):\n    """Return a + b."""\n    return a + b\n\n\nclass Größe:\n\tpass  # 🙂\n'
OTHERS_FILES = f"the held-out files are Python {MEASURED_WITH}'s"
on_its_python = pytest.mark.skipif(not SAME_PYTHON, reason=OTHERS_FILES)


def test_it_is_what_load_pretrained_loads(monkeypatch):
    monkeypatch.delenv("QWENKIT_MODEL", raising=False)
    model, tokenizer = qk.load_pretrained()
    assert model.config == qk.Checkpoint(EMBEDDED).config
    assert tokenizer.num_tokens == model.config.vocab_size


def test_its_files_are_small_and_named():
    files = {file.name: file.stat().st_size for file in EMBEDDED.iterdir()}
    assert sum(files.values()) <= 16_000_000
    assert set(files) == {
        "README.md", "LICENSES-TEXT.txt", "curve.png", "config.json",
        *(f"recipe{part}.toml" for part in tiny_coder.PARTS),
        *(f"metrics{part}.csv" for part in tiny_coder.PARTS),
        "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip


def test_its_architecture_shows_what_the_notebooks_teach():
    checkpoint = qk.Checkpoint(EMBEDDED)
    config = checkpoint.config
    assert config.num_key_value_groups >= 3
    assert config.num_key_value_heads >= 2
    assert 4 <= config.num_hidden_layers <= 8
    assert config.head_dim in (32, 64)
    assert config.num_attention_heads * config.head_dim == config.hidden_size
    assert config.tie_word_embeddings
    checkpoint.validate()
    for name, tensor in checkpoint.load().items():
        assert tensor.dtype == torch.bfloat16
        assert not name.endswith("bias") or tensor.abs().max() > 0.01  # learned, not left at zero


def test_its_recipe_is_the_one_it_was_trained_by():
    parts = tiny_coder.parts(EMBEDDED)
    stored, shape = qk.Checkpoint(EMBEDDED).config.to_dict(), parts[0][0].model
    assert {name: stored[name] for name in shape} == dict(shape)
    for recipe, metrics in parts:
        assert metrics["step"][-1] == recipe.training.steps
        last = recipe.training.rates()(recipe.training.steps - 1)
        assert metrics["learning_rate"][-1] == pytest.approx(last, rel=1e-3)
        own = {"vocab_size", "short_epochs", "fim_lengths"}  # of a part; all else is the same text
        same = {name: value for name, value in vars(recipe.data).items() if name not in own}
        assert same.items() <= vars(parts[0][0].data).items()
        assert "bisect.py" in recipe.data.held_out
    joined = tiny_coder.all_metrics(EMBEDDED)
    assert joined["step"][-1] == sum(recipe.training.steps for recipe, _ in parts)
    assert joined["step"] == sorted(joined["step"])
    assert len(joined["loss"]) == len(joined["step"])


@on_its_python
def test_it_predicts_unseen_files_better_than_xz_and_five_grams():
    found, (train, held) = tiny_coder.bits(EMBEDDED), tiny_coder.texts(EMBEDDED)
    assert not {one.name for one in train} & {one.name for one in held}
    ngram = ByteNgram([one.text.encode() for one in train])
    for one in held:
        text = one.text.encode()
        ours = found[one.name].bits_per_byte
        assert ours <= 0.65 * xz_bits(text) / len(text), one.name
        assert ours < ngram.bits(text) / len(text), one.name
    # and the table in its README is what is measured
    rows = re.findall(r"^\| (\S+\.py) \| [\d,]+ \| ([\d.]+) \|", README, re.MULTILINE)
    assert {name for name, _ in rows} == set(found)
    for name, stated in rows:
        assert found[name].bits_per_byte == pytest.approx(float(stated), abs=0.011), name


def test_on_other_pythons_too_it_predicts_their_files():
    found = tiny_coder.bits(EMBEDDED).values()
    total = sum(found, start=tiny_coder.Evaluation(0.0, 0, 0))
    packed = sum(xz_bits(one.text.encode()) for one in tiny_coder.texts(EMBEDDED)[1])
    assert total.bits_per_byte <= 0.65 * packed / total.num_bytes


def test_it_has_a_previous_token_head_and_an_induction_head():
    best = tiny_coder.best_heads(EMBEDDED)
    assert best["previous-token"][0] >= 0.5
    assert best["induction"][0] >= 0.4


def test_its_page_counts_the_families_it_learned_from():
    trained, held_out = (len(families_of(split)) for split in ("train", "family"))
    assert f"from {trained} families," in README
    assert re.search(rf"held out, and another {held_out}\s+families", README)


def test_its_ten_completions_are_in_the_readme_and_eight_are_right():
    done = tiny_programs.completions(EMBEDDED)
    assert sum(one.right for one in done) >= 8
    for one in done:
        verdict = "Right" if one.right else "Wrong"
        assert f"{verdict}:\n\n```python\n{one.prompt}▶{one.text}".rstrip() in README


@pytest.mark.parametrize(
    ("split", "count", "least"), [("phrasing", 150, 0.7), ("family", 80, 0.25)]
)
def test_it_writes_programs_for_tasks_it_has_not_seen(split, count, least):
    found = tiny_programs.scored(EMBEDDED, split, samples=0, count=count)
    assert found.greedy().value >= least


def test_one_of_ten_programs_for_a_known_family_passes():
    assert tiny_programs.scored(EMBEDDED, "phrasing", count=40).pass_at(10).value >= 0.85


def test_its_page_states_figures_of_programs_that_are_high_enough():
    rows = re.findall(r"^\| ([a-z, ]+) \| \d+ \|(.*)\|$", README, re.MULTILINE)
    stated = {what: [float(one) for one in re.findall(r"([\d.]+)% \(", row)] for what, row in rows}
    greedy, one, ten = stated["known families, other words"]
    assert greedy >= 70
    assert one >= 50
    assert ten >= 85
    assert min(stated["other families"]) >= 25


def test_it_fills_gaps_in_programs():
    assert tiny_programs.filled_exactly(EMBEDDED, count=100) >= 0.4


@on_its_python
def test_held_out_gaps_cost_less_where_what_follows_is_in_sight():
    found = tiny_coder.infilling(EMBEDDED)
    assert found["with what follows"] < 0.95 * found["without"]
    assert found["with what follows"] < 2.6
    assert tiny_coder.filled_exactly(EMBEDDED) > 0.04


@on_its_python
def test_its_page_says_how_infilling_depends_on_the_text_around():
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", README, re.MULTILINE)
    assert [int(around) for around, *_ in rows] == list(tiny_coder.AROUND)
    for around, *losses in rows:
        found = list(tiny_coder.infilling(EMBEDDED, int(around)).values())
        assert found == pytest.approx([float(loss) for loss in losses], abs=0.011)


def test_transformers_loads_it_with_the_same_ids_and_logits():
    model, tokenizer = tiny_coder.load(EMBEDDED)
    theirs = Qwen2ForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)
    backend = AutoTokenizer.from_pretrained(EMBEDDED)
    assert theirs.config.architectures == ["Qwen2ForCausalLM"]
    chat = tokenizer.chat([{"role": "user", "content": "?"}])
    for text in (CODE, tokenizer.fim("def f(", "):\n"), chat):
        ids = tokenizer(text)
        assert backend(text)["input_ids"] == ids[0].tolist()
        assert backend.decode(ids[0]) == text == tokenizer.decode(ids)
        with torch.no_grad():
            torch.testing.assert_close(model(ids), theirs(ids).logits, rtol=1e-5, atol=1e-5)
