"""Reads files that are changed at random and by design, in child processes with limited memory and time.

    python -m tests.hostile --cases 2000          # of every kind
    python -m tests.hostile --kind media --first 17 --cases 1

Each case is drawn from its kind and number. It must be read, or refused with the documented error, in one line that
names the file. None of its code may run, no file may appear, and the process may not grow by more than `MEMORY`. If a
reader crashes, hangs or raises anything else, the test fails and reports the number of the case.
"""

import argparse
import json
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from multifuse import CLCRConfig, CLCRForPrediction
from multifuse.models.saved import SavedModelError
from multifuse.recipes.data.features.mmsa import MMSAFileError, read_mmsa, standardised
from multifuse.recipes.data.media.audiovisual_sets import AUDIOVISUAL_SETS
from multifuse.recipes.data.media.clip_rows import ClipTask, clip_row
from multifuse.recipes.data.media.media_index import ClipFiles
from multifuse.recipes.data.media.planted_media import planted_options
from multifuse.recipes.data.media.preparation_record import RECORD, prepared_record
from multifuse.recipes.data.split_lists.clips import Clip, PreparationError, SplitListError
from multifuse.recipes.jobs import progress, resumption
from tests import media_files
from tests.files import mmsa_splits, write
from tests.paths import ROOT
from tests.sizes import SMALL_SIZES

MEMORY = 512 << 20
"""Bytes by which a process may grow over all its cases; the system refuses to allocate more than four times as much."""
SECONDS = 30
"""Processor seconds that a case may take."""

Draw = random.Random


class HostileFileError(AssertionError):
    """Raised if a file causes what no file may cause."""


class Kind(ABC):
    """A kind of file: how it is written, changed and read."""

    refusals: tuple[type[Exception], ...]
    """The documented errors."""

    def __init__(self, folder: Path) -> None:
        """Writes the unchanged files to ``folder``."""
        self.folder = folder

    @abstractmethod
    def change(self, draw: Draw) -> Path:
        """Writes a case and returns the path that an error must name."""

    @abstractmethod
    def read(self) -> None:
        """Reads the case."""


def changed_bytes(content: bytes, draw: Draw) -> bytes:
    """Returns the content with one to four changes: bits, bytes or sizes, or pieces cut out, inserted or repeated."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        start = draw.randrange(len(changed) + 1)
        end = min(len(changed), start + draw.choice((1, 4, 16, 200)))
        kind = draw.randrange(8)
        if kind == 0 and start < len(changed):
            changed[start] ^= 1 << draw.randrange(8)
        elif kind == 1:
            changed[start:end] = draw.randbytes(end - start)
        elif kind == 2:
            changed[start:end] = draw.choice((b"\0", b"\xff", b"\x7f")) * (end - start)
        elif kind == 3:
            number = draw.choice((2**31 - 1, 2**32 - 1, 2**40, 2**62, 0))
            size = draw.choice((4, 8))
            changed[start : start + size] = (number % 2 ** (8 * size)).to_bytes(size, draw.choice(("little", "big")))
        elif kind == 4:
            del changed[start:]
        elif kind == 5:
            del changed[start:end]
        elif kind == 6:
            changed[start:start] = draw.randbytes(draw.choice((1, 8, 64)))
        else:
            changed[start:start] = changed[start:end]
    return bytes(changed)


class Calls:
    """Pickles as a function call, as a hostile file would."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def repeated_lists(depth: int) -> list[Any]:
    """Returns a list that contains one list ten times, and so on: few bytes stand for 10 to the ``depth`` values."""
    nested: list[Any] = [0.0] * 10
    for _ in range(depth - 1):
        nested = [nested] * 10
    return nested


class Features(Kind):
    """MMSA feature files: changed bytes, and valid pickles of changed content, which may include calls."""

    refusals = (MMSAFileError,)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = folder / "features.pkl"
        self.originals = [pickle.dumps(mmsa_splits(count=3), protocol=protocol) for protocol in (2, 4, 5)]

    def change(self, draw: Draw) -> Path:
        if draw.random() < 0.5:
            self.path.write_bytes(changed_bytes(draw.choice(self.originals), draw))
            return self.path
        splits: Any = mmsa_splits(count=3, aligned=draw.random() < 0.5)
        for _ in range(draw.randint(1, 2)):
            split = splits[draw.choice(sorted(splits))]
            name = draw.choice(sorted(split))
            if draw.random() < 0.1:
                del split[name]
            else:
                split[name] = self._value(split[name], draw)
        write(self.path, splits, draw.choice((2, 3, 4, 5)))
        return self.path

    def _value(self, value: Any, draw: Draw) -> Any:
        array = np.atleast_1d(value)
        values: list[Callable[[], Any]] = [
            lambda: Calls(os.system, f"touch {self.folder}/executed"),
            lambda: Calls(np.fromfile, "/etc/hostname", "u1"),
            lambda: np.array([Calls(os.system, f"touch {self.folder}/executed")] * 3, dtype=object),
            lambda: repeated_lists(draw.randint(3, 12)),
            lambda: [[float(n) for n in range(5)]] * 3,
            lambda: array.astype(object),
            lambda: array.astype("U8"),
            lambda: array.astype("S8"),
            lambda: array.astype(">f8") if array.dtype.kind in "biuf" else array,
            lambda: array.astype("c16") if array.dtype.kind in "biuf" else array,
            lambda: array.astype("M8[s]") if array.dtype.kind in "iu" else array[:0],
            lambda: array.reshape(-1),
            lambda: array[..., :0],
            lambda: array[None],
            lambda: np.full(array.shape, draw.choice((np.nan, np.inf, 1e30, -1e300))),
            lambda: np.full(array.shape, draw.choice((-1, 2**62, 2**63))),
            lambda: draw.choice((None, 3, -1, 2.5, "text", b"bytes", 10**400, {}, [], (), {"a": 1}, True)),
            lambda: ["../../escape", "/etc/passwd", "a\0b"],
            lambda: [10**5000, 1, 2],
        ]
        return draw.choice(values)()

    def read(self) -> None:
        data = standardised(read_mmsa(self.path))
        for split in (data.train, data.valid, data.test):
            assert all(np.isfinite(sequence.values).all() for sequence in split.features.values())


class Media(Kind):
    """Videos, sounds and pictures in every container; some have the suffix of another, many declare false sizes."""

    refusals = ()  # an unreadable clip becomes an entry of the report

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        media_files.video(folder / "a.mp4", 12, sound=True)
        media_files.video(folder / "a.avi", 12, "mpeg4")
        media_files.video(folder / "a.mkv", 12, "mpeg4", sound=True)
        media_files.video(folder / "a.mpg", 12, "mpeg1video", rate=25)
        media_files.video(folder / "a.flv", 12, "flv")
        media_files.wav(folder / "a.wav", 0.5)
        frame = Image.fromarray(media_files.brightening(9)[8])
        for suffix in ("png", "jpg"):
            frame.save(folder / f"a.{suffix}")
        self.originals = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        for name in self.originals:
            (folder / name).unlink()
        self.path = folder / "none"

    def change(self, draw: Draw) -> Path:
        self.path.unlink(missing_ok=True)
        name = draw.choice(sorted(self.originals))
        content = self.originals[name]
        # Half of the cases change only the header, where sizes, rates and codecs are declared.
        header = len(content) if draw.random() < 0.5 else min(len(content), 600)
        self.path = self.folder / (name if draw.random() < 0.9 else draw.choice(sorted(self.originals)))
        self.path.write_bytes(changed_bytes(content[:header], draw) + content[header:])
        return self.path

    def read(self) -> None:
        options = planted_options("ks")
        for sound in ("spectrogram", None):
            chosen = replace(options, sound=sound, frames=2, frame_size=16)  # type: ignore[arg-type]
            row = clip_row(ClipTask(Clip("a", 0, "train"), ClipFiles((self.path,), (self.path,)), chosen))
            if row.row is None:
                assert self.path.name in row.reason, row.reason
                assert "\n" not in row.reason, row.reason


class SplitLists(Kind):
    """The lists of the five benchmarks, with paths, long names and numbers in every notation inserted."""

    refusals = (SplitListError,)
    originals = {
        "cremad": {"train.csv": "1001_A_NEU_XX,NEU\n1002_A_SAD_XX,SAD\n", "test.csv": "1003_A_ANG_XX,ANG\n"},
        "ks": {"my_train.txt": "a_b_000002_000012,10,0\nccc_4,10,1\n", "my_test.txt": "dd_000001_000011,10,1\n"},
        "ave": {
            "trainSet.txt": "Bark&aaaaaaaaaaa&good&0&4\nClock&bbbbbbbbbbb&good&2&10\n",
            "valSet.txt": "Bark&ccccccccccc&good&0&1\n",
            "testSet.txt": "Clock&ddddddddddd&good&0&1\n",
        },
        "ucf101": {
            "classInd.txt": "1 Archery\n2 Biking\n",
            "trainlist01.txt": "Archery/v_Archery_g02_c01.avi 1\nBiking/v_Biking_g03_c02.avi 2\n",
            "testlist01.txt": "Archery/v_Archery_g01_c01.avi\n",
        },
        "av_digits": {"labels.csv": "id,label,speaker,split\na,1,x,train\nb,2,y,valid\nc,3,z,test\n"},
    }
    tokens = (
        *("../../escape", "/etc/passwd", "..", "a\0b", "x" * 5000, "9" * 5000, "-1", "1e9", "\u00b2", "\u0663", ""),
        *("C:\\x", "~", "$HOME", "\u2028", "\r", '"', "'", "nul", "a/b/c", "%2e%2e%2f", "\ud7ff", "99999999999"),
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.benchmark = ""

    def change(self, draw: Draw) -> Path:
        for path in self.folder.iterdir():
            path.unlink()
        self.benchmark = draw.choice(sorted(self.originals))
        files = {name: text.encode() for name, text in self.originals[self.benchmark].items()}
        name = draw.choice(sorted(files))
        if draw.random() < 0.4:
            files[name] = changed_bytes(files[name], draw)
        else:
            text = self.originals[self.benchmark][name]
            breaks = [0, *(at for at, letter in enumerate(text) if not letter.isalnum()), len(text)]
            start, end = sorted(draw.sample(breaks, 2))
            files[name] = (
                text[:start] + draw.choice(self.tokens) + text[end if draw.random() < 0.5 else start :]
            ).encode()
        for file, content in files.items():
            (self.folder / file).write_bytes(content)
        return self.folder

    def read(self) -> None:
        for clip in AUDIOVISUAL_SETS[self.benchmark].clips(self.folder).clips:
            assert Path(clip.id).name == clip.id, clip.id
            assert len(clip.id) <= 200, clip.id
            assert clip.id not in (".", ".."), clip.id


class Models(Kind):
    """Saved models: changed config.json and model.safetensors, and pickled weights."""

    refusals = (SavedModelError, OSError)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        bert = {"model_type": "bert", "vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 3}
        modalities = {
            "text": {"encoder": "text", "config": {**bert, "num_attention_heads": 2, "intermediate_size": 32}},
            "audio": {"encoder": "temporal_conv", "input_size": 3},
        }
        config: Any = CLCRConfig(modalities=modalities, **SMALL_SIZES)
        CLCRForPrediction(config).save_pretrained(folder)
        self.originals = {path.name: path.read_bytes() for path in folder.iterdir()}

    def change(self, draw: Draw) -> Path:
        for path in self.folder.iterdir():
            path.unlink()
        files = dict(self.originals)
        kind = draw.random()
        if kind < 0.1:
            del files["model.safetensors"]
            write(self.folder / "pytorch_model.bin", Calls(os.system, f"touch {self.folder}/executed"))
        elif kind < 0.3:
            name = draw.choice(sorted(files))
            files[name] = changed_bytes(files[name], draw)
        elif kind < 0.6:
            weights = files["model.safetensors"]
            files["model.safetensors"] = changed_bytes(weights[:9000], draw) + weights[9000:]
        else:
            files["config.json"] = json.dumps(self._config(json.loads(files["config.json"]), draw)).encode()
        for name, content in files.items():
            (self.folder / name).write_bytes(content)
        return self.folder

    def _config(self, config: Any, draw: Draw) -> Any:
        values: tuple[Any, ...] = (
            *(
                0,
                -1,
                1,
                2,
                7,
                2**20,
                2**31,
                2**40,
                2**62,
                1.5,
                1e300,
                True,
                None,
                "",
                "x",
                "../../x",
                [],
                {},
                [1],
                {"a": 1},
            ),
            *("kernels-community/attention", "os.system", "resnet", "clip", float("nan")),
        )
        for _ in range(draw.randint(1, 3)):
            parent = config
            while True:
                name = draw.choice(sorted(parent))
                if not isinstance(parent[name], dict) or not parent[name] or draw.random() < 0.2:
                    break
                parent = parent[name]
            if draw.random() < 0.1:
                del parent[name]
                if not parent:
                    break
            elif draw.random() < 0.2:
                fields = (
                    "auto_map",
                    "_attn_implementation",
                    "quantization_config",
                    "num_labels",
                    "torch_dtype",
                    "trust_remote_code",
                )
                parent[draw.choice(fields)] = draw.choice((*values, {"AutoModel": "x--evil.Model"}))
            else:
                parent[name] = draw.choice(values)
        return config

    def read(self) -> None:
        CLCRForPrediction.from_pretrained(self.folder)


class Records(Kind):
    """Files that a resumed job reads: a run's job.json, a preparation's record, a checkpoint's seal and state."""

    refusals = (PreparationError, resumption.CheckpointError)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.job = {"data": "a.pkl", "seed": 1, "config": {"num_levels": 2}, "lr": 1e-3}

    def change(self, draw: Draw) -> Path:
        checkpoint = self.folder / resumption.CHECKPOINTS / f"checkpoint-{draw.choice(('20', '-1', 'x', '9' * 30))}"
        for path in (self.folder / resumption.CHECKPOINTS).glob("checkpoint-*/*"):
            path.unlink()
        checkpoint.mkdir(parents=True, exist_ok=True)
        files = {
            self.folder / resumption.RECORD: json.dumps(self.job),
            self.folder / RECORD: '{"format": 2, "clips": "a"}',
            self.folder / "dataset_dict.json": '{"splits": ["train"]}',
            checkpoint / "trainer_state.json": '{"global_step": 20}',
        }
        for path, text in files.items():
            path.write_text(text)
        resumption.seal(checkpoint)
        chosen = draw.choice([*sorted(files), checkpoint / resumption.SEAL])
        chosen.write_bytes(changed_bytes(chosen.read_bytes(), draw))
        return self.folder

    def read(self) -> None:
        resumption.has_record(self.folder)
        resumption.differences(self.folder, self.job)
        newest = resumption.newest_checkpoint(self.folder)
        if newest is not None:
            resumption.check_seal(newest)
        prepared_record(self.folder)


KINDS: dict[str, type[Kind]] = {
    "features": Features,
    "media": Media,
    "lists": SplitLists,
    "models": Models,
    "records": Records,
}


def work(name: str, folder: Path, first: int, cases: int) -> dict[str, Any]:
    """Reads the cases of a kind; runs in the limited child process."""
    progress.quieten_loading()
    torch.set_num_threads(1)
    warnings.filterwarnings("error", module="multifuse")
    kind = KINDS[name](folder)
    kind.change(Draw(0))
    outcomes: Counter[str] = Counter()
    before = _limit_memory()
    for number in range(first, first + cases):
        os.write(1, f"{number}\n".encode())
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        path = kind.change(Draw(f"{name} {number}"))
        present = sorted(folder.rglob("*"))
        try:
            kind.read()
            outcomes["read"] += 1
        except kind.refusals as error:
            outcomes["refused"] += 1
            if str(path) not in str(error) or (not isinstance(error, OSError) and "\n" in str(error)):
                raise HostileFileError(f"the error does not name the file in one line: {error}") from error
        if sorted(folder.rglob("*")) != present:
            raise HostileFileError("a file appeared")
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before
    if growth > MEMORY:
        raise HostileFileError(f"the process grew by {growth >> 20} MiB")
    return {**outcomes, "MiB": growth >> 20}


def _limit_memory() -> int:
    """Limits the process to four times `MEMORY` beyond its current memory; returns its peak memory so far."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 4 * MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def run(name: str, cases: int, first: int = 0) -> dict[str, int]:
    """Returns how many cases of a kind were read and refused, and by how many MiB the process grew.

    Raises:
        HostileFileError: if a case had any other outcome.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.hostile", "--kind", name, "--first", str(first), "--cases", str(cases)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [*command, "--work", folder], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
    *numbers, last = done.stdout.splitlines() or [""]
    if done.returncode:
        raise HostileFileError(f"{name}, case {last or 'none'}: status {done.returncode}\n{done.stderr[-3000:]}")
    assert len(numbers) == cases
    outcomes: dict[str, int] = json.loads(last)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=KINDS, help="default: all kinds")
    parser.add_argument("--cases", type=int, default=2000, help="number of cases of each kind (default 2000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (default 0)")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work is not None:
        print(json.dumps(work(arguments.kind, arguments.work, arguments.first, arguments.cases)))
        return
    table = Table("kind", "read", "refused", "growth, MiB", title=f"{arguments.cases} cases each")
    for name in [arguments.kind] if arguments.kind else KINDS:
        outcomes = run(name, arguments.cases, arguments.first)
        table.add_row(name, *(str(outcomes.get(column, 0)) for column in ("read", "refused", "MiB")))
    Console().print(table)


if __name__ == "__main__":
    main()
