"""How the campaigns of the silicon table started their engines and drove them, as far as it is public.

The rows name neither flags nor lengths' spread, so both come from what the campaigns' tools do by default. Rules
depend on a row's backend, version and source alone. It refuses to tell models apart.

- aiconfigurator's generator gives an engine a token budget of one prompt, one token per running request and
  1,500 more, and starts SGLang with mixed chunks since 0.5.6; its load generator sends prompts and outputs of
  exactly the lengths asked for, ten rounds per client after a warm-up.
- InferenceX draws lengths between 0.8 and 1 of those asked for, ten rounds per client.

That prompts enter the batch one a step under vLLM and TensorRT-LLM follows from the first of these only for prompts
longer than 1,500 tokens. For shorter ones it was seen in the rows: their first tokens wait for about three prefills
at any concurrency, not for a batch of them. This, the length of the request path, and how strongly fits shrink were
chosen with all rows in sight, held out or not; constants never are.
"""

import re
from dataclasses import replace

from flyball_twin.engine.scheduling import BatchPolicy, scheduling_of
from flyball_twin.validation.closed_loop import ClientLoad, Serving
from flyball_twin.validation.silicon_rows import Setting, engine_of

SHORTEST = 0.8
"""InferenceX's `random_range_ratio`."""
DEFAULT_BUDGET = 8192
"""Tokens a step of vLLM, TensorRT-LLM, and of SGLang's chunked prefill on GPUs of 80 GB and more."""
SPARE_TOKENS = 1500
"""That the generator gives on top of a prompt."""
MIXED_SINCE = (0, 5, 6)
"""SGLang's version from which on it is started with mixed chunks."""
REQUEST_CAP = 1024
"""Request cap of every engine, unless more clients are there: one cap lets rows share what is computed once."""
_INFERENCEX = re.compile(r"^(db-dump|source_file=\d{4}-\d\d-\d\d|source_file=.*gap-analysis)")
_NUMBERS = re.compile(r"\d+")


def serving_of(setting: Setting) -> Serving:
    """The engine of a row, as it was started, with the constants it would have by default."""
    scheduling = scheduling_of(setting.backend)
    apart = setting.backend == "sglang"
    if apart and tuple(int(part) for part in _NUMBERS.findall(setting.version)[:3]) >= MIXED_SINCE:
        scheduling = replace(scheduling, policy=BatchPolicy.MIXED)
    requests = max(REQUEST_CAP, setting.clients)
    budget = DEFAULT_BUDGET
    while not apart and budget < setting.prompt_tokens + setting.clients + SPARE_TOKENS:
        budget *= 2
    engine = engine_of(setting, max_active_requests=requests, max_batched_tokens=max(budget, requests))
    return Serving(engine=engine, scheduling=scheduling)


def load_of(setting: Setting) -> ClientLoad:
    """What the clients of a row did."""
    return ClientLoad(
        clients=setting.clients,
        prompt_tokens=setting.prompt_tokens,
        output_tokens=setting.output_tokens,
        shortest=SHORTEST if _INFERENCEX.match(setting.source) else 1.0,
    )
