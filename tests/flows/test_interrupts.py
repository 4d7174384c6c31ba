from signal import SIGTERM

import pytest
from prefect.exceptions import TerminationSignal

from flows.interrupts import was_interrupted


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), TerminationSignal(SIGTERM)])
def test_an_interruption_is_one_also_where_it_led_to_an_error(interruption: BaseException) -> None:
    assert was_interrupted(interruption)
    try:
        try:
            raise interruption
        except BaseException:
            raise ValueError("Task run is not set") from None
    except ValueError as error:
        assert was_interrupted(error)


def test_an_error_is_none() -> None:
    assert not was_interrupted(ValueError("Task run is not set"))
