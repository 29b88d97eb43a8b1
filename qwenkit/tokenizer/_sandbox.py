"""Where chat templates run: a template is downloaded, and must neither run code nor run forever.

Jinja's own sandbox keeps a template from the rest of Python. Here each operation that produces text
or a list is measured as well, against a `Budget`, and each iteration of a loop checks the time.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.environment import Environment
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import EvalContext
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from qwenkit.tokenizer._budget import Budget, forecast

_LONGEST = 300_000  # characters of a template; the longest published ones have some 20,000


def render(template: str, variables: Mapping[str, Any]) -> str:
    """Render a chat template with its variables.

    Raises:
        Exception: any kind of error; a template is a program.
    """
    if len(template) > _LONGEST:
        raise jinja2.TemplateError(f"it has {len(template):,} characters; {_LONGEST:,} may run")
    environment = _Sandbox(Budget.of(variables))
    return environment.from_string(template).render(variables)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja as transformers sets it up for chat templates, with a budget."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, budget: Budget) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
        )
        self.budget = budget
        self.tick, self.made = budget.tick, budget.made
        self.filters |= {"tojson": _tojson}
        self.filters = {name: self._measured(name, do) for name, do in self.filters.items()}
        self.tests = {name: self._measured("", do) for name, do in self.tests.items()}
        self.globals |= {
            "raise_exception": _refuse, "namespace": _Namespace,
            "strftime_now": lambda form: datetime.now().strftime(form),
        }  # fmt: skip
        del self.globals["lipsum"]  # text of any length

    def concat(self, pieces: Iterable[str]) -> str:
        """Join what a block or the whole template wrote."""
        kept = []
        for piece in pieces:
            self.budget.spend(len(piece))
            kept.append(piece)
        return "".join(kept)

    def joined(self, *values: Any) -> str:
        """Join values as the operator ~ does."""
        return self.concat(str(value) for value in values)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute an operator's value if it is not too large."""
        self.budget.spend(forecast(operator, (left, right)))
        return self.budget.made(super().call_binop(context, operator, left, right))

    def call(self, context: Context, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a method, macro or function if its result is not too large."""
        self.budget.tick()
        method = getattr(function, "__wrapped__", function)  # the sandbox wraps str.format
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str | bytes | int):
            name = getattr(method, "__name__", "")
            self.budget.spend(forecast(name, (owner, *args), kwargs))
        self.budget.measure([*args, *kwargs.values()])
        return self.budget.made(super().call(context, function, *args, **kwargs))

    def _measured(self, name: str, do: Any) -> Callable[..., Any]:
        """Return a filter or a test whose result is measured."""

        @functools.wraps(do)  # keeps how Jinja is to call it
        def measured(*args: Any, **kwargs: Any) -> Any:
            own = [a for a in args if not isinstance(a, Context | EvalContext | Environment)]
            self.budget.spend(forecast(name, own, kwargs))
            return self.budget.made(do(*args, **kwargs))

        return measured

    def _parse(self, *args: Any) -> nodes.Template:
        found: nodes.Template = _Watched().visit(super()._parse(*args))
        return found


class _Watched(NodeTransformer):
    """Inserts calls to the environment where Jinja has no hook: loops, `~`, and lists."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        """Check the time in each iteration."""
        self.generic_visit(node)
        node.body = [nodes.ExprStmt(_call("tick", node.lineno), lineno=node.lineno), *node.body]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        """Measure the result of `~`."""
        self.generic_visit(node)
        return _call("joined", node.lineno, *node.nodes)

    def visit_List(self, node: nodes.Expr) -> nodes.Node:
        """Measure a list: nested lists of two members each would print without end."""
        self.generic_visit(node)
        is_target = getattr(node, "ctx", "load") != "load"
        return node if is_target else _call("made", node.lineno, node)

    visit_Tuple = visit_Dict = visit_List


def _call(name: str, line: int, *arguments: nodes.Expr) -> nodes.Call:
    function = nodes.EnvironmentAttribute(name, lineno=line)
    return nodes.Call(function, list(arguments), [], None, None, lineno=line)


class _Namespace(Namespace):
    """Is not printed with its contents, which nested namespaces could make endless."""

    def __repr__(self) -> str:
        raise jinja2.TemplateError("a namespace cannot be printed, only its attributes")


class _Generation(Extension):
    """Lets templates mark what the assistant said, for training; here the mark has no effect.

    As in transformers, variables set inside are local.
    """

    tags = {"generation"}  # noqa: RUF012 (as jinja2 declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        """Return a block of what is between the tags."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        block = nodes.CallBlock(self.call_method("_said"), [], [], body)
        return block.set_lineno(line)

    @staticmethod
    def _said(caller: Callable[[], str]) -> str:
        return caller()


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON with transformers' arguments and defaults; Jinja's own escapes for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
