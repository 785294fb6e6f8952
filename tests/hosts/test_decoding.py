import pytest
import torch
from diffusers import AutoencoderTiny

from dnp_guard.errors import CannotSteer
from dnp_guard.guard import Guard
from dnp_guard.hosts.diffusers.showing.decoding import decoder, placed
from dnp_guard.policy import load_policy
from dnp_guard.preview import maps
from dnp_guard.preview.autoencoder import decode, unscaled
from tests.hosts.tiny import tiny


def tiny_autoencoder(channels=4):
    torch.manual_seed(0)
    kind = AutoencoderTiny(
        latent_channels=channels,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    return kind.eval()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(maps.FOLDER_VARIABLE, str(tmp_path / "cache"))


def latents(pipe, side=8):
    return torch.randn(2, pipe.vae.config.latent_channels, side, side, generator=torch.Generator().manual_seed(3))


def test_vae_decodes_with_the_pipelines_own():
    pipe = tiny("StableDiffusionXLPipeline")
    z = latents(pipe)
    shown = [picture.tobytes() for picture in decoder(pipe, pipe.vae, "vae")(unscaled(pipe.vae, z))]
    assert shown == [picture.tobytes() for picture in decode(pipe.vae, z)]


def test_auto_takes_a_given_tiny_autoencoder_and_otherwise_the_pipelines_own():
    pipe, given = tiny("StableDiffusionXLPipeline"), tiny_autoencoder()
    z = latents(pipe)
    by_tiny = [picture.tobytes() for picture in decode(given, z)]
    assert [picture.tobytes() for picture in decoder(pipe, pipe.vae, "auto", given)(unscaled(pipe.vae, z))] == by_tiny
    assert [picture.tobytes() for picture in decoder(pipe, pipe.vae, "tiny", given)(unscaled(pipe.vae, z))] == by_tiny
    assert [picture.tobytes() for picture in decoder(pipe, pipe.vae, "auto")(unscaled(pipe.vae, z))] != by_tiny


def test_a_tiny_autoencoder_beside_the_model_is_found(tmp_path, monkeypatch):
    pipe, given = tiny("StableDiffusionXLPipeline"), tiny_autoencoder()
    given.save_pretrained(tmp_path / "vae_tiny")
    monkeypatch.setattr(type(pipe), "name_or_path", str(tmp_path), raising=False)
    z = latents(pipe)
    shown = [picture.tobytes() for picture in decoder(pipe, pipe.vae, "auto")(unscaled(pipe.vae, z))]
    assert shown == [picture.tobytes() for picture in decode(given, z)]


def test_tiny_without_one_cannot_be_attached():
    policy = load_policy("glyphs")
    policy = policy.model_copy(update={"preview": policy.preview.model_copy(update={"method": "tiny"})})
    with Guard(policy, vlm="glyphs") as guard, pytest.raises(CannotSteer, match="no AutoencoderTiny"):
        tiny("StableDiffusionXLPipeline").callback_on_step_end = guard


def test_a_tiny_autoencoder_of_other_latents_is_refused():
    pipe = tiny("StableDiffusionXLPipeline")
    with pytest.raises(CannotSteer, match="takes 16 latent channels"):
        decoder(pipe, pipe.vae, "auto", tiny_autoencoder(16))


def test_a_folder_without_an_autoencoder_is_refused(tmp_path):
    pipe = tiny("StableDiffusionXLPipeline")
    with pytest.raises(CannotSteer, match="holds no autoencoder"):
        decoder(pipe, pipe.vae, "auto", tmp_path)


def test_a_spoilt_folder_is_refused(tmp_path):
    pipe = tiny("StableDiffusionXLPipeline")
    tiny_autoencoder().save_pretrained(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CannotSteer, match="cannot be loaded"):
        decoder(pipe, pipe.vae, "auto", tmp_path)


@pytest.mark.parametrize("spoil", [b"", b"not json", b"[]"])
def test_a_folder_with_a_spoilt_configuration_is_refused(tmp_path, spoil):
    pipe = tiny("StableDiffusionXLPipeline")
    tiny_autoencoder().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes(spoil)
    with pytest.raises(CannotSteer, match="cannot be loaded"):
        decoder(pipe, pipe.vae, "auto", tmp_path)


def test_a_folder_of_another_autoencoder_is_refused_and_its_weights_are_not_drawn(tmp_path):
    pipe = tiny("StableDiffusionXLPipeline")
    pipe.vae.save_pretrained(tmp_path)
    with pytest.raises(CannotSteer, match="it holds an AutoencoderKL"):
        decoder(pipe, pipe.vae, "auto", tmp_path)


def test_a_given_autoencoder_decodes_on_another_device_and_stays_where_it_is():
    given, there = tiny_autoencoder(), torch.device("meta")
    assert placed(given, there).device == there
    assert placed(given, there) is placed(given, there)
    assert placed(given, given.device) is given
    assert given.device != there


@pytest.mark.models
@pytest.mark.parametrize("method", ["vae", "tiny", "linear", "auto"])
def test_every_method_steers_the_embedded_model(pipe, method):
    policy = load_policy("glyphs")
    policy = policy.model_copy(update={"preview": policy.preview.model_copy(update={"method": method})})
    with Guard(policy, vlm="glyphs") as guard, guard.attached(pipe):
        pipe(["a red circle and a blue zorp at night"], num_inference_steps=25, guidance_scale=5.0,
             generator=torch.Generator().manual_seed(11))  # fmt: skip
    report = guard.last
    assert not report.degraded
    assert report.images[0].negatives
