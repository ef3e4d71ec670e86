"""The vocabulary of byT5: the bytes of UTF-8, without a file (Xue et al., arXiv 2105.13626, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

BYT5 = "byt5"
PROTO = b"kdtw_jax byt5\n"  # what `Tokenizer.save` writes where others have a sentencepiece model
SENTINELS = 125  # ids above the bytes in the published tokenizer, `<extra_id_0>` first; they fill 384 rows
_SPECIALS = 3  # pad, EOS, unknown
_BYTES = 256
_UNKNOWN = "⁇"


class ByteProcessor:
    """What `Tokenizer` needs of a sentencepiece processor.

    Every text is known; what is not UTF-8 is left out of a decoded text, as the published tokenizer does.
    """

    def encode(self, text: str) -> list[int]:
        return [byte + _SPECIALS for byte in text.encode("utf8")]

    def decode(self, ids: Sequence[int]) -> str:
        parts = (bytes([i - _SPECIALS]) if i >= _SPECIALS else _UNKNOWN.encode() for i in ids)
        return b"".join(parts).decode("utf8", errors="ignore")

    def vocab_size(self) -> int:
        return _SPECIALS + _BYTES

    def id_to_piece(self, index: int) -> str:
        """A character of ASCII as itself, a space as "▁", other bytes as sentencepiece writes them."""
        if index < _SPECIALS:
            return ("<pad>", "</s>", "<unk>")[index]
        byte = index - _SPECIALS
        return "▁" if byte == 0x20 else chr(byte) if 0x20 < byte < 0x7F else f"<0x{byte:02X}>"
