"""An operator's first hour with Flyball, by the installed commands alone.

    .venv/bin/python tests/journeys/operator.py [--kafka HOST:PORT]

Kafka, a controller, two agents, four engines and a gateway, each a process of its own, mutual TLS between them; real
requests over HTTP. Ends with exit code 0 if everything came as an operator would expect, and says at which
step it did not. Without --kafka it starts a broker by `scripts/kafka` and stops it again.
"""
# ruff: noqa: A005, E402 - called as its users call it; and see below

import sys

# This file is called like a module of the standard library, which must not be found beside it.
sys.path[0] = sys.path[0].removesuffix("/journeys")

import argparse
import asyncio
import json
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from journeys.crowd import CHAT, DOCUMENTS, Crowd
from journeys.stage import ENGINES, FLYBALL, MODEL, POOL, Stage, Unmet

GOOD_POLICY = """\
version: 1
mode: control
lanes:
  realtime: {priority: 0, ttft: 2s, tpot: 60ms, longest_wait: 30s}
  bulk: {priority: 10, end_to_end: 2min, longest_wait: 60s}
knobs:
  max_active_requests: {min: 8, max: 200}
variants: {relaunch: []}
guard: {raise_dwell: 5s}
"""
BAD_POLICY = GOOD_POLICY.replace("mode: control", "mode: controll")
LONG_S = 60.0


class Journey:
    """The steps, each of which leaves the fleet as the next one expects it."""

    def __init__(self, stage: Stage, say: Callable[[str], None]) -> None:
        self.stage = stage
        self.say = say
        self.crowd = Crowd(f"http://{stage.at('gateway')}", MODEL)

    async def play(self) -> None:
        """All of it."""
        self.begin()
        self.look()
        self.refuse_a_bad_policy()
        self.apply_a_good_policy()
        await self.see_a_regime_shift()
        await asyncio.to_thread(self.pin_and_watch_it_expire)
        await asyncio.to_thread(self.pause_and_resume)
        await asyncio.to_thread(self.lose_each_process)
        await self.crowd.do()
        self.explain()
        self.end_and_replay()

    def begin(self) -> None:
        """Files and certificates; then everything starts, the controller before its topics exist."""
        stage = self.stage
        self.say("certificates and files")
        names = [f"{engine}=engine" for engine in ENGINES]
        names += ["controller-0=controller", "agent-0=agent", "agent-1=agent", "gateway-0=gateway"]
        stage.flyball("certs", "dev", "certs", *names, "ada=operator", "vera=viewer")
        stage.write()
        (stage.folder / "good.yaml").write_text(GOOD_POLICY)
        (stage.folder / "bad.yaml").write_text(BAD_POLICY)
        for name in ("controller", "agent-0", "agent-1", *ENGINES, "gateway"):
            stage.flyball("config", "check", f"{name}.yaml")
        self.say("engines and gateway serve before there is a controller")
        for name in (*ENGINES, "gateway"):
            stage.start(name)
        self.stage.until("the gateway is ready without a controller", lambda: stage.ready("gateway")[0], LONG_S)
        self.say("the controller waits for its topics, and says so")
        stage.start("controller")
        self.stage.until("the controller says what it waits for", lambda: "log" in stage.ready("controller")[1], LONG_S)
        stage.start("agent-0")
        stage.start("agent-1")
        stage.flyball("topics", "create", "--dev", "--partitions", "2", stage.log)
        self.stage.until("the controller is ready", lambda: stage.ready("controller")[0], LONG_S)

    def look(self) -> None:
        """Status: everybody is there."""
        self.say("status")
        self.stage.until("four engines and a gateway in the status", self.everybody, LONG_S)
        text = self.stage.ask("status")
        expect("All is well" in text, text)

    def everybody(self) -> bool:
        """Whether all are attached and measured."""
        pool = self.stage.status()
        if pool is None:
            return False
        engines = {one["name"] for one in pool["engines"] if one["attached"] and not one["stale"]}
        agents = {one["agent"] for one in pool["agents"] if not one["stale"]}
        gateways = [one for one in pool["gateways"] if one["attached"]]
        return engines == set(ENGINES) and agents == {"agent-0", "agent-1"} and len(gateways) == 1

    def refuse_a_bad_policy(self) -> None:
        """A wrong word is refused with its place and the right word, before anything is sent."""
        self.say("a bad policy is refused")
        for verb in (("policy", "check", "bad.yaml"), ("policy", "apply", POOL, "bad.yaml")):
            said = self.stage.flyball(*verb, expect=1 if verb[1] == "check" else 2)
            expect("bad.yaml:2:" in said and "'control'" in said, said)
        expect(self.pool()["mode"] == "observe", "a refused policy changes nothing")

    def apply_a_good_policy(self) -> None:
        """A good one is taken, by the name in the operator's certificate; a viewer may not."""
        self.say("a good policy is applied; a viewer may not")
        stage = self.stage
        taken = stage.ask_json("policy", "apply", POOL, "good.yaml")
        expect((taken["outcome"], taken["author"]) == ("taken", "ada"), taken)
        self.stage.until("the mode is control", lambda: self.pool()["mode"] == "control", 10)
        refused = stage.flyball(
            "pause",
            POOL,
            "--reason",
            "may I?",
            "--controller",
            stage.at("controller"),
            "--tls",
            "certs/viewer-vera",
            expect=2,
        )
        expect("operator" in refused, refused)

    async def see_a_regime_shift(self) -> None:
        """Chat, then documents over real HTTP: the regime follows, and `watch` tells of it."""
        self.say("load: chat, then documents")
        watch = self._watching()
        try:
            await self.crowd.do(CHAT)
            before = await asyncio.to_thread(
                self.stage.until, "a regime under chat", lambda: self.regime({"unknown", "idle"}), LONG_S
            )
            await self.crowd.do(DOCUMENTS)
            after = await asyncio.to_thread(
                self.stage.until, "another regime under documents", lambda: self.regime({before, "idle", "unknown"}), 90
            )
        finally:
            watch.terminate()
            told, _ = watch.communicate(timeout=15)
        self.say(
            f"  {before} -> {after}; so far {self.crowd.tally.answered} answers, {self.crowd.tally.failed} failures"
        )
        lines = [json.loads(line) for line in told.splitlines()]
        expect(any(after in json.dumps(line) for line in lines), f"watch said nothing of {after}: {told[-2000:]}")
        await self.crowd.do(CHAT)

    def regime(self, but: set[str]) -> str | None:
        """The pool's regime if it is none of those."""
        name = str(self.pool()["regime"])
        return None if name in but else name

    def pin_and_watch_it_expire(self) -> None:
        """An override beyond the bounds is refused, one within is acknowledged, and ends by itself."""
        self.say("an override: refused beyond bounds, acknowledged, expired")
        stage = self.stage
        knob = "max_active_requests"
        refused = stage.ask_json(
            "override", "set", POOL, knob, "9999", "--for", "10s", "--reason", "too much", expect=1
        )
        expect(refused["outcome"] == "refused" and "8 to 200" in refused["summary"], refused)
        made = stage.ask_json("override", "set", POOL, knob, "23", "--for", "12s", "--reason", "a try", "--wait", "20s")
        expect(all(one["holds"] and one["effective"] == 23 for one in made["receivers"]), made)
        expect(len(made["receivers"]) == len(ENGINES), made)
        listed = stage.ask_json("override", "list", POOL)
        expect(made["override"] in json.dumps(listed), listed)
        self.stage.until("the override is gone", lambda: not self.pool()["overrides"], 30)
        self.stage.until("automatic again", lambda: self._settings(knob) != {23}, 90)

    def _settings(self, knob: str) -> set[Any]:
        return {s["held"] for engine in self.pool()["engines"] for s in engine["settings"] if s["knob"] == knob}

    def pause_and_resume(self) -> None:
        """Paused, nothing is told any more; resumed, it goes on."""
        self.say("pause and resume")
        self.stage.ask("pause", POOL, "--reason", "lunch")
        self.stage.until("paused", lambda: self.pool()["paused"], 10)
        time.sleep(2)
        told = self.told()
        time.sleep(4)
        expect(self.told() == told, "a paused pool was told something")
        self.stage.ask("resume", POOL, "--reason", "back")
        self.stage.until("resumed", lambda: not self.pool()["paused"], 10)

    def told(self) -> dict[str, Any]:
        """The version that each engine was told last."""
        return {one["name"]: one["told"] for one in self.pool()["engines"]}

    def lose_each_process(self) -> None:
        """Each process dies once and comes back; no engine ever holds an older version than before."""
        stage = self.stage
        for name in ("controller", "agent-0", "agent-1", "gateway", *ENGINES):
            self.say(f"kill -9 {name}, start it again")
            held, life = self.acked(), self.life_of(name)
            stage.kill(name)
            if name == "controller":
                self.serve_without_it()
            stage.start(name)
            self.stage.until(f"{name} in a new life", partial(self.lives_anew, name, life), LONG_S)
            self.stage.until(f"everything is there again after the loss of {name}", self.everybody, LONG_S)
            later = self.acked()
            expect(all(later[engine] >= held[engine] for engine in held if engine in later), (held, later))

    def life_of(self, name: str) -> object:
        """What tells one life of a process from the next: epoch, boot or incarnation; None if it is not known."""
        pool = self.pool()
        if name == "controller":
            return pool["epoch"]
        if name.startswith("agent"):
            return next((one["boot"] for one in pool["agents"] if one["agent"] == name), None)
        receivers = pool["gateways"] if name == "gateway" else pool["engines"]
        return next((one["incarnation"] for one in receivers if one["name"].startswith(name)), None)

    def lives_anew(self, name: str, life: object) -> bool:
        """Whether the process is known, and not in that life."""
        return self.life_of(name) not in (None, life)

    def serve_without_it(self) -> None:
        """Requests are answered as if nothing had happened."""
        enough = self.crowd.tally.answered + 5
        self.stage.until("requests are served without a controller", lambda: self.crowd.tally.answered >= enough, 30)

    def acked(self) -> dict[str, tuple[int, ...]]:
        """The version that each engine acknowledged last, as numbers to compare."""
        pool = self.pool()
        return {
            one["name"]: tuple(int(part) for part in one["acked"].split(":")) for one in pool["engines"] if one["acked"]
        }

    def explain(self) -> None:
        """The latest decision, from the running controller and from the log."""
        self.say("explain")
        said = self.stage.ask("explain", "engine-0")
        expect("engine-0" in said, said)
        decision = self.stage.ask_json("explain", POOL)["decision"]
        self.say(f"  {decision}")
        expect(decision in self.stage.flyball("explain", decision, "--log", self.stage.log), decision)

    def end_and_replay(self) -> None:
        """Everything ends in good order, and the log replays."""
        self.say("stop, and replay")
        for name in list(self.stage.running):
            code = self.stage.stop(name)
            expect(code == 0, f"{name} ended with {code}\n{self.stage.last_lines(name)}")
        said = self.stage.flyball("replay", self.stage.log)
        expect("identical" in said, said)

    def pool(self) -> Any:
        """The pool's status; it is there."""
        return self.stage.until("a status", self.stage.status, 30)

    def _watching(self) -> subprocess.Popen[str]:
        command = [FLYBALL, "watch", POOL, "--json"]
        command += ["--controller", self.stage.at("controller"), "--tls", "certs/viewer-vera"]
        return subprocess.Popen(
            command, cwd=self.stage.folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )


def expect(holds: bool, otherwise: object) -> None:  # noqa: FBT001 - it is the one thing it is about
    """Raise `Unmet` with what there was unless `holds`."""
    if not holds:
        raise Unmet(str(otherwise))


def play(kafka: str, folder: Path) -> None:
    """The journey with a broker at `kafka`, in `folder`. Raises `Unmet`; ends every process it started."""
    began_s = time.monotonic()
    stage = Stage(folder, kafka)
    try:
        asyncio.run(
            Journey(stage, lambda what: print(f"{time.monotonic() - began_s:6.1f} s  {what}", flush=True)).play()
        )
    finally:
        stage.end()


def main() -> int:
    """Play it; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kafka", help="HOST:PORT of a running broker; default: one of its own")
    parser.add_argument("--keep", type=Path, help="folder for files and logs; default: a temporary one")
    asked = parser.parse_args()
    with TemporaryDirectory(prefix="flyball-journey-") as temporary:
        folder = asked.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        script = [
            str(Path(__file__).resolve().parents[2] / "scripts" / "kafka"),
            "--dir",
            str(Path(temporary) / "kafka"),
        ]
        try:
            kafka = asked.kafka or subprocess.check_output([*script, "start"], text=True).strip()
            play(kafka, folder)
        except Unmet as error:
            print(f"journey: {error}", file=sys.stderr)
            return 1
        finally:
            if not asked.kafka:
                subprocess.run([*script, "stop"], check=False, capture_output=True)
    print("journey: everything came as expected")
    return 0


if __name__ == "__main__":
    sys.exit(main())
