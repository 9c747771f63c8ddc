"""Race the training step against another program's, in turn, on one machine.

    python launch/race.py --against='CMD' [--rounds=5] [--config=configs/joint.py:filters=16]

CMD is any command whose last line is a JSON object with step_s, the seconds of one of its training
steps; to race a lowering of our own:

    --against='python -m cyclesh.main --mode=bench --config=configs/joint.py
               --config.compute.lowering=plain'

The two take turns, so that both meet the same machine; figures are medians over the rounds.
Whatever else is given (--config.compute.dtype=bfloat16, say) goes to our own command.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys


def measure(command: list[str]) -> dict:
    """Run a command; the JSON object on its last line."""
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    try:
        told = json.loads(lines[-1])
        return {**told, "step_s": float(told["step_s"])}
    except (IndexError, KeyError, TypeError, ValueError):
        words = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        sys.exit(
            f"race: {shlex.join(command)}: exit {done.returncode}, no JSON with step_s on its "
            f"last line; it said: {words}"
        )


def race(ours: list[str], theirs: list[str], rounds: int) -> dict:
    """Both commands in turn, ``rounds`` times: the medians and their ratio."""
    seconds = {"ours": [], "against": []}
    for turn in range(rounds):
        for name, command in (("ours", ours), ("against", theirs)):
            seconds[name].append(measure(command)["step_s"])
            print(f"round {turn + 1}: {name:8} {seconds[name][-1]:.3f} s", flush=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    # A round's two runs are neighbours in time: the median of their ratios, not of medians.
    pairs = zip(seconds["against"], seconds["ours"], strict=True)
    faster = statistics.median(theirs / ours for theirs, ours in pairs)
    return {
        "ours_s": medians["ours"],
        "against_s": medians["against"],
        "times_faster": faster,
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", required=True, help="the rival's command")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--config", default="configs/joint.py")
    args, rest = parser.parse_known_args()
    ours = [sys.executable, "-m", "cyclesh.main", "--mode=bench", f"--config={args.config}", *rest]
    print(json.dumps(race(ours, shlex.split(args.against), args.rounds)))


if __name__ == "__main__":
    main()
