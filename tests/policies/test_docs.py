"""The page of rules says what the rules say, and the page of policies names what there is."""

from __future__ import annotations

import json
import re

from docs import policy_rules
from tests.policies.recorded import RULES
from voicemesh_policies import rules
from voicemesh_policies.pack import policies

GUIDE = policy_rules.PAGE.with_name("policies.md").read_text()


def test_the_page_of_rules_is_up_to_date() -> None:
    assert policy_rules.PAGE.read_text() == policy_rules.page(), "write it with `make docs`"


def test_every_rule_is_on_its_page() -> None:
    named = re.findall(r"^### (\S+)$", policy_rules.page(), re.MULTILINE)
    assert named == list(RULES)


def test_the_configurations_in_the_guide_are_of_rules_and_their_settings() -> None:
    for text in re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL):
        for name, own in json.loads(text).items():
            known = RULES[name].settings({}).values.keys() | {"enforcementLevel"}
            assert isinstance(own, str) or own.keys() <= known


def test_the_rules_that_the_guide_names_exist() -> None:
    named = set(re.findall(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`", GUIDE))
    assert named - set(RULES) <= {"voicemesh-policies", "pulumi-policy", "xds-protos"}


def test_the_choice_of_rules_in_the_guide_makes_policies() -> None:
    chosen = [rule for rule in rules.ALL if rule.concern in ("workloads", "gpu", "mesh")]
    assert [it.name for it in policies(chosen)] == [it.name for it in chosen]
