"""What an hour costs. Pure.

Invariant: amounts are whole billionths of the currency, rounded once an hour, so sums of them are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

from homeworld.model.errors import InvalidError

BILLION = 10**9
GIB = 2**30
_MOST = Decimal(10**6)


@dataclass(frozen=True, slots=True)
class Prices:
    """In units of whatever currency."""

    server_hour: Decimal = Decimal(0)
    storage_gib_hour: Decimal = Decimal(0)

    @classmethod
    def parse(cls, text: str) -> Prices:
        """From ``server_hour=0.05,storage_gib_hour=0.0002``; what is not named is 0.

        :raises InvalidError: a name is unknown, or a price none.
        """
        found: dict[str, Decimal] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = part.partition("=")
            if name not in cls.__slots__:
                raise InvalidError(f"there is no price {name!r}; prices are {', '.join(cls.__slots__)}")
            try:
                found[name] = Decimal(value)
            except InvalidOperation:
                raise InvalidError(f"{value!r} is no price of {name}") from None
            if not (found[name].is_finite() and 0 <= found[name] <= _MOST):
                raise InvalidError(f"a price is from 0 to {_MOST}, not {value} for {name}")
        return cls(**found)

    def of_server(self) -> int:
        """One server for an hour, in billionths."""
        return _whole(self.server_hour)

    def of_storage(self, size_bytes: int) -> int:
        """So many bytes for an hour, in billionths."""
        return _whole(self.storage_gib_hour * size_bytes / GIB)


def _whole(price: Decimal) -> int:
    return int((price * BILLION).to_integral_value(ROUND_HALF_EVEN))
