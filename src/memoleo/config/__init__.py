"""Files and environment → frozen settings.

Settings come from ``memoleo.toml``, ``[tool.memoleo]`` in ``pyproject.toml`` or
``config/perf_config.json``, whichever is found first from the working folder upward, or from the
file that ``MEMOLEO_CONFIG`` names. The environment goes before the file: ``MEMOLEO_ENABLED``,
``MEMOLEO_CACHE`` (a URL), and any value as ``MEMOLEO_<SECTION>__<KEY>``.
"""

from memoleo.config._load import load_settings
from memoleo.config._sections import (
    Inference,
    Leo,
    MetricsSettings,
    Networking,
    Ollama,
    Savings,
    Settings,
    Workers,
)

__all__ = [
    "Inference",
    "Leo",
    "MetricsSettings",
    "Networking",
    "Ollama",
    "Savings",
    "Settings",
    "Workers",
    "load_settings",
]
