"""What every surface promises a receiver, whether settings or a table: one suite for all adapters."""

import pytest

from flyball_agents.surface import Surface, capability_hash
from flyball_core.knobs import KnobClass, Value
from receiver_bench import Broken


class SurfaceContract:
    """Subclasses give a surface, two full settings of live and routing knobs, and a way to make one knob fail."""

    def surface(self) -> Surface:
        """A fresh surface over fresh controls."""
        raise NotImplementedError

    first: dict[str, Value]
    second: dict[str, Value]

    def fail(self, surface: Surface, name: str) -> None:
        """Make setting this knob raise from now on."""
        raise NotImplementedError

    def heal(self, surface: Surface) -> None:
        """Let everything be set again."""
        raise NotImplementedError

    def test_every_spec_is_found_by_its_name(self) -> None:
        """`spec` finds exactly what `specs` lists, and nothing under a name that is none."""
        surface = self.surface()

        assert surface.specs() == tuple(surface.spec(spec.name) for spec in surface.specs())
        assert surface.spec("") is None
        assert surface.spec("no such knob") is None

    def test_names_are_unique_and_safe_values_within_bounds(self) -> None:
        """No two knobs share a name, and each takes its own safe value."""
        specs = self.surface().specs()

        assert len({spec.name for spec in specs}) == len(specs) > 0
        assert [spec.refuse(spec.safe) for spec in specs] == [None] * len(specs)

    def test_every_live_and_routing_knob_reads_back(self) -> None:
        """What can be set can be read."""
        surface = self.surface()

        assert {spec.name for spec in surface.specs()} <= set(surface.read())

    def test_what_is_applied_reads_back_exactly(self) -> None:
        """Values and their types come back as they were set."""
        surface = self.surface()
        for values in (self.first, self.second, self.first):
            surface.apply(values)
            effective = surface.read()

            assert values == {name: effective[name] for name in values}
            assert [type(values[name]) for name in values] == [type(effective[name]) for name in values]

    def test_applying_twice_is_applying_once(self) -> None:
        """The same values again change nothing."""
        surface = self.surface()
        surface.apply(self.first)
        once = dict(surface.read())
        surface.apply(self.first)

        assert once == surface.read()

    def test_a_part_of_a_setting_leaves_the_rest(self) -> None:
        """Knobs that are not named keep their values."""
        surface = self.surface()
        surface.apply(self.first)
        for name, value in self.second.items():
            before = dict(surface.read())
            surface.apply({name: value})

            assert {**before, name: value} == surface.read()

    def test_nothing_applied_changes_nothing(self) -> None:
        """An empty setting is fine and does nothing."""
        surface = self.surface()
        before = dict(surface.read())
        surface.apply({})

        assert before == surface.read()

    def test_a_failure_on_the_way_puts_back_what_was_set(self) -> None:
        """Whichever knob fails, apply raises and the rest read as before."""
        for name in self.second:
            surface = self.surface()
            surface.apply(self.first)
            before = dict(surface.read())
            self.fail(surface, name)
            with pytest.raises(Broken):
                surface.apply(self.second)
            self.heal(surface)

            assert before == surface.read()

    def test_what_is_passed_in_is_not_kept(self) -> None:
        """Changing a mapping after it was applied, or one that was read, changes nothing."""
        surface = self.surface()
        values = dict(self.first)
        surface.apply(values)
        values.clear()
        dict(surface.read()).clear()

        assert self.first == {name: surface.read()[name] for name in self.first}

    def test_the_capability_hash_tells_capabilities_apart(self) -> None:
        """It is the same for the same knobs in any order, and another for fewer."""
        specs = self.surface().specs()

        assert capability_hash(specs) == capability_hash(reversed(specs)) == capability_hash(self.surface().specs())
        assert capability_hash(specs) != capability_hash(specs[1:])
        assert len(capability_hash(specs)) == 16

    def test_settling_without_news_does_nothing(self) -> None:
        """Settle sets nothing while nothing has appeared."""
        surface = self.surface()
        surface.apply(self.first)
        before = dict(surface.read())
        surface.settle(self.second)

        assert before == surface.read()

    def test_both_settings_may_be_held(self) -> None:
        """A sound setting is not refused as a whole."""
        surface = self.surface()

        assert [surface.refuse(self.first), surface.refuse(self.second)] == [None, None]

    def test_only_numbers_have_a_zero_that_means_none(self) -> None:
        """A knob whose zero is "no limit" is a bounded number that may be 0."""
        surface = self.surface()
        for spec in surface.specs():
            if surface.zero_is_none(spec.name):
                assert spec.refuse(0) is None
                assert spec.maximum is not None
                assert spec.knob_class is not KnobClass.RESTART
