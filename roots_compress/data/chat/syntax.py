"""The syntax of chat templates: what the sandbox refuses of it, and the counting filters that it puts in."""

from __future__ import annotations

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.visitor import NodeTransformer

from roots_compress.data.chat.budget import ForbiddenError

_OTHER_FILES = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


def counted(tree: nodes.Template) -> nodes.Template:
    """Return a syntax tree in which what makes or reads texts and lists is counted.

    Raises:
        ForbiddenError: it reads other templates, or has a recursive loop.
    """
    for node in tree.find_all(_OTHER_FILES):
        raise ForbiddenError(f"the statement '{type(node).__name__.lower()}', which reads other templates")
    for loop in tree.find_all(nodes.For):
        if loop.recursive:
            raise ForbiddenError("a recursive loop")
        assert isinstance(loop.iter, nodes.Expr)
        loop.iter = _filtered(loop.iter, "bounded")
    found: nodes.Template = _Counted().visit(tree)
    return found


def _filtered(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _Counted(NodeTransformer):
    """Puts counting filters around what is compared, parts, and lists that a template writes."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 (the name that Jinja looks for)
        """Return texts that are joined with their length counted, in the place of the operator `~`."""
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "joined")

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        """Return a comparison, or a search, of what is counted."""
        self.generic_visit(node)
        node.expr = _filtered(node.expr, "read")
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, "read")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        """Return an item, or a part that is counted."""
        self.generic_visit(node)
        return _filtered(node, "part") if isinstance(node.arg, nodes.Slice) else node

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        """Return a list that is counted."""
        self.generic_visit(node)
        return _filtered(node, "counted")

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        """Return an object that is counted."""
        self.generic_visit(node)
        return _filtered(node, "counted")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        """Return a tuple that is counted, unless it is names that are set."""
        self.generic_visit(node)
        return _filtered(node, "counted") if node.ctx == "load" else node


class Generation(Extension):
    """The tag `generation`, by which some templates mark answers: what is in it is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012 (as Jinja's own extensions have it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return what is between the tags; a name that is set there keeps outside what it held."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return [nodes.Scope(body, lineno=line)]
