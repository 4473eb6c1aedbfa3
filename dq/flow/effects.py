"""What a step does exactly once: effects that its body asks for and that are committed with its completion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec

from dq.errors import DqError
from dq.flow import context
from dq.model import names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    SqlValue = None | int | float | str | bytes
    SqlParams = Sequence[SqlValue] | Mapping[str, SqlValue]

P = ParamSpec("P")


def write(sql: str, params: SqlParams = (), *, expect: int | None = None) -> None:
    """In the body of a step: has a statement run together with the step's completion, exactly once.

    Nothing happens yet. When the body has returned, all statements of the attempt run in order, in one transaction with
    the step's result, in the same database file, on tables of your own. An attempt that raises, is killed or times out
    writes nothing.

    Args:
        sql: One statement, such as INSERT, UPDATE, DELETE or CREATE TABLE IF NOT EXISTS. Tables whose names begin with
            `dq_` are dq's own: they can't be written, and of them only the views `dq_runs`, `dq_steps` and
            `dq_attempts` can be read. Transactions, PRAGMA and ATTACH are refused.
        params: A tuple for `?`, or a dict for `:name`; of None, int, float, str, bytes.
        expect: How many rows the statement must change. If it changes another number, the attempt fails and nothing of
            it is written.

    Example:
        @dq.step
        def transfer(source: str, target: str, cents: int) -> None:
            dq.write("UPDATE account SET cents = cents - ? WHERE name = ?", (cents, source), expect=1)
            dq.write("UPDATE account SET cents = cents + ? WHERE name = ?", (cents, target), expect=1)

    Raises:
        TypeError: A parameter is of a type that SQLite does not know; the message names it.
        ValueError: The statement is empty, a number has more than 64 bits, or it is too much for one attempt.
        DqError: No body of a step runs here.
    """
    from dq.executor import effects

    given = effects.check("dq.write", sql, params)
    if expect is not None and (type(expect) is not int or expect < 0):
        raise TypeError(f"dq.write: expect is {expect!r}; it is a number of rows, or None")
    _refuse_in_workflow("dq.write(...)", "Put it into a step that the workflow calls.")
    elsewhere = "From outside use engine.execute(...); in a thread of your own, hand the data back to the body."
    effects.wanted("dq.write(...)", elsewhere).write(sql, given, expect)


def enqueue(step: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> None:
    """In the body of a step: submits another step alone, together with this step's completion.

    If the attempt does not complete, nothing is submitted; if it does, the step is on record and runs some time later.
    Nobody waits for its result, which is kept in the file.

    Args:
        step: A step, or any function as one.
        args: Its arguments.
        kwargs: Its keyword arguments.

    Example:
        @dq.step
        def register(user: str) -> None:
            dq.write("INSERT INTO member VALUES (?)", (user,))
            dq.enqueue(send_welcome, user)

    Raises:
        NotPicklable: The function or its arguments can't travel.
        TypeError: It is a workflow.
        DqError: No body of a step runs here.
    """
    from dq.executor import effects, functions
    from dq.flow import registry
    from dq.flow.decorators import Step, Workflow

    name = getattr(step, "__name__", "step")
    if isinstance(step, Workflow):
        raise TypeError(f"{name} is a workflow, and dq.enqueue submits steps; call or submit it in a workflow")
    _refuse_in_workflow("dq.enqueue(...)", f"There use {name}.submit(...).")
    wanted = effects.wanted("dq.enqueue(...)", f"From outside use engine.submit({name}, ...).")
    if isinstance(step, Step):
        term = step.settings.term(0, args, kwargs) if step.has_term else None
        wanted.submit(registry.define(0, step), args, kwargs, term)
    else:
        wanted.submit(functions.define(0, step, kind="step"), args, kwargs, None)


def signal(run_id: str, name: str, payload: Any = None) -> Any:
    """Sends a signal to a run, exactly once. In an async workflow it is to be awaited.

    In the body of a step the signal joins the step's completion: if the attempt does not complete, or there is no such
    run by then, nothing is sent and nothing else of the attempt is written. In a workflow it is recorded, so that a
    replay does not send it again.

    Args:
        run_id: The id of the run.
        name: What the run waits for with `dq.wait_signal(name)`, now or later.
        payload: What `wait_signal` returns.

    Example:
        dq.signal("movie-1", "approve", {"by": "ann"})

    Raises:
        NoSuchRun: There is no such run. In a step it is the failure of the attempt.
        RunEnded: It has ended. The same holds.
        NotPicklable: The payload can't travel.
        DqError: Neither a step nor a workflow runs here.
    """
    for what, value in (("run_id", run_id), ("name", name)):
        if not isinstance(value, str):
            raise TypeError(f"dq.signal: {what} is a {type(value).__name__}; it must be a str")
    names.checked("a run's id", run_id)
    names.checked("a signal's name", name)
    run = context.running
    if run is not None:
        return run.signal(run_id, name, payload)
    from dq.executor import effects

    wanted = effects.wanted("dq.signal(...)", "From outside use engine.signal(...), or the command `dq signal`.")
    wanted.signal(run_id, name, payload)
    return None


def _refuse_in_workflow(call: str, instead: str) -> None:
    if context.running is not None:
        raise DqError(
            f"{call} belongs into the body of a step, and here a workflow runs, whose code is replayed. {instead}"
        )
