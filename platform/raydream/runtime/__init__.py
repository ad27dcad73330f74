"""The Ray processes of a run: actors, Ray Train's function, session, pool and placement, each a thin shell."""

import os

# Ray reads these when it is imported and when its processes start, so they are set before any module here imports it.
SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a report of the student waits for the next check
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean the same in every process
    # Processes here reserve fractions of CPUs, so that there are more of them than Ray expects, and warns of.
    "RAY_worker_maximum_startup_concurrency": str(max(8, os.cpu_count() or 1)),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a process that reserves no GPU sees none
}
if not os.environ.get("RAY_ADDRESS"):
    SETTINGS["RAY_AUTH_MODE"] = "token"  # what a private cluster does by itself, with a warning
for _name, _value in SETTINGS.items():
    os.environ.setdefault(_name, _value)
