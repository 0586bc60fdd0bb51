"""hash128 against the same steps in Python, and what is asked of a hash."""

import random
import struct

import pytest

from infer._core._testing_lru import hash_of, secret

MASK = (1 << 64) - 1
SECRET = random.Random(5).randbytes(96)


def fold(a: int, b: int) -> tuple[int, int]:
    product = a * b
    return b ^ (product >> 64), a ^ (product & MASK)


def model(key: bytes, spans: list[bytes]) -> tuple[int, int]:
    words = struct.unpack("<12Q", key)
    low, high = words[0], words[1]

    def take(first: int, second: int) -> None:
        nonlocal low, high
        low, high = fold(low ^ first ^ words[2], high ^ second ^ words[3])

    for span in spans:
        data = span
        if len(span) >= 64:
            lanes = [(low ^ words[4 + 2 * i], high ^ words[5 + 2 * i]) for i in range(4)]
            while len(data) >= 64:
                for i in range(4):
                    first, second = struct.unpack_from("<2Q", data, 16 * i)
                    lanes[i] = fold(lanes[i][0] ^ first, lanes[i][1] ^ second)
                data = data[64:]
            for lane in lanes:
                take(*lane)
        while data:
            take(*struct.unpack("<2Q", data[:16].ljust(16, b"\0")))
            data = data[16:]
        take(len(span), ~len(span) & MASK)
    take(words[0], words[1])
    folded = low ^ high
    take(words[1], words[0])
    return folded, low ^ high


@pytest.mark.parametrize("size", [0, 1, 7, 8, 15, 16, 17, 63, 64, 65, 127, 128, 200, 1000])
def test_the_same_steps_in_python(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert hash_of(SECRET, [data]) == model(SECRET, [data])
    assert hash_of(SECRET, [data, b"x", data]) == model(SECRET, [data, b"x", data])


def test_lengths_places_and_cuts_of_zeros_are_told_apart() -> None:
    one = [[bytes(size)] for size in range(300)]
    cuts = [[bytes(first), bytes(200 - first)] for first in range(201)]
    assert len({hash_of(SECRET, spans) for spans in one + cuts}) == 501


def test_every_bit_of_the_input_moves_about_half_of_either_half() -> None:
    for size in (5, 16, 64, 144):
        data = random.Random(size).randbytes(size)
        low, high = hash_of(SECRET, [data])
        moved = []
        for bit in range(size * 8):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << (bit % 8)
            found = hash_of(SECRET, [bytes(flipped)])
            moved.append(((found[0] ^ low).bit_count(), (found[1] ^ high).bit_count()))
        for half in (0, 1):
            assert min(each[half] for each in moved) >= 8
            assert 28 <= sum(each[half] for each in moved) / len(moved) <= 36


def test_small_numbers_spread_over_the_places_of_a_table() -> None:
    hashes = [hash_of(SECRET, [struct.pack("<f", number)]) for number in range(256 * 64)]
    for half in (0, 1):
        for shift in (0, 28, 56):
            places = [0] * 256
            for each in hashes:
                places[each[half] >> shift & 255] += 1
            # Chi-square with 255 degrees of freedom: 360 is past the 99.99th percentile.
            assert sum((count - 64) ** 2 / 64 for count in places) < 360


def test_blocks_that_change_places_are_told_apart() -> None:
    blocks = [random.Random(i).randbytes(16) for i in range(8)]
    orders = [blocks[i:] + blocks[:i] for i in range(8)] + [blocks[:i] + [blocks[i + 1], blocks[i]] + blocks[i + 2:]
                                                            for i in range(7)]
    assert len({hash_of(SECRET, [b"".join(order)]) for order in orders}) == len(orders)


def test_each_secret_has_a_hash_of_its_own() -> None:
    assert len({secret() for _ in range(4)}) == 4
    assert len({hash_of(secret(), [b"the same"]) for _ in range(4)}) == 4
    with pytest.raises(ValueError, match="96 bytes"):
        hash_of(b"short", [b""])
