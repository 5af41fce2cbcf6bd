"""`memcommons clean`: remove what dead clusters left behind.  What a living hypervisor holds is never touched."""

from shm.errors import UsageProblem
from shm.names import checked_cluster, leftovers, objects, remove


def sweep(cluster: str | None) -> list[str]:
    """Remove the names of dead clusters, or of one; return lines for people."""
    if cluster is not None:
        checked_cluster(cluster)
    dead = leftovers(cluster)
    if not dead and cluster is not None and objects(cluster):
        raise UsageProblem(f"cluster {cluster!r} is not ours to clean: it is alive, or another user's; stop it with "
                           f"`memcommons ctl {cluster} stop`")
    removed = remove(dead)
    lines = [f"removed {item.kind} {item.name} of cluster {item.cluster}" for item in removed]
    return lines or ["nothing to remove"]
