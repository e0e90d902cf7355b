"""What leads cost, and that a cap holds with calls in flight."""

from decimal import Decimal

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from leadline.features.tables.credits import Budget, Purse, Tokens, charge_of, exact, price_of
from leadline.features.tables.provider_modules import ModuleFaultsError, preset, read_module
from tests.features.tables.test_provider_modules import SYNC

PLAIN = replace(read_module(SYNC, file="plain.toml"), credits_per_lead=0.1)
BY_REQUEST = replace(PLAIN, charge_on="request")
MODEL = replace(preset("openai"), credits_per_1000_input_tokens=0.15, credits_per_1000_output_tokens=0.6)


@given(st.decimals(min_value=0, max_value=1_000_000, places=8))
def test_a_price_is_the_decimal_that_is_written(price: Decimal) -> None:
    module = read_module(f"credits_per_lead = {price:f}\n{SYNC}", file="priced.toml")
    assert price_of(module) == exact(float(price))
    assert str(price_of(module)) == str(price.normalize() + 0) or len(price.as_tuple().digits) > 15


def test_a_tenth_ten_times_is_one() -> None:
    assert sum((price_of(PLAIN) for _ in range(10)), Decimal(0)) == 1


def test_a_price_by_result_is_due_with_the_result_and_never_without() -> None:
    assert charge_of(PLAIN, found=True) == charge_of(PLAIN, found=True, first=False) == Decimal("0.1")
    assert charge_of(PLAIN, found=False) == 0


def test_a_price_by_request_is_due_once_found_or_not() -> None:
    assert charge_of(BY_REQUEST, found=True) == charge_of(BY_REQUEST, found=False) == Decimal("0.1")
    assert charge_of(BY_REQUEST, found=True, first=False) == 0


def test_tokens_are_due_with_every_answer_each_at_its_price() -> None:
    assert charge_of(MODEL, Tokens(1_000, 100), found=False) == Decimal("0.21")
    assert charge_of(MODEL, Tokens(1, 0), found=True, first=False) == Decimal("0.00015")
    assert charge_of(replace(MODEL, credits_per_lead=2.0), Tokens(0, 10), found=True) == Decimal("2.006")


def test_a_price_for_tokens_of_what_has_none_is_a_fault() -> None:
    with pytest.raises(ModuleFaultsError, match="credits_per_1000_input_tokens: is for an endpoint with chat only"):
        read_module(f"credits_per_1000_input_tokens = 0.1\n{SYNC}", file="wrong.toml")


def test_leads_wait_for_what_others_may_give_back_before_there_is_no_room() -> None:
    async def spend() -> list[tuple[str, bool]]:
        budget = Budget(Decimal(2))
        told: list[tuple[str, bool]] = []
        first, second = Purse(budget), Purse(budget)
        assert await first.fill(Decimal(1))
        assert await second.fill(Decimal(1))

        async def third() -> None:
            purse = Purse(budget)
            told.append(("third", await purse.fill(Decimal(1))))
            purse.pay(Decimal(1))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(third)
            await anyio.wait_all_tasks_blocked()
            assert told == [], "what the two hold may come free"
            first.pay(Decimal(1))
            await anyio.wait_all_tasks_blocked()
            assert told == [], "and what the second holds still may"
            second.empty()
        told.append(("fourth", await Purse(budget).fill(Decimal(1))))
        return told

    assert anyio.run(spend) == [("third", True), ("fourth", False)]


def test_leads_that_wait_for_each_other_are_let_go_one_by_one() -> None:
    async def spend() -> list[bool]:
        budget = Budget(Decimal(3))
        told: list[bool] = []

        async def lead() -> None:
            purse = Purse(budget)
            assert await purse.fill(Decimal(1))
            await anyio.sleep(0)
            told.append(await purse.fill(Decimal(3)))
            purse.empty()

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(lead)
        assert budget.aside == budget.holders == 0
        return told

    assert anyio.run(spend) == [False, False, True]


@given(
    st.integers(0, 30),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 2)), max_size=40),
)
def test_a_cap_holds_and_what_is_left_is_too_little_for_whoever_was_turned_away(
    cap: int, leads: list[tuple[int, int, int]]
) -> None:
    async def spend() -> None:
        budget = Budget(Decimal(cap))
        turned_away: list[tuple[int, Decimal]] = []

        async def lead(price: int, part: int, turns: int) -> None:
            purse = Purse(budget)
            for _ in range(1 + turns):
                if not await purse.fill(Decimal(price)):
                    turned_away.append((price, budget.gone + budget.aside))
                    break
                assert budget.gone + budget.aside <= cap
                await anyio.sleep(0)
                purse.pay(Decimal(min(part, price)))
            purse.empty()

        async with anyio.create_task_group() as tasks:
            for price, part, turns in leads:
                tasks.start_soon(lead, price, part, turns)
        assert budget.aside == budget.holders == 0
        assert budget.gone <= cap
        for price, taken in turned_away:
            assert taken + price > cap

    anyio.run(spend)


def test_an_order_that_a_provider_has_taken_is_set_aside_whether_there_is_room_or_not() -> None:
    async def spend() -> bool:
        budget = Budget(Decimal(1), gone=Decimal(1))
        ordered = Purse(budget, held=Decimal(1))
        assert await ordered.fill(Decimal(1))
        ordered.pay(Decimal(1))
        return await Purse(budget).fill(Decimal(1))

    assert anyio.run(spend) is False
