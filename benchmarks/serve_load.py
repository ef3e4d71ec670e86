"""A server under load: `python -m benchmarks.serve_load RUN --seconds 300`.

Clients in this process send texts under random rules to `kdtw serve RUN` in another one: some as streams, some on
accounts, and some go away in the middle. Said are throughput, latency, the server's memory, requests without an answer
that nobody called off ("lost"), and answers that break their rule ("broken").
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import tyro

from kdtw_jax.errors import UserError
from kdtw_jax.pipeline.prepare import look_up
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.runs import provenance, write_json

_SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)
_ACCOUNTS = 8
_ROUNDING = 1e-4  # shares are said in four digits
_PATIENCE = 120.0  # seconds that an answer may take


@dataclass(frozen=True)
class Args:
    """What to load, and how."""

    run: Annotated[Path, tyro.conf.Positional]
    """the folder of a run"""
    clients: int = 64
    """that send one request after another"""
    seconds: float = 300.0
    """for so long"""
    leave: float = 0.1
    """share of requests whose client goes away at a random moment"""
    stream: float = 0.5
    """share of requests that are streams"""
    rows: int = 16
    """of the server"""
    texts: Path | None = None
    """a file of texts, one a line; by default the sources of the run's test split"""
    seed: int = 0
    """of texts, rules and departures"""
    results: Path | None = None
    """folder for load.json"""


@dataclass
class Tally:
    """What came of all requests."""

    seconds: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    """seconds to the first token of streams"""
    tokens: int = 0
    teacher_tokens: int = 0
    left: int = 0
    busy: int = 0
    lost: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    accounts: dict[str, list[float]] = field(default_factory=dict)
    """of each account the share of its rule, words that the teacher helped with, and all words"""


def main(args: Args) -> None:
    """Runs it, and prints what came out; writes it if asked to.

    Raises:
      UserError: the run has no texts, or the server does not start.
    """
    started = time.time()
    texts = texts_of(args.run, args.texts)
    command = [sys.executable, "-m", "kdtw_jax.cli", "serve", str(args.run), "--port", "0", "--rows", str(args.rows)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        address = address_of(server)
        report = asyncio.run(_load(args, address, texts, server.pid))
    finally:
        server.terminate()
        server.wait(30)
    print(json.dumps(report, indent=2))
    if args.results is not None:
        command = ["python", "-m", "benchmarks.serve_load", *sys.argv[1:]]
        write_json(args.results / "load.json", {**report, "provenance": provenance(command, args.seed, started)})


def texts_of(run: Path, file: Path | None) -> list[str]:
    """The lines of a file, or the sources of a run's test split.

    Raises:
      UserError: there are none.
    """
    if file is not None:
        texts = file.read_text("utf8").splitlines()
    else:
        config = replace(restore(run)[1], results=None)
        texts = [pair["source"] for pair in look_up(config).task.splits["test"]]
    if not (texts := [text for text in texts if text.strip()]):
        raise UserError("there are no texts; give some with --texts")
    return texts


def address_of(server: subprocess.Popen[str]) -> str:
    """Where `kdtw serve` says that it listens.

    Raises:
      UserError: it ends without a word of that.
    """
    assert server.stderr is not None
    for line in server.stderr:
        if found := re.search(r"served at (http\S+)/v1", line):
            return found[1]
        print(line, end="", file=sys.stderr)
    raise UserError("the server did not start")


def _memory(pid: int) -> float:
    """Resident memory of a process, MB."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


async def _load(args: Args, address: str, texts: Sequence[str], pid: int) -> dict[str, Any]:
    tally, begun = Tally(), time.monotonic()
    end, memory = begun + args.seconds, [_memory(pid)]
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=_PATIENCE, limits=limits) as client:

        async def watch() -> None:
            while time.monotonic() < end:
                await asyncio.sleep(min(1.0, args.seconds / 20))
                memory.append(_memory(pid))

        clients = [
            _client(client, texts, args, random.Random(f"{args.seed} {n}"), end, tally) for n in range(args.clients)
        ]
        await asyncio.gather(watch(), *clients)
        took = time.monotonic() - begun
        for _ in range(200):
            health = (await client.get("/health")).json()
            if not health["active"] and not health["waiting"]:
                break
            await asyncio.sleep(0.05)
    for name, (share, helped, words) in tally.accounts.items():
        if helped > share * words + _ROUNDING * words:
            tally.broken.append(f"the account {name} of {share}: {helped} of {words}")
    done = len(tally.seconds)
    warm = memory[len(memory) // 5 :]  # what is kept of the first requests is no growth

    def percentiles(seconds: list[float]) -> dict[str, float]:
        found = np.percentile(seconds, [50, 95, 99]) if seconds else [0.0] * 3
        return {name: round(float(value), 4) for name, value in zip(("p50", "p95", "p99"), found, strict=True)}

    return {
        "clients": args.clients,
        "rows": args.rows,
        "seconds": round(took, 1),
        "answers": done,
        "answers_per_second": round(done / took, 2),
        "tokens_per_second": round(tally.tokens / took, 1),
        "teacher_share_of_tokens": round(tally.teacher_tokens / max(tally.tokens, 1), 4),
        "latency_seconds": percentiles(tally.seconds),
        "first_token_seconds": percentiles(tally.first),
        "left": tally.left,
        "busy": tally.busy,
        "lost": len(tally.lost),
        "broken": len(tally.broken),
        "examples": (tally.lost + tally.broken)[:5],
        "rows_taken_at_the_end": health["active"] + health["waiting"],
        "memory_mb": {
            "start": round(memory[0]),
            "after_a_fifth": round(warm[0]),
            "end": round(warm[-1]),
            "most": round(max(memory)),
        },
    }


async def _client(
    client: httpx.AsyncClient, texts: Sequence[str], args: Args, rng: random.Random, end: float, tally: Tally
) -> None:
    """One request after another until the end."""
    while time.monotonic() < end:
        share, account = rng.choice(_SHARES), f"account {rng.randrange(_ACCOUNTS)}"
        body: dict[str, Any] = {"prompt": rng.choice(texts), "truncate": True}
        kind = rng.choice(("share", "calls", "account", "never"))
        if kind == "account":
            share = _SHARES[int(account[-1]) % len(_SHARES)]
            body |= {"account": account, "max_teacher_share": share}
        elif kind == "share":
            body |= {"rule": f"ask the teacher for at most {100 * share:g}% of the words"}
        elif kind == "calls":
            body |= {"max_teacher_calls": rng.randrange(4)}
        if rng.random() < args.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        request = _answer(client, body, tally)
        begun = time.monotonic()
        try:
            if rng.random() < args.leave:
                await asyncio.wait_for(request, rng.expovariate(5.0))
                tally.left += 1  # it was faster; its answer is not counted
                continue
            found = await request
        except TimeoutError:
            tally.left += 1
            continue
        except Exception as error:
            tally.lost.append(f"{type(error).__name__}: {error}"[:200])
            continue
        if found is None:
            tally.busy += 1
            await asyncio.sleep(0.1)
            continue
        tally.seconds.append(time.monotonic() - begun)
        _count(found, kind, share, body, tally)


def _count(found: dict[str, Any], kind: str, share: float, body: dict[str, Any], tally: Tally) -> None:
    helped, usage = found["teacher_help"], found["usage"]
    tally.tokens += usage["completion_tokens"]
    tally.teacher_tokens += usage["completion_tokens_details"]["teacher_tokens"]
    over = {
        "share": helped["helped"] > (share + _ROUNDING) * helped["length"],
        "calls": helped["calls"] > body.get("max_teacher_calls", 0),
        "never": helped["calls"] > 0,
    }
    if over.get(kind):
        tally.broken.append(f"{body} {helped}"[:300])
    if kind == "account":
        account = tally.accounts.setdefault(body["account"], [share, 0, 0])
        account[1] += helped["helped"]
        account[2] += helped["length"]


async def _answer(client: httpx.AsyncClient, body: dict[str, Any], tally: Tally) -> dict[str, Any] | None:
    """The last of a stream, or the answer; None: the server is busy."""
    begun = time.monotonic()
    if not body.get("stream"):
        response = await client.post("/v1/completions", json=body)
        if response.status_code == 503:
            return None
        response.raise_for_status()
        found: dict[str, Any] = response.json()
        return found
    last, first, ended = {}, 0.0, False
    async with client.stream("POST", "/v1/completions", json=body) as response:
        if response.status_code == 503:
            return None
        response.raise_for_status()
        async for line in response.aiter_lines():
            first = first or time.monotonic() - begun
            ended |= line == "data: [DONE]"
            if line.startswith("data: {"):
                last = json.loads(line.removeprefix("data: "))
    if not ended or "usage" not in last:
        raise ValueError(f"a stream ended early: {last}")
    tally.first.append(first)
    return last


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
