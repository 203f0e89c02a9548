"""`import multifuse` stays light, and what it names is there."""

import subprocess
import sys

import multifuse

_HEAVY = ("transformers", "sklearn", "matplotlib", "datasets", "av", "rich", "accelerate")


def test_importing_the_layers_loads_no_heavy_module() -> None:
    code = (
        "import sys, multifuse\n"
        "from multifuse import InterCAD, IntraCED, StiefelProjector, TokenBudget, WhiteningXCorrLoss\n"
        f"print([name for name in {_HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_resolves() -> None:
    for name in multifuse.__all__:
        assert getattr(multifuse, name) is not None
    assert set(multifuse.__all__) <= set(dir(multifuse))
    assert not hasattr(multifuse, "no_such_name")


def test_dependencies_point_one_way() -> None:
    """ops <- layers <- losses <- models <- data and training; importing a room loads no room above it."""
    rooms = ["ops", "layers", "losses", "models", "training"]
    for index, room in enumerate(rooms[:-1]):
        above = [f"multifuse.{name}" for name in [*rooms[index + 1 :], "data"]]
        code = f"import sys, multifuse.{room}; print([name for name in {above} if name in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]", room
