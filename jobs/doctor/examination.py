"""The examination of a cluster: all nodes are asked, storage is read back, links are measured."""

from contextlib import suppress
from dataclasses import replace
from time import time
from uuid import uuid4

from analysis.measured.mlflow_export import DeletedExperimentError
from jobs.doctor.findings import Finding, judge, judge_link, judge_sharing
from jobs.execution.cluster import Node, check_fits, nodes
from jobs.execution.node_facts import Facts, Question
from jobs.execution.node_survey import RayNode, ask, link_speed, living_nodes, may_train
from jobs.requests.options import check_tracking
from jobs.tracking.server_check import is_server
from pipeline.errors import InputError, first_line
from pipeline.runs.provenance import hardware, source_digest, versions
from pipeline.storage import Storage


def examine_cluster(
    storage: Storage, tracking: str, dataset_id: str, workers: int, each: Node
) -> list[Finding]:
    """Findings about the cluster that is connected, for `workers` workers that take `each`."""
    living = living_nodes()
    probe = f".doctor-{uuid4().hex[:8]}"
    began = time()
    # The asker's own facts, to compare with: only versions, code and time of it count.
    asker = Facts(
        host="here",
        address="",
        head=False,
        time=began,
        versions=versions(),
        source=source_digest(),
        hardware=hardware(),
        trains=False,
        gpus=0,
        gpus_seen=0,
        writes="",
        reads="",
        mine="",
    )
    # Each node reads what is written here and writes what is read here: only then is a storage
    # shared. The probe files go even where a node never answered.
    try:
        storage.write(probe, b"asker")
        question = Question(storage.uri, probe, tracking, dataset_id)
        facts, silent = ask(living, question)
        unseen = _unseen(storage, facts)
    finally:
        with suppress(OSError):
            for name in storage.names(""):
                if name.startswith(probe):
                    storage.delete(name)
    asker = replace(asker, seconds=time() - began)
    findings = judge(facts, silent, unseen, asker, question)
    if not is_server(tracking):
        findings.append(_judge_database(tracking, storage))
    findings.append(_judge_resources(workers, each))
    findings += judge_sharing(facts, each.get("GPU", 0.0))
    # A head that only drives exchanges no gradients.
    training = {answer.address for answer in facts if answer.trains}
    linked = [node for node in living if node["NodeManagerAddress"] in training and may_train(node)]
    if len(linked) > 1:
        findings.append(_examine_link(linked))
    return findings


def _unseen(storage: Storage, facts: list[Facts]) -> dict[str, str]:
    """By address, what the asker cannot read of what nodes say they have written."""
    unseen = {}
    # Read back from here, because a mount may be writable everywhere and yet not be one place.
    for answer in facts:
        try:
            arrived = not answer.mine or storage.read_if_there(answer.mine) is not None
        except OSError as error:
            unseen[answer.address] = f"what it writes cannot be read here ({first_line(error)})"
            continue
        if not arrived:
            unseen[answer.address] = "what it writes does not arrive here"
    return unseen


def _judge_database(tracking: str, storage: Storage) -> Finding:
    """Whether MLflow's store can be opened without a server, as drivers on the head will."""
    try:
        check_tracking(tracking, storage)
    except DeletedExperimentError as error:
        return Finding("MLflow", "problem", str(error))
    except InputError as error:
        remedy = "name a server with --tracking http://HOST:5000"
        return Finding("MLflow", "problem", str(error), remedy)
    return Finding("MLflow", "fine", "its database can be opened here")


def _judge_resources(workers: int, each: Node) -> Finding:
    """Whether what is asked for can ever be had."""
    resources = " and ".join(f"{amount:g} {name}" for name, amount in each.items() if amount)
    try:
        check_fits(nodes(), workers, each)
    except InputError as error:
        says, _, remedy = str(error).rpartition("; ")
        return Finding("resources", "problem", says, remedy)
    return Finding("resources", "fine", f"there is room for {workers} worker(s) of {resources}")


def _examine_link(linked: list[RayNode]) -> Finding:
    """What the speed between nodes comes to, or that workers on them cannot meet at all."""
    try:
        rate, count = link_speed(linked)
    except Exception as error:
        says = f"workers on two nodes cannot meet ({first_line(error)[:120]})"
        remedy = "open all ports between the nodes, or keep a run on one node"
        return Finding("network", "problem", says, remedy)
    return judge_link(rate, count)
