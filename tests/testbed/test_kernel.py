import os
import shutil

import pytest

from fedpace.core.errors import RunError
from fedpace.testbed.kernel import call, examine, missing
from testbed.shaped import needs_kernel


def test_without_root_one_line_says_so_and_how_to_become_it(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    findings = {f.name: f for f in examine()}
    assert not findings["root"].there
    assert "CONFIG_VETH" not in findings, "nothing is tried that cannot work"
    told = missing(list(findings.values()))
    assert "root" in told
    assert "sudo" in told
    assert "\n" not in told


def test_without_iproute2_the_package_is_named(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "apt-get install iproute2" in missing(examine())


@needs_kernel
def test_what_is_optional_may_be_missing():
    findings = examine()
    optional = {f.name for f in findings if not f.needed}
    assert optional == {"CONFIG_NET_SCH_NETEM", "CONFIG_NET_SCH_FQ"}
    assert missing(findings) is None
    assert all(f.there or f.remedy for f in findings)


@needs_kernel
def test_a_command_that_fails_says_what_the_kernel_said():
    with pytest.raises(RunError, match=r"ip netns exec no-such true: .*no-such.*--check"):
        call("ip", "netns", "exec", "no-such", "true")
