"""node check: what is right and wrong with an enrolled node, asked of its agent."""

from __future__ import annotations

from novactl import __version__
from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.conductor import fleet
from novactl.db import meta, nodes
from novactl.errors import NovaError
from novactl.model.finding import Finding
from novactl.model.node import Node


def check(cluster: Cluster, node: Node) -> tuple[Finding, ...]:
    """Handshake, identity, versions, libvirt, storage, leftovers. The report it takes is stored."""
    asked = cluster.clock.monotonic()
    try:
        hello: wire.Hello = cluster.agents.call(node, "agent.hello").body
    except NovaError as error:
        with cluster.db.write() as tx:
            nodes.silent(tx, node.id, cluster.clock.now())
        return (Finding("agent", "fail", error.message, error.hint or error.command),)
    took_ms = (cluster.clock.monotonic() - asked) * 1000
    findings = [Finding("agent", "ok", f"answered in {took_ms:.0f} ms as {hello.role}"), *_identity(cluster, node, hello)]
    try:
        report: wire.Report = cluster.agents.call(node, "inventory.read", wire.InventoryRead(0.0)).body
    except NovaError as error:
        return (*findings, Finding("libvirt", "fail", error.message, error.hint or "look at the agent's log on the host"))
    with cluster.db.write() as tx:
        fleet.take_report(tx, node.id, report, cluster.clock.now())
    return (*findings, *_report(report))


def _identity(cluster: Cluster, node: Node, hello: wire.Hello) -> list[Finding]:
    with cluster.db.read() as tx:
        cluster_id = meta.cluster_id(tx)
    found = []
    if (hello.node_id, hello.cluster_id) == (node.id, cluster_id):
        found.append(Finding("identity", "ok", f"node {node.id}"))
    else:
        found.append(Finding(
            "identity", "fail", f"the agent is node {hello.node_id} of cluster {hello.cluster_id}", f"novactl node enroll {node.ssh}"))
    same = hello.agent_version == __version__
    found.append(Finding(
        "version", "ok" if same else "warn", f"agent {hello.agent_version}, Python {hello.python_version}, ZeroMQ {hello.zmq_version}",
        "" if same else f"this is novactl {__version__}: enrol again to bring the agent up to date"))
    return found


def _report(report: wire.Report) -> list[Finding]:
    versions = ", ".join(f"{name} {version}" for name, version in sorted(report.versions.items()))
    kvm = report.virt_type == "kvm"
    free_gb = report.disk_gb - report.disk_used_gb
    room = report.memory_mb - report.memory_used_mb
    return [
        Finding("libvirt", "ok", versions),
        Finding("virtualisation", "ok" if kvm else "warn", f"{report.virt_type} on {report.architecture}",
                "" if kvm else "no hardware virtualisation: guests are emulated and slow; see the BIOS settings and /dev/kvm"),
        Finding("memory", "ok" if room > 256 else "warn", f"{room} of {report.memory_mb} MiB free", "" if room > 256 else "the host is short of memory"),
        Finding("storage", "ok" if free_gb >= 1 else "fail", f"{free_gb} of {report.disk_gb} GiB free",
                "" if free_gb >= 1 else "make room in the storage pool"),
        Finding("domains", "ok", f"{len(report.domains)} ours, {report.foreign_domains} others'"),
    ]
