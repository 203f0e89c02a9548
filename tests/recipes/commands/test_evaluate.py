"""multifuse evaluate: its scores, tables and figures, and the arguments that it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from multifuse import CLCRConfig, CLCRForPrediction
from multifuse.baselines.late import LateFusionForPrediction
from multifuse.processing import MultimodalCollator
from multifuse.recipes.commands.main import main
from multifuse.recipes.corruption.corrupted import Levels, deviations, evaluated
from multifuse.recipes.corruption.corruptions import FeatureNoise
from multifuse.recipes.corruption.missing import at_random, on_subsets
from multifuse.recipes.data.features.mmsa import read_mmsa, standardised
from multifuse.recipes.data.features.utterances import datasets
from multifuse.recipes.jobs.model_identity import ModelIdentity
from multifuse.recipes.measures.scores import SENTIMENT, mean_measures
from multifuse.recipes.measures.sentiment import SentimentMeasures, sentiment_measures
from tests import programs
from tests.files import mmsa_splits, save_unscaled, write
from tests.sizes import SMALL_SIZES

WIDTHS = {"text": 7, "audio": 5, "vision": 4}


def model(kind: type[PreTrainedModel] = CLCRForPrediction) -> PreTrainedModel:
    torch.manual_seed(0)
    modalities = {name: {"encoder": "temporal_conv", "input_size": width} for name, width in WIDTHS.items()}
    config = CLCRConfig(modalities=modalities, **{**SMALL_SIZES, "num_levels": 3})
    return kind(config).eval()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "mosi.pkl", mmsa_splits(count=12))


def saved(folder: Path, kind: type[PreTrainedModel] = CLCRForPrediction) -> Path:
    model(kind).save_pretrained(folder / "model")
    save_unscaled(folder / "model", WIDTHS)
    return folder


def batches(data: Path) -> torch.utils.data.DataLoader:  # type: ignore[type-arg]
    splits = datasets(standardised(read_mmsa(data)), tuple(WIDTHS))
    return torch.utils.data.DataLoader(splits["test"], batch_size=5, collate_fn=MultimodalCollator())


def test_every_subset_scores_as_the_model_without_the_other_modalities(data: Path) -> None:
    network, test_batches = model(), batches(data)
    subsets = list(on_subsets(network, test_batches, SENTIMENT))
    assert [subset.modalities for subset in subsets][:2] == [("text", "audio", "vision"), ("text", "audio")]
    assert len(subsets) == 7
    with torch.no_grad():
        logits = torch.cat(
            [network({"vision": b["inputs"]["vision"]}, {"vision": b["mask"]["vision"]}).logits for b in test_batches]
        )
    labels = torch.cat([batch["labels"] for batch in test_batches])
    (vision,) = (subset.measures for subset in subsets if subset.modalities == ("vision",))
    assert vision == sentiment_measures(logits[:, 0].numpy(), labels.numpy())


def test_absence_at_rate_0_scores_all_modalities_and_repeats_with_its_seed(data: Path) -> None:
    network, test_batches = model(), batches(data)
    first, again = (list(at_random(network, test_batches, SENTIMENT, (0.0, 0.6), draws=3, seed=5)) for _ in range(2))
    assert first == again
    assert first[0].means.mae == next(iter(on_subsets(network, test_batches, SENTIMENT))).measures.mae
    assert first[0].deviation == 0
    assert first[1].deviation > 0


def test_each_measure_is_averaged_and_undefined_ones_stay_undefined() -> None:
    one, other = (SentimentMeasures(mae, 1, 2, 3, 4, 5, 6, float("nan")) for mae in (0.25, 0.75))
    assert mean_measures([one, other]).as_dict() == SentimentMeasures(0.5, 1, 2, 3, 4, 5, 6, float("nan")).as_dict()


def test_level_0_scores_clean_inputs_and_other_levels_repeat_with_their_seed(data: Path) -> None:
    network, test_batches = model(), batches(data)
    spread = deviations(standardised(read_mmsa(data)).train)
    levels = Levels(noise=(1.0,), drop=(0.5,), shift=(2,))
    first, again = (evaluated(network, test_batches, spread, levels, draws=2, seed=5) for _ in range(2))
    assert first == again
    clean = next(iter(on_subsets(network, test_batches, SENTIMENT))).measures.mae
    for kind, level in (("noise", 1.0), ("drop", 0.5), ("shift", 2)):
        zero, worse = first.of(kind)
        assert (zero.level, worse.level) == (0, level)
        assert zero.mae == pytest.approx(clean, rel=1e-12)
        assert worse.mae != zero.mae, kind
    assert first.late == ("text", "audio", "vision")
    assert evaluated(network, test_batches, spread, levels, draws=2, seed=6).of("noise")[1] != first.of("noise")[1]


def test_noise_scores_as_the_model_on_the_noisy_features(data: Path) -> None:
    network, test_batches = model(), batches(data)
    spread = deviations(standardised(read_mmsa(data)).train)
    levels = Levels(noise=(0.7,), drop=(), shift=())
    scores = evaluated(network, test_batches, spread, levels, draws=1, seed=3)
    generator, logits, labels = torch.Generator().manual_seed(3), [], []
    for batch in test_batches:
        inputs, mask = FeatureNoise(0.7, spread)(batch["inputs"], batch["mask"], generator)
        with torch.no_grad():
            logits.append(network(inputs, mask).logits[:, 0])
        labels.append(batch["labels"])
    expected = sentiment_measures(torch.cat(logits).numpy(), torch.cat(labels).numpy())
    assert scores.of("noise")[1].mae == expected.mae


def test_deviations_are_those_of_the_real_tokens(data: Path) -> None:
    train = read_mmsa(data).train
    spread = deviations(train)
    audio = train.features["audio"]
    rows = np.concatenate([values[:length] for values, length in zip(audio.values, audio.lengths, strict=True)])
    np.testing.assert_allclose(spread["audio"].numpy(), rows.std(0), rtol=1e-5)


def test_a_modality_of_one_token_and_a_single_modality_are_never_delayed(data: Path) -> None:
    network, test_batches = model(), batches(data)
    short = [
        {**batch, "inputs": {**batch["inputs"], "audio": batch["inputs"]["audio"][:, :1]},
         "mask": {**batch["mask"], "audio": batch["mask"]["audio"][:, :1]}} for batch in test_batches
    ]  # fmt: skip
    levels = Levels(noise=(), drop=(), shift=(1,))
    assert evaluated(network, short, {}, levels, draws=1).late == ("text", "vision")  # type: ignore[arg-type]
    text_only = [
        {"labels": b["labels"], **{k: {"text": b[k]["text"]} for k in ("inputs", "mask")}} for b in test_batches
    ]
    scores = evaluated(network, text_only, {}, levels, draws=1)  # type: ignore[arg-type]
    assert scores.late == ()
    assert scores.of("shift") == ()


def command(name: str, folder: Path, data: Path, output: Path, *more: str) -> list[str]:
    return [f"--{name}", "--model", str(folder), "--data", str(data), "--output", str(output), "--draws", "2", *more]


def test_missing_modalities_on_the_command_line(tmp_path: Path, data: Path) -> None:
    folder, output = saved(tmp_path / "run"), tmp_path / "missing"
    done = programs.multifuse("evaluate", *command("missing", folder, data, output))
    assert "text + audio" in done.stdout
    report = json.loads((output / "missing.json").read_text())
    assert [scores["rate"] for scores in report["absences"]] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert len(report["subsets"]) == 7
    assert report["model"] == ModelIdentity.of("run", folder / "model").as_dict()
    assert (output / "missing.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", [CLCRForPrediction, LateFusionForPrediction])
def test_noise_on_the_command_line(
    tmp_path: Path,
    data: Path,
    kind: type[PreTrainedModel],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, output = saved(tmp_path / "run", kind), tmp_path / "noise"
    arguments = command("noise", folder, data, output, "--noise-levels", "0.5", "--drop-rates", "0.3", "1")
    assert main(["evaluate", *arguments]) == 0
    assert "Rate of dropped tokens" in capsys.readouterr().out
    report = json.loads((output / "noise.json").read_text())
    levels = [(scores["kind"], scores["level"]) for scores in report["corrupted"]]
    assert levels[:5] == [("noise", 0), ("noise", 0.5), ("drop", 0), ("drop", 0.3), ("drop", 1)]
    assert levels[5:] == [("shift", level) for level in (0, 1, 2, 4, 8, 16)]
    assert (output / "noise.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--model": "nowhere"}, "--model nowhere contains no saved model: it has no config.json"),
        ({"--data": "nowhere.pkl"}, "nowhere.pkl: cannot be opened"),
        ({"--draws": "0"}, "--draws must be >= 1, got 0"),
        ({"--noise-levels": "-1"}, "--noise-levels: level must be finite and >= 0, got -1.0"),
        ({"--drop-rates": "1.1"}, "--drop-rates: rate must be in [0.0, 1.0], got 1.1"),
        (
            {"--shifts": "1020"},
            "--shifts 1020: inputs have 1031 tokens, more than max_positions=1024",
        ),
        ({"--noise-levels": "1e30"}, "--noise-levels 1e+30: the model's predictions are not finite"),
        ({"--seed": "-5"}, "--seed must be in [0, 2**32 - draws], got -5"),
        ({"--seed": str(2**32 - 1)}, f"--seed must be in [0, 2**32 - draws], got {2**32 - 1}"),
        ({"--shifts": "-3"}, "--shifts: tokens must be an integer >= 0, got -3"),
        ({"--missing": ""}, "--noise-levels, --drop-rates, --shifts can be used only with --noise, not with --missing"),
    ],
)
def test_bad_arguments_give_a_one_line_error(
    tmp_path: Path,
    data: Path,
    changed: dict[str, str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, output = saved(tmp_path / "run"), tmp_path / "missing"
    capsys.readouterr()
    options = {"--model": str(folder), "--data": str(data), "--output": str(output), **changed}
    mode = ["--missing", "--shifts", "1"] if options.pop("--missing", None) is not None else ["--noise"]
    assert main(["evaluate", *mode, *(f"{name}={value}" for name, value in options.items())]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not output.exists()


def test_data_that_lacks_a_modality_and_finished_outputs_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = saved(tmp_path / "run"), tmp_path / "missing"
    splits = mmsa_splits(count=12)
    for split in splits.values():
        del split["audio"], split["audio_lengths"]
    data = write(tmp_path / "without.pkl", splits)
    command = ["evaluate", "--missing", "--model", str(folder), "--data", str(data), "--output", str(output)]
    assert main(command) == 2
    assert "audio must have width 5, got None" in capsys.readouterr().err
    output.mkdir()
    (output / "missing.json").write_text("{}")
    assert main(command) == 2
    assert "already contains missing.json" in capsys.readouterr().err
    assert (output / "missing.json").read_text() == "{}"
