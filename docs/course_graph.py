"""The drawing of what comes before what: from the map's Mermaid block, as SVG with links.

Mermaid draws in the browser with a script of some megabytes; some twenty boxes need only this: rows
by what comes before, and within a row an order that keeps arrows short. An arrow over several rows
has a bend in each, which takes a place as a narrow box would.
"""

import html
import re
from dataclasses import dataclass, field
from itertools import pairwise

BLOCK = re.compile(r"^```mermaid\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
NODE = re.compile(r'(\w+)(?:\["([^"]+)"\])?')
ARROW = re.compile(r"(-->|-\.->)")
WIDTH, HEIGHT, GAP, DOWN = 156, 32, 18, 70  # of a box, between two, and from row to row
SWEEPS = 8  # each moves boxes toward their neighbors; then no order changes


@dataclass
class Graph:
    """Boxes and arrows; a bend is a box without a name."""

    names: dict[str, str] = field(default_factory=dict)
    edges: list[tuple[str, str, bool]] = field(default_factory=list)  # from, to, dotted
    rows: dict[str, int] = field(default_factory=dict)
    x: dict[str, float] = field(default_factory=dict)

    def width(self, node: str) -> int:
        """Return how wide a box is, or the place of a bend."""
        return WIDTH if node in self.names else 0

    def y(self, node: str) -> int:
        """Return the middle of a box."""
        return self.rows[node] * DOWN + HEIGHT // 2 + 2


def drawn(text: str, links: dict[str, str]) -> str:
    """Return a page's text with a drawing for each Mermaid block.

    Args:
        text: Markdown.
        links: what a box says first -> the page that it leads to.
    """
    return BLOCK.sub(lambda block: svg(placed(parsed(block[1])), links), text)


def parsed(block: str) -> Graph:
    """Return the graph that a block describes."""
    graph = Graph()
    for line in block.splitlines()[1:]:
        before, *rest = ARROW.split(line.strip())
        before = named(graph, before)
        for arrow, part in zip(rest[::2], rest[1::2], strict=True):
            node = named(graph, part)
            graph.edges.append((before, node, arrow == "-.->"))
            before = node
    return graph


def named(graph: Graph, part: str) -> str:
    """Return the identifier of a box, and keep its name where that is given."""
    node, name = NODE.fullmatch(part.strip()).groups()
    graph.names[node] = name or graph.names[node]
    return node


def placed(graph: Graph) -> Graph:
    """Give each box its row and its place in it, and long arrows their bends."""
    rows = graph.rows = dict.fromkeys(graph.names, 0)
    for _ in rows:
        for start, end, _ in graph.edges:
            rows[end] = max(rows[end], rows[start] + 1)
    for start, end, dotted in graph.edges.copy():
        between = [f"{start} {end} {row}" for row in range(rows[start] + 1, rows[end])]
        rows.update(zip(between, range(rows[start] + 1, rows[end]), strict=True))
        if between:
            graph.edges.remove((start, end, dotted))
            way = [start, *between, end]
            graph.edges.extend((one, two, dotted) for one, two in pairwise(way))
    neighbors = {node: [] for node in rows}
    for start, end, _ in graph.edges:
        neighbors[start].append(end)
        neighbors[end].append(start)
    layers = [[node for node in rows if rows[node] == row] for row in sorted(set(rows.values()))]
    for layer in layers:
        spread(graph, layer, dict.fromkeys(layer, 0))
    for _ in range(SWEEPS):
        for layer in [*layers, *reversed(layers)]:
            spread(graph, layer, {
                node: sum(graph.x[one] for one in neighbors[node]) / len(neighbors[node])
                for node in layer
            })  # fmt: skip
    left = min(x - graph.width(node) / 2 for node, x in graph.x.items())
    graph.x = {node: round(x - left + 2, 1) for node, x in graph.x.items()}
    return graph


def spread(graph: Graph, layer: list[str], wanted: dict[str, float]) -> None:
    """Place the boxes of a row near where they want to be, without overlap."""
    layer.sort(key=wanted.__getitem__)
    end = -float("inf")
    for node in layer:
        graph.x[node] = max(wanted[node], end + graph.width(node) / 2)
        end = graph.x[node] + graph.width(node) / 2 + GAP
    shift = sum(wanted[node] - graph.x[node] for node in layer) / len(layer)
    for node in layer:
        graph.x[node] += shift


def svg(graph: Graph, links: dict[str, str]) -> str:
    """Return the drawing: arrows first, boxes on top."""
    arrows = []
    for start, end, dotted in graph.edges:
        top = graph.y(start) + (HEIGHT // 2 if start in graph.names else 0)
        bottom = graph.y(end) - (HEIGHT // 2 if end in graph.names else 0)
        middle, x, to_x = (top + bottom) / 2, graph.x[start], graph.x[end]
        look = ' class="dotted"' * dotted + ' marker-end="url(#tip)"' * (end in graph.names)
        arrows.append(f'<path{look} d="M{x} {top}C{x} {middle} {to_x} {middle} {to_x} {bottom}"/>')
    boxes = []
    for node, name in graph.names.items():
        x, y = graph.x[node], graph.y(node)
        boxes.append(
            f'<a href="{html.escape(links[name.split()[0]])}">'
            f'<rect x="{x - WIDTH / 2}" y="{y - HEIGHT / 2}" width="{WIDTH}" height="{HEIGHT}"'
            f' rx="6"/><text x="{x}" y="{y + 5}">{html.escape(name)}</text></a>'
        )
    width = max(x + graph.width(node) / 2 for node, x in graph.x.items()) + 2
    height = max(graph.y(node) for node in graph.names) + HEIGHT / 2 + 2
    lines = "\n".join(arrows + boxes)
    return f"""<figure class="course-graph">
<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"
 role="group" aria-label="What comes before what">
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"
 orient="auto"><path d="M0 0 8 4 0 8z"/></marker></defs>
{lines}
</svg>
</figure>
"""
