"""The keys of modalities in the module dicts of layers."""


def module_key(modality: str) -> str:
    """Returns a modality's key: prefixed, since a modality may be named like an attribute of nn.ModuleDict ("keys")."""
    return f"modality_{modality}"
