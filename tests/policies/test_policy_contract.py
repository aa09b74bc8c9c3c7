"""What every policy promises, run over every policy of the package.

A policy proposes from a view and a memory and does nothing else: it changes no input, it
survives whatever is missing, and the same view and memory give the same proposals.
"""

import json
import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from flyball_core.inputs import Proposal
from flyball_policies.caps_aimd import CapsAimd
from flyball_policies.seam import Column, Memory, Policy, PoolView
from flyball_policies.variants_map import VariantsMap
from flyball_policies.weights_speed import WeightsSpeed
from harness.pool_view import COLUMNS, view_of

POLICIES: tuple[Policy, ...] = (CapsAimd(), WeightsSpeed(), VariantsMap())


def frozen(view: PoolView) -> str:
    """Everything a view says, as text that shows every bit."""
    parts: dict[str, object] = {}
    for name in view.__dataclass_fields__:
        value = getattr(view, name)
        if isinstance(value, Mapping):
            value = {key: np.asarray(item).tobytes().hex() for key, item in value.items()}
        elif isinstance(value, np.ndarray):
            value = value.tobytes().hex()
        parts[name] = value
    return repr(parts)


def check_sound(policy: Policy, view: PoolView, proposals: list[Proposal]) -> None:
    """Proposals are of this policy, finite, and for engines of the view."""
    for proposal in proposals:
        assert policy.name == proposal.policy
        assert proposal.target in view.engines
        assert isinstance(proposal.value, str) or math.isfinite(proposal.value)
        assert 0.0 <= proposal.propensity <= 1.0


EXTREMES = np.array([0.0, 1.0, 0.05, 0.3, 50.0, 5e-324, 1e-12, 1e9, 1e24, math.nan])
"""What can pass the filing of frames, and what stands where nothing was measured."""

NAMES = ("e0", "e1", "e2", "e3")


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
class TestPolicyContract:
    """One suite for all policies."""

    def test_proposes_something_under_load(self, policy: Policy) -> None:
        """The suite is no empty one: with engines of different speed every policy wants something."""
        wanted = [policy.propose(view_of(NAMES, seed=seed), {}) for seed in range(20)]

        assert any(wanted)

    def test_changes_no_input(self, policy: Policy) -> None:
        """A view is the same after as before, to the bit."""
        view = view_of(NAMES)
        before = frozen(view)
        policy.propose(view, {})

        assert before == frozen(view)

    def test_is_deterministic(self, policy: Policy) -> None:
        """The same views and memory give the same proposals, whatever was asked of the policy in between."""
        first, second = _course(policy, {}), _course(policy, {})

        assert first == second

    def test_memory_is_json(self, policy: Policy) -> None:
        """What is remembered survives JSON, and a policy goes on from it as if nothing had been."""
        memory: Memory = {}
        other: Memory = {}
        for tick in range(40):
            view = view_of(NAMES, seed=tick, time_s=100.0 + tick)
            other = json.loads(json.dumps(other))

            assert policy.propose(view, memory) == policy.propose(view, other)
            assert memory == other

    @pytest.mark.parametrize("column", COLUMNS)
    def test_survives_a_missing_column(self, policy: Policy, column: str) -> None:
        """A column without any measurement gives sound proposals or none."""
        for seed in range(10):
            view = view_of(NAMES, seed=seed)
            view = replace(view, columns={**view.columns, column: np.full(len(NAMES), np.nan)})
            check_sound(policy, view, policy.propose(view, {}))

    def test_nothing_measured_moves_nothing_of_an_engine(self, policy: Policy) -> None:
        """Where telemetry is missing altogether and no engine is usable, nothing is proposed."""
        view = view_of(NAMES)
        blank: dict[str, Column] = {name: np.full(len(NAMES), np.nan) for name in COLUMNS}
        view = replace(view, columns=blank, features={}, usable=np.zeros(len(NAMES), dtype=bool))

        assert [] == policy.propose(view, {})

    def test_survives_an_empty_pool(self, policy: Policy) -> None:
        """A pool without engines gives no proposals."""
        assert [] == policy.propose(view_of(()), {})

    def test_survives_engines_that_come_and_go(self, policy: Policy) -> None:
        """Whoever is there now is who is proposed for, whatever is remembered."""
        memory: Memory = {}
        for tick, names in enumerate((NAMES, ("e1",), (), ("e1", "e9"), ("x", "y", "z"), NAMES)):
            view = view_of(names, seed=tick, time_s=100.0 + 10 * tick)
            check_sound(policy, view, policy.propose(view, memory))

    def test_forgets_engines_that_are_gone(self, policy: Policy) -> None:
        """Memory does not grow with every engine that ever was."""
        memory: Memory = {}
        for tick in range(200):
            names = tuple(f"e{tick}-{i}" for i in range(4))
            policy.propose(view_of(names, seed=tick, time_s=100.0 + 10 * tick), memory)

        assert len(json.dumps(memory)) < 2000

    def test_leaves_engines_alone_that_are_not_usable(self, policy: Policy) -> None:
        """Nothing is proposed for an engine that does not serve or has no fresh telemetry."""
        for seed in range(20):
            usable = np.array([True, False, True, True])
            view = view_of(NAMES, seed=seed, usable=usable)

            assert "e1" not in {proposal.target for proposal in policy.propose(view, {})}

    @settings(max_examples=200, deadline=None)
    @given(picks=st.binary(min_size=len(COLUMNS) * 4, max_size=len(COLUMNS) * 4))
    def test_survives_any_measurement(self, policy: Policy, picks: bytes) -> None:
        """Whatever passes the filing of frames, and any hole in it, gives sound proposals."""
        rows = EXTREMES[np.frombuffer(picks, dtype=np.uint8) % len(EXTREMES)].reshape(len(COLUMNS), 4)
        columns: dict[str, Column] = dict(zip(COLUMNS, rows, strict=True))
        view = replace(view_of(NAMES), columns=columns)
        check_sound(policy, view, policy.propose(view, {}))


def _course(policy: Policy, memory: Memory) -> list[list[Proposal]]:
    return [deepcopy(policy.propose(view_of(NAMES, seed=tick, time_s=100.0 + tick), memory)) for tick in range(40)]
