"""The `multifuse` command: its commands and benchmarks, help, invalid arguments, and the examples that call it."""

import subprocess
import sys
from pathlib import Path

import pytest

from multifuse.recipes.commands.main import COMMANDS, main
from multifuse.recipes.commands.train import SENTIMENT_SETS
from multifuse.recipes.corruption.corrupted import Levels
from multifuse.recipes.data.media.audiovisual_sets import AUDIOVISUAL_SETS
from tests import programs
from tests.paths import ROOT

BENCHMARKS = (*SENTIMENT_SETS, *AUDIOVISUAL_SETS)


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def words(text: str) -> str:
    """Returns a help as one line, however it was wrapped."""
    return " ".join(text.split())


def test_help_lists_every_command_and_each_command_shows_its_usage(capsys: pytest.CaptureFixture[str]) -> None:
    overview = help_of(capsys)
    for command, summary in COMMANDS.items():
        assert f"  {command:10}{summary}" in overview
        options = help_of(capsys, command)
        assert f"usage: multifuse {command}" in options
        assert "``" not in options


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_benchmark_is_listed_and_shows_its_options(benchmark: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"  {benchmark}" in help_of(capsys, "train")
    options = help_of(capsys, "train", benchmark)
    assert "where to compute (default: auto" in words(options)
    assert f"usage: multifuse train {benchmark}" in options
    assert "--resume" in options
    if benchmark in AUDIOVISUAL_SETS:
        preparing = help_of(capsys, "prepare", benchmark)
        assert f"usage: multifuse prepare {benchmark}" in preparing
        title = AUDIOVISUAL_SETS[benchmark].title
        assert f"Decodes the media files in the split lists of {title} into a set" in words(preparing)


def test_the_help_of_evaluate_names_the_levels_that_it_tests_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    shown = words(help_of(capsys, "evaluate"))
    for levels in (Levels().noise, Levels().drop, Levels().shift):
        assert f"(default: {' '.join(f'{level:g}' for level in levels if level)})" in shown


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_benchmark_has_an_example_that_forwards_its_arguments(benchmark: str) -> None:
    done = programs.run(ROOT / f"examples/train_{benchmark}.py", "--no-such-option", cwd=ROOT)
    assert done.returncode == 2
    assert f"multifuse train {benchmark}: error: unrecognized arguments: --no-such-option" in done.stderr or (
        benchmark == "av_digits" and "the following arguments are required: --data" in done.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["tarin"], "argument COMMAND: invalid choice: 'tarin'"),
        (["train", "mosy"], "argument BENCHMARK: invalid choice: 'mosy'"),
        (["train", "mosi", "--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (["prepare", "mosi"], "invalid choice: 'mosi'"),
        (["info", "more"], "unrecognized arguments: more"),
    ],
)
def test_invalid_arguments_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_python_m_multifuse_info_prints_the_report() -> None:
    done = subprocess.run([sys.executable, "-m", "multifuse", "info"], capture_output=True, text=True, check=True)
    assert "project_capped_simplex on cpu runs:" in done.stdout


def test_the_overview_loads_no_heavy_module() -> None:
    code = (
        "import sys\nfrom multifuse.recipes.commands.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'numpy', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_feature_files_need_no_library_for_media_and_what_needs_one_names_the_extra(tmp_path: Path) -> None:
    code = (
        "import sys\nsys.modules.update(dict.fromkeys(('av', 'cv2', 'datasets')))\n"
        "from multifuse.recipes.commands.main import main\n"
        "from multifuse.recipes.data.features.planted_settings import EMBEDDED, SETTINGS\n"
        "object.__setattr__(SETTINGS[EMBEDDED], 'sizes', dict.fromkeys(('train', 'valid', 'test'), 16))\n"
        "print(main(['train', 'mosi', '--epochs', '1', '--device', 'cpu', '--output', 'run']))\n"
        "print(main(['predict', 'run', '--output', 'scores.csv']))\n"
        "print(main(['train', 'ks', '--epochs', '1', '--output', 'ks']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    statuses = [line for line in done.stdout.splitlines() if line.isdigit()]
    assert statuses == ["0", "0", "2"]
    assert done.stderr.splitlines()[-1].endswith(" is not installed: pip install 'multifuse[media]'")
