"""The server that shows the page on this machine, and to nobody else."""

from __future__ import annotations

import os
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from deepstab.app import picture
from deepstab.errors import ParameterError
from deepstab.video.confined import Confinement
from deepstab.video.limits import Limits


@dataclass(frozen=True)
class Service:
    """What the server may spend.

    Attributes:
        limits: of each video.
        confinement: of the process that works on one.
    """

    limits: Limits
    confinement: Confinement


def serve(service: Service, *, port: int) -> None:
    """Show the page on 127.0.0.1 until interrupted; nothing that was uploaded stays.

    Raises:
        ParameterError: something else listens on the port.
    """
    with tempfile.TemporaryDirectory(prefix="deepstab-app-") as folder:
        # Read where it is imported. It would tell its makers of every start.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        import gradio as gr

        from deepstab.app.page import Visits, build

        page = build(service, Visits(Path(folder)))
        try:
            page.launch(
                server_name="127.0.0.1",
                server_port=port,
                max_file_size=service.limits.num_bytes,
                allowed_paths=[folder],
                theme=gr.themes.Default(
                    primary_hue="orange",
                    font=["system-ui", "sans-serif"],
                    font_mono=["ui-monospace", "monospace"],
                ),
                css=picture.CSS,
                footer_links=[],
                quiet=True,
                prevent_thread_lock=True,
            )
        except OSError as error:
            raise ParameterError(
                f"port {port} of 127.0.0.1 cannot be used ({error}); give another by --port"
            ) from None
        print(f"DeepStab is at http://127.0.0.1:{port}; Ctrl-C ends it", flush=True)
        try:
            threading.Event().wait()
        finally:
            page.close(verbose=False)
