"""Names in docs/methods.md are those of the code."""

import dataclasses
import re

import pytest
from common import MODULES, ROOT

METHODS = (ROOT / "docs/methods.md").read_text()


@pytest.mark.parametrize("algo", MODULES)
def test_every_option_is_listed(algo):
    _, _, rest = METHODS.partition("\n## Options\n")
    part, _, _ = rest.partition("\n## ")
    listed = set(re.findall(r"`(\w+)`", part))
    options = {field.name for field in dataclasses.fields(MODULES[algo].Args)}
    assert options <= listed


def test_what_it_points_at_is_there():
    """As `Agent.draw`, in some algorithm's file"""
    found = set(re.findall(r"`(Actor|Agent|Envs)\.(\w+)`", METHODS))
    assert len(found) > 10
    gone = []
    for owner, name in sorted(found):
        owners = [getattr(module, owner) for module in MODULES.values()]
        if not any(hasattr(each, name) for each in owners):
            gone.append(f"{owner}.{name}")
    assert gone == []
