"""The store's reports on localhost, so that Prefect's UI can link to them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import FileResponse, HTMLResponse
from jinja2 import Environment, StrictUndefined

SHOWN = (
    "report.html",
    "picture.svg",
    "search.yaml",
    "ledger.json",
    "finalists.parquet",
    "responses.parquet",
    "bank.parquet",
    "comparison.yaml",
    "comparison.parquet",
)
"""The files of a run folder that are served: no model, and nothing of the store's own."""

_INDEX = """\
<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>mergeflow: runs</title>
<style>body { font: 16px/1.6 system-ui, sans-serif; max-width: 46rem; margin: 2.5rem auto; }
small { color: #666; }</style>
<h1>Runs</h1>
{% for run, files in runs.items() -%}
<p><b>{{ run }}</b><br><small>
{%- for file in files %}<a href="{{ run }}/{{ file }}">{{ file }}</a>
{% endfor %}</small></p>
{% else %}<p>Nothing has been finished yet.</p>
{% endfor %}</html>
"""


def reports_app(store: Path) -> FastAPI:
    """A site of the store's reports and tables; it answers only to this machine's own names."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    page = Environment(undefined=StrictUndefined, autoescape=True).from_string(_INDEX)

    @app.get("/")
    def index() -> HTMLResponse:
        folders = sorted(store.iterdir()) if store.is_dir() else []
        runs = {folder.name: _shown(folder) for folder in folders}
        return HTMLResponse(page.render(runs={run: files for run, files in runs.items() if files}))

    @app.get("/{run}/{file}")
    def file(run: str, file: str) -> FileResponse:
        folder = store / run
        # A name is compared with those that are there, so that none leads out of the store.
        if folder.name.startswith(".") or folder not in store.iterdir() or file not in SHOWN:
            raise HTTPException(404, "no such file")
        if not (folder / file).is_file():
            raise HTTPException(404, f"{run} has no {file} yet")
        return FileResponse(folder / file)

    return app


def _shown(folder: Path) -> list[str]:
    if folder.name.startswith("."):
        return []
    return [name for name in SHOWN if (folder / name).is_file()]


@contextmanager
def served(store: Path, port: int) -> Iterator[str]:
    """Serve the store's reports while the context lasts; gives the address.

    Args:
        store: folder of run folders.
        port: on 127.0.0.1, free.
    """
    config = uvicorn.Config(reports_app(store), host="127.0.0.1", port=port, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
