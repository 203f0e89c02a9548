"""The inputs of a processor: what is given in numpy's numbers is saved as if given in Python's."""

from pathlib import Path

import numpy as np

from multifuse import CLCRProcessor, FeatureInput, FrameInput, SoundInput
from multifuse.media.spectrogram import SpectrogramOptions
from multifuse.processing.processor import ModalityInput


def test_a_processor_made_with_numpys_numbers_is_saved_and_loaded(tmp_path: Path) -> None:
    statistics = np.array([1.0, 2.0], np.float32)
    inputs: dict[str, ModalityInput] = {
        "arrays": FeatureInput(statistics, statistics),  # type: ignore[arg-type]
        "numbers": FeatureInput(tuple(statistics), tuple(statistics)),
        "vision": FrameInput(count=np.int64(2), seconds=np.float32(1.5), every_part=np.bool_(True)),  # type: ignore[arg-type]
        "audio": SoundInput("waveform", SpectrogramOptions(rate=np.int64(8), seconds=np.float32(1.0))),  # type: ignore[arg-type]
    }
    CLCRProcessor(inputs).save_pretrained(tmp_path)
    loaded = CLCRProcessor.from_pretrained(tmp_path)
    assert loaded.modalities == inputs
    assert loaded.modalities["arrays"] == FeatureInput((1.0, 2.0), (1.0, 2.0))
    assert loaded.modalities["vision"] == FrameInput(count=2, seconds=1.5, every_part=True)
