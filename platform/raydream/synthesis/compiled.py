"""torch.compile as the engine uses it: for one shape at a time, and with tensors that never change as constants."""

import copy
from collections.abc import Callable, Iterable
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

BACKEND: str | Callable[..., Any] = "inductor"
"""torch.compile's"""


def compiled_alone(function: Any) -> Any:
    """Compile a function or method for one shape, with a code object of its own.

    Dynamo counts its compilations per code object. All engines of a process would share one, and the ninth shape would
    run uncompiled.
    """
    return torch.compile(_own_code(function), dynamic=False, backend=BACKEND)


def compiled_with(constants: Iterable[Tensor], function: Any) -> Any:
    """Compile a function or method, as `compiled_alone` does, for use without autograd, in one graph.

    Args:
        constants: tensors that the function reads and that never change, as a frozen network's weights. The compiler
            converts them, and lays them out for its kernels, once instead of at each call.

    Raises:
        torch._dynamo.exc.TorchDynamoException: when it is called first, and Dynamo cannot follow the function to its
            end.
    """
    return torch.compile(_own_code(function), dynamic=False, fullgraph=True, backend=_Constants(constants))


def _own_code(function: Any) -> Any:
    owner = getattr(function, "__self__", None)
    plain = function if owner is None else function.__func__
    copied = FunctionType(plain.__code__.replace(), plain.__globals__, plain.__name__, plain.__defaults__)
    return copied if owner is None else MethodType(copied, owner)


class _Constants:
    """A backend of torch.compile that makes constants of some of a graph's inputs, and leaves the rest to `BACKEND`.

    Dynamo makes inputs of all tensors that the code reads, as it cannot know that a weight stays as it is.
    """

    def __init__(self, constants: Iterable[Tensor]) -> None:
        self._constants = {id(each): each for each in constants}

    def __call__(self, graph: GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        import torch._inductor.config as inductor  # here, as it takes seconds
        from torch._dynamo.backends.registry import lookup_backend

        own = GraphModule(graph, copy.deepcopy(graph.graph))  # Dynamo still needs its own
        varying = []
        for at, (node, value) in enumerate(zip(own.graph.find_nodes(op="placeholder"), inputs, strict=True)):
            if id(value) not in self._constants:
                varying.append(at)
                continue
            own.register_buffer(f"constant_{at}", value.detach())
            with own.graph.inserting_before(node):
                constant = own.graph.get_attr(f"constant_{at}")
            constant.meta.update(node.meta)
            node.replace_all_uses_with(constant)
            own.graph.erase_node(node)
        own.recompile()
        with inductor.patch(freezing=True):
            code = lookup_backend(BACKEND)(own, [inputs[at] for at in varying])
        return lambda *given: code(*[given[at] for at in varying])
