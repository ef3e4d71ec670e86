"""Checkpoints of a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from kdtw_jax.errors import UserError
from kdtw_jax.training.disk import PyTree, abstract, is_refusal, misfit, orbax, quiet, reason


class Restored(NamedTuple):
    """What a checkpoint holds: the carried arrays, and the JSON state of the data iterator."""

    step: int
    carry: PyTree
    iterator: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, the newest `keep` of them.

    A checkpoint appears whole or not at all (Orbax writes beside it and renames), so a run killed at any moment finds
    the last whole one. Several processes have to take each step together; the first one writes.

    Raises:
      UserError: the folder cannot be written.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = Path(folder).resolve()
        self._refused = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            ocp = orbax()
            self._manager = ocp.training.Checkpointer(
                self.folder,
                preservation_policy=ocp.training.preservation_policies.LatestN(keep),
                cleanup_tmp_directories=True,
            )
        except OSError as error:
            raise UserError(f"cannot write checkpoints to {folder}: {error.strerror or error}") from error

    @property
    def latest(self) -> int | None:
        """The step of the newest whole checkpoint, or None."""
        found = self._manager.latest
        return None if found is None else int(found.step)

    def save(self, step: int, carry: PyTree, iterator: Mapping[str, Any]) -> None:
        """Writes `carry` (arrays) and the iterator's state as those after `step` steps.

        Raises:
          UserError: the disk is full or read-only.
        """
        if jax.process_count() > 1:
            carry = jax.device_get(carry)  # Orbax takes arrays of one process for parts of global ones
        try:
            with quiet():
                self._manager.save(step, carry, custom_metadata={"iterator": json.dumps(dict(iterator))}, force=True)
        except (OSError, ValueError, RuntimeError) as error:
            if not is_refusal(error):
                raise
            self._refused = True
            for half_written in self.folder.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(half_written, ignore_errors=True)
            raise UserError(
                f"cannot write the checkpoint of step {step} to {self.folder}: {reason(error)}; "
                f"make room and start the same command again (it continues from step {self.latest or 0})"
            ) from error

    def restore(self, like: PyTree) -> Restored | None:
        """Reads the newest checkpoint, in the shapes of `like`; None if there is none yet.

        Raises:
          UserError: it holds other arrays than `like` (another architecture, vocabulary or buffer size).
        """
        step = self.latest
        if step is None:
            return None
        metadata = self._manager.metadata(step)
        if wrong := misfit(metadata.metadata, like):
            raise UserError(
                f"the checkpoint of step {step} in {self.folder} does not fit this model or configuration: {wrong}; "
                "choose another run folder or the configuration that wrote it"
            )
        carry = self._manager.load(step, abstract(like))
        assert metadata.custom_metadata is not None
        return Restored(step, carry, json.loads(metadata.custom_metadata["iterator"]))

    def close(self) -> None:
        """Ends background work."""
        try:
            with quiet():
                self._manager.close()
        except (OSError, ValueError, RuntimeError):
            if not self._refused:  # otherwise it is what `save` has reported
                raise
