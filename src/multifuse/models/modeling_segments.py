"""CLCRForSegmentPrediction: logits for every part of a sample's time."""

from torch import Tensor

from multifuse.models.modeling_clcr import CLCRForPrediction
from multifuse.models.task_loss import IGNORED


class CLCRForSegmentPrediction(CLCRForPrediction):
    """Predicts for each of ``config.num_segments``, S, equal parts of a sample's time (ours; for localisation in AVE).

    The hierarchy and the exchange see the whole sample; InterCAD aggregates every segment separately, and the head
    reads the result. A segment has the tokens that overlap its time, so that sequences may be shorter than S. The time
    of a modality ends with its last real token: padding at the end does not move the segments, and a stream that stops
    before the others must be filled up.

    Shape:
        ``forward(inputs, mask=None, labels=None)``: as `CLCRForPrediction`; labels (B, S), or (B, S, num_labels) of
        several, -100 for a segment that does not count. Logits are (B, S, num_labels).

    Raises:
        ValueError: labels for another number of segments.

    Example:
        >>> modalities = {name: {"encoder": "temporal_conv", "input_size": 5} for name in ("vision", "audio")}
        >>> config = CLCRConfig(modalities=modalities, hidden_size=64, shared_rank=24, private_rank=16, num_segments=10)
        >>> inputs = {"vision": torch.randn(4, 20, 5), "audio": torch.randn(4, 30, 5)}
        >>> CLCRForSegmentPrediction(config).eval()(inputs).logits.shape
        torch.Size([4, 10, 1])
    """

    @property
    def segments(self) -> int | None:
        return int(self.config.num_segments)

    def _task_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if labels.ndim < 2 or labels.shape[:2] != logits.shape[:2]:
            expected = tuple(logits.shape[:2])
            raise ValueError(f"labels must have shape {expected} (samples, segments), got {tuple(labels.shape)}")
        return self.task_loss(logits.flatten(0, 1), labels.flatten(0, 1), ignored=IGNORED)
