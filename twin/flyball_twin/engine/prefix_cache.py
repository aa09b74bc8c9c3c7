"""A prefix cache: what is left of finished prompts, by name, until its blocks are wanted.

Prompts name their leading runs of `PREFIX_TOKENS` tokens, and a run is the same only after the
same runs. Runs in use by several sequences hold their blocks once. Those in use by none are
kept until the blocks are handed out again, the longest unused first and the end of a prefix
before its beginning, as vLLM's free queue has it: so they count as free, and a cache that
nobody asks costs nothing. This module refuses to know which of its tokens are worth keeping,
and it shares whole runs only.
"""

from collections import OrderedDict
from collections.abc import Sequence as Items

from flyball_twin.engine.kv import PagedKv, blocks_for
from flyball_twin.workload import PREFIX_TOKENS

RUN_BLOCKS = blocks_for(PREFIX_TOKENS)
"""KV blocks of one run."""


class Run:
    """Cached tokens that continue those of `parent`; `users` are the sequences that hold them."""

    __slots__ = ("name", "next", "parent", "users")

    def __init__(self, name: int, parent: "Run | None") -> None:
        self.name = name
        self.parent = parent
        self.next: dict[int, Run] = {}
        self.users = 0


class PrefixCache:
    """The runs that are cached in the blocks of `kv`."""

    __slots__ = ("_kv", "_root", "_unused")

    def __init__(self, kv: PagedKv) -> None:
        self._kv = kv
        self._root = Run(0, None)
        self._unused: OrderedDict[Run, None] = OrderedDict()

    @property
    def unused(self) -> int:
        """Runs that are cached and in nobody's use."""
        return len(self._unused)

    def match(self, names: Items[int], tokens: int) -> list[Run]:
        """The cached runs with which a prompt of `tokens` begins by its names; its last token is never among them."""
        found: list[Run] = []
        run = self._root
        for name in names[: (tokens - 1) // PREFIX_TOKENS]:
            following = run.next.get(name)
            if following is None:
                break
            found.append(following)
            run = following
        return found

    def wanted_blocks(self, runs: Items[Run]) -> int:
        """Blocks of these runs that are not in use, and would be if they were held."""
        return RUN_BLOCKS * sum(run.users == 0 for run in runs)

    def hold(self, runs: Items[Run]) -> None:
        """One more sequence uses these runs."""
        for run in runs:
            if run.users == 0:
                del self._unused[run]
                self._kv.take(RUN_BLOCKS)
            run.users += 1

    def learn(self, runs: list[Run], names: Items[int], computed: int) -> None:
        """A sequence that holds `runs` has its first `computed` tokens now: add the whole ones among them.

        What another has cached meanwhile under the same name stays the other's, and this sequence's copy its own.
        """
        for name in names[len(runs) : computed // PREFIX_TOKENS]:
            parent = runs[-1] if runs else self._root
            if name in parent.next:
                return
            run = parent.next[name] = Run(name, parent)
            run.users = 1
            runs.append(run)

    def release(self, runs: Items[Run]) -> None:
        """A sequence uses these runs no more; what is in nobody's use then stays until `trim`."""
        for run in reversed(runs):
            run.users -= 1
            if run.users == 0:
                self._unused[run] = None
                self._kv.give(RUN_BLOCKS)

    def trim(self) -> None:
        """Forget unused runs whose blocks have been handed out."""
        while RUN_BLOCKS * len(self._unused) > self._kv.free:
            run, _ = self._unused.popitem(last=False)
            if run.parent is not None:
                del run.parent.next[run.name]
