"""Packaging metadata; tools are configured in pyproject.toml, runtime dependencies in requirements.txt."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
SERVE = [
    "httpx>=0.27",
    "msgpack>=1.0.8",
    "prometheus-client>=0.20",
    "starlette>=1.7",
    "tenacity>=8.5",
    "uvicorn>=0.30",
]


def requirements() -> list[str]:
    lines = (
        line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    )
    return [line for line in lines if line]


def version() -> str:
    """By its text: the package cannot be imported before its requirements are there."""
    lines = (ROOT / "kdtw_jax" / "__init__.py").read_text(encoding="utf-8").splitlines()
    (said,) = (line for line in lines if line.startswith("__version__ = "))
    return said.split('"')[1]


setup(
    name="kdtw_jax",
    version=version(),
    description="Distillation of language models by Path Consistency Learning, in JAX",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["kdtw_jax", "kdtw_jax.*"]),
    package_data={"kdtw_jax": ["py.typed", "serving/static/*"]},
    install_requires=requirements(),
    entry_points={"console_scripts": ["kdtw = kdtw_jax.cli:main"]},
    extras_require={
        "benchmarks": ["accelerate", "ctranslate2>=4.5", "datasets", "torch>=2.4", "transformers>=5.0", "trl>=1.0"],
        "docs": ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.27"],
        "hub": ["huggingface_hub>=0.30"],
        "japanese": ["sacrebleu[ja]>=2.4"],  # words of BLEU
        "korean": ["sacrebleu[ko]>=2.4"],
        "notebook": ["jupyterlab>=4.2"],
        "parity": ["accelerate", "huggingface_hub>=0.30", "torch>=2.4", "transformers>=5.0"],
        "reasoning": ["reasoning-gym>=0.1.25"],  # questions of classroom:gsm_symbolic and the like; needs a C compiler
        "serve": SERVE,
        "test": [
            "build>=1.2.1",
            "ipykernel>=6.29",
            "mypy>=1.13",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "openai>=1.50",
            "pytest>=8.0",
            "pytest-xdist>=3.5",
            "ruff>=0.9",
            *SERVE,
        ],
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
