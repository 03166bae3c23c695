"""Give mutated frames to everything that reads them: no crash, no hang, memory bounded.

    PYTHONPATH=tests python tests/soak/mutate_frames.py --frames 1000000
    PYTHONPATH=tests python tests/soak/mutate_frames.py --atheris -max_total_time=600

The first mutates a seeded corpus of every kind of message, half of the time in the head and half behind it. The second
lets atheris (libFuzzer) look for bytes that take new paths. Ends with 1, or with a traceback, where something breaks.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

BATCH = 10_000
MAX_GROWTH_MIB = 64
MAX_SECONDS_A_BATCH = 120


def memory() -> float:
    """Peak of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def seeded(frames: int, seed: int) -> None:
    from deployment.mutations import mutate_many

    rng = np.random.default_rng(seed)
    got: Counter[str] = Counter()
    got += mutate_many(min(BATCH, frames), rng)  # caches are full after this
    begun, started = memory(), time.monotonic()
    while (done := sum(got.values())) < frames:
        before = time.monotonic()
        got += mutate_many(min(BATCH, frames - done), rng)
        took = time.monotonic() - before
        print(f"{sum(got.values()):,} frames, {memory() - begun:+.1f} MiB, {took:.1f} s", flush=True)
        if took > MAX_SECONDS_A_BATCH or memory() - begun > MAX_GROWTH_MIB:
            sys.exit(f"a batch took {took:.1f} s, memory grew by {memory() - begun:.1f} MiB")
    seconds = time.monotonic() - started
    print(f"{frames:,} frames: {dict(got)}, {memory() - begun:+.1f} MiB, {seconds:.0f} s; nothing broke")


def coverage_guided(arguments: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=["hcqsfl"]):  # whatever reads must be imported here, and not before
        from deployment.mutations import LIMIT, Reader, corpus
        from hcqsfl.deployment.frame import Framing, Kind

    reader = Reader()

    def one(data: bytes) -> None:
        reader.read(Framing("a", LIMIT, b"s" * 16), data)
        there, here = (Framing("a", LIMIT, b"s" * 16) for _ in range(2))
        if len(data) <= LIMIT:
            reader.read(here, there.pack(Kind.STEP, data))

    with tempfile.TemporaryDirectory() as folder:
        for i, data in enumerate(corpus()):
            (Path(folder) / f"payload-{i}").write_bytes(data)
            frame = Framing("a", LIMIT, b"s" * 16).pack(Kind.STEP, data)
            (Path(folder) / f"frame-{i}").write_bytes(frame)
        usual = [f"-max_len={LIMIT + 200}", "-timeout=10", "-rss_limit_mb=2048", f"-artifact_prefix={Path.cwd()}/"]
        atheris.Setup([sys.argv[0], *usual, *arguments, folder], one)
        atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", action="store_true", help="further arguments go to libFuzzer")
    args, more = parser.parse_known_args()
    if args.atheris:
        coverage_guided(more)
    else:
        seeded(args.frames, args.seed)


if __name__ == "__main__":
    main()
