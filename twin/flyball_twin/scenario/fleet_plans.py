"""What a scenario's pools mean: engines by their groups, lanes by policy and override, objectives by lane."""

from collections.abc import Iterator
from dataclasses import replace

import yaml

from flyball_core.errors import InvalidDocument, Rejected
from flyball_core.ids import EngineId, PoolId
from flyball_core.outputs import LaneRule
from flyball_policies.document import Lane, PolicyDocument
from flyball_policies.presets import preset
from flyball_policies.reading import MAX_BYTES, read_document, read_node
from flyball_policies.strict_yaml import DocumentReader
from flyball_twin.fleet.scoring import Slo
from flyball_twin.scenario import registries
from flyball_twin.scenario.forms import Entry, ScenarioReader
from flyball_twin.scenario.keys import MOST_ENGINES
from flyball_twin.scenario.model import EnginePlan, PoolPlan

GPUS_PER_NODE = 8
_START = Lane(name="")
_PLAIN = (
    "backend",
    "tensor_parallel",
    "expert_parallel",
    "weights",
    "kv_cache",
    "max_active_requests",
    "max_batched_tokens",
    "memory_share",
    "prefix_cache",
    "priority",
    "draft_tokens",
    "draft_acceptance",
)
"""Keys of engines that are called like their field."""
_LANE_KEYS = {
    "priority": "priority",
    "longest_wait": "longest_wait_s",
    "ttft": "ttft_s",
    "tpot": "tpot_s",
    "end_to_end": "end_to_end_s",
}


class FleetPlanner:
    """Turns pools into plans; what is wrong it tells the reader."""

    def __init__(self, reader: ScenarioReader) -> None:
        self._reader = reader
        self._engines: dict[str, EnginePlan] = {}
        self._unnamed = 0
        self._gpus = 0
        self.lanes_known = True
        """Whether every pool's lanes are; not if its policy cannot be read."""
        self.slos: dict[str, Slo] = {}
        """What lanes promise, by lane; filled by the pools."""

    def pools(self, entries: dict[str, Entry], objectives: dict[str, Entry]) -> tuple[PoolPlan, ...]:
        """The plans of all pools; `objectives` overrides what their lanes promise."""
        plans = [self._pool(name, entry, objectives) for name, entry in entries.items()]
        for lane, entry in objectives.items():
            if lane not in self.slos:
                self._reader.unknown(entry.node, "lane", lane, self.slos)
        return tuple(plans)

    def _pool(self, name: str, entry: Entry, objectives: dict[str, Entry]) -> PoolPlan:
        text, source, document = self._policy(entry)
        timeouts_s: dict[str, float] = {}
        lanes = {lane.name: lane for lane in document.lanes} if document is not None else {}
        for lane, given in entry.get("lanes", {}).items():
            found = lanes.get(lane, replace(_START, name=lane))
            said = {_LANE_KEYS[key]: value for key, value in given.values.items() if key in _LANE_KEYS}
            lanes[lane] = replace(found, **said)
            if "timeout" in given.values:
                timeouts_s[lane] = given.get("timeout")
        if not lanes and (document is not None or "policy" not in entry.values):
            hint = "add `lanes: {NAME: {ttft: ..., tpot: ...}}`, or a policy that has lanes"
            self._reader.fault(entry.node, f"pool {name!r} has no lane", hint)
        for lane in lanes.values():
            self._promise(lane, entry, objectives.get(lane.name))
        return PoolPlan(
            pool=PoolId(name),
            engines=tuple(plan for group in entry.get("engines") for plan in self._group(group)),
            lanes=tuple(
                LaneRule(lane=lane.name, priority=lane.priority, max_wait_s=lane.longest_wait_s)
                for lane in lanes.values()
            ),
            balance=entry.get("balance", "leastconn"),
            timeouts_s=timeouts_s,
            policy=text,
            policy_source=source,
        )

    def _promise(self, lane: Lane, entry: Entry, override: Entry | None) -> None:
        """Lanes of one name promise one thing, whichever pool they are of."""
        slo = Slo(lane=lane.name, ttft_s=lane.ttft_s, tpot_s=lane.tpot_s, e2e_s=lane.end_to_end_s)
        if override is not None:
            fields = {"ttft": "ttft_s", "tpot": "tpot_s", "end_to_end": "e2e_s"}
            slo = replace(slo, **{fields[key]: value for key, value in override.values.items()})
        before = self.slos.setdefault(lane.name, slo)
        if before != slo:
            hint = f"say what holds for both: `objectives: {{{lane.name}: ...}}`"
            self._reader.fault(entry.node, f"lane {lane.name!r} promises something else in the pool above", hint)

    def _policy(self, entry: Entry) -> tuple[str, str, PolicyDocument | None]:
        """Text, where it came from, and what it says."""
        value = entry.get("policy")
        try:
            if isinstance(value, yaml.Node):
                where = f"{self._reader.file}:{value.start_mark.line + 1}"
                document = read_node(DocumentReader(self._reader.file), value)
                return yaml.serialize(value, allow_unicode=True), where, document
            if isinstance(value, str):
                text, where = self._policy_text(value)
                return text, where, read_document(text, where)
        except InvalidDocument as error:
            self._reader.faults.append(error)
        except Rejected as error:
            self._reader.fault(entry.at("policy"), str(error))
        self.lanes_known = self.lanes_known and value is None
        return "", "", None

    def _policy_text(self, name: str) -> tuple[str, str]:
        if not name.endswith((".yaml", ".yml")):
            return preset(name), f"preset {name}"
        path = self._reader.folder / name
        try:
            with path.open(encoding="utf-8") as file:
                return file.read(MAX_BYTES + 1), str(path)
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise Rejected(f"{path}: cannot be read: {why}") from None

    def _group(self, entry: Entry) -> Iterator[EnginePlan]:
        try:
            registries.model_of(entry.get("model"), self._reader.folder)
        except Rejected as error:
            self._reader.fault(entry.at("model"), str(error))
        gpu = entry.get("gpu")
        if gpu.endswith(registries.KERNEL_FILE) and not (self._reader.folder / gpu).is_file():
            self._reader.fault(entry.at("gpu"), f"there is no file {self._reader.folder / gpu}")
        count = entry.get("count", 1)
        if len(self._engines) + count > MOST_ENGINES:
            self._reader.fault(entry.at("count"), f"at most {MOST_ENGINES} engines are in a scenario")
            return
        plain = {key: entry.get(key) for key in _PLAIN if key in entry.values}
        if "cold_start" in entry.values:
            plain["cold_start_s"] = entry.get("cold_start")
        for index in range(count):
            name = self._name(entry.get("name", ""), count, index)
            if name in self._engines:
                self._reader.fault(entry.at("name"), f"there is an engine {name!r} already")
            plan = EnginePlan(
                engine=EngineId(name),
                gpu=gpu,
                model=entry.get("model"),
                variant=entry.get("variant", "flash_attn"),
                node=entry.get("node", f"node-{self._gpus // GPUS_PER_NODE}"),
                **plain,
            )
            self._gpus += plan.tensor_parallel
            self._engines[name] = plan
            yield plan

    def _name(self, given: str, count: int, index: int) -> str:
        if given:
            return given if count == 1 else f"{given}-{index}"
        self._unnamed += 1
        return f"engine-{self._unnamed - 1}"
