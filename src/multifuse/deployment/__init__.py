"""Deployment: programs of models and layers that run without this library, written and compared with the original."""

from multifuse.deployment.checked import Check
from multifuse.deployment.exported import Exported, ExportError, export

__all__ = ["Check", "ExportError", "Exported", "export"]
