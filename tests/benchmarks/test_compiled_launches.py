"""The counter of a compiled step's calls: on code that is given, and on the code that inductor writes for a layer."""

import pytest
import torch
from torch import Tensor, nn

from benchmarks.compiled_launches import Calls, CompiledStep, calls_in, compiled_step, table

pytestmark = pytest.mark.filterwarnings("ignore")  # the compiler's own

CODE = """
cpp_fused_add_0 = async_compile.cpp_pybinding(['const float*'], r'''
extern "C" void kernel(const float* in_ptr0)
{
    {
        for (;;) {
        }
    }
    {
        for (;;) {
        }
    }
}
''')

def call(self, args):
    buf0 = empty_strided_cpu((2, 3), (3, 1), torch.float32)
    cpp_fused_add_0(arg0, buf0)
    extern_kernels.mm(arg0, buf0, out=buf1)
    buf2 = torch.ops.multifuse.project.default(buf1, arg1, None)
    cpp_fused_add_0(arg1, buf1)
    return (reinterpret_tensor(buf1, (3, ), (1, ), 0), )
"""


class _Mapped(nn.Module):
    """A linear map, and two pointwise functions that a compiler makes one loop of."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, values: Tensor) -> Tensor:
        mapped: Tensor = self.linear(values)
        return mapped.exp().sin()


def test_generated_functions_count_for_every_call_and_allocations_and_views_do_not() -> None:
    assert calls_in(CODE) == Calls(generated=2, loops=4, library=2)


def test_a_compiled_layer_has_its_matrix_product_and_one_loop_for_what_is_pointwise() -> None:
    values = torch.randn(3, 4)
    step = compiled_step("a layer", _Mapped(), lambda model: model(values).sum())
    assert step.forward == Calls(generated=1, loops=1, library=1)
    assert step.backward == Calls(generated=2, loops=2, library=1), "of the functions, the bias and the weight"


def test_counting_leaves_no_graph_behind_that_cannot_run() -> None:
    values, layer = torch.randn(3, 4), _Mapped()
    compiled_step("a layer", layer, lambda model: model(values).sum())
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(values), layer(values))


def test_the_table_adds_the_calls_up() -> None:
    step = CompiledStep("a step", Calls(2, 5, 3), Calls(1, 4, 6))
    assert "| a step | 2 (5) | 3 | 1 (4) | 6 | 12 |" in table([step])
