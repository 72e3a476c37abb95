"""Independent work on several processes: on this machine, or on a cluster through Ray.

    for item, value in Processes(2).map(build, items):
        ...

`build` is made anew in each worker, once, from what can be sent there (a *recipe*), and returns the
function of an item; the values come back in any order, and whoever asked for them keeps them. What
is built is the same everywhere, so that a value does not depend on who computed it.

`parallel.ranks` is for the other kind: one computation whose samples several processes share.
"""

from isoloss.parallel.executor import Executor, InProcess, WorkError
from isoloss.parallel.processes import Processes, end_with_parent
from isoloss.parallel.ray_cluster import RayCluster

__all__ = ["Executor", "InProcess", "Processes", "RayCluster", "WorkError", "end_with_parent"]
