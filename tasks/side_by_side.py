"""Many candidates at once: worker processes merge and answer, this one keeps the books.

What comes out is the same as one after the other, and in the same order, whatever the workers'
number and pace: a recipe that is asked for twice is answered once and then found, and the journal
is written here, in the order of the questions.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from prefect import Task
from prefect.futures import PrefectFuture
from prefect.states import Crashed, Failed, State

from mergelib.errors import SearchError
from mergelib.evaluation import Asked
from mergelib.runs import Run
from mergelib.tables import Answered
from tasks.candidates import answer, answered, entered

R = TypeVar("R")

_TRIES = 3
"""How often something is handed out whose worker process ends over it."""


class Question(NamedTuple):
    """A model and what it is asked.

    Attributes:
        model: a checkpoint's reference, or a recipe's YAML.
        asked: the items of each benchmark.
        label: what Prefect's UI calls the task run.
        stage: what the ledger adds its cost to.
        what: what the terminal says meanwhile.
    """

    model: str
    asked: Asked
    label: str
    stage: str
    what: str


def all_answered(
    run: Run,
    questions: Sequence[Question],
    begins: Callable[[str], None],
    later: Iterable[Question] = (),
) -> list[Answered]:
    """Let models answer: here one after the other, or side by side in the workers of the flow.

    At most one candidate more than there are workers is handed out, so that none waits for this
    process and few are lost when it ends.

    Args:
        run: the run.
        questions: what to ask of whom.
        begins: told `what` of each question when it is handed out.
        later: what will be asked after these, as far as it is known: workers that would be idle
            are given it, and what they answer is found when it is asked for. Read no further than
            there are such workers, and not at all without workers.

    Returns:
        The answers, in the order of the questions; see `tasks.candidates.answered`.
    """
    if run.search.compute.runner == "local":
        found = []
        for question in questions:
            begins(question.what)
            found.append(answered(run, *question[:4]))
        return found
    return _Round(run, questions, begins, later).answers()


def where_models_are(run: Run, task: Task[[str], R]) -> R:
    """Do something with a run where its models are in memory: here, or in a worker.

    Args:
        run: the run.
        task: takes the run folder.
    """
    folder = str(run.folder)
    if run.search.compute.runner == "local":
        return task(folder)
    for _ in range(_TRIES):
        state = _final_state(task.submit(folder))
        if not state.is_crashed():
            break
    return state.result()


@contextmanager
def handing_out_early() -> Iterator[None]:
    """Within it, what one call of `all_answered` has handed out early another takes in."""
    token = _out.set(_Out())
    try:
        yield
    finally:
        _out.reset(token)


class _Out:
    """What the workers have, and what they have answered before anybody asked for it."""

    def __init__(self) -> None:
        self._futures: dict[str, PrefectFuture[Any]] = {}
        self._over: set[str] = set()
        self._back: SimpleQueue[str] = SimpleQueue()

    def __contains__(self, key: str) -> bool:
        return key in self._futures

    @property
    def busy(self) -> int:
        """How many candidates are out."""
        return len(self._futures) - len(self._over)

    def add(self, key: str, future: PrefectFuture[Any]) -> None:
        self._futures[key] = future
        future.add_done_callback(lambda _: self._back.put(key))

    def wait(self) -> str:
        """The key of one that is over, each once unless it is announced again."""
        key = self._back.get()
        self._over.add(key)
        return key

    def announce_again(self, key: str) -> None:
        """Let `wait` tell of one that it has told of already; others it tells of in time."""
        if key in self._over:
            self._back.put(key)

    def take(self, key: str) -> PrefectFuture[Any]:
        """Take in one that is over."""
        self._over.discard(key)
        return self._futures.pop(key)


_out: ContextVar[_Out | None] = ContextVar("out", default=None)


class _Round:
    """One barrier's worth of questions, handed out and taken in."""

    def __init__(
        self,
        run: Run,
        questions: Sequence[Question],
        begins: Callable[[str], None],
        later: Iterable[Question],
    ) -> None:
        self._run, self._questions, self._begins = run, questions, begins
        self._later = iter(later)
        self._keys = [self._key(question) for question in questions]
        self._waiting = list(range(len(questions)))
        self._asked: dict[str, int] = {}
        self._tries = [0] * len(questions)
        self._out = _out.get() or _Out()

    def answers(self) -> list[Answered]:
        states: dict[int, State[Any]] = {}
        found: list[Answered] = []
        while len(found) < len(self._questions):
            self._hand_out()
            key = self._out.wait()
            if key not in self._asked:
                continue
            number, state = self._asked.pop(key), _final_state(self._out.take(key))
            if state.is_crashed() and self._tries[number] < _TRIES:
                self._waiting.insert(0, number)
                continue
            states[number] = state
            while (first := len(found)) in states:
                question = self._questions[first]
                found.append(entered(self._run, *question[:4], _given_up(states.pop(first))))
        return found

    @property
    def _has_room(self) -> bool:
        return self._out.busy <= self._run.search.compute.workers

    def _hand_out(self) -> None:
        """Keep all workers busy; an evaluation that is out already is handed out after it."""
        for number in list(self._waiting):
            key = self._keys[number]
            if key not in self._asked and (key in self._out or self._has_room):
                self._waiting.remove(number)
                self._ask_for(number)
        while self._has_room and (question := next(self._later, None)) is not None:
            if (key := self._key(question)) not in self._out:
                self._submit(key, question)

    def _ask_for(self, number: int) -> None:
        question, key = self._questions[number], self._keys[number]
        if not self._tries[number]:
            self._begins(question.what)
        self._tries[number] += 1
        self._asked[key] = number
        if key in self._out:
            self._out.announce_again(key)
        else:
            self._submit(key, question)

    def _submit(self, key: str, question: Question) -> None:
        folder = str(self._run.folder)
        self._out.add(key, answer.submit(folder, question.model, question.asked, question.label))

    def _key(self, question: Question) -> str:
        return self._run.workbench().evaluation_digest(question.model, question.asked)


def _final_state(future: PrefectFuture[Any]) -> State[Any]:
    """The state of a task run that is over; crashed where its worker process ended over it."""
    future.wait()
    state = future.state
    return state if state.is_final() else Crashed(message="the worker process ended")


def _given_up(state: State[Any]) -> State[Any]:
    """A candidate that ended one worker after another has failed; the search goes on."""
    if not state.is_crashed():
        return state
    reason = f"its worker process ended {_TRIES} times: {state.message}"
    return Failed(message=reason, data=SearchError(reason))
