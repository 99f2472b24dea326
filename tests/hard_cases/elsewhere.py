"""Hard cases that other tests show already, with whole workflows of their own: nothing is shown twice.

The page's run includes these tests, on both flavours; one that is renamed or fails leaves no page.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.hard_cases.cases import EQUAL


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A case with the tests that show it, as pytest names them."""

    number: int
    title: str
    tests: tuple[str, ...]
    outcome: str = EQUAL


_SERVERS = "tests/servers/"
_WALK = f"{_SERVERS}test_workflow_walk.py::"
_HOLD = f"{_SERVERS}test_gateway_hold.py::"
_FENCE = f"{_SERVERS}test_fence.py::"
_CLOSING = f"{_SERVERS}test_gateway_closing.py::"

ELSEWHERE: tuple[Elsewhere, ...] = (
    Elsewhere(
        29,
        "The last rows before a switch, written until the very moment",
        (f"{_WALK}test_the_whole_walk", f"{_WALK}test_killed_at_a_step_it_ends_the_same"),
    ),
    Elsewhere(
        30,
        "Positions are read when writers have stopped, not before",
        (f"{_FENCE}test_writers_wait_and_the_positions_are_final", f"{_FENCE}test_all_or_none"),
    ),
    Elsewhere(
        31,
        "Transactions that are open when traffic switches",
        (
            f"{_FENCE}test_an_open_transaction_is_waited_for_and_is_in_the_position",
            f"{_HOLD}test_a_hold_waits_for_transactions_and_lets_them_go_on",
            f"{_HOLD}test_a_transaction_over_two_servers_is_rolled_back_on_both",
        ),
    ),
    Elsewhere(
        33,
        "Traffic goes there and back, replicas alone and many times",
        (f"{_WALK}test_the_whole_walk", f"{_HOLD}test_tables_move_to_and_fro_under_load"),
    ),
    Elsewhere(
        34,
        "Holds of clients that overlap or come one after another",
        (
            f"{_CLOSING}test_a_later_turn_takes_the_place_of_an_earlier_without_a_gap",
            f"{_CLOSING}test_holds_of_no_subject_stand_beside_each_other",
            f"{_HOLD}test_a_hold_ends_by_itself",
        ),
    ),
    Elsewhere(
        36,
        "No client is told that a table does not exist, on primaries or replicas",
        (
            f"{_SERVERS}test_gateway_moved_ends.py::"
            "test_no_client_meets_an_error_or_other_rows_at_the_ends_of_moves",
        ),
    ),
    Elsewhere(
        37,
        "Ids go on above the largest, given by sequences or by AUTO_INCREMENT",
        (f"{_WALK}test_ids_go_on_above_the_largest_in_both_directions",),
    ),
)
