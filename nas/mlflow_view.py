"""The saved view of MLflow's chart page that shows a sweep's scatter without a click."""

from __future__ import annotations

import base64
import json
import time
import zlib

VIEW = "front"  # the id of the saved view


def chart_view(cost: str) -> str:
    """A saved view of MLflow's chart page, as the page itself stores one: val/acc over `cost` of what finished.

    MLflow does not document this format; another version may ignore it, and nothing here depends on it.
    """
    chart = {
        "uuid": VIEW,
        "type": "SCATTER",
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 100,
        "metricSectionId": "front-section",
        "xaxis": {"key": cost, "type": "METRIC"},
        "yaxis": {"key": "val/acc", "type": "METRIC"},
    }
    section = {
        "uuid": "front-section",
        "name": "Front",
        "display": True,
        "isReordered": False,
        "columns": 1,
        "cardHeight": 600,
    }
    others = " and ".join(f"tags.`nas.kind` != '{kind}'" for kind in ("sweep", "final"))
    state = {
        "searchFilter": f"{others} and attributes.status = 'FINISHED'",
        "orderByKey": "tags.`nas.front`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [],
        "columnOrder": [],
        "columnWidths": {},
        "runsHiddenMode": "SHOWALL",
        "compareRunCharts": [chart],
        "compareRunSections": [section],
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": False,
        "groupBy": None,
        "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    now_ms = int(time.time() * 1000)
    view = {"name": "Front", "createdAt": now_ms, "updatedAt": now_ms, "state": f"deflate;{packed}"}
    return json.dumps(view)
