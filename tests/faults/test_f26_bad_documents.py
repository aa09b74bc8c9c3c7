"""Fault 26: policy documents with wrong syntax, unknown keys, inverted bounds, wrong units.

Refused with file, line and hint; a reload keeps the old document; no push comes of it.
"""

import pytest
from hypothesis import given, strategies as st

from flyball_core.errors import InvalidDocument
from flyball_core.inputs import Mode, PolicyText
from flyball_policies.document import PolicyDocument
from flyball_policies.reading import MAX_BYTES, read_document
from harness.scripted_engine import POOL
from harness.scripted_pool import POLICY, ScriptedPool, scripted_pool

BAD = {
    "no YAML": ("version: 1\nmode: [control\n", 3, "not YAML", ""),
    "a tab": ("version: 1\n\tmode: control\n", 2, "not YAML", ""),
    "empty": ("", 1, "empty", ""),
    "a list": ("- version: 1\n", 1, "must be a mapping", ""),
    "no version": ("mode: control\n", 1, "does not say its version", "begin with `version: 1`"),
    "a later version": ("version: 2\n", 1, "2 is not between 1 and 1", ""),
    "unknown key": ("version: 1\nmood: control\n", 2, "unknown key 'mood' in the document", "did you mean 'mode'?"),
    "unknown key below": (
        "version: 1\nguard:\n  slew_upp: 2\n",
        3,
        "unknown key 'slew_upp' in guard",
        "did you mean 'slew_up'?",
    ),
    "a key twice": ("version: 1\nmode: advise\nmode: control\n", 3, "'mode' is given twice", ""),
    "unknown mode": ("version: 1\nmode: controll\n", 2, "'controll' is none of", "did you mean 'control'?"),
    "inverted bounds": (
        "version: 1\nknobs:\n  max_active_requests: {min: 90, max: 8}\n",
        3,
        "the lower bound 90 is above the upper bound 8",
        "swap them",
    ),
    "inverted weights": ("version: 1\nweights: {min: 200, nominal: 100}\n", 2, "lower bound 200", "swap them"),
    "no unit": ("version: 1\nlanes:\n  chat: {tpot: 50}\n", 3, "'50' is not a duration", "write 50ms or 50s"),
    "a wrong unit": ("version: 1\nlanes:\n  chat: {tpot: 50mb}\n", 3, "'50mb'", "units are ms, s, min, h"),
    "a negative duration": ("version: 1\nhold: -5s\n", 2, "'-5s' is not a duration", ""),
    "an endless duration": (f"version: 1\nhold: {'9' * 400}h\n", 2, "is longer than a year", ""),
    "a share over 1": ("version: 1\nguard: {in_change: 20}\n", 2, "20 is not between 0 and 1", "write 20%"),
    "no share": ("version: 1\nguard: {in_change: much}\n", 2, "'much' is not a share", "write 8% or 0.08"),
    "no number": ("version: 1\nguard: {slew_up: fast}\n", 2, "'fast' is not a number", ""),
    "a slew that lowers": ("version: 1\nguard: {slew_up: 0.5}\n", 2, "0.5 is not between", ""),
    "NaN": ("version: 1\nknobs: {x: {min: .nan}}\n", 2, "", ""),
    "no whole number": ("version: 1\ncaps: {step: 1.5}\n", 2, "'1.5' is not a whole number", ""),
    "an unknown regime": (
        "version: 1\nvariants: {regimes: {long_contexts: splitkv}}\n",
        2,
        "unknown key 'long_contexts'",
        "did you mean 'long_context'?",
    ),
    "no mapping": ("version: 1\nlanes: realtime\n", 2, "lanes must be a mapping", ""),
    "a null": ("version: 1\nmode:\n", 2, "expected one of", ""),
    "too large": ("version: 1\n#" + "x" * MAX_BYTES, 1, "larger than 64 KiB", ""),
    "an alias bomb": ("version: 1\na: &a [x]\nlanes: *a\n", 2, "unknown key 'a'", ""),
    "a Python object": ("version: 1\nmode: !!python/object/apply:os.system [ls]\n", 2, "expected one of", ""),
}


@pytest.mark.parametrize("what", BAD)
def test_f26_it_is_refused_with_file_line_and_hint(what: str) -> None:
    """The error names the file and the line, says what is wrong, and where it can what would be right."""
    text, line, problem, hint = BAD[what]
    with pytest.raises(InvalidDocument) as refused:
        read_document(text, "fleet.yaml")

    assert ("fleet.yaml", line) == (refused.value.file, refused.value.line)
    assert str(refused.value).startswith(f"fleet.yaml:{line}:")
    assert problem in refused.value.problem
    assert hint in refused.value.hint


@given(text=st.text(max_size=300) | st.binary(max_size=300).map(lambda raw: raw.decode("utf-8", "surrogateescape")))
def test_f26_no_text_whatever_raises_anything_else(text: str) -> None:
    """Any text is a document or an `InvalidDocument`."""
    try:
        found = read_document(text)
    except InvalidDocument:
        return
    assert isinstance(found, PolicyDocument)


def moving_pool() -> ScriptedPool:
    """A pool in which something is always being decided."""
    pool = scripted_pool()
    pool.engines["e0-1"].slowness = 2.5
    pool.run(10)
    return pool


def test_f26_a_reload_keeps_the_old_document_and_causes_0_pushes() -> None:
    """With every bad document tried once the pool's course is the same, push by push, as without."""
    courses = []
    for bad in ((), tuple(BAD.values())):
        pool = moving_pool()
        for text, *_ in bad:
            if text:
                pool.put(PolicyText(pool=POOL, text=text, author="op"))
        pool.run(60)
        found = pool.state.pools["chat"]
        courses.append([(event.time_s, event.target, event.values) for event in pool.log.applied])

        assert POLICY == found.policy_text
        assert Mode.CONTROL is found.mode
        assert len([1 for text, *_ in bad if text]) == found.counts.get("policy_refused", 0)

    assert courses[0] == courses[1]


@pytest.mark.parametrize("what", [what for what, (text, *_) in BAD.items() if text])
def test_f26_a_first_document_that_is_wrong_leaves_the_pool_observing_with_0_pushes(what: str) -> None:
    """Without another document the pool stays in `observe`, tells nobody anything, and the refusal is on record."""
    pool = scripted_pool(policy=BAD[what][0])
    pool.run(5)

    assert Mode.OBSERVE is pool.state.pools["chat"].mode
    assert [] == pool.log.told()
    assert ["policy of op refused"] == [d.summary.split(":")[0] for d in pool.log.decisions() if "policy" in d.summary]


def test_f26_the_empty_text_is_no_document() -> None:
    """An order with an empty text does not put the defaults in force."""
    pool = moving_pool()
    pool.put(PolicyText(pool=POOL, text="", author="op"))

    assert POLICY == pool.state.pools["chat"].policy_text
