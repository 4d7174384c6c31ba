from signal import SIGTERM

import pytest
from prefect.exceptions import TerminationSignal

from flows.interrupts import was_interrupted


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), TerminationSignal(SIGTERM)])
def test_an_interruption_is_one_also_where_it_led_to_an_error(interruption: BaseException) -> None:
    assert was_interrupted(interruption)
    with pytest.raises(ValueError, match="not set") as caught:
        _stumble_over(interruption)
    assert was_interrupted(caught.value)


def _stumble_over(interruption: BaseException) -> None:
    try:
        raise interruption
    except BaseException:
        raise ValueError("Task run is not set") from None


def test_an_error_is_none() -> None:
    assert not was_interrupted(ValueError("Task run is not set"))
