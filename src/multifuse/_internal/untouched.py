"""Whether modules still do what this library wrote: only then may their result be computed without calling them."""

from torch import nn
from torch.nn.modules import module as torch_module

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_untouched(module: nn.Module, *types: type[nn.Module]) -> bool:
    """Tells whether a module is of one of these types, and nobody has hooked, compiled or patched it.

    Wrapped, parametrized and sharded modules are of other types. Hooks of all modules (a profiler's) count too.
    """
    return (
        type(module) in types
        and not any(getattr(module, hooks) for hooks in _HOOKS)
        and "forward" not in vars(module)
        and module._compiled_call_impl is None
        and not torch_module._has_any_global_hook()
    )
