"""Answers to exercises 12.1, 12.2 and 12.4: the loss, a step of AdamW, the training loop."""

import math

import torch
import torch.nn.functional as F

from qwenkit.train import IGNORE, make_optimizer, next_token_loss


# my_loss(logits, labels)
def _by_logsumexp(logits, labels):
    logits = logits.float()
    right = logits.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    losses = logits.logsumexp(-1) - right
    return losses[labels != IGNORE].mean()


def _selected_first(logits, labels):
    counts = labels != IGNORE
    rows, its = logits[counts].float(), labels[counts]  # (N, V), (N,)
    shifted = rows - rows.max(-1, keepdim=True).values
    logs = shifted - shifted.exp().sum(-1, keepdim=True).log()
    return -logs[torch.arange(len(its)), its].mean()


def _in_a_loop(logits, labels):
    losses = []
    for row, label in zip(logits.flatten(0, 1).float(), labels.flatten().tolist(), strict=True):
        if label != IGNORE:
            losses.append(-torch.log_softmax(row, 0)[label])
    return sum(losses) / len(losses)


def _masked_sum(logits, labels):
    counts = labels.ne(IGNORE)
    logs = F.log_softmax(logits.to(torch.float32), dim=-1)
    chosen = torch.take_along_dim(logs, labels.where(counts, 0)[..., None], -1)[..., 0]
    return -(chosen.where(counts, 0.0)).sum() / counts.sum()


def _of(logs, labels, over=None, zero=True):
    """Return minus the right tokens' values; `over` says what becomes of them."""
    counts = labels != IGNORE
    losses = -torch.take_along_dim(logs, labels.where(counts, 0)[..., None], -1)[..., 0]
    return over(losses, counts) if over else losses[counts].mean()


def _logs(logits):
    return logits.float().log_softmax(-1)


LOSS_RIGHT = [_by_logsumexp, _selected_first, _in_a_loop, _masked_sum]
LOSS_WRONG = [
    ("ignored labels count as zeros",
        lambda x, y: _of(_logs(x), y, lambda losses, c: losses.where(c, 0.0).mean())),
    ("ignored labels count",
        lambda x, y: -_logs(x).gather(-1, y.clamp(0)[..., None]).mean()),
    ("error", lambda x, y: -_logs(x).gather(-1, y[..., None]).mean()),
    ("zero times infinity",
        lambda x, y: _of(_logs(x), y, lambda losses, c: (losses * c).sum() / c.sum())),
    ("sum", lambda x, y: _of(_logs(x), y, lambda losses, c: (losses * c).sum())),
    ("divided by the texts",
        lambda x, y: _of(_logs(x), y, lambda losses, c: (losses * c).sum() / x.shape[0])),
    ("mean of means", lambda x, y:
        _of(_logs(x), y, lambda one, c: (one.where(c, 0.0).sum(1) / c.sum(1)).mean())),
    ("too large to exponentiate", lambda x, y:
        _of((x.float().exp() / x.float().exp().sum(-1, keepdim=True)).log(), y)),
    ("too large to exponentiate", lambda x, y: _of(torch.log(torch.softmax(x.float(), -1)), y)),
    ("a small number added", lambda x, y: _of((x.float().softmax(-1) + 1e-8).log(), y)),
    ("not upcast", lambda x, y: _of(x.log_softmax(-1), y)),
    ("sign", lambda x, y: -_by_logsumexp(x, y)),
    ("probability", lambda x, y: _of(x.float().softmax(-1), y, lambda p, c: (1 + p[c]).mean())),
    ("probability", lambda x, y: _of(x.float().softmax(-1), y)),
    ("bits", lambda x, y: _by_logsumexp(x, y) / math.log(2)),
    ("perplexity", lambda x, y: torch.exp(_by_logsumexp(x, y))),
    ("scores alone", lambda x, y: _of(x.float(), y)),
    ("softmax twice", lambda x, y: _by_logsumexp(x.float().softmax(-1), y)),
    ("wrong dimension", lambda x, y: _of(x.float().log_softmax(1), y)),
    ("wrong dimension", lambda x, y: _of(x.float().log_softmax(0), y)),
    ("not reduced", lambda x, y: _of(_logs(x), y, lambda losses, c: losses)),
    ("not reduced", lambda x, y: _of(_logs(x), y, lambda losses, c: losses[c])),
    ("first text only", lambda x, y: _by_logsumexp(x[:1], y[:1])),
    ("last position only", lambda x, y: _by_logsumexp(x[:, -1:], y[:, -1:])),
    ("shifted again", lambda x, y: _by_logsumexp(x[:, :-1], y[:, 1:])),
    ("no gradient", lambda x, y: _by_logsumexp(x.detach(), y)),
    ("a float", lambda x, y: _by_logsumexp(x, y).item()),
    ("forbidden", lambda x, y: F.cross_entropy(x.float().flatten(0, 1), y.flatten())),
    ("forbidden", lambda x, y: next_token_loss(x, y)),
    ("forbidden", lambda x, y: F.nll_loss(_logs(x).flatten(0, 1), y.flatten())),
    ("values", lambda x, y: 3 + _by_logsumexp(x, y)),
    ("error", lambda x, y: x[y].mean()),
]  # fmt: skip


# adamw(weight, gradient, m, v, step, rate, decay)
def _adamw(
    b1=0.9, b2=0.95, c1=True, c2=True, at=0, root=torch.sqrt, eps=1e-8, inside=0.0, l2=False,
    pull=lambda w, rate, decay: rate * decay * w, sign=-1, square=torch.square,
):  # fmt: skip
    def step_of(weight, gradient, m, v, step, rate, decay):
        g = gradient + decay * weight if l2 else gradient
        m = m * b1 + g * (1 - b1)
        v = v * b2 + square(g) * (1 - b2)
        m_hat = m / (1 - b1 ** (step + at)) if c1 else m
        v_hat = v / (1 - b2 ** (step + at)) if c2 else v
        moved = m_hat / (root(v_hat + inside) + eps)
        weight = weight - (0 if l2 else pull(weight, rate, decay)) + sign * rate * moved
        return weight, m, v

    return step_of


def _by_torch(weight, gradient, m, v, step, rate, decay):
    """Take the step in the order of PyTorch's code."""
    weight, m, v = weight.clone(), m.clone(), v.clone()
    m.lerp_(gradient, 0.1)
    v.mul_(0.95).addcmul_(gradient, gradient, value=0.05)
    weight.mul_(1 - rate * decay)
    bias1, bias2 = 1 - 0.9**step, 1 - 0.95**step
    denominator = (v.sqrt() / math.sqrt(bias2)).add_(1e-8)
    weight.addcdiv_(m, denominator, value=-rate / bias1)
    return weight, m, v


def _in_place(weight, gradient, m, v, step, rate, decay):
    new, m_new, v_new = _adamw()(weight, gradient, m, v, step, rate, decay)
    weight.copy_(new)
    return weight, m_new, v_new


def _then(change):
    return lambda *given: change(*_adamw()(*given), *given)


ADAMW_RIGHT = [_adamw(), _by_torch, lambda *given: list(_adamw()(*given))]
ADAMW_WRONG = [
    ("no correction", _adamw(c1=False, c2=False)),
    ("v not corrected", _adamw(c2=False)),
    ("m not corrected", _adamw(c1=False)),
    ("correction of one step", lambda w, g, m, v, step, *more: _adamw()(w, g, m, v, 1, *more)),
    ("correction times the step", lambda w, g, m, v, step, rate, decay: (
        w * (1 - rate * decay) - rate * (0.9 * m + 0.1 * g) / (1 - 0.9 * step)
        / (((0.95 * v + 0.05 * g * g) / (1 - 0.95 * step)).sqrt() + 1e-8),
        0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g)),
    ("step counted from 0", _adamw(at=1)),
    ("corrected means returned", _then(lambda w, m, v, w0, g, m0, v0, step, *_:
        (w, m / (1 - 0.9**step), v / (1 - 0.95**step)))),
    ("betas exchanged", _adamw(b1=0.95, b2=0.9)),
    ("betas reversed", _adamw(b1=0.1, b2=0.05)),
    ("another beta", _adamw(b2=0.999)),
    ("old means ignored", lambda w, g, m, v, *more: _adamw()(w, g, 0 * m, 0 * v, *more)),
    ("no square root", _adamw(root=lambda v: v)),
    ("eps inside the root", _adamw(eps=0, inside=1e-8)),
    ("no eps", _adamw(eps=0)),
    ("not divided", _adamw(root=torch.ones_like, eps=0)),
    ("gradient for m", _then(lambda w, m, v, w0, g, m0, v0, step, rate, decay:
        (w0 - rate * decay * w0 - rate * g / ((v / (1 - 0.95**step)).sqrt() + 1e-8), m, v))),
    ("no square", _adamw(square=torch.abs)),
    ("no square", _adamw(square=lambda g: g)),
    ("decay in the gradient", _adamw(l2=True)),
    ("no decay", _adamw(pull=lambda w, rate, decay: 0)),
    ("decay without rate", _adamw(pull=lambda w, rate, decay: decay * w)),
    ("decay of the new weight", _then(lambda w, m, v, w0, g, m0, v0, step, rate, decay:
        ((w + rate * decay * w0) * (1 - rate * decay), m, v))),
    ("decay pushes away", _adamw(pull=lambda w, rate, decay: -rate * decay * w)),
    ("uphill", _adamw(sign=1)),
    ("no rate", _then(lambda w, m, v, w0, g, m0, v0, step, rate, decay:
        (w0 - rate * decay * w0 + (w - w0 + rate * decay * w0) / rate, m, v))),
    ("weight alone", _then(lambda w, *_: w)),
    ("the step, not the weight", _then(lambda w, m, v, w0, g, m0, v0, step, rate, decay:
        (w0 * (1 - rate * decay) - w, m, v))),
    ("order of results", _then(lambda w, m, v, *_: (m, v, w))),
    ("changes its input", _in_place),
    ("forbidden", lambda *given: (_adamw()(*given), torch.optim.AdamW)[0]),
    ("kind", _then(lambda w, m, v, *_: {"weight": w, "m": m, "v": v})),
    ("error", lambda weight, *more: weight / more),
]  # fmt: skip


# train(model, batches, rates, clip, decay)
def _train(
    zero="first", clip_by="norm", step_of=None, matrices=True, vectors=False, rate_of=None,
    batch_of=None, count=lambda t: t, forget=False, answer=list, every=False, loss_of=None,
    early=False, moves=True,
):  # fmt: skip
    step_of = step_of or _adamw()

    def train(model, batches, rates, clip, decay):
        trained = [p for p in model.parameters() if every or p.requires_grad]
        for p in trained:
            p.requires_grad_(True)
        state = {p: (torch.zeros_like(p), torch.zeros_like(p)) for p in trained}
        losses = []
        for t, (batch, rate) in enumerate(zip(batches, rates, strict=True), start=1):
            batch = batch_of(batches) if batch_of else batch
            rate = rate_of(rates) if rate_of else rate
            if loss_of:
                loss = loss_of(model, batch)
            else:
                loss = next_token_loss(model(batch.input_ids), batch.labels)
            if zero == "first":
                for p in trained:
                    p.grad = None
            loss.backward()
            losses.append(loss.item())
            if zero == "late":
                model.zero_grad(set_to_none=False)
            norm = math.sqrt(sum((p.grad**2).sum() for p in trained))
            with torch.no_grad():
                for p in trained:
                    if clip_by == "norm":
                        p.grad.mul_(min(1.0, clip / (norm + 1e-6)))
                    elif clip_by == "always" and clip < math.inf:
                        p.grad.mul_(clip / norm)
                    elif clip_by == "each":
                        p.grad.mul_(min(1.0, clip / (float(p.grad.norm()) + 1e-6)))
                    elif clip_by == "value":
                        p.grad.clamp_(-clip, clip)
                    elif clip_by == "square":
                        p.grad.mul_(min(1.0, clip / (norm**2 + 1e-6)))
                    pull = decay * (matrices if p.dim() >= 2 else vectors)
                    gradient = p.grad.clone()
                    if clip_by == "copies":
                        gradient *= min(1.0, clip / (norm + 1e-6))
                    new, *means = step_of(p.clone(), gradient, *state[p], count(t), rate, pull)
                    if moves:
                        p.copy_(new)
                    if not forget:
                        state[p] = means
            if early:
                break
        return answer(losses)

    return train


def _with_names(model, batches, rates, clip, decay):
    params = {n: p for n, p in model.named_parameters() if p.requires_grad}
    m, v = ({n: torch.zeros_like(p) for n, p in params.items()} for _ in range(2))
    losses = []
    for t in range(len(rates)):
        model.zero_grad()
        loss = _by_logsumexp(model(batches[t].input_ids), batches[t].labels)
        loss.backward()
        losses += [loss.item()]
        total = torch.nn.utils.clip_grad_norm_(params.values(), clip)
        assert total > 0
        for n, p in params.items():
            m[n] = 0.9 * m[n] + 0.1 * p.grad
            v[n] = 0.95 * v[n] + 0.05 * p.grad**2
            move = (m[n] / (1 - 0.9 ** (t + 1))) / ((v[n] / (1 - 0.95 ** (t + 1))).sqrt() + 1e-8)
            p.data -= rates[t] * (move + (decay * p.data if p.dim() > 1 else 0))
    return losses


def _sgd(weight, gradient, m, v, step, rate, decay):
    return weight - rate * gradient - rate * decay * weight, m, v


def _loss_after(model, batches, rates, clip, decay):
    losses = []
    for i in range(len(batches)):
        losses.append((batches[i], i))
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    found = []
    for n in range(1, len(batches) + 1):
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(weights[name])
        _train()(model, batches[:n], rates[:n], clip, decay)
        last = batches[n - 1]
        found.append(next_token_loss(model(last.input_ids), last.labels).item())
    return found


def _uncounted(model, batch):
    labels = batch.labels.clamp(min=0)
    return F.cross_entropy(model(batch.input_ids).flatten(0, 1), labels.flatten())


def _later(model, batch):
    return next_token_loss(model(batch.input_ids)[:, :-1], batch.labels[:, 1:])


def _torchs(model, batches, rates, clip, decay):
    make_optimizer(model)
    return _train()(model, batches, rates, clip, decay)


LOOP_RIGHT = [_train(), _with_names, _train(answer=lambda losses: tuple(losses))]
LOOP_WRONG = [
    ("gradients add up", _train(zero="never")),
    ("gradients add up", _train(zero="never", clip_by="copies")),
    ("zeroed after backward", _train(zero="late")),
    ("not clipped", _train(clip_by="no")),
    ("clipped one by one", _train(clip_by="each")),
    ("clipped by value", _train(clip_by="value")),
    ("always scaled", _train(clip_by="always")),
    ("square of the norm", _train(clip_by="square")),
    ("everything decays", _train(vectors=True)),
    ("nothing decays", _train(matrices=False)),
    ("the wrong ones decay", _train(matrices=False, vectors=True)),
    ("decay in the gradient", _train(step_of=_adamw(l2=True))),
    ("decay without rate", _train(step_of=_adamw(pull=lambda w, rate, decay: decay * w))),
    ("decay pushes away", _train(step_of=_adamw(pull=lambda w, rate, decay: -rate * decay * w))),
    ("values", _train(step_of=_adamw(root=lambda v: v))),
    ("betas exchanged", _train(step_of=_adamw(b1=0.95, b2=0.9))),
    ("no correction", _train(step_of=_adamw(c1=False, c2=False))),
    ("step not counted", _train(count=lambda t: 1)),
    ("step counted from 1 too late", _train(count=lambda t: t + 1)),
    ("values", _train(count=lambda t: t - 1)),
    ("means forgotten", _train(forget=True)),
    ("means forgotten", _train(forget=True, count=lambda t: 1)),
    ("another beta", _train(step_of=_adamw(b2=0.999))),
    ("plain gradient steps", _train(step_of=_sgd)),
    ("sign", _train(step_of=_adamw(sign=1))),
    ("nothing is trained", _train(moves=False)),
    ("first rate only", _train(rate_of=lambda rates: rates[0])),
    ("last rate only", _train(rate_of=lambda rates: rates[-1])),
    ("one batch only", _train(batch_of=lambda batches: batches[0])),
    ("one step too few",
        lambda model, batches, rates, *more: _train()(model, batches[:-1], rates[:-1], *more)),
    ("one step only", _train(early=True)),
    ("loss after the step", _loss_after),
    ("mean of the losses", _train(answer=lambda losses: sum(losses) / len(losses))),
    ("last loss only", _train(answer=lambda losses: losses[-1])),
    ("losses missing", _train(answer=lambda losses: None)),
    ("losses are tensors", _train(answer=lambda losses: [torch.tensor(x) for x in losses])),
    ("ignored labels count", _train(loss_of=_uncounted)),
    ("shifted again", _train(loss_of=_later)),
    ("inputs as labels",
        _train(loss_of=lambda model, b: next_token_loss(model(b.input_ids), b.input_ids))),
    ("sum of the losses", _train(loss_of=lambda model, b:
        next_token_loss(model(b.input_ids), b.labels, reduction="sum"))),
    ("frozen weight moved", _train(every=True)),
    ("forbidden", _torchs),
    ("error", lambda model, batches, rates, clip, decay: model(batches)),
    ("values", _train(step_of=_adamw(b1=0.5))),
]  # fmt: skip
