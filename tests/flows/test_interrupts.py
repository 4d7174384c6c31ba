from pathlib import Path
from signal import SIGTERM

import pytest
import typer
from prefect.exceptions import TerminationSignal

from flows.interrupts import resumable, was_interrupted
from mergelib.errors import InputError


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


def test_a_command_ends_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, resumable(tmp_path):
        _stumble_over(KeyboardInterrupt())
    assert ended.value.exit_code == 130
    assert capsys.readouterr().err == "interrupted; the same command goes on where it stopped\n"
    with pytest.raises(ValueError, match="odd"), resumable(tmp_path):
        raise ValueError("odd")
    free = iter([10**9, 0, 0])
    monkeypatch.setattr("mergelib.files._free", lambda path: next(free))
    with pytest.raises(InputError, match="No space left on device"), resumable(tmp_path):
        raise ValueError("odd")
