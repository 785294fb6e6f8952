"""``dnp-guard preview``: prepare the decoding of predicted images into previews."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dnp_guard.cli.console import AsJson, print_json
from dnp_guard.errors import DnpGuardError
from dnp_guard.extras import needs

app = typer.Typer(help="Prepare the decoding of predicted images.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def fit(
    *,
    model: Annotated[str, typer.Option("--model", "-m", help="'glyphs', folder of a pipeline, or cached hub id.")],
    as_json: AsJson = False,
) -> None:
    """Fit the linear map of `preview.method: linear` to a model's autoencoder, store it, and report its error."""
    needs("diffusers", "dnp-guard preview")
    import torch  # noqa: PLC0415 (--help should not wait for it)

    from dnp_guard.preview.maps import file_of, linear_map  # noqa: PLC0415

    vae = _autoencoder(model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    fitted = linear_map(vae.to(device), device)
    file = file_of(vae)
    stored = file is not None and file.exists()
    if as_json:
        print_json(
            {
                "autoencoder": type(vae).__name__,
                "file": str(file) if file else None,
                "kept": stored,
                "rmse255": fitted.error,
                "rmse255_of_one_colour": fitted.constant,
                "pixels_a_latent": fitted.patch,
            }
        )
        return
    place = file or "the cache"
    typer.echo(f"{place}" if stored else f"{place} could not be written; the map is fitted again on use")
    typer.echo(
        f"on held-out drawn pictures, the root mean square error against {type(vae).__name__} is {fitted.error:.1f} of "
        f"255; the error of the best single colour is {fitted.constant:.1f}"
    )


def _autoencoder(model: str) -> Any:
    from diffusers import AutoModel  # noqa: PLC0415 (--help should not wait for it)

    from dnp_guard.glyphs import PIPELINE  # noqa: PLC0415

    folder = PIPELINE if model == "glyphs" else Path(model)
    try:
        vae = AutoModel.from_pretrained(
            str(folder) if folder.is_dir() else model, subfolder="vae", use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise DnpGuardError(
            f"{model}: no autoencoder could be loaded: {str(error).splitlines()[0]}",
            hint="Give the folder of a pipeline that contains vae/, or a cached hub id.",
        ) from error
    return vae.eval()
