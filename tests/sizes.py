"""The sizes of the models that tests make."""

from typing import Any

SMALL_SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "shared_rank": 8,
    "private_rank": 4,
    "num_heads": 2,
    "num_levels": 2,
    "init_exchange": "xavier",  # by default a new model exchanges nothing, and a fault of the exchange would not show
}
