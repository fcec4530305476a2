"""Ways to damage a file: (bytes, draw) -> bytes."""

from collections.abc import Callable

import numpy as np

Mutation = Callable[[bytes, np.random.Generator], bytes]
_ODD_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_HEADER = 120  # bytes; most formats describe their contents in these


def _span(data: bytes, draw: np.random.Generator) -> tuple[int, int]:
    start, end = sorted(int(i) for i in draw.integers(0, len(data) + 1, 2))
    return start, min(end, start + 4096)


def unchanged(data: bytes, draw: np.random.Generator) -> bytes:
    return data


def truncated(data: bytes, draw: np.random.Generator) -> bytes:
    return data[: int(draw.integers(0, len(data)))]


def beheaded(data: bytes, draw: np.random.Generator) -> bytes:
    return data[int(draw.integers(1, min(len(data), 2000))) :]


def flipped_bits(data: bytes, draw: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for place in draw.integers(0, len(data), int(draw.integers(1, 40))):
        changed[place] ^= 1 << int(draw.integers(8))
    return bytes(changed)


def flipped_header(data: bytes, draw: np.random.Generator) -> bytes:
    head = flipped_bits(data[:_HEADER], draw)
    return head + data[_HEADER:]


def odd_numbers(data: bytes, draw: np.random.Generator) -> bytes:
    """Write absurd numbers into the header: sample rates, channel counts, sizes."""
    changed = bytearray(data)
    for _ in range(int(draw.integers(1, 4))):
        size = int(draw.choice([1, 2, 4, 8]))
        place = int(draw.integers(0, max(1, min(len(data), _HEADER) - size)))
        number = int(draw.choice(_ODD_NUMBERS)) & (2 ** (8 * size) - 1)
        order = "little" if draw.random() < 0.5 else "big"
        changed[place : place + size] = number.to_bytes(size, order)
    return bytes(changed)


def removed(data: bytes, draw: np.random.Generator) -> bytes:
    start, end = _span(data, draw)
    return data[:start] + data[end:]


def zeroed(data: bytes, draw: np.random.Generator) -> bytes:
    start, end = _span(data, draw)
    return data[:start] + bytes(end - start) + data[end:]


def repeated(data: bytes, draw: np.random.Generator) -> bytes:
    start, end = _span(data, draw)
    return data[:end] + data[start:end] * int(draw.integers(1, 5)) + data[end:]


def noisy(data: bytes, draw: np.random.Generator) -> bytes:
    start, end = _span(data, draw)
    return data[:start] + draw.bytes(end - start) + data[end:]


def inserted(data: bytes, draw: np.random.Generator) -> bytes:
    place = int(draw.integers(0, len(data)))
    return data[:place] + draw.bytes(int(draw.integers(1, 500))) + data[place:]


def doubled(data: bytes, draw: np.random.Generator) -> bytes:
    return data + data


def header_only(data: bytes, draw: np.random.Generator) -> bytes:
    """Return the header alone, which in most formats is a stream of length zero."""
    return data[: int(draw.integers(8, _HEADER))]


MUTATIONS: dict[str, Mutation] = {
    function.__name__: function
    for function in (
        unchanged, truncated, beheaded, flipped_bits, flipped_header, odd_numbers, removed, zeroed,
        repeated, noisy, inserted, doubled, header_only,
    )
}  # fmt: skip
