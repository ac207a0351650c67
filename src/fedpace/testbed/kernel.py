"""`ip` and `tc`: how they are called, and what of the kernel this machine offers."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fedpace.core.errors import RunError

_INSTALL = "install iproute2 (Debian: apt-get install iproute2)"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a testbed uses."""

    name: str
    there: bool
    needed: bool
    """Without it there is no testbed; else what `purpose` says is lost."""
    purpose: str
    remedy: str
    """What would help where it is missing: a command or a kernel option."""


def call(*words: object, accept_failure: bool = False) -> str:
    """Run a command to its end and return what it printed.

    Raises:
        RunError: it failed, with what it said.
    """
    command = [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode and not accept_failure:
        said = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[0]
        raise RunError(f"{' '.join(command)}: {said}; fedpace testbed --check says what is missing")
    return done.stdout


def examine() -> list[Finding]:
    """Try what a testbed needs, in a namespace made for it and removed again."""
    linux, root = sys.platform == "linux", hasattr(os, "geteuid") and os.geteuid() == 0
    tools = {name: shutil.which(name) is not None for name in ("ip", "tc")}
    findings = [
        Finding("Linux", linux, True, "network namespaces", "run it on Linux, or in a Linux VM"),
        Finding("root", root, True, "to make namespaces and links",
                "sudo --preserve-env=PATH fedpace testbed ..."),
        *(Finding(name, there, True, "to make and shape links", _INSTALL)
          for name, there in tools.items()),
    ]  # fmt: skip
    if all(finding.there for finding in findings):
        findings += _features()
    return findings


def missing(findings: list[Finding]) -> str | None:
    """Return one line about what is needed and not there, with its remedy; None: all is there."""
    for finding in findings:
        if finding.needed and not finding.there:
            return f"a testbed needs {finding.name} ({finding.purpose}); {finding.remedy}"
    return None


def _features() -> Iterator[Finding]:
    with _scratch() as space:
        if space is None:
            remedy = "a kernel with CONFIG_NET_NS, and a container with CAP_SYS_ADMIN"
            yield Finding("network namespaces", False, True, "one for each client", remedy)
            return
        yield Finding("network namespaces", True, True, "one for each client", "")

        def tried(*words: object) -> bool:
            return not subprocess.run(
                [str(word) for word in words], capture_output=True, stdin=subprocess.DEVNULL
            ).returncode

        def option(name: str, config: str, needed: bool, purpose: str, there: bool) -> Finding:
            remedy = f"modprobe {name}, or a kernel with {config}"
            return Finding(config, there, needed, purpose, "" if there else remedy)

        link = ("ip", "-n", space, "link", "add", "name")
        yield option("veth", "CONFIG_VETH", True, "links between namespaces",
                     tried(*link, "v0", "type", "veth", "peer", "name", "v1"))  # fmt: skip
        yield option("bridge", "CONFIG_BRIDGE", True, "the access point",
                     tried(*link, "b0", "type", "bridge"))  # fmt: skip
        disc = ("tc", "-n", space, "qdisc", "replace", "dev", "v0", "root")
        yield option("sch_htb", "CONFIG_NET_SCH_HTB", True, "shaping",
                     tried(*disc, "handle", "1:", "htb"))  # fmt: skip
        source = ("protocol", "ip", "prio", 1, "u32", "match", "ip", "src", "10.0.0.1")
        yield option("cls_u32", "CONFIG_NET_CLS_U32", True, "a class for each client",
                     tried("tc", "-n", space, "filter", "add", "dev", "v0", "parent", "1:",
                           *source, "flowid", "1:1"))  # fmt: skip
        yield option("sch_netem", "CONFIG_NET_SCH_NETEM", False, "delay, loss, for your own app",
                     tried(*disc, "netem", "delay", "1ms"))  # fmt: skip
        yield option("sch_fq", "CONFIG_NET_SCH_FQ", False, "pacing of senders in the kernel",
                     tried(*disc, "fq"))  # fmt: skip


@contextmanager
def _scratch() -> Iterator[str | None]:
    space = f"fedpace-check-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", space], capture_output=True)
    try:
        yield None if made.returncode else space
    finally:
        call("ip", "netns", "delete", space, accept_failure=True)
