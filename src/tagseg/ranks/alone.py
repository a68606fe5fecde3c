"""What a run asks of the processes that share it; and the answers of one that is alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ALONE", "Ranks"]

T = TypeVar("T")


class Ranks:
    """The processes (ranks) that share one run; this class is one process alone.

    All of them run the same program on the same data. The first leads: it alone writes.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
        here: number of this process among those on its machine.
        on_this_machine: how many these are.
    """

    rank = 0
    size = 1
    here = 0
    on_this_machine = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes the run's folder."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """This process's share of ``count`` things in order; shares differ by one at most."""
        first, last = (count * rank // self.size for rank in (self.rank, self.rank + 1))
        return slice(first, last)

    def first(self, make: Callable[[], T]) -> T:
        """What ``make`` gives in the process that leads, which alone calls it; in all of them.

        The others wait for as long as it takes. What it raises ends them, too.
        """
        return make()

    def gathered(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        return [value]

    def brought(self, value: T) -> list[T]:
        """The same in the process that leads; nothing in others."""
        return [value]

    def any(self, value: bool) -> bool:
        """Whether it is true in any process."""
        return value

    def joined(self, rows: Tensor) -> Tensor:
        """The rows (n, ...) of all processes in order; a gradient flows to the own ones."""
        return rows

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, through which gradients flow."""
        return tensor

    def sum_in_place(self, tensors: Iterable[Tensor]) -> None:
        """Put the sum over the processes in place of each tensor."""

    def as_in_first(self, tensors: Iterable[Tensor]) -> None:
        """Put the values of the process that leads in place of each tensor."""

    @property
    def is_apart(self) -> bool:
        """Whether the process that leads does something alone."""
        return False

    def apart(self) -> AbstractContextManager[None]:
        """A block of the process that leads in which the others take no part."""
        return nullcontext()

    def next_word(self) -> int:
        """A number for what the process that leads tells and the others hear, the same in all."""
        return 0

    def tell(self, number: int, value: Any) -> None:
        """Let the others hear a value: JSON data."""

    def hear(self, number: int) -> Any:
        """Wait for what is told under this number, however long it takes."""
        raise NotImplementedError("one process has nobody to hear")

    def lengths(self, own: int) -> Sequence[int]:
        """How many rows each process has."""
        return [own]


ALONE = Ranks()
