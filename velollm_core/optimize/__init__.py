"""Advice with a reason: rules that propose, and a planner that makes one plan of it.

The way through: :mod:`.gather` asks the backend what there is and what is set (as if its running
server were stopped, :mod:`.held`), and the backend's and all plugins' rules. The core's own rules
(:mod:`.rules`, offered by :mod:`.hooks`) decide threads each by itself. What shares the memory is
decided once, in :mod:`.shape`, from what is required (:mod:`.required`) to what makes room
(:mod:`.squeeze`) and what is nice to have (:mod:`.extras`); :mod:`.memory` and :mod:`.case` tell
what a configuration takes, :mod:`.prompts` what kept prompts may grow to, and where nothing fits,
:mod:`.obstacle` says why. :mod:`.plan` makes one plan of all suggestions and holds it against the
memory of the whole (:mod:`.rooms`). :mod:`.spec` is the plan as data and :mod:`.outcome` the
document.
"""
