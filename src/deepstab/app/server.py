"""The server that shows the page on this machine, and to nobody else."""

from __future__ import annotations

import os
import tempfile
import threading
from contextlib import closing
from pathlib import Path

from deepstab.app import picture
from deepstab.app.visits import Service, Visits
from deepstab.errors import ParameterError

_HOST = "127.0.0.1"


def serve(service: Service, *, port: int) -> None:
    """Show the page on 127.0.0.1 until interrupted; nothing that was uploaded stays.

    Raises:
        ParameterError: something else listens on the port.
    """
    with tempfile.TemporaryDirectory(prefix="deepstab-app-") as folder:
        # Read where it is imported. It would tell its makers of every start.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        # It asks itself whether it is there, and no proxy.
        os.environ |= {"NO_PROXY": _HOST, "no_proxy": _HOST}
        # Uploads begin there.
        tempfile.tempdir = folder
        with closing(Visits(Path(folder), service)) as visits:
            _serve(visits, service, folder, port)


def _serve(visits: Visits, service: Service, folder: str, port: int) -> None:
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from deepstab.app.page import build

    page = build(visits, service.limits)
    # Another site's name that leads here is refused.
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=[_HOST, "localhost"])
    try:
        page.launch(
            server_name=_HOST,
            server_port=port,
            share=False,
            max_file_size=service.limits.num_bytes,
            allowed_paths=[folder],
            app_kwargs={"docs_url": None, "redoc_url": None, "middleware": [guard]},
            theme=gr.themes.Default(
                primary_hue="orange",
                font=["system-ui", "sans-serif"],
                font_mono=["ui-monospace", "monospace"],
            ).set(
                # White on it can be read.
                button_primary_background_fill="*primary_700",
                button_primary_background_fill_dark="*primary_700",
                button_primary_background_fill_hover="*primary_800",
                button_primary_background_fill_hover_dark="*primary_800",
            ),
            css_paths=[picture.CSS],
            footer_links=[],
            run_history=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise ParameterError(
            f"port {port} of {_HOST} cannot be used ({error}); give another by --port"
        ) from None
    print(f"DeepStab is at http://{_HOST}:{port}; Ctrl-C ends it", flush=True)
    try:
        threading.Event().wait()
    finally:
        page.close(verbose=False)
