"""Speculative decoding: the text is that of `generate`, whoever guesses."""

import itertools
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from interruptions import interrupted
from reference import VARIANTS, ids, tiny
from speaking import fed_to, tokens

import qwenkit as qk
from qwenkit.errors import InputError, MemoryForecastError
from qwenkit.generate import DraftModel, GenerationConfig, PromptLookup, Proposal, speculative
from qwenkit.generate.speculative import verified
from qwenkit.generate.steps import continued
from qwenkit.generate.text import TextWriter, written
from qwenkit.pretrained import EMBEDDED

PROMPTS = [
    "def add(a, b):\n    return a + b\n\n\ndef subtract(a, b):", "class Stack:\n    def __init__",
    "x = [1, 2, 3, 1, 2, 3, 1,", "d",
]  # fmt: skip


class Oracle:
    """Proposes the right tokens, from a text that it knows; every `wrong`-th is another one."""

    def __init__(self, text, wrong=10**9):
        self.text = [token if i % wrong else token ^ 1 for i, token in enumerate(text, start=1)]

    def propose(self, ids, count):
        return Proposal(self.text[len(ids) : len(ids) + count])


class Nothing:
    """Never proposes anything."""

    def propose(self, ids, count):
        return Proposal([])


def oracle(model, prompt, count=64, wrong=10**9, **options):
    prompt = torch.as_tensor(prompt).flatten().tolist()
    return Oracle([*prompt, *tokens(model, prompt, count, stop_ids=(), **options)], wrong)


def speculated(model, prompt, draft="lookup", count=64, **options):
    """Return the new tokens, and the iterator with its counts."""
    steps = qk.speculate(model, prompt, draft, max_new_tokens=count, **options)
    return [step.token_id for step in steps], steps


def shaken(model, noise):
    """Change every matrix a little: a draft model that is right often, and often not."""
    generator = torch.Generator().manual_seed(3)
    for weight in model.parameters():
        if weight.dim() == 2:
            weight += noise * weight.std() * torch.randn(weight.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def smaller():
    """A draft model for tiny-coder."""
    return shaken(qk.load_pretrained(EMBEDDED, device="cpu", dtype="float32")[0], 0.1)


@pytest.fixture(scope="module")
def known():
    """A tiny model, a prompt, the greedy text of both, and a drafter that knows it."""
    model, prompt = tiny(), ids(1, 6)
    return SimpleNamespace(model=model, prompt=prompt, draft=oracle(model, prompt))


# --- greedy: the tokens of generate ---


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.2, "stop_ids": ()}])
@pytest.mark.parametrize("which", ["lookup", "model"])
def test_greedy_text_is_that_of_generate(coder, smaller, prompt, options, which):
    model, ids = coder[0], coder[1](prompt)
    want = tokens(model, ids, 32, **options)
    found, steps = speculated(model, ids, smaller if which == "model" else which, 32, **options)
    assert found == want
    assert steps.forwards + steps.accepted in (len(want), len(want) + 1)
    if which == "model" and len(want) > 20:
        assert 0 < steps.accepted <= steps.proposed
        assert steps.forwards < len(want)


def test_lookup_saves_forward_passes_where_a_text_repeats_itself(coder):
    _, steps = speculated(coder[0], coder[1]("x = [0.1, 0.2"), stop_ids=())
    assert steps.forwards + steps.accepted == 64
    assert steps.forwards < 32


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_text_in_bfloat16_is_that_of_generate_but_where_two_tokens_are_tied(prompt):
    """Several tokens at once round differently than one; 8 bits leave many logits equal."""
    model, tokenizer = qk.load_pretrained(EMBEDDED, device="cpu", dtype="bfloat16")
    pairs = zip(
        qk.generate(model, tokenizer(prompt), 32),
        qk.speculate(model, tokenizer(prompt), max_new_tokens=32),
        strict=False,
    )
    for want, step in pairs:
        torch.testing.assert_close(step.logits, want.logits, atol=0.25, rtol=0.02)
        if step.token_id != want.token_id:
            best, second = want.logits.topk(2).values.tolist()
            assert best - second <= 2**-6 * abs(best)
            break
    else:
        assert want.is_stop or want.index == 31


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_of_the_model_verifies_as_it_generates(variant):
    model, prompt = tiny(**VARIANTS[variant]), ids(1, 6)
    draft = oracle(model, prompt, 24, wrong=4)
    want = tokens(model, prompt, 24, stop_ids=())
    for drafter in ("lookup", shaken(tiny(**VARIANTS[variant]), 0.02), draft):
        assert speculated(model, prompt, drafter, 24, tokens=3, stop_ids=())[0] == want


def test_each_step_tells_what_those_of_generate_tell(toy):
    model, prompt = toy[0], toy[1]("def f(a):\n    return a\n\ndef f(a):")
    options = {"repetition_penalty": 1.3, "stop_ids": ()}
    draft = oracle(model, prompt, 20, wrong=4, repetition_penalty=1.3)
    wanted = list(qk.generate(model, prompt, 20, **options))
    found = list(qk.speculate(model, prompt, draft, max_new_tokens=20, **options))
    for want, step in zip(wanted, found, strict=True):
        assert (step.index, step.token_id) == (want.index, want.token_id)
        assert torch.equal(step.seen, want.seen)
        torch.testing.assert_close(step.logits, want.logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(step.probs, want.probs, atol=1e-6, rtol=1e-5)
        assert list(step.transforms) == list(want.transforms)
        assert step.logits.untyped_storage().nbytes() == step.logits.nbytes  # a row of its own


# --- how many forward passes, and how far they read ---


@pytest.mark.parametrize("count", [1, 2, 4, 6, 7, 11, 12])
def test_the_count_may_end_anywhere_among_accepted_tokens(known, count):
    with fed_to(known.model) as shapes:
        found, steps = speculated(
            known.model, known.prompt, known.draft, count, tokens=4, stop_ids=()
        )
    assert found == known.draft.text[6 : 6 + count]
    # one token by the prompt, then five per forward pass; the newest token is never read
    assert steps.forwards == len(shapes) == 1 + -(-(count - 1) // 5)
    assert sum(length for _, length in shapes) == 6 + count - 1
    assert steps.accepted == steps.proposed == count - steps.forwards
    assert steps.cache.length == 6 + count - 1


def test_right_and_wrong_guesses_are_counted(known):
    draft = Oracle(known.draft.text, wrong=8)  # the 8th, 16th and 24th token of the text
    with fed_to(known.model) as shapes:
        _, steps = speculated(known.model, known.prompt, draft, 20, tokens=4, stop_ids=())
    # the prompt gives the 7th token; then come 8, 9 to 13, 14 to 16, 17 to 21, 22 to 24, 25 and 26
    assert [length for _, length in shapes] == [6, 5, 5, 5, 5, 5, 2]
    assert (steps.proposed, steps.accepted, steps.forwards) == (21, 13, 7)


def test_where_nothing_is_proposed_it_takes_the_ordinary_step(monkeypatch):
    model, prompt, taken = tiny(), ids(1, 6), []
    ordinary = speculative.next_logits

    def counted(model, ids, cache, index):
        taken.append((index, ids.shape[1]))
        return ordinary(model, ids, cache, index)

    monkeypatch.setattr(speculative, "next_logits", counted)
    found, steps = speculated(model, prompt, Nothing(), 5, stop_ids=())
    assert found == tokens(model, prompt, 5, stop_ids=())
    assert taken == [(0, 6), (1, 1), (2, 1), (3, 1), (4, 1)]
    assert (steps.proposed, steps.accepted, steps.forwards) == (0, 0, 5)


def test_tokens_are_computed_when_asked_for(toy):
    model, prompt = toy[0], toy[1]("def f")
    draft = oracle(model, prompt, 8)
    with fed_to(model) as shapes:
        steps = qk.speculate(model, prompt, draft, tokens=3, stop_ids=())
        assert shapes == []
        next(steps)
        assert shapes == [prompt.shape]
        for _ in range(4):
            next(steps)
            assert shapes == [prompt.shape, (1, 4)]
        next(steps)
        assert len(shapes) == 3


@pytest.mark.parametrize("stop_ids", [(), None])
def test_nothing_is_read_beyond_what_the_model_was_made_for(stop_ids):
    """A warning would fail this test; guesses alone must not cause one."""
    model = tiny()  # made for 128 tokens
    prompt = ids(1, 120)
    want = tokens(model, prompt, 9, stop_ids=())
    if stop_ids is None:  # it stops before, and is allowed far more
        model.stop_ids = (want[4],)
    found, steps = speculated(
        model, prompt, oracle(model, prompt, 9), 9 if stop_ids == () else 500, stop_ids=stop_ids
    )
    assert found == (want if stop_ids == () else want[: want.index(want[4]) + 1])
    assert steps.accepted > 2
    with pytest.warns(UserWarning, match="expect nonsense"):
        long, _ = speculated(model, prompt, Oracle([0] * 200), 12, stop_ids=())
    assert len(long) == 12


@pytest.mark.parametrize("short", ["made for", "room for"])
def test_a_draft_model_proposes_nothing_beyond_its_own_length(short):
    model, prompt = tiny(), ids(1, 6)
    draft = tiny(max_position_embeddings=20) if short == "made for" else tiny()
    drafter = DraftModel(draft, max_length=20 if short == "room for" else 100)
    with fed_to(draft) as shapes:
        found, steps = speculated(model, prompt, drafter, 40, tokens=4, stop_ids=())
    assert found == tokens(model, prompt, 40, stop_ids=())
    assert sum(length for _, length in shapes) == 20
    assert 10 < steps.accepted <= 15
    assert steps.forwards == 40 - steps.accepted


# --- where it ends, and what it leaves behind ---


def undisturbed(model, prompt, count, **options):
    """Return the cache of an ordinary generation, after so many steps."""
    cache = qk.KVCache(model.config, 1, prompt.shape[1] + 64)
    config = GenerationConfig(max_new_tokens=count, stop_ids=(), **options)
    list(continued(model, prompt, cache, config))
    return cache


def same_caches(one, other):
    assert one.length == other.length
    for mine, its in zip(one.keys + one.values, other.keys + other.values, strict=True):
        torch.testing.assert_close(
            mine[:, :, : one.length], its[:, :, : one.length], atol=1e-5, rtol=1e-5
        )
    return True


@pytest.mark.parametrize("place", [0, 1, 3, 5, 6, 7, 8])
def test_a_stop_token_among_accepted_ones_ends_it(known, place):
    stop = known.draft.text[6 + place]
    want = known.draft.text[6 : known.draft.text.index(stop, 6) + 1]
    steps = qk.speculate(known.model, known.prompt, known.draft, tokens=5, stop_ids=(stop,))
    found = list(steps)
    assert [step.token_id for step in found] == want
    assert [step.is_stop for step in found] == [False] * (len(want) - 1) + [True]
    assert next(steps, None) is None
    assert same_caches(steps.cache, undisturbed(known.model, known.prompt, len(want)))


@pytest.mark.parametrize("wrong", [3, 10**9])
@pytest.mark.parametrize("read", range(1, 8))
def test_a_caller_who_reads_no_further_leaves_a_cache_of_what_was_read(known, read, wrong):
    draft = Oracle(known.draft.text, wrong)
    steps = qk.speculate(known.model, known.prompt, draft, tokens=4, stop_ids=())
    for _ in range(read):
        next(steps)
    steps.close()
    assert next(steps, None) is None
    assert same_caches(steps.cache, undisturbed(known.model, known.prompt, read))


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 1}])
def test_after_the_end_the_cache_is_that_of_an_ordinary_generation(options):
    model, prompt = tiny(), ids(1, 6)
    found, steps = speculated(model, prompt, shaken(tiny(), 0.02), 20, stop_ids=(), **options)
    want = qk.KVCache(model.config, 1, 64)
    model(torch.cat([prompt, torch.tensor([found[:-1]])], dim=1), cache=want)
    assert same_caches(steps.cache, want)


def test_ctrl_c_at_any_line_leaves_drafter_and_cache_right(known):
    model, prompt, want = known.model, known.prompt, known.draft.text[6:12]
    drafter, found = DraftModel(shaken(tiny(), 0.02), max_length=40), []
    options = {"tokens": 2, "max_new_tokens": 6, "stop_ids": ()}

    def act(steps):
        found.clear()
        found.extend(step.token_id for step in steps)

    at, step = 1, 257
    steps = qk.speculate(model, prompt, drafter, **options)
    while interrupted(lambda steps=steps: act(steps), at):
        if steps.cache.length:
            fresh = qk.KVCache(model.config, 1, 64)
            model(torch.tensor([known.draft.text[: steps.cache.length]]), cache=fresh)
            assert same_caches(steps.cache, fresh)
        steps = qk.speculate(model, prompt, drafter, **options)
        assert [one.token_id for one in steps] == want
        at += step
        steps = qk.speculate(model, prompt, drafter, **options)
    assert found == want
    assert at > 3 * step


def test_a_drafter_serves_several_texts_and_reads_only_what_is_new():
    model, draft = tiny(), shaken(tiny(), 0.02)
    drafter = DraftModel(draft, max_length=100)
    one, other = ids(1, 30), ids(1, 30, seed=2)
    for prompt in (one, other, one, torch.cat([one, other], dim=1), one[:, :4]):
        want = tokens(model, prompt, 10, stop_ids=())
        assert speculated(model, prompt, drafter, 10, stop_ids=())[0] == want
    drafter.propose(one[0], 1)
    with fed_to(draft) as shapes:
        drafter.propose(one[0], 1)  # all is in its cache, and the last token is read again
        drafter.propose(torch.cat([one[0], torch.tensor([7, 8])]), 3)
    assert shapes == [(1, 1), (1, 2), (1, 1), (1, 1)]


def test_what_comes_is_text_for_those_who_write_it(coder):
    model, tokenizer = coder
    for stops in ((), ("return",), (")",)):
        want = qk.complete(*coder, PROMPTS[0], 30, stop_strings=stops)
        steps = qk.speculate(model, tokenizer(PROMPTS[0]), max_new_tokens=30)
        assert "".join(written(steps, TextWriter(tokenizer, stops))) == want


@pytest.mark.parametrize("enabled", [True, False])
def test_the_callers_gradient_mode_is_left_alone(enabled):
    model, draft = tiny().requires_grad_(True), tiny(seed=2).requires_grad_(True)
    with torch.set_grad_enabled(enabled):
        for step in qk.speculate(model, [1, 2], draft, max_new_tokens=6, stop_ids=()):
            assert torch.is_grad_enabled() == enabled
            assert not step.logits.requires_grad


def test_logits_that_are_not_finite_are_refused_where_they_count():
    model, prompt = tiny(), ids(1, 6) % 50
    want = tokens(model, prompt, 12, stop_ids=())
    poison = next(token for token in range(61) if token not in [*prompt[0].tolist(), *want])
    model.model.embed_tokens.weight[poison] = float("nan")  # whatever follows this token is NaN

    class Poison(Oracle):
        def propose(self, ids, count):
            return Proposal([poison] * count)

    assert speculated(model, prompt, Poison([]), 12, stop_ids=())[0] == want  # never accepted
    with pytest.raises(InputError, match=r"^draft: the model gave logits that are not finite"):
        DraftModel(model).propose(torch.tensor([poison]), 1)
    draft = Oracle([*prompt[0].tolist(), *want])
    model.model.embed_tokens.weight[want[2]] = float("nan")
    steps = qk.speculate(model, prompt, draft, max_new_tokens=12, stop_ids=())
    assert [next(steps).token_id for _ in range(3)] == want[:3]
    with pytest.raises(InputError, match=r"^the model gave logits that are not finite at step 3"):
        next(steps)


# --- sampled: the distribution of generate ---

LENGTH = 4  # new tokens of a vocabulary of three: 81 texts
SMALL = {"vocab_size": 3, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
START = [0, 0]
SAMPLED = {"temperature": 1.4, "repetition_penalty": 1.5, "min_p": 0.02}
SAMPLES = 1_000


def small(seed):
    """Return a model that looks up the logits of a text it has read before: there are few."""
    model, known = tiny(**SMALL, seed=seed), {}
    forward = model.forward

    def remembered(input_ids, *, cache, attention_mask=None, logits_to_keep=0):
        read = getattr(cache, "text", [])[: cache.length]
        cache.text = [*read, *input_ids[0].tolist()]
        cache.advance(input_ids.shape[1])
        rows = []
        for end in range(len(read) + 1, len(cache.text) + 1):
            text = tuple(cache.text[:end])
            if text not in known:
                known[text] = forward(torch.tensor([text]))[0, -1]
            rows.append(known[text])
        return torch.stack(rows)[None, -logits_to_keep:]

    model.forward = remembered
    return model


def exact(model):
    """Return the probability of each text, one forward pass per beginning, without a cache."""
    config = GenerationConfig(**SAMPLED)
    chances = {(): 1.0}
    for _ in range(LENGTH):
        chances = {
            (*text, token): chance * after
            for text, chance in chances.items()
            for token, after in enumerate(
                config.probabilities(
                    type(model).forward(model, torch.tensor([[*START, *text]]))[0, -1],
                    torch.tensor([*START, *text]),
                ).tolist()
            )
        }
    return chances


def chi_square(counts, chances):
    """Return the probability that samples of these chances lie so far from them, or farther.

    Cells of few expected samples are pooled; one that cannot occur must not.
    """
    total, cells, rest = sum(counts.values()), [], [0.0, 0.0]
    for cell, chance in chances.items():
        if chance == 0 and counts[cell]:
            return 0.0
        if chance * total >= 5:
            cells.append((counts[cell], chance * total))
        else:
            rest = [rest[0] + counts[cell], rest[1] + chance * total]
    cells += [tuple(rest)] if rest[1] >= 5 else []
    distance = sum((found - want) ** 2 / want for found, want in cells)
    halves = torch.tensor([(len(cells) - 1) / 2, distance / 2], dtype=torch.float64)
    return torch.special.gammaincc(*halves).item()


def sampled_texts(model, draft, samples=SAMPLES):
    """Return how often each text came, and how many guesses were made and accepted."""
    counts, guesses = Counter(), Counter()
    for seed in range(samples):
        options = {"stop_ids": (), "seed": seed, **SAMPLED}
        drafter = draft(GenerationConfig(**options))
        found, steps = speculated(model, START, drafter, LENGTH, tokens=3, **options)
        counts[tuple(found)] += 1
        guesses.update(proposed=steps.proposed, accepted=steps.accepted)
    return counts, guesses


OTHER = small(4)
DRAFTS = {
    "lookup": lambda config: PromptLookup(longest=2, shortest=1),
    "a draft model": lambda config: OTHER,
    "a draft model that samples otherwise": lambda config: DraftModel(
        OTHER, GenerationConfig(temperature=0.6, top_k=2, seed=config.seed)
    ),
    "a greedy draft model": lambda config: DraftModel(OTHER),
}


@pytest.fixture(scope="module")
def target():
    return SimpleNamespace(model=small(1), chances=exact(small(1)))


@pytest.mark.parametrize("draft", DRAFTS)
def test_samples_have_the_distribution_of_the_model(target, draft):
    counts, guesses = sampled_texts(target.model, DRAFTS[draft])
    assert guesses["proposed"] > SAMPLES
    assert 0.1 < guesses["accepted"] / guesses["proposed"] < 0.9
    assert chi_square(counts, target.chances) > 0.01


WRONG_RULES = {
    "always accepted": lambda probs, proposed, drawn_from, generator: proposed,
    "never accepted, p - q": lambda probs, proposed, drawn_from, generator: (
        replaced(probs, proposed, drawn_from, generator)
    ),
    "accepted by p alone, p in its place": lambda probs, proposed, drawn_from, generator: (
        proposed if torch.rand((), generator=generator) < probs[proposed]
        else int(torch.multinomial(probs, 1, generator=generator))
    ),
}  # fmt: skip


def replaced(probs, proposed, drawn_from, generator):
    q = torch.eye(3)[proposed] if drawn_from is None else drawn_from
    return int(torch.multinomial((probs - q).clamp(min=1e-9), 1, generator=generator))


@pytest.mark.parametrize("draft", ["lookup", "a draft model"])
@pytest.mark.parametrize("rule", WRONG_RULES)
def test_with_a_wrong_rule_they_do_not(target, draft, rule, monkeypatch):
    """Or the test above would prove little."""
    monkeypatch.setattr(speculative, "verified", WRONG_RULES[rule])
    counts, _ = sampled_texts(target.model, DRAFTS[draft])
    assert chi_square(counts, target.chances) < 1e-6


def test_those_of_generate_have_it_too(target):
    """The exact probabilities are right, and the test does not refuse what is."""
    counts = Counter(
        tuple(tokens(target.model, START, LENGTH, stop_ids=(), seed=seed, **SAMPLED))
        for seed in range(SAMPLES)
    )
    assert sum(target.chances.values()) == pytest.approx(1, abs=1e-5)
    assert len(target.chances) == 3**LENGTH
    assert chi_square(counts, target.chances) > 0.01


@pytest.mark.parametrize("seed", range(4))
def test_a_verified_token_has_the_distribution_p_and_is_accepted_as_often_as_the_paper_says(seed):
    """Corollary 3.6: the probability of acceptance is the sum of min(p, q)."""
    generator = torch.Generator().manual_seed(seed)
    p, q = (torch.randn(7, generator=generator).mul(1.5).softmax(0) for _ in "pq")
    p[2] = q[5] = 0  # one that must never come, and one that is never proposed
    p, q = p / p.sum(), q / q.sum()
    total, accepted, counts = 8_000, 0, Counter()
    for proposed in torch.multinomial(q, total, replacement=True, generator=generator).tolist():
        token = verified(p, proposed, q, generator)
        counts[token] += 1
        accepted += token == proposed
    assert chi_square(counts, dict(enumerate(p.tolist()))) > 0.01
    rate = torch.minimum(p, q).sum().item()
    assert accepted / total == pytest.approx(rate, abs=4 * (rate * (1 - rate) / total) ** 0.5)


def test_a_token_is_never_replaced_by_one_that_cannot_come():
    generator = torch.Generator().manual_seed(0)
    p, sure = torch.tensor([0.0, 0.75, 0.25, 0.0]), torch.tensor([0.0, 1.0, 0.0, 0.0])
    shorter = torch.tensor([0.5, 0.5])  # a smaller vocabulary, the others have probability 0
    for _ in range(200):
        assert verified(p, 0, None, generator) in (1, 2)
        assert verified(p, 1, p, generator) == 1  # p = q: always accepted
        assert verified(p, 0, shorter, generator) in (1, 2)
        assert verified(sure, 1, None, generator) == 1
        assert verified(sure, 0, None, generator) == 1
    nearly = p + torch.tensor([0.0, 1e-7, 1e-7, 1e-3])
    assert {verified(p, 3, nearly, generator) for _ in range(50)} <= {1, 2}


def test_a_seed_reproduces_and_draft_and_model_draw_different_numbers(toy):
    """With the same numbers a proposal would tell what decides on it."""
    model, prompt = toy[0], toy[1]("def f")

    def sampled(**seed):
        options = {"temperature": 1.0, "stop_ids": (), **seed}
        return speculated(model, prompt, model, 24, **options)[0]

    assert sampled(seed=5) == sampled(seed=5) != sampled(seed=6)
    assert sampled() != sampled()
    config = GenerationConfig(temperature=1.0, seed=7)
    own = DraftModel(model, config)._generator.get_state()
    assert not torch.equal(own, config.generator().get_state())


def test_an_equal_draft_model_that_samples_is_always_right(toy):
    options = {"temperature": 0.8, "top_k": 30, "repetition_penalty": 1.2, "seed": 3}
    found, steps = speculated(toy[0], toy[1]("def f"), toy[0], 40, stop_ids=(), **options)
    assert len(found) == 40
    assert steps.accepted >= 0.95 * steps.proposed  # rounding may reject a rare one
    assert max(found) < toy[1].num_tokens < toy[0].config.vocab_size


def test_a_draft_model_may_have_another_dtype_and_another_number_of_padding_rows():
    wide, narrow = tiny(vocab_size=61), tiny(vocab_size=50, seed=1)
    wide.num_tokens = narrow.num_tokens = 48
    hot = {"temperature": 2.0, "seed": 0, "tokens": 3, "stop_ids": ()}
    for model, draft in ((wide, narrow), (narrow, wide.bfloat16())):
        want = tokens(model, [1, 2, 3], 12, stop_ids=())
        assert speculated(model, [1, 2, 3], draft, 12, stop_ids=())[0] == want
        found, steps = speculated(model, [1, 2, 3], draft, 24, **hot)
        assert steps.accepted > 0
        assert max(found) < 48


# --- drafters ---

LOOKUPS = {
    "what followed": ([5, 6, 7, 8, 5, 6], 2, [7, 8]),
    "no earlier occurrence": ([1, 2, 3, 4, 5, 6], 4, []),
    "one token is too few": ([1, 2, 3, 1], 4, []),
    "the longest counts": ([1, 2, 3, 10, 9, 2, 3, 11, 1, 2, 3], 1, [10]),
    "of several the latest": ([2, 3, 10, 2, 3, 11, 2, 3], 1, [11]),
    "a text that repeats goes on": ([1, 2, 1, 2], 5, [1, 2, 1, 2, 1]),
    "one token again and again": ([7, 7, 7], 3, [7, 7, 7]),
    "a single token": ([7], 3, []),
}


@pytest.mark.parametrize("name", LOOKUPS)
def test_lookup_proposes_what_followed_the_same_tokens(name):
    text, count, want = LOOKUPS[name]
    assert PromptLookup().propose(torch.tensor(text), count) == Proposal(want)


@pytest.mark.parametrize(("longest", "shortest"), [(1, 1), (3, 1), (5, 2), (4, 4), (10**30, 2)])
def test_lookup_equals_a_search_by_hand(longest, shortest):
    generator = torch.Generator().manual_seed(0)
    found = 0
    for length, _ in itertools.product(range(1, 30), range(20)):
        text = torch.randint(4, (length,), generator=generator)
        want, whole = [], text.tolist()
        for size in range(min(longest, length - 1), shortest - 1, -1):
            places = [i for i in range(length - size) if whole[i:][:size] == whole[-size:]]
            if places:
                after = places[-1] + size
                want = list(itertools.islice(itertools.cycle(whole[after:]), 6))
                break
        assert PromptLookup(longest, shortest).propose(text, 6).tokens == want
        found += bool(want)
    assert found > 20


def test_a_greedy_draft_model_proposes_its_greedy_text_and_stops_at_a_stop_token():
    draft, prompt = tiny(seed=2), ids(1, 6)
    want = tokens(draft, prompt, 6, stop_ids=())
    assert DraftModel(draft).propose(prompt[0], 6) == Proposal(want)
    config = GenerationConfig(stop_ids=(want[3],))
    assert DraftModel(draft, config).propose(prompt[0], 6).tokens == want[: want.index(want[3]) + 1]


def test_a_draft_model_that_samples_tells_what_each_token_was_drawn_from():
    draft, prompt = tiny(seed=2), ids(1, 6)
    draft.num_tokens = 40
    config = GenerationConfig(temperature=0.9, top_k=5, repetition_penalty=1.3, seed=1)
    found, probs = DraftModel(draft, config).propose(prompt[0], 6)
    assert probs.shape == (6, 40)
    text = prompt[0].tolist()
    for token, row in zip(found, probs, strict=True):
        logits = draft(torch.tensor([text]))[0, -1]
        logits[40:] = float("-inf")
        want = config.probabilities(logits, torch.tensor(text))[:40]
        torch.testing.assert_close(row, want, atol=1e-5, rtol=1e-5)
        assert row[token] > 0
        text.append(token)


# --- what is refused ---


class Says:
    """A drafter that proposes whatever it is given."""

    def __init__(self, *proposal):
        self.proposal = proposal[0] if len(proposal) == 1 else Proposal(*proposal)

    def propose(self, ids, count):
        return self.proposal


ROW = torch.full((1, 61), 1 / 61)
BAD_PROPOSALS = {
    "not a proposal": (Says([1]), "draft proposed a list; it must be a Proposal"),
    "too many": (Says([1] * 5, None), "at most 4 ids from 0 to 60"),
    "an id past the vocabulary": (Says([61], None), "at most 4 ids"),
    "a negative id": (Says([-1], None), "at most 4 ids"),
    "not ids": (Says([1.5], None), "at most 4 ids"),
    "a tensor": (Says(torch.tensor([1]), None), "at most 4 ids"),
    "a row is missing": (Says([1, 2], ROW), r"shape \(1, 61\)"),
    "a row alone": (Says([1], ROW[0]), r"\(1, V\), a distribution for each token"),
    "not a tensor": (Says([1], [0.5]), "shape list"),
    "too wide": (Says([1], torch.ones(1, 62) / 62), r"shape \(1, 62\)"),
    "too narrow": (Says([1], torch.ones(1, 1)), r"shape \(1, 1\)"),
    "a token that was not drawn": (Says([1], torch.eye(61)[:1]), "must be above 0"),
    "no distribution": (Says([1], torch.ones(1, 61)), "each row must sum to 1"),
    "negative": (Says([1], torch.tensor([[-1.0, 2.0]])), "without negative values"),
    "not finite": (Says([1], torch.full((1, 61), float("nan"))), "each row must sum to 1"),
}


@pytest.mark.parametrize("name", BAD_PROPOSALS)
def test_bad_proposals_are_refused_by_name(name):
    draft, words = BAD_PROPOSALS[name]
    steps = qk.speculate(tiny(), [1], draft, tokens=4, temperature=1.0, stop_ids=())
    with pytest.raises(InputError, match=words):
        next(steps)


BAD = {
    "tokens": (0, -1, 2.0, True, None), "input_ids": ([], [[1], [2]], "x", [61]),
    "draft": ("look-up", None, 3, torch.nn.Linear(2, 2), PromptLookup, ["lookup"]),
    "max_new_tokens": (0, None), "temperature": (-1,),
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, v) for name in BAD for v in BAD[name]])
def test_bad_arguments_are_refused_at_the_call(name, value):
    with pytest.raises(InputError, match=name):
        qk.speculate(tiny(), **{"input_ids": [1, 2], "max_new_tokens": 3, name: value})


def test_a_draft_with_another_vocabulary_is_refused_at_the_call():
    other = tiny(vocab_size=60)
    for draft in (other, DraftModel(other)):
        with pytest.raises(InputError, match=r"60 tokens and the model one of 61; .* tokenizer"):
            qk.speculate(tiny(), [1, 2], draft)


def test_drafters_refuse_bad_arguments():
    for wrong in ({"longest": 0}, {"shortest": 1.5}, {"longest": 2, "shortest": 3}):
        with pytest.raises(InputError, match=r"longest|shortest"):
            PromptLookup(**wrong)
    for wrong, words in (
        ({"model": None}, "model is a NoneType"), ({"config": 3}, "config is 3; it must be"),
        ({"max_length": 0}, "max_length is 0"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            DraftModel(**{"model": tiny(), **wrong})
    with pytest.raises(MemoryForecastError, match="smaller max_length"):
        DraftModel(tiny(), max_length=10**12)
    with pytest.raises(InputError, match=r"^draft: input_ids holds 61"):
        DraftModel(tiny()).propose(torch.tensor([61]), 1)
