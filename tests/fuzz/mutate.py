"""Change valid content at random: what a hand, a disk or an enemy makes of a file."""

import json

NASTY = [
    "nan", "inf", "-inf", "1e308", "1e-320", "-0", "9" * 400, "9" * 5000, "0x10", "1_000", "", " ",
    "\0", "\ufeff", "\ud83d", "\u202e", "\u2028", "\r", "\n", "\n\n", ",", ";", "\t", '"', "'",
    "{}", "[]", "[" * 2000, '{"a":' * 2000, "null", "true", "-1", "0", "1", "0.5", "../passwd",
    "~", "/", "a" * 3000, "[/b]", ":smile:", "\\u0000", "\\ud83d", "=", "#", "🙂", "٣", "é",
    "\x1b[31m", "__class__", "%s", "{0}", "${HOME}", "1.0", "007",
    "label", "text", "1e400", "0" * 99,
]  # fmt: skip
BYTES = [
    b"\xff", b"\xfe\xff", b"\xff\xfe", b"\x1f\x8b", b"PAR1", b"PK\x03\x04", b"\x00", b"\xc3",
    b"\xef\xbb\xbf", b"\xed\xa0\xbd", b"\x80", b"\n", b"\r\n", b"version https://git-lfs",
]  # fmt: skip


def mutated(content, random, most=4):
    """Return bytes that are `content` with up to `most` changes."""
    data = bytearray(content)
    for _ in range(random.randint(0, most)):
        at = random.randint(0, len(data))
        end = min(len(data), at + random.choice([0, 1, 1, 2, 5, 20, 200]))
        kind = random.randint(0, 7)
        if kind == 0:
            data[at:end] = b""
        elif kind == 1:
            data[at:end] = random.choice(BYTES)
        elif kind in (2, 3, 4):
            data[at:end] = random.choice(NASTY).encode("utf-8", "surrogatepass")
        elif kind == 5:
            data[at:end] = data[at:end] * random.choice([2, 3, 50])
        elif kind == 6:
            data = data[:at] if random.random() < 0.3 else data
        elif data:
            data[at % len(data)] ^= 1 << random.randint(0, 7)
    return bytes(data)


def value(random, depth=2):
    """Return something that JSON or TOML can hold, of whatever type."""
    kind = random.randint(0, 9)
    if kind < 3:
        return random.choice([0, 1, -1, 2, 7, 10**9, 2**63, -(2**63), 10**30, 10**400])
    if kind < 5:
        return random.choice([0.0, 0.5, 1.0, -1.5, 1e-30, 1e30, 1e308, 5e-324, float("nan"),
                              float("inf"), -float("inf")])  # fmt: skip
    if kind < 7:
        return random.choice(NASTY)
    if kind == 7:
        return random.random() < 0.5
    if kind == 8 or depth == 0:
        return None
    if random.random() < 0.5:
        return [value(random, depth - 1) for _ in range(random.randint(0, 3))]
    return {random.choice(NASTY): value(random, depth - 1) for _ in range(random.randint(0, 3))}


def edited(table, random, most=3):
    """Return a JSON table with up to `most` of its values, at any depth, replaced or taken out."""
    copy = json.loads(json.dumps(table))
    for _ in range(random.randint(0, most)):
        place = copy
        while isinstance(place, dict | list) and place:
            key = random.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], dict | list) or random.random() < 0.3:
                if random.random() < 0.25:
                    del place[key]
                else:
                    place[key] = value(random)
                break
            place = place[key]
    return copy
