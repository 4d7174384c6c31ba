"""Many candidates at once: worker processes merge and answer, this one keeps the books.

What comes out is the same as one after the other, and in the same order, whatever the workers'
number and pace: a recipe that is asked for twice is answered once and then found, and the journal
is written here, in the order of the questions.
"""

from collections.abc import Callable, Sequence
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
    run: Run, questions: Sequence[Question], begins: Callable[[str], None]
) -> list[Answered]:
    """Let models answer: here one after the other, or side by side in the workers of the flow.

    At most one candidate more than there are workers is handed out, so that none waits for this
    process and few are lost when it ends.

    Args:
        run: the run.
        questions: what to ask of whom.
        begins: told `what` of each question when it is handed out.

    Returns:
        The answers, in the order of the questions; see `tasks.candidates.answered`.
    """
    if run.search.compute.runner == "local":
        found = []
        for question in questions:
            begins(question.what)
            found.append(answered(run, *question[:4]))
        return found
    return _Round(run, questions, begins).answers()


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


class _Round:
    """One barrier's worth of questions, handed out and taken in."""

    def __init__(
        self, run: Run, questions: Sequence[Question], begins: Callable[[str], None]
    ) -> None:
        bench = run.workbench()
        self._run, self._questions, self._begins = run, questions, begins
        self._keys = [bench.evaluation_digest(q.model, q.asked) for q in questions]
        self._waiting = list(range(len(questions)))
        self._out: dict[int, str] = {}
        self._tries = [0] * len(questions)
        self._back: SimpleQueue[tuple[int, PrefectFuture[Any]]] = SimpleQueue()

    def answers(self) -> list[Answered]:
        states: dict[int, State[Any]] = {}
        found: list[Answered] = []
        while len(found) < len(self._questions):
            self._hand_out()
            number, future = self._back.get()
            del self._out[number]
            state = _final_state(future)
            if state.is_crashed() and self._tries[number] < _TRIES:
                self._waiting.insert(0, number)
                continue
            states[number] = state
            while (first := len(found)) in states:
                question = self._questions[first]
                found.append(entered(self._run, *question[:4], _given_up(states.pop(first))))
        return found

    def _hand_out(self) -> None:
        """Keep all workers busy; an evaluation that is out already is handed out after it."""
        room = self._run.search.compute.workers + 1 - len(self._out)
        for number in list(self._waiting):
            if room and self._keys[number] not in self._out.values():
                self._waiting.remove(number)
                self._submit(number)
                room -= 1

    def _submit(self, number: int) -> None:
        question = self._questions[number]
        if not self._tries[number]:
            self._begins(question.what)
        self._tries[number] += 1
        self._out[number] = self._keys[number]
        folder = str(self._run.folder)
        future = answer.submit(folder, question.model, question.asked, question.label)
        future.add_done_callback(lambda of: self._back.put((number, of)))


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
