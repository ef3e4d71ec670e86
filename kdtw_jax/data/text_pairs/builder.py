"""The tensorflow-datasets builder that `store` writes with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from kdtw_jax.data.pair import Pair


# Not registered with the data sets known by name, as it is no use without pairs to write.
class TextPairs(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """(source, target, group) texts by split, in the order given, as array_record files."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, splits: Mapping[str, Sequence[Pair]], data_dir: Path):
        self._pairs = splits
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> Any:
        text = tfds.features.Text()
        features = tfds.features.FeaturesDict({"source": text, "target": text, "group": text})
        return self.dataset_info_from_configs(features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Pair]]]:
        return {split: self._generate_examples(pairs) for split, pairs in self._pairs.items()}

    def _generate_examples(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Pair]]:
        yield from enumerate(pairs)
