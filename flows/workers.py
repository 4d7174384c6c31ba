"""The worker processes of a search: started with it, shared by its subflows, ended with it.

Prefect's own task runners hand the tasks out. Each would start and end its processes with every
subflow, and with them the resident models, so the cluster is started here, and a runner that joins
it once is shared by all subflows: what is handed out in one of them may be taken in by another.
"""

import logging
import math
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import certifi
from prefect.context import SettingsContext, get_settings_context
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings
from prefect.task_runners import TaskRunner

from flows.shared_runner import shared
from flows.startup import spared_from_interrupts
from mergelib.files import write_text
from mergelib.sections.compute import Compute
from mergelib.workbench import Workbench

if TYPE_CHECKING:
    from distributed import SpecCluster

_OBJECT_STORE = 128 * 2**20
"""Bytes of shared memory for Ray, which takes 30 % of the machine by default: answers are small."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 2.0, 60.0
"""Seconds between looks for workers that Dask has given up; the longer ones after failed starts."""

logger = logging.getLogger("mergeflow")


@contextmanager
def workers(bench: Workbench) -> Iterator[dict[str, Any]]:
    """Start what a search file's runner needs.

    Args:
        bench: the search's workbench.

    Yields:
        The options of a flow whose tasks are to be handed out.
    """
    compute = bench.search.compute
    if compute.runner == "local":
        yield {}
        return
    # A worker may need all the memory of the GPU on which this process rehearsed.
    bench.release()
    start = {"dask": _dask, "ray": _ray}[compute.runner]
    with _one_server(), start(compute, _gpus(bench)) as joining, shared(joining) as runner:
        if compute.cluster is not None:
            yield {"task_runner": runner}
            return
        context = get_settings_context()
        with _Inherited(profile=context.profile, settings=context.settings):
            yield {"task_runner": runner}


@contextmanager
def _one_server() -> Iterator[None]:
    """Tell workers of this process's embedded server; each would start one of its own."""
    if PREFECT_API_URL.value():
        yield
        return
    from prefect.server.api.server import SubprocessASGIServer

    with temporary_settings({PREFECT_API_URL: SubprocessASGIServer().api_url}):
        yield


class _Inherited(SettingsContext):
    """Settings that the workers have had from the environment since they were started.

    Prefect sends all its settings along with each task, which takes longer than the rest of it.
    """

    def serialize(self, include_secrets: bool = True) -> dict[str, Any]:
        return {}


def _environment() -> dict[str, str]:
    """Prefect's settings here, as a process that is started reads them."""
    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    if settings.get("PREFECT_API_URL", "").startswith("http://"):
        settings.setdefault("PREFECT_API_SSL_CERT_FILE", str(_one_certificate()))
    return settings


def _one_certificate() -> Path:
    """A file with a single authority's certificate, for those who ask a server without TLS.

    A worker makes two clients for each task, and each would parse all that browsers trust: 14 ms.
    """
    end = "-----END CERTIFICATE-----\n"
    text = Path(certifi.where()).read_text(encoding="utf-8")
    file = get_current_settings().home / "one-certificate.pem"
    write_text(file, text[: text.index(end)] + end)
    return file


def _gpus(bench: Workbench) -> int:
    """How many GPUs of this machine the workers are spread over; 0 where none answers."""
    if not bench.device.startswith("cuda"):
        return 0
    import torch

    return torch.cuda.device_count()


@contextmanager
def _dask(compute: Compute, gpus: int) -> Iterator[TaskRunner[Any]]:
    import dask
    from distributed import Nanny, Scheduler, SpecCluster
    from prefect_dask import DaskTaskRunner

    if compute.cluster is not None:
        yield DaskTaskRunner(address=compute.cluster)
        return
    spec = {
        number: {
            "cls": Nanny,
            # Dask would pause and restart workers at a share of the memory that models exceed.
            "options": {
                "nthreads": 1,
                "memory_limit": 0,
                "env": _environment() | _pinned(number, gpus),
            },
        }
        for number in range(compute.workers)
    }
    scheduler = {"cls": Scheduler, "options": {"dashboard": False, "host": "127.0.0.1"}}
    # A candidate whose worker ends is handed out again by `tasks.side_by_side`, not by Dask too.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    settings = {
        "distributed.scheduler.allowed-failures": 0,
        # Dask would close a worker for good that is not back in 15 s; importing PyTorch takes them.
        "distributed.deploy.lost-worker-timeout": "1 hour",
        "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical",
    }
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        with spared_from_interrupts():
            cluster = SpecCluster(workers=spec, scheduler=scheduler)
        stack.enter_context(cluster)
        stack.enter_context(_replaced(cluster))
        yield DaskTaskRunner(address=cluster.scheduler_address)


@contextmanager
def _replaced(cluster: "SpecCluster") -> Iterator[None]:
    """Start another worker in the place of one that Dask has given up.

    Dask starts a worker's process anew when it ends, but not if that one ends while it starts, as
    on a machine short of memory: a search would wait for ever once no worker is left.
    """
    from distributed import Status

    over = threading.Event()

    async def replace() -> None:
        for name, nanny in list(cluster.workers.items()):
            if nanny.status in (Status.closed, Status.failed):
                del cluster.workers[name]
        if cluster.worker_spec.keys() - cluster.workers.keys():
            logger.warning("a worker did not come back; another one is started")
            await cluster  # starts what its specification has and it has not

    def watch() -> None:
        pause = _SHORTEST_PAUSE
        while not over.wait(pause):
            try:
                cluster.sync(replace)
                pause = _SHORTEST_PAUSE
            except Exception as error:  # whatever a start may raise: it is tried again
                pause = min(2 * pause, _LONGEST_PAUSE)
                logger.warning(
                    "a worker did not start: %s; tried again in %.0f s, or stop with Ctrl-C, mend "
                    "the cause and give the same command",
                    error,
                    pause,
                )

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join(timeout=10)


def _pinned(number: int, gpus: int) -> dict[str, str]:
    """The environment that shows a worker one of the GPUs that this process sees."""
    if not gpus:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(gpu) for gpu in range(gpus)]
    return {"CUDA_VISIBLE_DEVICES": names[number % gpus]}


def _share(workers: int, gpus: int) -> float:
    """The part of a GPU that each worker asks for, so that all of them find room; 0 without GPUs.

    Ray puts a part on one GPU and never over two, so that the fullest one decides.
    """
    return 1 / math.ceil(workers / gpus) if gpus else 0


@contextmanager
def _ray(compute: Compute, gpus: int) -> Iterator[TaskRunner[Any]]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Otherwise a token is written to the home folder.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray
    from prefect_ray import RayTaskRunner
    from prefect_ray.context import remote_options

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if compute.cluster is not None:
        ray.init(compute.cluster, **quiet)
    else:
        own = {"num_cpus": compute.workers, "num_gpus": gpus, "include_dashboard": False}
        environment = {"env_vars": _environment()}
        ray.init(
            "local",
            object_store_memory=_OBJECT_STORE,
            runtime_env=environment,
            **own,
            **quiet,
        )
    # Those of the cluster: this machine may have none. Ray hides GPUs from who asks for none.
    asked = compute.device not in ("cpu", "mps") or compute.engine == "vllm"
    gpus = int(ray.cluster_resources().get("GPU", 0)) if asked else 0
    # `max_calls` keeps a process that has a GPU, and with it the model, for the next candidate.
    share = _share(compute.workers, gpus)
    options = {"num_cpus": 1, "num_gpus": share, "max_calls": 0, "max_retries": 0}
    try:
        with remote_options(**options):
            yield RayTaskRunner()
    finally:
        ray.shutdown()
