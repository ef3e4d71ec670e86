"""`tokenizer.json` of byte pairs: ids as the published library has them, and one line for whatever else it may hold."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from small_llama import SPECIAL, TEMPLATE, TEXTS, make_tokenizer, write_vocabulary
from tokenizers import Tokenizer as Published
from tokenizers import decoders, models, pre_tokenizers, trainers

from kdtw_jax.data.cutters import JsonCutter
from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.errors import UserError
from kdtw_jax.pretrained.causal_vocabulary import load_prompt_vocabulary
from tests.test_fast_tokenizer import changed, places

DEEP = json.loads("[" * 300 + "]" * 300)
ODD: list[Any] = [None, True, -1, 0, 2**32 - 1, 0.5, "x", "", [], {}, float("inf"), 10**400, "\ud800", DEEP]
ROWS = 400


def loaded(folder: Path, change: Callable[[Any], None] = lambda stated: None, **config: Any) -> Tokenizer:
    """The small vocabulary with its `tokenizer.json` changed."""
    write_vocabulary(folder, **config)
    stated = json.loads((folder / "tokenizer.json").read_text(encoding="utf8"))
    change(stated)
    (folder / "tokenizer.json").write_text(json.dumps(stated), encoding="utf8")
    return load_prompt_vocabulary(folder, ROWS)


def refused(folder: Path, change: Callable[[Any], None] = lambda stated: None, **config: Any) -> str:
    with pytest.raises(UserError) as raised:
        loaded(folder, change, **config)
    said = str(raised.value)
    assert "\n" not in said and said.count(str(folder)) == 1 and len(said.replace(str(folder), "")) < 450
    return said


def of_model(**values: Any) -> Callable[[Any], None]:
    return lambda stated: stated["model"].update(values)


def of_added(i: int, **values: Any) -> Callable[[Any], None]:
    return lambda stated: stated["added_tokens"][i].update(values)


def place(text: str, index: int) -> Callable[[Any], None]:
    return lambda stated: stated["model"]["vocab"].update({text: index})


CASES: list[tuple[Callable[[Any], None], str]] = [
    (place("%", 60), r"has both '%' and 'V?.*' at id 60; fetch or write it again"),
    (place("%", 2**32 - 1), r"has '%' at id 4294967295; ids are below 16777216"),
    (of_model(unk_token="<nothing>"), "has unk_token '<nothing>', which is none of its tokens"),
    (of_model(vocab=None), "no tokenizer.json that tokenizers can read"),
    (of_model(type="WordLevel"), "is a tokenizer of type 'WordLevel'; known are BPE and Unigram"),
    (lambda stated: stated.update(decoder=None), "has no decoder, which makes a text of tokens"),
    (lambda stated: stated.update(model=None), "is a tokenizer of type 'None'"),
    (of_added(2, id=1), r"gives id 1 to '<\|stop\|>' among its added_tokens, which is 2; a token has one id"),
    (of_added(2, id=399), r"gives id 399 to '<\|stop\|>' among its added_tokens, which is 2"),
    (of_added(1, content=""), "gives id 1 to '' among its added_tokens, which no text has"),
    (of_added(1, special="false"), "tokenizers can read .*expected a boolean"),
    (lambda stated: stated["added_tokens"].append(None), "tokenizers can read"),
    (lambda stated: stated.update(normalizer=DEEP), "tokenizers can read"),
]


@pytest.mark.parametrize(("change", "message"), CASES)
def test_tokens_that_clash_are_one_line(change: Callable[[Any], None], message: str, tmp_path: Path) -> None:
    assert loaded(tmp_path).vocab_size == ROWS
    with pytest.raises(UserError, match=message):
        loaded(tmp_path, change)
    refused(tmp_path, change)


def test_whatever_stands_in_a_place_is_a_vocabulary_that_works_or_one_line(tmp_path: Path) -> None:
    stated = json.loads(make_tokenizer())
    vocab = stated["model"]["vocab"]
    some = {text: i for text, i in vocab.items() if i % 40 == 0 or i < len(SPECIAL)}
    paths = [path for path in places({**stated, "model": {**stated["model"], "vocab": some}}) if path]
    drawn, lines = random.Random(1), set()
    for path in paths:
        for odd in drawn.sample(ODD, 4):
            text = json.dumps(changed(stated, path, lambda h, k, v=odd: h.__setitem__(k, v)))
            try:
                cutter = JsonCutter(text.encode(), "it")
            except UserError as error:
                lines.add(str(error))
                continue
            for each in TEXTS:
                assert cutter.plain(each) == cutter.plain(each) and cutter.told(each) is not None
                assert {*cutter.plain(each)} <= {*range(len(cutter.pieces))}
    assert len(lines) > 60 and max(map(len, lines)) < 400 and "\n" not in "".join(lines)


def test_threads_cut_texts_and_prompts_beside_each_other(tmp_path: Path) -> None:
    loaded(tmp_path)
    cutter = JsonCutter((tmp_path / "tokenizer.json").read_bytes(), "it")
    text = "a<|stop|>b"
    plain, told = cutter.plain(text), cutter.told(text)
    assert plain != told
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: (cutter.plain, cutter.told)[i % 2](text), range(4000)))
    assert found[::2] == [plain] * 2000 and found[1::2] == [told] * 2000


def test_dropout_and_an_empty_name_of_what_is_unknown_are_none(tmp_path: Path) -> None:
    plain = loaded(tmp_path / "plain")
    for i, change in enumerate((of_model(dropout=1.0), of_model(dropout=0.5), of_model(unk_token=""))):
        found = loaded(tmp_path / str(i), change)
        for text in TEXTS:
            assert found.encode(text) == plain.encode(text) and found.decode(found.encode(text)) == text


ODD_CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"add_bos_token": "false"}, "has add_bos_token 'false'; it has to be true or false"),
    ({"add_bos_token": 1}, "has add_bos_token 1; it has to be true or false"),
    *(({f"{name}_token": odd}, rf"has {name}_token .*; it has to be a text or to have a content")
      for name in ("bos", "eos", "pad") for odd in (3, True, [], {}, {"content": 3}, "\ud800")),
    *(({"chat_template": odd}, "has a chat_template that is no text, nor several of which one is the default")
      for odd in (3, False, {}, [], [1], [{"name": ["default"]}], [{"name": "rag", "template": "x"}], "\ud800")),
    ({"chat_template": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"}, "the chat template fails: .*recursion"),
    ({"chat_template": "{{ 'a' * 10**15 }}"}, "the chat template fails: "),
]  # fmt: skip


@pytest.mark.parametrize(("config", "message"), ODD_CONFIGS)
def test_odd_values_of_its_config_are_one_line(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    template = config.get("chat_template", TEMPLATE)
    rest = {name: value for name, value in config.items() if name != "chat_template"}
    with pytest.raises(UserError, match=message):
        loaded(tmp_path, template=template, **rest)
    refused(tmp_path, template=template, **rest)


def test_a_template_of_several_or_in_its_file_is_the_same(tmp_path: Path) -> None:
    plain = loaded(tmp_path / "plain")
    named = [{"name": "rag", "template": "x"}, {"name": "default", "template": TEMPLATE}]
    assert loaded(tmp_path / "named", template=named) == plain
    jinja = tmp_path / "plain" / "chat_template.jinja"
    jinja.write_bytes(b"\xef\xbb\xbf" + TEMPLATE.encode())
    assert load_prompt_vocabulary(tmp_path / "plain", ROWS) == plain
    jinja.write_bytes(b"\xff{{")
    with pytest.raises(UserError, match=r"chat_template\.jinja is damaged: not UTF-8"):
        load_prompt_vocabulary(tmp_path / "plain", ROWS)


def with_spaces(scheme: str) -> dict[str, Any]:
    """Byte pairs with spaces as letters, as Llama 2 and Mistral have them."""
    made = Published(models.BPE(unk_token="<unk>", byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    names = ["<unk>", *SPECIAL, *(f"<0x{i:02X}>" for i in range(256))]
    made.train_from_iterator(3 * TEXTS, trainers.BpeTrainer(vocab_size=380, special_tokens=names))
    stated: dict[str, Any] = json.loads(made.to_str())
    stated["added_tokens"] = stated["added_tokens"][: 1 + len(SPECIAL)]
    return stated


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
@pytest.mark.parametrize("flag", ["", "lstrip", "rstrip", "single_word", "normalized"])
def test_a_prompt_is_cut_as_the_published_library_cuts_it(scheme: str, flag: str, tmp_path: Path) -> None:
    for name, stated in (("pieces", with_spaces(scheme)), ("bytes", json.loads(make_tokenizer()))):
        (entry,) = (entry for entry in stated["added_tokens"] if entry["content"] == "<|start|>")
        entry.update({flag: True} if flag else {})
        write_vocabulary(tmp_path / name, template=TEMPLATE.replace("|>' + m", "|>  ' + m"))
        (tmp_path / name / "tokenizer.json").write_text(json.dumps(stated), encoding="utf8")
        published = Published.from_str(json.dumps(copy.deepcopy(stated)))
        tokenizer = load_prompt_vocabulary(tmp_path / name, published.get_vocab_size() + 3)
        assert tokenizer.published_ids is not None
        for text in (*TEXTS[:2], " leading", "Grüße 🙂"):
            said = f"<|start|>  user\n{text}<|stop|>\n<|start|>assistant\n"
            wanted = published.encode(said, add_special_tokens=False).ids
            assert tokenizer.published_ids[tokenizer.prompt(text, 200)[0]].tolist() == wanted
        words = tokenizer.prompt("a <|start|> b", 200)[0]
        own = tokenizer.prompt("a b", 200)[0]
        start = published.token_to_id("<|start|>")
        there = tokenizer.published_ids.tolist()
        assert [there[i] for i in words].count(start) == [there[i] for i in own].count(start)
