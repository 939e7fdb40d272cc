"""What a check that takes long has done so far: one that was stopped goes on from there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from attrs import define, field
from record import ROOT, trees

PARTIAL = ROOT / "benchmarks" / "results" / "partial"
_EACH_TIME = 40
"""So many pieces of work are done between two looks at the file."""


@define
class Kept:
    """Entries in ``results/partial/NAME.json``; those of other code or circumstances do not count.

    ``depends_on`` are paths in the repository, ``circumstances`` whatever else has to be the same.
    """

    name: str
    depends_on: Sequence[str]
    circumstances: Mapping[str, Any] = field(factory=dict)
    entries: list[dict[str, Any]] = field(factory=list, init=False)
    _of: dict[str, Any] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._of = {**trees(self.depends_on), **self.circumstances}
        if self.path.exists():
            partial = json.loads(self.path.read_text(encoding="utf-8"))
            self.entries = partial["entries"] if partial["of"] == self._of else []

    @property
    def path(self) -> Path:
        return PARTIAL / f"{self.name}.json"

    def left(self, plan: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Those of ``plan`` that no entry begins with."""
        return [item for item in plan if not any(item.items() <= e.items() for e in self.entries)]

    def add(self, fresh: Iterable[Mapping[str, Any]]) -> None:
        self.entries += map(dict, fresh)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        text = json.dumps({"of": self._of, "entries": self.entries})
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(self.path)

    def work_through(
        self,
        plan: Iterable[Mapping[str, Any]],
        work: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    ) -> None:
        """Do what is left of ``plan`` on all processors; an entry is its item and its outcome."""
        left = self.left(plan)
        with ProcessPoolExecutor() as pool:
            for start in range(0, len(left), _EACH_TIME):
                items = left[start : start + _EACH_TIME]
                outcomes = pool.map(work, items, chunksize=4)
                self.add({**item, **outcome} for item, outcome in zip(items, outcomes, strict=True))
                print(f"{self.name}: {len(left) - start - len(items)} are left", flush=True)

    def forget(self) -> None:
        """The check has come to its end."""
        self.path.unlink(missing_ok=True)
