"""Dates and times out of the binlog's packed forms, as the server prints them. TIMESTAMP is in UTC.

Parts that repeat (days, times of day) are kept in bounded memos, because a lookup costs a fifth of making
the text.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_LARGEST_MEMO = 1 << 16

ZERO_DATETIME = b"0000-00-00 00:00:00"
SECONDS_A_DAY = 86400


class Memo(dict[int, bytes]):
    """Number to text, made by ``make`` at first use; forgets everything when it has grown large."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[int], bytes]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: int) -> bytes:
        if len(self) >= _LARGEST_MEMO:
            self.clear()
        text = self[key] = self._make(key)
        return text


def _day_of_datetime(packed: int) -> bytes:
    month, day = packed >> 5, packed & 31
    return b"%04d-%02d-%02d " % (month // 13, month % 13, day)


def _clock_of_datetime(packed: int) -> bytes:
    return b"%02d:%02d:%02d" % (packed >> 12, packed >> 6 & 63, packed & 63)


def _date(packed: int) -> bytes:
    return b"%04d-%02d-%02d" % (packed >> 9, packed >> 5 & 15, packed & 31)


def _day_of_stamp(days: int) -> bytes:
    moment = time.gmtime(days * SECONDS_A_DAY)
    return b"%04d-%02d-%02d " % (moment.tm_year, moment.tm_mon, moment.tm_mday)


def _clock_of_stamp(seconds: int) -> bytes:
    return b"%02d:%02d:%02d" % (seconds // 3600, seconds // 60 % 60, seconds % 60)


DATE = Memo(_date)
"""DATE: three bytes as a number."""
DATETIME_DAY = Memo(_day_of_datetime)
"""DATETIME: the bits above the time of day, as ``YYYY-MM-DD `` with the blank."""
DATETIME_CLOCK = Memo(_clock_of_datetime)
"""DATETIME: the lowest 17 bits, as ``HH:MM:SS``."""
STAMP_DAY = Memo(_day_of_stamp)
"""TIMESTAMP: days since 1970, as ``YYYY-MM-DD `` with the blank."""
STAMP_CLOCK = Memo(_clock_of_stamp)
"""TIMESTAMP: seconds of the day."""


def year_text(packed: int) -> bytes:
    """YEAR: one byte."""
    return b"%04d" % (1900 + packed) if packed else b"0000"


def fraction_size(digits: int) -> int:
    """Bytes that fractional seconds of ``digits`` take."""
    return (digits + 1) // 2


def fraction_text(packed: bytes, digits: int) -> bytes:
    """``.123``: the stored value always has an even number of digits."""
    value = int.from_bytes(packed, "big")
    return b".%0*d" % (digits, value // 10 if digits & 1 else value)


def time2_reader(digits: int) -> Callable[[bytes], bytes]:
    """TIME: three bytes (flipped sign, hours, minutes, seconds) and the fraction, one signed number."""
    size = fraction_size(digits)
    zero = 0x800000 << 8 * size
    mask = (1 << 8 * size) - 1

    def read(packed: bytes) -> bytes:
        number = int.from_bytes(packed, "big") - zero
        sign = b""
        if number < 0:
            number = -number
            sign = b"-"
        clock = number >> 8 * size
        text = b"%b%02d:%02d:%02d" % (sign, clock >> 12 & 1023, clock >> 6 & 63, clock & 63)
        if not digits:
            return text
        value = number & mask
        return text + b".%0*d" % (digits, value // 10 if digits & 1 else value)

    return read


# MariaDB's own older forms (mysql56_temporal_format=OFF, tables of before 10.1), which come without
# metadata: the number of digits is the declared one.


def old_time(packed: bytes) -> bytes:
    """TIME without fraction: HHMMSS as a signed number of three bytes."""
    number = int.from_bytes(packed, "little", signed=True)
    sign = b"-" if number < 0 else b""
    number = abs(number)
    return b"%b%02d:%02d:%02d" % (sign, number // 10000, number // 100 % 100, number % 100)


def old_datetime(packed: int) -> bytes:
    """DATETIME without fraction: YYYYMMDDHHMMSS as a number."""
    day, clock = divmod(packed, 1_000_000)
    return b"%04d-%02d-%02d %02d:%02d:%02d" % (
        day // 10000, day // 100 % 100, day % 100, clock // 10000, clock // 100 % 100, clock % 100,
    )  # fmt: skip


HIRES_TIME_SIZE = (3, 4, 4, 5, 5, 5, 6)
HIRES_DATETIME_SIZE = (5, 6, 6, 7, 7, 7, 8)
HIRES_FRACTION_SIZE = (0, 1, 1, 2, 2, 3, 3)
_LARGEST_TIME_SECONDS = 838 * 3600 + 59 * 60 + 59


def hires_time_reader(digits: int) -> Callable[[bytes], bytes]:
    """TIME with fraction: 10**-digits seconds above the least TIME, big-endian."""
    power = 10**digits
    zero = (_LARGEST_TIME_SECONDS + 1) * power

    def read(packed: bytes) -> bytes:
        number = int.from_bytes(packed, "big") - zero
        sign = b"-" if number < 0 else b""
        seconds, fraction = divmod(abs(number), power)
        return b"%b%02d:%02d:%02d.%0*d" % (
            sign, seconds // 3600, seconds // 60 % 60, seconds % 60, digits, fraction,
        )  # fmt: skip

    return read


def hires_datetime_reader(digits: int) -> Callable[[bytes], bytes]:
    """DATETIME with fraction: year, month (13 a year), day (32 a month) … in units of 10**-digits seconds."""
    power = 10**digits

    def read(packed: bytes) -> bytes:
        number, fraction = divmod(int.from_bytes(packed, "big"), power)
        number, second = divmod(number, 60)
        number, minute = divmod(number, 60)
        number, hour = divmod(number, 24)
        number, day = divmod(number, 32)
        year, month = divmod(number, 13)
        return b"%04d-%02d-%02d %02d:%02d:%02d.%0*d" % (
            year, month, day, hour, minute, second, digits, fraction,
        )  # fmt: skip

    return read


def stamp_text(seconds: int) -> bytes:
    """TIMESTAMP's whole seconds since 1970; 0 is the zero date."""
    if not seconds:
        return ZERO_DATETIME
    return STAMP_DAY[seconds // SECONDS_A_DAY] + STAMP_CLOCK[seconds % SECONDS_A_DAY]


def hires_stamp_reader(digits: int) -> Callable[[bytes], bytes]:
    """TIMESTAMP with fraction: seconds in four bytes, then the fraction, big-endian."""

    def read(packed: bytes) -> bytes:
        return stamp_text(int.from_bytes(packed[:4], "big")) + b".%0*d" % (
            digits, int.from_bytes(packed[4:], "big"),
        )  # fmt: skip

    return read


# Inside JSON, temporals are packed numbers of eight bytes: the parts above 24 bits of microseconds.


def json_datetime(packed: int) -> bytes:
    """``2026-01-02 03:04:05.000000``."""
    clock = packed >> 24
    return b"%b%b.%06d" % (DATETIME_DAY[clock >> 17], DATETIME_CLOCK[clock & 0x1FFFF], packed & 0xFFFFFF)


def json_date(packed: int) -> bytes:
    """``2026-01-02``."""
    return DATETIME_DAY[packed >> 41][:-1]


def json_time(packed: int) -> bytes:
    """``-12:34:56.000000``."""
    sign = b"-" if packed < 0 else b""
    packed = abs(packed)
    clock = packed >> 24
    return b"%b%02d:%02d:%02d.%06d" % (
        sign, clock >> 12 & 1023, clock >> 6 & 63, clock & 63, packed & 0xFFFFFF,
    )  # fmt: skip
