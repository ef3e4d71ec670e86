"""Versions, devices and what is installed: for reports of bugs."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from kdtw_jax import __version__

REQUIRED = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "sentencepiece", "tokenizers", "safetensors"),
    *("tensorflow-datasets", "grain", "sacrebleu", "rouge-score", "babel", "tyro"),
)
OPTIONAL = {
    "huggingface_hub": "models by hf:NAME (the extra hub)",
    "mecab-python3": "BLEU of Japanese (the extra japanese)",
    "mecab-ko": "BLEU of Korean (the extra korean)",
    "torch": "tests of parity with transformers (the extra parity)",
    "transformers": "tests of parity (the extra parity)",
    "jupyterlab": "notebooks (the extra notebook)",
}


def run(arguments: list[str]) -> None:
    """Runs `kdtw env`: prints one fact per line."""
    argparse.ArgumentParser(prog="kdtw env", description=__doc__).parse_args(arguments)
    print(f"kdtw_jax {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    print(f"cores {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}")
    for name in REQUIRED:
        print(f"{name} {_version(name) or 'MISSING'}")
    for name, purpose in OPTIONAL.items():
        print(f"{name} {_version(name) or f'not installed: {purpose}'}")
    import jax  # the slow part, after what helps where it fails

    for device in jax.local_devices():
        print(f"device {device.id}: {device.platform} {device.device_kind}")
    said = {name: value for name, value in os.environ.items() if name.startswith(("JAX_", "XLA_"))}
    print(f"environment {' '.join(f'{n}={v}' for n, v in sorted(said.items())) or 'says nothing to JAX or XLA'}")
    sys.stdout.flush()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
