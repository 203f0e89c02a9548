"""Makes CLCR known to the Auto classes of transformers."""


def register() -> None:
    """Registers CLCR with transformers' ``AutoConfig``, ``AutoProcessor`` and the ``AutoModel`` classes of its models.

    These are ``AutoModel``, ``AutoModelForSequenceClassification`` and ``AutoModelForSeq2SeqLM``.

    The first import of any of CLCR's classes registers them as well, but for ``AutoProcessor``, which knows a
    `CLCRProcessor` once that has been imported. ``import multifuse`` alone registers nothing, because that would load
    transformers for people who use only the layers.

    Example:
        >>> from transformers import AutoConfig
        >>> register()
        >>> type(AutoConfig.for_model("clcr")).__name__
        'CLCRConfig'
    """
    import multifuse.models
    import multifuse.processing.processor  # noqa: F401
