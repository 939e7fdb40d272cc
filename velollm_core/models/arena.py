"""How much memory a graph of tensors needs where memory is used again as soon as it is free.

The rules are those of ggml's graph allocator (``ggml-alloc.c``: ``ggml_gallocr_alloc_graph_impl``,
``ggml_gallocr_allocate_node``, ``ggml_dyn_tallocr_alloc``), so that the sizes come out as
llama.cpp's do: inputs first, best fit among the free blocks, an operation in place of an operand
that nothing else needs, and views that keep what they look at. What an operation takes from another
device is copied to its own: inputs before anything is computed there, results when they are needed
(``ggml_backend_sched_split_graph``).
"""

from __future__ import annotations

from attrs import define, field

_ALIGNMENT = 32
_ENDLESS = 1 << 62


@define(eq=False, repr=False)
class Tensor:
    """A result, an input, or a view; ``root`` is what a view looks at, itself no view.

    ``users`` counts operations still to come that take it, ``views`` those of its views that are
    still in use.
    """

    bytes: int
    device: int
    root: Tensor | None = None
    operands: tuple[Tensor, ...] = ()
    in_place: bool = False
    kept: bool = False
    users: int = 0
    views: int = 0
    offset: int | None = None


@define(eq=False, repr=False)
class Graph:
    """Tensors in the order in which they are computed. Device 0 is the host.

    ``copies`` is how many batches a copy is kept for: several where devices work on different ones
    at a time.
    """

    copies: int = 1
    inputs: list[Tensor] = field(factory=list)
    nodes: list[Tensor] = field(factory=list)
    device: int = 0
    _moved: dict[tuple[int, int], Tensor] = field(factory=dict, init=False)
    _first: dict[int, Tensor] = field(factory=dict, init=False)

    def input(self, size: int) -> Tensor:
        """Something that is filled in before the graph is computed; it lies on the host."""
        tensor = Tensor(_aligned(size), 0)
        self.inputs.append(tensor)
        return tensor

    def node(
        self, size: int, *operands: Tensor, in_place: bool = False, kept: bool = False
    ) -> Tensor:
        """A result of ``size`` bytes on the present device.

        ``in_place``: the operation may overwrite an operand of the same size. ``kept``: it is an
        output of the graph.
        """
        tensor = Tensor(
            _aligned(size),
            self.device,
            operands=tuple(self._here(operand) for operand in operands),
            in_place=in_place,
            kept=kept,
        )
        return self._add(tensor)

    def view(self, of: Tensor) -> Tensor:
        """The same memory in another shape."""
        here = self._here(of)
        return self._add(Tensor(here.bytes, here.device, root=here.root or here, operands=(here,)))

    def store(self, *operands: Tensor) -> None:
        """Write into memory that is not the graph's, as the KV cache is."""
        here = tuple(self._here(operand) for operand in operands)
        self._add(Tensor(0, self.device, operands=here))

    def write(self, into: Tensor, *operands: Tensor) -> None:
        """Overwrite part of a result, which is then kept as long as the graph is."""
        into.kept = True
        self.store(*operands)

    def _here(self, tensor: Tensor) -> Tensor:
        if tensor.device == self.device:
            return tensor
        key = (id(tensor), self.device)
        if key not in self._moved:
            size = self.copies * tensor.bytes
            copy = Tensor(size, self.device, operands=(tensor,), kept=tensor.kept)
            first = None if tensor.operands else self._first.get(self.device)
            self.nodes.insert(self.nodes.index(first) if first else len(self.nodes), copy)
            self._moved[key] = copy
        return self._moved[key]

    def _add(self, tensor: Tensor) -> Tensor:
        self.nodes.append(tensor)
        self._first.setdefault(tensor.device, tensor)
        return tensor


def arena_bytes(graph: Graph, devices: int) -> list[int]:
    """Bytes that ``graph`` needs on each of ``devices`` devices. It can be asked only once."""
    arenas = [_Arena() for _ in range(devices)]
    for tensor in graph.inputs:
        arenas[tensor.device].place(tensor)
    for node in graph.nodes:
        if node.root is not None:
            node.root.views += 1
        for operand in node.operands:
            operand.users += 1
    for node in graph.nodes:
        if node.root is None and not (node.in_place and _taken_over(node)):
            arenas[node.device].place(node)
        for operand in node.operands:
            owner = _done_with(operand)
            if owner is not None:
                arenas[owner.device].release(owner)
    return [arena.top for arena in arenas]


def _done_with(operand: Tensor) -> Tensor | None:
    """Count one use less; what is free now, if anything is."""
    operand.users -= 1
    if operand.users or operand.views:
        return None
    owner = operand
    if operand.root is not None:
        owner = operand.root
        owner.views -= 1
    return None if owner.users or owner.views or owner.kept else owner


def _taken_over(node: Tensor) -> bool:
    for operand in node.operands:
        if (
            operand.root is None
            and operand.offset is not None
            and operand.bytes == node.bytes
            and operand.device == node.device
            and (operand.users, operand.views) == (1, 0)
            and not operand.kept
        ):
            node.offset, operand.offset = operand.offset, None
            return True
    return False


@define
class _Arena:
    """Free blocks (offset and size) in the order of their addresses; the last one is endless."""

    free: list[tuple[int, int]] = field(factory=lambda: [(0, _ENDLESS)])
    top: int = 0

    def place(self, tensor: Tensor) -> None:
        fitting = [index for index, (_, size) in enumerate(self.free[:-1]) if size >= tensor.bytes]
        best = min(fitting, key=lambda index: (self.free[index][1], -index), default=-1)
        offset, size = self.free[best]
        if size == tensor.bytes:
            del self.free[best]
        else:
            self.free[best] = (offset + tensor.bytes, size - tensor.bytes)
        tensor.offset = offset
        self.top = max(self.top, offset + tensor.bytes)

    def release(self, tensor: Tensor) -> None:
        if tensor.offset is None:
            return
        start, end = tensor.offset, tensor.offset + tensor.bytes
        tensor.offset = None
        index = 0
        while self.free[index][0] < start:
            index += 1
        if self.free[index][0] == end:
            end += self.free.pop(index)[1]
        if index and sum(self.free[index - 1]) == start:
            index -= 1
            start = self.free.pop(index)[0]
        self.free.insert(index, (start, end - start))


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
