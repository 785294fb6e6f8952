import pytest
import torch
from PIL import Image

from dnp_guard.errors import DnpGuardError
from dnp_guard.glyphs.loading import load_pipeline
from dnp_guard.preview import decode, encode, to_pictures, to_tensor


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
