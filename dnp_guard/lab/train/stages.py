"""Run the stages of training; a stage reuses the files that an earlier run of it wrote."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from dnp_guard.glyphs.loading import GUIDANCE_SCALE, MODELS, STEPS, load_fast, load_pipeline
from dnp_guard.lab.distill.own_run import watch
from dnp_guard.lab.distill.training import train
from dnp_guard.lab.evaluate.detector import Detector
from dnp_guard.lab.train import autoencoder, detector, diffusion, fast, hard, tuning, vision_language
from dnp_guard.lab.train.data import draw
from dnp_guard.lab.train.fast_card import write_fast_card
from dnp_guard.lab.train.loop import fit
from dnp_guard.lab.train.measure import fewer, measure, write_card
from dnp_guard.lab.train.predictions import predictions
from dnp_guard.lab.world import models
from dnp_guard.lab.world.captions import caption, mixed
from dnp_guard.policy import load_policy
from dnp_guard.preview.probe import save, space_of
from dnp_guard.vlm.local.backend import TransformersBackend

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transformers import CLIPTokenizer

    from dnp_guard.lab.train.loop import TrainingPlan, TrainingTask

_IMAGES = 48_000
_WORDINGS = 6
_PREDICTIONS = 60_000
_WATCHED = 960


@dataclass(frozen=True, slots=True)
class Workshop:
    """Folders and settings of a training run.

    Attributes:
        work: folder for checkpoints and rendered data; can be deleted afterwards.
        out: weights folder to write.
        processes: number of single-thread CPU processes.
        scale: share of the planned samples, for a short trial run.
        training: number of the training run; another number gives other first weights and another order of the samples.
    """

    work: Path
    out: Path
    processes: int = 2
    scale: float = 1.0
    training: int = 0

    @property
    def device(self) -> torch.device:
        """The GPU if there is one, else the CPU."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def spent(self, stage: str, seconds: float) -> None:
        """Add the seconds of one run to the total time of a stage."""
        durations = self.durations()
        durations[stage] = durations.get(stage, 0.0) + seconds
        (self.work / "durations.json").write_text(json.dumps(durations))

    def durations(self) -> dict[str, float]:
        """Return the total seconds per stage so far."""
        path = self.work / "durations.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def fit(
        self, make_task: Callable[[torch.device], TrainingTask], plan: TrainingPlan, name: str
    ) -> list[dict[str, torch.Tensor]]:
        """Train a task by a plan at :attr:`scale`, with ``<name>.pt`` as the checkpoint; return the weights."""
        return fit(make_task, self.planned(plan), self.work / f"{name}.pt", self.processes)

    def scaled(self, pictures: int) -> int:
        """Multiply a number of pictures by :attr:`scale`, and round it to a multiple of 2000, at least 2000."""
        return max(1, round(pictures * self.scale / 2000)) * 2000

    def planned(self, plan: TrainingPlan) -> TrainingPlan:
        """Return a plan with its samples multiplied by :attr:`scale`, and with the seed of this training run."""
        return replace(plan, samples=int(plan.samples * self.scale), seed=plan.seed + 1000 * self.training)


def drawn(shop: Workshop) -> Path:
    """Render the training images of the text-to-image model into one file, unless it exists; return its path."""
    path = shop.work / "drawn.data"
    if not path.exists():
        images, scenes = draw(shop.scaled(_IMAGES), seed=200, processes=shop.processes)
        rng = np.random.default_rng(201)
        captions = [[caption(scene, rng) for _ in range(_WORDINGS)] for scene in scenes]
        torch.save({"images": images, "captions": captions}, path)
    return path


def train_autoencoder(shop: Workshop) -> None:
    """Stage 1: train the autoencoder."""
    torch.manual_seed(autoencoder.PLAN.seed)
    shop.fit(partial(autoencoder.Autoencode, drawn(shop)), autoencoder.PLAN, "autoencoder")


def train_diffusion(shop: Workshop) -> None:
    """Stage 2: train text encoder and denoiser, and save the pipeline folder."""
    vae = models.autoencoder()
    vae.load_state_dict(torch.load(shop.work / "autoencoder.pt", weights_only=True)["result"][0])
    vae.eval()
    saved = torch.load(drawn(shop), weights_only=True)
    tokenizer = models.clip_tokenizer(text for wordings in saved["captions"] for text in wordings)
    latents = autoencoder.encode(vae.to(shop.device), saved["images"], shop.device)
    scaling = 1 / float(latents.std())
    data = _encoded(shop, latents * scaling, saved["captions"], tokenizer)
    text_state, unet_state = shop.fit(partial(diffusion.Denoise, data, tokenizer), diffusion.PLAN, "diffusion")
    text, unet = models.text_encoder(tokenizer), models.unet()
    text.load_state_dict(text_state)
    unet.load_state_dict(unet_state)
    vae.register_to_config(scaling_factor=scaling)
    pipe = StableDiffusionPipeline(
        vae=vae.cpu().half(),
        text_encoder=text.half(),
        tokenizer=tokenizer,
        unet=unet.half(),
        scheduler=models.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(shop.out / "pipeline", safe_serialization=True)
    _finish(shop.out)


def _encoded(shop: Workshop, latents: torch.Tensor, captions: list[list[str]], tokenizer: CLIPTokenizer) -> Path:
    """Save the scaled latents and the tokenized captions that the denoiser is trained on, unless their file exists."""
    data = shop.work / "diffusion.data"
    if not data.exists():
        tokens = torch.stack([_tokens(tokenizer, wordings) for wordings in captions]).short()
        torch.save({"latents": latents, "captions": tokens, "empty": _tokens(tokenizer, [""])}, data)
    return data


def _encoded_by(shop: Workshop, pipeline: Path) -> Path:
    """Return the file of the denoiser's training data; if stage 2 did not write it, a finished pipeline encodes it."""
    data = shop.work / "diffusion.data"
    if data.exists():
        return data
    pipe, saved = load_pipeline(pipeline), torch.load(drawn(shop), weights_only=True)
    latents = autoencoder.encode(pipe.vae.to(shop.device), saved["images"], shop.device)
    return _encoded(shop, latents * pipe.vae.config.scaling_factor, saved["captions"], pipe.tokenizer)


def train_detector(shop: Workshop) -> None:
    """Stage 3: train the independent evaluation detector."""
    (state,) = shop.fit(partial(detector.Detect, _detected(shop, "detector", 900)), detector.PLAN, "detector")
    folder = shop.out / "detector"
    folder.mkdir(parents=True, exist_ok=True)
    half = {key: value.half().contiguous() if value.is_floating_point() else value for key, value in state.items()}
    save_file(half, folder / "model.safetensors")
    _finish(shop.out)


def conversations(shop: Workshop) -> Path:
    """Write the VLM's training pictures, rendered and predicted ones, to a file unless it exists; return its path."""
    data = shop.work / "vlm.data"
    if not data.exists():
        pipeline, n = shop.out / "pipeline", shop.scaled(_PREDICTIONS)
        latents = _encoded_by(shop, pipeline)
        predicted, origin = predictions(pipeline, latents, n, seed=300, processes=shop.processes)
        images, scenes = draw(shop.scaled(_IMAGES), seed=200, processes=shop.processes)
        packed = [vision_language.pack(scene) for scene in scenes]
        torch.save({"drawn": images, "predicted": predicted, "origin": origin, "scenes": packed}, data)
    return data


def train_vlm(shop: Workshop) -> None:
    """Stage 4: train the vision tower, then the whole LLaVA."""
    data = conversations(shop)
    tower, _ = shop.fit(partial(vision_language.See, data), vision_language.SEEING, "vision")
    (state,) = shop.fit(partial(vision_language.Converse, data, tower), vision_language.TALKING, "vlm")
    _save_vlm(shop, state)


def train_hard(shop: Workshop) -> None:
    """Stage 5: train the VLM further on hard examples; keep the result only if it is better than the earlier VLM."""
    before = shop.work / "vlm-before"
    if not before.exists():
        shutil.copytree(shop.out / "vlm", shop.work / "vlm-copied", dirs_exist_ok=True)
        (shop.work / "vlm-copied").rename(before)
    hard_examples = shop.work / "hard.data"
    if not hard_examples.exists():
        chunks = max(1, round(hard.IMAGES * shop.scale / hard.CHUNK))
        draw_chunk = partial(hard.steered, shop.out / "pipeline", before, shop.work)
        with ProcessPoolExecutor(shop.processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            drawn_chunks = list(pool.map(draw_chunk, range(chunks)))
        hard.gather(drawn_chunks, _labeller(shop), hard_examples)
    (state,) = shop.fit(partial(tuning.Relearn, conversations(shop), hard_examples, before), tuning.PLAN, "hard")
    _save_vlm(shop, state)
    figures = {
        "before": tuning.validate(before, hard_examples),
        "after": tuning.validate(shop.out / "vlm", hard_examples),
    }
    improved = tuning.better(figures["after"], figures["before"])
    if not improved:
        shutil.copytree(before, shop.out / "vlm", dirs_exist_ok=True)
    counts = {
        "pictures": len(torch.load(hard_examples, weights_only=True)["pictures"]),
        "predictions": len(torch.load(conversations(shop), weights_only=True)["predicted"]),
    }
    entry = {"kept": improved, "seed": shop.planned(tuning.PLAN).seed, **counts, **figures}
    (shop.out / "hard.json").write_text(json.dumps(entry, indent=1) + "\n")


def _labeller(shop: Workshop) -> Detector:
    """Train the detector that labels hard examples, in the way of the evaluation detector but on other pictures."""
    data = _detected(shop, "labeller", hard.LABELLED)
    (state,) = shop.fit(partial(detector.Detect, data), hard.LABELLING, "labeller")
    labeller = Detector()
    labeller.load_state_dict(state)
    return labeller.eval()


def _detected(shop: Workshop, name: str, seed: int) -> Path:
    """Write the pictures that a detector is trained on, with labels, to a file unless it exists; return its path."""
    data = shop.work / f"{name}.data"
    if not data.exists():
        images, scenes = draw(60_000, seed=seed, processes=shop.processes)
        pairs, places = detector.labels(scenes)
        torch.save({"images": images, "pairs": pairs, "places": places}, data)
    return data


def _save_vlm(shop: Workshop, state: dict[str, torch.Tensor]) -> None:
    processor = models.vlm_processor()
    model = models.vlm(processor)
    model.load_state_dict(state)
    model.half().save_pretrained(shop.out / "vlm")
    processor.save_pretrained(shop.out / "vlm")
    _finish(shop.out)


def train_probe(shop: Workshop) -> None:
    """Stage 6: train the latent probe to predict from latents what the VLM finds, on images of the finished model."""
    pipe, backend = load_pipeline(shop.out / "pipeline"), TransformersBackend(shop.out / "vlm", name="glyphs")
    policy = load_policy("glyphs")
    texts = mixed(round(_WATCHED * shop.scale), seed=400)
    looks = watch(pipe, backend, policy, texts, steps=STEPS, seed=7_000_000, guidance_scale=GUIDANCE_SCALE)
    probe = train(looks, policy, space_of(pipe.vae), (backend.name, backend.revision))
    save(probe, shop.out / "probe" / "model.safetensors")


def train_fast(shop: Workshop) -> None:
    """Stage 7: distil the finished denoiser into the few-step denoiser, and save it with its scheduler."""
    pipeline = shop.out / "pipeline"
    chunks = max(1, round(fast.TRAJECTORIES * shop.scale / fast.CHUNK))
    data = fast.trajectories(pipeline, shop.work, chunks * fast.CHUNK)
    (state,) = shop.fit(partial(fast.Jump, pipeline, data), fast.PLAN, "fast")
    pipe = load_pipeline(pipeline)
    pipe.unet.load_state_dict(state)
    pipe.unet.half().save_pretrained(shop.out / "fast" / "unet", safe_serialization=True)
    fast.scheduler(pipe.scheduler).save_pretrained(shop.out / "fast" / "scheduler")
    _finish(shop.out)


def measure_all(shop: Workshop) -> None:
    """Stage 8: measure the ordinary model and the VLM, and write the model card."""
    quality = measure(load_pipeline(shop.out / "pipeline"), MODELS["glyphs"], shop.out)
    write_card(shop.out, quality, shop.durations())


def measure_fast(shop: Workshop) -> None:
    """Stage 9: measure the few-step model, and write its model card."""
    pipe, how = load_fast(shop.out / "pipeline", shop.out / "fast"), MODELS["glyphs-fast"]
    quality = measure(pipe, how, shop.out) | {"fewer_steps": fewer(pipe, shop.out, range(1, how.steps))}
    write_fast_card(shop.out, quality, shop.durations())


def _finish(folder: Path) -> None:
    """Make saved weights load as float32, make them readable for everyone, and remove the folder's path from configs.

    Transformers would load them in float16, as they were saved, beside a float32 UNet. Safetensors makes its files
    readable for their owner only.
    """
    for path in folder.rglob("config.json"):
        lines = path.read_text().replace('"dtype": "float16"', '"dtype": "float32"').splitlines(keepends=True)
        path.write_text("".join(line for line in lines if '"_name_or_path"' not in line))
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)


def _tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    encoded = tokenizer(texts, padding="max_length", max_length=models.MAX_TOKENS, truncation=True)
    return torch.tensor(encoded.input_ids)
