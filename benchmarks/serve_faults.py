"""A server whose teacher is killed and started again under load: `python -m benchmarks.serve_faults RUN`.

Clients in this process send texts to `kdtw serve RUN --teacher http://...`, whose teacher is a third process. It is
killed (SIGKILL) as soon as it has helped often enough since it came, and started again. Said are requests that had no
whole answer ("lost"), answers in another order or of another text ("mixed up": those of students that may not ask are
known beforehand), rules that were broken, and whether calls and tokens that clients were told of are those that the
server has counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Annotated, Any

import httpx
import tyro

from benchmarks.remote_teacher import serving
from benchmarks.serve_load import address_of, texts_of
from kdtw_jax.runs import provenance, write_json

_SHARES = (0.1, 0.2, 0.3, 0.5)
_ACCOUNTS = 4
_ROUNDING = 1e-4  # shares are said in four digits
_TEXTS = 64  # at the most
_PATIENCE = 120.0  # seconds that an answer may take


@dataclass(frozen=True)
class Args:
    """What to load and to kill."""

    run: Annotated[Path, tyro.conf.Positional]
    """the folder of a run"""
    kills: int = 20
    """of the teacher"""
    clients: int = 16
    """that send one request after another"""
    calls: int = 10
    """of the teacher before it is killed"""
    timeout: float = 3.0
    """seconds that it has for an answer, as --teacher-timeout"""
    texts: Path | None = None
    """a file of texts, one a line; by default the sources of the run's test split"""
    seed: int = 0
    """of texts and rules"""
    results: Path | None = None
    """folder for faults.json"""


@dataclass
class Tally:
    """What came of all requests."""

    answers: int = 0
    outputs: int = 0
    degraded: int = 0
    busy: int = 0
    calls: int = 0
    tokens: int = 0
    teacher_tokens: int = 0
    longest: float = 0.0
    lost: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    accounts: dict[str, list[float]] = field(default_factory=dict)
    """of each account the share of its rule, words that the teacher helped with, and all words"""


def main(args: Args) -> None:
    """Runs it, and prints what came out; writes it if asked to. The exit status is 1 where something went wrong."""
    started = time.time()
    texts = texts_of(args.run, args.texts)[:_TEXTS]
    with contextlib.ExitStack() as stack:
        teacher, first = stack.enter_context(serving(args.run))
        port = int(teacher.rpartition(":")[2])
        command = [sys.executable, "-m", "kdtw_jax.cli", "serve", str(args.run), "--port", "0"]
        command += ["--teacher", teacher, "--teacher-timeout", f"{args.timeout:g}"]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            address = address_of(server)
            report = asyncio.run(_faults(args, address, port, first, stack, texts, server))
        except TimeoutError as error:
            sys.exit(f"error: {error}")
        finally:
            server.terminate()
            server.wait(30)
    print(json.dumps(report, indent=2))
    if args.results is not None:
        command = ["python", "-m", "benchmarks.serve_faults", *sys.argv[1:]]
        write_json(args.results / "faults.json", {**report, "provenance": provenance(command, args.seed, started)})
    if report["lost"] or report["mixed_up"] or report["broken"]:
        sys.exit(1)


async def _faults(
    args: Args,
    address: str,
    port: int,
    first: subprocess.Popen[str],
    stack: contextlib.ExitStack,
    texts: Sequence[str],
    server: subprocess.Popen[str],
) -> dict[str, Any]:
    tally, over, begun = Tally(), asyncio.Event(), time.monotonic()
    Thread(target=_read_away, args=(server,), daemon=True).start()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=_PATIENCE, limits=limits) as client:
        alone = await _written(client, texts, "never ask")
        await _written(client, texts, "ask the teacher for at most 50% of the words")  # for the compilers
        before = await _metrics(client)
        begun = time.monotonic()
        clients = [
            asyncio.create_task(_client(client, texts, alone, random.Random(f"{args.seed} {n}"), over, tally))
            for n in range(args.clients)
        ]
        try:
            away = await _kill(args, client, port, first, stack)
        finally:
            over.set()
        await asyncio.gather(*clients)
        took = time.monotonic() - begun
        counted = {name: value - before.get(name, 0.0) for name, value in (await _metrics(client)).items()}
        health = (await client.get("/health")).json()
    for name, (share, helped, words) in tally.accounts.items():
        if helped > share * words + _ROUNDING * words:
            tally.broken.append(f"the account {name} of {share}: {helped} of {words}")
    server.terminate()
    return {
        "kills": args.kills,
        "clients": args.clients,
        "seconds": round(took, 1),
        "seconds_without_a_teacher": round(away, 1),
        "answers": tally.answers,
        "outputs": tally.outputs,
        "degraded": tally.degraded,
        "busy": tally.busy,
        "lost": len(tally.lost),
        "mixed_up": len(tally.mixed),
        "broken": len(tally.broken),
        "examples": (tally.lost + tally.mixed + tally.broken)[:5],
        "longest_answer_seconds": round(tally.longest, 2),
        "calls_told": tally.calls,
        "calls_counted": round(counted["kdtw_teacher_calls_total"]),
        "teacher_tokens_told": tally.teacher_tokens,
        "teacher_tokens_counted": round(counted['kdtw_tokens_total{writer="teacher"}']),
        "tokens_told": tally.tokens,
        "tokens_counted": round(
            counted['kdtw_tokens_total{writer="teacher"}'] + counted['kdtw_tokens_total{writer="student"}']
        ),
        "teacher_failures": round(counted["kdtw_teacher_failures"]),
        "rows_taken_at_the_end": health["active"] + health["waiting"],
    }


def _read_away(server: subprocess.Popen[str]) -> None:
    """What it says of failures, so that its pipe does not fill."""
    assert server.stderr is not None
    for _ in server.stderr:
        pass


async def _written(client: httpx.AsyncClient, texts: Sequence[str], rule: str) -> dict[str, str]:
    """What is written of each text under a rule."""
    found: dict[str, str] = {}
    for start in range(0, len(texts), 16):
        part = list(texts[start : start + 16])
        reply = await client.post("/v1/completions", json={"prompt": part, "truncate": True, "rule": rule})
        reply.raise_for_status()
        found |= {text: choice["text"] for text, choice in zip(part, reply.json()["choices"], strict=True)}
    return found


async def _metrics(client: httpx.AsyncClient) -> dict[str, float]:
    text = (await client.get("/metrics")).text
    return {name: float(value) for name, value in re.findall(r"^(kdtw_\S+) (\S+)$", text, re.MULTILINE)}


async def _kill(
    args: Args, client: httpx.AsyncClient, port: int, current: subprocess.Popen[str], stack: contextlib.ExitStack
) -> float:
    """Kills the teacher so many times, and has it come again, the last one too; how long there was none."""
    away = 0.0
    for number in range(args.kills):
        print(f"kill {number + 1} of {args.kills}", file=sys.stderr, flush=True)
        await _helped(client, args.calls)
        current.kill()
        gone = time.monotonic()
        current.wait()
        _, current = await asyncio.to_thread(stack.enter_context, serving(args.run, port))
        away += time.monotonic() - gone
    await _helped(client, args.calls)
    return away


async def _helped(client: httpx.AsyncClient, calls: int) -> None:
    """Waits until the teacher has answered some more calls.

    Raises:
      TimeoutError: it does not.
    """
    begun, started = (await _metrics(client))["kdtw_teacher_calls_total"], time.monotonic()
    while (await _metrics(client))["kdtw_teacher_calls_total"] < begun + calls:
        if time.monotonic() - started > _PATIENCE:
            raise TimeoutError(
                f"the teacher has not answered {calls} calls in {_PATIENCE:g} seconds; did it come back?"
            )
        await asyncio.sleep(0.1)


async def _client(
    client: httpx.AsyncClient,
    texts: Sequence[str],
    alone: dict[str, str],
    rng: random.Random,
    over: asyncio.Event,
    tally: Tally,
) -> None:
    """One request after another until the end, each of one to three texts."""
    while not over.is_set():
        prompts = [rng.choice(texts) for _ in range(rng.randint(1, 3))]
        share, account, kind = rng.choice(_SHARES), f"account {rng.randrange(_ACCOUNTS)}", rng.randrange(4)
        body: dict[str, Any] = {"prompt": prompts, "truncate": True}
        if kind == 0:
            share, body["rule"] = 0.0, "never ask"
        elif kind == 1:
            share = _SHARES[int(account[-1]) % len(_SHARES)]
            body |= {"account": account, "max_teacher_share": share}
        else:
            body["rule"] = f"ask the teacher for at most {100 * share:g}% of the words"
        begun = time.monotonic()
        try:
            reply = await client.post("/v1/completions", json=body)
            if reply.status_code == 503:
                tally.busy += 1
                await asyncio.sleep(0.1)
                continue
            reply.raise_for_status()
            found = reply.json()
            help_, usage, choices = found["teacher_help"], found["usage"], found["choices"]
        except Exception as error:
            tally.lost.append(f"{type(error).__name__}: {error}"[:200])
            continue
        tally.answers, tally.outputs = tally.answers + 1, tally.outputs + len(choices)
        tally.longest = max(tally.longest, time.monotonic() - begun)
        tally.degraded += help_["degraded"]
        tally.calls += help_["calls"]
        tally.tokens += usage["completion_tokens"]
        tally.teacher_tokens += usage["completion_tokens_details"]["teacher_tokens"]
        if [choice["index"] for choice in choices] != list(range(len(prompts))):
            tally.mixed.append(f"{prompts} {choices}"[:300])
        if not help_["calls"] and kind == 0 and [choice["text"] for choice in choices] != [alone[p] for p in prompts]:
            tally.mixed.append(f"{prompts} {choices}"[:300])
        if kind == 1:
            own = tally.accounts.setdefault(account, [share, 0, 0])
            own[1] += help_["helped"]
            own[2] += help_["length"]
        elif help_["helped"] > (share + _ROUNDING) * help_["length"]:
            tally.broken.append(f"{body} {help_}"[:300])


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
