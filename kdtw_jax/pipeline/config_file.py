"""A run's configuration as a YAML file: what differs from its preset, by section."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from kdtw_jax.errors import UserError
from kdtw_jax.methods import METHODS, find
from kdtw_jax.pipeline.config import Experiment, plain
from kdtw_jax.pipeline.restore import revive, revive_experiment
from kdtw_jax.runs.atomic import explained, write_text

_NOT_SAID = ("out", "results")  # a repetition has a folder of its own
_LONGEST = 1 << 20  # bytes of such a file


class _Loader(yaml.SafeLoader):
    """The safe one, but for a name that is said twice: YAML has it an error, where the library takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        said = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if twice := next((name for name in said if said.count(name) > 1), None):
            raise yaml.YAMLError(f"{twice} is said twice, on line {node.start_mark.line + 1} or below; keep one")
        return super().construct_mapping(node, deep)


def read_config(path: Path) -> dict[str, Any]:
    """What a YAML file says, plain values by name.

    Raises:
      UserError: it cannot be read or is no mapping.
    """
    path = Path(path)
    with explained(path, "read"):
        text = path.read_bytes()[: _LONGEST + 1]
    if len(text) > _LONGEST:
        raise UserError(f"{path} is longer than a configuration can be ({_LONGEST} bytes)")
    try:
        found = yaml.load(text.decode("utf-8-sig"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise UserError(f"{path} must map names of options to values, as in 'preset: quickstart'")
    return found


def configure(base: Experiment, said: Mapping[str, Any]) -> Experiment:
    """`base` with the options that `said` names, as in `{"seeds": [0, 1], "training": {"loop": {"steps": 500}}}`.

    Settings of a method stand under its name.

    Raises:
      UserError: an option that there is not, a value that it cannot have (both with the dotted name), or settings of a
        method that is not among `methods`.
    """
    if "family" in said:
        if not isinstance(said["family"], str):
            raise UserError(f"family must be a name, got {said['family']!r:.80}")
        base = base.in_family(said["family"])
    methods = _names(said.get("methods", base.methods))
    for name in set(said) & set(METHODS) - set(methods):
        raise UserError(f"{name} is not among the methods {', '.join(methods)}: leave its settings out, or add it")
    own = {name: said[name] for name in methods if name in said}
    values = plain(dataclasses.replace(base, settings={}, methods=methods, beam_targets=()))
    del values["settings"]
    values["beam_targets"] = [name for name in base.beam_targets if name in methods]
    merged = _merge(values, {name: value for name, value in said.items() if name not in own}, "")
    settings = {
        name: revive(find(name).config, _merge(plain(base.of(name)), value, f"{name}."), name)
        for name, value in own.items()
    }
    whole = revive_experiment({**merged, "methods": list(methods)})
    return dataclasses.replace(whole, settings={**base.settings, **settings})


def write_config(path: Path, task: str, config: Experiment, base: Experiment | None) -> None:
    """Writes what `read_config` reads.

    Args:
      base: the preset: beside the task and its name, what is not as in it is said. None: everything is.

    Raises:
      UserError: the file system refuses.
    """
    own = config.to_json()
    usual = {} if base is None else dataclasses.replace(base, methods=config.methods).to_json()
    differs = {name: value for name, value in _difference(own, usual).items() if name not in _NOT_SAID}
    always = {"task": task, "preset": config.preset, "data": config.data, "methods": list(config.methods)}
    text = yaml.safe_dump({**always, **differs}, sort_keys=False, allow_unicode=True)
    write_text(path, f"# kdtw train --config {path.name} --out FOLDER repeats this run.\n{text}")


def _names(said: Any) -> tuple[str, ...]:
    names = tuple(said) if isinstance(said, list | tuple) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"methods must be a list of names, as in [mle, pcl], got {said!r:.80}")
    for name in names:
        find(name)
    return names


def _merge(old: Mapping[str, Any], new: Any, prefix: str) -> dict[str, Any]:
    if not isinstance(new, Mapping):
        raise UserError(f"{prefix.rstrip('.')} must be a group of options, got {new!r:.80}")
    for name in new:
        if name not in old:
            raise UserError(f"{prefix}{name} is no option; there are {', '.join(map(str, old))}")
    return {
        name: _merge(value, new[name], f"{prefix}{name}.")
        if isinstance(value, Mapping) and name in new
        else new.get(name, value)
        for name, value in old.items()
    }


def _difference(own: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in own.items():
        other = usual.get(name)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            if below := _difference(value, other):
                found[name] = below
        elif name not in usual or value != other:
            found[name] = value
    return found
