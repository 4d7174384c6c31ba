"""Flow runs whose process is gone, and which the server takes for running."""

from typing import Any

import httpx

_UNFINISHED = {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}

_CRASHED = {
    "type": "CRASHED",
    "name": "Crashed",
    "message": "Its process has ended; run again, it goes on where it stopped.",
}


def crash_orphans(api: str, pool: str) -> int:
    """Mark as crashed all unfinished runs of a work pool that no worker is at work on.

    As long as they count as running they hold their deployment's place, and nothing else is run.

    Args:
        api: the server's address.
        pool: the work pool; it has no worker.

    Returns:
        How many there were, subflows counted too.
    """
    found = _find(api, {"state": _UNFINISHED}, {"name": {"any_": [pool]}})
    count = 0
    while found:
        for run in found:
            path = f"{api}/flow_runs/{run['id']}/set_state"
            httpx.post(path, json={"state": _CRASHED, "force": True})
        count += len(found)
        parents = {"any_": [run["id"] for run in found]}
        found = _find(api, {"state": _UNFINISHED, "parent_flow_run_id": parents})
    return count


def _find(
    api: str, runs: dict[str, Any], pool: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    content = {"flow_runs": runs, **({"work_pools": pool} if pool else {})}
    answer = httpx.post(f"{api}/flow_runs/filter", json=content)
    return list(answer.json()) if answer.status_code == 200 else []
