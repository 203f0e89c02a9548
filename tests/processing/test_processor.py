"""CLCRProcessor: reads what training read, survives saving, and names what it cannot read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer

from multifuse import (
    CLCRConfig,
    CLCRForPrediction,
    CLCRProcessor,
    FeatureInput,
    FrameInput,
    SoundInput,
    TextInput,
)
from multifuse.media.spectrogram import SpectrogramOptions
from multifuse.processing.processor import ModalityInput
from tests import media_files
from tests.files import bert

SOUND = SoundInput("spectrogram", SpectrogramOptions(rate=8000, seconds=1.0, n_fft=256, hop=160, offset=0.01))
FRAMES = FrameInput(count=3, size=16, seconds=2.0)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def processor(encoder: Path) -> CLCRProcessor:
    inputs: dict[str, ModalityInput] = {
        "text": TextInput(),
        "audio": SOUND,
        "vision": FRAMES,
        "pose": FeatureInput((1.0, 2.0), (2.0, 4.0)),
    }
    return CLCRProcessor(inputs, AutoTokenizer.from_pretrained(encoder))


def test_features_are_standardised_by_the_training_statistics_and_a_vector_is_a_token(processor: CLCRProcessor) -> None:
    batch = processor(pose=[np.array([[3.0, 10.0], [1.0, 2.0]]), torch.tensor([5, 6])])
    assert batch["inputs"]["pose"].tolist() == [[[1.0, 2.0], [0.0, 0.0]], [[2.0, 1.0], [0.0, 0.0]]]
    assert batch["mask"]["pose"].tolist() == [[True, True], [True, False]]


def test_statistics_are_those_of_the_tokens_and_constants_stay() -> None:
    tokens = np.array([[1.0, 7.0], [3.0, 7.0]], np.float32)
    assert FeatureInput.of(tokens) == FeatureInput((2.0, 7.0), (1.0, 1.0))
    assert FeatureInput.of(tokens[:0]) == FeatureInput((0.0, 0.0), (1.0, 1.0))


def test_texts_sounds_and_films_become_inputs_of_a_model(processor: CLCRProcessor, tmp_path: Path) -> None:
    film = media_files.video(tmp_path / "film.mp4", sound=True)
    batch = processor(text=["the film", "THE FILM WAS GOOD"], audio=[film, None], vision=[film, str(film)])
    inputs, mask = batch["inputs"], batch["mask"]
    assert inputs["text"].shape == (2, 6)
    assert mask["text"].sum(dim=1).tolist() == [4, 6]
    assert 1 not in inputs["text"], "capitals would be unknown words"
    assert inputs["audio"].shape == (2, 1, 129, 51)
    assert mask["audio"].tolist() == [[True], [False]]
    assert inputs["vision"].shape == (2, 3, 3, 16, 16)
    assert inputs["vision"][0, :, 0, 0, 0].tolist() == pytest.approx([24, 80, 128], abs=4), "frames 3, 10 and 16"
    assert batch.to(torch.device("meta"))["inputs"]["vision"].is_meta


def test_samples_of_a_sound_equal_its_file(processor: CLCRProcessor, tmp_path: Path) -> None:
    path = media_files.wav(tmp_path / "tone.wav")
    samples = media_files.tone(1.0, rate=8000)
    from_file, from_samples = (processor(audio=value)["inputs"]["audio"] for value in (path, samples))
    assert (from_file - from_samples).abs().max() < 0.1, "the file has 16 bits"


def test_a_waveform_is_cut_to_its_length_and_has_16_bits() -> None:
    waveform = SoundInput("waveform", SpectrogramOptions(rate=8, seconds=1.0, fill="zeros"))
    values = waveform(np.array([0.5, -1.0, 2.0], np.float32))
    assert values.shape == (8,)
    assert values[:4].tolist() == pytest.approx([0.5, -1.0, 1.0, 0.0], abs=1e-4)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((torch.float64,), {}),
        ((), {"dtype": torch.float64}),
        (("cpu", torch.float64), {}),
        ((torch.device("cpu"),), {"dtype": torch.float64, "non_blocking": True}),
        ((torch.ones(1, dtype=torch.float64),), {}),
    ],
)
def test_a_dtype_converts_features_but_no_bytes_ids_or_masks(
    processor: CLCRProcessor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    before = processor(text="the film", vision=np.full((1, 16, 16, 3), 255, np.uint8), pose=np.ones((2, 2)))
    after = before.to(*args, **kwargs)
    dtypes = {name: values.dtype for name, values in after["inputs"].items()}
    assert dtypes == {"text": torch.int64, "vision": torch.uint8, "pose": torch.float64}
    assert all(mask.dtype == torch.bool for mask in after["mask"].values())
    for key in ("inputs", "mask"):
        assert all(torch.equal(values, after[key][name].to(values.dtype)) for name, values in before[key].items())
    assert all(values.is_meta for values in before.to("meta", torch.float64)["inputs"].values())


@pytest.mark.parametrize("load", [CLCRProcessor, AutoProcessor])
def test_a_saved_processor_reads_as_before(load: Any, processor: CLCRProcessor, tmp_path: Path) -> None:
    CLCRForPrediction(
        CLCRConfig(
            modalities={"pose": {"encoder": "temporal_conv", "input_size": 2}},
            hidden_size=16,
            shared_rank=8,
            private_rank=4,
            num_heads=2,
        )
    ).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = load.from_pretrained(tmp_path)
    assert loaded.modalities == processor.modalities
    assert loaded.to_dict() == processor.to_dict()
    given = {"text": ["the film", "good"], "pose": [np.ones((3, 2)), np.zeros((1, 2))]}
    before, after = processor(**given), loaded(**given)
    for name, values in before["inputs"].items():
        assert torch.equal(after["inputs"][name], values)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"smell": "x"}, r"modality must be one of \['text', 'audio', 'vision', 'pose'\], got 'smell'"),
        ({"text": ["a", "b"], "pose": np.ones(2)}, "same number of samples, at least one, got {'text': 2, 'pose': 1}"),
        ({"text": []}, "at least one, got {'text': 0}"),
        ({}, "must be given, got none"),
        ({"text": ["a", None], "pose": [np.ones(2), None]}, "must have at least one modality, sample 1 has none"),
        ({"text": ["a", 5]}, "modality 'text' of sample 1: must be a string, got int"),
        (
            {"pose": np.ones((3, 4))},
            r"modality 'pose' of sample 0: must be numbers of shape \(tokens, 2\), got .*\(3, 4\)",
        ),
        ({"pose": np.array([np.nan, 1.0])}, "modality 'pose' of sample 0: must be finite"),
        ({"audio": "no.wav"}, "modality 'audio' of sample 0: no.wav cannot be decoded: .*No such file"),
        ({"audio": np.ones((2, 8))}, "modality 'audio' of sample 0: must be a path, or finite samples"),
        ({"vision": np.ones((2, 8, 8, 3), np.uint8)}, "modality 'vision' of sample 0: must be a path, or frames"),
    ],
)
def test_what_cannot_be_read_is_named_by_modality_and_sample(
    processor: CLCRProcessor, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        processor(**given)
    assert "\n" not in str(caught.value)


def test_precomputed_flow_cannot_come_from_a_film(tmp_path: Path) -> None:
    given = FrameInput(count=2, size=8, flow="given")
    with pytest.raises(ValueError, match="must be flow"):
        given(tmp_path / "film.mp4")
    assert given(np.ones((1, 8, 8, 2), np.uint8)).shape == (1, 2, 8, 8)


def test_what_holds_nothing_to_read_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.new("RGB", (8, 8)).save(path)
    kinds = {"vision": FrameInput(count=2, size=16), "flow": FrameInput(count=2, size=16, flow="dis")}
    both = CLCRProcessor(kinds)
    assert list(both(vision=path, flow=path)["inputs"]) == ["vision"]
    film = media_files.video(tmp_path / "film.mp4")
    assert both(vision=[path, film], flow=[path, film])["mask"]["flow"].tolist() == [[False] * 2, [True] * 2]
    with pytest.raises(ValueError, match=r"at least one modality, sample 1 has none: nothing can be read of flow$"):
        both(flow=[film, path])
    features = CLCRProcessor({"pose": FeatureInput((0.0,), (1.0,))})
    with pytest.raises(ValueError, match=r"sample 0 has none: nothing can be read of pose$"):
        features(pose=np.zeros((0, 1)))


def test_an_array_keeps_all_its_frames() -> None:
    for every_part in (False, True):
        frames = FrameInput(count=2, size=8, every_part=every_part)(np.ones((5, 8, 8, 3), np.uint8))
        assert frames.shape == (5, 3, 8, 8)


def test_a_text_needs_a_tokenizer() -> None:
    with pytest.raises(ValueError, match="tokenizer must be given, because modality 'text' is a text, got none"):
        CLCRProcessor({"text": TextInput()})
    with pytest.raises(TypeError, match=r"modalities\['text'\] must be one of .*'TextInput'.*, got dict"):
        CLCRProcessor({"text": {}})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("modalities", "message"),
    [
        (None, "modalities must be a dict by modality, got None"),
        ({"pose": 3}, r"modalities\['pose'\] must be a dict whose 'kind' is one of"),
        ({"pose": {"kind": "smell"}}, r"modalities\['pose'\] must be a dict whose 'kind' is one of"),
        ({"pose": {"kind": "features", "mean": [0.0], "deviation": [0.0]}}, r"modalities\['pose'\]: deviation must be"),
        (
            {"pose": {"kind": "features", "mean": [0.0], "deviation": [1.0, 1.0]}},
            "the same length, at least 1, got 1 and 2",
        ),
        ({"pose": {"kind": "features", "mean": [0.0]}}, r"modalities\['pose'\]: .*deviation"),
        ({"pose": {"kind": "features", "mean": [0.0], "deviation": [1.0], "code": 1}}, "has no field 'code'"),
        ({"vision": {"kind": "frames", "count": 0}}, r"modalities\['vision'\]: count must be"),
        ({"audio": {"kind": "sound", "form": "spectrogram", "options": {"rate": 0}}}, "rate must be an integer >= 1"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, modalities: Any, message: str) -> None:
    (tmp_path / "processor_config.json").write_text(json.dumps({"modalities": modalities}))
    with pytest.raises(ValueError, match=message) as caught:
        CLCRProcessor.from_pretrained(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: processor_config.json: ")
    assert "\n" not in str(caught.value)


def test_a_model_without_a_processor_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"has no processor_config.json.* must be trained again") as caught:
        CLCRProcessor.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
