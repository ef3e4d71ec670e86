"""A vocabulary's hash is that of what it is, not of its file: equal exactly where no difference is found."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from published import pieces
from sentencepiece import sentencepiece_model_pb2 as pb
from small_llama import TEMPLATE, write_vocabulary

from kdtw_jax.data.tokenizer import Tokenizer, load_tokenizer
from kdtw_jax.data.vocabulary_hash import vocabulary_hash
from kdtw_jax.pretrained.causal_vocabulary import load_prompt_vocabulary
from tests.added import FIRST, fast_json, folder_with

CHANGES: dict[str, Any] = {
    "text": lambda model: setattr(model.pieces[7], "piece", "zz"),
    "score": lambda model: setattr(model.pieces[7], "score", -1.0),
    "kind": lambda model: setattr(model.pieces[7], "type", pb.ModelProto.SentencePiece.USER_DEFINED),
    "characters": lambda model: setattr(model.normalizer_spec, "precompiled_charsmap", b""),
    "spaces": lambda model: setattr(model.normalizer_spec, "remove_extra_whitespaces", False),
    "where it was trained": lambda model: model.trainer_spec.input.append("elsewhere"),
}


def all_kinds(folder: Path) -> list[Tokenizer]:
    """Vocabularies of several kinds, some of them the same in other files."""
    found = [load_tokenizer("byt5"), load_tokenizer("byt5").padded_to(400)]
    for name, change in CHANGES.items():
        model = pb.ModelProto.FromString(pieces())
        change(model)
        (folder / name).mkdir()
        (folder / name / "spiece.model").write_bytes(model.SerializeToString())
        found.append(load_tokenizer(folder / name))
    for i, added in enumerate(({}, {"{": FIRST})):
        found.append(load_tokenizer(folder_with(folder / f"old{i}", added_tokens=added)))
        (folder / f"new{i}").mkdir()
        (folder / f"new{i}" / "tokenizer.json").write_text(json.dumps(fast_json(added)))
        found.append(load_tokenizer(folder / f"new{i}"))
    for i, template in enumerate((TEMPLATE, TEMPLATE.replace("assistant", "model"))):
        rows = write_vocabulary(folder / f"chat{i}", template=template)
        found += [load_prompt_vocabulary(folder / f"chat{i}", rows + more) for more in (5, 12)]
    rows = write_vocabulary(folder / "strips")  # of which only prompts are cut otherwise
    stated = json.loads((folder / "strips" / "tokenizer.json").read_text(encoding="utf8"))
    next(token for token in stated["added_tokens"] if token["content"] == "<|stop|>")["rstrip"] = True
    (folder / "strips" / "tokenizer.json").write_text(json.dumps(stated), encoding="utf8")
    found.append(load_prompt_vocabulary(folder / "strips", rows + 5))
    return found


def test_hashes_are_equal_exactly_where_no_difference_is_found(tmp_path: Path) -> None:
    known = all_kinds(tmp_path)
    hashes = [vocabulary_hash(one) for one in known]
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in hashes)
    same = 0
    for i, one in enumerate(known):
        for j in range(i):
            assert (hashes[i] == hashes[j]) == (one.difference(known[j]) is None), (i, j)
            same += hashes[i] == hashes[j]
    assert 4 < same < 10  # both cases are there
