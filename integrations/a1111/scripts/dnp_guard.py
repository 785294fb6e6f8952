"""Register DNP Guard with the web UI: its accordion, its section of the settings page, and its hooks.

The hooks do their work in ``dnp_guard_extension.guarding``.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
from dnp_guard_extension import host
from dnp_guard_extension.guarding import Guarding
from dnp_guard_extension.settings import DECODERS, ON_FAILURE, Settings, option
from modules import script_callbacks, scripts, shared

_TITLE = "DNP Guard"
_SECTION = ("dnp_guard", _TITLE)

guarding = Guarding()


class DnpGuardScript(scripts.Script):
    """The extension's script, whose hooks the web UI calls for every job of txt2img and img2img."""

    def title(self) -> str:
        """Return the script's name, which is also its key in the API's ``alwayson_scripts``."""
        return _TITLE

    def show(self, is_img2img: bool) -> Any:  # noqa: FBT001 (the host calls it so)
        """Have the script run for every job, in txt2img and in img2img."""
        return scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> list[Any]:  # noqa: FBT001 (the host calls it so)
        """Build the accordion, and return its controls, whose values become the script's arguments.

        The host may call this several times.
        """
        settings = guarding.settings()
        free = isinstance(settings, Settings) and not settings.locked
        shown = settings if isinstance(settings, Settings) else Settings()
        names_one = free and not shown.policy
        with gr.Accordion(_TITLE, open=False):
            light = gr.Markdown(value=guarding.light)
            last = gr.Markdown(value=guarding.last)
            if not free:
                gr.Markdown("The operator has set the guard; there is nothing to choose here.")
            # A fixed value is not shown as a control, but it remains an argument of the script.
            enabled = gr.Checkbox(value=True, label="Enabled", interactive=free, visible=free)
            policy = gr.Textbox(
                value=shown.policy, label="Policy", lines=1, max_lines=1, interactive=names_one, visible=names_one
            )
            look = gr.Button("Look again")
            look.click(fn=lambda: (guarding.light(), guarding.last()), inputs=[], outputs=[light, last])
        return [enabled, policy]

    def process(self, p: Any, *arguments: Any) -> None:
        """Begin to guard a job; ``p`` is the host's processing object, and ``arguments`` are the script's controls."""
        guarding.begin(p, arguments)

    def process_batch(self, p: Any, *arguments: Any, **values: Any) -> None:
        """Begin to guard a batch of a job."""
        guarding.batch_begins(p, values["prompts"], values["batch_number"])

    def process_before_every_sampling(self, p: Any, *arguments: Any, **values: Any) -> None:
        """Begin to guard a sampling pass: the ordinary one, or the second one of a hires fix."""
        job = guarding.job(p)
        if job is not None:
            job.pass_begins(p.sampler)

    def postprocess_batch(self, p: Any, *arguments: Any, **values: Any) -> None:
        """Make the final look at a decoded batch, and overwrite the images that are withheld."""
        job = guarding.job(p)
        if job is not None:
            job.batch_done(values["images"])

    def postprocess_image(self, p: Any, pp: Any, *arguments: Any) -> None:
        """Replace a finished image that is withheld, before the host saves it."""
        job = guarding.job(p)
        if job is not None:
            pp.image = job.delivered(pp.image, p.batch_index)

    def postprocess_image_after_composite(self, p: Any, pp: Any, *arguments: Any) -> None:
        """Replace a withheld image again, after the host has pasted the inpainted part into the original picture."""
        self.postprocess_image(p, pp)

    def postprocess(self, p: Any, processed: Any, *arguments: Any) -> None:
        """End the guarding of a job."""
        guarding.end(p)


def _changed() -> None:
    if host.called_by_a_program():
        raise PermissionError("DNP Guard: its settings are changed in the page or its file, not through the API.")


def _settings_page() -> None:
    defaults, fixed = guarding.defaults(), guarding.fixed()

    def add(name: str, label: str, component: Any = None, choices: Any = None) -> None:
        arguments = {"interactive": False} if name in fixed else {}
        info = shared.OptionInfo(
            fixed.get(name, getattr(defaults, name)),
            label,
            component,
            {**arguments, "choices": list(choices)} if choices else dict(arguments),
            onchange=_changed,
            section=_SECTION,
            restrict_api=True,
        )
        shared.opts.add_option(option(name), info)
        if name in fixed:  # show the values in force, not earlier saved ones
            shared.opts.data[option(name)] = fixed[name]

    add("url", "Address of the guard service")
    add("policy", "Policy to be stricter by than what is in force at the service; empty for none")
    add("on_failure", "Where the service cannot be reached", gr.Radio, ON_FAILURE)
    add("locked", "Show users these settings without letting them change them", gr.Checkbox)
    add("decoder", "Decoder of what the service looks at", gr.Radio, DECODERS)


def _app_started(_: Any, app: Any) -> None:
    app.add_api_route("/dnp-guard/status", guarding.status, methods=["GET"])


guarding.install()
script_callbacks.on_cfg_denoiser(guarding.before)
script_callbacks.on_cfg_denoised(guarding.answered)
script_callbacks.on_cfg_after_cfg(guarding.after)
script_callbacks.on_before_image_saved(guarding.saved)
script_callbacks.on_ui_settings(_settings_page)
script_callbacks.on_app_started(_app_started)
script_callbacks.on_script_unloaded(guarding.remove)
