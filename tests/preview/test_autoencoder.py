import copy

import pytest
import torch
from diffusers import AutoencoderKLLTXVideo
from PIL import Image

from dnp_guard.errors import DnpGuardError
from dnp_guard.glyphs.loading import load_pipeline
from dnp_guard.preview import linear
from dnp_guard.preview.autoencoder import decode, encode, to_pictures, to_tensor
from tests.hosts.tiny import tiny


@pytest.mark.models
def test_a_prediction_that_is_not_a_number_is_an_error_and_no_black_picture():
    latents = torch.zeros(1, 8, 8, 8)
    latents[0, 0, 0, 0] = torch.nan
    with pytest.raises(DnpGuardError, match="not finite"):
        decode(load_pipeline().vae, latents)


@pytest.mark.models
def test_what_is_encoded_decodes_to_nearly_the_same():
    vae, grey = load_pipeline().vae, Image.new("RGB", (32, 32), (128, 128, 128))
    (picture,) = decode(vae, encode(vae, grey, torch.device("cpu")))
    assert (to_tensor([picture]) - to_tensor([grey])).abs().mean() < 0.1


def test_pictures_and_tensors_are_each_others_inverse():
    pixels = torch.randint(0, 256, (2, 3, 4, 6), generator=torch.Generator().manual_seed(0)).float() / 255
    torch.testing.assert_close(to_tensor(to_pictures(pixels)), pixels)


@pytest.fixture
def overflowing():
    """Return an autoencoder whose decoder exceeds the range of float16, as that of Stable Diffusion XL does."""
    vae = copy.deepcopy(tiny("StableDiffusionXLPipeline").vae)
    with torch.no_grad():
        vae.decoder.conv_in.weight *= 1e5
    return vae.half()


LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def test_an_autoencoder_that_overflows_in_half_precision_shows_what_it_shows_in_single_precision(overflowing):
    expected = [picture.tobytes() for picture in decode(copy.deepcopy(overflowing).float(), LATENTS)]
    assert [picture.tobytes() for picture in decode(overflowing, LATENTS)] == expected


def test_an_autoencoder_that_was_upcast_is_bit_for_bit_what_it_was(overflowing):
    before = {name: value.clone() for name, value in overflowing.state_dict().items()}
    decode(overflowing, LATENTS)
    after = overflowing.state_dict()
    for name, value in before.items():
        assert after[name].dtype == value.dtype
        assert after[name].equal(value)


def test_a_linear_map_is_fitted_to_an_autoencoder_that_overflows(overflowing):
    assert linear.fit(overflowing, torch.device("cpu")).weight.isfinite().all()


def test_a_picture_that_is_not_a_number_is_an_error_and_no_black_picture(overflowing):
    broken = overflowing.float()
    with torch.no_grad():
        broken.decoder.conv_out.bias.fill_(torch.nan)
    with pytest.raises(DnpGuardError, match="not finite"):
        decode(broken, LATENTS)


def test_a_decoder_that_adds_noise_does_not_draw_on_the_callers_random_numbers():
    wide = dict.fromkeys(("block_out_channels", "decoder_block_out_channels"), (8, 8, 8, 8))
    layers = dict.fromkeys(("layers_per_block", "decoder_layers_per_block"), (1, 1, 1, 1, 1))
    vae = AutoencoderKLLTXVideo(latent_channels=8, decoder_inject_noise=(True,) * 5, patch_size=1, **wide, **layers)
    torch.manual_seed(0)
    expected = torch.rand(4)
    torch.manual_seed(0)
    decode(vae.eval(), torch.zeros(1, 8, 4, 4))
    assert torch.equal(torch.rand(4), expected)
