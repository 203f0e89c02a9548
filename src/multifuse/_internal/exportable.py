"""Names the outputs of the layers for `torch.export.save`, which writes no named tuple that it has no name for."""

from typing import TypeVar

from torch.utils import _pytree

Output = TypeVar("Output", bound=tuple[object, ...])


def exportable(output: type[Output]) -> type[Output]:
    """Registers a named tuple, so that programs that return it can be saved to a file and loaded from it."""
    _pytree._register_namedtuple(output, serialized_type_name=f"multifuse.{output.__name__}")
    return output
