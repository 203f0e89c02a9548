"""Models are told apart by their weights, and the same weights are recognised in another folder."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from multifuse.recipes.jobs.model_identity import ModelIdentity


def saved(folder: Path, **values: float) -> Path:
    folder.mkdir()
    for name, value in values.items():
        save_file({"weight": torch.tensor([value])}, folder / f"{name}.safetensors")
    return folder


def test_the_weights_of_every_file_count_and_the_folder_does_not(tmp_path: Path) -> None:
    one = ModelIdentity.of("run", saved(tmp_path / "one", a=1.0, b=2.0))
    copy = ModelIdentity.of("run", saved(tmp_path / "copy", a=1.0, b=2.0))
    others = [
        ModelIdentity.of("run", saved(tmp_path / f"other{number}", **values))
        for number, values in enumerate(({"a": 1.0}, {"a": 1.0, "b": 3.0}, {"a": 2.0, "b": 1.0}))
    ]
    assert one == copy
    assert len({one.weights, *(other.weights for other in others)}) == 4
