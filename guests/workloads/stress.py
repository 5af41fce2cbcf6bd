"""Random operations on everything that a guest has, for tests: short bursts on one thing, then on another.

Each kind of thing has an actor with a model in ordinary memory (`actors`, `private`); the weights say how often it is
its turn.  Not a likeness of any program: it goes where programs seldom do.
"""

from random import Random
from typing import Annotated, ClassVar

from pydantic import Field

from guests.disk import Disk
from guests.workloads.actors import Actor, AnonActor, FileActor, PoolActor, RebuildableActor
from guests.workloads.base import GoingOn, Options, Workload
from guests.workloads.private import PrivatePages

Pages = Annotated[int, Field(ge=0, le=1 << 20)]


class StressOptions(Options):
    files: Pages = 384               # pages of the one file; 0: none of this kind, here and below
    anonymous: Pages = 256
    rebuildable: Pages = 128
    ephemeral: Pages = 128           # handles of a pool of one's own
    persistent: Pages = 64
    private: Pages = 32              # pages under random hints
    burst: Annotated[int, Field(ge=1, le=1000)] = 12    # deeds on one thing in a row, at most


class Stress(Workload):
    """The random guest.  One operation is one deed of one actor."""

    Options: ClassVar[type[Options]] = StressOptions

    def __init__(self, options: StressOptions, seed: int) -> None:
        super().__init__(options, seed)
        self._random = Random(seed)
        self._actors: list[Actor] = []
        self._turn, self._left = 0, 0

    @property
    def anonymous_pages(self) -> int:
        pages: int = self.options.anonymous
        return pages

    def set_up(self, going_on: GoingOn) -> None:
        kernel, proof, options = self.kernel, self.proof, self.options

        def own() -> Random:
            return Random(self._random.getrandbits(64))

        # The private pages first: while no page has been used, the allocator has them.
        if options.private:
            self._actors.append(PrivatePages(kernel, proof, own(), options.private))
        if options.files:
            disk = self.owns(Disk.create(options.files, self.guest.counters))
            self._actors.append(FileActor(kernel, proof, own(), disk))
        if options.anonymous:
            self._actors.append(AnonActor(kernel, proof, own(), options.anonymous))
        if options.rebuildable:
            self._actors.append(RebuildableActor(kernel, proof, own(), options.rebuildable))
        for persistent, handles in ((False, options.ephemeral), (True, options.persistent)):
            if handles:
                self._actors.append(PoolActor(kernel, proof, own(), persistent, handles))
        going_on()

    def operate(self) -> bool:
        if not self._actors:
            return False
        if not self._left:
            self._turn = self._random.randrange(len(self._actors))
            self._left = self._random.randint(1, self.options.burst)
        self._left -= 1
        self._actors[self._turn].act()
        return True

    def finish(self) -> None:
        for actor in self._actors:
            actor.finish()
        self._actors.clear()
