"""The tensors of a folder in the Hugging Face layout: one safetensors file, or shards and their index. Never pickle."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp  # registers bfloat16 with numpy, which safetensors asks for it by name
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from kdtw_jax.errors import UserError
from kdtw_jax.finite import check_finite
from kdtw_jax.runs.atomic import read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_ROWS = 4096  # compared at once
_REMEDY = "the checkpoint is damaged or overflowed in float16: fetch it again, or convert it from float32"
_FLOATING = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16}


class Held(NamedTuple):
    """Where a tensor lies; nothing of it is read yet."""

    file: Path
    name: str  # its name there
    shape: tuple[int, ...]


def find_tensors(folder: Path) -> dict[str, Held]:
    """All tensors of a folder by name, from the headers of its files alone.

    Raises:
      UserError: there are none, or only pickled ones, a file is damaged, a shard missing, or a tensor not floating.
    """
    folder = Path(folder)
    if (folder / SINGLE).is_file():
        return _header(folder / SINGLE)
    if not (folder / INDEX).is_file():
        if pickled := sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.ckpt")]):
            raise UserError(
                f"{folder} has its weights as {pickled[0].name}, which could run any code when opened; write them as "
                "safetensors first: from transformers import T5ForConditionalGeneration as T; "
                f"T.from_pretrained({str(folder)!r}).save_pretrained('converted')"
            )
        raise UserError(f"{folder} has no weights: neither {SINGLE} nor {INDEX}")
    where = read_json(folder / INDEX, f"{folder} has no index").get("weight_map")
    if not isinstance(where, dict) or not where or not all(_plain(file) for file in where.values()):
        raise UserError(
            f"{folder / INDEX} is no index of shards: it needs a weight_map from tensors to files beside it"
        )
    found: dict[str, Held] = {}
    for shard in sorted(set(where.values())):
        for name, held in _header(folder / shard).items():
            if where.get(name) != shard:
                raise UserError(
                    f"{folder / shard} holds {name}, which {INDEX} says is in {where.get(name, 'no shard')}"
                )
            found[name] = held
    if absent := sorted(set(where) - set(found)):
        raise UserError(f"{folder / where[absent[0]]} has no {absent[0]}, though {INDEX} says so")
    return found


def read_tensors(wanted: Mapping[str, Held]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the tensors one at a time, each file opened once: only the one in hand takes memory.

    Raises:
      UserError: a tensor holds NaN or infinity; names it.
    """
    in_order = sorted(wanted, key=lambda name: wanted[name].file)
    for file, names in itertools.groupby(in_order, key=lambda name: wanted[name].file):
        with _opened(file) as tensors:
            for name in names:
                tensor = tensors.get_tensor(wanted[name].name)
                check_finite(f"{file}: {wanted[name].name}", tensor, len(tensor), _REMEDY)
                yield name, tensor
                del tensor  # before the next is read


def check_tensor(held: Held) -> None:
    """Checks a tensor, which is read some rows at a time.

    Raises:
      UserError: it holds NaN or infinity.
    """
    with _opened(held.file) as tensors:
        check_finite(f"{held.file}: {held.name}", tensors.get_slice(held.name), held.shape[0], _REMEDY)


def same_tensor(one: Held, other: Held) -> bool:
    """Whether two tensors hold the same numbers as far as both files can say them.

    Rows that one of them lacks are padding. Some rows are compared at a time.
    """
    if one.shape[1:] != other.shape[1:]:
        return False
    with _opened(one.file) as first, _opened(other.file) as second:
        a, b = first.get_slice(one.name), second.get_slice(other.name)
        rows = min(one.shape[0], other.shape[0])
        parts = [slice(i, min(i + _ROWS, rows)) for i in range(0, rows, _ROWS)]  # beyond the end is an error here
        return all(_same(a[part], b[part]) for part in parts)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Of two types, up to one rounding to the coarser one, whichever way it goes."""
    if a.dtype == b.dtype:
        return np.array_equal(a, b)
    known = [jnp.finfo(x.dtype) for x in (a, b)]
    relative = max(float(info.eps) for info in known)
    smallest = max(float(info.smallest_subnormal) for info in known)
    return np.allclose(a.astype(np.float64), b.astype(np.float64), rtol=relative, atol=smallest)


def write_tensors(file: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a file of C-contiguous tensors; not atomic.

    Raises:
      OSError: the file system refuses.
    """
    try:
        save_file(dict(tensors), file, metadata={"format": "pt"})  # what `transformers` wants to read there
    except SafetensorError as error:
        raise OSError(str(error)) from error


def _plain(file: object) -> bool:
    return isinstance(file, str) and Path(file).name == file and file.endswith(".safetensors")


def _header(file: Path) -> dict[str, Held]:
    found = {}
    with _opened(file) as tensors:
        for name in tensors.keys():  # noqa: SIM118, not a mapping
            part = tensors.get_slice(name)
            if part.get_dtype() not in _FLOATING:
                raise UserError(f"{file}: {name} is {part.get_dtype()}; known are {', '.join(_FLOATING)}")
            found[name] = Held(file, name, tuple(part.get_shape()))
    return found


def _opened(file: Path) -> safe_open:
    try:
        return safe_open(file, framework="np")
    except SafetensorError as error:
        raise UserError(f"{file} is damaged or no safetensors file ({error}); fetch or write it again") from error
    except OSError as error:
        raise UserError(f"cannot read {file}: {error}; the folder is incomplete, fetch it again") from error
