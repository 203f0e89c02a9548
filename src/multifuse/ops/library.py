"""The schemas of the library's operators, and the compiled kernels that this machine can run."""

import torch
from torch.library import Library

from multifuse.ops import native

LIBRARY = Library("multifuse", "DEF")
for _schema in (
    "project(Tensor z, Tensor budget, Tensor? mask) -> (Tensor, Tensor)",
    "project_vjp(Tensor grad, Tensor z, Tensor threshold, Tensor? mask) -> (Tensor, Tensor)",
    (
        "attend_others(Tensor query_key_value, SymInt[] lengths, int heads, Tensor? mask, Tensor? asking) "
        "-> (Tensor, Tensor)"
    ),
    (
        "attend_others_vjp(Tensor grad, Tensor query_key_value, Tensor attended, Tensor log_sum, SymInt[] lengths, "
        "int heads, Tensor? mask, Tensor? asking) -> Tensor"
    ),
):
    LIBRARY.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))
native.load_all()
