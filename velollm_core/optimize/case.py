"""What the decisions about memory go by: the model, the room there is, and uses laid out in it."""

from __future__ import annotations

from attrs import evolve, field, frozen

from velollm_core.backends.advice import AdviceContext
from velollm_core.config import Knob, Role
from velollm_core.models.fit import Budget, best_placement
from velollm_core.models.memory import Use
from velollm_core.models.spec import ModelSpec
from velollm_core.optimize.memory import Resolved, resolved, whole
from velollm_core.optimize.prompts import SPARE


@frozen(kw_only=True)
class Case:
    """What does not change from one decision to the next; ``layers`` as for ``resolved``.

    Every use is laid out once: that is most of the time that a plan takes.
    """

    context: AdviceContext
    spec: ModelSpec
    room: Budget
    layers: int | None
    _known: dict[Use, Resolved] = field(factory=dict, init=False)

    def resolved(self, use: Use) -> Resolved:
        """``use`` placed as well as it can be."""
        if use not in self._known:
            self._known[use] = resolved(self.spec, use, self.room, self.layers)
        return self._known[use]

    def whole(self, use: Use) -> bool:
        """Whether all layers lie on GPUs."""
        return bool(self.room.gpu_bytes) and whole(self.spec, use, self.room) is not None

    @property
    def ample_room(self) -> Budget:
        """The room; of main memory, where the model lies in that alone, with some to spare."""
        if self.room.gpu_bytes:
            return self.room
        return evolve(self.room, host_bytes=self.room.host_bytes - self.room.host_bytes // SPARE)

    def is_ample(self, use: Use) -> bool:
        """Whether there is room with all layers on GPUs, or in main memory with some to spare."""
        if self.room.gpu_bytes:
            return self.whole(use)
        return best_placement(self.spec, use, self.ample_room) is not None


def batch_knob(context: AdviceContext) -> Knob | None:
    """The knob that says how many tokens are computed at once."""
    return context.knob(Role.BATCH_PHYSICAL) or context.knob(Role.BATCH_LOGICAL)


def with_ubatch(use: Use, tokens: int) -> Use:
    """``use`` with ``tokens`` computed at once."""
    return evolve(use, ubatch_tokens=tokens, batch_tokens=max(use.batch_tokens, tokens))
