"""The journal: every run and every trial, in SQLite, written as each trial ends.

Several processes may write at once (WAL, and a busy timeout). A full disk or a damaged file is one
sentence; the measuring goes on without it, see :class:`RunJournal`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from velollm_core.documents import from_plain, to_plain
from velollm_core.errors import FailureKind, UsageError
from velollm_core.experiment.spec import Trial

_VERSION = 1
_BUSY_TIMEOUT_S = 30.0
_TABLES = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY, created_at TEXT NOT NULL, kind TEXT NOT NULL,
    complete INTEGER NOT NULL DEFAULT 0, summary TEXT NOT NULL DEFAULT '', head TEXT NOT NULL
);
CREATE TABLE trials (
    run TEXT NOT NULL REFERENCES runs(id) ON DELETE CASCADE, key TEXT NOT NULL, block INTEGER NOT
    NULL, arm TEXT NOT NULL, trial TEXT NOT NULL, PRIMARY KEY (run, arm, key, block)
);
"""


@frozen(kw_only=True)
class RunInfo:
    """A run in the journal. ``head`` is the result's document without its trials."""

    id: str
    created_at: str
    kind: str
    complete: bool
    summary: str
    head: Mapping[str, Any] = field(repr=False)
    trials: int = 0
    failed: int = 0


class Journal:
    """The journal in one file, made when it is first written to.

    Args:
        path: the SQLite file.

    Every method raises :class:`UsageError` where the file cannot be read or written, with the
    reason.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, run: str, *, created_at: str, kind: str, head: Mapping[str, Any]) -> None:
        """Enter a new run, not complete yet.

        Args:
            run: its identifier.
            created_at: ISO 8601.
            kind: ``benchmark``.
            head: what the result's document holds beside its trials.
        """
        with self._open() as database:
            database.execute(
                "INSERT INTO runs (id, created_at, kind, head) VALUES (?, ?, ?, ?)",
                (run, created_at, kind, json.dumps(head)),
            )

    def finish(self, run: str, *, complete: bool, summary: str, head: Mapping[str, Any]) -> None:
        """Write down how a run ended."""
        with self._open() as database:
            database.execute(
                "UPDATE runs SET complete = ?, summary = ?, head = ? WHERE id = ?",
                (int(complete), summary, json.dumps(head), run),
            )

    def add(self, run: str, trial: Trial) -> None:
        """Enter a trial that has ended; one that was interrupted before is replaced."""
        with self._open() as database:
            database.execute(
                "INSERT OR REPLACE INTO trials (run, key, block, arm, trial)"
                " VALUES (?, ?, ?, ?, ?)",
                (run, trial.key, trial.block, trial.arm, json.dumps(to_plain(trial))),
            )

    def trials(self, run: str) -> tuple[Trial, ...]:
        """The trials of a run, in the order they ended."""
        with self._open() as database:
            rows = database.execute(
                "SELECT trial FROM trials WHERE run = ? ORDER BY rowid", (run,)
            ).fetchall()
        where = f"{self.path}, run {run}"
        return tuple(from_plain(json.loads(row[0]), Trial, where) for row in rows)

    def runs(self) -> tuple[RunInfo, ...]:
        """Every run, the newest first."""
        if not self.path.exists():
            return ()
        with self._open() as database:
            rows = database.execute(
                "SELECT id, created_at, kind, complete, summary, head,"
                " (SELECT count(*) FROM trials WHERE run = runs.id),"
                " (SELECT count(json_extract(trial, '$.failure.kind')) FROM trials"
                " WHERE run = runs.id)"
                " FROM runs ORDER BY runs.rowid DESC"
            ).fetchall()
        return tuple(
            RunInfo(
                id=row[0],
                created_at=row[1],
                kind=row[2],
                complete=bool(row[3]),
                summary=row[4],
                head=json.loads(row[5]),
                trials=row[6],
                failed=row[7],
            )
            for row in rows
        )

    def find(self, prefix: str) -> RunInfo:
        """The one run whose identifier starts with ``prefix``; ``last`` is the newest.

        Raises:
            UsageError: there is none, or more than one.
        """
        runs = self.runs()
        found = runs[:1] if prefix == "last" else [run for run in runs if run.id.startswith(prefix)]
        if len(found) == 1:
            return found[0]
        what = "no run in the journal matches" if not found else f"{len(found)} runs match"
        raise UsageError(f"{what} {prefix!r}.", "List them: velollm results")

    def remove(self, run: str) -> None:
        """Delete a run and its trials."""
        with self._open() as database:
            database.execute("DELETE FROM runs WHERE id = ?", (run,))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S)) as database:
                self._prepare(database)
                with database:
                    yield database
        except (sqlite3.Error, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(
                f"the journal {self.path} cannot be used: {reason}.",
                "Make room, mend its permissions, or name another folder in VELOLLM_DATA_DIR.",
            ) from error

    def _prepare(self, database: sqlite3.Connection) -> None:
        database.execute("PRAGMA foreign_keys = ON")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == _VERSION:
            return
        if version > _VERSION:
            raise UsageError(
                f"the journal {self.path} was written by a newer VeloLLM.",
                "Update VeloLLM, or name another folder in VELOLLM_DATA_DIR.",
            )
        database.execute("PRAGMA journal_mode = WAL")
        with database:
            database.execute("BEGIN IMMEDIATE")
            # Another process may have made the tables while this one waited for the lock.
            if database.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in _TABLES.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {_VERSION}")


@define
class RunJournal:
    """One run's side of the journal: what the runner writes to and resumes from.

    A trial that cannot be written is kept in memory and ``fault`` says why, once: an experiment of
    an hour is not thrown away for a full disk.
    """

    run: str
    _journal: Journal | None = None
    _trials: dict[tuple[str, str, int], Trial] = field(factory=dict)
    fault: UsageError | None = None

    def finish(self, *, complete: bool, summary: str, head: Mapping[str, Any]) -> None:
        """Enter how the run ended; ``fault`` says why where that cannot be written."""
        if self._journal is not None and self.fault is None:
            try:
                self._journal.finish(self.run, complete=complete, summary=summary, head=head)
            except UsageError as error:
                self.fault = error

    def finished(self, arm: str, key: str, block: int) -> Trial | None:
        """The trial of ``arm`` and ``key`` in ``block`` if it has ended by itself, well or
        badly.
        """
        trial = self._trials.get((arm, key, block))
        return None if trial is None or _interrupted(trial) else trial

    def add(self, trial: Trial) -> Trial:
        """Keep ``trial``, on disk where that is possible, and give back what is kept.

        An interrupted trial never takes the place of an earlier one that came further.
        """
        before = self._trials.get((trial.arm, trial.key, trial.block))
        if before is not None and _interrupted(trial) and _answers(before) >= _answers(trial):
            return before
        self._trials[trial.arm, trial.key, trial.block] = trial
        if self._journal is not None and self.fault is None:
            try:
                self._journal.add(self.run, trial)
            except UsageError as error:
                self.fault = error
        return trial

    def forget(self, arm: str, key: str, block: int) -> None:
        """Have a trial measured again; on disk it stays until then."""
        self._trials.pop((arm, key, block), None)


def _interrupted(trial: Trial) -> bool:
    return trial.failure is not None and trial.failure.kind is FailureKind.INTERRUPTED


def _answers(trial: Trial) -> int:
    return sum(sample.error is None for phase in trial.phases for sample in phase.samples)


def begin(
    journal: Journal, run: str, *, created_at: str, kind: str, head: Mapping[str, Any]
) -> RunJournal:
    """The side of a new run; it has a ``fault`` where the journal cannot be written."""
    try:
        journal.start(run, created_at=created_at, kind=kind, head=head)
    except UsageError as error:
        return RunJournal(run, fault=error)
    return RunJournal(run, journal)


def resume(journal: Journal, run: str) -> RunJournal:
    """The side of a run that was begun earlier, with the trials that it holds."""
    trials = {(trial.arm, trial.key, trial.block): trial for trial in journal.trials(run)}
    return RunJournal(run, journal, trials)
