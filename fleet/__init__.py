"""Many pictures over many WebUIs: prompt lists and folders of pictures, on Ray. `python -m fleet --help`.

The extension does not need this package; `requirements-fleet.txt` names what it needs.
"""

import os

# Ray reads these as it is imported. What the environment says goes before.
for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing leaves these machines
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # what matters reaches us as an exception
    "RAY_task_events_report_interval_ms": "0",  # Ray would keep a record of ten kilobytes of each call
    "RAY_ENABLE_AUTO_CONNECT": "0",  # else a thread that asks for a moment too long starts Ray again
    "RAY_worker_niceness": "0",  # Ray would let whatever computes go before: makers only wait
}.items():
    os.environ.setdefault(_name, _value)
