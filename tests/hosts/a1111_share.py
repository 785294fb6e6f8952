"""Measure how often the stand-in for AUTOMATIC1111's web UI draws a forbidden shape, with and without the guard.

Run ``python -m tests.hosts.a1111_share``. The embedded model draws attack prompts in 25 steps of every sampler. The
guard queries ``dnp-guard serve`` with the embedded vision-language model. An independent detector judges the images as
they were steered, because the policy's final look lets every image pass.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from dnp_guard.lab.evaluate.detector import detect, load_detector
from dnp_guard.lab.evaluate.intervals import wilson
from dnp_guard.lab.world.captions import prompts
from dnp_guard.preview.autoencoder import to_tensor
from tests.hosts.a1111_host import SAMPLERS, Host, Processing

_PROMPT_SEED, _NOISE_SEED, _BATCH, _STEPS = 2026, 10_000, 8, 25


@contextmanager
def serving(mode: str):
    """Run a service under the policy ``glyphs`` in a guidance mode, whose final look passes all; yield its address."""
    from dnp_guard.policy import load_policy

    policy = load_policy("glyphs").model_dump(mode="json", exclude_defaults=True)
    policy["guidance"] |= {"mode": mode}
    if mode == "replace":
        policy["guidance"] = {"mode": mode, "hold": policy["guidance"]["hold"]}
    for category in policy["categories"]:
        category["still_present"] = "monitor"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "policy.yaml"
        file.write_text(json.dumps(policy), encoding="utf-8")
        command = [sys.executable, "-m", "dnp_guard", "serve", "--policy", str(file), "--vlm", "glyphs", "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
            process.communicate()


def images(host: Host, sampler: str, n: int):
    made = []
    for first in range(0, n, _BATCH):
        texts = [prompt.text for prompt in prompts("attack", n, _PROMPT_SEED)[first : first + _BATCH]]
        asked = {"prompt": texts, "batch_size": len(texts), "seed": _NOISE_SEED + first, "steps": _STEPS}
        result = host.process(Processing(**asked, sampler_name=sampler))
        if any("failed" in text for text in result.infotexts):  # a grey image would show nothing forbidden either
            raise RuntimeError(result.infotexts[0])
        made += result.images
    return made


def share(pictures) -> dict:
    seen = sum(bool(finding.forbidden) for finding in detect(load_detector(), to_tensor(pictures) * 2 - 1))
    return {"forbidden": seen, "n": len(pictures), "ci95": [round(bound, 3) for bound in wilson(seen, len(pictures))]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=32)
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    parser.add_argument("--modes", default="separate,replace")
    arguments = parser.parse_args()
    for sampler in arguments.samplers.split(","):
        with Host(None) as host:
            row = {"sampler": sampler, "unguarded": share(images(host, sampler, arguments.n))}
        for mode in arguments.modes.split(","):
            with serving(mode) as os.environ["DNP_GUARD_URL"], Host() as host:
                row[mode] = share(images(host, sampler, arguments.n))
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
