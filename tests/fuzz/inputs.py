"""Hostile and damaged input: values that readers stumble over, and edits of what is valid."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

# Numbers in other scripts, of other types, beyond every type, and what is nearly a number.
NUMBERS = [
    "0", "-0", "1", "-1", "2", "0.5", "nan", "-nan", "inf", "-inf", "1e999", "-1e999", "1e-999",
    "1e308", "1e-308", "9" * 30, "-" + "9" * 30, "9" * 5000, str(2**31), str(2**63),
    str(2**64),
    "1_000", "1e1_0", "²", "½", "\uff11\uff12", "٣", "৩", "Ⅷ", "0x10", "0b1",
    "1j", "1e", ".", "-", "+",
    "1.", "+1", " 1", "1 ", "1\n", "--1", "1,5", "1L", "True", "None", "NaN", "Infinity",
    "1e400", "007",
]  # fmt: skip
WORDS = [
    "", " ", "\0", "a\0b", "\n", "\r\n", "\t", ":", "::", ":::", "=", "==", ",", "/", "//", ".",
    "..", "../..", "./", "~", "~nobody", "\\", "'", '"', "`", "$HOME", "%s", "{}", "{0}", "[]",
    "(", ")", "[" * 200, "(" * 3000, "{" * 200, "-" * 3000 + "1", "1" + "+1" * 3000,
    "[1, [2", "\ufeff", "é",
    "naïve", "日本語", "\u202e", "😀", "\ud800", "\x1b[31m", "a" * 300, "a/" * 200, "x" * 5000,
    "true", "none", "null", "full", "auto", "all", "None", "False", "class", "__class__", "lambda",
    "{1: 2}", "{'a': [1]}", "{{}}", "{[]: 1}", "[1, 2]", "(1, 2)", "b'x'", "...", "1:2:3",
    "-h", "--", "--help", "@file", "*", "?", "[a-", "!*.bias", "nul", "/dev/null/x",
    "/proc/self/mem",
]  # fmt: skip

numbers = st.sampled_from(NUMBERS)
words = st.one_of(st.sampled_from(WORDS), numbers, st.text(max_size=12))


@st.composite
def damaged_text(draw: st.DrawFn, valid: str) -> str:
    """Edit a valid text: cut, repeat, exchange or put in something."""
    text = valid
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        stop = min(len(text), start + draw(st.integers(0, 12)))
        kind = draw(st.integers(0, 5))
        if kind == 0:
            text = text[:start] + text[stop:]
        elif kind == 1:
            text = text[:stop] + text[start:stop] * draw(st.integers(1, 3)) + text[stop:]
        elif kind == 2:
            text = text[:start] + draw(words) + text[stop:]
        elif kind == 3:
            text = text[:start]
        elif kind == 4:
            text = text[:start] + draw(numbers) + text[start:]
        else:
            lines = text.splitlines(keepends=True)
            if lines:
                lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(lines)))
                text = "".join(lines)
    return text


@st.composite
def damaged_cells(draw: st.DrawFn, valid: str, separator: str = ",") -> str:
    """Exchange, drop or add single cells of a table, so that it keeps its form."""
    rows = [line.split(separator) for line in valid.splitlines()]
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.sampled_from(rows))
        at = draw(st.integers(0, len(row) - 1)) if row else 0
        kind = draw(st.integers(0, 3))
        if kind == 0 and row:
            row[at] = draw(words)
        elif kind == 1 and row:
            row[at] = draw(numbers)
        elif kind == 2 and row:
            del row[at]
        else:
            row.insert(at, draw(words))
    return "\n".join(map(separator.join, rows)) + draw(st.sampled_from(["\n", "", "\n\n", "\r"]))


@st.composite
def damaged_bytes(draw: st.DrawFn, valid: bytes, edits: int = 4) -> bytes:
    """Flip, cut, repeat and overwrite bytes, also by the extremes of integers."""
    content = bytearray(valid)
    for _ in range(draw(st.integers(0, edits))):
        if not content:
            return bytes(content)
        # Headers are at the front: half of the edits are there.
        end = draw(st.sampled_from([min(64, len(content)), len(content)]))
        at = draw(st.integers(0, end - 1))
        kind = draw(st.integers(0, 4))
        if kind == 0:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == 1:
            content[at] = draw(st.integers(0, 255))
        elif kind == 2:
            del content[at : at + draw(st.integers(1, 64))]
        elif kind == 3:
            del content[at:]
        else:
            content[at : at + 4] = draw(
                st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0"])
            )
    return bytes(content)


as_bytes = st.one_of(words.map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary())


def file_of(valid: str, separator: str = ",") -> st.SearchStrategy[bytes]:
    """Draw the content of a text file near a valid one."""
    encoded = valid.encode("utf-8")
    return st.one_of(
        damaged_text(valid).map(_encoded),
        damaged_cells(valid, separator).map(_encoded),
        damaged_bytes(encoded),
        as_bytes,
    )


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


# JSON that is none, or none that Python's own functions take back.
TOKENS = [
    "null", "true", "[]", "{}", '""', "0", "-1", "0.5", "1e999", "NaN", "-Infinity", "9" * 40,
    "9" * 5000, '"\\ud800"', '"\\u0000"', '"nan"', '"²"', '"a\\nb"', "[[]]", '[{"a": null}]',
    '{"a": {"b": [1]}}', "[" * 50 + "]" * 50, "[1, null, 2]", "[1, [2]]",
]  # fmt: skip
BROKEN = ["", "[" * 100_000, '{"a":' * 20_000, "{", "nul", '{"a": 1,}', "\ufeff{}", "'a'"]


@st.composite
def damaged_json(draw: st.DrawFn, valid: Any) -> bytes:
    """Exchange, drop or rename entries of JSON; rarely, damage its text."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.one_of(st.sampled_from(BROKEN).map(_encoded), as_bytes))
    content = json.loads(json.dumps(valid))
    tokens: list[str] = []
    for _ in range(draw(st.integers(0, 3))):
        places = list(_places(content))
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        kind = draw(st.integers(0, 4))
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[draw(st.sampled_from(["", "a b", "²", "run", "é"]))] = holder.pop(key)
        else:
            tokens.append(draw(st.sampled_from(TOKENS)))
            holder[key] = f"\0{len(tokens) - 1}"
    text = json.dumps(content)
    for number, token in enumerate(tokens):
        text = text.replace(json.dumps(f"\0{number}"), token)
    return _encoded(draw(damaged_text(text)) if draw(st.integers(0, 9)) == 0 else text)


def _places(content: Any) -> Any:
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in list(items):
        yield content, key
        if isinstance(value, dict | list):
            yield from _places(value)
