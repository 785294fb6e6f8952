import copy

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import save_file

from dnp_guard.errors import DnpGuardError
from dnp_guard.glyphs.loading import load_pipeline
from dnp_guard.preview import maps
from dnp_guard.preview.autoencoder import decode, encode, encoded, reduced, to_tensor, unscaled
from dnp_guard.preview.linear import draw, fit

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vae():
    return load_pipeline().vae


@pytest.fixture(scope="module")
def fitted(vae):
    return fit(vae, CPU)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(maps.FOLDER_VARIABLE, str(tmp_path))
    return tmp_path


@pytest.mark.models
def test_the_map_shows_what_the_autoencoder_does_about_as_nearly_as_it_says(vae, fitted):
    drawing = torch.Generator().manual_seed(5)
    latents = encoded(vae, torch.stack([draw(drawing, 64) for _ in range(8)]) * 2 - 1)
    exact = to_tensor(decode(vae, latents * vae.config.scaling_factor))
    off = (to_tensor(fitted.decode(latents)) - exact).square().mean().sqrt() * 255
    assert off < 1.5 * fitted.error < 1.5 * fitted.constant / 2


@pytest.mark.models
def test_fitting_draws_from_no_global_generator_and_gives_the_same_map_again(vae, fitted):
    before = torch.get_rng_state()
    again = fit(vae, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again.weight, fitted.weight)
    assert again.error == fitted.error


@pytest.mark.models
def test_a_brighter_picture_looks_brighter(vae, fitted):
    greys = [Image.new("RGB", (32, 32), (level, level, level)) for level in (40, 128, 220)]
    shown = [fitted.decode(unscaled(vae, encode(vae, grey, CPU)))[0] for grey in greys]
    dark, middle, bright = (float(to_tensor([picture]).mean()) for picture in shown)
    assert dark + 0.2 < middle < bright - 0.2


@pytest.mark.models
def test_latents_that_are_not_numbers_are_an_error(fitted):
    with pytest.raises(DnpGuardError, match="not finite"):
        fitted.decode(torch.full((1, 8, 4, 4), torch.inf))


def test_an_autoencoder_with_a_distribution_can_be_fitted_and_half_its_patch_is_kept():
    torch.manual_seed(0)
    kind = AutoencoderKL(block_out_channels=[32, 32], down_block_types=["DownEncoderBlock2D"] * 2,
                         up_block_types=["UpDecoderBlock2D"] * 2, latent_channels=4).eval()  # fmt: skip
    fitted = fit(kind, CPU)
    assert fitted.patch == 2
    assert fitted.pixels(torch.zeros(2, 4, 8, 12)).shape == (2, 3, 16, 24)


@pytest.mark.models
def test_a_map_is_fitted_once_and_read_from_disk_afterwards(vae, cache, monkeypatch):
    first = maps.linear_map(copy.deepcopy(vae), CPU)
    monkeypatch.setattr(maps, "fit", lambda *_: pytest.fail("fitted again"))
    second = maps.linear_map(vae, CPU)
    assert torch.equal(first.weight, second.weight)
    assert second.error == first.error
    assert second.constant == first.constant
    assert maps.linear_map(vae, CPU) is second


@pytest.mark.models
@pytest.mark.parametrize("spoil", ["cut", "other"])
def test_a_spoilt_file_is_fitted_again(vae, cache, spoil):
    file = maps.file_of(vae)
    file.parent.mkdir(parents=True)
    if spoil == "cut":
        file.write_bytes(b"\x08")
    else:
        save_file({"weight": torch.zeros(1)}, file)
    assert maps.linear_map(vae, CPU).error > 0


@pytest.mark.models
def test_a_cache_that_cannot_be_written_costs_only_the_fitting(vae, tmp_path, monkeypatch, cache):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(maps.FOLDER_VARIABLE, str(tmp_path / "file"))
    assert maps.linear_map(vae, CPU).error > 0


@pytest.mark.models
def test_another_autoencoder_has_another_file(vae, cache):
    before = maps.file_of(vae)
    weight = next(vae.parameters())
    with torch.no_grad():
        weight.add_(1)
        other = maps.file_of(vae)
        weight.sub_(1)
    assert other != before


@pytest.mark.parametrize(
    ("size", "expected"), [((8, 8), (8, 8)), ((64, 64), (64, 64)), ((128, 128), (64, 64)), ((96, 192), (32, 64))]
)
def test_large_latents_are_made_small_in_proportion(size, expected):
    latents = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(0))
    small = reduced(latents)
    assert small.shape == (2, 4, *expected)
    torch.testing.assert_close(small.mean((2, 3)), latents.mean((2, 3)))
    assert (small is latents) == (size == expected)
